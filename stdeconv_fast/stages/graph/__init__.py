"""Places: who is whose neighbour, spots pooled to blocks, patches of tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix

from ...draws import in_key_order, keys_of, mix, order_by_key
from ...kernels.cpu import laplacian as kernels
from ...kernels.cpu import neighbours as near_kernels
from ...kernels.cpu.counts import key_rows
from ...parallel import Workers, cut
from ...parcels import Counts, Graph
from .nearest import TIE, Rows, corner_of, find_neighbours, to_ends

GRID_SPOTS = 1000  # fewer spots are not worth a look for a grid
MOST_PITCHES = 1e8
WIDER = 4.0  # squares of distances that are looked at, in those of the patch before
EDGES = 1 << 17  # whose distances are compared together: few enough for the cache


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


def link_spots(
    coordinates: np.ndarray, sections: np.ndarray, k_neighbors: int, keys: np.ndarray, workers: Workers,
    edges: Rows | None = None,
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
    edges : (ends, others), optional
        Who is whose neighbour, in place of the k nearest, as `find_neighbours` gives it.

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
    edges = edges or find_neighbours(coordinates, sections, k_neighbors, keys, workers)
    indptr, indices, along = _both_ways(*edges, coordinates, workers)
    del edges
    workers.over(near_kernels.order_rows, n, (indptr, keys), (indices, along))
    scales = np.empty(n)
    workers.over(near_kernels.scale_spots, n, (indptr, along), (scales,))
    pitch = min(workers.each(_shortest, [(along[slice(*part)],) for part in cut(len(along), EDGES)]), default=np.inf)
    place = along  # in the same memory: the distances are not needed any more
    workers.over(kernels.place_edges, n, (indptr, along, scales), (place,))
    reverse = np.empty(len(indices), dtype=np.int64)
    workers.over(kernels.link_reverse, n, (indptr, indices), (reverse,))
    colours = _colour(indptr, indices, pitch, coordinates, keys, workers)
    classes = tuple(
        np.flatnonzero(colours == colour).astype(np.int32) for colour in range(colours.max(initial=-1) + 1)
    )
    empty = np.zeros(0)
    return Graph(indptr, indices, reverse, place, empty, empty, classes)


def _both_ways(
    ends: np.ndarray, others: np.ndarray, coordinates: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges as a symmetric pattern, (indptr, indices, distances): inf where there is only the way back."""
    n = len(ends) - 1
    one_sided = np.empty(len(others), dtype=np.bool_)
    workers.over(near_kernels.find_one_sided, n, (ends, others), (one_sided,))
    at = np.flatnonzero(one_sided)
    back, origin = others[at], (np.searchsorted(ends, at, side="right") - 1).astype(np.int32)
    order = np.lexsort((origin, back))
    back_ends = to_ends(np.bincount(back, minlength=n))
    indptr = ends + back_ends
    indices, along = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1])
    before = (ends, others, back_ends, origin[order], indptr, coordinates)
    workers.over(near_kernels.merge_edges, n, before, (indices, along))
    return indptr, indices, along


def _shortest(distances: np.ndarray) -> float:
    """The shortest distance above 0; inf where there is none."""
    return float(distances.min(initial=np.inf, where=distances > 0))


def _colour(
    indptr: np.ndarray, indices: np.ndarray, pitch: float, coordinates: np.ndarray, keys: np.ndarray,
    workers: Workers,
) -> np.ndarray:  # fmt: skip
    """Colours of which no two neighbours share one, (n_spots,) int32; they hang on places and keys, not on the order.

    On a grid by odd and even rows and columns, so that the spots of a colour follow one another in memory; where that
    fails, at gaps and borders, and everywhere off a grid, each spot takes the least colour that no neighbour has.
    `pitch` is the shortest distance of two neighbours, inf where there is none.
    """
    n = len(indptr) - 1
    colours, pending = None, None
    if n > GRID_SPOTS and np.isfinite(pitch) and np.ptp(coordinates) < MOST_PITCHES * pitch:
        by_place, clash = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.bool_)
        grid = coordinates, corner_of(coordinates), pitch
        workers.over(near_kernels.colour_places, n, grid, (by_place,))
        workers.over(near_kernels.find_clashes, n, (indptr, indices, by_place), (clash,))
        if 2 * clash.sum() < n:
            colours, pending = by_place, np.flatnonzero(clash)
            colours[pending] = -1
    if colours is None:
        colours, pending = np.full(n, -1, dtype=np.int32), np.arange(n)
    kernels.colour_spots(indptr, indices, pending[order_by_key(keys[pending])], colours)
    return colours


