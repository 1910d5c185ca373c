"""Who is nearest to whom: by square bins in the plane, else by a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...draws import mix
from ...kernels.cpu import neighbours as kernels
from ...parallel import LIGHT, Workers, cut

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

TIE = 1e-6  # relative difference of distances that counts as a tie
MOST_TIED = 4  # neighbours a spot has at most, in multiples of k_neighbors
MOST_COMPARED = 2048  # beyond so many ties of one spot the tree's own order decides
IN_BIN, CROWDED = 2, 64  # points in a bin, in the mean and at most
QUERY = 65536  # spots a query of the tree, so that no array grows beyond the graph itself

Rows = tuple[np.ndarray, np.ndarray]  # (ends, others): first edge of each spot, (n + 1,) int64, and whom they go to


def find_neighbours(
    coordinates: np.ndarray, sections: np.ndarray, k_neighbors: int, keys: np.ndarray, workers: Workers
) -> Rows:
    """The nearest other spots of one spot or more; parameters as of `link_spots`.

    Returns
    -------
    ends : (n_spots + 1,) int64
        First edge of each spot.
    others : (n_edges,) int32
        The k nearest other spots and all that tie with the last of them, ascending within each spot.
    """
    coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
    present = np.unique(sections)
    if len(present) == 1:
        return find_nearest(coordinates, k_neighbors, keys, workers)
    lengths, found = np.zeros(len(coordinates), dtype=np.int64), []
    for members in (np.flatnonzero(sections == section) for section in present):
        own, others = find_nearest(coordinates[members], k_neighbors, keys[members], workers)
        lengths[members] = np.diff(own)
        found.append((members, own, members[others]))
    ends = to_ends(lengths)
    joined = np.empty(ends[-1], dtype=np.int32)
    for members, own, others in found:
        joined[np.repeat(ends[members] - own[:-1], np.diff(own)) + np.arange(len(others))] = others
    return ends, joined


def to_ends(lengths: np.ndarray) -> np.ndarray:
    """Where runs of these lengths begin when they are laid end to end, and the end of the last, int64."""
    ends = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def to_rows(n: int, origins: np.ndarray, others: np.ndarray) -> Rows:
    """Edges in any order, spot by spot."""
    others = others[np.lexsort((others, origins))].astype(np.int32)
    return to_ends(np.bincount(origins, minlength=n)), others


def find_nearest(points: np.ndarray, k: int, keys: np.ndarray, workers: Workers) -> Rows:
    """The k nearest other points of each point and all that tie with the last of them; see `find_neighbours`.

    By square bins in the plane; by a tree in space, and where the points lie so unevenly that bins would be crowded.
    """
    n = len(points)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    bins = sort_into_bins(points)
    if bins is None:
        return to_rows(n, *find_by_tree(points, np.arange(n), k, keys, workers))
    most = min(MOST_TIED * k, n - 1)
    lengths = np.empty(n, dtype=np.int64)

    def near(start: int, stop: int) -> np.ndarray:
        others = np.empty((stop - start) * most, dtype=np.int32)  # what is not written to takes no memory
        here = lengths[start:stop]
        kernels.find_near(points, *bins, k, most, TIE, start, stop, here, others)
        return others[: here[here > 0].sum()]

    others = np.concatenate(workers.each(near, cut(n, LIGHT)))
    tied = np.flatnonzero(lengths < 0)
    if not len(tied):
        return to_ends(lengths), others
    lengths[tied] = 0
    pairs = np.repeat(np.arange(n), lengths), others
    return to_rows(n, *map(np.concatenate, zip(pairs, find_by_tree(points, tied, k, keys, workers), strict=True)))


def corner_of(points: np.ndarray) -> np.ndarray:
    """Least coordinate on each axis, (n_axes,): axis by axis, as NumPy is slow over the first of two."""
    return np.array([points[:, axis].min() for axis in range(points.shape[1])])


def sort_into_bins(points: np.ndarray) -> tuple | None:
    """Points in square bins of about two each, as `find_near` takes them; None in space and where bins are crowded."""
    n = len(points)
    low = corner_of(points)
    extent = np.array([points[:, axis].max() for axis in range(points.shape[1])]) - low
    if points.shape[1] != 2 or not (extent > 0).any():
        return None
    side = max(math.sqrt(extent[0] * extent[1] * IN_BIN / n), extent.max() * IN_BIN / n)
    across, down = (int(length / side) + 1 for length in extent)
    grid = across, down, float(low[0]), float(low[1]), float(side)
    starts, members = np.empty(across * down + 1, dtype=np.int32), np.empty(n, dtype=np.int32)
    kernels.sort_into_bins(points, *grid, starts, members)
    return None if np.diff(starts).max() > CROWDED else (members, starts, *grid)


def find_by_tree(
    points: np.ndarray, wanted: np.ndarray, k: int, keys: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (from, to), each (n_edges,), of `find_nearest` from some of the points, in any order."""
    from scipy.spatial import cKDTree  # here, as most runs do without it and it takes its time to load

    n = len(points)
    tree = cKDTree(points)
    most = min(MOST_TIED * k, n - 1)
    edges = []
    for start, stop in cut(len(wanted), QUERY):
        rows, width = wanted[start:stop], min(k + 3, most)
        while len(rows):
            distances, others = tree.query(points[rows], k=width + 1, workers=workers.n)
            own = others == rows[:, None]
            # among coincident points the tree may leave the point itself out: then the last one goes
            own[~own.any(axis=1), -1] = True
            distances, others = distances[~own].reshape(-1, width), others[~own].reshape(-1, width)
            limit = distances[:, k - 1] * (1 + TIE)
            open_ended = (distances[:, -1] <= limit) & (width < n - 1)
            if width == most and open_ended.any():
                edges.append(_tied(tree, points, rows[open_ended], k, most, keys))
            done = ~open_ended
            near = distances[done] <= limit[done, None]
            origin = np.broadcast_to(rows[done, None], near.shape)[near]
            edges.append((origin, others[done][near]))
            rows, width = rows[open_ended] if width < most else rows[:0], min(2 * width, most)
    return tuple(np.concatenate(parts) for parts in zip(*edges, strict=True))


