"""Places: who is whose neighbour, spots pooled to blocks, patches of tissue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from ..draws import in_key_order, keys_of, mix, order_by_key
from ..kernels.cpu import laplacian as kernels
from ..kernels.cpu import neighbours as near_kernels
from ..kernels.cpu.counts import key_rows
from ..parallel import LIGHT, Workers, cut
from ..parcels import Counts, Graph

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

TIE = 1e-6  # relative difference of distances that counts as a tie
MOST_TIED = 4  # neighbours a spot has at most, in multiples of k_neighbors
MOST_COMPARED = 2048  # beyond so many ties of one spot the tree's own order decides
IN_BIN, CROWDED = 2, 64  # points in a bin, in the mean and at most
GRID_SPOTS = 1000  # fewer spots are not worth a look for a grid
MOST_PITCHES = 1e8
WIDER = 4.0  # squares of distances that are looked at, in those of the patch before
QUERY = 65536  # spots a query of the tree, so that no array grows beyond the graph itself


def spot_keys(coordinates: np.ndarray, totals: np.ndarray, seed: int) -> np.ndarray:
    """Key of each spot from the bits of its coordinates and its total, (n_spots,) uint64."""
    return keys_of(seed, *np.asarray(coordinates, dtype=np.float64).T, totals)


def tell_apart(
    keys: np.ndarray, take: Callable[[np.ndarray], Counts], gene_keys: np.ndarray, workers: Workers,
    coordinates: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The keys, with the counts of the spot in those that several spots share: equal place and total.

    Parameters
    ----------
    keys : (n_spots,) uint64
    take : callable
        Counts of some spots.
    gene_keys : (n_genes,) uint64
    coordinates : (n_spots, 2 or 3) float64
    """
    if near_kernels.tell_in_order(np.ascontiguousarray(coordinates, dtype=np.float64)):
        return keys
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        return keys
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[group] > 1)
    if not len(rows):
        return keys
    some = take(rows)
    contents = np.empty(len(rows), dtype=np.uint64)
    workers.over(key_rows, len(rows), (some.indptr, some.indices, some.data, gene_keys), (contents,))
    told = keys.copy()
    told[rows] = mix(keys[rows] ^ contents)
    return told


def _nearest(points: np.ndarray, k: int, keys: np.ndarray, workers: Workers) -> tuple[np.ndarray, ...]:
    """Directed edges (from, to, distance) to the k nearest other points and all that tie with the last of them.

    By square bins in the plane; by a tree in space, and where the points lie so unevenly that bins would be crowded.
    """
    n = len(points)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    bins = _sort_into_bins(points)
    if bins is None:
        return _nearest_by_tree(points, np.arange(n), k, keys, workers)
    most = min(MOST_TIED * k, n - 1)

    def near(start: int, stop: int) -> tuple[np.ndarray, ...]:
        lengths = np.empty(stop - start, dtype=np.int64)
        others, distances = np.empty((stop - start, most), dtype=np.int32), np.empty((stop - start, most))
        near_kernels.find_near(points, *bins, k, most, TIE, start, stop, lengths, others, distances)
        ends = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))])
        packed = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1])
        near_kernels.pack_near(lengths, others, distances, ends, *packed)
        origin = np.repeat(np.arange(start, stop, dtype=np.int32), np.diff(ends))
        return origin, *packed, start + np.flatnonzero(lengths < 0)

    parts = workers.each(near, cut(n, LIGHT))
    edges = tuple(np.concatenate([part[field] for part in parts]) for field in range(3))
    tied = np.concatenate([part[3] for part in parts])
    if len(tied):
        edges = tuple(map(np.concatenate, zip(edges, _nearest_by_tree(points, tied, k, keys, workers), strict=True)))
    return edges


def corner_of(points: np.ndarray) -> np.ndarray:
    """Least coordinate on each axis, (n_axes,): axis by axis, as NumPy is slow over the first of two."""
    return np.array([points[:, axis].min() for axis in range(points.shape[1])])


