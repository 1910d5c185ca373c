"""The cell sweep against a dense Gauss-Seidel."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import cells as kernels
from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.parcels import Reference
from stdeconv_fast.stages import refine_cells as stage
from stdeconv_fast.stages.graph import no_neighbours
from tests.naive import cells as naive
from tests.problems import SIZES, counts_of, csr_arrays, graph_arrays, make_tissue
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
LEAST_SHARE = 1e-3
TINY = 1e-12  # nothing but zeros is dropped


def problem(size, n_cells=3, seed=0):
    """Cells of each type (the first type has none where there are several, the second one a cell without counts)."""
    n_spots, n_genes, n_types = SIZES[size]
    tissue = make_tissue(n_spots, n_genes, n_types)
    rng = np.random.default_rng([seed, n_spots])
    types = np.repeat(np.arange(n_types), n_cells)
    types = types[types > 0] if n_types > 1 else types
    cells = rng.poisson(400 * tissue.profiles[types] * rng.gamma(5, 0.2, (len(types), n_genes))).astype(float)
    cells /= np.maximum(cells.sum(axis=1, keepdims=True), 1)
    if n_types > 1:
        cells[0] = 0
    links = np.triu(rng.uniform(0.1, 1.0, (len(types), len(types))), 1) * (types[:, None] == types)
    means = tissue.counts.mean(axis=0) / 300 if n_spots else np.ones(n_genes)
    gene_w = 1 / np.maximum(means, 1e-3)
    unit = (cells**2 * gene_w).sum(axis=1).mean()
    return naive.CellProblem(
        tissue.counts, gene_w, cells, types, links + links.T, tissue.attention,
        tissue.truth * (tissue.truth > 0.02), unit, 0.1 * unit, 0.1 * unit, 2.0 * unit,
    )  # fmt: skip


def sweep(problem, dtype, old=None, n_sweeps=3, least=TINY, most=200, start=0, stop=None, guard=False, dense=False):
    """The kernel's weights of some spots, dense (n_spots, n_cells)."""
    n, n_cells = len(problem.counts), len(problem.cells)
    stop = n if stop is None else stop
    roots = np.sqrt(problem.gene_w)
    scaled = problem.cells * roots
    starts = np.searchsorted(problem.cell_types, np.arange(problem.abundances.shape[1] + 1)).astype(np.int64)
    shape = (stop - start + guard, most)
    lengths, cells, weights = np.full(shape[0], -1), np.full(shape, -1, np.int32), np.full(shape, -1, dtype)
    kernels.sweep_cells(
        *csr_arrays(problem.counts, dtype), problem.counts.sum(axis=1).astype(dtype), roots.astype(dtype),
        *csr_arrays(scaled, dtype), np.ascontiguousarray(scaled[: None if dense else 0], dtype),
        (scaled**2).sum(axis=1).astype(dtype), starts,
        *graph_arrays(problem.links, dtype), *graph_arrays(problem.attention, dtype),
        problem.abundances.astype(dtype), *csr_arrays(np.zeros((n, n_cells)) if old is None else old, dtype),
        start, stop, problem.anchor, problem.ridge, problem.cell, problem.spatial, LEAST_SHARE, least, n_sweeps,
        lengths, cells, weights,
    )  # fmt: skip
    out = np.zeros((n, n_cells))
    for i in range(start, stop):
        found = cells[i - start, : lengths[i - start]]
        assert (np.diff(found) > 0).all()
        out[i, found] = weights[i - start, : lengths[i - start]]
    if guard:
        assert lengths[-1] == -1 and (cells[-1] == -1).all() and (weights[-1] == -1).all()
    return out


def by_naive(problem, old=None, n_sweeps=3):
    out = np.zeros((len(problem.counts), len(problem.cells)))
    for i in range(len(out)):
        out[i] = naive.sweep_cells(problem, i, old, n_sweeps, LEAST_SHARE)
    return out


def seen(problem):
    """The spots with counts; the last of several has none and is out before this stage."""
    return problem if len(problem.counts) < 2 else replace(
        problem, counts=problem.counts[:-1], attention=problem.attention[:-1, :-1],
        abundances=problem.abundances[:-1],
    )  # fmt: skip


@cache  # the naive answers take most of the time of these tests, and hang on neither dtype nor layout
def first_pass(size):
    some = seen(problem(size))
    return some, by_naive(some)


@DTYPE
@SIZE
@pytest.mark.parametrize("dense", [False, True])
def test_first_pass_knows_no_neighbours(size, dtype, dense):
    some, expected = first_pass(size)
    check("sweep_cells", sweep(some, dtype, guard=True, dense=dense), expected, dtype)


