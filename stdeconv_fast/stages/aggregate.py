"""From abundances to what a user reads: proportions by spot, with a reason where there are none."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from ..kernels.cpu.shares import find_dominant
from ..parallel import ALONE, LIGHT, Workers, cut


def to_proportions(abundances: np.ndarray, mrna_content: np.ndarray | None, workers: Workers = ALONE) -> np.ndarray:
    """Shares of the types in each spot.

    Parameters
    ----------
    abundances : (n_spots, n_types) float
        v, in units of mRNA.
    mrna_content : (n_types,) float64 or None
        Mean counts of a cell of the type; None: shares of mRNA, else shares of cells.
    workers : Workers

    Returns
    -------
    ndarray of float64, (n_spots, n_types)
        Rows sum to 1; a row without any abundance is NaN.
    """
    shares = np.empty(abundances.shape)  # the only copy: it may be the largest array of all

    def divide(start: int, stop: int) -> None:
        values = shares[start:stop]
        values[:] = abundances[start:stop]
        if mrna_content is not None:
            values /= mrna_content
        sums = values.sum(axis=1, keepdims=True)
        sums[~(sums > 0)] = np.nan
        values /= sums

    workers.each(divide, cut(len(shares), LIGHT))
    return shares


def dominant_types(shares: np.ndarray) -> np.ndarray:
    """The type with the highest share of each spot, the first of equal ones, (n_spots,) int64; -1 where one is NaN."""
    codes = np.empty(len(shares), dtype=np.int64)
    find_dominant(np.ascontiguousarray(shares), 0, len(shares), codes)
    return codes


def lay_out(values: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Rows put back to their places among all spots, (n_rows, n_types); the others are NaN. No copy of all rows."""
    if len(rows) == n_rows:
        return values
    out = np.full((n_rows, values.shape[1]), np.nan)
    out[rows] = values
    return out


def lay_out_cells(
    weights: csr_matrix, cell_types: np.ndarray, rows: np.ndarray, n_rows: int, mrna_content: np.ndarray | None
) -> csr_matrix:
    """Shares of the cells in every spot, so that their sums by type are the proportions.

    Parameters
    ----------
    weights : csr_matrix, (n_used, n_cells)
        In units of abundance.
    cell_types : (n_cells,) int32
    rows : (n_used,) int64
        Places of the rows among all spots, ascending; the others are empty.
    n_rows : int
    mrna_content : (n_types,) float64 or None
        As in `to_proportions`.

    Returns
    -------
    csr_matrix of float32, (n_rows, n_cells)
    """
    data = weights.data.astype(np.float64)
    if mrna_content is not None:
        data = data / mrna_content[cell_types[weights.indices]]
    lengths = np.diff(weights.indptr)
    sums = np.bincount(np.repeat(np.arange(len(lengths)), lengths), data, minlength=len(lengths))
    data = data / np.repeat(np.where(sums > 0, sums, 1.0), lengths)
    filled = np.zeros(n_rows, dtype=np.int64)
    filled[rows] = lengths
    indptr = np.concatenate([[0], np.cumsum(filled)])
    return csr_matrix((data.astype(np.float32), weights.indices, indptr), shape=(n_rows, weights.shape[1]))