def _sort_into_bins(points: np.ndarray) -> tuple | None:
    """Points in square bins of about two each, as `find_near` takes them; None in space and where bins are crowded."""
    n = len(points)
    low = corner_of(points)
    extent = -corner_of(-points) - low
    if points.shape[1] != 2 or not (extent > 0).any():
        return None
    side = max(math.sqrt(extent[0] * extent[1] * IN_BIN / n), extent.max() * IN_BIN / n)
    across, down = (int(length / side) + 1 for length in extent)
    grid = across, down, float(low[0]), float(low[1]), float(side)
    starts, members = np.empty(across * down + 1, dtype=np.int64), np.empty(n, dtype=np.int64)
    near_kernels.sort_into_bins(points, *grid, starts, members)
    return None if np.diff(starts).max() > CROWDED else (members, starts, *grid)


def _nearest_by_tree(
    points: np.ndarray, wanted: np.ndarray, k: int, keys: np.ndarray, workers: Workers
) -> tuple[np.ndarray, ...]:
    """The edges of `_nearest` from some of the points."""
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
            edges.append((origin, others[done][near], distances[done][near]))
            rows, width = rows[open_ended] if width < most else rows[:0], min(2 * width, most)
    return tuple(np.concatenate(parts) for parts in zip(*edges, strict=True))


def _tied(
    tree: cKDTree, points: np.ndarray, rows: np.ndarray, k: int, most: int, keys: np.ndarray
) -> tuple[np.ndarray, ...]:
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
        edges.append((np.full(len(near), row), others[near], distances[near]))
    return tuple(np.concatenate(parts) for parts in zip(*edges, strict=True))


def _windows(
    tree: cKDTree, points: np.ndarray, rows: np.ndarray, most: int, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, ...]]:
    """Edges among many points at one place: each to the next ones in the cycle of their keys."""
    wanted = np.zeros(len(points), dtype=bool)
    wanted[rows] = True
    while wanted.any():
        members = np.asarray(tree.query_ball_point(points[wanted.argmax()], 0.0))
        members = members[np.argsort(keys[members], kind="stable")]
        after = (np.arange(len(members))[:, None] + np.arange(1, most + 1)) % len(members)
        here = wanted[members]
        origins = np.repeat(members[here], most)
        yield origins, members[after[here]].ravel(), np.zeros(len(origins))
        wanted[members] = False


