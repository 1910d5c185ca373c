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


# blocks

BLOCK = pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.float32, np.float64])
INDEX = pytest.mark.parametrize("index_dtype", [np.int32, np.int64])


def block_of(size, dtype, index_dtype):
    """A block with stored zeros, rows that are not usable, a map that keeps two thirds of the genes."""
    counts, gene_map, _ = problem(size)
    rng = np.random.default_rng(7)
    indptr, indices, data = csr_arrays(counts + 1, dtype)  # all entries stored
    kept = (data > 1) | (rng.random(len(data)) < 0.2)
    rows = np.repeat(np.arange(len(counts)), np.diff(indptr))[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(counts)))])
    usable = rng.random(len(counts)) < 0.7
    usable[:1] = True
    return indptr.astype(index_dtype), indices[kept].astype(index_dtype), data[kept] - dtype(1), usable, gene_map


def sum_block(arrays, sums=None, facts=(0, 0, -1, -1), largest=0.0):
    """What the kernel gives: (lengths, totals, filled, sums, facts, largest)."""
    n = len(arrays[0]) - 1
    out = (
        np.full(n, -1), np.full(n, GUARD), np.ones(n, bool), np.zeros(len(arrays[4])) if sums is None else sums,
        np.array(facts), np.array([largest]),
    )  # fmt: skip
    kernels.sum_block(*arrays, *out)
    return *out[:-1], out[-1][0]


@BLOCK
@INDEX
@SIZE
def test_a_block_is_summed_and_gathered(size, dtype, index_dtype):
    arrays = block_of(size, dtype, index_dtype)
    found, expected = sum_block(arrays), naive.sum_block(*arrays)
    for part, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, right)
    assert (found[0][~arrays[3]] == 0).all() and (found[1][~arrays[3]] == 0).all()
    assert (arrays[2] == 0).any() or size in ("no spots", "one spot")
    n_kept = found[0].sum()
    for kinds in ((np.uint16, np.uint16), (np.int32, np.float64), (np.uint16, np.float64), (np.int32, np.uint8)):
        indices, data = np.full(n_kept + 1, 99, kinds[0]), np.full(n_kept + 1, 99, kinds[1])
        kernels.gather_block(*arrays, indices[:n_kept], data[:n_kept])
        right_indices, right_data = naive.gather_block(*arrays)
        np.testing.assert_array_equal(indices, [*right_indices, 99])
        np.testing.assert_array_equal(data, [*right_data, 99])


def test_sums_facts_and_the_largest_value_go_on_from_block_to_block():
    arrays = block_of("130 spots", np.float64, np.int32)
    first = naive.sum_block(*arrays)
    again = sum_block(arrays, np.full(40, 5.0), (0, 0, -1, 4), 1e6)
    np.testing.assert_array_equal(again[3], first[3] + 5)
    np.testing.assert_array_equal(again[4], [0, 0, -1, 4])
    assert again[5] == 1e6
    arrays[2][[7, 9]] = np.nan, 1.5
    np.testing.assert_array_equal(sum_block(arrays, facts=(3, 2, 17, 4))[4], [4, 2, 17, 4])


@pytest.mark.parametrize(
    ("changes", "facts"),
    [({}, (0, 0, -1, -1)), ({5: np.nan}, (1, 0, 5, -1)), ({9: np.inf, 30: -np.inf}, (2, 1, 9, -1)),
     ({40: -3.0, 12: -0.5}, (2, 2, 12, -1)), ({8: 0.5, 3: 2.25}, (0, 0, -1, 3)), ({0: -0.0}, (0, 0, -1, -1)),
     ({8: np.nan, 20: -1.0, 4: 1.5, 30: 7.5}, (2, 1, 8, 4)), ({70: 1e30}, (0, 0, -1, -1)),
     ({70: 65_536.0}, (0, 0, -1, -1)), ({70: 65_535.0}, (0, 0, -1, -1)), ({70: 256.0}, (0, 0, -1, -1)),
     ({70: 255.0}, (0, 0, -1, -1))],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("every", [False, True])
def test_bad_values_and_fractions_are_told(changes, facts, dtype, every):
    """In rows that are not usable as well; where a value is bad nothing is summed."""
    indptr, indices, data, usable, gene_map = block_of("130 spots", dtype, np.int32)
    for at, value in changes.items():
        data[at] = value
    arrays = (indptr, indices, data, np.full(len(usable), every), gene_map)
    found = sum_block(arrays)
    np.testing.assert_array_equal(found[4], facts)
    expected = naive.sum_block(*arrays)
    for number in (0, 1, 3, 5):
        np.testing.assert_allclose(found[number], expected[number], rtol=1e-12)
    assert np.isfinite(found[3]).all() and np.isfinite(found[5]) and found[3].any() == (every and not facts[0])
    if not facts[0]:
        np.testing.assert_array_equal(found[2], expected[2])


def test_negative_whole_numbers_are_told():
    for dtype in (np.int32, np.int64):
        indptr, indices, data, usable, gene_map = block_of("130 spots", dtype, np.int32)
        data[[50, 7]] = -1
        np.testing.assert_array_equal(sum_block((indptr, indices, data, usable, gene_map))[4], [2, 2, 7, -1])


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


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
@pytest.mark.parametrize("fault", ["none", "order", "twice", "below", "beyond", "both"])
def test_rows_that_are_out_of_order_or_point_outside(fault, dtype):
    dense = make_tissue(*SIZES["130 spots"]).counts
    indptr, indices, _ = csr_arrays(dense, np.float32)
    indices = indices.astype(dtype)
    rows = np.flatnonzero(np.diff(indptr) > 3)[[2, 5, 40]]
    for first in indptr[rows]:
        if fault in ("order", "both"):
            indices[first : first + 2] = indices[first : first + 2][::-1]
        if fault == "twice":
            indices[first + 2] = indices[first + 1]
        if fault == "below" and np.iinfo(dtype).min < 0:
            indices[first] = -1
    if fault in ("beyond", "both"):
        indices[indptr[rows[0] + 1] - 1] = dense.shape[1]
        indices[indptr[rows[1]] + 1] = dense.shape[1] + 5
    n = len(dense)
    parts = [kernels.count_disorder(indptr, indices, dense.shape[1], *part) for part in ((0, 70), (70, n))]
    assert tuple(np.sum(parts, axis=0)) == naive.count_disorder(indptr, indices, dense.shape[1])
