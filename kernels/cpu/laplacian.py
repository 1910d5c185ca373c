"""The neighbour graph: reverse edges, colours, spatial factors, products with its Laplacian."""

import math

from ..compile import kernel


@kernel()
def link_reverse(indptr, indices, start, stop, reverse_out):
    """Find the edge j -> i of every edge i -> j on a symmetric pattern; overwrites `reverse_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
        Sorted within each row.
    start, stop : int
        Range of spots.
    reverse_out : (n_edges,) int64
    """
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            low = indptr[j]
            high = indptr[j + 1] - 1
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < i:
                    low = middle + 1
                else:
                    high = middle
            reverse_out[e] = low


@kernel()
def colour_spots(indptr, indices, order, colours_out):
    """Give each spot the least colour that none of its neighbours has; fills `colours_out`, which comes as -1.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
    order : (n_spots,) int64
        The spots in the order of their visit.
    colours_out : (n_spots,) int32
    """
    for i in order:
        colour = 0
        taken = True
        while taken:
            taken = False
            for e in range(indptr[i], indptr[i + 1]):
                if colours_out[indices[e]] == colour:
                    taken = True
                    colour += 1
                    break
        colours_out[i] = colour


@kernel()
def place_edges(indptr, distances, scales, start, stop, place_out):
    """Spatial factor exp(-d^2 / (2 s_i^2)) of each edge over the sum of its row; overwrites `place_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    distances : (n_edges,) float64
        Distance in the unit of the coordinates; inf: j is no neighbour of i.
    scales : (n_spots,) float64
        s_i > 0, in the same unit.
    start, stop : int
        Range of spots.
    place_out : (n_edges,) float64
        Rows without neighbours are 0.
    """
    for i in range(start, stop):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            if distances[e] < math.inf:
                ratio = distances[e] / scales[i]
                place_out[e] = math.exp(-0.5 * ratio * ratio)
                total += place_out[e]
            else:
                place_out[e] = 0.0
        if total > 0.0:
            for e in range(indptr[i], indptr[i + 1]):
                place_out[e] /= total


@kernel()
def apply_laplacian(indptr, indices, weights, degrees, values, phi, start, stop, product_out):
    """Product of the CAR matrix D - phi A with the rows of `values`; overwrites `product_out`.

    Parameters
    ----------
    indptr, indices, weights : CSR arrays of A, (n_spots + 1,), (n_edges,), (n_edges,)
    degrees : (n_spots,) float
        Row sums of A.
    values : (n_spots, n_types) float
    phi : float
    start, stop : int
        Range of spots.
    product_out : (n_spots, n_types) float
    """
    n_types = values.shape[1]
    for i in range(start, stop):
        for k in range(n_types):
            product_out[i, k] = degrees[i] * values[i, k]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            pull = phi * weights[e]
            for k in range(n_types):
                product_out[i, k] -= pull * values[j, k]
