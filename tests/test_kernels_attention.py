"""Attention kernels against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import attention as kernels
from tests.naive import attention as naive
from tests.naive.laplacian import link_reverse
from tests.problems import SIZES, csr_arrays, make_tissue
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
GUARD = -7.0


def problem(size):
    """CSR pattern, rows of the edges, dense spatial factors (some one-way), abundances (some rows 0)."""
    tissue = make_tissue(*SIZES[size])
    rng = np.random.default_rng(4)
    indptr, indices, _ = csr_arrays(tissue.attention, np.float64)
    place = tissue.attention * (rng.random(tissue.attention.shape) < 0.8)
    sums = place.sum(axis=1, keepdims=True)
    place = place / np.where(sums > 0, sums, 1)
    abundances = tissue.truth * rng.uniform(0.5, 2.0, (len(tissue.truth), 1))
    abundances[2::5] = 0
    rows = np.repeat(np.arange(len(place)), np.diff(indptr))
    return indptr, indices, rows, place, abundances


def dense_of(rows, indices, values, n):
    out = np.zeros((n, n))
    out[rows, indices] = values
    return out


@DTYPE
@SIZE
def test_roots_of_the_neighbourhoods(size, dtype):
    indptr, indices, rows, place, abundances = problem(size)
    n, v = len(place), abundances.astype(dtype)
    sums, inverses = abundances.sum(axis=1), np.full(n, GUARD, dtype)
    kernels.invert_sums(v, 0, n, inverses)
    check("invert_sums", inverses, np.divide(1, sums, out=np.zeros(n), where=sums > 0), dtype)
    roots = np.full(abundances.shape, GUARD, dtype)
    kernels.root_neighbourhoods(indptr, indices, place[rows, indices], v, inverses, 0, n, roots)
    expected = np.sqrt(naive.neighbourhood_means(place > 0, abundances))
    check("root_neighbourhoods", roots, expected, dtype)


@DTYPE
@SIZE
def test_squares_along_the_edges(size, dtype):
    indptr, indices, rows, place, abundances = problem(size)
    means = naive.neighbourhood_means(place > 0, abundances)
    squares = np.full(len(indices), GUARD, dtype)
    kernels.compare_edges(indptr, indices, np.sqrt(means).astype(dtype), 0, len(place), squares)
    check("compare_edges", squares, naive.compare(means)[rows, indices], dtype)


@DTYPE
def test_a_sum_that_has_no_inverse_counts_as_none(dtype):
    least = np.finfo(dtype).smallest_subnormal
    inverses = np.empty(3, dtype)
    kernels.invert_sums(np.array([[0, 0], [least, least], [0.5, 1.5]], dtype), 0, 3, inverses)
    assert inverses.tolist() == [0, 0, 0.5]


@DTYPE
@pytest.mark.parametrize("n_types", [*range(1, 34), 64, 100])
def test_squares_are_the_same_bits_both_ways(n_types, dtype):
    indptr, indices, _, _, _ = problem("130 spots")
    roots = np.sqrt(np.random.default_rng(n_types).dirichlet(np.ones(n_types), 130)).astype(dtype)
    squares = np.empty(len(indices), dtype)
    kernels.compare_edges(indptr, indices, roots, 0, 130, squares)
    np.testing.assert_array_equal(squares, squares[link_reverse(indptr, indices)])


@DTYPE
@SIZE
@pytest.mark.parametrize("low, shift, n_steps", [(0, 51, 4096), (1015 << 52, 49, 64), (1021 << 52, 50, 7)])
def test_squares_are_counted_by_their_bits(size, low, shift, n_steps, dtype):
    indptr, indices, rows, place, abundances = problem(size)
    squares = naive.compare(naive.neighbourhood_means(place > 0, abundances))[rows, indices].astype(dtype)
    sums, place = np.zeros(n_steps + 1), place[rows, indices]
    middle = len(squares) // 2
    for start, stop in ((0, middle), (middle, len(squares))):
        kernels.count_squares(place, squares, low, shift, start, stop, sums)
    check("count_squares", sums, naive.count_squares(place, squares, low, shift, n_steps))
    if low == 0:
        assert sums.sum() == (place > 0).sum()


@DTYPE
@SIZE
def test_directed_attention_and_its_symmetric_part(size, dtype):
    indptr, indices, rows, place, abundances = problem(size)
    n = len(place)
    squares = naive.compare(abundances)
    reverse, expected = link_reverse(indptr, indices), place * np.exp(-squares / 0.6)
    symmetric = (expected + expected.T) / 2
    weights, degrees, sums = squares[rows, indices].astype(dtype), np.full(n, GUARD, dtype), np.full(n, GUARD)
    kernels.attend_edges(indptr, reverse, place[rows, indices], 0.3, 0, n, weights, degrees, sums)
    check("attend_edges", dense_of(rows, indices, weights, n), symmetric, dtype)
    check("attend_edges", degrees, symmetric.sum(axis=1), dtype)
    check("attend_edges", sums, expected.sum(axis=1), dtype)
    weights, degrees = np.full(len(indices), GUARD, dtype), np.full(n, GUARD, dtype)
    kernels.symmetrise_edges(indptr, reverse, expected[rows, indices], 0, n, weights, degrees)
    check("symmetrise_edges", dense_of(rows, indices, weights, n), symmetric, dtype)
    check("symmetrise_edges", degrees, symmetric.sum(axis=1), dtype)


@DTYPE
def test_likeness_from_alike_to_strangers(dtype):
    """exp of every size, over more edges than are held at a time; a scale of the least size makes no NaN."""
    squares = np.concatenate([[0, 2], np.geomspace(1e-12, 2, 1500)])
    n = len(squares) // 2  # pairs of spots, an edge each way
    indptr, reverse = np.arange(2 * n + 1), np.arange(2 * n) ^ 1
    squares = np.repeat(squares[: 2 * n : 2], 2)
    for tau in (1e-8, 1e-3, 0.1, 2.0):
        weights, degrees, sums = squares.astype(dtype), np.empty(2 * n, dtype), np.empty(2 * n)
        kernels.attend_edges(indptr, reverse, np.ones(2 * n), tau, 0, 2 * n, weights, degrees, sums)
        expected = np.exp(-squares.astype(dtype).astype(float) / (2 * tau))
        for found in (weights, degrees, sums):
            check("attend_edges", found, expected, dtype)


def test_a_range_touches_nothing_outside_it():
    indptr, indices, rows, place, abundances = problem("130 spots")
    n, edges = len(place), place[rows, indices]
    start, stop = 20, 37
    part = np.zeros(len(indices), bool)
    part[indptr[start] : indptr[stop]] = True
    inside = np.zeros(n, bool)
    inside[start:stop] = True
    roots, squares = np.full(abundances.shape, GUARD), np.full(len(indices), GUARD)
    inverses, reverse = np.full(n, GUARD), link_reverse(indptr, indices)
    kernels.invert_sums(abundances, start, stop, inverses)
    kernels.root_neighbourhoods(indptr, indices, edges, abundances, np.ones(n), start, stop, roots)
    kernels.compare_edges(indptr, indices, abundances, start, stop, squares)
    attended = np.where(part, 1.0, GUARD)
    heard, sums = np.full(n, GUARD), np.full(n, GUARD)
    kernels.attend_edges(indptr, reverse, edges, 1.0, start, stop, attended, heard, sums)
    weights, degrees = np.full(len(indices), GUARD), np.full(n, GUARD)
    kernels.symmetrise_edges(indptr, reverse, edges, start, stop, weights, degrees)
    for by_edge in (squares, attended, weights):
        assert (by_edge[~part] == GUARD).all() and (by_edge[part] >= 0).all()
    for by_spot in (inverses, roots, heard, sums, degrees):
        assert (by_spot[~inside] == GUARD).all() and (by_spot[inside] >= 0).all()
