"""Attention weights on the neighbour graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels.cpu import attention as kernels
from ..parallel import LIGHT, Workers, cut
from ..parcels import Graph

LEAST_TAU = 1e-8

# The median is found by counts over the bits of a float64, each in 2^n steps of 2^shift. The first is from 2^-14
# to 4, 16 octaves, and no h^2 is above 2; what is below is counted anew, from 0 to 2.
MANTISSA = 52  # bits of a float64 behind its exponent, whose bias is 1023
FIRST_LOW = (1023 - 14) << MANTISSA
FIRST_SPAN, WHOLE_SPAN = MANTISSA + 4, MANTISSA + 10  # bits
FEWEST_STEPS, MOST_STEPS = 8, 14  # n
FINEST_FLOAT32 = 29  # a float32 leaves the last 29 bits 0
PART = 1 << 16  # edges that are counted together


def attend_by_place(graph: Graph, dtype: np.dtype, workers: Workers) -> Graph:
    """The graph with attention by place alone: each row of spatial factors sums to 1, then (A + A') / 2."""
    weights = np.empty_like(graph.place, dtype=dtype)
    degrees = np.empty_like(graph.place, dtype=dtype, shape=graph.n_spots)
    workers.over(
        kernels.symmetrise_edges, graph.n_spots, (graph.indptr, graph.reverse, graph.place), (weights, degrees)
    )
    return replace(graph, weights=weights, degrees=degrees)


def attend(graph: Graph, abundances: np.ndarray, workers: Workers) -> Graph:
    """The graph with attention by place and by composition.

    Parameters
    ----------
    graph : Graph
    abundances : (n_spots, n_types) float
        v of the last solve.

    Returns
    -------
    Graph

    Notes
    -----
    a_ij = exp(-d_ij^2 / (2 s_i^2)) exp(-h_ij^2 / (2 tau)), h^2 = |sqrt z_i - sqrt z_j|^2, z_i the plain mean of the
    composition over the spot and its neighbours, tau the median of h^2 over edges. Row i is divided by the sum of
    its spatial factors alone, all by the mean row sum, then A <- (A + A') / 2. No softmax: a spot at a border
    listens less in all.
    """
    n, n_edges = graph.n_spots, len(graph.indices)
    if not n_edges:
        return attend_by_place(graph, abundances.dtype, workers)
    edges = (graph.indptr, graph.indices)
    inverses = np.empty_like(abundances, shape=n)
    workers.over(kernels.invert_sums, n, (abundances,), (inverses,))
    roots = np.empty_like(abundances)
    workers.over(kernels.root_neighbourhoods, n, (*edges, graph.place, abundances, inverses), (roots,))
    weights = np.empty_like(abundances, shape=n_edges)  # h^2 first
    workers.over(kernels.compare_edges, n, (*edges, roots), (weights,))
    tau = max(median_square(graph.place, weights, workers), LEAST_TAU)
    degrees, row_sums = np.empty_like(abundances, shape=n), np.empty_like(graph.place, shape=n)
    arrays = (graph.indptr, graph.reverse, graph.place, tau)
    workers.over(kernels.attend_edges, n, arrays, (weights, degrees, row_sums))
    scale = 1.0 / float(row_sums[row_sums > 0].mean())
    weights *= scale
    degrees *= scale
    return replace(graph, weights=weights, degrees=degrees)


def median_square(place: np.ndarray, squares: np.ndarray, workers: Workers) -> float:
    """The median of h^2 over edges: exact, and without a copy of them.

    Parameters
    ----------
    place : (n_edges,) float64
        Spatial factors; edges with 0 do not count.
    squares : (n_edges,) float
        h^2, from 0 to 2.
    workers : Workers

    Returns
    -------
    float
        0 without edges.
    """
    counts: dict[tuple[int, int], np.ndarray] = {}
    finest = FINEST_FLOAT32 if squares.dtype == np.float32 else 0
    steps = min(max(FEWEST_STEPS, len(squares).bit_length() - 3), MOST_STEPS)
    parts = max(1, min(16, len(squares) // PART))

    def count(low: int, shift: int) -> np.ndarray:
        if (low, shift) not in counts:
            counts[low, shift] = workers.sums(
                kernels.count_squares, len(squares), (place, squares, low, shift), ((1 << steps) + 1,), parts
            )
        return counts[low, shift]

    def at_rank(rank: int) -> float:
        low, shift = FIRST_LOW, FIRST_SPAN - steps
        if rank < count(low, shift)[-1]:
            low, shift = 0, WHOLE_SPAN - steps
        while True:
            found = count(low, shift)
            step = int(np.searchsorted(np.cumsum(found[:-1]), rank - found[-1], side="right"))
            low += step << shift
            if shift == finest:
                return float(np.int64(low).view(np.float64))
            shift = max(shift - steps, finest)

    total = int(count(FIRST_LOW, FIRST_SPAN - steps).sum())
    return 0.5 * (at_rank((total - 1) // 2) + at_rank(total // 2)) if total else 0.0


def measure_roughness(graph: Graph, abundances: np.ndarray, workers: Workers) -> float:
    """How much neighbours differ: 0 where they are alike, about 1 where they are strangers; nan without neighbours.

    Parameters
    ----------
    graph : Graph
    abundances : (n_spots, n_types) float
        v; judged by its shares.

    Notes
    -----
    sum_ij a_ij |x_i - x_j|^2 / 2 / sum_i d_i |x_i|^2 with x the shares less their mean over spots and A by place alone:
    Geary's C over all types at once (Geary 1954).
    """
    if not len(graph.indices):
        return float("nan")
    links = attend_by_place(graph, abundances.dtype, workers)
    shares = np.empty_like(abundances)
    mean, scale, ranges = 0.0, 0.0, cut(links.n_spots, LIGHT)
    for start, stop in ranges:  # by parts: no other array of all spots
        sums = abundances[start:stop].sum(axis=1, keepdims=True)
        shares[start:stop] = abundances[start:stop] / (sums + (sums == 0))
        mean = mean + shares[start:stop].sum(axis=0, dtype=np.float64) / links.n_spots
    for start, stop in ranges:
        part = shares[start:stop] - mean
        scale = scale + links.degrees[start:stop].astype(np.float64) @ np.einsum("ik,ik->i", part, part)
    squares = np.empty_like(links.weights)
    workers.over(kernels.compare_edges, links.n_spots, (links.indptr, links.indices, shares), (squares,))
    apart = 0.5 * np.einsum("e,e->", links.weights, squares, dtype=np.float64)
    return float(apart / scale) if scale > 0 else float("nan")
