"""Count kernels against plain NumPy, and the laws of count thinning."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.draws import mix
from stdeconv_fast.kernels.cpu import counts as kernels
from tests.naive import counts as naive
from tests.problems import SIZES, csr_arrays, make_tissue
from tests.tolerances import check

RAW = pytest.mark.parametrize(
    ("dtype", "indptr_dtype"), [(np.int32, np.int32), (np.int64, np.int64), (np.float32, np.int32),
                                (np.float64, np.int64)],
)  # fmt: skip
SIZE = pytest.mark.parametrize("size", SIZES)
SHARE = 0.8
GUARD = -7.0


def problem(size):
    """Counts (n_spots, n_genes), a map that keeps two thirds of the genes in another order, some rows."""
    rng = np.random.default_rng(3)
    counts = make_tissue(*SIZES[size]).counts
    gene_map = np.full(counts.shape[1], -1, np.int32)
    kept = rng.permutation(counts.shape[1])[: 2 * counts.shape[1] // 3]
    gene_map[kept] = rng.permutation(len(kept))
    rows = rng.permutation(len(counts))[: max(1, 3 * len(counts) // 4)].astype(np.int64)
    return counts, gene_map, rows


def keys(counts, seed=0):
    """One random key a row and a gene."""
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 2**64, n, dtype=np.uint64) for n in counts.shape)


def thin(counts, row_keys, gene_keys, dtype=np.float64):
    """Dense fitting and test parts by the kernel."""
    indptr, indices, data = csr_arrays(counts, dtype)
    fit, test = np.full(len(data), GUARD, dtype), np.full(len(data), GUARD, dtype)
    kernels.thin_counts(indptr, indices, data, row_keys, gene_keys, SHARE, 0, len(counts), fit, test)
    parts = np.zeros(counts.shape), np.zeros(counts.shape)
    at = np.repeat(np.arange(len(counts)), np.diff(indptr)), indices
    for part, values in zip(parts, (fit, test), strict=True):
        part[at] = values
    return parts


@RAW
@SIZE
def test_sum_genes_adds_the_counts_of_the_rows(size, dtype, indptr_dtype):
    counts, _, rows = problem(size)
    sums = np.full(counts.shape[1], 5.0)
    middle = len(rows) // 2
    for start, stop in ((0, middle), (middle, len(rows))):
        kernels.sum_genes(*csr_arrays(counts, dtype, indptr_dtype), rows, start, stop, sums)
    np.testing.assert_array_equal(sums, 5.0 + naive.sum_genes(counts, rows))
    assert sums[-1] == 5.0  # the gene that no one has


@RAW
@SIZE
def test_kept_genes_are_counted_and_gathered(size, dtype, indptr_dtype):
    counts, gene_map, rows = problem(size)
    arrays = (*csr_arrays(counts, dtype, indptr_dtype), gene_map, rows)
    n = len(rows)
    lengths, totals = np.full(n, -1), np.full(n, GUARD)
    kernels.count_kept(*arrays, 0, n, lengths, totals)
    expected_lengths, expected_totals = naive.count_kept(counts, gene_map, rows)
    np.testing.assert_array_equal(lengths, expected_lengths)
    np.testing.assert_array_equal(totals, expected_totals)
    for kept_dtype in (np.float32, np.float64):
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        indices, data = np.full(indptr[-1], -1, np.int32), np.full(indptr[-1], GUARD, kept_dtype)
        kernels.gather_kept(*arrays, indptr, 0, n, indices, data)
        dense = np.zeros((n, gene_map.max() + 1))
        dense[np.repeat(np.arange(n), lengths), indices] = data
        np.testing.assert_array_equal(dense, naive.gather_kept(counts, gene_map, rows))


def test_stored_zeros_are_not_kept():
    indptr, indices, data = np.array([0, 3]), np.array([0, 1, 2], np.int32), np.array([2.0, 0.0, 3.0])
    lengths, totals = np.zeros(1, np.int64), np.zeros(1)
    kernels.count_kept(
        indptr, indices, data, np.array([0, 1, -1], np.int32), np.zeros(1, np.int64), 0, 1, lengths, totals
    )
    assert (lengths[0], totals[0]) == (1, 2.0)


@RAW
@SIZE
def test_sum_segments_adds_weighted_rows(size, dtype, indptr_dtype):
    counts, _, _ = problem(size)
    rng = np.random.default_rng(1)
    weights, segments = rng.random(len(counts)), rng.integers(-1, 3, len(counts)).astype(np.int32)
    sums = np.zeros((3, counts.shape[1]))
    kernels.sum_segments(*csr_arrays(counts, dtype, indptr_dtype), weights, segments, 0, len(counts), sums)
    check("sum_segments", sums, naive.sum_segments(counts, weights, segments, 3))


def test_a_range_touches_nothing_outside_it():
    counts, gene_map, _ = problem("130 spots")
    rows = np.arange(len(counts))
    arrays = csr_arrays(counts, np.float64)
    row_keys, gene_keys = keys(counts)
    start, stop = 20, 37
    outside = np.r_[:start, stop : len(counts)]
    lengths, totals = np.full(len(rows), -1), np.full(len(rows), GUARD)
    kernels.count_kept(*arrays, gene_map, rows, start, stop, lengths, totals)
    assert (lengths[outside] == -1).all() and (totals[outside] == GUARD).all()
    assert (lengths[start:stop] >= 0).all() and (totals[start:stop] >= 0).all()

    whole = naive.count_kept(counts, gene_map, rows)[0]
    indptr = np.concatenate([[0], np.cumsum(whole)])
    indices, data = np.full(indptr[-1], -1, np.int32), np.full(indptr[-1], GUARD)
    kernels.gather_kept(*arrays, gene_map, rows, indptr, start, stop, indices, data)
    part = np.zeros(len(data), bool)
    part[indptr[start] : indptr[stop]] = True
    assert (data[~part] == GUARD).all() and (indices[~part] == -1).all()
    assert (data[part] > 0).all() and (indices[part] >= 0).all()

    fit, test = np.full(len(arrays[2]), GUARD), np.full(len(arrays[2]), GUARD)
    kernels.thin_counts(*arrays, row_keys, gene_keys, SHARE, start, stop, fit, test)
    part = np.zeros(len(fit), bool)
    part[arrays[0][start] : arrays[0][stop]] = True
    for values in (fit, test):
        assert (values[~part] == GUARD).all() and (values[part] >= 0).all()

    found = np.full(len(counts), 7, np.uint64)
    kernels.key_rows(*arrays, gene_keys, start, stop, found)
    assert (found[outside] == 7).all() and (found[start:stop] != 7).all()


def test_hash_is_splitmix64_everywhere():
    words = np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64)
    words[:3] = 0, 1, 2**64 - 1
    expected = np.array([naive.mix(int(word)) for word in words], dtype=np.uint64)
    np.testing.assert_array_equal(mix(words), expected)
    np.testing.assert_array_equal([kernels._mix(word) for word in words], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@SIZE
def test_thinning_splits_every_count(size, dtype):
    counts, _, _ = problem(size)
    row_keys, gene_keys = keys(counts)
    fit, test = thin(counts, row_keys, gene_keys, dtype)
    np.testing.assert_array_equal(fit + test, counts)
    np.testing.assert_array_equal(fit, naive.thin_counts(counts, row_keys, gene_keys, SHARE))


@pytest.mark.parametrize("mean", [0.5, 40.0, 3000.0])
def test_thinning_is_binomial(mean):
    counts = np.random.default_rng(0).poisson(mean, (200, 50)).astype(float)
    fit, _ = thin(counts, *keys(counts))
    total = counts.sum()
    assert abs(fit.sum() - SHARE * total) < 5 * np.sqrt(total * SHARE * (1 - SHARE))
    # the squared deviations, each with the variance of the binomial, tell the spread
    some = counts > 0
    squares = (fit - SHARE * counts)[some] ** 2 / (counts[some] * SHARE * (1 - SHARE))
    assert abs(squares.mean() - 1) < 5 * squares.std() / np.sqrt(some.sum())
    # no row and no column is favoured
    for axis in (0, 1):
        sums = counts.sum(axis=axis)
        z = (fit.sum(axis=axis) - SHARE * sums)[sums > 0] / np.sqrt(sums[sums > 0] * SHARE * (1 - SHARE))
        assert np.abs(z).max() < 5


def test_thinning_of_large_counts_takes_the_normal_limit():
    counts = np.full((40, 50), 1_000_000.0)
    fit, test = thin(counts, *keys(counts))
    np.testing.assert_array_equal(fit + test, counts)
    np.testing.assert_array_equal(fit, naive.thin_counts(counts, *keys(counts), SHARE))
    np.testing.assert_array_equal(fit, np.floor(fit))
    spread = np.sqrt(counts[0, 0] * SHARE * (1 - SHARE))
    z = (fit - SHARE * counts) / spread
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def test_thinning_follows_keys_not_places():
    counts = make_tissue(*SIZES["130 spots"]).counts
    row_keys, gene_keys = keys(counts)
    fit, _ = thin(counts, row_keys, gene_keys)
    rng = np.random.default_rng(5)
    rows, genes = rng.permutation(counts.shape[0]), rng.permutation(counts.shape[1])
    permuted, _ = thin(counts[rows][:, genes], row_keys[rows], gene_keys[genes])
    np.testing.assert_array_equal(permuted, fit[rows][:, genes])
    other, _ = thin(counts, *keys(counts, seed=1))
    assert (other != fit).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@SIZE
def test_row_keys_follow_content(size, dtype):
    counts, _, _ = problem(size)
    gene_keys = keys(counts)[1]
    found = np.zeros(len(counts), np.uint64)
    kernels.key_rows(*csr_arrays(counts, dtype), gene_keys, 0, len(counts), found)
    np.testing.assert_array_equal(found, naive.key_rows(counts, gene_keys))
    order = np.random.default_rng(2).permutation(counts.shape[1])
    again = np.zeros(len(counts), np.uint64)
    kernels.key_rows(*csr_arrays(counts[:, order], dtype), gene_keys[order], 0, len(counts), again)
    np.testing.assert_array_equal(again, found)
    assert len(set(found)) == len(np.unique(counts, axis=0))
