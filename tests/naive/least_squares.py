"""The type level by least squares: one dense problem over all spots in float64, solved by other means."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from .spots import penalty


def gaussian_objective(products, gram, abundances, attention, lambda_spatial, phi, lambda_ridge):
    """sum_i v'Gv / 2 - v'c_i with the penalties of section 2, and its gradient."""
    value, slope = penalty(abundances, attention, lambda_spatial, phi, lambda_ridge)
    fit = 0.5 * ((abundances @ gram) * abundances).sum() - (abundances * products).sum()
    return fit + value, abundances @ gram - products + slope


def solve_spots_gaussian(products, gram, attention, lambda_spatial, phi, lambda_ridge):
    """The least squares of all spots at once over V >= 0, by the active-set method of SciPy (Lawson and Hanson)."""
    n, k = products.shape
    if not n:
        return np.zeros((n, k))
    graph = lambda_spatial * (np.diag(attention.sum(axis=1)) - phi * attention) + lambda_ridge * np.eye(n)
    root = cholesky(np.kron(np.eye(n), gram) + np.kron(graph, np.eye(k)), lower=True)
    return nnls(root.T, solve_triangular(root, products.ravel(), lower=True), maxiter=30 * n * k)[0].reshape(n, k)
