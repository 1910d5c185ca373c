"""Likelihood ratios against the absence of a type in dense float64: expectation-maximisation run to the end."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import xlogy


def solve(counts, weights, profiles, linear, diagonal, types):
    """Least sum_k (linear_k v_k + diagonal v_k^2 / 2) - sum_g w_g y_g ln mu_g over v >= 0 of some types; and v."""
    b, linear, seen = profiles[types], linear[types], weights * counts

    def objective(v):
        mu = v @ b
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = linear + diagonal * v - b @ np.where(seen > 0, seen / mu, 0)
        return v @ (linear + diagonal * v / 2) - xlogy(seen, mu).sum(), slope

    start = np.full(len(types), 1 / len(profiles))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(types),
                     options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 20000})  # fmt: skip
    v = np.zeros(len(profiles))
    v[types] = found.x
    return found.fun, v


def weigh_presence(tissue, abundances, spreads, pulls, lambda_spatial, lambda_ridge):
    """2 (F without k - F) / r_k of each spot and type above 0; 0 elsewhere."""
    n_types = len(tissue.profiles)
    everything = np.arange(n_types)
    statistics = np.zeros(abundances.shape)
    for i, y in enumerate(tissue.counts):
        if not y.sum():
            continue
        linear = y.sum() * (tissue.profiles @ tissue.gene_weights) - pulls[i]
        diagonal = lambda_spatial * tissue.attention[i].sum() + lambda_ridge
        given = (y, tissue.gene_weights, tissue.profiles, linear, diagonal)
        lowest, v = solve(*given, everything)
        there = v > 1e-7
        mu, b, seen = v @ tissue.profiles, tissue.profiles[there], y > 0
        curve = (tissue.gene_weights * y)[seen] / mu[seen] ** 2
        loud = (spreads * y)[seen] / mu[seen] ** 2
        penalty = diagonal * np.eye(len(b))
        inverse = np.linalg.inv((b[:, seen] * curve) @ b[:, seen].T + penalty)
        turned = inverse @ ((b[:, seen] * loud) @ b[:, seen].T + penalty) @ inverse
        ratios = np.ones(n_types)
        ratios[there] = np.diag(turned) / np.diag(inverse)
        for k in np.flatnonzero((abundances[i] > 0) & there):
            value, _ = solve(*given, np.delete(everything, k))
            statistics[i, k] = 2 * max(value - lowest, 0) / ratios[k]
    return statistics
