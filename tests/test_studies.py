"""Disturbed input and how the answer follows it."""

from __future__ import annotations

import re

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import stdeconv_fast as sd
from stdeconv_fast.studies.disturbances import KINDS, disturb, keys_by_content

matplotlib.use("Agg")
KEY = "celltype"  # of the pair; methods find it as "cell_type"


@pytest.fixture(scope="module")
def pair():
    """Spots, with the truth in obsm, and cells: 80 spots, 60 genes, 4 types."""
    tissue = sd.simulate(n_spots=80, n_genes=60, n_types=4, seed=3)
    spots, cells = tissue.to_anndata()
    spots.obsm["truth"] = tissue.truth
    return spots, cells


def permuted(adata, seed):
    rng = np.random.default_rng(seed)
    return adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()


@pytest.mark.parametrize("kind", KINDS)
def test_draws_hang_on_content_alone(pair, kind):
    spots, cells = (table.copy() for table in pair)
    st, sc = disturb(spots, cells, KEY, kind=kind, level=0.5, repeat=1, seed=2)
    for one, other in zip(pair, (spots, cells), strict=True):  # the caller's own stays as it was
        assert (one.X != other.X).nnz == 0 and one.obs.equals(other.obs)
    again = disturb(permuted(spots, 0), permuted(cells, 1), KEY, kind=kind, level=0.5, repeat=1, seed=2)
    for one, other in zip((st, sc), again, strict=True):
        assert set(one.obs_names) == set(other.obs_names) and set(one.var_names) == set(other.var_names)
        other = other[one.obs_names, one.var_names]
        np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    assert sc.obs[KEY].astype(str).equals(again[1].obs.loc[sc.obs_names, KEY].astype(str))
    third = disturb(spots, cells, KEY, kind=kind, level=0.5, repeat=2, seed=2)
    if kind != "type_drop":  # of four types
        same = [
            one.shape == other.shape and (one.X != other.X).nnz == 0 and one.obs.equals(other.obs)
            for one, other in zip((st, sc), third, strict=True)
        ]
        assert not all(same)


