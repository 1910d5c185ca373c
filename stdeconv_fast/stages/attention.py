"""Attention weights on the neighbour graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels.cpu import attention as kernels
from ..parallel import LIGHT, Workers, cut
from ..parcels import Graph

LEAST_TAU = 1e-8


def attend_by_place(graph: Graph, dtype: np.dtype, workers: Workers) -> Graph:
    """The graph with attention by place alone: each row of spatial factors sums to 1, then (A + A') / 2."""
    return _symmetrise(graph, graph.place, 1.0, dtype, workers)


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
    dtype = abundances.dtype
    if not n_edges:
        return _symmetrise(graph, graph.place, 1.0, dtype, workers)
    roots = np.empty_like(abundances)
    edges = (graph.indptr, graph.indices)
    workers.over(kernels.root_neighbourhoods, n, (*edges, graph.place, abundances), (roots,))
    squares = np.empty_like(abundances, shape=n_edges)
    workers.over(kernels.compare_edges, n, (*edges, roots), (squares,))
    tau = max(float(np.median(squares[graph.place > 0])), LEAST_TAU)
    directed, row_sums = np.empty_like(graph.place), np.empty_like(graph.place, shape=n)
    workers.over(kernels.attend_edges, n, (graph.indptr, graph.place, squares, tau), (directed, row_sums))
    linked = row_sums > 0
    return _symmetrise(graph, directed, 1.0 / float(row_sums[linked].mean()), dtype, workers)


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


def _symmetrise(graph: Graph, directed: np.ndarray, scale: float, dtype: np.dtype, workers: Workers) -> Graph:
    weights = np.empty_like(graph.place, dtype=dtype)
    degrees = np.empty_like(graph.place, dtype=dtype, shape=graph.n_spots)
    workers.over(
        kernels.symmetrise_edges, graph.n_spots, (graph.indptr, graph.reverse, directed, scale), (weights, degrees)
    )
    return replace(graph, weights=weights, degrees=degrees)