def _tied(
    tree: cKDTree, points: np.ndarray, rows: np.ndarray, k: int, most: int, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Edges of points with more ties than they may have neighbours: the nearest first, ties by the keys."""
    distances, _ = tree.query(points[rows], k=k + 1)
    coincide = distances[:, k] == 0
    edges = list(_windows(tree, points, rows[coincide], most, keys))
    for row, reach in zip(rows[~coincide], distances[~coincide, k], strict=True):
        limit = reach * (1 + TIE)
        if tree.query_ball_point(points[row], limit, return_length=True) <= MOST_COMPARED:
            others = np.asarray(tree.query_ball_point(points[row], limit))
        else:
            others = tree.query(points[row], k=most + 1)[1]
        others = others[others != row]
        distances = np.sqrt(((points[others] - points[row]) ** 2).sum(axis=1))
        level = np.where(distances * (1 + TIE) < reach, distances, limit)
        near = np.lexsort((mix(keys[others] ^ keys[row]), level))[:most]
        edges.append((np.full(len(near), row), others[near]))
    return tuple(np.concatenate(parts) for parts in zip(*edges, strict=True))


def _windows(
    tree: cKDTree, points: np.ndarray, rows: np.ndarray, most: int, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Edges among many points at one place: each to the next ones in the cycle of their keys."""
    wanted = np.zeros(len(points), dtype=bool)
    wanted[rows] = True
    while wanted.any():
        members = np.asarray(tree.query_ball_point(points[wanted.argmax()], 0.0))
        members = members[np.argsort(keys[members], kind="stable")]
        after = (np.arange(len(members))[:, None] + np.arange(1, most + 1)) % len(members)
        here = wanted[members]
        origins = np.repeat(members[here], most)
        yield origins, members[after[here]].ravel()
        wanted[members] = False
