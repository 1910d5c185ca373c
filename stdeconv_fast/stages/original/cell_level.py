"""The cell level of the original program: one factorisation for all spots, spots that do not touch at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_matrix

from ...parallel import Workers, cut
from .type_level import SMALL, to_shares

SPOTS = 64  # solved at a time
ROWS = 256  # made dense at a time
DENSE = 0.1  # share of non-zeros from which dense products are faster


@dataclass(frozen=True)
class Factor:
    """C C' = E diag(values) E' by the smaller of C C' and C'C.

    Attributes
    ----------
    basis : ndarray of float64, (n_cells, n_cells) or (n_cells, n_genes)
        Eigenvectors U of C C', or C V where V are those of C'C.
    genes : ndarray of float64, (n_genes, n_basis)
        What turns a normalised spot into the basis: C'U, or V.
    values : ndarray of float64, (n_basis,)
        Eigenvalues.
    whole : bool
        Whether the basis spans all cells.
    """

    basis: np.ndarray
    genes: np.ndarray
    values: np.ndarray
    whole: bool

    def solve(self, spots: np.ndarray, drawn: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Rows p of (C C' + c_i I) p = C x_i + r_i.

        Parameters
        ----------
        spots : (n, n_basis) float64
            x in the basis: x @ genes. Overwritten.
        drawn : (n, n_cells) float64
            r. Overwritten where the basis does not span all cells.
        shifts : (n,) float64
            c, > 0; each spot may have its own.

        Notes
        -----
        With U: p = U [(U'C x + U'r) / (values + c)]. With V and E = C V, by Woodbury's formula:
        p = r / c + E [(V'x - E'r / c) / (values + c)], in which nothing is divided by a small eigenvalue.
        """
        if self.whole:
            spots += drawn @ self.basis
            spots /= self.values + shifts[:, None]
            return spots @ self.basis.T
        drawn /= shifts[:, None]
        spots -= drawn @ self.basis
        spots /= self.values + shifts[:, None]
        drawn += spots @ self.basis.T
        return drawn


def factorise(cells: csr_matrix) -> Factor:
    """Factorise the cells once for all spots; costs min(n_cells, n_genes)^3."""
    n_cells, n_genes = cells.shape
    if n_cells <= n_genes:
        across = cells.T.tocsr()
        values, basis = eigh(_squared(across), overwrite_a=True, check_finite=False, driver="evd")
        return Factor(basis, _times(across, basis), np.maximum(values, 0), True)
    values, genes = eigh(_squared(cells), overwrite_a=True, check_finite=False, driver="evd")
    return Factor(_times(cells, genes), genes, np.maximum(values, 0), False)


def _is_sparse(matrix: csr_matrix) -> bool:
    return matrix.nnz < DENSE * matrix.shape[0] * matrix.shape[1]


def _times(matrix: csr_matrix, dense: np.ndarray) -> np.ndarray:
    """Sparse times dense, by dense blocks of rows where these are full."""
    if _is_sparse(matrix):
        return np.asarray(matrix @ dense)
    out = np.empty((matrix.shape[0], dense.shape[1]))
    for start, stop in cut(len(out), ROWS):
        np.matmul(matrix[start:stop].toarray(), dense, out=out[start:stop])
    return out


def _squared(matrix: csr_matrix) -> np.ndarray:
    """matrix' matrix, dense."""
    if _is_sparse(matrix):
        return (matrix.T @ matrix).toarray()
    out = np.zeros((matrix.shape[1],) * 2)
    for start, stop in cut(matrix.shape[0], ROWS):
        block = matrix[start:stop].toarray()
        out += block.T @ block
    return out


