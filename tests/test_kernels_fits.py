"""Standard errors and deviance of spots against dense float64, and the errors against what repeated draws scatter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import fits as kernels
from stdeconv_fast.kernels.cpu.spots import solve_spots
from tests.naive import fits as naive
from tests.problems import SIZES, Tissue, csr_arrays, graph_arrays, make_tissue, score_arrays, spot_arrays
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
STRENGTHS = pytest.mark.parametrize(("lambda_spatial", "lambda_ridge"), [(0.0, 1.0), (20.0, 1.0), (100.0, 0.0)])


def abundances_of(tissue, dtype):
    """Abundances with types at 0; from three spots on one spot has none above 0, another only one."""
    rng = np.random.default_rng(len(tissue.counts))
    v = (tissue.truth + 0.02) * (rng.random(tissue.truth.shape) < 0.7)
    if len(v) > 2:
        v[1] = 0
        v[2] = 0
        v[2, -1] = 0.9
    return v.astype(dtype)


def contents_of(tissue):
    return np.linspace(0.4, 1.6, len(tissue.profiles))


def errors_of(tissue, v, contents, lambda_spatial, lambda_ridge, dtype, narrow=False, spreads=None):
    errors = np.full(v.shape, -7.0)
    indptr, indices, data, gene_weights, _, profiles_t, _ = spot_arrays(tissue, dtype, narrow)
    degrees = graph_arrays(tissue.attention, dtype)[3]
    kernels.measure_errors(
        indptr, indices, data, gene_weights, gene_weights if spreads is None else spreads.astype(dtype), profiles_t,
        degrees, contents.astype(dtype), v, 0, len(v),
        lambda_spatial, lambda_ridge, errors,
    )  # fmt: skip
    return errors


def direction_of(tissue):
    """A direction over genes, and what the types add along it."""
    direction = np.random.default_rng(1).normal(size=tissue.counts.shape[1])
    return direction, tissue.profiles @ direction, tissue.profiles @ direction**2


def fits_of(tissue, v, dtype, parts=1):
    """Deviances, misfits and sums over genes, from ranges of spots one after the other."""
    arrays, n = score_arrays(tissue, dtype, weighted=False)[:5], len(v)
    deviances, misfits, sums = np.full(n, -7.0), np.full(n, -7.0), np.zeros((2, tissue.counts.shape[1]))
    before = (*arrays, tissue.profiles.sum(axis=1), *direction_of(tissue), v)
    for part in np.array_split(np.arange(n), parts):
        if len(part):
            kernels.measure_fits(*before, part[0], part[-1] + 1, deviances, misfits, sums)
    return deviances, misfits, sums


def deviances_of(tissue, v, dtype):
    return fits_of(tissue, v, dtype)[0]


@DTYPE
@SIZE
@STRENGTHS
def test_errors(size, dtype, lambda_spatial, lambda_ridge):
    tissue = make_tissue(*SIZES[size])
    if lambda_ridge == 0:
        tissue.attention[:] += 0.01 * (1 - np.eye(len(tissue.counts)))  # no spot is left to its counts alone
    v, contents = abundances_of(tissue, dtype), contents_of(tissue)
    errors = errors_of(tissue, v, contents, lambda_spatial, lambda_ridge, dtype)
    expected = naive.measure_errors(tissue, v.astype(float), contents, tissue.attention, lambda_spatial, lambda_ridge)
    np.testing.assert_array_equal(np.isnan(errors), np.isnan(expected))
    if len(v) > 1:
        np.testing.assert_array_equal(np.isnan(errors).all(axis=1), (v == 0).all(axis=1))
        np.testing.assert_array_equal(np.isnan(errors).any(axis=1), (v == 0).all(axis=1))
    check("measure_errors", np.nan_to_num(errors), np.nan_to_num(expected), dtype)


@DTYPE
@SIZE
def test_counts_of_two_bytes(size, dtype):
    bare = replace(make_tissue(*SIZES[size]), gene_weights=np.ones(SIZES[size][1]))
    n = len(bare.counts)
    v, contents = (0.9 * bare.truth + 0.1).astype(dtype), contents_of(bare)
    exact = v.astype(float)
    errors = errors_of(bare, v, contents, 20.0, 1.0, dtype, narrow=True)
    check("measure_errors", errors, naive.measure_errors(bare, exact, contents, bare.attention, 20.0, 1.0), dtype)
    indptr, indices, data, _, totals, profiles_t, sums = spot_arrays(bare, dtype, narrow=True)
    arrays = (indptr, indices, data, totals, profiles_t)
    deviances, misfits, scores, excess = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(bare.counts.shape[1])
    by_gene, direction = np.zeros((2, bare.counts.shape[1])), direction_of(bare)
    kernels.measure_fits(
        *arrays, bare.profiles.sum(axis=1), *direction, v, 0, n, deviances, misfits, by_gene
    )
    kernels.score_spots(*arrays, sums, v, 0, n, scores)
    kernels.sum_excess(*arrays, v, 0, n, excess)
    seen = bare.counts.sum(axis=1) > 0
    expected = naive.measure_fits(bare, exact, direction[0])
    check("measure_deviance", deviances[seen], expected[0][seen], dtype)
    check("score_misfit", misfits[seen], expected[1][seen], dtype)
    check("sum_excess", by_gene, expected[2], dtype)
    check("score_spots", scores, naive.score_spots(bare, bare.counts.sum(axis=1), exact), dtype)
    check("sum_excess", excess, naive.sum_excess(bare, exact), dtype)


@DTYPE
def test_counts_alone_where_they_suffice(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    v, contents = abundances_of(tissue, dtype), np.ones(6)
    errors = errors_of(tissue, v, contents, 0.0, 0.0, dtype)
    expected = naive.measure_errors(tissue, v.astype(float), contents, tissue.attention, 0.0, 0.0)
    np.testing.assert_array_equal(np.isnan(errors), np.isnan(expected))
    check("measure_errors", np.nan_to_num(errors[:-1]), np.nan_to_num(expected[:-1]), dtype)
    assert np.isnan(errors[-1]).all()  # without a count nothing is known


@DTYPE
@pytest.mark.parametrize("what", ["one gene", "two types alike"])
def test_types_that_counts_cannot_tell_apart_have_no_error(dtype, what):
    tissue = make_tissue(*SIZES["130 spots"])
    if what == "one gene":
        tissue.counts[:, 1:] = 0
    else:
        tissue.profiles[1] = tissue.profiles[0]
    v = np.full(tissue.truth.shape, 1 / 6, dtype)
    assert np.isnan(errors_of(tissue, v, np.ones(6), 0.0, 0.0, dtype)).all()
    assert np.isfinite(errors_of(tissue, v, np.ones(6), 0.0, 1.0, dtype)).all()


@DTYPE
def test_the_only_type_has_no_error(dtype):
    tissue = make_tissue(*SIZES["one type"])
    v = np.full((12, 1), 0.8, dtype)
    assert (errors_of(tissue, v, np.ones(1), 0.0, 1.0, dtype) == 0).all()


def test_errors_are_what_repeated_draws_scatter():
    """400 draws of one spot, profiles known, no smoothing, no ridge: the standard deviation of the solutions."""
    rng = np.random.default_rng(3)
    base = make_tissue(1, 60, 4, seed=5)
    truth, contents = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.5, 1.0, 1.5, 1.0])
    n = 400
    counts = rng.poisson(3000 * np.tile(truth @ base.profiles, (n, 1))).astype(float)
    tissue = Tissue(counts, base.profiles, np.ones(60), np.tile(truth, (n, 1)), np.zeros((n, n)))
    v, spots = np.full((n, 4), 0.25), np.arange(n, dtype=np.int32)
    solve_spots(
        *spot_arrays(tissue, np.float64), *graph_arrays(tissue.attention, np.float64), spots, 0, n, 0.0, 1.0, 0.0,
        0, 60, 0.0, v, np.zeros(n, np.int32),
    )  # fmt: skip
    errors = errors_of(tissue, v, contents, 0.0, 0.0, np.float64)
    assert (v > 0).all()
    shares = v / contents / (v / contents).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares.std(axis=0) / errors.mean(axis=0), 1.0, atol=0.15)  # 4 times the chance


@DTYPE
@SIZE
def test_errors_with_genes_that_scatter(size, dtype):
    tissue = make_tissue(*SIZES[size])
    v, contents = abundances_of(tissue, dtype), contents_of(tissue)
    spreads = tissue.gene_weights**2 * np.linspace(1, 9, tissue.counts.shape[1])
    errors = errors_of(tissue, v, contents, 20.0, 1.0, dtype, spreads=spreads)
    expected = naive.measure_errors(tissue, v.astype(float), contents, tissue.attention, 20.0, 1.0, spreads)
    check("measure_errors, scatter", np.nan_to_num(errors), np.nan_to_num(expected), dtype)


def test_errors_of_weighted_genes_are_what_repeated_draws_scatter():
    """Negative-binomial counts, genes weighed by 1 / sqrt(dispersion): the sandwich, not the curvature alone."""
    rng = np.random.default_rng(4)
    base = make_tissue(1, 60, 4, seed=5)
    truth, n = np.array([0.4, 0.3, 0.2, 0.1]), 400
    mean = 3000 * truth @ base.profiles
    counts = rng.poisson(mean * rng.gamma(20, 1 / 20, (n, 60))).astype(float)
    dispersion = 1 + mean / 20
    tissue = Tissue(counts, base.profiles, dispersion**-0.5, np.tile(truth, (n, 1)), np.zeros((n, n)))
    v, spots = np.full((n, 4), 0.25), np.arange(n, dtype=np.int32)
    solve_spots(
        *spot_arrays(tissue, np.float64), *graph_arrays(tissue.attention, np.float64), spots, 0, n, 0.0, 1.0, 0.0,
        0, 60, 0.0, v, np.zeros(n, np.int32),
    )  # fmt: skip
    shares = v / v.sum(axis=1, keepdims=True)
    ratios = {}
    for name, spreads in (("curvature", None), ("sandwich", tissue.gene_weights**2 * dispersion)):
        errors = errors_of(tissue, v, np.ones(4), 0.0, 0.0, np.float64, spreads=spreads)
        ratios[name] = shares.std(axis=0) / np.nanmean(errors, axis=0)
    np.testing.assert_allclose(ratios["sandwich"], 1.0, atol=0.2)
    assert (ratios["curvature"] > 1.2).all()


@DTYPE
@SIZE
def test_fits(size, dtype):
    tissue = make_tissue(*SIZES[size])
    v = (0.9 * tissue.truth + 0.1).astype(dtype)
    deviances, misfits, sums = fits_of(tissue, v, dtype, parts=2)
    expected = naive.measure_fits(tissue, v.astype(float), direction_of(tissue)[0])
    seen = tissue.counts.sum(axis=1) > 0
    assert np.isnan(deviances[~seen]).all() and np.isnan(misfits[~seen]).all() and (deviances[seen] > 0).all()
    check("measure_deviance", deviances[seen], expected[0][seen], dtype)
    check("score_misfit", misfits[seen], expected[1][seen], dtype)
    check("sum_excess", sums, expected[2], dtype)


@DTYPE
def test_order_of_types_and_scale_of_contents_do_not_matter(dtype):
    tissue = make_tissue(*SIZES["33 types"])
    v, contents = abundances_of(tissue, dtype), contents_of(tissue)
    errors = errors_of(tissue, v, contents, 20.0, 1.0, dtype)
    check("measure_errors", *map(np.nan_to_num, (errors_of(tissue, v, 3 * contents, 20.0, 1.0, dtype), errors)), dtype)
    order = np.random.default_rng(0).permutation(33)
    turned = Tissue(tissue.counts, tissue.profiles[order], tissue.gene_weights, tissue.truth, tissue.attention)
    there = errors_of(turned, np.ascontiguousarray(v[:, order]), contents[order], 20.0, 1.0, dtype)
    check("measure_errors", np.nan_to_num(there), np.nan_to_num(errors[:, order]), dtype)


@DTYPE
def test_deviance_of_many_genes_with_one_count(dtype):
    """Thousands of single counts, each of them hardly expected, or of them many expected."""
    rng = np.random.default_rng(0)
    profiles = np.exp(rng.uniform(-9, -3, (2, 3000)))
    counts = np.ones((3, 3000))
    counts[1, ::2] = 0
    tissue = Tissue(counts, profiles, np.ones(3000), np.zeros((3, 2)), np.zeros((3, 3)))
    v = np.array([[0.3, 0.7], [1e-8, 1e-9], [20, 50]], dtype)
    scale = np.array([1, 1, 100])  # of the deviances
    expected = naive.measure_deviance(tissue, v.astype(float))
    check("measure_deviance", deviances_of(tissue, v, dtype) / scale, expected / scale, dtype)


@DTYPE
def test_fits_of_counts_that_are_large_broken_or_zero(dtype):
    """Beside the small whole counts: large ones, broken ones, stored zeros, and genes that are hardly expected."""
    rng = np.random.default_rng(0)
    profiles = np.exp(rng.uniform(-9, -3, (2, 300)))
    counts = rng.integers(1, 9, (4, 300)).astype(float)
    counts[1] += 0.5
    counts[2] *= 1000
    v = np.array([[0.3, 0.7], [0.5, 0.2], [0.9, 0], [1e-30, 1e-31]], dtype)
    tissue = Tissue(counts, profiles, np.ones(300), np.zeros((4, 2)), np.zeros((4, 4)))
    deviances, _, sums = fits_of(tissue, v, dtype)
    expected = naive.measure_fits(tissue, v.astype(float), direction_of(tissue)[0])
    np.testing.assert_allclose(deviances, expected[0], rtol=1e-5 if dtype is np.float32 else 1e-13)
    np.testing.assert_allclose(sums, expected[2], rtol=1e-5 if dtype is np.float32 else 1e-12)
    indptr, indices, data, totals, profiles_t, _ = score_arrays(tissue, dtype, weighted=False)
    none = np.zeros(3), np.zeros(3), np.zeros((2, 300))
    zeros = np.array([0, 3, 3, 3]), np.arange(3, dtype=np.int32), np.zeros(3, dtype), totals[:3]
    kernels.measure_fits(
        *zeros, profiles_t, profiles.sum(axis=1), *direction_of(tissue), np.zeros((3, 2), dtype), 0, 3, *none
    )
    assert np.isfinite(none[0]).all() and (none[2] == 0).all()  # a stored zero tells nothing


@DTYPE
def test_deviance_where_counts_are_as_expected_or_not_at_all(dtype):
    profiles = np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]])
    counts = np.array([[75.0, 25.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    tissue = Tissue(counts, profiles, np.ones(3), np.zeros((4, 2)), np.zeros((4, 4)))
    v = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], dtype)
    np.testing.assert_allclose(deviances_of(tissue, v, dtype), [0, 0, np.inf, np.nan], atol=1e-6)
    assert (deviances_of(tissue, np.zeros_like(v), dtype)[:3] == np.inf).all()  # no type above 0


def test_only_the_spots_of_the_range_are_written():
    tissue = make_tissue(*SIZES["130 spots"])
    indptr, indices, data, totals, profiles_t, _ = score_arrays(tissue, np.float64, weighted=False)
    degrees = graph_arrays(tissue.attention, np.float64)[3]
    v = tissue.truth + 0.1
    outside = np.delete(np.arange(130), np.arange(20, 37))
    errors, deviances, misfits = np.full(v.shape, -7.0), np.full(130, -7.0), np.full(130, -7.0)
    sums = np.zeros((2, tissue.counts.shape[1]))
    kernels.measure_errors(
        indptr, indices, data, tissue.gene_weights, tissue.gene_weights, profiles_t, degrees, np.ones(6), v, 20, 37,
        20.0, 1.0, errors,
    )  # fmt: skip
    kernels.measure_fits(
        indptr, indices, data, totals, profiles_t, tissue.profiles.sum(axis=1), *direction_of(tissue), v, 20, 37,
        deviances, misfits, sums,
    )  # fmt: skip
    assert (errors[outside] == -7).all() and (deviances[outside] == -7).all() and (misfits[outside] == -7).all()
    np.testing.assert_allclose(sums[1], tissue.counts[20:37].sum(axis=0))
    assert (errors[20:37] > 0).all() and (deviances[20:37] > 0).all()


@DTYPE
@SIZE
def test_score_is_the_poisson_log_likelihood(size, dtype):
    tissue = make_tissue(*SIZES[size])
    n = len(tissue.counts)
    indptr, indices, data, totals, profiles_t, sums = score_arrays(tissue, dtype)
    v = (0.9 * tissue.truth + 0.1).astype(dtype)
    scores = np.full(n, np.nan)
    kernels.score_spots(indptr, indices, data, totals * dtype(0.25), profiles_t, sums, v, 0, n, scores)
    check("score_spots", scores, naive.score_spots(tissue, 0.25 * tissue.counts.sum(axis=1), v.astype(float)), dtype)


def test_a_seen_gene_that_is_not_expected_scores_minus_infinity():
    profiles = np.array([[1.0, 0.0], [0.0, 1.0]])
    tissue = Tissue(np.array([[3.0, 1.0], [2.0, 0.0]]), profiles, np.ones(2), np.eye(2), np.zeros((2, 2)))
    scores = np.zeros(2)
    v = np.array([[1.0, 0.0], [1.0, 0.0]])
    kernels.score_spots(*score_arrays(tissue, np.float64), v, 0, 2, scores)
    assert scores[0] == -np.inf and np.isfinite(scores[1])


@DTYPE
@SIZE
def test_sum_excess(size, dtype):
    tissue = make_tissue(*SIZES[size])
    n, n_genes = tissue.counts.shape
    indptr, indices, data = csr_arrays(tissue.counts, dtype)
    v = (0.9 * tissue.truth + 0.1).astype(dtype)
    sums = np.zeros(n_genes)
    totals, profiles_t = tissue.counts.sum(axis=1).astype(dtype), np.ascontiguousarray(tissue.profiles.T, dtype=dtype)
    for start, stop in ((0, n // 2), (n // 2, n)):
        kernels.sum_excess(indptr, indices, data, totals, profiles_t, v, start, stop, sums)
    check("sum_excess", sums, naive.sum_excess(tissue, v.astype(float)), dtype)


def test_scores_outside_the_range_stay():
    tissue = make_tissue(*SIZES["130 spots"])
    scores = np.full(130, -7.0)
    kernels.score_spots(*score_arrays(tissue, np.float64), tissue.truth + 0.1, 20, 37, scores)
    assert (np.delete(scores, np.arange(20, 37)) == -7.0).all() and (scores[20:37] != -7.0).all()
