"""Who is near whom on dense matrices, float64."""

from __future__ import annotations

import numpy as np


def find_near(points, k, most, tie):
    """For each point the other points no farther than the k-th nearest (but for `tie`).

    None where there are more than `most`.
    """
    found = []
    for i, point in enumerate(points):
        others = np.delete(np.arange(len(points)), i)
        distances = np.sqrt(((points[others] - point) ** 2).sum(axis=1))
        near = distances <= np.sort(distances)[k - 1] * (1 + tie)
        found.append(others[near] if near.sum() <= most else None)
    return found


def tell_in_order(points):
    """Whether the points, as tuples, ascend: read forwards, or backwards."""
    return any(all(a < b for a, b in zip(rows[:-1], rows[1:], strict=True)) for rows in (
        [tuple(point[::step]) for point in points] for step in (1, -1)
    ))  # fmt: skip


def sort_into_bins(points, n_across, n_down, left, bottom, side):
    """Starts and members of the bins."""
    bins = [[] for _ in range(n_across * n_down)]
    for i, (x, y) in enumerate(points):
        column, row = min(int((x - left) / side), n_across - 1), min(int((y - bottom) / side), n_down - 1)
        bins[row * n_across + column].append(i)
    return np.cumsum([0, *map(len, bins)]), np.array([i for members in bins for i in members])


def colour_places(points, corner, pitch):
    """Odd and even rows, columns and layers as bits."""
    odd = np.floor((points - corner) / pitch + 0.5).astype(np.int64) & 1
    return odd @ (1 << np.arange(points.shape[1]))


def find_one_sided(linked):
    """Directed edges without a way back, dense and boolean."""
    return linked & ~linked.T


def merge_edges(distances):
    """The symmetric pattern of directed edges (inf: none), dense: -1 where neither points at the other."""
    linked = np.isfinite(distances)
    return np.where(linked | linked.T, distances, -1)


def order_rows(indptr, indices, keys):
    """The positions of the edges with the neighbours of each spot in the order of their keys."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.lexsort((keys[indices], rows))


def scale_spots(distances):
    """Median of the positive, finite distances of each row; 1 where there is none."""
    rows = [row[np.isfinite(row) & (row > 0)] for row in distances]
    return np.array([np.median(row) if len(row) else 1.0 for row in rows])


def find_clashes(linked, colours):
    """Spots that have the colour of a neighbour."""
    return (linked & (colours[:, None] == colours)).any(axis=1)
