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
