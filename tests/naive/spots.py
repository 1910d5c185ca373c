"""The type level of section 2 as a dense convex problem in float64, solved by other means than the kernels."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize, nnls


def poisson_objective(tissue, abundances, attention, lambda_spatial, phi, lambda_ridge):
    """F(V) and its gradient; gene weights multiply each gene's likelihood."""
    y, b, w = tissue.counts, tissue.profiles, tissue.gene_weights
    totals = y.sum(axis=1, keepdims=True)
    mu = totals * (abundances @ b)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = w * (mu - np.where(y > 0, y * np.log(mu), 0))
        ratio = np.where(y > 0, y / mu, 0)
    gradient = totals * (w * (1 - ratio)) @ b.T
    value, slope = penalty(abundances, attention, lambda_spatial, phi, lambda_ridge)
    return likelihood.sum() + value, gradient + slope


def gaussian_objective(products, gram, abundances, attention, lambda_spatial, phi, lambda_ridge):
    """sum_i v'Gv / 2 - v'c_i with the same penalties, and its gradient."""
    value, slope = penalty(abundances, attention, lambda_spatial, phi, lambda_ridge)
    fit = 0.5 * ((abundances @ gram) * abundances).sum() - (abundances * products).sum()
    return fit + value, abundances @ gram - products + slope


def penalty(v, attention, lambda_spatial, phi, lambda_ridge):
    """lambda_s/2 (sum_i d_i |v_i|^2 - phi sum_ij a_ij v_i.v_j) + lambda_r/2 sum_i |v_i|^2, and its gradient."""
    degrees = attention.sum(axis=1, keepdims=True)
    spatial = (degrees * v**2).sum() - phi * (attention * (v @ v.T)).sum()
    slope = lambda_spatial * (degrees * v - phi * attention @ v) + lambda_ridge * v
    return 0.5 * lambda_spatial * spatial + 0.5 * lambda_ridge * (v**2).sum(), slope


def solve_spots(tissue, attention, lambda_spatial, phi, lambda_ridge):
    """The least of F over V >= 0, all spots at once: L-BFGS-B, then Newton steps on the abundances above 0."""
    shape = (len(tissue.counts), len(tissue.profiles))
    if not shape[0]:
        return np.zeros(shape)

    def both(flat):
        value, slope = poisson_objective(tissue, flat.reshape(shape), attention, lambda_spatial, phi, lambda_ridge)
        return value, slope.ravel()

    start = np.full(np.prod(shape), 1 / shape[1])
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0, "gtol": 1e-9, "maxcor": 30}
    v = minimize(both, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start), options=options).x
    for _ in range(20):
        slope = both(v)[1]
        free = (v > 1e-9) | (slope < 0)
        step = np.zeros(len(v))
        curvature = poisson_hessian(tissue, v.reshape(shape), attention, lambda_spatial, phi, lambda_ridge)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], -slope[free])
        v = np.maximum(v + step, 0) * free
    return v.reshape(shape)


def poisson_hessian(tissue, abundances, attention, lambda_spatial, phi, lambda_ridge):
    """The whole dense Hessian of F, (n_spots * n_types) squared."""
    n, k = abundances.shape
    graph = lambda_spatial * (np.diag(attention.sum(axis=1)) - phi * attention) + lambda_ridge * np.eye(n)
    out = np.kron(graph, np.eye(k))
    for i in range(n):
        seen = tissue.counts[i] > 0
        b = tissue.profiles[:, seen]
        mean = abundances[i] @ b
        out[i * k : (i + 1) * k, i * k : (i + 1) * k] += (
            b * (tissue.gene_weights[seen] * tissue.counts[i, seen] / mean**2)
        ) @ b.T
    return out


def solve_spots_gaussian(products, gram, attention, lambda_spatial, phi, lambda_ridge):
    """The least squares of all spots at once over V >= 0, by the active-set method of SciPy (Lawson and Hanson)."""
    n, k = products.shape
    if not n:
        return np.zeros((n, k))
    graph = lambda_spatial * (np.diag(attention.sum(axis=1)) - phi * attention) + lambda_ridge * np.eye(n)
    root = cholesky(np.kron(np.eye(n), gram) + np.kron(graph, np.eye(k)), lower=True)
    return nnls(root.T, solve_triangular(root, products.ravel(), lower=True), maxiter=30 * n * k)[0].reshape(n, k)