def test_each_kind_does_what_it_says(pair):
    spots, cells = pair
    sizes = cells.obs[KEY].value_counts()
    make = {kind: disturb(spots, cells, KEY, kind=kind, level=0.5) for kind in KINDS}
    noisy = make["noise"][1].X - cells.X
    assert noisy.min() >= 0 and noisy.nnz and (noisy.data == np.rint(noisy.data)).all()
    size = np.asarray(noisy.mean(axis=0)).ravel() / cells.X.toarray().std(axis=0)
    assert abs(size.mean() / (0.5 * np.sqrt(2 / np.pi)) - 1) < 0.03  # mean |z|: rounding at random keeps it
    assert make["gene_drop"][0].n_vars == 30 and make["gene_drop"][1] is cells
    assert (make["cell_drop"][1].obs[KEY].value_counts() == sizes - sizes // 2).all()
    thin = make["depth"][0].X
    assert ((spots.X - thin).data >= 0).all()
    assert abs(thin.sum() / spots.X.sum() - 0.5) < 0.01
    moved = make["label_noise"][1].obs[KEY].astype(str) != cells.obs[KEY].astype(str)
    assert (moved.groupby(cells.obs[KEY], observed=True).sum() == sizes // 2).all()
    assert make["type_drop"][1].obs[KEY].nunique() == 2


@pytest.mark.parametrize("kind", ["gene_drop", "cell_drop", "type_drop"])
def test_what_is_lost_stays_lost_at_higher_levels(pair, kind):
    st, sc = disturb(*pair, KEY, kind=kind, level=0.3)
    worse = disturb(*pair, KEY, kind=kind, level=0.8)
    assert set(worse[0].var_names) <= set(st.var_names) and set(worse[1].obs_names) <= set(sc.obs_names)
    assert worse[0].shape < st.shape or worse[1].shape < sc.shape


def test_one_cell_and_one_type_stay(pair):
    assert disturb(*pair, KEY, kind="type_drop", level=0.99)[1].obs[KEY].nunique() == 1
    assert (disturb(*pair, KEY, kind="cell_drop", level=0.999)[1].obs[KEY].value_counts() == 1).all()


def test_rows_and_columns_of_equal_content_have_keys_of_their_own():
    rows, columns = keys_by_content(sp.csr_matrix(np.array([[1, 2, 2], [1, 2, 2], [0, 0, 0]])), 0)
    assert len(set(rows)) == 3 and len(set(columns)) == 3


def test_robustness_is_a_tidy_table(pair):
    truth = pair[0].obsm["truth"]

    def average(spots, cells):
        types = cells.obs["cell_type"].cat.categories
        return pd.DataFrame(1 / len(types), index=spots.obs_names, columns=types)

    def fails(spots, cells):
        raise sd.DataError("`spots` must please me; got others.")

    settings = {"kind": "depth", "levels": [0.5, 0, 0.9], "repeats": 2, "cell_types": KEY, "truth": truth}
    frame = sd.robustness(*pair, methods={"even": average, "fails": fails}, **settings, n_jobs=1)
    assert list(frame.columns) == [
        "kind", "level", "repeat", "method", "against", "pearson", "rmse", "jsd", "auprc", "n_spots", "seconds",
        "note",
    ]  # fmt: skip
    assert set(frame["against"]) == {"truth"}
    assert len(frame) == 3 * 2 * 3 and list(frame["level"].unique()) == [0.5, 0, 0.9]
    ours = frame[frame["method"] == "stdeconv_fast"].set_index(["level", "repeat"])
    plain = sd.deconvolve(*pair, None, KEY, progress=False)
    assert ours.loc[(0, 0), "pearson"] == sd.evaluate(plain.proportions, truth)["pearson"]
    assert ours.loc[(0, 0)].equals(ours.loc[(0, 1)])
    assert ours.loc[(0.5, 0), "rmse"] != ours.loc[(0.5, 1), "rmse"]
    assert ours.loc[0.9, "pearson"].max() < ours.loc[(0, 0), "pearson"]
    even = frame[frame["method"] == "even"]
    assert even["pearson"].isna().all() and even["rmse"].nunique() == 1 and (even["note"] == "").all()
    failed = frame[frame["method"] == "fails"]
    assert failed["rmse"].isna().all() and failed["note"].str.contains("must please me").all()
    again = sd.robustness(permuted(pair[0], 5), permuted(pair[1], 6), **settings, jobs=2, n_jobs=1)
    np.testing.assert_allclose(again["rmse"], ours["rmse"], atol=1e-5)


def test_without_a_truth_the_answer_is_compared_with_itself(pair):
    frame = sd.robustness(*pair, cell_types=KEY, kind="type_drop", levels=[0.0, 0.5], repeats=1)
    assert set(frame["against"]) == {"undisturbed"}
    assert frame["rmse"].iloc[0] == 0 and frame["rmse"].iloc[1] > 0
    alone = sd.robustness(*pair, cell_types=KEY, kind="type_drop", levels=[0.5], repeats=1)
    assert alone["rmse"].iloc[0] == frame["rmse"].iloc[1]


def test_small_whole_numbers_do_not_overflow(pair):
    spots, cells = pair
    narrow = cells.copy()
    narrow.X = narrow.X.minimum(255).astype(np.uint8)
    wide = narrow.copy()
    wide.X = wide.X.astype(np.int64)
    one, other = (disturb(spots, table, KEY, kind="noise", level=0.9)[1].X for table in (narrow, wide))
    assert (one != other).nnz == 0 and one.max() > 255


def test_a_built_reference_needs_its_cells(pair):
    settings = {"kind": "depth", "levels": [0.5], "repeats": 1}
    raw = sd.robustness(*pair, cell_types=KEY, **settings)
    built = sd.robustness(pair[0], sd.build_reference(pair[1], KEY), **settings)
    assert built["rmse"][0] == raw["rmse"][0]
    with pytest.raises(sd.DataError, match="must hold the counts of its cells"):
        sd.robustness(pair[0], sd.build_reference(pair[1], KEY, keep_cells=False), **settings)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "rain"}, "`kind` must be one of noise, gene_drop, .*; got 'rain'"),
        ({"levels": [0, 1]}, r"`levels` must be different numbers from 0 to below 1; got \[0, 1\]"),
        ({"levels": []}, "`levels` must be"),
        ({"levels": [0.1, 0.1]}, "`levels` must be"),
        ({"levels": "0.1"}, "`levels` must be"),
        ({"repeats": 0}, "`repeats` must be a whole number >= 1; got 0"),
        ({"truth": np.ones((2, 2))}, "`truth` must be a DataFrame, spots x types, or None; got ndarray"),
        ({"methods": {"a": 1}}, "`methods` must map names to callables"),
        ({"methods": {"stdeconv_fast": print}}, "`methods` must have other names than 'stdeconv_fast'"),
        ({"jobs": 0}, "`jobs` must be a whole number other than 0, or None; got 0"),
        ({"cell_types": "types"}, "must have the column 'types'"),
    ],
)
def test_robustness_refuses(pair, changes, match):
    with pytest.raises(sd.DataError, match=match):
        sd.robustness(*pair, **{"cell_types": KEY, "kind": "noise", **changes})


