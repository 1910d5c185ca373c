"""The reference: profiles, genes, platform effect, weights; and the way from abundances to proportions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from stdeconv_fast.draws import in_key_order, lowest_keys, order_by_key
from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.procedures import passes
from stdeconv_fast.procedures.pieces import Whole
from stdeconv_fast.stages import aggregate, graph, solve_types
from stdeconv_fast.stages import reference as stage
from tests.naive import fits as naive
from tests.problems import Tissue, counts_of, make_inputs, square
from tests.tolerances import check


@pytest.fixture(scope="module")
def workers():
    with hold_workers(1) as held:
        yield held


def cells_of(n_types=4, n_genes=30, n_cells=80, seed=0):
    """Counts of reference cells and their types; some cells have none (-1)."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, n_types, n_cells)
    types[:n_types] = np.arange(n_types)
    profiles = rng.gamma(0.5, 1.0, (n_types, n_genes))
    counts = rng.poisson(rng.gamma(5, 4, (n_cells, 1)) * (1 + types[:, None]) * profiles[types]) + (
        rng.random((n_cells, n_genes)) < 0.05
    )
    types[n_types:][rng.random(n_cells - n_types) < 0.1] = -1
    return counts, types


def profiles_of(means, gene_totals=None, content=None):
    """Profiles by hand."""
    means = np.asarray(means, dtype=float)
    return stage.Profiles(
        means, np.ones(means.shape[1]) if gene_totals is None else gene_totals,
        np.ones(len(means)) if content is None else content, np.zeros(0),
    )  # fmt: skip


