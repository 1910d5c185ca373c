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
    roots = np.full(abundances.shape, GUARD, dtype)
    kernels.root_neighbourhoods(indptr, indices, place[rows, indices], abundances.astype(dtype), 0, len(place), roots)
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
@SIZE
def test_directed_attention_and_its_symmetric_part(size, dtype):
    indptr, indices, rows, place, abundances = problem(size)
    n = len(place)
    squares = naive.compare(abundances)
    tau, scale = 0.3, 1.7
    directed, sums = np.full(len(indices), GUARD), np.full(n, GUARD)
    kernels.attend_edges(
        indptr, place[rows, indices], squares[rows, indices].astype(dtype), tau, 0, n, directed, sums
    )
    expected = place * np.exp(-squares / (2 * tau))
    check("attend_edges", dense_of(rows, indices, directed, n), expected, dtype)
    check("attend_edges", sums, expected.sum(axis=1), dtype)
    weights, degrees = np.full(len(indices), GUARD, dtype), np.full(n, GUARD, dtype)
    one_way = expected[rows, indices]
    kernels.symmetrise_edges(indptr, link_reverse(indptr, indices), one_way, scale, 0, n, weights, degrees)
    symmetric = scale * (expected + expected.T) / 2
    check("symmetrise_edges", dense_of(rows, indices, weights, n), symmetric, dtype)
    check("symmetrise_edges", degrees, symmetric.sum(axis=1), dtype)


def test_a_range_touches_nothing_outside_it():
    indptr, indices, rows, place, abundances = problem("130 spots")
    n, edges = len(place), place[rows, indices]
    start, stop = 20, 37
    part = np.zeros(len(indices), bool)
    part[indptr[start] : indptr[stop]] = True
    inside = np.zeros(n, bool)
    inside[start:stop] = True
    roots, squares = np.full(abundances.shape, GUARD), np.full(len(indices), GUARD)
    kernels.root_neighbourhoods(indptr, indices, edges, abundances, start, stop, roots)
    kernels.compare_edges(indptr, indices, abundances, start, stop, squares)
    directed, sums = np.full(len(indices), GUARD), np.full(n, GUARD)
    kernels.attend_edges(indptr, edges, np.ones(len(indices)), 1.0, start, stop, directed, sums)
    weights, degrees = np.full(len(indices), GUARD), np.full(n, GUARD)
    kernels.symmetrise_edges(
        indptr, link_reverse(indptr, indices), edges, 1.0, start, stop, weights, degrees
    )
    for by_edge in (squares, directed, weights):
        assert (by_edge[~part] == GUARD).all() and (by_edge[part] >= 0).all()
    for by_spot in (roots, sums, degrees):
        assert (by_spot[~inside] == GUARD).all() and (by_spot[inside] >= 0).all()