def test_robustness_names_all_faults(pair):
    with pytest.raises(sd.DataError, match="2 faults in the study"):
        sd.robustness(*pair, cell_types=KEY, kind="rain", repeats=0)


def test_disturb_refuses(pair):
    with pytest.raises(sd.DataError, match="`kind` must be one of"):
        disturb(*pair, KEY, kind="rain", level=0.5)
    with pytest.raises(sd.DataError, match="`level` must be at least 0 and below 1; got 1"):
        disturb(*pair, KEY, kind="noise", level=1)


def test_plot_of_robustness():
    frame = pd.DataFrame(
        {"kind": "noise", "level": [0, 0, 0.5, 0.5] * 2, "method": ["a"] * 4 + ["b"] * 4,
         "pearson": [1, 1, 0.5, 0.7, 0.9, 0.9, 0.2, np.nan]}
    )  # fmt: skip
    ax = sd.pl.robustness(frame)
    lines = ax.get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in lines], [[1, 0.6], [0.9, 0.2]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.get_xlabel() == "noise, standard deviations of a gene" and len(ax.collections) == 1
    assert ax.get_ylabel() == "Pearson"
    for against, words in (("truth", "Pearson\nagainst the truth"), ("undisturbed", "against the undisturbed answer")):
        assert sd.pl.robustness(frame.assign(against=against)).get_ylabel().endswith(words)
    assert sd.pl.robustness(frame.assign(rmse=1.0), metric="rmse", ax=ax, band=False) is ax
    matplotlib.pyplot.close(ax.figure)
    for bad, match in (
        (frame.drop(columns="level"), "`frame` must have the columns 'level'"),
        (frame.assign(kind=["x", "y"] * 4), re.escape("`frame` must hold the rows of one kind; got 'x', 'y'")),
        (frame[:0], "got no rows"),
        ({}, "must be a DataFrame"),
    ):
        with pytest.raises(sd.DataError, match=match):
            sd.pl.robustness(bad)


def test_every_kind_has_words_on_its_axis():
    from stdeconv_fast.studies.plots import LEVELS

    assert set(LEVELS) == set(KINDS)


def test_the_pair_keeps_all_genes():
    from stdeconv_fast.studies.sweeps import as_pair
    from tests.small_inputs import GENES, problem, read

    given = problem()
    inputs = read(spatial=given["spatial"].iloc[:, 5:], reference=given["reference"].iloc[:, ::-1])
    spots, cells = as_pair(inputs)
    assert isinstance(spots, ad.AnnData) and spots.n_vars == 15 and cells.n_vars == 20
    assert set(spots.var_names) == set(GENES[5:]) and set(GENES[5:]) < set(cells.var_names)
    assert list(cells.obs["cell_type"]) == list(given["cell_types"])


def test_a_truth_of_other_spots_or_types_is_told_before_the_work():
    tissue = sd.simulate(60, 80, 3, seed=1)
    given = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)
    other = tissue.truth.set_axis([f"bead{i}" for i in range(60)], axis=0)
    with pytest.raises(sd.DataError, match="`truth` must have rows named like the spots; got none of 60"):
        sd.robustness(*given, kind="noise", levels=[0.0], truth=other)
    named = tissue.truth.add_prefix("other ")
    with pytest.raises(sd.DataError, match="`truth` must have columns named like the types"):
        sd.robustness(*given, kind="noise", levels=[0.0], truth=named)
