"""The type level of the original program by sparse conjugate gradients."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import LinearOperator, cg, splu

from ...parallel import Workers

SMALL = 1e-8
TOLERANCE = 1e-14  # of the residual, relative to the right side
MOST_STEPS = 1000


def to_shares(values: np.ndarray) -> np.ndarray:
    """Pi: values below 0 set to 0, rows divided by their sum + 1e-8."""
    clipped = np.maximum(values, 0.0)
    return clipped / (clipped.sum(axis=1, keepdims=True) + SMALL)


def fit_types(
    spots: csr_matrix,
    means: np.ndarray,
    squares: np.ndarray,
    places: csr_matrix,
    *,
    phi: float,
    lambda_spatial: float,
    lambda_ridge: float,
    n_iter: int,
    workers: Workers,
) -> np.ndarray:
    """Shares of the types, V.

    Parameters
    ----------
    spots : csr_matrix, (n_spots, n_genes)
        Normalised.
    means : (n_types, n_genes) float64
    squares : (n_types,) float64
    places : csr_matrix, (n_spots, n_spots)
        W~ of `places.weigh_places`.
    phi, lambda_spatial, lambda_ridge : float
    n_iter : int
        0 gives the start, Pi(S B' / s).

    Returns
    -------
    ndarray of float64, (n_spots, n_types)

    Notes
    -----
    With Q = (I - phi W~)' (I - phi W~), b the column means of V, types apart, the original repeats

        [(s_k + lambda_ridge) I + lambda_spatial Q] v_k = S B_k + lambda_spatial Q 1 b_k,   V <- Pi(V).

    b_k is one number, so v_k = x_k + b_k z_k with two solves a type for all repeats. Each is by conjugate gradients;
    where these have not come to 1e-14 of the right side in 1,000 steps, by a sparse factorisation.
    """
    n, n_types = spots.shape[0], len(means)
    scores = np.asarray(spots @ means.T)
    shares = to_shares(scores / squares)
    if n_iter == 0:
        return shares
    step = (identity(n, format="csr") - phi * places).tocsr()
    back = step.T.tocsr()
    drawn = lambda_spatial * (back @ (step @ np.ones(n)))

    def solve(k: int, right: np.ndarray) -> np.ndarray:
        return _solve(squares[k] + lambda_ridge, lambda_spatial, step, back, right)

    jobs = [(k, scores[:, k]) for k in range(n_types)] + [(k, drawn) for k in range(n_types)]
    found = np.column_stack(workers.each(solve, jobs))
    own, common = found[:, :n_types], found[:, n_types:]
    for _ in range(n_iter):
        shares = to_shares(own + shares.mean(axis=0) * common)
    return shares


def _solve(
    shift: float, strength: float, step: csr_matrix, back: csr_matrix, right: np.ndarray
) -> np.ndarray:
    """x of (shift I + strength step' step) x = right."""
    n = len(right)
    size = float(np.linalg.norm(right))
    if size == 0:
        return np.zeros(n)

    def times(x: np.ndarray) -> np.ndarray:
        return shift * x + strength * (back @ (step @ x))

    operator = LinearOperator((n, n), matvec=times, dtype=np.float64)
    found, failed = cg(operator, right, rtol=TOLERANCE, atol=0.0, maxiter=MOST_STEPS)
    if failed:
        factor = splu((shift * identity(n) + strength * (back @ step)).tocsc())
        found = factor.solve(right)
        found += factor.solve(right - times(found))
    return found
