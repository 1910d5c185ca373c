"""The cell level: the reference cells in each spot, anchored to the type level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from ..draws import keys_of, mix
from ..kernels.cpu import cells as kernels
from ..kernels.cpu.counts import key_rows, sum_segments
from ..parallel import Workers, cut
from ..parcels import CellWeights, Counts, Graph, Reference

LINKS = 10  # neighbours of a cell in the attention graph of its type
LINK_ROWS = 512  # cells compared with all of their type at a time
SOFT = 0.1  # ridge and cell-graph strength, in mean diagonals of C W C'
LEAST_SHARE = 1e-3  # types with less of a spot are not visited
LEAST_WEIGHT = 1e-4
FIRST_SWEEPS, SWEEPS = 3, 8
SPOTS = 128  # a chunk
MOST_DENSE = 1 << 28  # bytes of dense profiles
LEAST_DENSE = 0.03  # share of non-zeros from which a dense row is faster
LEAST_GENE = 1e-3  # W is cut where a gene's mean share is below this part of the mean over genes


@dataclass(frozen=True)
class Cells:
    """The reference cells that the level uses, sorted by type."""

    rows: np.ndarray  # (n_cells,) int64, rows of the reference
    types: np.ndarray  # (n_cells,) int32
    counts: Counts  # kept genes
    totals: np.ndarray  # (n_cells,) float64, over all genes of the reference


def draw_cells(
    counts: Counts,
    cell_types: np.ndarray,
    cell_totals: np.ndarray,
    gene_keys: np.ndarray,
    most: int,
    seed: int,
    workers: Workers,
) -> np.ndarray:
    """Positions of at most `most` cells of each type, sorted by type, (n_drawn,) int64.

    Parameters
    ----------
    counts : Counts
        Kept genes of all labelled cells.
    cell_types, cell_totals : (n_cells,)
        Type and total of each.
    gene_keys : (n_genes,) uint64
    most : int
    seed : int

    Notes
    -----
    The cells with the lowest keys are drawn; the key is a hash of the cell's counts, so that the order of the cells
    and their names change nothing.
    """
    keys = np.empty(len(cell_types), dtype=np.uint64)
    workers.over(key_rows, len(cell_types), (counts.indptr, counts.indices, counts.data, gene_keys), (keys,))
    keys = mix(keys ^ keys_of(seed, cell_totals))
    drawn = []
    for k in range(int(cell_types.max(initial=-1)) + 1):
        members = np.flatnonzero(cell_types == k)
        drawn.append(members[np.argsort(keys[members], kind="stable")][:most])
    return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)


def _link(cells: Cells, dtype: np.dtype) -> tuple[csr_matrix, np.ndarray]:
    """Attention graph among the cells of a type, and its row sums.

    Weights exp(-h^2 / (2 tau)) to the 10 nearest cells by h = |sqrt profile - sqrt profile|, tau the median of h^2
    over edges; divided by the number of neighbours and by the mean row sum, then (A + A') / 2.
    """
    n = len(cells.rows)
    counts = cells.counts
    origins, targets, squares = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    profile = counts.data.astype(np.float64) / np.repeat(cells.totals, np.diff(counts.indptr))
    roots = csr_matrix((np.sqrt(profile), counts.indices, counts.indptr), shape=(n, counts.n_genes))
    norms = np.asarray(roots.multiply(roots).sum(axis=1)).ravel()
    for k in np.unique(cells.types):
        members = np.flatnonzero(cells.types == k)
        near = min(LINKS, len(members) - 1)
        if near < 1:
            continue
        own = roots[members]
        for start, stop in cut(len(members), LINK_ROWS):
            rows = members[start:stop]
            square = norms[rows, None] + norms[members] - 2 * (own[start:stop] @ own.T).toarray()
            square[np.arange(len(rows)), np.arange(start, stop)] = np.inf
            chosen = np.argpartition(square, near - 1, axis=1)[:, :near]
            origins.append(np.repeat(rows, near))
            targets.append(members[chosen].ravel())
            squares.append(np.maximum(np.take_along_axis(square, chosen, axis=1), 0).ravel())
    origin, target, square = (np.concatenate(parts) for parts in (origins, targets, squares))
    if not len(origin):
        return csr_matrix((n, n), dtype=dtype), np.zeros(n, dtype)
    tau = max(float(np.median(square)), 1e-8)
    weight = np.exp(-0.5 * square / tau) / np.bincount(origin, minlength=n)[origin]
    sums = np.bincount(origin, weight, minlength=n)
    weight /= sums[sums > 0].mean()
    directed = csr_matrix((weight, (origin, target)), shape=(n, n))
    links = ((directed + directed.T) * 0.5).tocsr().astype(dtype)
    links.sort_indices()
    return links, np.asarray(links.sum(axis=1)).ravel().astype(dtype)


def refine(
    cells: Cells,
    reference: Reference,
    counts: Counts,
    graph: Graph,
    abundances: np.ndarray,
    *,
    lambda_spatial: float,
    lambda_ridge: float,
    lambda_cell: float,
    max_cells_per_spot: int,
    workers: Workers,
    tick: Callable[[int], None],
) -> CellWeights:
    """Spread the type level over single cells and refine it, spot by spot.

    Parameters
    ----------
    cells : Cells
    reference : Reference
    counts : Counts
        Of the spots.
    graph : Graph
        With attention weights.
    abundances : (n_spots, n_types) float
        v of the type level.
    lambda_spatial : float
        In counts.
    lambda_ridge, lambda_cell : float
        In tenths of the mean diagonal of C W C'.
    max_cells_per_spot : int
    tick : callable
        Told the number of spots after each chunk.

    Returns
    -------
    CellWeights
        Weights in units of abundance, not yet scaled to sum to 1.
    """
    dtype = counts.dtype
    n = counts.n_spots
    max_cells_per_spot = min(max_cells_per_spot, len(cells.rows))
    totals = workers.fetch(counts.totals)
    inverse = np.divide(1.0, totals, out=np.zeros(n), where=totals > 0)
    arrays = (counts.indptr, counts.indices, counts.data)
    weighted = (*arrays, *workers.place((inverse, np.zeros(n, np.int32))))
    means = workers.sums(sum_segments, n, weighted, (1, counts.n_genes))[0] / n
    roots = 1 / np.sqrt(np.maximum(means, LEAST_GENE * means.mean()))
    own = cells.counts
    scale = np.repeat(1 / cells.totals, np.diff(own.indptr))
    data = (own.data * scale * (reference.gene_factors * roots)[own.indices]).astype(dtype)
    row = np.repeat(np.arange(len(cells.rows)), np.diff(own.indptr))
    norms = np.bincount(row, data.astype(np.float64) ** 2, minlength=len(cells.rows))
    unit = float(norms.mean())
    links, link_degrees = _link(cells, dtype)
    starts = np.searchsorted(cells.types, np.arange(abundances.shape[1] + 1)).astype(np.int64)
    fixed = workers.place((
        *arrays, counts.totals, roots.astype(dtype), own.indptr, own.indices, data,
        _dense_rows(own, data), norms.astype(dtype), starts,
        links.indptr.astype(np.int64), links.indices.astype(np.int32), links.data, link_degrees,
        graph.indptr, graph.indices, graph.weights.astype(dtype), graph.degrees.astype(dtype), abundances,
    ))  # fmt: skip
    strengths = (unit, SOFT * unit * lambda_ridge, SOFT * unit * lambda_cell, lambda_spatial, LEAST_SHARE, LEAST_WEIGHT)

    def sweep(start: int, stop: int, old: tuple, sweeps: int) -> csr_matrix:
        lengths = np.zeros(stop - start, dtype=np.int64)
        found = np.empty((stop - start, max_cells_per_spot), dtype=np.int32)
        weights = np.empty(found.shape, dtype=dtype)
        out = workers.place((lengths, found, weights))
        workers.span(kernels.sweep_cells, start, stop, (*fixed, *old), (*strengths, sweeps, *out))
        lengths, found, weights = workers.fetch(out)
        filled = np.arange(max_cells_per_spot) < lengths[:, None]
        tick(stop - start)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return csr_matrix((weights[filled], found[filled], indptr), shape=(stop - start, len(cells.rows)))

    old = _of(csr_matrix((n, len(cells.rows)), dtype=dtype))
    for sweeps in (FIRST_SWEEPS, SWEEPS) if lambda_spatial > 0 else (SWEEPS,):
        held = workers.place((old.indptr, old.indices, old.data))
        parts = workers.each(sweep, [(start, stop, held, sweeps) for start, stop in cut(n, SPOTS * workers.width)])
        old = _of(_stack(parts))
    return CellWeights(old, cells.rows, cells.types)


def _dense_rows(counts: Counts, data: np.ndarray) -> np.ndarray:
    """The profiles as dense rows where that is the faster form; else no rows."""
    shape = (counts.n_spots, counts.n_genes)
    small = shape[0] * shape[1] * data.itemsize <= MOST_DENSE
    if small and len(data) > LEAST_DENSE * shape[0] * shape[1]:
        return csr_matrix((data, counts.indices, counts.indptr), shape=shape).toarray()
    return np.zeros((0, counts.n_genes), dtype=data.dtype)


def _stack(parts: list[csr_matrix]) -> csr_matrix:
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def _of(matrix: csr_matrix) -> csr_matrix:
    """The matrix with the index types that the kernel takes."""
    matrix.indptr = matrix.indptr.astype(np.int64)
    matrix.indices = matrix.indices.astype(np.int32)
    return matrix


def sum_by_type(weights: CellWeights, n_types: int, dtype: np.dtype) -> np.ndarray:
    """Abundances of the types as sums over their cells, (n_spots, n_types)."""
    n_cells = len(weights.cell_types)
    member = csr_matrix(
        (np.ones(n_cells), (np.arange(n_cells), weights.cell_types)), shape=(n_cells, n_types), dtype=np.float64
    )
    return np.ascontiguousarray((weights.weights @ member).toarray(), dtype=dtype)
