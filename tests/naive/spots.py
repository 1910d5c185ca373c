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


def curves_of(tissue, abundances, i, attention, lambda_spatial, phi, lambda_ridge):
    """Gradient and Hessian of F over the abundances of spot i, neighbours held."""
    k = abundances.shape[1]
    _, gradient = poisson_objective(tissue, abundances, attention, lambda_spatial, phi, lambda_ridge)
    with np.errstate(divide="ignore", invalid="ignore"):  # spots without any abundance
        hessian = poisson_hessian(tissue, abundances, attention, lambda_spatial, phi, lambda_ridge)
    return gradient[i], hessian[i * k : (i + 1) * k, i * k : (i + 1) * k]


def newton_step(tissue, abundances, i, attention, lambda_spatial, phi, lambda_ridge):
    """The least over v >= 0 of the quadratic model of spot i, neighbours held, (n_types,).

    The types above 0 and those that the slope draws up from 0 take part; the others stay at 0.
    """
    gradient, hessian = curves_of(tissue, abundances, i, attention, lambda_spatial, phi, lambda_ridge)
    v, out = abundances[i], np.zeros(abundances.shape[1])
    active = (v > 0) | (gradient < 0)
    if active.any():
        # least of g'(x - v) + (x - v)'H(x - v)/2 over x >= 0: least squares with the root of H
        root = cholesky(hessian[np.ix_(active, active)], lower=True)
        target = root.T @ v[active] - solve_triangular(root, gradient[active], lower=True)
        out[active] = nnls(root.T, target, maxiter=300 * len(out))[0]
    return out


def visit_spots(tissue, abundances, i, attention, lambda_spatial, phi, lambda_ridge, relax, tolerance):
    """Abundances of spot i after one visit, (n_types,): least of the quadratic model, judged, relaxed.

    Where the least without bounds falls below 0, Gauss-Seidel from there, within the bounds, type by type; it ends when
    no type moves by more than 1 % of the longest move. It begins at 0 where the objective would rise that way.
    """
    v = abundances[i]
    strengths = (lambda_spatial, phi, lambda_ridge)
    gradient, hessian = curves_of(tissue, abundances, i, attention, *strengths)
    d = np.zeros(len(v))
    active = np.flatnonzero((v > 0) | (gradient < 0)) if v.any() else []
    if len(active):
        d[active] = np.linalg.solve(hessian[np.ix_(active, active)], -gradient[active])
    for start in (np.maximum(d, -v), np.zeros(len(v))) if (v + d < 0).any() else ():
        d = start
        for _ in range(60):
            change = longest = 0.0
            for k in active:
                step = max(d[k] - (gradient[k] + hessian[k] @ d) / hessian[k, k], -v[k]) - d[k]
                d[k] += step
                change, longest = max(change, abs(step)), max(longest, abs(d[k]))
            if change <= 0.01 * longest:
                break
        if gradient @ d < 0:
            break
    share = judge(tissue, abundances, i, d, attention, strengths, tolerance * v.sum())
    relaxed = np.maximum(v + relax * share * d, 0)
    return relaxed if relaxed.sum() >= 0.1 * v.sum() else np.maximum(v + share * d, 0)


def judge(tissue, abundances, i, d, attention, strengths, least):
    """The share of a step that is taken: all where F falls along it, else back to where it levels out; 0 for none."""
    seen = tissue.counts[i] > 0

    def slope(share):
        there = abundances.copy()
        there[i] += share * d
        if (there[i] @ tissue.profiles[:, seen] <= 0).any():
            return np.inf
        return poisson_objective(tissue, there, attention, *strengths)[1][i] @ d

    share, near = 1.0, slope(0)
    if np.abs(d).max() < least:
        return share
    for _ in range(12):
        far = slope(share)
        if np.isfinite(far) and (far <= -0.1 * near or share * np.abs(d).max() < least):
            return share
        share *= np.clip(near / (near - far), 0.1, 0.9) if np.isfinite(far) else 0.5
    return 0.0
