"""Standard errors and fit of whole runs: are the errors as large as they say, and does the fit see what is missing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from stdeconv_fast import AttentionRegressionDeconv, DataError
from stdeconv_fast.pipeline import deconvolve
from stdeconv_fast.tissue import simulate

QUIET = {"progress": False, "n_jobs": 1}
ALONE = {"abundance": "mrna", "lambda_spatial": 0.0, "lambda_ridge": 0.0, "standard_errors": True, **QUIET}


@cache
def tissue_of(counts, cells_per_type=400):
    return simulate(
        400, 300, 5, kind="none", platform_sd=0, mrna_sd=0, counts_per_spot=counts, cells_per_type=cells_per_type,
        seed=4,
    )  # fmt: skip


@cache
def alone(counts, cells_per_type=400):
    return run_on(tissue_of(counts, cells_per_type), **ALONE)


def run_on(tissue, **settings):
    frames = (tissue.spatial_frame(), tissue.reference_frame(), tissue.coordinate_frame(), tissue.label_series())
    return deconvolve(*frames, **{**QUIET, **settings})


def standardised(tissue, result, least=0.05):
    """(estimate - truth) / se of the types whose true share is above 0.05."""
    truth, errors = tissue.truth_mrna.to_numpy(), result.standard_errors.to_numpy()
    asked = (truth > least) & (errors > 0) & (result.proportions.to_numpy() > 0)
    assert asked.sum() > 0.9 * (truth > least).sum()
    return (result.proportions.to_numpy() - truth)[asked] / errors[asked]


@pytest.mark.parametrize("counts", [500, 2000, 8000])
def test_errors_are_as_large_as_they_say(counts):
    scores = standardised(tissue_of(counts), alone(counts))
    # measured: sd 0.98, 1.02, 1.08; the mean is -0.12 to -0.15, as types that are not there cannot be below 0
    assert 0.85 < scores.std() < 1.25 and abs(scores.mean()) < 0.3
    assert 0.91 < (np.abs(scores) < 2).mean() < 0.98  # measured: 0.96, 0.96, 0.93


def test_errors_of_shares_of_cells():
    """mRNA content differs between types: shares of cells have errors of their own."""
    tissue = simulate(400, 300, 5, kind="none", platform_sd=0, mrna_sd=0.5, counts_per_spot=2000, cells_per_type=400)
    scores = {}
    for abundance, truth in (("cells", tissue.truth), ("mrna", tissue.truth_mrna)):
        result = run_on(tissue, **{**ALONE, "abundance": abundance})
        errors, there = result.standard_errors.to_numpy(), truth.to_numpy() > 0.05
        there &= errors > 0
        scores[abundance] = ((result.proportions - truth.to_numpy()).to_numpy()[there] / errors[there]).std()
    assert all(0.85 < score < 1.25 for score in scores.values()), scores


def test_errors_fall_with_depth_as_its_root():
    shallow, deep = (alone(counts).standard_errors.to_numpy() for counts in (500, 8000))
    both = (shallow > 0) & (deep > 0) & (alone(500).proportions > 0).to_numpy()
    both &= tissue_of(500).truth_mrna.to_numpy() > 0.05
    assert np.median(shallow[both] / deep[both]) == pytest.approx(4, rel=0.1)


def test_errors_fall_with_smoothing():
    """In spots where the same types are above 0: what smoothing adds to these is more to be unsure of."""
    fixed = {**ALONE, "tune": False, "attention": False}
    runs = [run_on(tissue_of(500), **{**fixed, "lambda_spatial": strength}) for strength in (0.0, 1.0, 10.0)]
    for less, more, ratio in ((*runs[:2], 1.0), (*runs[1:], 0.9)):  # measured: 0.98, 0.76
        same = ((less.proportions > 0) == (more.proportions > 0)).all(axis=1)
        asked = ((less.standard_errors > 0) & (less.proportions > 0)).to_numpy() & same.to_numpy()[:, None]
        assert asked.sum() > 200
        assert np.median(more.standard_errors.to_numpy()[asked] / less.standard_errors.to_numpy()[asked]) < ratio


def test_where_there_are_errors():
    result = alone(500)
    assert result.standard_errors.notna().all(axis=None)
    assert (result.standard_errors[result.proportions == 0].min() > 0).all()  # just above the bound
    assert result.standard_errors.index.equals(result.proportions.index)
    assert result.standard_errors.columns.equals(result.proportions.columns)
    assert (result.proportions == 0).to_numpy().mean() > 0.05
    only = (result.proportions > 0).sum(axis=1) == 1
    assert (result.standard_errors.where(result.proportions > 0)[only].max(axis=1) == 0).all()
    assert run_on(tissue_of(500), n_iter=1).standard_errors is None


def test_with_the_cell_level_they_are_those_of_the_type_level():
    settings = {"standard_errors": True, "max_cells_per_type": 5}
    types, cells = (run_on(tissue_of(500), cell_level=level, **settings) for level in (False, True))
    assert (types.proportions - cells.proportions).abs().max(axis=None) > 1e-4
    np.testing.assert_array_equal(cells.standard_errors, types.standard_errors)
    np.testing.assert_array_equal(cells.fit, types.fit)


def test_least_squares_has_neither():
    tissue = tissue_of(500)
    asked = {"loss": "gaussian", "standard_errors": True}
    with pytest.raises(DataError, match="standard_errors needs the Poisson loss"):
        run_on(tissue, **asked)
    with pytest.raises(DataError, match="standard_errors needs the Poisson loss"):
        AttentionRegressionDeconv(tissue.reference, tissue.spots, tissue.coordinates, tissue.cell_types, **asked)
    result = run_on(tissue, loss="gaussian", n_iter=1)
    assert result.fit is None and result.gene_fit is None and result.standard_errors is None


@pytest.mark.parametrize("counts", [2000, 8000])
def test_deviance_of_a_model_that_holds(counts):
    """At high counts the deviance of a spot is about the number of genes: 1 a gene."""
    tissue, result = tissue_of(counts), alone(counts)
    assert result.fit.columns.tolist() == ["deviance", "misfit", "q_value"] and (result.fit["deviance"] > 0).all()
    a_gene = result.fit["deviance"].to_numpy() * np.asarray(tissue.spots.sum(axis=1)).ravel() / len(result.gene_fit)
    assert 0.9 < np.median(a_gene) < 1.1  # measured: 0.96 and 1.02
    assert 0.9 < result.gene_fit["dispersion"].median() < 1.1


@pytest.mark.parametrize(
    ("platform", "rise_there", "rise_elsewhere", "correlation"),
    [("none", 1.7, 1.05, 0.8), ("pooled", 1.1, 1.25, 0.4)],  # measured: 2.03, 1.00, 0.85; 1.22, 1.16, 0.56
)
def test_a_type_that_the_reference_lacks_is_seen(platform, rise_there, rise_elsewhere, correlation):
    """Plainly where gene effects are not estimated; else they take up a part of it, at the cost of all spots."""
    tissue, settings = tissue_of(2000), {**ALONE, "platform": platform}
    missing = tissue.types[2]
    whole, part = run_on(tissue, **settings), run_on(tissue, **settings, exclude_types=[missing])
    rise = (part.fit["deviance"] / whole.fit["deviance"]).to_numpy()
    share = tissue.truth_mrna[missing].to_numpy()
    assert np.median(rise[share > 0.3]) > rise_there and np.median(rise[share == 0]) < rise_elsewhere
    assert np.corrcoef(share, rise)[0, 1] > correlation
    # among the genes of the greatest dispersion are its markers: 4 or 5 of 10, where chance gives 0.5
    markers = np.argsort(tissue.profiles[2] / np.delete(tissue.profiles, 2, axis=0).max(axis=0))[-15:]
    worst = part.gene_fit["dispersion"].nlargest(10)
    assert len({tissue.genes[gene] for gene in markers} & set(worst.index)) >= 3
    assert worst.iloc[0] > 10 and whole.gene_fit["dispersion"].max() < 4
    assert 0.9 < part.gene_fit["dispersion"].median() < 1.1


def test_table_of_genes():
    tissue, result = tissue_of(2000), alone(2000)
    table = result.gene_fit
    assert table.columns.tolist() == ["observed", "expected", "dispersion", "unexplained", "rank"]
    assert sorted(table["rank"]) == list(range(1, len(table) + 1))
    assert table["unexplained"].idxmax() == table["rank"].idxmin()
    assert table.index.tolist() == result.genes.tolist()
    np.testing.assert_array_equal(table["observed"], tissue.spatial_frame()[table.index].sum())
    np.testing.assert_allclose(table["expected"].sum(), table["observed"].sum(), rtol=1e-3)
    assert np.corrcoef(table["expected"], table["observed"])[0, 1] > 0.999


def test_spots_about_which_nothing_can_be_said():
    tissue = tissue_of(500)
    spots = tissue.spatial_frame()
    spots.iloc[7] = 0
    result = deconvolve(
        spots, tissue.reference_frame(), tissue.coordinate_frame(), tissue.label_series(),
        standard_errors=True, n_iter=1, **QUIET,
    )  # fmt: skip
    assert result.status.iloc[7] == "no counts"
    assert (result.fit.isna().sum() == 1).all() and result.fit.iloc[7].isna().all()
    assert result.standard_errors.iloc[7].isna().all()