def spread(shares: np.ndarray, cells: csr_matrix, cell_types: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Shares of the types spread over their cells by the similarity of a cell to its type, (n_spots, n_cells).

    Parameters
    ----------
    shares : (n_spots, n_types) float64
    cells : csr_matrix, (n_cells, n_genes)
    cell_types : (n_cells,) int32
    means : (n_types, n_genes) float64

    Notes
    -----
    c_j = max(C_j . B_t, 0) + 1e-8 over the cells of type t, divided by their sum + 1e-8; rows by their sum + 1e-8.
    """
    n = len(cell_types)
    alike = np.maximum(np.asarray(cells @ means.T)[np.arange(n), cell_types], 0) + SMALL
    alike /= np.bincount(cell_types, alike)[cell_types] + SMALL
    out = np.take(shares, cell_types, axis=1)  # by rows in memory, which indexing does not give
    out *= alike
    out /= out.sum(axis=1, keepdims=True) + SMALL
    return out


def order_visits(places: csr_matrix, order: np.ndarray) -> list[np.ndarray]:
    """Spots in groups without neighbours among them, so that group by group is the same as spot by spot in `order`.

    Parameters
    ----------
    places : csr_matrix, (n_spots, n_spots)
    order : (n_spots,) int64
        The order in which the spots are to be visited.

    Returns
    -------
    list of ndarray of int64
        A spot comes after all its neighbours (in either direction) that stand before it in the order.
    """
    n = len(order)
    turn = np.empty(n, dtype=np.int64)
    turn[order] = np.arange(n)
    both = (places + places.T).tocoo()
    later = turn[both.row] < turn[both.col]
    after = csr_matrix((np.ones(later.sum(), np.int8), (both.row[later], both.col[later])), shape=(n, n))
    waiting = np.bincount(after.indices, minlength=n)
    groups, ready = [], np.flatnonzero(waiting == 0)
    while len(ready):
        groups.append(ready[np.argsort(turn[ready])])
        freed, times = np.unique(after[ready].indices, return_counts=True)
        waiting[freed] -= times
        ready = freed[waiting[freed] == 0]
    return groups


def refine(
    weights: np.ndarray,
    spots: csr_matrix,
    factor: Factor,
    laplacian: np.ndarray,
    places: csr_matrix,
    visits: list[np.ndarray],
    *,
    lambda_spatial: float,
    lambda_ridge: float,
    n_sweeps: int,
    noise: np.ndarray | None,
    workers: Workers,
    tick: Callable[[int], None],
) -> None:
    """Shares of the cells; overwrites `weights`.

    Parameters
    ----------
    weights : (n_spots, n_cells) float64, C-contiguous
        The start, of `spread`.
    spots : csr_matrix, (n_spots, n_genes)
        Normalised.
    factor : Factor
    laplacian : (n_cells, n_cells) float64
        L~.
    places : csr_matrix, (n_spots, n_spots)
        W~.
    visits : list of ndarray
        Of `order_visits`.
    lambda_spatial, lambda_ridge : float
    n_sweeps : int
    noise : (n_sweeps, n_spots, n_genes) float64 or None
        Added to the spots.
    workers : Workers
    tick : callable
        Told the number of spots after each chunk.

    Notes
    -----
    Spot by spot, with w the sum of the spot's weights in W~ and avg = (sum_j W~_ij P_j) / (w + 1e-8):

        p = (C C' + (lambda_ridge + lambda_spatial w + 1e-8) I)^-1 [C (S_i + noise) + lambda_spatial L~ avg],

    P_i <- Pi(p), later spots seeing it. The left side differs between spots by a multiple of I alone, so one
    eigendecomposition serves each of them exactly.
    """
    sums = np.asarray(places.sum(axis=1)).ravel()
    shifts = lambda_ridge + lambda_spatial * sums + SMALL
    means = places.multiply((lambda_spatial / (sums + SMALL))[:, None]).tocsr()

    def visit(sweep: int, rows: np.ndarray) -> np.ndarray:
        own = _times(spots[rows], factor.genes)
        if noise is not None:
            own += noise[sweep, rows] @ factor.genes
        drawn = np.asarray(means[rows] @ weights) @ laplacian.T
        found = to_shares(factor.solve(own, drawn, shifts[rows]))
        tick(len(rows))
        return found

    for sweep in range(n_sweeps):
        for group in visits:
            chunks = [group[start:stop] for start, stop in cut(len(group), SPOTS)]
            found = workers.each(visit, [(sweep, rows) for rows in chunks])
            for rows, values in zip(chunks, found, strict=True):
                weights[rows] = values


def sum_by_type(weights: np.ndarray, cell_types: np.ndarray, n_types: int) -> np.ndarray:
    """Shares of the types: sums over their cells, divided by the sum of all + 1e-8, (n_spots, n_types)."""
    n = len(cell_types)
    member = csr_matrix((np.ones(n), (np.arange(n), cell_types)), shape=(n, n_types))
    sums = np.asarray(weights @ member)
    return sums / (sums.sum(axis=1, keepdims=True) + SMALL)
