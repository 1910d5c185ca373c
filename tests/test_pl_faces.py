"""Pies, mixtures, attention, curves: what is drawn, from a real run and from tables made by hand."""

from __future__ import annotations

import warnings

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

import stdeconv_fast as sd
from stdeconv_fast import DataError, DataTypeError, pl
from stdeconv_fast.pl.blocks import pool

NAMES = ["A", "B", "C"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def done():
    """Sharp domains in two sections, run with attention kept; and the Result of the same run."""
    kind = {"kind": "domains", "n_domains": 3, "n_sections": 2, "seed": 3, "counts_per_spot": 400}
    spots, cells = sd.simulate(300, 100, 4, cells_per_type=20, as_anndata=True, **kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sd.DataWarning)
        sd.tl.deconvolve(
            spots, cells, cell_type_key="celltype", sample_key="section", store_attention=True, progress=False
        )
        result = sd.deconvolve(spots, cells, cell_types="celltype", sections="section", progress=False)
    return spots, result


@pytest.fixture
def table():
    """A 4 x 4 square; the left half holds A and B by halves, the right one C; one spot unknown."""
    x, y = np.divmod(np.arange(16), 4)
    left = (x < 2)[:, None]
    shares = pd.DataFrame(np.where(left, [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]), [f"s{i}" for i in range(16)], NAMES)
    shares.iloc[15] = np.nan
    return shares, np.column_stack([x, y]) * 10.0


def colours_of(collection):
    return [tuple(colour) for colour in collection.get_facecolor()]


def test_pies_have_a_wedge_a_type(table):
    shares, places = table
    ax = pl.pies(shares, coordinates=places)
    wedges, unknown = ax.collections
    blue, orange, green = (to_rgba(colour) for colour in pl.OKABE_ITO[:3])
    assert sorted(map(colours_of(wedges).count, (blue, orange, green))) == [7, 8, 8]
    assert colours_of(unknown) == [to_rgba(pl.UNKNOWN)]
    areas = [abs(_area(path.vertices)) for path in wedges.get_paths()]
    half, whole = (np.array(areas)[[colour in some for colour in colours_of(wedges)]] for some in ((blue,), (green,)))
    np.testing.assert_allclose(half, whole.mean() / 2, rtol=0.02)
    assert whole.mean() == pytest.approx(np.pi * 4.9**2, rel=0.02)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*NAMES, "no estimate"]
    grey = pl.pies(shares, coordinates=places, types="A", palette=["red"])
    assert to_rgba(pl.REST) in colours_of(grey.collections[0])


def _area(vertices):
    x, y = vertices.T
    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


def test_many_pies_are_pooled():
    x, y = np.divmod(np.arange(100), 10)
    shares = pd.DataFrame({"A": (x < 5) * 1.0, "B": (x >= 5) * 1.0})
    places = np.column_stack([x, y]) * 10.0
    ax = pl.pies(shares, coordinates=places, most=25)
    assert ax.get_title() == "composition; a pie is a block of up to 4 spots"
    paths = ax.collections[0].get_paths()
    assert len(paths) == 20 + 2 * 5  # five blocks hold both types
    middles = {tuple(np.floor((path.vertices.mean(axis=0) + 5) / 20).astype(int)) for path in paths}
    assert middles == {(i, j) for i in range(5) for j in range(5)}
    with pytest.raises(DataError, match="`most` must be a whole number >= 1; got 0"):
        pl.pies(shares, coordinates=places, most=0)