def planted(log2_sd, n_types=5, n_genes=400, n_spots=60, depth=3000, seed=0):
    """Profiles (shares), spots whose genes are seen with a platform effect, its natural logarithm, the truth."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 1, n_genes)
    means = base * np.exp(1.5 * rng.standard_normal((n_types, n_genes)) * (rng.random((n_types, n_genes)) < 0.3))
    means /= means.sum(axis=1, keepdims=True)
    gamma = rng.normal(0, log2_sd * np.log(2), n_genes)
    truth = rng.dirichlet(np.full(n_types, 0.5), n_spots)
    rates = truth @ means * np.exp(gamma)
    spots = rng.poisson(depth * rates / rates.sum(axis=1).mean())
    return means, spots.astype(float), gamma, truth


def fit(means, spots, platform="pooled", content=None):
    """The fitted reference over all genes with counts."""
    totals = spots.sum(axis=0)
    return stage.fit_reference(profiles_of(means, content=content), np.flatnonzero(totals > 0), totals, platform)


# Profiles


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_profiles_are_means_of_shares_over_all_genes(workers, dtype):
    counts, types = cells_of()
    shared = np.array([3, 0, 17, 29, 8])
    inputs = make_inputs(np.ones((2, 30)), counts.astype(dtype), types, reference_genes=shared)
    found = stage.average_types(inputs, workers)
    totals = counts.sum(axis=1)  # over all genes, shared or not
    expected = [(counts[types == k] / totals[types == k, None]).mean(axis=0)[shared] for k in range(4)]
    library = np.array([totals[types == k].mean() for k in range(4)])
    check("average_types", found.means, expected)
    check("average_types", found.mrna_content, library / library.mean())
    np.testing.assert_array_equal(found.gene_totals, counts[types >= 0][:, shared].sum(axis=0))
    np.testing.assert_array_equal(found.cell_totals, totals)


def test_one_type_with_one_cell(workers):
    inputs = make_inputs(np.ones((1, 4)), np.array([[1, 0, 3, 0]]), np.zeros(1, int))
    found = stage.average_types(inputs, workers)
    np.testing.assert_allclose(found.means, [[0.25, 0, 0.75, 0]])
    assert found.mrna_content.tolist() == [1.0]


def test_kept_counts_of_some_cells(workers):
    cells = np.random.default_rng(0).poisson(0.7, (20, 12))
    genes = np.array([11, 2, 5, 7])
    inputs = make_inputs(np.ones((1, 12)), cells, np.zeros(20, int), reference_genes=genes)
    rows = np.array([3, 4, 9, 19])
    kept = np.array([0, 3])
    found = stage.gather_cells(inputs, rows, kept, np.dtype(np.float32), workers)
    expected = cells[rows][:, genes[kept]]
    matrix = sparse.csr_matrix((found.data, found.indices, found.indptr), shape=expected.shape)
    np.testing.assert_array_equal(matrix.toarray(), expected)
    np.testing.assert_array_equal(found.totals, expected.sum(axis=1))
    assert found.data.dtype == found.totals.dtype == np.float32 and found.n_genes == 2


# Genes


def test_a_panel_keeps_every_gene_with_counts_in_both():
    means = np.random.default_rng(0).random((3, 1502))
    reference_totals, spot_totals = np.ones(1502), np.ones(1502)
    reference_totals[7] = spot_totals[[7, 9]] = 0
    kept = stage.choose_genes(profiles_of(means, reference_totals), spot_totals)
    np.testing.assert_array_equal(kept, np.setdiff1d(np.arange(1502), [7, 9]))


def test_a_whole_transcriptome_keeps_markers(monkeypatch):
    """1,501 genes seen: fold above exp(0.75) over the mean of the others, and above 1.25e-4, for the same type."""
    means = np.full((3, 1501), 5e-4)
    fold = np.exp(0.75)
    means[1, 10] = 5e-4 * fold * 1.001  # a marker
    means[1, 11] = 5e-4 * fold * 0.999  # not quite
    means[:, 12] = 1e-5, 1e-5, 1.3e-4  # low, but above the least share
    means[:, 13] = 1e-5, 1e-5, 1.2e-4  # below it
    means[:, 14] = 1.26e-4, 1.0e-4, 1.0e-5  # the mean of the others decides: 5.5e-5
    means[:, 15] = 1e-6, 1e-4, 1.2e-4  # high in one type, a marker of none
    monkeypatch.setattr(stage, "GENES_PER_TYPE", 1)  # three markers do for three types
    np.testing.assert_array_equal(stage.choose_genes(profiles_of(means), np.ones(1501)), [10, 12, 14])
    monkeypatch.undo()
    kept = stage.choose_genes(profiles_of(means), np.ones(1501))  # too few: those that come nearest are added
    assert len(kept) == stage.PANEL and {10, 11, 12, 14} <= set(kept)


def test_one_type_keeps_all_genes():
    assert len(stage.choose_genes(profiles_of(np.full((1, 2000), 1e-6)), np.ones(2000))) == 2000


# Platform effect


@pytest.mark.parametrize("log2_sd", [0.0, 0.5, 1.5])
def test_a_planted_platform_effect_is_recovered(log2_sd):
    means, spots, gamma, _ = planted(log2_sd, depth=30_000)
    known = fit(means, spots)
    assert abs(known.platform_log2_sd - gamma.std() / np.log(2)) < 0.06  # shot noise alone: 0.04
    if log2_sd:
        seen = spots.sum(axis=0) > 20
        found = np.log(known.gene_factors)[seen[known.kept_genes]]
        assert np.corrcoef(found, gamma[seen])[0, 1] > 0.97


def test_platform_sd_is_the_unweighted_sd_over_genes_with_more_than_20_counts():
    means, spots, _, _ = planted(0.8, n_types=1, depth=200)
    known = fit(means, spots)
    totals = spots.sum(axis=0)
    kept = known.kept_genes
    # with one type the pooled fit is known: w = counts over the sum of its profile
    mu = totals[kept].sum() * means[0, kept] / means[0, kept].sum()
    gamma = np.log((totals[kept] + 0.5) / (mu + 0.5))
    some = totals[kept] > 20
    assert 50 < some.sum() < len(kept)
    assert abs(known.platform_log2_sd - gamma[some].std() / np.log(2)) < 1e-9
    profiles = means[:, kept] * np.exp(gamma)
    np.testing.assert_allclose(known.profiles, profiles / profiles.sum(), rtol=1e-9)


@pytest.mark.parametrize("platform", ["none", "pooled", "joint"])
def test_abundances_sum_to_about_one(workers, platform):
    means, spots, _, truth = planted(0.4)
    known = fit(means, spots, platform)
    assert known.platform == platform
    counts = counts_of(spots[:, known.kept_genes])
    if platform == "joint":
        places, sections = square(6, 10), np.zeros(60, np.int32)
        keys = graph.spot_keys(places, counts.totals, 0)
        known = passes.fit_platform(Whole(counts, workers), known, places, sections, keys, workers)
    problem = solve_types.pose(counts, known, "poisson")
    v = solve_types.start_evenly(problem)
    solve_types.solve_alone(problem, v, graph.no_neighbours(60), 0.0, workers)
    assert abs(v.sum(axis=1).mean() - 1) < 0.05
    np.testing.assert_allclose(v @ known.profiles.sum(axis=1), 1.0, atol=2e-3)
    assert np.abs(v / v.sum(axis=1, keepdims=True) - truth).mean() < 0.05


def test_scale_is_one_number_for_all_types():
    """Profiles keep their ratios between types gene by gene, floor taken off: rows are not rescaled."""
    means, spots, _, _ = planted(0.5)
    known = fit(means, spots)
    kept = known.kept_genes
    bare = (known.profiles - 0.01 / 0.99 * known.profiles.mean(axis=0) * 0.99) / 0.99
    np.testing.assert_allclose(bare, means[:, kept] * known.gene_factors, rtol=1e-9)


def test_the_floor_lifts_a_gene_that_a_type_lacks():
    means, spots, _, _ = planted(0.3)
    means[2, :50] = 0
    known = fit(means, spots)
    bare = means[:, known.kept_genes] * known.gene_factors
    np.testing.assert_allclose(known.profiles, 0.99 * bare + 0.01 * bare.mean(axis=0), rtol=1e-12)
    assert (known.profiles > 0).all()


def test_platform_none_leaves_the_genes_alone():
    means, spots, _, _ = planted(0.8)
    known = fit(means, spots, "none")
    assert np.ptp(known.gene_factors) == 0 and known.platform == "none"
    assert known.platform_log2_sd > 0.5  # still told


@pytest.mark.parametrize(
    ("log2_sd", "n_types", "asked", "given"),
    [(1.6, 5, "auto", "joint"), (1.6, 45, "auto", "pooled"), (0.4, 5, "auto", "pooled"), (0.4, 5, "joint", "joint"),
     (1.6, 5, "pooled", "pooled")],
)  # fmt: skip
def test_a_joint_fit_needs_a_strong_effect_and_ten_genes_a_type(log2_sd, n_types, asked, given):
    means, spots, _, _ = planted(log2_sd, n_types=n_types)
    known = fit(means, spots, asked)
    assert (known.platform_log2_sd >= 1) == (log2_sd > 1)
    assert known.platform == given


def test_a_joint_fit_beats_the_pooled_one_under_a_strong_effect(workers):
    means, spots, gamma, truth = planted(1.8, n_spots=300, depth=1500)
    known = fit(means, spots)
    counts = counts_of(spots[:, known.kept_genes])
    places, sections = square(15, 20), np.zeros(300, np.int32)
    keys = graph.spot_keys(places, counts.totals, 0)
    joint = passes.fit_platform(Whole(counts, workers), known, places, sections, keys, workers)

    def miss(reference):
        left = np.log(reference.gene_factors) - gamma[reference.kept_genes]
        return left.std()

    assert miss(joint) < 0.8 * miss(known)
    # gene factors and profiles moved together: the ratios between types stay
    np.testing.assert_allclose(
        joint.profiles / joint.gene_factors, known.profiles / known.gene_factors, rtol=1e-9
    )


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_threads_change_no_bit_of_the_pooled_fit(n_jobs):
    """60 types, 20,000 genes (each in one type: the fit is quick), where BLAS would use threads of its own."""
    rng = np.random.default_rng(0)
    means, totals = rng.random((60, 20_000)), rng.poisson(50.0, 20_000).astype(float)
    means *= rng.integers(0, 60, 20_000) == np.arange(60)[:, None]
    found = []
    for n in (1, n_jobs):
        with hold_workers(n):
            found.append(stage.fit_reference(profiles_of(means), np.arange(20_000), totals, "pooled"))
    np.testing.assert_array_equal(found[1].gene_factors, found[0].gene_factors)
    np.testing.assert_array_equal(found[1].profiles, found[0].profiles)


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_threads_change_no_bit_of_the_expected_genes(n_jobs):
    """As many spots as a slide of bins has."""
    rng = np.random.default_rng(0)
    n_spots, n_types = 200_000, 20
    counts = replace(counts_of(np.zeros((1, 5))), totals=rng.poisson(300, n_spots).astype(np.float32))
    abundances = (rng.random((n_spots, n_types)) ** 5).astype(np.float32)
    known = fit(rng.random((n_types, 5)), np.ones((1, 5)))
    found = []
    for n in (1, n_jobs):
        with hold_workers(n) as workers:
            found.append(stage.expect_genes(known, counts, abundances, workers))
    np.testing.assert_array_equal(found[1], found[0])


def test_one_round_of_the_joint_fit():
    known = fit(*planted(0.5)[:2])
    n = len(known.kept_genes)
    seen, expected = np.arange(n, dtype=float), np.full(n, 7.0)
    moved = stage.follow_blocks(known, seen, expected)
    step = (seen + 0.5) / 7.5
    np.testing.assert_allclose(moved.profiles, known.profiles * step)
    np.testing.assert_allclose(moved.gene_factors, known.gene_factors * step)


# Gene weights


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gene_weights_come_from_the_dispersion(workers, dtype):
    means, spots, _, truth = planted(0.3, n_genes=60)
    rng = np.random.default_rng(1)
    spots[:, :15] = rng.poisson(spots[:, :15] * rng.gamma(0.5, 2.0, (60, 15)))  # overdispersed genes
    known = fit(means, spots)
    dense = spots[:, known.kept_genes]
    abundances = (0.9 * truth + 0.02).astype(dtype)
    found = stage.weigh_genes(known, counts_of(dense, dtype), abundances, workers)
    tissue = Tissue(dense, known.profiles, known.gene_weights, truth, np.zeros((0, 0)))
    phi = naive.dispersion(tissue, abundances.astype(float))
    check("gene weights", found.gene_weights, 1 / np.sqrt(np.maximum(phi, 1)), dtype)
    assert (found.gene_weights[:15] < 0.8).mean() > 0.7 and found.gene_weights.max() == 1.0
    np.testing.assert_array_equal(found.profiles, known.profiles)


@pytest.mark.parametrize(("log2_sd", "loss", "weighted"), [(0.3, "poisson", True), (1.6, "poisson", False),
                                                           (0.3, "gaussian", False)])  # fmt: skip
def test_genes_are_weighed_under_a_weak_platform_effect_only(workers, log2_sd, loss, weighted):
    means, spots, _, _ = planted(log2_sd, n_genes=100)
    rng = np.random.default_rng(1)
    spots[:, :30] = rng.poisson(spots[:, :30] * rng.gamma(0.5, 2.0, (60, 30)))
    known = fit(means, spots)
    counts = counts_of(spots[:, known.kept_genes])
    pieces = Whole(counts, workers)
    found, v = passes.first_fit(pieces, known, loss, 1.0, np.arange(60, dtype=np.uint64), workers)
    assert (found.gene_weights < 1).any() == weighted
    np.testing.assert_array_equal(pieces.problem.gene_weights, found.gene_weights)
    np.testing.assert_allclose(pieces.problem.profile_sums, found.profiles @ found.gene_weights)
    assert np.isfinite(v).all() and (v >= 0).all()


def test_candidates_are_the_genes_kept_in_the_usual_case():
    rng = np.random.default_rng(0)
    means = rng.dirichlet(np.full(3000, 0.3), 4)
    reference_totals = np.where(rng.random(3000) < 0.9, 5.0, 0.0)
    profiles = profiles_of(means, reference_totals)
    candidates = stage.choose_candidates(profiles)
    assert len(candidates) < 3000 and (reference_totals[candidates] > 0).all()
    np.testing.assert_array_equal(stage.choose_genes(profiles, np.ones(3000)), candidates)
    spots = np.where(rng.random(3000) < 0.9, 2.0, 0.0)  # a whole transcriptome still: markers without counts go
    np.testing.assert_array_equal(stage.choose_genes(profiles, spots), candidates[spots[candidates] > 0])


def test_many_spots_are_weighed_by_some_of_them(workers, monkeypatch):
    """Chosen by their keys, whatever the order of the spots."""
    means, spots, _, _ = planted(0.3, n_genes=60)
    rng = np.random.default_rng(1)
    spots[:, :15] = rng.poisson(spots[:, :15] * rng.gamma(0.5, 2.0, (60, 15)))
    known = fit(means, spots)
    dense, keys = spots[:, known.kept_genes], rng.permutation(60).astype(np.uint64)
    every = passes.first_fit(Whole(counts_of(dense), workers), known, "poisson", 1.0, keys, workers)[0]
    monkeypatch.setattr(passes, "WEIGHED_SPOTS", 20)
    some, v = passes.first_fit(Whole(counts_of(dense), workers), known, "poisson", 1.0, keys, workers)
    rows = keys < 20
    solved, posed = v[rows], solve_types.pose(counts_of(dense[rows]), known, "poisson")
    solve_types.solve_alone(posed, solved, graph.no_neighbours(20), 1.0, workers, False, passes.ROUGH)
    weighed = stage.weigh_genes(known, counts_of(dense[rows]), solved, workers)
    np.testing.assert_array_equal(some.gene_weights, weighed.gene_weights)
    assert (some.gene_weights != every.gene_weights).any()
    order = rng.permutation(60)
    again = passes.first_fit(Whole(counts_of(dense[order]), workers), known, "poisson", 1.0, keys[order], workers)[0]
    np.testing.assert_allclose(again.gene_weights, some.gene_weights, rtol=1e-9)


def test_strengths_of_least_squares_are_in_counts(workers):
    """Twice as deep: the same strength in counts weighs half as much against the fit."""
    means, spots, _, _ = planted(0.3, n_genes=100)
    known = fit(means, spots)
    counts = counts_of(spots[:, known.kept_genes])
    double = replace(counts, data=2 * counts.data, totals=2 * counts.totals)
    one, two = (solve_types.pose(c, known, "gaussian") for c in (counts, double))
    np.testing.assert_allclose(two.unit, one.unit / 2)
    np.testing.assert_allclose(one.unit, np.trace(one.gram) / 5 / np.median(counts.totals))
    logs = np.log1p(1e4 * known.profiles / known.profiles.sum(axis=1, keepdims=True))
    expression = np.log1p(1e4 * spots[:, known.kept_genes] / counts.totals[:, None])
    np.testing.assert_allclose(one.gram, logs @ logs.T)
    np.testing.assert_allclose(one.products, expression @ logs.T)


# Proportions


def test_proportions_are_shares_of_cells_or_of_mrna():
    v = np.array([[1.0, 1.0], [0.3, 0.0], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(aggregate.to_proportions(v, None), [[0.5, 0.5], [1, 0], [np.nan] * 2])
    content = np.array([1.5, 0.5])
    np.testing.assert_allclose(aggregate.to_proportions(v, content), [[0.25, 0.75], [1, 0], [np.nan] * 2])
    assert aggregate.to_proportions(v, content).dtype == np.float64


@pytest.mark.parametrize("n", [0, 5, 3000])
def test_lowest_keys_are_the_first_in_order(n):
    keys = np.random.default_rng(n).integers(0, 200, n).astype(np.uint64)  # with ties: in the order of the rows
    order = order_by_key(keys)
    for most in (1, 3, 1024, 2999):
        np.testing.assert_array_equal(lowest_keys(keys, most), np.sort(order[:most]))
    np.testing.assert_array_equal(np.array(list(in_key_order(keys)), dtype=int), order)


def test_rows_go_back_to_their_places():
    out = aggregate.lay_out(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 3]), 5)
    np.testing.assert_array_equal(out[[1, 3]], [[1, 2], [3, 4]])
    assert np.isnan(out[[0, 2, 4]]).all()


@pytest.mark.parametrize("content", [None, np.array([1.6, 0.8, 0.6])])
def test_cells_of_a_type_sum_to_its_proportion(content):
    rng = np.random.default_rng(0)
    types = np.array([0, 0, 1, 1, 1, 2])
    dense = rng.random((4, 6)) * (rng.random((4, 6)) < 0.7)
    dense[2] = 0
    rows = np.array([0, 2, 3, 6])
    weights = sparse.csr_matrix(dense.astype(np.float32))
    found = aggregate.lay_out_cells(weights, types, rows, 7, content)
    by_type = np.stack([dense[:, types == k].sum(axis=1) for k in range(3)], axis=1)
    expected = aggregate.lay_out(aggregate.to_proportions(by_type, content), rows, 7)
    sums = np.stack([found.toarray()[:, types == k].sum(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(sums, np.nan_to_num(expected), atol=1e-6)
    assert found.shape == (7, 6) and found.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(found.getnnz(axis=1)), [0, 2, 6])  # spot 3 has no abundance
