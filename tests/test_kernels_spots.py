"""The type-level solvers against an independent solution of the same convex problem."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numba import njit

from stdeconv_fast.kernels import lanes, newton
from stdeconv_fast.kernels.cpu import spots as kernels
from tests.naive import spots as naive
from tests.naive.laplacian import colour_spots
from tests.problems import SIZES, Tissue, graph_arrays, make_tissue, slope_left, spot_arrays
from tests.tolerances import check, check_below

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
STRENGTHS = pytest.mark.parametrize(
    ("lambda_spatial", "phi", "lambda_ridge"), [(0.0, 1.0, 1.0), (20.0, 0.9, 1.0), (100.0, 1.0, 0.5)]
)

STILL = {"float32": 1e-6, "float64": 1e-10}  # visits end where no abundance moves by more


def solve(tissue, strengths, dtype, visits=200, max_steps=40, tolerance=0.0, warm_steps=0, narrow=False):
    """Visits of all spots by `solve_spots` in one call each, Gauss-Seidel in the order of the spots."""
    n, n_types = len(tissue.counts), len(tissue.profiles)
    v = np.full((n, n_types), 1 / n_types, dtype)
    steps = np.zeros(n, np.int32)
    spots = np.arange(n, dtype=np.int32)
    arrays = (*spot_arrays(tissue, dtype, narrow), *graph_arrays(tissue.attention, dtype))
    for _ in range(visits if strengths[0] else 1):
        before = v.copy()
        kernels.solve_spots(*arrays, spots, 0, n, *strengths, warm_steps, max_steps, tolerance, v, steps)
        warm_steps = 0
        if n == 0 or np.abs(v - before).max() < STILL[np.dtype(dtype).name]:
            break
    return v, steps


def colours_of(tissue):
    """Spots by colour, no two neighbours of one."""
    colours = colour_spots(tissue.attention > 0, range(len(tissue.counts)))
    return [np.flatnonzero(colours == colour).astype(np.int32) for colour in range(colours.max(initial=-1) + 1)]


def visit(tissue, strengths, v, relax=1.0, visits=1, narrow=False, tolerance=0.0):
    """Visits of all spots by `visit_spots`, colour by colour; updates `v`, returns the moves of the last one."""
    dtype = v.dtype.type
    moves = np.full(len(v), -1, dtype)
    arrays = (*spot_arrays(tissue, dtype, narrow), *graph_arrays(tissue.attention, dtype))
    for _ in range(visits):
        for spots in colours_of(tissue):
            kernels.visit_spots(*arrays, spots, 0, len(spots), *strengths, relax, tolerance, v, moves)
        if moves.max(initial=0) < STILL[v.dtype.name]:
            break
    return moves


def even(tissue, dtype):
    return np.full(tissue.truth.shape, 1 / len(tissue.profiles), dtype)


def near_answer(size, strengths, dtype):
    """The answer times a random factor near 1; about half of the abundances that are 0 there, and a few others, not."""
    v = naive_poisson(size, strengths).copy()
    rng = np.random.default_rng(1)
    v *= rng.uniform(0.97, 1.03, v.shape)
    v[(v == 0) & (rng.random(v.shape) < 0.5)] = 0.01
    if v.shape[1] > 1:
        v[(v < 0.05) & (rng.random(v.shape) < 0.2)] = 0
    return v.astype(dtype)


@cache
def naive_poisson(size, strengths):
    tissue = make_tissue(*SIZES[size])
    return naive.solve_spots(tissue, tissue.attention, *strengths)


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
    """v_k <- v_k (sum_g (y_g / mu_g) B_kg / S_k)^2, scaled to sum_g mu_g = sum_g y_g; the last factor is not squared.

    Then the faint types of each spot go to 0.
    """
    tissue = make_tissue(*SIZES["130 spots"])
    v, steps = solve(tissue, (0.0, 1.0, 1.0), dtype, warm_steps=10, max_steps=0)
    y, b, w = tissue.counts[:-1], tissue.profiles, tissue.gene_weights
    expected = np.full((129, 6), 1 / 6)
    totals = y.sum(axis=1, keepdims=True)
    for turn in range(10):
        mu = totals * (expected @ b)
        ratio = np.divide(w * y, mu, out=np.zeros_like(y), where=mu > 0)
        growth = ratio @ b.T / (b @ w)
        expected *= growth**2 if turn < 9 else growth
        if turn < 9:
            expected *= (w * y).sum(axis=1, keepdims=True) / (totals * (expected @ (b @ w))[:, None])
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
def test_only_the_spots_of_the_range_are_touched(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    n, n_types = tissue.truth.shape
    spots = np.random.default_rng(0).permutation(n).astype(np.int32)
    start, stop = 20, 37
    v, steps = np.full((n, n_types), 1 / n_types, dtype), np.full(n, -1, np.int32)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    kernels.solve_spots(*arrays, spots, start, stop, 20.0, 1.0, 1.0, 2, 5, 1e-3, v, steps)
    inside = np.zeros(n, bool)
    inside[spots[start:stop]] = True
    assert (v[~inside] == dtype(1 / n_types)).all() and (steps[~inside] == -1).all()
    assert (v[inside] != dtype(1 / n_types)).any(axis=1).all() and (steps[inside] >= 1).all()


@DTYPE
@SIZE
@pytest.mark.parametrize("warm_steps", [0, 4])
def test_two_byte_counts_give_the_same_bits(size, dtype, warm_steps):
    tissue, strengths = make_tissue(*SIZES[size]), (20.0, 0.9, 1.0)
    solved = [solve(tissue, strengths, dtype, 3, warm_steps=warm_steps, narrow=kind) for kind in (False, True)]
    for wide, narrow in zip(*solved, strict=True):
        np.testing.assert_array_equal(narrow, wide)
    near = [near_answer(size, strengths, dtype) for _ in range(2)]
    moves = [visit(tissue, strengths, v, 1.2, 3, kind) for v, kind in zip(near, (False, True), strict=True)]
    np.testing.assert_array_equal(*near)
    np.testing.assert_array_equal(*moves)


# one Newton step a visit


@DTYPE
@SIZE
@STRENGTHS
def test_visits_end_at_the_solution(size, dtype, lambda_spatial, phi, lambda_ridge):
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    assert len(colours_of(tissue)) > 1 or len(tissue.counts) < 2
    v, _ = solve(tissue, (0.0, *strengths[1:]), dtype)  # a start without neighbours, as in a run
    v += dtype(1e-3)  # but for spots without counts, which would stay at 0
    visit(tissue, strengths, v, visits=400)
    assert (v >= 0).all()
    check("visit_spots", v, naive_poisson(size, strengths), dtype)
    if dtype == np.float64:
        _, slope = naive.poisson_objective(tissue, v, tissue.attention, *strengths)
        check("slope of visit_spots", slope_left(v, slope), np.zeros(v.shape))


@DTYPE
@pytest.mark.parametrize("relax", [1.3, 1.7])
def test_relaxed_visits_end_at_the_solution(dtype, relax):
    tissue, strengths = make_tissue(*SIZES["130 spots"]), (100.0, 1.0, 0.5)
    v = even(tissue, dtype)
    visit(tissue, strengths, v, relax, 400)
    check("visit_spots", v, naive_poisson("130 spots", strengths), dtype)


def starts_of(size, strengths, dtype):
    """Starts of visits: even, near the answer, and far off."""
    far = even(make_tissue(*SIZES[size]), dtype) * dtype(3)
    far[:, 0] = 5
    far[::2, -1] = 0
    return {"even": even(make_tissue(*SIZES[size]), dtype), "near": near_answer(size, strengths, dtype), "far": far}


@DTYPE
@SIZE
@STRENGTHS
@pytest.mark.parametrize("relax", [1.0, 1.5])
def test_a_visit(size, dtype, lambda_spatial, phi, lambda_ridge, relax):
    """The same sweeps on both sides; the moves are the largest changes."""
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    n = len(tissue.counts)
    for start in starts_of(size, strengths, dtype).values():
        for i in sorted({*range(min(n, 8)), *range(n)[-1:]}):
            v, moves = start.copy(), np.full(n, -1, dtype)
            kernels.visit_spots(*arrays, np.array([i], np.int32), 0, 1, *strengths, relax, 1e-3, v, moves)
            assert moves[i] == np.abs(v[i] - start[i]).max()
            expected = naive.visit_spots(tissue, start.astype(float), i, tissue.attention, *strengths, relax, 1e-3)
            check("one visit", v[i], expected, dtype)


@SIZE
@STRENGTHS
def test_a_visit_is_a_whole_newton_step(size, lambda_spatial, phi, lambda_ridge):
    """Near the answer, against the exact least of the quadratic model; nearly it where a type goes to 0."""
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    start = near_answer(size, strengths, np.float64)
    arrays = (*spot_arrays(tissue, np.float64), *graph_arrays(tissue.attention, np.float64))
    for i in range(min(len(start), 12)):
        v = start.copy()
        kernels.visit_spots(*arrays, np.array([i], np.int32), 0, 1, *strengths, 1.0, 0.0, v, np.zeros(len(v)))
        expected = naive.newton_step(tissue, start, i, tissue.attention, *strengths)
        kept = (expected[start[i] > 0] > 0).all()
        # measured: 3e-13 where all are kept, else 0.035
        assert np.abs(v[i] - expected).max() <= (3e-12 if kept else 0.07) * np.abs(expected - start[i]).max() + 1e-12


@DTYPE
@SIZE
@STRENGTHS
def test_a_visit_is_nearly_one_step_of_the_solver(size, dtype, lambda_spatial, phi, lambda_ridge):
    """Both end their inner sweeps within 1 % of the longest move; the visit begins them elsewhere."""
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    n = len(tissue.counts)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    every, steps = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    starts = starts_of(size, strengths, dtype)
    for name, start in (("above 0", starts["even"]), ("some at 0", starts["near"])):
        visited, solved = start.copy(), start.copy()
        moves = np.full(n, -1, dtype)
        kernels.visit_spots(*arrays, every, 0, n, *strengths, 1.0, 1e-3, visited, moves)
        kernels.solve_spots(*arrays, every, 0, n, *strengths, 0, 1, 1e-3, solved, steps)
        np.testing.assert_array_equal(moves, np.abs(visited - start).max(axis=1, initial=0))
        apart = np.abs(visited - solved).max(axis=1, initial=0)
        # measured: 0.073, half of them below 0.03; 0.22 in a spot of few counts, where sweeps are slow
        assert (apart <= 0.45 * moves + 1e-6).all() and np.sum(apart > 0.15 * moves + 1e-6) <= 0.05 * n, name


@DTYPE
@pytest.mark.parametrize("n_types", [1, 3, 4, 7, 8, 12, 13, 16, 20, 31, 33])
def test_a_block_holds_the_profiles_of_the_genes(n_types, dtype):
    """Whatever is left over by eights and fours; nothing is written behind it."""
    rng = np.random.default_rng(n_types)
    profiles_t, genes = rng.random((50, n_types)).astype(dtype), rng.integers(0, 50, 3 * newton.LANES).astype(np.uint32)
    room = np.full(n_types * len(genes) + 64, -1, dtype)
    block = room[: n_types * len(genes)].reshape(n_types, len(genes))

    @njit
    def gather(profiles_t, genes, length, block):
        newton.gather_profiles(profiles_t, genes, length, block)

    gather(profiles_t, genes, len(genes), block)
    np.testing.assert_array_equal(block, profiles_t[genes].T)
    assert (room[block.size :] == -1).all()


@DTYPE
@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_rows_of_a_block_are_mixed(count, dtype):
    """Any of its rows, in any order; nothing is written behind the last one."""
    rng = np.random.default_rng(count)
    block, weights = rng.random((20, 3 * newton.LANES)).astype(dtype), rng.random(20).astype(dtype)
    rows, out = rng.permutation(20).astype(np.uint32), np.full(3 * newton.LANES + 8, -1, dtype)

    @njit
    def mix(block, rows, weights, count, length, out):
        newton.mix_rows(block, rows, weights, count, length, out)

    mix(block, rows, weights, count, block.shape[1], out)
    expected = weights[:count].astype(float) @ block[rows[:count]].astype(float)
    np.testing.assert_allclose(out[: block.shape[1]], expected, rtol=20 * np.finfo(dtype).eps)
    assert (out[block.shape[1] :] == -1).all()


@DTYPE
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 20])
def test_products_of_the_rows_of_a_block(count, dtype):
    """With a vector, and weighted with each other; places beyond the length are not read, nor others written."""
    rng = np.random.default_rng(count)
    length, width = 3 * lanes.PIECE, (20 + 3) // 8 * 8 + 8
    block, x = rng.random((20, 4 * lanes.PIECE)).astype(dtype), rng.random(4 * lanes.PIECE).astype(dtype)
    block[:, length:], x[length:] = np.nan, np.nan
    rows, out, matrix = rng.permutation(20).astype(np.uint32), np.full(32, -1, dtype), np.full((20, width), -1, dtype)

    @njit
    def multiply(block, rows, count, length, x, out, matrix):
        newton.dot_rows(block, count, length, x, out)
        newton.sum_curvature(block, rows, count, length, x, x.dtype.type(3), matrix)

    multiply(block, rows, count, length, x, out, matrix)
    known, factor = block[:, :length].astype(float), x[:length].astype(float)
    loose = {"rtol": 20 * np.finfo(dtype).eps}
    np.testing.assert_allclose(out[:count], known[:count] @ factor, **loose)
    assert (out[(count + 7) // 8 * 8 :] == -1).all()
    taken = known[rows[:count]]
    upper = np.triu_indices(count)
    expected = (taken * factor @ taken.T + 3 * np.eye(count))[upper]
    np.testing.assert_allclose(matrix[:count, :count][upper], expected, **loose)
    assert (matrix[count:] == -1).all() and (matrix[:, count + 3 :] == -1).all()


@DTYPE
@pytest.mark.parametrize("n_active", [1, 2, 7, 8, 9, 16, 30])
def test_a_newton_step_is_solved_for(n_active, dtype):
    """By factors where the bounds are far, by sweeps from any start; of `hessian` the upper triangle is read alone."""
    rng = np.random.default_rng(n_active)
    n_types, width = 30, 32
    half = rng.normal(size=(n_active, 3 * n_active))
    hessian, factor = np.full((n_types, width), 7, dtype), np.zeros((n_types + 1, width), dtype)
    matrix = half @ half.T + n_active * np.eye(n_active)
    hessian[:n_active, :n_active] = np.triu(matrix) + 7 * np.tri(n_active, k=-1)
    types, gradient = rng.permutation(n_types).astype(np.uint32), rng.normal(size=n_types).astype(dtype)
    v, direction, inverse = np.full(n_types, 100, dtype), np.zeros(n_types, dtype), np.zeros(n_types, dtype)

    @njit
    def solve(hessian, gradient, types, n_active, v, direction, inverse, factor):
        return newton.solve_directly(hessian, gradient, types, n_active, v, direction, inverse, factor)

    @njit
    def sweep(hessian, gradient, types, n_active, v, direction, inverse, back, factor):
        newton.sweep_types(hessian, gradient, types, n_active, v, direction, inverse, back, factor)

    before = hessian.copy()
    assert solve(hessian, gradient, types, n_active, v, direction, inverse, factor)
    expected = np.linalg.solve(matrix, -gradient[types[:n_active]].astype(float))
    loose = 1e4 * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(direction[:n_active], expected, atol=loose)
    for start in (np.zeros_like(direction), direction.copy(), rng.normal(size=n_types).astype(dtype)):
        sweep(hessian, gradient, types, n_active, v, start, inverse, np.zeros_like(v), factor)
        assert np.abs(start[:n_active] - expected).max() <= 0.02 * np.abs(expected).max()
    np.testing.assert_array_equal(hessian, before)
    v[types[0]] = max(-expected[0] / 2, 0)  # a bound that the first type's step would leave, if it is downwards
    assert solve(hessian, gradient, types, n_active, v, direction, inverse, factor) == (expected[0] >= 0)


@DTYPE
@pytest.mark.parametrize("lambda_ridge", [0.0, 1.0])
@pytest.mark.parametrize(("n_types", "counts"), [(20, 2e5), (20, 1e6), (60, 5e5)])
def test_more_types_than_genes_with_counts(n_types, counts, lambda_ridge, dtype):
    """The Hessian has no inverse, or hardly one: visits come as low as the sweeps of the solver."""
    rng = np.random.default_rng(n_types)
    profiles = rng.dirichlet(np.full(12, 0.5), n_types)
    profiles = 0.99 * profiles + 0.01 * profiles.mean(axis=0)
    truth = rng.dirichlet(np.full(n_types, 0.3), 8)
    y = rng.poisson(counts * truth @ profiles).astype(float)
    tissue = Tissue(y, profiles, np.ones(12), truth, np.zeros((8, 8)))
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    strengths, every = (0.0, 1.0, lambda_ridge), np.arange(8, dtype=np.int32)

    def objective(v):
        return naive.poisson_objective(tissue, v.astype(float), tissue.attention, *strengths)[0]

    visited, solved = even(tissue, dtype), even(tissue, dtype)
    for _ in range(40):
        kernels.visit_spots(*arrays, every, 0, 8, *strengths, 1.0, 1e-3, visited, np.zeros(8, dtype))
    kernels.solve_spots(*arrays, every, 0, 8, *strengths, 0, 40, 1e-3, solved, np.zeros(8, np.int32))
    assert np.isfinite(visited).all() and (visited >= 0).all()
    fall = objective(even(tissue, dtype)) - objective(solved)
    assert objective(visited) <= objective(solved) + 1e-3 * fall


def test_a_step_that_is_no_number_is_not_taken():
    """Nor does a spot that has become none draw its neighbours after it."""
    tissue = make_tissue(*SIZES["130 spots"])
    arrays = (*spot_arrays(tissue, np.float64), *graph_arrays(tissue.attention, np.float64))
    start, n = even(tissue, np.float64), len(tissue.counts)
    broken, bad = start.copy(), int((tissue.attention > 0).sum(axis=1).argmax())
    broken[bad] = np.nan
    near = np.flatnonzero(tissue.attention[bad])
    kernels.visit_spots(*arrays, np.arange(n, dtype=np.int32), 0, n, 20.0, 1.0, 1.0, 1.0, 1e-3, broken, np.zeros(n))
    assert len(near) and np.isnan(broken[bad]).all() and np.isfinite(np.delete(broken, bad, axis=0)).all()
    np.testing.assert_array_equal(broken[near], start[near])


@DTYPE
@STRENGTHS
def test_a_relaxed_visit_goes_further(dtype, lambda_spatial, phi, lambda_ridge):
    """v + relax * step, no lower than 0."""
    size, strengths = "130 spots", (lambda_spatial, phi, lambda_ridge)
    tissue, start = make_tissue(*SIZES[size]), near_answer(size, strengths, dtype)
    colour = colours_of(tissue)[0]
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype), colour, 0, len(colour), *strengths)
    found, moves = {}, {}
    for relax in (1.0, 1.3):
        found[relax], moves[relax] = start.copy(), np.zeros(len(start), dtype)
        kernels.visit_spots(*arrays, relax, 1e-3, found[relax], moves[relax])
    expected = np.maximum(start + 1.3 * (found[1.0] - start.astype(float)), 0)
    check("relaxed step", found[1.3], expected, dtype)
    assert (moves[1.3] >= moves[1.0]).all() and (moves[1.3] > 1.2 * moves[1.0])[colour].mean() > 0.5


@DTYPE
@pytest.mark.parametrize(("relax", "left"), [(1.0, 0.5), (1.3, 0.35), (1.7, 0.15), (1.9, 0.5)])
def test_a_step_relaxed_to_next_to_nothing_is_not_relaxed(dtype, relax, left):
    """A spot without counts that has twice the abundance of its only neighbour: a step halves it."""
    profiles = np.array([[0.5, 0.5], [0.2, 0.8]])
    attention = np.array([[0.0, 1.0], [1.0, 0.0]])
    tissue = Tissue(np.array([[0.0, 0.0], [3.0, 2.0]]), profiles, np.ones(2), np.zeros((2, 2)), attention)
    v, moves = np.array([[0.8, 0.4], [0.4, 0.2]], dtype), np.zeros(2, dtype)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(attention, dtype), np.array([0], np.int32), 0, 1)
    kernels.visit_spots(*arrays, 10.0, 1.0, 0.0, relax, 1e-3, v, moves)
    np.testing.assert_allclose(v, [[0.8 * left, 0.4 * left], [0.4, 0.2]], rtol=1e-5)
    np.testing.assert_allclose(moves, [0.8 * (1 - left), 0.0], rtol=1e-5)


@DTYPE
def test_a_row_without_abundance_stays(dtype):
    tissue, strengths = make_tissue(*SIZES["130 spots"]), (20.0, 1.0, 1.0)
    v = even(tissue, dtype)
    v[[3, 60, 129]] = 0  # 129 has no counts
    moves = visit(tissue, strengths, v)
    assert (v[[3, 60, 129]] == 0).all() and (moves[[3, 60, 129]] == 0).all()
    assert (moves[np.delete(np.arange(130), [3, 60, 129])] > 0).all()


@DTYPE
def test_a_visited_spot_without_counts_takes_the_mean_of_its_neighbours(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    tissue.attention[-1, 1:4] = tissue.attention[1:4, -1] = 0.3
    v, moves = even(tissue, dtype), np.zeros(130, dtype)
    v[1:4] *= np.array([[0.0], [1.0], [3.0]], dtype)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype), np.array([129], np.int32), 0, 1)
    for _ in range(4):
        kernels.visit_spots(*arrays, 50.0, 1.0, 0.0, 1.0, 0.0, v, moves)
    a = tissue.attention[-1]
    np.testing.assert_allclose(v[-1], a @ v / a.sum(), atol=1e-6)


@DTYPE
def test_no_visit_raises_the_objective(dtype):
    """Not relaxed, spot by spot, from a poor start."""
    strengths = (20.0, 0.9, 1.0)
    tissue = make_tissue(*SIZES["33 types"])
    v = np.full(tissue.truth.shape, 3.0 / 33, dtype)
    v[:, 0], v[:, 5] = 5.0, 0.0
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype), np.arange(9, dtype=np.int32))
    moves = np.zeros(9, dtype)
    values = [naive.poisson_objective(tissue, v.astype(float), tissue.attention, *strengths)[0]]
    for _ in range(12):
        for i in range(9):
            kernels.visit_spots(*arrays, i, i + 1, *strengths, 1.0, 1e-3, v, moves)
            values.append(naive.poisson_objective(tissue, v.astype(float), tissue.attention, *strengths)[0])
    rises = np.maximum(np.diff(values), 0) / np.abs(values[0])
    check_below("rise of the objective", rises.max(), dtype)
    assert values[-1] < values[0] - 10


@DTYPE
def test_only_the_visited_spots_are_touched(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    spots = np.random.default_rng(0).permutation(130).astype(np.int32)
    start, stop = 20, 37
    v, moves = even(tissue, dtype), np.full(130, -7, dtype)
    arrays = (*spot_arrays(tissue, dtype), *graph_arrays(tissue.attention, dtype))
    given = [part.copy() for part in arrays]
    kernels.visit_spots(*arrays, spots, start, stop, 20.0, 1.0, 1.0, 1.3, 1e-3, v, moves)
    inside = np.zeros(130, bool)
    inside[spots[start:stop]] = True
    assert (v[~inside] == dtype(1 / 6)).all() and (moves[~inside] == -7).all()
    assert (v[inside] != dtype(1 / 6)).any(axis=1).all() and (moves[inside] > 0).all()
    for part, before in zip(arrays, given, strict=True):
        np.testing.assert_array_equal(part, before)
