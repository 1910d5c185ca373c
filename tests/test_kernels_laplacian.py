"""Graph kernels against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import laplacian as kernels
from tests.naive import laplacian as naive
from tests.problems import SIZES, csr_arrays, graph_arrays, make_tissue
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
GUARD = -7.0


def attention_of(size):
    return make_tissue(*SIZES[size]).attention


@SIZE
def test_reverse_edges(size):
    indptr, indices, _ = csr_arrays(attention_of(size), np.float64)
    found = np.full(len(indices), -1)
    kernels.link_reverse(indptr, indices, 0, len(indptr) - 1, found)
    np.testing.assert_array_equal(found, naive.link_reverse(indptr, indices))


@SIZE
def test_colours_are_greedy_and_proper(size):
    attention = attention_of(size)
    indptr, indices, _ = csr_arrays(attention, np.float64)
    order = np.random.default_rng(0).permutation(len(attention))
    colours = np.full(len(attention), -1, np.int32)
    kernels.colour_spots(indptr, indices, order, colours)
    np.testing.assert_array_equal(colours, naive.colour_spots(attention > 0, order))
    i, j = np.nonzero(attention)
    assert (colours[i] != colours[j]).all()


@SIZE
def test_spatial_factors_of_a_row_sum_to_one(size):
    attention = attention_of(size)
    n = len(attention)
    rng = np.random.default_rng(1)
    linked = attention > 0
    distances = np.where(linked & (rng.random((n, n)) < 0.8), rng.uniform(0, 3, (n, n)), np.inf)
    scales = rng.uniform(0.5, 2.0, n)
    indptr, indices, _ = csr_arrays(attention, np.float64)
    rows = np.repeat(np.arange(n), np.diff(indptr))
    place = np.full(len(indices), GUARD)
    kernels.place_edges(indptr, distances[rows, indices], scales, 0, n, place)
    dense = np.zeros((n, n))
    dense[rows, indices] = place
    expected = naive.place_edges(distances, scales)
    check("place_edges", dense, expected)
    np.testing.assert_allclose(dense.sum(axis=1), np.isfinite(distances).any(axis=1), atol=1e-12)


@DTYPE
@SIZE
@pytest.mark.parametrize("phi", [0.0, 0.8, 1.0])
def test_laplacian_product(size, dtype, phi):
    tissue = make_tissue(*SIZES[size])
    values = tissue.truth.astype(dtype)
    product = np.full(values.shape, GUARD, dtype)
    kernels.apply_laplacian(*graph_arrays(tissue.attention, dtype), values, phi, 0, len(values), product)
    expected = naive.apply_laplacian(tissue.attention, tissue.truth, phi)
    check("apply_laplacian", product, expected, dtype)


def test_a_range_touches_nothing_outside_it():
    tissue = make_tissue(*SIZES["130 spots"])
    n = len(tissue.attention)
    indptr, indices, weights, degrees = graph_arrays(tissue.attention, np.float64)
    start, stop = 20, 37
    part = np.zeros(len(indices), bool)
    part[indptr[start] : indptr[stop]] = True
    found, place = np.full(len(indices), -1), np.full(len(indices), GUARD)
    kernels.link_reverse(indptr, indices, start, stop, found)
    kernels.place_edges(indptr, np.ones(len(indices)), np.ones(n), start, stop, place)
    product = np.full(tissue.truth.shape, GUARD)
    kernels.apply_laplacian(indptr, indices, weights, degrees, tissue.truth, 1.0, start, stop, product)
    assert (found[~part] == -1).all() and (found[part] >= 0).all()
    assert (place[~part] == GUARD).all() and (place[part] >= 0).all()
    outside = np.r_[:start, stop:n]
    assert (product[outside] == GUARD).all() and (product[start:stop] != GUARD).all()
