"""Who is whose neighbour, colours, blocks, patches, and parts of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.stages import graph as stage
from stdeconv_fast.stages.attention import attend_by_place
from stdeconv_fast.stages.graph import nearest
from tests.naive import attention as naive
from tests.problems import counts_of, dense_of, edge_rows, hexagonal, inside, make_tissue, square
from tests.tolerances import check


def link(places, k=6, sections=None, totals=None):
    """The neighbour graph of some places."""
    places = np.asarray(places, dtype=np.float64)
    sections = np.zeros(len(places), np.int32) if sections is None else np.asarray(sections, dtype=np.int32)
    totals = np.zeros(len(places)) if totals is None else totals
    with hold_workers(1) as workers:
        return stage.link_spots(places, sections, k, stage.spot_keys(places, totals, 0), workers)


def neighbours(graph):
    """Directed neighbours, dense and boolean."""
    return dense_of(graph, graph.place) > 0


def by_definition(places, k, sections):
    """All spots of the section that are no farther than the k-th nearest (1e-6 relative), dense and boolean."""
    distances = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=2))
    distances[sections[:, None] != sections[None]] = np.inf
    np.fill_diagonal(distances, np.inf)
    limit = np.sort(distances, axis=1)[:, min(k, len(places) - 1) - 1] if k else np.full(len(places), -1.0)
    for i in range(len(places)):  # a section with fewer others takes what there is
        others = np.isfinite(distances[i])
        limit[i] = min(limit[i], distances[i][others].max()) if others.any() else -1.0
    return (distances <= limit[:, None] * (1 + 1e-6)) & np.isfinite(distances)


def assert_sound(graph):
    """The pattern is symmetric without loops; reverse edges and colours are right; rows of place sum to 1."""
    rows = edge_rows(graph)
    assert (rows != graph.indices).all()
    assert len(np.unique(rows * graph.n_spots + graph.indices)) == len(rows)
    np.testing.assert_array_equal(rows[graph.reverse], graph.indices)
    np.testing.assert_array_equal(graph.indices[graph.reverse], rows)
    colour = np.full(graph.n_spots, -1)
    for number, members in enumerate(graph.colours):
        assert len(members) and (colour[members] == -1).all()
        colour[members] = number
    assert (colour >= 0).all()
    assert (colour[rows] != colour[graph.indices]).all()
    sums = np.bincount(rows, graph.place, minlength=graph.n_spots)
    np.testing.assert_allclose(sums[sums > 0], 1.0, atol=1e-12)
    assert (graph.place + graph.place[graph.reverse] > 0).all()  # each edge is one in at least one direction


@pytest.mark.parametrize(
    ("places", "k", "expected"), [(hexagonal(9, 10), 6, 6), (square(9, 10), 6, 8), (square(9, 10), 4, 4)],
    ids=["hexagonal 6", "square 8", "square 4"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_ties_on_a_grid_are_neighbours(places, k, expected, seed):
    order = np.arange(len(places)) if seed is None else np.random.default_rng(seed).permutation(len(places))
    # far from the origin the distances of a grid differ in their last digits
    graph = link(places[order] + [12_345.678, -9_876.543], k)
    assert_sound(graph)
    found = neighbours(graph)
    assert (found[inside(places)[order]].sum(axis=1) == expected).all()
    whole = neighbours(link(places, k))
    np.testing.assert_array_equal(found, whole[order][:, order])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("k", [1, 4, 6, 12])
def test_random_places(dimensions, k):
    rng = np.random.default_rng(dimensions)
    places = rng.uniform(0, 1000, (150, dimensions))
    sections = rng.integers(0, 3, 150)
    graph = link(places, k, sections)
    assert_sound(graph)
    np.testing.assert_array_equal(neighbours(graph), by_definition(places, k, sections))
    assert (sections[edge_rows(graph)] == sections[graph.indices]).all()
    linked = neighbours(graph)
    factors = naive.spatial_factors(places, linked)
    check("place", dense_of(graph, graph.place), factors / factors.sum(axis=1, keepdims=True))


def test_a_grid_in_space_has_its_six_nearest():
    layers = np.stack(np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = neighbours(link(layers, 6))
    middle = ((layers > 0) & (layers < 4)).all(axis=1)
    assert (found[middle].sum(axis=1) == 6).all()


def test_sections_at_the_same_places_are_not_linked():
    places = np.vstack([hexagonal(5, 6)] * 2)
    sections = np.repeat([4, 1], 30)
    graph = link(places, 6, sections)
    assert_sound(graph)
    found = neighbours(graph)
    assert not found[:30, 30:].any() and not found[30:, :30].any()
    np.testing.assert_array_equal(found[:30, :30], neighbours(link(hexagonal(5, 6), 6)))
    np.testing.assert_array_equal(found[30:, 30:], found[:30, :30])


def test_a_section_of_one_spot_has_no_neighbours():
    places = np.vstack([hexagonal(4, 4), [[10.0, 10.0]]])
    graph = link(places, 6, [0] * 16 + [1])
    assert_sound(graph)
    assert graph.indptr[17] == graph.indptr[16]
    with hold_workers(1) as workers:
        assert attend_by_place(graph, np.dtype(float), workers).degrees[16] == 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_k_above_the_section_takes_what_there_is(n):
    graph = link(hexagonal(1, n), 6)
    assert_sound(graph)
    np.testing.assert_array_equal(neighbours(graph), ~np.eye(n, dtype=bool))


def test_no_spots_have_an_empty_graph():
    graph = link(np.zeros((0, 2)))
    assert graph.n_spots == 0 and not len(graph.indices)


def test_no_neighbours_asked_for():
    graph = link(hexagonal(4, 4), 0)
    assert len(graph.indices) == 0 and sum(map(len, graph.colours)) == 16


@pytest.mark.parametrize("n", [3, 10, 24, 25, 26, 300])
def test_coincident_places(n):
    graph = link(np.full((n, 2), 7.5), 6)
    assert_sound(graph)
    directed = neighbours(graph).sum(axis=1)
    assert (directed == min(n - 1, 24)).all()
    with hold_workers(1) as workers:
        links = attend_by_place(graph, np.dtype(float), workers)
    assert np.isfinite(links.weights).all()


def test_some_coincident_places_among_others():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 100, (60, 2))
    places[10:15] = places[9]
    graph = link(places, 4)
    assert_sound(graph)
    np.testing.assert_array_equal(neighbours(graph), by_definition(places, 4, np.zeros(60)))


def test_the_graph_permutes_with_the_spots():
    places = np.random.default_rng(5).uniform(0, 1000, (200, 2))
    order = np.random.default_rng(6).permutation(200)
    whole, permuted = link(places), link(places[order])
    check("place", dense_of(permuted, permuted.place), dense_of(whole, whole.place)[order][:, order])
    assert [sorted(order[members]) for members in permuted.colours] == [list(members) for members in whole.colours]


def test_more_ties_than_places_permute_with_the_spots():
    """Among 30 spots at one place each has 24 neighbours: which ones must not hang on the order of the rows."""
    places = np.vstack([np.zeros((30, 2)), hexagonal(3, 3) + 50])
    totals = np.arange(39.0)
    order = np.random.default_rng(6).permutation(39)
    found = neighbours(link(places, totals=totals))[order][:, order]
    np.testing.assert_array_equal(neighbours(link(places[order], totals=totals[order])), found)


# bins and the tree


def grid_with_holes():
    places = square(40, 45)
    centre = np.random.default_rng(3).uniform(0, 2400, (6, 2))
    return places[(np.linalg.norm(places[:, None] - centre, axis=2) > 300).all(axis=1)]


def clustered(n_clusters=40, spread=1.0):
    rng = np.random.default_rng(4)
    centres = rng.uniform(0, 1000, (n_clusters, 2))
    return np.repeat(centres, 30, axis=0) + rng.normal(0, spread, (30 * n_clusters, 2))


def turned(places, degrees):
    a = np.deg2rad(degrees)
    return places @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + [4321.5, -77.25]


def some_coincident():
    places = np.random.default_rng(5).uniform(0, 1000, (900, 2))
    places[100:110], places[300:340], places[500:700] = places[99], places[299], places[499]
    return places


PLACES = {
    "random": np.random.default_rng(0).uniform(0, 1000, (2000, 2)),
    "few": np.random.default_rng(1).uniform(0, 1000, (9, 2)),
    "two": np.array([[0.0, 0.0], [3.0, 4.0]]),
    "square": square(40, 45),
    "hexagonal": hexagonal(40, 45),
    "turned square": turned(square(40, 45), 30),
    "turned hexagonal": turned(hexagonal(40, 45), 17),
    "holes": grid_with_holes(),
    "clustered": clustered(),
    "crowded": clustered(3, 0.01),
    "some coincident": some_coincident(),
    "coincident": np.full((60, 2), 3.0),
    "a line": np.column_stack([np.arange(300.0), np.full(300, 2.0)]),
    "far outlier": np.vstack([square(20, 20), [[1e6, 1e6]]]),
    "strips": np.vstack([square(3, 300), square(3, 300) + [1e5, 1e5]]),
    "space": np.random.default_rng(6).uniform(0, 100, (800, 3)),
    "layers": np.stack(np.meshgrid(*[np.arange(9.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("k", [1, 6, 12])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_bins_and_the_tree_give_the_same_edges(name, k, n_jobs):
    places = PLACES[name]
    n = len(places)
    keys = stage.spot_keys(places, np.arange(float(n)), 0)
    with hold_workers(n_jobs) as workers:
        ends, others = nearest.find_nearest(places, k, keys, workers)
        by_tree = nearest.find_by_tree(places, np.arange(n), min(k, n - 1), keys, workers)
    assert ends.dtype == np.int64 and others.dtype == np.int32
    order = np.lexsort(by_tree[::-1])
    np.testing.assert_array_equal([np.repeat(np.arange(n), np.diff(ends)), others], [part[order] for part in by_tree])


def test_which_places_are_looked_up_by_bins():
    binned = {name: nearest.sort_into_bins(places) is not None for name, places in PLACES.items()}
    by_tree = ("some coincident", "coincident", "far outlier", "strips", "space", "layers")
    assert {name for name, by_bins in binned.items() if not by_bins} == set(by_tree)


def test_bins_hold_every_point_once():
    for name in ("random", "square", "holes", "a line", "two"):
        places = PLACES[name]
        members, starts, across, down, left, bottom, side = nearest.sort_into_bins(places)
        np.testing.assert_array_equal(np.sort(members), np.arange(len(places)))
        assert len(starts) == across * down + 1 and starts[0] == 0 and starts[-1] == len(places)
        number = np.repeat(np.arange(across * down), np.diff(starts))
        corner = np.stack([left + side * (number % across), bottom + side * (number // across)], axis=1)
        inside = places[members] - corner
        assert (inside > -1e-9 * side).all() and (inside < side * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", ["square", "holes", "random", "some coincident"])
def test_neighbours_come_in_the_order_of_their_keys(name):
    """So sums over them are the same to the last bit in whatever order the spots came."""
    places = PLACES[name]
    totals = np.arange(float(len(places)))
    keys = stage.spot_keys(places, totals, 0)
    graph = link(places, totals=totals)
    rows = edge_rows(graph)
    np.testing.assert_array_equal(graph.indices, graph.indices[np.lexsort((keys[graph.indices], rows))])
    order = np.random.default_rng(8).permutation(len(places))
    permuted = link(places[order], totals=totals[order])
    np.testing.assert_array_equal(dense_of(permuted, permuted.place), dense_of(graph, graph.place)[order][:, order])
    for row in (0, 17, 800):
        i = np.flatnonzero(order == row)[0]
        here, there = (slice(*g.indptr[[k, k + 1]]) for g, k in ((graph, row), (permuted, i)))
        np.testing.assert_array_equal(order[permuted.indices[there]], graph.indices[here])


# colours


def colours_of(graph):
    colours = np.full(graph.n_spots, -1)
    for number, members in enumerate(graph.colours):
        colours[members] = number
    return colours


@pytest.mark.parametrize(
    ("places", "k", "least"),
    [(square(120, 130), 4, 0.98), (square(120, 130), 8, 0.92), (PLACES["holes"], 4, 0.95), (PLACES["holes"], 6, 0.6)],
    ids=["square 4", "square 8", "holes 4", "holes 6"],
)  # fmt: skip
def test_a_grid_is_coloured_by_odd_and_even_rows_and_columns(places, k, least):
    """But at its rims, where neighbours lie further off: so the spots of a colour follow one another in memory."""
    graph = link(places, k)
    assert_sound(graph)
    column, row = np.rint(places / 55.0).astype(int).T % 2
    same = colours_of(graph) == 2 * row + column
    assert same.mean() > least  # measured: 1.0, 0.956, 0.987, 0.72
    assert len(graph.colours) <= 9


@pytest.mark.parametrize("name", ["square", "hexagonal", "turned square", "turned hexagonal", "holes", "random"])
def test_colours_hang_on_places_and_keys_not_on_the_order(name):
    places = PLACES[name]
    assert len(places) > stage.GRID_SPOTS
    totals = np.arange(float(len(places)))
    order = np.random.default_rng(8).permutation(len(places))
    whole, permuted = link(places, totals=totals), link(places[order], totals=totals[order])
    assert_sound(whole)
    np.testing.assert_array_equal(colours_of(permuted), colours_of(whole)[order])


def test_sections_side_by_side_are_coloured_as_one():
    places = np.vstack([square(60, 60), square(60, 60) + [55.0 * 60.3, 17.0]])
    graph = link(places, 8, np.repeat([0, 1], 3600))
    assert_sound(graph)
    assert sum(map(len, graph.colours[:4])) > 0.9 * len(places)  # measured: 0.95


def test_no_neighbours_is_the_empty_graph():
    graph = stage.no_neighbours(5)
    assert graph.n_spots == 5 and not len(graph.indices) and not graph.degrees.any()
    np.testing.assert_array_equal(np.concatenate(graph.colours), np.arange(5))


def test_take_spots_takes_rows():
    dense = make_tissue(30, 12, 3).counts
    rows = np.array([29, 3, 3, 0, 17])
    part = stage.take_spots(counts_of(dense), rows)
    again = np.zeros((5, 12))
    again[np.repeat(np.arange(5), np.diff(part.indptr)), part.indices] = part.data
    np.testing.assert_array_equal(again, dense[rows])
    np.testing.assert_array_equal(part.totals, dense[rows].sum(axis=1))
    assert stage.take_spots(counts_of(dense), rows[:0]).n_spots == 0


@pytest.mark.parametrize("most", [0.5, 40.0, 200.0, 1e9])
def test_halved_blocks_weigh_at_most_the_limit(most):
    rng = np.random.default_rng(1)
    places, weights = np.round(rng.uniform(0, 20, (300, 2))), rng.uniform(1, 30, 300)
    keys = stage.spot_keys(places, weights, 0)
    blocks = stage.halve(places, weights, keys, most)
    heavy = np.bincount(blocks, weights)
    sizes = np.bincount(blocks)
    assert (sizes > 0).all() and ((heavy <= most) | (sizes == 1)).all()
    assert (len(sizes) == 1) == (most == 1e9)
    order = rng.permutation(300)
    again = stage.halve(places[order], weights[order], keys[order], most)
    np.testing.assert_array_equal(again[:, None] == again, (blocks[:, None] == blocks)[order][:, order])


def test_halves_are_neighbours_in_space():
    places = square(1, 16)
    blocks = stage.halve(places, np.ones(16), np.arange(16, dtype=np.uint64), 4.0)
    np.testing.assert_array_equal(blocks, np.repeat(blocks[::4], 4))
    assert len(set(blocks)) == 4


def test_pooled_blocks_add_up_within_sections():
    tissue = make_tissue(130, 40, 6)
    rng = np.random.default_rng(2)
    places, sections = rng.uniform(0, 50, (130, 2)), rng.integers(0, 2, 130).astype(np.int32)
    counts = counts_of(tissue.counts)
    pooled = stage.pool_blocks(counts, places, sections, stage.spot_keys(places, counts.totals, 0), 3000.0)
    dense = np.zeros((pooled.n_spots, 40))
    dense[np.repeat(np.arange(pooled.n_spots), np.diff(pooled.indptr)), pooled.indices] = pooled.data
    np.testing.assert_array_equal(dense.sum(axis=0), tissue.counts.sum(axis=0))
    np.testing.assert_array_equal(dense.sum(axis=1), pooled.totals)
    assert pooled.totals.max() <= 4500 and 5 < pooled.n_spots < 40
    # a total over the blocks of one section exists: no block crosses sections
    first = stage.pool_blocks(
        stage.take_spots(counts, np.flatnonzero(sections == 0)), places[sections == 0], sections[sections == 0],
        stage.spot_keys(places, counts.totals, 0)[sections == 0], 3000.0,
    )  # fmt: skip
    np.testing.assert_array_equal(pooled.totals[: first.n_spots], first.totals)


def test_patches_are_whole_pieces_of_tissue():
    places = np.vstack([hexagonal(40, 40)] * 2)
    sections = np.repeat([0, 1], 1600).astype(np.int32)
    keys = stage.spot_keys(places, np.arange(3200.0), 3)
    rows = stage.choose_patches(places, sections, keys, 8, 125)
    assert (np.diff(rows) > 0).all() and 1000 <= len(rows) <= 1150
    assert set(sections[rows]) == {0, 1}
    # most neighbours of chosen spots are chosen: about 125 spots a patch have 40 at the rim
    chosen = np.zeros(3200, bool)
    chosen[rows] = True
    graph = link(places, 6, sections)
    assert chosen[graph.indices[chosen[edge_rows(graph)]]].mean() > 0.8
    order = np.random.default_rng(0).permutation(3200)
    again = stage.choose_patches(places[order], sections[order], keys[order], 8, 125)
    np.testing.assert_array_equal(np.sort(order[again]), rows)
    other = stage.choose_patches(places, sections, stage.spot_keys(places, np.arange(3200.0), 4), 8, 125)
    assert len(np.intersect1d(other, rows)) < len(rows)


def test_few_spots_are_one_patch():
    places = hexagonal(25, 50)
    keys = stage.spot_keys(places, np.arange(1250.0), 0)
    rows = stage.choose_patches(places, np.zeros(1250, np.int32), keys, 8, 125)
    np.testing.assert_array_equal(rows, np.arange(1250))


@pytest.mark.parametrize("rows", [np.arange(20, 70), np.array([3, 4, 5, 60, 89]), np.array([0, 45]), np.zeros(0, int)])
def test_a_part_of_a_graph_is_the_induced_one(rows):
    graph = link(np.random.default_rng(9).uniform(0, 100, (90, 2)), 5)
    part = stage.cut_out(graph, rows)
    whole = dense_of(graph, graph.place)[rows][:, rows]
    sums = whole.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(dense_of(part, part.place), whole / np.where(sums > 0, sums, 1), atol=1e-15)
    pattern = dense_of(graph, np.ones(len(graph.indices)))[rows][:, rows]
    np.testing.assert_array_equal(dense_of(part, np.ones(len(part.indices))), pattern)
    assert_sound(part)
    number = dict(enumerate(np.unique(colours_of(graph)[rows])))
    np.testing.assert_array_equal([number[colour] for colour in colours_of(part)], colours_of(graph)[rows])
    assert part.indptr.dtype == np.int64 and part.indices.dtype == np.int32 and part.reverse.dtype == np.int64