@cache
def second_pass(size):
    some = seen(problem(size))
    rng = np.random.default_rng(8)
    old = rng.random((len(some.counts), len(some.cells))) * (rng.random((len(some.counts), len(some.cells))) < 0.4)
    if old.size:
        old[0, 0] = 0.5
    return some, old, by_naive(some, old)


@DTYPE
@SIZE
def test_second_pass_holds_the_neighbours(size, dtype):
    some, old, expected = second_pass(size)
    check("sweep_cells", sweep(some, dtype, old=old), expected, dtype)


@cache
def without(off):
    some = replace(seen(problem("130 spots")), **{off: 0.0})
    old = by_naive(some, n_sweeps=1)
    return some, old, by_naive(some, old)


@DTYPE
@pytest.mark.parametrize("off", ["cell", "ridge", "spatial"])
def test_a_strength_of_zero_takes_its_term_away(off, dtype):
    some, old, expected = without(off)
    check("sweep_cells", sweep(some, dtype, old=old), expected, dtype)


@pytest.mark.parametrize("size", ["one spot", "one type", "33 types"])
def test_many_sweeps_reach_the_optimum(size):
    some = seen(problem(size))
    old = by_naive(some, n_sweeps=1)
    p = sweep(some, np.float64, old=old, n_sweeps=3000)
    for i in range(len(p)):
        visited = naive.visited_cells(some, i, LEAST_SHARE)
        slope = naive.gradient(some, i, p[i], old)[visited]
        left = np.where(p[i, visited] > 0, np.abs(slope), np.maximum(-slope, 0)) / some.anchor
        check("slope of sweep_cells", left, np.zeros(len(left)))


def test_types_with_little_of_the_spot_are_left_out():
    some = seen(problem("130 spots"))
    some.abundances[:, 3] = 5e-4 * np.delete(some.abundances, 3, axis=1).sum(axis=1)
    found = sweep(some, np.float64)
    assert not found[:, some.cell_types == 3].any()
    assert found[:, some.cell_types == 2].any()
    check("sweep_cells", found, by_naive(some))


def test_the_anchor_holds_the_sums_of_the_types():
    some = seen(problem("130 spots"))
    strong = replace(some, anchor=1e6 * some.anchor)
    p = sweep(strong, np.float64, n_sweeps=50)
    sums = np.stack([p[:, some.cell_types == k].sum(axis=1) for k in range(6)], axis=1)
    np.testing.assert_allclose(sums[:, 1:], some.abundances[:, 1:], atol=1e-4)


@cache
def weights_of_eight():
    return by_naive(seen(problem("130 spots", n_cells=8)))


@pytest.mark.parametrize(("least", "most"), [(0.03, 200), (0.01, 7), (TINY, 6), (0.2, 200)])
def test_small_weights_go_and_the_sums_of_types_stay(least, most):
    some = seen(problem("130 spots", n_cells=8))
    whole = weights_of_eight()
    expected = np.array([naive.keep_largest(p, some.cell_types, least, most) for p in whole])
    found = sweep(some, np.float64, least=least, most=most)
    check("sweep_cells", found, expected)
    assert ((found > 0).sum(axis=1) <= most).all() and ((found > 0).sum() < (whole > 0).sum())
    by_type = np.array([[p[some.cell_types == k].sum() for k in range(6)] for p in found])
    np.testing.assert_allclose(by_type, [[p[some.cell_types == k].sum() for k in range(6)] for p in whole], atol=1e-12)


def test_ties_are_cut_at_most_cells_per_spot():
    """Equal cells of one type have equal weights; with room for 5 of 40 just 5 stay."""
    some = replace(
        seen(problem("one spot")), cells=np.full((40, 6), 1 / 6), cell_types=np.full(40, 1),
        links=np.zeros((40, 40)), ridge=1.0, cell=0.0,
    )  # fmt: skip
    some.abundances[:] = [[0.0, 1.0, 0.0]]
    found = sweep(some, np.float64, n_sweeps=0, most=5)
    assert (found > 0).sum() == 5
    np.testing.assert_allclose(found[found > 0], 0.2, rtol=1e-12)


def test_fewer_places_than_types_keeps_the_most_abundant_types():
    some = seen(problem("130 spots"))
    some.abundances[:] = [0.0, 0.1, 0.1, 0.1, 0.2, 0.5]
    found = sweep(some, np.float64, n_sweeps=0, most=2)
    assert (found[:, some.cell_types >= 4] > 0).sum(axis=1).min() == 2


@DTYPE
def test_a_part_of_the_spots_gives_the_same_weights(dtype):
    some = seen(problem("130 spots"))
    whole = sweep(some, dtype)
    part = sweep(some, dtype, start=20, stop=37, guard=True)
    np.testing.assert_array_equal(part[20:37], whole[20:37])
    assert not np.delete(part, np.arange(20, 37), axis=0).any()


