"""Normalised tables, the cells that are kept, and the mean of each type, as in the original program."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

SCALE = 1e4
LEAST_SQUARE = 1e-12


def normalise(matrix: csr_matrix, columns: np.ndarray) -> csr_matrix:
    """log(1 + 10,000 x / sum of the row over all genes) of some genes, as float64.

    Parameters
    ----------
    matrix : csr_matrix, (n_rows, n_all_genes)
        Raw counts; not changed.
    columns : (n_genes,) int64
        The genes that are wanted.

    Returns
    -------
    csr_matrix of float64, (n_rows, n_genes)
        Rows without counts stay empty.
    """
    totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    lengths = np.diff(matrix.indptr)
    data = np.log1p(matrix.data.astype(np.float64) * np.repeat(SCALE / np.where(totals > 0, totals, 1.0), lengths))
    out = csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    if len(columns) < matrix.shape[1] or (np.diff(columns) != 1).any():
        out = out[:, columns]
    out.sort_indices()
    return out


def draw_cells(cell_types: np.ndarray, n_types: int, most: int) -> np.ndarray:
    """Cells that the original program keeps, type by type, (n_kept,) int64.

    Parameters
    ----------
    cell_types : (n_cells,) int32
        -1: left out.
    n_types : int
    most : int
        Cells of a type at most.

    Notes
    -----
    Each type is drawn without replacement, and so shuffled, by a generator of its own that begins at 0: the draw hangs
    on the order of the cells, as in the original.
    """
    drawn = []
    for k in range(n_types):
        members = np.flatnonzero(cell_types == k)
        chosen = np.random.RandomState(0).choice(len(members), min(most, len(members)), replace=False)
        drawn.append(members[chosen])
    return np.concatenate(drawn)


def average_types(cells: csr_matrix, cell_types: np.ndarray, n_types: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the normalised cells of each type, B, and s_k = |B_k|^2 + 1e-12.

    Parameters
    ----------
    cells : csr_matrix, (n_cells, n_genes)
    cell_types : (n_cells,) int32
    n_types : int

    Returns
    -------
    means : ndarray of float64, (n_types, n_genes)
    squares : ndarray of float64, (n_types,)
    """
    n = len(cell_types)
    share = 1.0 / np.bincount(cell_types, minlength=n_types)[cell_types]
    means = (csr_matrix((share, (cell_types, np.arange(n))), shape=(n_types, n)) @ cells).toarray()
    return means, (means**2).sum(axis=1) + LEAST_SQUARE
