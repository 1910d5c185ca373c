"""The type-level solvers against an independent solution of the same convex problem."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import spots as kernels
from tests.naive import spots as naive
from tests.problems import SIZES, graph_arrays, make_tissue, spot_arrays
from tests.tolerances import check, check_below

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
STRENGTHS = pytest.mark.parametrize(
    ("lambda_spatial", "phi", "lambda_ridge"), [(0.0, 1.0, 1.0), (20.0, 0.9, 1.0), (100.0, 1.0, 0.5)]
)

STILL = {"float32": 1e-6, "float64": 1e-10}  # visits end where no abundance moves by more


def solve(tissue, strengths, dtype, visits=200, max_steps=40, tolerance=0.0, warm_steps=0):
    """Visits of all spots by `solve_spots` in one call each, Gauss-Seidel in the order of the spots."""
    n, n_types = len(tissue.counts), len(tissue.profiles)
    v = np.full((n, n_types), 1 / n_types, dtype)
    steps = np.zeros(n, np.int32)
    spots = np.arange(n, dtype=np.int32)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    for _ in range(visits if strengths[0] else 1):
        before = v.copy()
        kernels.solve_spots(*arrays, spots, 0, n, *strengths, warm_steps, max_steps, tolerance, v, steps)
        warm_steps = 0
        if n == 0 or np.abs(v - before).max() < STILL[np.dtype(dtype).name]:
            break
    return v, steps


def gaussian(tissue):
    """Products and Gram matrix of some least-squares problem in the same types and spots."""
    scale = 30 * np.sqrt(tissue.profiles)
    return 0.1 * np.log1p(tissue.counts) @ scale.T, scale @ scale.T


def solve_gaussian(tissue, strengths, dtype, visits=400):
    products, gram = gaussian(tissue)
    v = np.full(products.shape, 1 / products.shape[1], dtype)
    steps = np.zeros(len(v), np.int32)
    spots = np.arange(len(v), dtype=np.int32)
    arrays = (products.astype(dtype), gram.astype(dtype), *graph_arrays(tissue.attention, dtype))
    for _ in range(visits if strengths[0] else 1):
        before = v.copy()
        kernels.solve_spots_gaussian(*arrays, spots, 0, len(v), *strengths, 5000, 0.0, v, steps)
        if len(v) == 0 or np.abs(v - before).max() < STILL[np.dtype(dtype).name]:
            break
    return v


@cache
def naive_poisson(size, strengths):
    tissue = make_tissue(*SIZES[size])
    return naive.solve_spots(tissue, tissue.attention, *strengths)


@cache
def naive_gaussian(size, strengths):
    tissue = make_tissue(*SIZES[size])
    return naive.solve_spots_gaussian(*gaussian(tissue), tissue.attention, *strengths)


def slope_left(v, slope):
    """How far a slope is from optimal: |slope| where v > 0, its negative part where v = 0."""
    return np.where(v > 0, np.abs(slope), np.maximum(-slope, 0))


@DTYPE
@SIZE
@STRENGTHS
def test_poisson_solution(size, dtype, lambda_spatial, phi, lambda_ridge):
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    v, steps = solve(tissue, strengths, dtype)
    expected = naive_poisson(size, strengths)
    assert (v >= 0).all() and (steps[tissue.counts.sum(axis=1) > 0] >= 1).all()
    check("solve_spots", v, expected, dtype)
    # the naive answer is one: its slopes leave nothing to gain
    _, slope = naive.poisson_objective(tissue, expected, tissue.attention, *strengths)
    assert (slope_left(expected, slope) < 1e-6).all()


@DTYPE
@SIZE
@pytest.mark.parametrize("warm_steps", [1, 4])
def test_a_warm_start_ends_at_the_same_place(size, dtype, warm_steps):
    strengths = (20.0, 0.9, 1.0)
    tissue = make_tissue(*SIZES[size])
    v, _ = solve(tissue, strengths, dtype, warm_steps=warm_steps)
    check("solve_spots", v, naive_poisson(size, strengths), dtype)


@DTYPE
def test_a_warm_start_is_expectation_maximisation(dtype):
    """v_k <- v_k sum_g (y_g / mu_g) B_kg / S_k, then the faint types of each spot go to 0."""
    tissue = make_tissue(*SIZES["130 spots"])
    v, steps = solve(tissue, (0.0, 1.0, 1.0), dtype, warm_steps=10, max_steps=0)
    y, b, w = tissue.counts[:-1], tissue.profiles, tissue.gene_weights
    expected = np.full((129, 6), 1 / 6)
    for _ in range(10):
        mu = y.sum(axis=1, keepdims=True) * (expected @ b)
        ratio = np.divide(w * y, mu, out=np.zeros_like(y), where=mu > 0)
        expected *= ratio @ b.T / (b @ w)
    faint = expected < kernels.FAINT * expected.max(axis=1, keepdims=True)
    check("warm start", v[:-1], np.where(faint, 0, expected), dtype)
    assert (steps == 0).all() and 0.005 < faint.mean() < 0.5


@SIZE
@STRENGTHS
def test_poisson_optimality(size, lambda_spatial, phi, lambda_ridge):
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    v, _ = solve(tissue, strengths, np.float64)
    _, slope = naive.poisson_objective(tissue, v, tissue.attention, *strengths)
    check("slope of solve_spots", slope_left(v, slope), np.zeros(v.shape))


@DTYPE
@SIZE
@STRENGTHS
def test_gaussian_solution(size, dtype, lambda_spatial, phi, lambda_ridge):
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    v = solve_gaussian(tissue, strengths, dtype)
    products, gram = gaussian(tissue)
    check("solve_spots_gaussian", v, naive_gaussian(size, strengths), dtype)
    _, slope = naive.gaussian_objective(products, gram, v.astype(float), tissue.attention, *strengths)
    check("slope of solve_spots_gaussian", slope_left(v, slope), np.zeros(v.shape), dtype)


@DTYPE
@STRENGTHS
def test_no_newton_step_raises_the_objective(dtype, lambda_spatial, phi, lambda_ridge):
    """One step a visit, spot by spot, from a poor start."""
    strengths = (lambda_spatial, phi, lambda_ridge)
    tissue = make_tissue(*SIZES["33 types"])
    n, n_types = len(tissue.counts), len(tissue.profiles)
    v = np.full((n, n_types), 3.0 / n_types, dtype)
    v[:, 0] = 5.0
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    steps, spots = np.zeros(n, np.int32), np.arange(n, dtype=np.int32)
    values = [naive.poisson_objective(tissue, v.astype(float), tissue.attention, *strengths)[0]]
    for _ in range(12):
        for i in range(n):
            kernels.solve_spots(*arrays, spots, i, i + 1, *strengths, 0, 1, 1e-3, v, steps)
            values.append(naive.poisson_objective(tissue, v.astype(float), tissue.attention, *strengths)[0])
    rises = np.maximum(np.diff(values), 0) / np.abs(values[0])
    check_below("rise of the objective", rises.max(), dtype)
    assert values[-1] < values[0] - 10


@DTYPE
def test_a_step_bound_and_the_tolerance_are_kept(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    few, steps = solve(tissue, (0.0, 1.0, 1.0), dtype, max_steps=1)
    assert (steps == 1).all()
    loose, steps = solve(tissue, (0.0, 1.0, 1.0), dtype, tolerance=1e-3)
    best, _ = solve(tissue, (0.0, 1.0, 1.0), np.float64)
    assert steps[:-1].mean() < 12 and steps.max() < 40
    assert np.abs(loose - best).max() < 1e-2 < np.abs(few - best).max()


@DTYPE
def test_known_mixture_is_recovered_at_high_counts(dtype):
    tissue = make_tissue(40, 300, 6, depth=1e6, seed=2)
    v, _ = solve(tissue, (0.0, 1.0, 0.0), dtype)
    shares = v[:-1] / v[:-1].sum(axis=1, keepdims=True)
    sums = tissue.profiles.sum(axis=1)
    # abundances are per count of the spot: the truth times one number a spot
    truth = tissue.truth[:-1]
    assert np.abs(shares - truth).max() < 0.02
    np.testing.assert_allclose((v[:-1] * sums).sum(axis=1), 1.0, atol=0.02)


@DTYPE
def test_a_smoothed_spot_without_counts_takes_the_mean_of_its_neighbours(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    tissue.attention[-1, 1:4] = tissue.attention[1:4, -1] = 0.3
    v, _ = solve(tissue, (50.0, 1.0, 0.0), dtype)
    a = tissue.attention[-1]
    np.testing.assert_allclose(v[-1], a @ v / a.sum(), atol=1e-5)


def test_a_spot_without_neighbours_is_not_smoothed():
    tissue = make_tissue(*SIZES["130 spots"])
    smooth, _ = solve(tissue, (100.0, 1.0, 1.0), np.float64)
    alone, _ = solve(tissue, (0.0, 1.0, 1.0), np.float64)
    np.testing.assert_allclose(smooth[0], alone[0], atol=1e-12)
    assert np.abs(smooth[1:-1] - alone[1:-1]).max(axis=1).min() > 1e-4


@DTYPE
@pytest.mark.parametrize("loss", ["poisson", "gaussian"])
def test_only_the_spots_of_the_range_are_touched(dtype, loss):
    tissue = make_tissue(*SIZES["130 spots"])
    n, n_types = tissue.truth.shape
    spots = np.random.default_rng(0).permutation(n).astype(np.int32)
    start, stop = 20, 37
    v, steps = np.full((n, n_types), 1 / n_types, dtype), np.full(n, -1, np.int32)
    before, after = (spots, start, stop, 20.0, 1.0, 1.0), (5, 1e-3, v, steps)
    if loss == "poisson":
        kernels.solve_spots(*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype), *before, 2, *after)
    else:
        products, gram = (part.astype(dtype) for part in gaussian(tissue))
        kernels.solve_spots_gaussian(products, gram, *graph_arrays(tissue.attention, dtype), *before, *after)
    inside = np.zeros(n, bool)
    inside[spots[start:stop]] = True
    assert (v[~inside] == dtype(1 / n_types)).all() and (steps[~inside] == -1).all()
    assert (v[inside] != dtype(1 / n_types)).any(axis=1).all() and (steps[inside] >= 1).all()
