"""The cell level of section 5: dense Gauss-Seidel in float64, every slope from its formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CellProblem:
    """Spots and cells, dense and float64."""

    counts: np.ndarray  # (n_spots, n_genes)
    gene_w: np.ndarray  # (n_genes,) W
    cells: np.ndarray  # (n_cells, n_genes) C, with gene and scale factors
    cell_types: np.ndarray  # (n_cells,) ascending
    links: np.ndarray  # (n_cells, n_cells) symmetric attention among the cells of a type
    attention: np.ndarray  # (n_spots, n_spots)
    abundances: np.ndarray  # (n_spots, n_types) v of the type level
    anchor: float
    ridge: float
    cell: float
    spatial: float


def shares(problem, i):
    """y~_i = y_i / n_i."""
    total = problem.counts[i].sum()
    return problem.counts[i] / total if total > 0 else problem.counts[i]


def spread(problem, i):
    """p0: v_k over the cells of a type by their cosine with the spot (under W)."""
    out = np.zeros(len(problem.cells))
    y = shares(problem, i)
    for k, v in enumerate(problem.abundances[i]):
        members = problem.cell_types == k
        c = problem.cells[members]
        lengths = np.sqrt((c**2 * problem.gene_w).sum(axis=1))
        likeness = np.divide(c @ (problem.gene_w * y), lengths, out=np.zeros(len(c)), where=lengths > 0)
        if members.any():
            even = np.full(len(c), 1 / len(c))
            out[members] = v * (likeness / likeness.sum() if likeness.sum() > 0 else even)
    return out


def visited_cells(problem, i, least_share):
    """Cells of the types with more than `least_share` of the spot."""
    v = problem.abundances[i]
    return np.flatnonzero((v > least_share * v.sum())[problem.cell_types])


def gradient(problem, i, p, old):
    """Slope of the objective of spot i at p; `old` (n_spots, n_cells): weights of the neighbours, None: none."""
    fit = problem.cells @ (problem.gene_w * (problem.cells.T @ p - shares(problem, i)))
    lap = np.diag(problem.links.sum(axis=1)) - problem.links
    sums = np.bincount(problem.cell_types, p, minlength=problem.abundances.shape[1])
    slope = fit + problem.cell * lap @ p + problem.ridge * (p - spread(problem, i))
    slope += problem.anchor * (sums - problem.abundances[i])[problem.cell_types]
    if old is not None:
        a = problem.attention[i]
        slope += problem.spatial / problem.counts[i].sum() * (a.sum() * p - a @ old)
    return slope


def sweep_cells(problem, i, old, n_sweeps, least_share):
    """Gauss-Seidel over the visited cells from p0, or from row i of `old`; (n_cells,)."""
    p = spread(problem, i) if old is None else old[i].copy()
    visited = visited_cells(problem, i, least_share)
    hidden = np.setdiff1d(np.arange(len(p)), visited)
    p[hidden] = 0
    curvature = (problem.cells**2 * problem.gene_w).sum(axis=1) + problem.cell * problem.links.sum(axis=1)
    curvature += problem.anchor + problem.ridge
    if old is not None:
        curvature += problem.spatial / problem.counts[i].sum() * problem.attention[i].sum()
    for _ in range(n_sweeps):
        for m in visited:
            p[m] = max(p[m] - gradient(problem, i, p, old)[m] / curvature[m], 0)
    return p


def keep_largest(p, cell_types, least, most):
    """Drop weights below `least` and all but `most`; the largest of each type stays, and so does each type's sum.

    With fewer places than types the types with the largest sums stay.
    """
    first = [np.flatnonzero(cell_types == k)[np.argmax(p[cell_types == k])] for k in np.unique(cell_types)]
    sums = np.bincount(cell_types, p)
    first = sorted((m for m in first if p[m] > 0), key=lambda m: -sums[cell_types[m]])
    rest = [m for m in np.argsort(-p, kind="stable") if p[m] >= least and m not in first]
    kept = (first + rest)[:most]
    out = np.zeros(len(p))
    out[kept] = p[kept]
    for k in np.unique(cell_types):
        members = cell_types == k
        if out[members].sum() > 0:
            out[members] *= p[members].sum() / out[members].sum()
    return out


def link_cells(shares_of_cells, cell_types, n_neighbours):
    """Attention graph among the cells of a type by h^2 = |sqrt c_m - sqrt c_n|^2: symmetric, mean row sum 1.

    Rows are divided by their number of neighbours, all by the mean row sum; tau is the median of h^2 over edges.
    """
    roots = np.sqrt(shares_of_cells)
    squares = ((roots[:, None] - roots[None]) ** 2).sum(axis=2)
    linked = np.zeros(squares.shape, bool)
    for m in range(len(roots)):
        others = np.setdiff1d(np.flatnonzero(cell_types == cell_types[m]), [m])
        linked[m, others[np.argsort(squares[m, others])[:n_neighbours]]] = True
    weights = np.where(linked, np.exp(-squares / (2 * max(np.median(squares[linked]), 1e-8))), 0.0)
    weights /= np.maximum(linked.sum(axis=1, keepdims=True), 1)
    rows = weights.sum(axis=1)
    weights /= rows[rows > 0].mean()
    return (weights + weights.T) / 2


def pose(counts, cells, totals, gene_factors, cell_types, attention, abundances, spatial, ridge=1.0, cell=1.0):
    """The problem of section 5 from raw counts; `ridge` and `cell` multiply 0.1 h."""
    c = cells / totals[:, None] * gene_factors
    means = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    gene_w = 1 / np.maximum(means, 1e-3 * means.mean())
    h = np.diag((c * gene_w) @ c.T).mean()
    links = link_cells(cells / totals[:, None], cell_types, 10)
    return CellProblem(
        counts, gene_w, c, cell_types, links, attention, abundances, h, 0.1 * h * ridge, 0.1 * h * cell, spatial
    )
