"""Standard errors and fit of section 6 in dense float64, one spot at a time."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy


def measure_errors(tissue, abundances, contents, attention, lambda_spatial, lambda_ridge):
    """sqrt(diag(J H^-1 J')) over the types above 0 of each spot; NaN elsewhere."""
    errors = np.full(abundances.shape, np.nan)
    degrees = attention.sum(axis=1)
    for i, v in enumerate(abundances):
        active = v > 0
        if not active.any():
            continue
        v, b, c = v[active], tissue.profiles[active], contents[active]
        mu = v @ b
        seen = tissue.counts[i] > 0
        curve = (tissue.gene_weights * tissue.counts[i])[seen] / mu[seen] ** 2
        hessian = (b[:, seen] * curve) @ b[:, seen].T + (lambda_spatial * degrees[i] + lambda_ridge) * np.eye(len(v))
        shares = v / c / (v / c).sum()
        slopes = (np.eye(len(v)) - shares[:, None]) / (c * (v / c).sum())
        if np.linalg.cond(hessian) < 1e10:
            errors[i, active] = np.sqrt(np.diag(slopes @ np.linalg.inv(hessian) @ slopes.T).clip(min=0))
    return errors


def measure_deviance(tissue, abundances):
    """2 sum_g (y ln(y / m) - (y - m)) / n of each spot; NaN without counts."""
    y = tissue.counts
    totals = y.sum(axis=1, keepdims=True)
    mean = totals * (abundances @ tissue.profiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = xlogy(y, np.where(y > 0, y / mean, 1)) - (y - mean)
        return 2 * terms.sum(axis=1) / totals[:, 0]
