"""Attention: how much a spot listens to each of its neighbours, by place and by composition."""

import math

from ..compile import kernel


@kernel()
def root_neighbourhoods(indptr, indices, place, abundances, start, stop, roots_out):
    """Square roots of the mean composition of each spot and its neighbours; overwrites `roots_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
    place : (n_edges,) float64
        Spatial factors; 0 marks an edge that is none in this direction.
    abundances : (n_spots, n_types) float
        v; a row that sums to 0 counts as no composition at all.
    start, stop : int
        Range of spots.
    roots_out : (n_spots, n_types) float
    """
    n_types = abundances.shape[1]
    for i in range(start, stop):
        total = 0.0
        for k in range(n_types):
            total += abundances[i, k]
            roots_out[i, k] = 0.0
        members = 0
        if total > 0.0:
            members = 1
            for k in range(n_types):
                roots_out[i, k] = abundances[i, k] / total
        for e in range(indptr[i], indptr[i + 1]):
            if place[e] > 0.0:
                j = indices[e]
                total = 0.0
                for k in range(n_types):
                    total += abundances[j, k]
                if total > 0.0:
                    members += 1
                    for k in range(n_types):
                        roots_out[i, k] += abundances[j, k] / total
        for k in range(n_types):
            roots_out[i, k] = math.sqrt(roots_out[i, k] / max(members, 1))


@kernel()
def compare_edges(indptr, indices, roots, start, stop, squares_out):
    """Squared Hellinger-like distance |sqrt z_i - sqrt z_j|^2 along each edge; overwrites `squares_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
    roots : (n_spots, n_types) float
        Result of `root_neighbourhoods`.
    start, stop : int
        Range of spots.
    squares_out : (n_edges,) float
    """
    n_types = roots.shape[1]
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            square = 0.0
            for k in range(n_types):
                step = roots[i, k] - roots[j, k]
                square += step * step
            squares_out[e] = square


@kernel()
def attend_edges(indptr, place, squares, tau, start, stop, directed_out, row_sums_out):
    """Directed attention place * exp(-h^2 / (2 tau)); overwrites both outputs.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    place : (n_edges,) float64
        Spatial factors divided by the sum of their row.
    squares : (n_edges,) float
        h^2 of `compare_edges`.
    tau : float
        Scale of h^2, > 0.
    start, stop : int
        Range of spots.
    directed_out : (n_edges,) float64
    row_sums_out : (n_spots,) float64
    """
    for i in range(start, stop):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            directed_out[e] = place[e] * math.exp(-0.5 * squares[e] / tau)
            total += directed_out[e]
        row_sums_out[i] = total


@kernel()
def symmetrise_edges(indptr, reverse, directed, scale, start, stop, weights_out, degrees_out):
    """Symmetric weights (w_ij + w_ji) / 2 * scale and their row sums; overwrites both outputs.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    reverse : (n_edges,) int64
    directed : (n_edges,) float64
    scale : float
    start, stop : int
        Range of spots.
    weights_out : (n_edges,) float
    degrees_out : (n_spots,) float
    """
    for i in range(start, stop):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            weight = 0.5 * scale * (directed[e] + directed[reverse[e]])
            weights_out[e] = weight
            total += weight
        degrees_out[i] = total
