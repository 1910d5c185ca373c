"""Attention on dense matrices, straight from section 3 of the model."""

from __future__ import annotations

import numpy as np


def neighbourhood_means(linked, abundances):
    """z_i: plain mean of p = v / sum v over a spot and its neighbours; empty spots do not count."""
    out = np.zeros(abundances.shape)
    sums = abundances.sum(axis=1)
    for i in range(len(out)):
        members = [j for j in [i, *np.flatnonzero(linked[i])] if sums[j] > 0]
        if members:
            out[i] = np.mean([abundances[j] / sums[j] for j in members], axis=0)
    return out


def compare(means):
    """h_ij^2 = |sqrt z_i - sqrt z_j|^2 for all pairs."""
    roots = np.sqrt(means)
    return ((roots[:, None] - roots[None]) ** 2).sum(axis=2)


def count_squares(place, squares, low, shift, n_steps):
    """Edges by h^2, between numbers whose bits are 2^shift apart from `low` on; then those below the first."""
    squares = squares[place > 0].astype(np.float64)
    bounds = (low + (np.arange(n_steps + 1) << shift)).view(np.float64)
    inside = [((squares >= a) & (squares < b)).sum() for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return np.array([*inside, (squares < bounds[0]).sum()], dtype=float)


def spatial_factors(coordinates, linked):
    """exp(-d_ij^2 / (2 s_i^2)) where j is a neighbour of i; s_i the median of the positive distances."""
    distances = np.sqrt(((coordinates[:, None] - coordinates[None]) ** 2).sum(axis=2))
    factors = np.zeros(distances.shape)
    for i in range(len(factors)):
        near = distances[i, linked[i]]
        scale = np.median(near[near > 0]) if (near > 0).any() else 1.0
        factors[i, linked[i]] = np.exp(-(near**2) / (2 * scale**2))
    return factors


def directed(factors, abundances):
    """Attention before it is made symmetric: rows over the sum of their spatial factors, all over the mean row sum."""
    linked = factors > 0
    squares = compare(neighbourhood_means(linked, abundances))
    tau = max(np.median(squares[linked]), 1e-8)
    weights = factors * np.exp(-squares / (2 * tau))
    sums = factors.sum(axis=1, keepdims=True)
    weights = weights / np.where(sums > 0, sums, 1)
    rows = weights.sum(axis=1)
    return weights / rows[rows > 0].mean()


def attend(factors, abundances):
    """A <- (A + A') / 2 of it."""
    weights = directed(factors, abundances)
    return (weights + weights.T) / 2