def no_neighbours(n_spots: int) -> Graph:
    """The graph without edges: no smoothing."""
    empty = np.zeros(0)
    return Graph(
        np.zeros(n_spots + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64), empty, empty,
        np.zeros(n_spots), (np.arange(n_spots, dtype=np.int32),),
    )  # fmt: skip


def cut_out(places: Graph, rows: np.ndarray) -> Graph:
    """The part of a graph among some spots; spatial factors of each row sum to 1 again. It looks at their edges alone.

    Parameters
    ----------
    places : Graph
    rows : (n_chosen,) int64
        Ascending.
    """
    firsts, lengths = places.indptr[rows], places.indptr[rows + 1] - places.indptr[rows]
    ends = to_ends(lengths)
    old = np.repeat(firsts - ends[:-1], lengths) + np.arange(ends[-1])
    row, others = np.repeat(np.arange(len(rows)), lengths), _find_in(rows, places.indices[old])
    inside = others >= 0
    old, row, others = old[inside], row[inside], others[inside]
    order = np.lexsort((others, row))
    old, others = old[order], others[order]  # the rows were in order before
    by_number = np.argsort(old)
    reverse = by_number[np.searchsorted(old, places.reverse[old], sorter=by_number)]
    place = places.place[old]
    sums = np.bincount(row, place, minlength=len(rows))
    place = place / np.where(sums > 0, sums, 1.0)[row]
    colours = (np.flatnonzero(_find_in(members, rows) >= 0).astype(np.int32) for members in places.colours)
    return replace(
        places,
        indptr=to_ends(np.bincount(row, minlength=len(rows))),
        indices=others.astype(np.int32),
        reverse=reverse,
        place=place,
        colours=tuple(members for members in colours if len(members)),
    )


def _find_in(sought: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each value stands in an ascending array, -1: not there."""
    if not len(sought):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(sought, values), len(sought) - 1)
    return np.where(sought[at] == values, at, -1)


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
    narrow = counts.data.dtype.kind == "u" and pooled.data.max(initial=0) <= np.iinfo(np.uint16).max
    data = pooled.data.astype(np.uint16) if narrow else pooled.data
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
    parts: dict[int, tuple[np.ndarray, ...]] = {}  # members of a section, their places by axis, room for two numbers
    limit = np.inf
    for centre in in_key_order(keys):
        if chosen.sum() >= n_patches * patch_size:
            break
        section = int(sections[centre])
        if section not in parts:
            members = np.flatnonzero(sections == section)
            parts[section] = members, np.ascontiguousarray(coordinates[members].T), *np.empty((2, len(members)))
        members, places, squares, more = parts[section]
        squares[:] = 0.0
        for along, here in zip(places, coordinates[centre], strict=True):
            squares += np.square(np.subtract(along, here, out=more), out=more)
        size = min(patch_size, len(members))
        near = squares[squares <= WIDER * limit]  # the limit of the patch before: a few are sorted in place of all
        near = near if len(near) >= size else squares
        limit = np.partition(near, size - 1)[size - 1]
        chosen[members[squares <= limit * (1 + TIE)]] = True
    return np.flatnonzero(chosen)


def with_weights(graph: Graph, weights: np.ndarray, degrees: np.ndarray) -> Graph:
    """The graph with other attention weights."""
    return replace(graph, weights=weights, degrees=degrees)
