"""Places: who is whose neighbour, spots pooled to blocks, patches of tissue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from ..draws import keys_of, mix, order_by_key
from ..kernels.cpu import laplacian as kernels
from ..kernels.cpu.counts import key_rows
from ..parallel import Workers, cut
from ..parcels import Counts, Graph

TIE = 1e-6  # relative difference of distances that counts as a tie
MOST_TIED = 4  # neighbours a spot has at most, in multiples of k_neighbors
MOST_COMPARED = 2048  # beyond so many ties of one spot the tree's own order decides
QUERY = 65536  # spots a query of the tree, so that no array grows beyond the graph itself


def spot_keys(coordinates: np.ndarray, totals: np.ndarray, seed: int) -> np.ndarray:
    """Key of each spot from the bits of its coordinates and its total, (n_spots,) uint64."""
    return keys_of(seed, *np.asarray(coordinates, dtype=np.float64).T, totals)


def tell_apart(keys: np.ndarray, counts: Counts, gene_keys: np.ndarray, workers: Workers) -> np.ndarray:
    """The keys, with the counts of the spot in those that several spots share: equal place and total.

    Parameters
    ----------
    keys : (n_spots,) uint64
    counts : Counts
    gene_keys : (n_genes,) uint64
    """
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[group] > 1)
    if not len(rows):
        return keys
    some = take_spots(counts, rows)
    contents = np.empty(len(rows), dtype=np.uint64)
    workers.over(key_rows, len(rows), (some.indptr, some.indices, some.data, gene_keys), (contents,))
    told = keys.copy()
    told[rows] = mix(keys[rows] ^ contents)
    return told


def _nearest(points: np.ndarray, k: int, keys: np.ndarray, workers: Workers) -> tuple[np.ndarray, ...]:
    """Directed edges (from, to, distance) to the k nearest other points and all that tie with the last of them."""
    n = len(points)
    k = min(k, n - 1)
    if k < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    tree = cKDTree(points)
    most = min(MOST_TIED * k, n - 1)
    edges = []
    for start, stop in cut(n, QUERY):
        rows, width = np.arange(start, stop), min(k + 3, most)
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


def link_spots(
    coordinates: np.ndarray, sections: np.ndarray, k_neighbors: int, keys: np.ndarray, workers: Workers
) -> Graph:
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
    origins, targets, distances = [], [], []
    for section in np.unique(sections):
        members = np.flatnonzero(sections == section)
        i, j, d = _nearest(coordinates[members], k_neighbors, keys[members], workers)
        origins.append(members[i])
        targets.append(members[j])
        distances.append(d)
    i, j, d = np.concatenate(origins), np.concatenate(targets), np.concatenate(distances)
    # a distance of 0 must not vanish from the sparse pattern, and an edge that is none in this direction is inf
    forward = csr_matrix((d + 1.0, (i, j)), shape=(n, n))
    pattern = (forward + forward.T).tocsr()
    pattern.sort_indices()
    indptr, indices = pattern.indptr.astype(np.int64), pattern.indices.astype(np.int32)
    row = np.repeat(np.arange(n), np.diff(indptr))
    along = np.full(len(indices), np.inf)
    wide = row.astype(np.int64) * n + indices
    along[np.searchsorted(wide, i.astype(np.int64) * n + j)] = d
    place = np.empty(len(indices))
    arrays = (indptr, along, _scales(indptr, along))
    workers.over(kernels.place_edges, n, arrays, (place,))
    reverse = np.empty(len(indices), dtype=np.int64)
    workers.over(kernels.link_reverse, n, (indptr, indices), (reverse,))
    colours = np.full(n, -1, dtype=np.int32)
    kernels.colour_spots(indptr, indices, order_by_key(keys), colours)
    classes = tuple(
        np.flatnonzero(colours == colour).astype(np.int32) for colour in range(colours.max(initial=-1) + 1)
    )
    empty = np.zeros(0)
    return Graph(indptr, indices, reverse, place, empty, empty, classes)


def _scales(indptr: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """s_i: median of the positive distances to the neighbours; 1 where there is none, (n_spots,) float64."""
    n = len(indptr) - 1
    row = np.repeat(np.arange(n), np.diff(indptr))
    told = np.isfinite(distances) & (distances > 0)
    row, distances = row[told], distances[told]
    order = np.lexsort((distances, row))
    distances = distances[order]
    sizes = np.bincount(row, minlength=n)
    first = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    scales = np.ones(n)
    some = sizes > 0
    low, high = first + (sizes - 1) // 2, first + sizes // 2
    scales[some] = 0.5 * (distances[low[some]] + distances[high[some]])
    return scales


def no_neighbours(n_spots: int) -> Graph:
    """The graph without edges: no smoothing."""
    empty = np.zeros(0)
    return Graph(
        np.zeros(n_spots + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), empty, empty,
        np.zeros(n_spots), (np.arange(n_spots, dtype=np.int32),),
    )  # fmt: skip


def take_spots(counts: Counts, rows: np.ndarray) -> Counts:
    """The counts of some spots."""
    lengths = np.diff(counts.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    at = np.repeat(counts.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
    return Counts(indptr, counts.indices[at], counts.data[at], counts.totals[rows], counts.n_genes)


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
    member = csr_matrix((np.ones(counts.n_spots, counts.data.dtype), (blocks, np.arange(counts.n_spots))))
    pooled = (member @ matrix).tocsr()
    pooled.sort_indices()
    totals = np.bincount(blocks, counts.totals).astype(counts.totals.dtype)
    return Counts(
        pooled.indptr.astype(np.int64), pooled.indices.astype(np.int32), pooled.data, totals, counts.n_genes
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
    for centre in order_by_key(keys):
        if chosen.sum() >= n_patches * patch_size:
            break
        members = np.flatnonzero(sections == sections[centre])
        squares = ((coordinates[members] - coordinates[centre]) ** 2).sum(axis=1)
        size = min(patch_size, len(members))
        limit = np.partition(squares, size - 1)[size - 1]
        chosen[members[squares <= limit * (1 + TIE)]] = True
    return np.flatnonzero(chosen)


def with_weights(graph: Graph, weights: np.ndarray, degrees: np.ndarray) -> Graph:
    """The graph with other attention weights."""
    return replace(graph, weights=weights, degrees=degrees)
