"""The neighbour graph: reverse edges, colours, spatial factors, products with its Laplacian."""

import math

import numpy as np

from ..compile import kernel

LEFT_BY_NEWTON = 400.0  # a step of m leaves about m^2 / v of an abundance v, 0.01 and more; a shortened one more


@kernel()
def link_reverse(indptr, indices, start, stop, reverse_out):
    """Find the edge j -> i of every edge i -> j on a symmetric pattern; overwrites `reverse_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
        In any order within a row.
    start, stop : int
        Range of spots.
    reverse_out : (n_edges,) int64
    """
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            back = indptr[j]
            for b in range(np.uint64(indptr[j]), np.uint64(indptr[j + 1])):  # to the end: its place cannot be foretold
                back = np.int64(b) if indices[b] == i else back
            reverse_out[e] = back


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
        Rows without neighbours are 0. May be `distances` itself.
    """
    for i in range(start, stop):
        total = 0.0
        known, factor = -1.0, 0.0  # the last distance and its factor: on a grid there are few
        for e in range(indptr[i], indptr[i + 1]):
            distance = distances[e]
            if distance < math.inf:
                if distance != known:
                    known = distance
                    ratio = known / scales[i]
                    factor = math.exp(-0.5 * ratio * ratio)
                place_out[e] = factor
                total += factor
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


@kernel()
def owe_moves(
    indptr, indices, weights, degrees, ranks, moves, visited, lambda_spatial, phi, lambda_ridge, relax, start, stop,
    owed,
):  # fmt: skip
    """Tell how far each spot may be from its answer after a sweep; updates `owed` in place.

    A neighbour's move m_j shifts the gradient of spot i by at most lambda_s phi a_ij m_j, and the curvature is at
    least lambda_s d_i + lambda_r: their ratio is owed, on top of what was owed before where the spot was not visited.
    A visited spot owes what its own Newton step leaves, some 400 m_i^2, and what over-relaxation overshot; of its
    neighbours only the moves of those that came after it, since it has seen the others.

    Parameters
    ----------
    indptr, indices, weights : CSR arrays of A, (n_spots + 1,), (n_edges,), (n_edges,)
    degrees : (n_spots,) float
        Row sums of A.
    ranks : (n_spots,) int32
        The turn of each spot in the sweep: the number of its colour.
    moves : (n_spots,) float
        Largest change of an abundance of each spot in the sweep; 0 where it was not visited.
    visited : (n_spots,) bool
    lambda_spatial, phi, lambda_ridge : float
        In counts.
    relax : float
        Over-relaxation of the sweep.
    start, stop : int
        Range of spots.
    owed : (n_spots,) float, updated
        inf: not known.
    """
    for i in range(start, stop):
        pull = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if not visited[i] or ranks[j] > ranks[i]:
                pull += weights[e] * moves[j]
        debt = owed[i]
        if visited[i]:
            debt = moves[i] * min(relax - 1.0 + LEFT_BY_NEWTON * moves[i], 1.0)
        curvature = lambda_spatial * degrees[i] + lambda_ridge
        if pull > 0.0 and curvature > 0.0:
            debt += lambda_spatial * phi * pull / curvature
        owed[i] = debt


@kernel()
def owe_shift(
    indptr, indices, old_weights, weights, old_degrees, degrees, abundances, lambda_spatial, phi, lambda_ridge,
    start, stop, owed,
):  # fmt: skip
    """Bound how far fresh weights move the answer of each spot; adds to `owed`.

    The gradient of a spot that was solved for the old weights is lambda_s (dd_i v_i - phi sum_j da_ij v_j) for the
    fresh ones, and its curvature is at least lambda_s d_i + lambda_r: their ratio bounds the move.

    Parameters
    ----------
    indptr, indices : CSR arrays of the graph, (n_spots + 1,) int64, (n_edges,) int32
    old_weights, weights : (n_edges,) float
    old_degrees, degrees : (n_spots,) float
    abundances : (n_spots, n_types) float
    lambda_spatial, phi, lambda_ridge : float
        In counts.
    start, stop : int
        Range of spots.
    owed : (n_spots,) float, updated
    """
    n_types = abundances.shape[1]
    shift = np.empty(n_types)
    for i in range(start, stop):
        change = degrees[i] - old_degrees[i]
        for k in range(n_types):
            shift[k] = change * abundances[i, k]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            change = phi * (weights[e] - old_weights[e])
            for k in range(n_types):
                shift[k] -= change * abundances[j, k]
        largest = 0.0
        for k in range(n_types):
            largest = max(largest, abs(shift[k]))
        if largest > 0.0:
            owed[i] += lambda_spatial * largest / (lambda_spatial * degrees[i] + lambda_ridge)
