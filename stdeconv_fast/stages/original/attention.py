"""Attention among the kept cells, and the matrix that the original program makes of it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_matrix

from ...original_draws import OriginalDraws
from ...parallel import Workers, cut

ROWS = 256  # of cells, at a time


def attend_cells(cells: csr_matrix, draws: OriginalDraws, workers: Workers) -> np.ndarray:
    """Attention of each cell to all cells, mean over the heads.

    Parameters
    ----------
    cells : csr_matrix, (n_cells, n_genes)
        Normalised.
    draws : OriginalDraws
    workers : Workers

    Returns
    -------
    ndarray of float32, (n_cells, n_cells)
        Rows sum to 1.

    Notes
    -----
    X = C P'; (1 / h) sum over heads of softmax_rows(Q K' / sqrt(E / h)), with Q and K from the first two thirds of
    the packed weights.
    """
    n, size, heads = cells.shape[0], len(draws.projection), draws.n_heads
    x = np.asarray(cells @ draws.projection.T)
    queries, keys = (
        (x @ draws.in_proj[part].T + draws.bias[part]).astype(np.float32)
        for part in (slice(0, size), slice(size, 2 * size))
    )
    width = size // heads
    out = np.empty((n, n), dtype=np.float32)

    def attend(start: int, stop: int) -> None:
        total = np.zeros((stop - start, n), dtype=np.float32)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = queries[start:stop, own] @ keys[:, own].T
            scores *= np.float32(1 / np.sqrt(width))
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            total += scores
        out[start:stop] = total / np.float32(heads)

    workers.each(attend, cut(n, ROWS))
    return out


def root_laplacian(attention: np.ndarray, lambda_cell: float) -> np.ndarray:
    """L~ = sqrt(lambda_cell) times the root of the positive part of D - A, read from its lower triangle.

    Parameters
    ----------
    attention : (n_cells, n_cells) float32
        Not changed.
    lambda_cell : float

    Returns
    -------
    ndarray of float64, (n_cells, n_cells)
        Symmetric. D - A is not: the original hands it to a routine that reads the lower triangle alone, so that this
        is the root of no Laplacian; eigenvalues below 0 are set to 0.

    Notes
    -----
    The one step that costs n_cells^3 with a large factor, in single precision as in the original.
    """
    laplacian = -attention
    np.fill_diagonal(laplacian, 0.0)
    laplacian[np.diag_indices_from(laplacian)] = -laplacian.sum(axis=1)
    values, vectors = eigh(laplacian, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    vectors = vectors.astype(np.float64)
    half = vectors * np.maximum(values, 0).astype(np.float64) ** 0.25
    return np.sqrt(lambda_cell) * (half @ half.T)
