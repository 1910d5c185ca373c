"""Standard errors and fit of section 6 in dense float64, one spot at a time."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy


def measure_errors(tissue, abundances, contents, attention, lambda_spatial, lambda_ridge, spreads=None):
    """sqrt(diag(J H^-1 M H^-1 J')) over the types above 0 of each spot, and over these and one of the others."""
    spreads = tissue.gene_weights if spreads is None else spreads
    errors = np.full(abundances.shape, np.nan)
    degrees = attention.sum(axis=1)
    for i, v in enumerate(abundances):
        active = v > 0
        if not active.any():
            continue
        alone = _errors_of(tissue, i, active, v, contents, degrees, lambda_spatial, lambda_ridge, spreads)
        errors[i, active] = alone[active]
        for k in np.flatnonzero(~active) if not np.isnan(alone[active]).any() else []:
            more = active | (np.arange(len(v)) == k)
            errors[i, k] = _errors_of(tissue, i, more, v, contents, degrees, lambda_spatial, lambda_ridge, spreads)[k]
    return errors


def _errors_of(tissue, i, active, v, contents, degrees, lambda_spatial, lambda_ridge, spreads):
    errors = np.full(len(v), np.nan)
    v, b, c = v[active], tissue.profiles[active], contents[active]
    mu = v @ b
    seen = tissue.counts[i] > 0
    curve = (tissue.gene_weights * tissue.counts[i])[seen] / mu[seen] ** 2
    penalty = (lambda_spatial * degrees[i] + lambda_ridge) * np.eye(len(v))
    hessian = (b[:, seen] * curve) @ b[:, seen].T + penalty
    loud = (spreads * tissue.counts[i])[seen] / mu[seen] ** 2
    noise = (b[:, seen] * loud) @ b[:, seen].T + penalty
    shares = v / c / (v / c).sum()
    slopes = (np.eye(len(v)) - shares[:, None]) / (c * (v / c).sum())
    if np.linalg.cond(hessian) < 1e10:
        turned = slopes @ np.linalg.inv(hessian)
        errors[active] = np.sqrt(np.diag(turned @ noise @ turned.T).clip(min=0))
    return errors


def measure_fits(tissue, abundances, direction):
    """Deviance and misfit of each spot, and sum_i y^2 / mu and sum_i y of each gene."""
    sums = np.array([sum_excess(tissue, abundances), tissue.counts.sum(axis=0)])
    return measure_deviance(tissue, abundances), score_misfit(tissue, abundances, direction), sums


def measure_deviance(tissue, abundances):
    """2 sum_g (y ln(y / m) - (y - m)) / n of each spot; NaN without counts."""
    y = tissue.counts
    totals = y.sum(axis=1, keepdims=True)
    mean = totals * (abundances @ tissue.profiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = xlogy(y, np.where(y > 0, y / mean, 1)) - (y - mean)
        return 2 * terms.sum(axis=1) / totals[:, 0]


def score_misfit(tissue, abundances, direction):
    """(y - mu) a / sqrt(mu a^2) of each spot, mu scaled to the counts of the spot; NaN without counts."""
    y = tissue.counts
    mu = abundances @ tissue.profiles
    mu = y.sum(axis=1, keepdims=True) * mu / mu.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (y - mu) @ direction / np.sqrt(mu @ direction**2)


def score_spots(tissue, totals, abundances):
    """sum_g w_g (y ln mu - mu) of each spot; a seen gene that is not expected gives -inf."""
    mu = totals[:, None] * (abundances @ tissue.profiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(tissue.counts > 0, tissue.counts * np.log(mu), 0)
    return (tissue.gene_weights * (logs - mu)).sum(axis=1)


def sum_excess(tissue, abundances):
    """sum_i y^2 / mu of each gene."""
    mu = tissue.counts.sum(axis=1, keepdims=True) * (abundances @ tissue.profiles)
    return np.where(tissue.counts > 0, tissue.counts**2 / np.where(mu > 0, mu, np.inf), 0).sum(axis=0)


def dispersion(tissue, abundances):
    """phi_g = mean_i (y - mu)^2 / mu, zeros included."""
    mu = tissue.counts.sum(axis=1, keepdims=True) * (abundances @ tissue.profiles)
    return ((tissue.counts - mu) ** 2 / mu).mean(axis=0)
