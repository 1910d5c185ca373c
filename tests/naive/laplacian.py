"""The neighbour graph on dense matrices, float64."""

from __future__ import annotations

import numpy as np


def link_reverse(indptr, indices):
    """Position of the edge j -> i for each edge i -> j, by a dictionary."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    at = {(i, j): e for e, (i, j) in enumerate(zip(rows, indices, strict=True))}
    return np.array([at[j, i] for i, j in zip(rows, indices, strict=True)], dtype=np.int64)


def colour_spots(linked, order):
    """Greedy colours: each spot in turn gets the least colour that no neighbour has."""
    colours = np.full(len(linked), -1)
    for i in order:
        colours[i] = min(set(range(len(linked))) - set(colours[linked[i]]))
    return colours


def place_edges(distances, scales):
    """exp(-d^2 / (2 s_i^2)) over its row's sum; inf is no neighbour."""
    factors = np.exp(-(distances**2) / (2 * scales[:, None] ** 2))
    sums = factors.sum(axis=1, keepdims=True)
    return np.divide(factors, sums, out=np.zeros_like(factors), where=sums > 0)


def apply_laplacian(attention, values, phi):
    """(D - phi A) V."""
    return (np.diag(attention.sum(axis=1)) - phi * attention) @ values


def owe_moves(attention, ranks, moves, visited, lambda_spatial, phi, lambda_ridge, relax, owed):
    """What each spot owes after a sweep.

    It owes its own step's rest (visited) or its old debt, and its neighbours' moves. The rest of a step m is m times
    the part that was overshot and four hundred times m, but no more than m; the moves pull by
    lambda_s phi sum_j a_ij m_j over lambda_s d_i + lambda_r, where a visited spot has seen those of lower ranks.
    """
    own = np.where(visited, moves * np.minimum(relax - 1 + 400 * moves, 1), owed)
    curvature = lambda_spatial * attention.sum(axis=1) + lambda_ridge
    unseen = ~visited[:, None] | (ranks[None, :] > ranks[:, None])
    pull = lambda_spatial * phi * (attention * unseen) @ moves
    return own + np.divide(pull, curvature, out=np.zeros(len(own)), where=curvature > 0)


def owe_shift(old, attention, abundances, lambda_spatial, phi, lambda_ridge, owed):
    """What each spot owes under fresh weights: the largest change of its gradient over its least curvature, added."""
    shift = lambda_spatial * (apply_laplacian(attention, abundances, phi) - apply_laplacian(old, abundances, phi))
    largest = np.abs(shift).max(axis=1, initial=0)
    curvature = lambda_spatial * attention.sum(axis=1) + lambda_ridge
    return owed + np.divide(largest, curvature, out=np.zeros(len(owed)), where=largest > 0)