# The stage around the kernel


def stage_problem():
    """Raw counts of 20 spots and 42 cells of 3 types (14 each: more than 10 neighbours to choose from), abundances."""
    rng = np.random.default_rng(11)
    tissue = make_tissue(21, 30, 3)
    types = np.repeat(np.arange(3), 14)
    cells = rng.poisson(200 * tissue.profiles[types] * rng.gamma(4, 0.25, (42, 30))).astype(float)
    cells[5] = 0  # no counts in the kept genes
    totals = cells.sum(axis=1) + rng.integers(1, 100, 42)  # over all genes
    factors = rng.lognormal(0, 0.3, 30)
    tissue.counts[:, :2] = 0  # W of a gene without counts has a bound, that of a rare gene is below it
    tissue.counts[0, 0] = 1
    return tissue.counts[:-1], cells, totals, factors, types, tissue.attention[:-1, :-1], tissue.truth[:-1]


def refine(parts, spatial, dtype=np.float64, **changes):
    """The stage's weights, dense (n_spots, n_cells)."""
    counts, cells, totals, factors, types, attention, abundances = parts
    n = len(counts)
    settings = {"lambda_ridge": 1.0, "lambda_cell": 1.0, "max_cells_per_spot": 200, **changes}
    known = Reference(np.zeros((3, 30)), factors, np.ones(30), np.arange(30), np.ones(3), 0.0, "pooled")
    indptr, indices, weights, degrees = graph_arrays(attention, dtype)
    links = replace(no_neighbours(n), indptr=indptr, indices=indices, weights=weights, degrees=degrees)
    told = []
    with hold_workers(1) as workers:
        found = stage.refine(
            stage.Cells(np.arange(42), types.astype(np.int32), counts_of(cells, dtype), totals), known,
            counts_of(counts, dtype), links, abundances.astype(dtype), lambda_spatial=spatial, workers=workers,
            tick=told.append, **settings,
        )  # fmt: skip
    assert sum(told) == (2 * n if spatial else n)
    np.testing.assert_array_equal(found.cell_types, types)
    by_type = np.stack([found.weights.toarray()[:, types == k].sum(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(stage.sum_by_type(found, 3, np.dtype(dtype)), by_type, atol=1e-6)
    return found.weights.toarray()


def drop(p, types):
    return np.array([naive.keep_largest(row, types, 1e-4, 200) for row in p])


@cache
def refined(**strengths):
    posed = naive.pose(*stage_problem(), 0.0, **strengths)
    return drop(by_naive(posed, n_sweeps=8), posed.cell_types)


@DTYPE
@pytest.mark.parametrize("changes", [{}, {"lambda_cell": 0.0}, {"lambda_ridge": 3.0}])
def test_refine_without_neighbours(dtype, changes):
    expected = refined(**{name.removeprefix("lambda_"): value for name, value in changes.items()})
    check("refine", refine(stage_problem(), 0.0, dtype, **changes), expected, dtype)


def test_refine_with_neighbours():
    parts = stage_problem()
    posed = naive.pose(*parts, 50.0)
    old = drop(by_naive(posed, n_sweeps=3), posed.cell_types)
    expected = drop(by_naive(posed, old, n_sweeps=8), posed.cell_types)
    check("refine", refine(parts, 50.0), expected)
    assert np.abs(expected - drop(by_naive(posed, n_sweeps=8), posed.cell_types)).max() > 1e-3


def test_the_cells_stay_near_the_type_level():
    parts = stage_problem()
    p = refine(parts, 20.0)
    sums = np.stack([p[:, parts[4] == k].sum(axis=1) for k in range(3)], axis=1)
    assert np.corrcoef(sums.ravel(), parts[-1].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("most", [1, 5, 100])
def test_cells_are_drawn_by_content(most):
    rng = np.random.default_rng(0)
    counts, types = rng.poisson(2.0, (60, 12)).astype(float), rng.integers(0, 3, 60).astype(np.int32)
    keys = rng.integers(0, 2**64, 12, dtype=np.uint64)
    order = rng.permutation(60)

    def draw(rows, seed=0):
        with hold_workers(1) as workers:
            return rows[
                stage.draw_cells(
                    counts_of(counts[rows]), types[rows], counts[rows].sum(axis=1), keys, most, seed, workers
                )
            ]

    drawn = draw(np.arange(60))
    assert (np.diff(types[drawn]) >= 0).all() and len(set(drawn)) == len(drawn)
    np.testing.assert_array_equal(np.bincount(types[drawn]), np.minimum(np.bincount(types), most))
    np.testing.assert_array_equal(draw(order), drawn)
    assert (set(draw(np.arange(60), seed=1)) != set(drawn)) == (most < 100)