def test_blocks_are_means_of_their_spots():
    rng = np.random.default_rng(0)
    values, xy, codes = rng.random((40, 2)), rng.random((40, 2)) * 30, rng.integers(0, 2, 40)
    known = np.arange(40) % 7 > 0
    found = pool(values, known, xy, codes, 10.0, np.zeros(2))
    assert found.sizes.sum() == known.sum()
    frame = pd.DataFrame(values, columns=["a", "b"]).assign(x=xy[:, 0] // 10, y=xy[:, 1] // 10, section=codes)
    expected = frame[known].groupby(["section", "y", "x"])[["a", "b"]].mean()
    np.testing.assert_allclose(found.means[found.sizes > 0], expected)
    assert np.isnan(found.means[found.sizes == 0]).all()


def test_cooccurrence_is_measured_against_chance(table):
    shares, places = table
    ax = pl.cooccurrence(shares, types=NAMES, vmax=2)
    shown = ax.images[0].get_array()
    known = shares.dropna()
    chance = known["A"].mean() * known["B"].mean()
    assert shown[0, 1] == pytest.approx(np.log2((known["A"] * known["B"]).mean() / chance))
    assert shown.mask[0, 2] and shown.mask.diagonal().all()
    assert sorted(zip(*(line.tolist() for line in ax.get_lines()[0].get_data()), strict=True)) == [
        (0, 2), (1, 2), (2, 0), (2, 1),
    ]  # fmt: skip
    pooled = pl.cooccurrence(shares, types=NAMES, coordinates=places, block=100.0)  # all in one
    np.testing.assert_allclose(pooled.images[0].get_array().compressed(), 0, atol=1e-12)
    assert {text.get_text() for text in pl.cooccurrence(shares).get_xticklabels()} == set(NAMES)
    for bad, match in (({"types": "A"}, "two types"), ({"vmax": 0}, "`vmax`"), ({"block": -1.0}, "`block`")):
        with pytest.raises(DataError, match=match):
            pl.cooccurrence(shares, **bad)


def test_composition_of_regions(table):
    shares, _ = table
    regions = pd.Series(["left"] * 8 + ["right"] * 8, shares.index)
    ax = pl.composition(shares, regions)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["left  (8)", "right  (7)"]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(-1, 2).T
    np.testing.assert_allclose(widths[:, :3], [[0.5, 0.5, 0], [0, 0, 1]])
    assert pl.composition(shares).get_yticklabels()[0].get_text() == "all spots  (15)"
    with pytest.raises(DataTypeError, match="`regions` must be one label per spot"):
        pl.composition(shares, "cluster")


def edges_of(collection):
    return np.array(collection.get_segments())


def test_attention_shows_borders(done):
    spots, result = done
    ax = pl.attention(spots)
    edges, borders = ax.collections
    assert len(edges.get_segments()) == spots.obsp["stdeconv_attention"].nnz // 2
    assert 0 < len(borders.get_segments()) < len(edges.get_segments()) / 3
    by_result = pl.attention(result, coordinates=spots.obsm["spatial"], sections=spots.obs["section"])
    np.testing.assert_array_equal(by_result.collections[0].get_segments(), edges.get_segments())
    sums = pl.attention(spots, kind="spots").collections[-1].get_array()
    np.testing.assert_allclose(sums, np.asarray(spots.obsp["stdeconv_attention"].sum(axis=1)).ravel())
    # pieces of border lie between spots of other composition than other neighbours are
    weights = spots.obsp["stdeconv_attention"].tocoo()
    shares, places = spots.obsm["stdeconv"].to_numpy(), spots.obsm["spatial"]
    near = (weights.row < weights.col) & (np.hypot(*(places[weights.row] - places[weights.col]).T) < 1.1)
    middles = edges_of(ax.collections[0])[: weights.nnz // 2].mean(axis=1)
    pieces = {tuple(np.round(middle, 6)) for middle in edges_of(borders).mean(axis=1)}
    apart = np.abs(shares[weights.row] - shares[weights.col]).sum(axis=1)[weights.row < weights.col]
    cut = np.array([tuple(np.round(middle, 6)) in pieces for middle in middles])
    near = near[weights.row < weights.col]
    assert (near & cut).sum() == len(pieces) == len(borders.get_segments())
    assert apart[near & cut].mean() > 1.3 * apart[near & ~cut].mean()
    weight = weights.data[weights.row < weights.col]
    assert weight[near & cut].max() <= 0.5 * np.quantile(weight[near], 0.9) <= weight[near & ~cut].min() * 1.0001


def test_attention_that_was_not_kept_is_refused(done):
    spots, _ = done
    bare = spots.copy()
    del bare.obsp["stdeconv_attention"]
    with pytest.raises(DataError, match="none was kept. Pass store_attention=True"):
        pl.attention(bare)
    bare.uns["stdeconv_params"]["lambda_spatial"] = 0.0
    with pytest.raises(DataError, match="nothing was smoothed"):
        pl.attention(bare)
    with pytest.raises(DataError, match="`kind` must be one of edges, spots; got 'lines'"):
        pl.attention(spots, kind="lines")


def test_tuning_curve_of_a_run(done):
    spots, result = done
    ax = pl.tuning_curve(spots)
    path = result.strengths.path
    line, *_, ring = ax.get_lines()
    tried = sorted({row["lambda_spatial"] for row in path if row["graph"] == "place"})
    assert line.get_xdata().tolist() == tried and max(line.get_ydata().max(), ring.get_ydata()[0]) == 0
    assert ring.get_xdata()[0] == result.strengths.lambda_spatial
    np.testing.assert_array_equal(pl.tuning_curve(result).get_lines()[0].get_ydata(), line.get_ydata())
    phis = {text for note in ax.texts for text in note.get_text().removeprefix("phi ").split(", ")}
    assert phis == {f"{row['phi']:g}" for row in path if row["graph"] == "attention"}
    with pytest.raises(DataError, match="`x` must be None where `data` is a run"):
        pl.tuning_curve(spots, x="phi")
    plain = spots.copy()
    plain.uns["stdeconv_params"]["path"] = {}
    with pytest.raises(DataError, match="got one without tuning"):
        pl.tuning_curve(plain)


def test_tuning_curve_of_a_search():
    from stdeconv_fast.studies.search import Tuning

    rows = [(x, y, -(x**2) - y, "") for x in (0.0, 1.0, 2.0) for y in (0, 1)]
    tried = pd.DataFrame(rows, columns=["lambda_ridge", "k_neighbors", "score", "note"])
    tuning = Tuning(tried, {"lambda_ridge": 0.0, "k_neighbors": 0}, "held_out")
    ax = pl.tuning_curve(tuning)
    np.testing.assert_array_equal([line.get_ydata() for line in ax.get_lines()[:2]], [[0, -1, -4], [-1, -2, -5]])
    assert ax.get_lines()[2].get_xydata().tolist() == [[0, 0]] and ax.get_xlabel() == "lambda_ridge"
    assert pl.tuning_curve(tuning, x="k_neighbors").get_xlabel() == "k_neighbors"
    with pytest.raises(DataError, match="`x` must be a setting that was searched: lambda_ridge, k_neighbors; got 'p'"):
        pl.tuning_curve(tuning, x="p")


def test_fit_of_the_genes(done):
    spots, result = done
    ax = pl.fit(spots, n_labels=3)
    drawn = ax.collections[0]
    genes = result.gene_fit.sort_values("rank", ascending=False)
    np.testing.assert_allclose(drawn.get_offsets(), genes[["expected", "observed"]])
    np.testing.assert_allclose(drawn.get_array(), genes["unexplained"])
    assert {text.get_text() for text in ax.texts} == set(genes.index[-3:])
    bare = spots.copy()
    del bare.uns["stdeconv_genes"]
    with pytest.raises(DataError, match="must be a run with the Poisson loss"):
        pl.fit(bare)
    with pytest.raises(DataTypeError, match="`data` must be an AnnData or a Result; got dict"):
        pl.fit({})
    with pytest.raises(DataError, match="`key` must be one that stdeconv_fast.tl.deconvolve wrote; got 'other'"):
        pl.fit(spots, key="other")
