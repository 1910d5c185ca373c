"""Types that the reference lacks, and types that are not there: are they found, and is nothing else?"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from benchmarks.missing_types import measure_auroc
from stdeconv_fast import DataError, deconvolve, evaluate
from stdeconv_fast.errors import DataWarning
from stdeconv_fast.procedures import missing, uncertainty
from stdeconv_fast.tissue import simulate

QUIET = {"progress": False, "n_jobs": 1}


@cache
def tissue():
    return simulate(300, 200, 5, kind="gradients", platform_sd=0.3, counts_per_spot=1500, seed=3)


def run(**settings):
    t = tissue()
    return deconvolve(t.spots, t.reference, t.coordinates, t.cell_types, **QUIET, **settings)


@cache
def whole():
    return run()  # a warning would be an error here


@cache
def without(left_out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return run(exclude_types=[left_out])


def test_a_whole_reference_is_trusted():
    fit = whole().fit
    assert fit.columns.tolist() == ["deviance", "misfit", "q_value"] and fit.notna().all(axis=None)
    assert (fit["q_value"] < 0.05).mean() < 0.01
    assert not any("missing" in note for note in whole().diagnostics["notes"])


@pytest.mark.parametrize("left_out", ["type2", "type4"])  # measured: 0.94, 0.90; held by 43 % and 84 % of the spots
def test_spots_that_hold_a_missing_type_are_found(left_out):
    holds = (tissue().truth_mrna[left_out] > 0.05).to_numpy()
    misfit = without(left_out).fit["misfit"].to_numpy()
    assert measure_auroc(misfit, holds) > 0.8
    flagged = (without(left_out).fit["q_value"] < 0.05).to_numpy()
    assert flagged.sum() >= 10 and holds[flagged].mean() > 0.95


def test_its_genes_lead_the_ranks():
    t, table = tissue(), without("type2").gene_fit
    markers = np.argsort(t.profiles[2] / np.delete(t.profiles, 2, axis=0).max(axis=0))[-15:]
    first = table.nsmallest(8, "rank")
    assert len({f"gene_{gene}" for gene in markers} & set(first.index)) >= 4
    assert (first["unexplained"].iloc[:3] > 0.5).all()


def test_a_missing_type_is_told_in_plain_words():
    with pytest.warns(DataWarning, match="a cell type may be missing from the reference"):
        result = run(exclude_types=["type2"])
    assert sum("of the counts are beyond what its types account for" in n for n in result.diagnostics["notes"]) == 1


@pytest.mark.parametrize("left_out", ["type2", "type4"])
def test_the_unknown_type_is_the_one_left_out(left_out):
    result = run(exclude_types=[left_out], unknown=True)
    t, found = tissue(), result.proportions
    assert found.columns[-1] == "unknown" and found.shape == (300, 5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.corrcoef(found["unknown"], t.truth[left_out])[0, 1] > 0.8  # measured: 0.99, 0.87
    truth = t.truth.rename(columns={left_out: "unknown"})[found.columns].set_axis(found.index)
    blind = without(left_out).proportions.assign(unknown=0.0)
    assert evaluate(found, truth)["rmse"] < 0.85 * evaluate(blind, truth)["rmse"]


def test_an_unknown_type_is_wanted_by_no_one_else():
    with pytest.raises(DataError, match="reference must have no type of the name 'unknown'"):
        t = tissue()
        deconvolve(
            t.spots, t.reference, t.coordinates, np.where(t.cell_types == "type1", "unknown", t.cell_types),
            unknown=True, **QUIET,
        )  # fmt: skip
    np.testing.assert_array_equal(run(unknown=False).proportions, whole().proportions)


# -- presence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_spatial", [0.0, 1.0])
def test_types_that_are_not_there_are_seldom_called(lambda_spatial):
    t = simulate(
        300, 300, 6, kind="none", platform_sd=0, mrna_sd=0, counts_per_spot=1000, cells_per_type=1000, seed=2
    )
    result = deconvolve(
        t.spots, t.reference, t.coordinates, t.cell_types, detection=True, lambda_spatial=lambda_spatial, **QUIET
    )
    q, truth = result.q_values.to_numpy(), t.truth_mrna.to_numpy()
    called = q < 0.05
    assert (truth == 0).mean() > 0.3 and called[truth > 0.2].mean() > 0.9
    assert (called & (truth == 0)).sum() <= 0.05 * called.sum()
    assert (q[result.proportions.to_numpy() == 0] == 1).all() and (q >= 0).all() and (q <= 1).all()
    assert run().q_values is None


def test_without_any_type_a_null_is_a_null():
    """Statistics of absent types alone: half 0, half chi-square. Hardly ever is one called."""
    rng = np.random.default_rng(0)
    calls = 0
    for _ in range(40):
        statistics = np.where(rng.random((50, 8)) < 0.5, 0.0, rng.chisquare(1, (50, 8)))
        calls += (uncertainty.to_q_values(statistics) < 0.05).any()
    assert calls <= 6  # 2 are expected


def test_q_values_of_benjamini_and_hochberg():
    p = np.array([0.04, 0.001, np.nan, 0.03, 1.0, 0.008])
    np.testing.assert_allclose(uncertainty.adjust(p), [0.05, 0.005, np.nan, 0.05, 1.0, 0.02])
    assert (uncertainty.to_q_values(np.array([[0.0, np.inf]])) == [[1.0, 0.0]]).all()


# -- the parts -------------------------------------------------------------------------------------------------------


def bare_of(rng, n_spots=80, n_genes=40, n_types=4):
    profiles = rng.gamma(0.5, 1, (n_types, n_genes)) + 0.01
    amounts = rng.dirichlet(np.ones(n_types), n_spots) * rng.uniform(200, 2000, n_spots)[:, None]
    amounts /= profiles.sum(axis=1)
    extra = np.outer(rng.random(n_spots) < 0.3, 60 * (rng.random(n_genes) < 0.15))
    counts = rng.poisson(amounts @ profiles + extra).astype(float)
    amounts *= (counts.sum(axis=1) / (amounts @ profiles).sum(axis=1))[:, None]
    return missing.Bare(csr_matrix(counts), amounts, profiles), extra


class Known:
    def __init__(self, profiles):
        self.profiles = profiles


def test_direction_is_the_leading_singular_vector(rng):
    bare, extra = bare_of(rng)
    direction = missing.find_direction(bare, Known(bare.profiles))
    counts, mean = bare.counts.toarray(), bare.amounts @ bare.profiles
    totals = mean.sum(axis=1)
    share = mean.sum(axis=0) / totals.sum()
    scale = 1 / np.sqrt(share * (1 + missing.MODEL_ERROR * np.median(totals) * share))
    leading = np.linalg.svd((counts - mean) * scale / np.sqrt(totals)[:, None])[2][0] * scale
    leading *= np.sign(leading @ direction.genes)
    np.testing.assert_allclose(direction.genes, leading, rtol=0, atol=1e-6 * np.abs(leading).max())
    assert measure_auroc((counts - mean) @ direction.genes / np.sqrt(totals), extra.any(axis=1)) > 0.95


def test_nothing_left_over_is_no_direction():
    profiles = np.array([[1.0, 0.0], [0.0, 1.0]])
    amounts = np.array([[3.0, 1.0], [2.0, 2.0]])
    direction = missing.find_direction(missing.Bare(csr_matrix(amounts), amounts, profiles), Known(profiles))
    assert (direction.genes == 0).all()


def test_misfits_against_spots_of_like_depth(rng):
    """A misfit that grows with depth is none; the excess of some spots is, and the others set the scale."""
    totals = rng.uniform(100, 5000, 2000)
    misfits = rng.normal(0, 3, 2000) + totals / 500
    held = rng.random(2000) < 0.05
    misfits[held] += 30
    misfits[7] = np.nan
    scores, q = missing.compare_with_like(misfits, totals)
    assert np.isnan(scores[7]) and np.isnan(q[7])
    held[7] = False
    assert (q[held] < 0.05).mean() > 0.95 and (q[~held] < 0.05).sum() <= 12
    assert 0.8 < np.nanstd(scores[~held]) < 1.2
    few, _ = missing.compare_with_like(np.array([0.1, -0.2, 0.3]), np.ones(3))
    np.testing.assert_allclose(few, [0, -0.3, 0.2], atol=1e-12)  # the scale is never below that of Poisson counts
    assert np.isnan(missing.compare_with_like(np.full(3, np.nan), np.ones(3))).all()


def test_notes_come_with_enough_spots_alone():
    genes, scores, none = np.array(["a", "b", "c"]), np.array([0.1, 3.0, 1.0]), np.zeros(0)
    misfit = missing.Misfit(none, none, scores, 0.5)
    totals = np.full(100, 200.0)
    assert missing.warn_of(misfit, genes, totals[: missing.FEWEST_SPOTS - 1]) is None
    assert missing.warn_of(misfit, genes, totals / 5) is None
    assert missing.warn_of(missing.Misfit(none, none, scores, missing.ALARM - 0.01), genes, totals) is None
    assert "50% of the counts" in missing.warn_of(misfit, genes, totals)
    assert "in b, c, a:" in missing.warn_of(misfit, genes, totals)
    assert missing.to_ranks(scores).tolist() == [3, 1, 2]


def test_order_of_spots_does_not_matter(rng):
    t, order = tissue(), rng.permutation(300)
    turned = deconvolve(t.spots[order], t.reference, t.coordinates[order], t.cell_types, **QUIET)
    expected = whole().fit.iloc[order].reset_index(drop=True)
    # a proportion off by 1e-5 is a tenth of a standard deviation at most
    pd.testing.assert_frame_equal(turned.fit.reset_index(drop=True), expected, atol=1e-2, rtol=1e-2)