def find_neighbours(
    coordinates: np.ndarray, sections: np.ndarray, k_neighbors: int, keys: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges (from, to, distance), each (n_edges,), of one spot or more; parameters as of `link_spots`."""
    coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
    present = np.unique(sections)
    if len(present) == 1:
        return _nearest(coordinates, k_neighbors, keys, workers)
    edges = []
    for members in (np.flatnonzero(sections == section) for section in present):
        i, j, d = _nearest(coordinates[members], k_neighbors, keys[members], workers)
        edges.append((members[i], members[j], d))
    return tuple(map(np.concatenate, zip(*edges, strict=True)))


def link_spots(
    coordinates: np.ndarray, sections: np.ndarray, k_neighbors: int, keys: np.ndarray, workers: Workers,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Graph:  # fmt: skip
    """The neighbour graph, with attention by place alone.

    Parameters
    ----------
    coordinates : (n_spots, 2 or 3) float64
    sections : (n_spots,) int32
        Spots of different sections are never neighbours.
    k_neighbors : int
        Neighbours besides the spot itself; all spots that tie with the last of them (1e-6 relative) count too, up to
        4 k. A section with fewer other spots takes what there is.
    keys : (n_spots,) uint64
        Order of the colouring, so that it does not depend on the order of the spots.
    workers : Workers
    edges : (from, to, distance), each (n_edges,), optional
        Who is whose neighbour, in place of the k nearest.

    Returns
    -------
    Graph

    Notes
    -----
    The weights are those of `stages.attention.attend_by_place`: exp(-d^2 / (2 s_i^2)), s_i the median distance to
    the neighbours, each row divided by its sum, then (A + A') / 2.
    """
    n = len(coordinates)
    if not n:
        return no_neighbours(0)
    coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
    i, j, d = edges or find_neighbours(coordinates, sections, k_neighbors, keys, workers)
    indptr, indices, along = _both_ways(n, i, j, d, workers)
    workers.over(near_kernels.order_rows, n, (indptr, keys), (indices, along))
    scales = np.empty(n)
    workers.over(near_kernels.scale_spots, n, (indptr, along), (scales,))
    place = np.empty(len(indices))
    workers.over(kernels.place_edges, n, (indptr, along, scales), (place,))
    reverse = np.empty(len(indices), dtype=np.int64)
    workers.over(kernels.link_reverse, n, (indptr, indices), (reverse,))
    colours = _colour(indptr, indices, along, coordinates, keys, workers)
    classes = tuple(
        np.flatnonzero(colours == colour).astype(np.int32) for colour in range(colours.max(initial=-1) + 1)
    )
    empty = np.zeros(0)
    return Graph(indptr, indices, reverse, place, empty, empty, classes)


def _both_ways(n: int, i: np.ndarray, j: np.ndarray, d: np.ndarray, workers: Workers) -> tuple[np.ndarray, ...]:
    """Directed edges as a symmetric pattern, (indptr, indices, distances): inf where there is only the way back."""
    if len(i) and ((np.diff(i) < 0) | ((np.diff(i) == 0) & (np.diff(j) < 0))).any():
        order = np.lexsort((j, i))
        i, j, d = i[order], j[order], d[order]
    ends = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))]).astype(np.int64)
    j = j.astype(np.int32, copy=False)
    one_sided = np.empty(len(j), dtype=np.bool_)
    workers.over(near_kernels.find_one_sided, n, (ends, j), (one_sided,))
    back, origin = j[one_sided], i[one_sided]
    order = np.lexsort((origin, back))
    back_ends = np.concatenate([[0], np.cumsum(np.bincount(back, minlength=n))]).astype(np.int64)
    indptr = ends + back_ends
    indices, along = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1])
    before = (ends, j, d, back_ends, origin[order].astype(np.int32), indptr)
    workers.over(near_kernels.merge_edges, n, before, (indices, along))
    return indptr, indices, along


def _colour(
    indptr: np.ndarray, indices: np.ndarray, along: np.ndarray, coordinates: np.ndarray, keys: np.ndarray,
    workers: Workers,
) -> np.ndarray:  # fmt: skip
    """Colours of which no two neighbours share one, (n_spots,) int32; they hang on places and keys, not on the order.

    On a grid by odd and even rows and columns, so that the spots of a colour follow one another in memory; where that
    fails, at gaps and borders, and everywhere off a grid, each spot takes the least colour that no neighbour has.
    """
    n = len(indptr) - 1
    colours = np.full(n, -1, dtype=np.int32)
    pending = np.arange(n)
    pitch = along.min(initial=np.inf, where=along > 0)
    if n > GRID_SPOTS and np.isfinite(pitch) and np.ptp(coordinates) < MOST_PITCHES * pitch:
        by_place, clash = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.bool_)
        grid = coordinates, corner_of(coordinates), float(pitch)
        workers.over(near_kernels.colour_places, n, grid, (by_place,))
        workers.over(near_kernels.find_clashes, n, (indptr, indices, by_place), (clash,))
        if 2 * clash.sum() < n:
            colours[~clash] = by_place[~clash]
            pending = np.flatnonzero(clash)
    kernels.colour_spots(indptr, indices, pending[order_by_key(keys[pending])], colours)
    return colours


def no_neighbours(n_spots: int) -> Graph:
    """The graph without edges: no smoothing."""
    empty = np.zeros(0)
    return Graph(
        np.zeros(n_spots + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), empty, empty,
        np.zeros(n_spots), (np.arange(n_spots, dtype=np.int32),),
    )  # fmt: skip


def take_spots(counts: Counts, rows: np.ndarray) -> Counts:
    """The counts of some spots."""
    indptr = np.concatenate([[0], np.cumsum(np.diff(counts.indptr)[rows])]).astype(np.int64)
    firsts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of each run of rows that follow one another
    ends = rows[np.append(firsts[1:], len(rows)) - 1] + 1 if len(rows) else rows
    parts = [slice(*pair) for pair in zip(counts.indptr[rows[firsts]], counts.indptr[ends], strict=True)] or [slice(0)]
    indices, data = (np.concatenate([values[part] for part in parts]) for values in (counts.indices, counts.data))
    return Counts(indptr, indices, data, counts.totals[rows], counts.n_genes)


def halve(coordinates: np.ndarray, weights: np.ndarray, keys: np.ndarray, most: float) -> np.ndarray:
    """Blocks of neighbouring spots, (n_spots,) int64: halved along the longer side until they weigh at most `most`.

    Parameters
    ----------
    coordinates : (n_spots, 2 or 3) float64
    weights : (n_spots,) float
    keys : (n_spots,) uint64
        Order of spots at one place.
    most : float
        A block is halved, at the middle of its weight, while it weighs more and has more than one spot.
    """
    blocks = np.zeros(len(coordinates), dtype=np.int64)
    pending, found = [np.arange(len(coordinates))], 0
    while pending:
        rows = pending.pop()
        if len(rows) < 2 or weights[rows].sum() <= most:
            blocks[rows] = found
            found += 1
            continue
        here = coordinates[rows]
        axis = int(np.argmax(np.ptp(here, axis=0)))
        rest = [here[:, other] for other in range(here.shape[1]) if other != axis]
        rows = rows[np.lexsort((keys[rows], *rest, here[:, axis]))]
        run = np.cumsum(weights[rows], dtype=np.float64)
        middle = int(np.clip(np.searchsorted(run, run[-1] / 2) + 1, 1, len(rows) - 1))
        pending += [rows[middle:], rows[:middle]]
    return blocks


def pool_blocks(
    counts: Counts, coordinates: np.ndarray, sections: np.ndarray, keys: np.ndarray, size: float
) -> Counts:
    """Counts of blocks of neighbouring spots with about `size` counts each; blocks never cross sections."""
    blocks, found = np.zeros(counts.n_spots, dtype=np.int64), 0
    for section in np.unique(sections):
        members = np.flatnonzero(sections == section)
        # halving at 1.5 times the size leaves blocks around it
        blocks[members] = found + halve(coordinates[members], counts.totals[members], keys[members], 1.5 * size)
        found = blocks[members].max() + 1
    matrix = csr_matrix((counts.data, counts.indices, counts.indptr), shape=(counts.n_spots, counts.n_genes))
    member = csr_matrix((np.ones(counts.n_spots, counts.dtype), (blocks, np.arange(counts.n_spots))))
    pooled = (member @ matrix).tocsr()
    pooled.sort_indices()
    totals = np.bincount(blocks, counts.totals).astype(counts.totals.dtype)
    narrow = counts.data.dtype.kind == "u" and pooled.data.max(initial=0) <= np.iinfo(counts.data.dtype).max
    data = pooled.data.astype(counts.data.dtype) if narrow else pooled.data
    return Counts(
        pooled.indptr.astype(np.int64), pooled.indices.astype(counts.indices.dtype), data, totals, counts.n_genes
    )


def choose_patches(
    coordinates: np.ndarray, sections: np.ndarray, keys: np.ndarray, n_patches: int, patch_size: int
) -> np.ndarray:
    """Spots of whole patches of tissue, sorted, (n_chosen,) int64: all spots where there are few.

    The centres are the spots with the lowest keys; a patch is a centre and its nearest spots of the same section.
    """
    n = len(coordinates)
    if n <= n_patches * patch_size * 5 // 4:
        return np.arange(n)
    chosen = np.zeros(n, dtype=bool)
    parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # members of a section and their places, axis by axis
    limit = np.inf
    for centre in in_key_order(keys):
        if chosen.sum() >= n_patches * patch_size:
            break
        section = int(sections[centre])
        if section not in parts:
            members = np.flatnonzero(sections == section)
            parts[section] = members, np.ascontiguousarray(coordinates[members].T)
        members, places = parts[section]
        squares = sum((along - here) ** 2 for along, here in zip(places, coordinates[centre], strict=True))
        size = min(patch_size, len(members))
        near = squares[squares <= WIDER * limit]  # the limit of the patch before: a few are sorted in place of all
        near = near if len(near) >= size else squares
        limit = np.partition(near, size - 1)[size - 1]
        chosen[members[squares <= limit * (1 + TIE)]] = True
    return np.flatnonzero(chosen)


def with_weights(graph: Graph, weights: np.ndarray, degrees: np.ndarray) -> Graph:
    """The graph with other attention weights."""
    return replace(graph, weights=weights, degrees=degrees)
