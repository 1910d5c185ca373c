"""Near points by bins, and the symmetric pattern, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import neighbours as kernels
from tests.naive import neighbours as naive
from tests.problems import SIZES, csr_arrays, hexagonal, make_attention, square

TIE = 1e-6
GUARD = -7
SIZE = pytest.mark.parametrize("size", SIZES)


def uniform(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1000, (n, 2))


def with_outliers():
    """Two hundred points close together, three far away in different directions."""
    return np.vstack([uniform(200), [[1e5, 500.0], [-3e4, -3e4], [400.0, 7e5]]])


def clusters():
    rng = np.random.default_rng(1)
    return np.repeat(rng.uniform(0, 1000, (8, 2)), 25, axis=0) + rng.normal(0, 1, (200, 2))


def turned(places, degrees=33.0):
    a = np.deg2rad(degrees)
    return places @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


PLACES = {
    "two": np.array([[0.0, 0.0], [3.0, 4.0]]),
    "two on a column": np.array([[5.0, 0.0], [5.0, 1.0]]),
    "three": np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]]),
    "random": uniform(300),
    "a line": np.column_stack([np.arange(50.0), np.full(50, 3.0)]),
    "a column": np.column_stack([np.zeros(50), np.random.default_rng(2).uniform(0, 9, 50)]),
    "a slope": np.column_stack([np.arange(60.0), 0.5 * np.arange(60.0)]),
    "coincident": np.full((30, 2), 7.5),
    "some coincident": np.vstack([uniform(40), np.full((9, 2), 500.0), uniform(40, 1)]),
    "square": square(12, 13),
    "hexagonal": hexagonal(12, 13),
    "turned": turned(square(12, 13)) + [12_345.678, -9_876.543],
    "whole numbers": np.array([[x, y] for x in range(11) for y in range(9)], float),  # on borders of bins
    "clusters": clusters(),
    "outliers": with_outliers(),
    "negative": -uniform(100) - 1e4,
}


def bins_of(points, side):
    """The arrays of bins as `find_near` takes them."""
    left, bottom = points.min(axis=0)
    columns = np.floor((points[:, 0] - left) / side).astype(int)
    rows = np.floor((points[:, 1] - bottom) / side).astype(int)
    across, down = columns.max() + 1, rows.max() + 1
    number = rows * across + columns
    members = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=across * down))])
    members, starts = members.astype(np.int32), starts.astype(np.int32)
    return members, starts, int(across), int(down), float(left), float(bottom), float(side)


def near(points, side, k, most, start=0, stop=None):
    """Neighbours of each point as the naive reference gives them; the outputs come with guards."""
    stop = len(points) if stop is None else stop
    lengths = np.full(stop - start + 1, GUARD, np.int64)
    others = np.full((stop - start) * most + 1, GUARD, np.int32)
    kernels.find_near(points, *bins_of(points, side), k, most, TIE, start, stop, lengths, others)
    assert lengths[-1] == GUARD and others[-1] == GUARD and (lengths[:-1] >= -1).all()
    found, ends = [], np.cumsum(np.maximum(lengths[:-1], 0))
    for length, end in zip(lengths[:-1], ends, strict=True):
        found.append(None if length < 0 else others[end - length : end])
    if len(ends) and lengths[-2] >= 0:
        assert (others[ends[-1] :] == GUARD).all()
    return found


def assert_equal_neighbours(found, expected):
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one is None) == (other is None), f"point {i}"
        if one is not None:
            np.testing.assert_array_equal(one, other, f"point {i}")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("k", [1, 4, 6])
@pytest.mark.parametrize("per_bin", [0.3, 2, 20])
@pytest.mark.parametrize("most", [1, 4, 1000])
def test_near_points(name, k, per_bin, most):
    points = PLACES[name]
    n = len(points)
    k = min(k, n - 1)
    most = min(most * k, n - 1)
    extent = np.ptp(points, axis=0)
    side = max(np.sqrt(extent.prod() * per_bin / n), extent.max() * per_bin / n, 1e-3)
    assert_equal_neighbours(near(points, side, k, most), naive.find_near(points, k, most, TIE))


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("bins", ["one", "nine"])
def test_all_others_are_near(name, bins):
    """k = n - 1, with one bin and with a few."""
    points = PLACES[name]
    n = len(points)
    side = max(np.ptp(points), 1e-3) * (2.0 if bins == "one" else 0.34)
    found = near(points, side, n - 1, n - 1)
    assert_equal_neighbours(found, naive.find_near(points, n - 1, n - 1, TIE))
    assert all(len(each) == n - 1 for each in found)


@pytest.mark.parametrize("side", [1.0, 2.0, 0.5, 3.0])
def test_ties_on_the_borders_of_bins(side):
    """Whole numbers are the borders; the eight around a point tie in two groups of four."""
    points = PLACES["whole numbers"]
    inner = ((points > 0) & (points < [10, 8])).all(axis=1)
    for k, expected in ((1, 4), (4, 4), (5, 8), (8, 8)):
        found = near(points, side, k, 4 * k)
        assert {len(found[i]) for i in np.flatnonzero(inner)} == {expected}
        assert_equal_neighbours(found, naive.find_near(points, k, 4 * k, TIE))


def test_more_ties_than_there_is_room_for():
    points = np.vstack([np.full((10, 2), -50.0), uniform(30)])
    found = near(points, 100.0, 2, 8)
    assert all(each is None for each in found[:10]) and sum(each is None for each in found) < 20
    assert_equal_neighbours(found, naive.find_near(points, 2, 8, TIE))
    assert all(len(each) == 9 for each in near(points, 100.0, 2, 9)[:10])


def test_more_points_in_reach_than_the_first_room():
    """A thousand points in one bin."""
    points = np.vstack([uniform(1000) / 1000, [[50.0, 50.0]]])
    found = near(points, 10.0, 5, 20)
    assert_equal_neighbours(found, naive.find_near(points, 5, 20, TIE))


def test_a_range_of_points_writes_its_own_chunk():
    points = uniform(130)
    whole = near(points, 100.0, 6, 24)
    assert_equal_neighbours(near(points, 100.0, 6, 24, 20, 37), whole[20:37])
    assert near(points, 100.0, 6, 24, 20, 20) == []


@pytest.mark.parametrize("name", PLACES)
def test_who_comes_in_order_is_at_a_place_of_their_own(name):
    points = PLACES[name]
    by_row, by_column = (points[np.lexsort(points.T[::step])] for step in (1, -1))
    for each in (points, by_row, by_column, points[::-1].copy(), by_row[:1], by_row[:0]):
        assert kernels.tell_in_order(each) == naive.tell_in_order(each)
    apart = len(np.unique(points, axis=0)) == len(points)
    assert kernels.tell_in_order(by_row) == kernels.tell_in_order(by_column) == apart
    in_space = np.column_stack([by_row, np.zeros(len(points))])
    assert kernels.tell_in_order(in_space) == naive.tell_in_order(in_space) == apart


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("side", [0.7, 40.0])
def test_points_bin_by_bin(name, side):
    points = PLACES[name] if len(PLACES[name]) < 250 or name != "outliers" else PLACES[name][:200]
    if np.ptp(points, axis=0).prod() / side**2 > 1e6:
        side = np.ptp(points) / 100
    grid = bins_of(points, side)[2:]
    starts, members = np.full(grid[0] * grid[1] + 1, GUARD, np.int32), np.full(len(points), GUARD, np.int32)
    kernels.sort_into_bins(points, *grid, starts, members)
    expected = naive.sort_into_bins(points, *grid)
    np.testing.assert_array_equal(starts, expected[0])
    np.testing.assert_array_equal(members, expected[1])


@pytest.mark.parametrize("n_axes", [2, 3])
def test_colours_by_place(n_axes):
    points = np.random.default_rng(n_axes).integers(-20, 20, (130, n_axes)) * 2.5 + 0.3
    colours = np.full(130, GUARD, np.int32)
    for start, stop in ((0, 65), (65, 120)):
        kernels.colour_places(points, points.min(axis=0), 2.5, start, stop, colours)
    np.testing.assert_array_equal(colours[:120], naive.colour_places(points, points.min(axis=0), 2.5)[:120])
    assert (colours[120:] == GUARD).all() and set(colours[:120]) == set(range(2**n_axes))


# the symmetric pattern


def directed(size):
    """Distances of directed edges, dense: inf is none; some 0, some rows with none, others with few or many."""
    n = SIZES[size][0]
    rng = np.random.default_rng(n)
    linked = (make_attention(n, rng, 0.2) > 0) & (rng.random((n, n)) < 0.6)
    distances = np.where(linked, rng.choice([0.0, 1.0, *rng.uniform(0, 5, 20)], (n, n)), np.inf)
    distances[1:2] = np.inf
    return distances


def pattern(distances):
    """CSR arrays of directed edges; a distance of 0 is one."""
    indptr, indices, _ = csr_arrays(np.isfinite(distances), float)
    return indptr, indices, distances[np.isfinite(distances)]


@SIZE
def test_edges_without_a_way_back(size):
    distances = directed(size)
    indptr, indices, _ = pattern(distances)
    n = len(distances)
    found = np.zeros(len(indices), bool)
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.find_one_sided(indptr, indices, start, stop, found)
    np.testing.assert_array_equal(found, naive.find_one_sided(np.isfinite(distances))[np.isfinite(distances)])
    assert n < 2 or size == "one type" or (found.any() and not found.all())


@SIZE
@pytest.mark.parametrize("n_axes", [2, 3])
def test_both_ways(size, n_axes):
    linked = np.isfinite(directed(size))
    n = len(linked)
    points = np.random.default_rng(n_axes).uniform(-9, 9, (n, n_axes))
    points[1::7] = points[::7][: len(points[1::7])]  # some at one place
    distances = np.where(linked, np.sqrt(((points[:, None] - points) ** 2).sum(axis=2)), np.inf)
    indptr, indices, _ = pattern(distances)
    back_indptr, back_indices, _ = csr_arrays(naive.find_one_sided(np.isfinite(distances)).T, float)
    both = indptr + back_indptr
    merged, lengths = np.full(both[-1], GUARD, np.int32), np.full(both[-1], -7.0)
    before = (indptr, indices, back_indptr, back_indices, both, points)
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.merge_edges(*before, start, stop, merged, lengths)
    dense = np.full((n, n), -1.0)
    rows = np.repeat(np.arange(n), np.diff(both))
    dense[rows, merged] = lengths
    np.testing.assert_array_equal(dense, naive.merge_edges(distances))
    assert (np.diff(rows * n + merged) > 0).all()


@SIZE
@pytest.mark.parametrize("ties", [False, True])
def test_neighbours_in_the_order_of_their_keys(size, ties):
    """Equal keys keep the order they came in."""
    distances = directed(size)
    n = len(distances)
    indptr, indices, along = pattern(distances)
    rng = np.random.default_rng(6)
    keys = rng.integers(0, 3 if ties else 2**64, n, dtype=np.uint64)
    keys[:1] = 2**64 - 1  # no sign
    order = naive.order_rows(indptr, indices, keys)
    found, lengths = indices.copy(), along.copy()
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.order_rows(indptr, keys, start, stop, found, lengths)
    np.testing.assert_array_equal(found, indices[order])
    np.testing.assert_array_equal(lengths, along[order])


def test_many_neighbours_in_the_order_of_their_keys():
    """On both sides of the number up to which they are sorted by counting."""
    n = kernels.RANKED + 3
    rng = np.random.default_rng(7)
    indptr = np.cumsum([0, *range(n)])
    indices = np.concatenate([rng.permutation(n)[:length] for length in range(n)]).astype(np.int32)
    along, keys = rng.random(len(indices)), rng.integers(0, 40, n, dtype=np.uint64)
    order = naive.order_rows(indptr, indices, keys)
    found, lengths = indices.copy(), along.copy()
    kernels.order_rows(indptr, keys, 0, n, found, lengths)
    np.testing.assert_array_equal(found, indices[order])
    np.testing.assert_array_equal(lengths, along[order])


@SIZE
def test_scales(size):
    distances = directed(size)
    n = len(distances)
    if n > 3:
        distances[2] = np.where(np.isfinite(distances[2]), 0.0, np.inf)  # nothing but coincident neighbours
    indptr, indices, along = pattern(distances)
    along[::7] = np.inf
    dense = np.full((n, n), np.inf)
    dense[np.repeat(np.arange(n), np.diff(indptr)), indices] = along
    scales = np.full(n, -7.0)
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.scale_spots(indptr, along, start, stop, scales)
    np.testing.assert_array_equal(scales, naive.scale_spots(dense))
    assert (scales > 0).all()


@SIZE
@pytest.mark.parametrize("n_colours", [1, 3, 50])
def test_clashes(size, n_colours):
    n = SIZES[size][0]
    rng = np.random.default_rng(3)
    attention = make_attention(n, rng)
    indptr, indices, _ = csr_arrays(attention, float)
    colours = rng.integers(0, n_colours, n).astype(np.int32)
    clash = rng.random(n) < 0.5  # overwritten
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.find_clashes(indptr, indices, colours, start, stop, clash)
    np.testing.assert_array_equal(clash, naive.find_clashes(attention > 0, colours))


def test_a_range_touches_nothing_outside_it():
    distances = directed("130 spots")
    indptr, indices, along = pattern(distances)
    back_indptr, back_indices, _ = csr_arrays(naive.find_one_sided(np.isfinite(distances)).T, float)
    both = indptr + back_indptr
    start, stop = 20, 37
    one_sided = np.full(len(indices), GUARD)
    kernels.find_one_sided(indptr, indices, start, stop, one_sided)
    merged, lengths = np.full(both[-1], GUARD, np.int32), np.full(both[-1], -7.0)
    before = (indptr, indices, back_indptr, back_indices, both, np.random.default_rng(7).random((130, 2)))
    kernels.merge_edges(*before, start, stop, merged, lengths)
    scales, clash = np.full(130, -7.0), np.full(130, GUARD)
    kernels.scale_spots(indptr, along, start, stop, scales)
    kernels.find_clashes(indptr, indices, np.zeros(130, np.int32), start, stop, clash)
    sorted_in, lengths_in = indices.copy(), along.copy()
    kernels.order_rows(indptr, np.arange(130, 0, -1, dtype=np.uint64), start, stop, sorted_in, lengths_in)
    outside = np.r_[: indptr[start], indptr[stop] : len(indices)]
    assert (sorted_in[outside] == indices[outside]).all() and (lengths_in[outside] == along[outside]).all()
    ends = {len(indices): indptr, both[-1]: both, 130: np.arange(131)}
    for values in (one_sided, merged, lengths, scales, clash):
        inside = np.zeros(len(values), bool)
        inside[ends[len(values)][start] : ends[len(values)][stop]] = True
        assert (values[~inside] == GUARD).all() and (values[inside] != GUARD).all()
