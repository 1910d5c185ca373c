"""Maps: which axes, which colours, which places. No picture is compared by its pixels."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

from stdeconv_fast import DataError, pl

NAMES = ["A", "B", "C"]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    shares = pd.DataFrame(rng.dirichlet(np.ones(3), 30), [f"s{i}" for i in range(30)], NAMES)
    shares.iloc[[4, 7]] = np.nan
    return shares


@pytest.fixture
def places(table):
    x, y = np.divmod(np.arange(30), 6)
    return pd.DataFrame({"x": 100.0 * x, "y": 100.0 * y}, index=table.index)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def adata_of(table, places):
    obs = pd.DataFrame({"slide": pd.Categorical(np.repeat(["one", "two"], 15))}, index=table.index)
    return AnnData(np.zeros((30, 2)), obs=obs, obsm={"spatial": places.to_numpy(), "stdeconv": table})


def values(ax):
    return ax.collections[-1].get_array()


def test_one_map_a_type_on_one_scale(table, places, tmp_path):
    axes = pl.proportions(table, coordinates=places)
    assert axes[0].figure.number in plt.get_fignums()  # so that a notebook shows it
    assert [ax.get_title() for ax in axes] == NAMES
    assert {ax.collections[-1].get_clim() for ax in axes} == {(0.0, table.max(axis=None))}
    for ax, name in zip(axes, NAMES, strict=True):
        np.testing.assert_array_equal(values(ax), table[name].dropna())
        assert ax.get_aspect() == 1 and not ax.yaxis_inverted()
    axes[0].figure.savefig(tmp_path / "map.png")
    axes[0].figure.savefig(tmp_path / "map.pdf")
    assert len(axes[0].figure.axes) == 4  # three maps and one colour bar


def test_spots_without_estimate_are_grey(table, places):
    ax = pl.proportions(table, coordinates=places, types="A")[0]
    grey, coloured = ax.collections
    np.testing.assert_array_equal(grey.get_offsets(), places.iloc[[4, 7]])
    np.testing.assert_allclose(grey.get_facecolor(), [to_rgba(pl.UNKNOWN)])
    assert len(coloured.get_offsets()) == 28
    ax = pl.proportions(table * np.nan, coordinates=places, types="A")[0]
    assert len(ax.collections[0].get_offsets()) == 30


def test_spots_nearly_touch(table, places):
    ax = pl.proportions(table, coordinates=places)[0]
    np.testing.assert_allclose(ax.collections[-1]._widths * 2, 98)
    ax = pl.proportions(table, coordinates=places, size=40)[0]
    np.testing.assert_allclose(ax.collections[-1]._widths * 2, 40)


def test_anndata_looks_like_its_image(table, places):
    adata = adata_of(table, places)
    assert all(ax.yaxis_inverted() for ax in pl.proportions(adata))
    assert not pl.proportions(adata, invert_y=False)[0].yaxis_inverted()
    assert pl.dominant(adata).yaxis_inverted()


def test_axes_of_the_caller(table, places):
    figure, grid = plt.subplots(1, 3)
    axes = pl.proportions(table, coordinates=places, ax=grid, colorbar=False, vmax=0.5, cmap="magma")
    assert all(one is other for one, other in zip(axes, grid, strict=True)) and len(figure.axes) == 3
    assert grid[0].collections[-1].get_clim() == (0.0, 0.5) and grid[0].collections[-1].get_cmap().name == "magma"
    with pytest.raises(DataError, match="`ax` must be one Axes for each of 3 types; got 1"):
        pl.proportions(table, coordinates=places, ax=grid[0])
    plt.close(figure)


def test_sections_lie_side_by_side(table, places):
    adata = adata_of(table, places % 200)  # the second section on the first
    offsets = np.asarray(pl.dominant(adata, sections="slide").collections[-1].get_offsets())
    assert offsets[15:, 0].min() > offsets[:15, 0].max() + 50
    assert [text.get_text() for text in pl.dominant(adata, sections="slide").texts] == ["one", "two"]


def test_coordinates_go_by_label(table, places):
    straight = pl.proportions(table, coordinates=places)[0].collections[-1].get_offsets()
    shuffled = pl.proportions(table, coordinates=places.iloc[::-1])[0].collections[-1].get_offsets()
    np.testing.assert_array_equal(straight, shuffled)


def test_many_spots_are_rasterised(monkeypatch, table, places):
    assert not pl.proportions(table, coordinates=places)[0].collections[-1].get_rasterized()
    monkeypatch.setattr(pl, "RASTER", 20)
    assert pl.proportions(table, coordinates=places)[0].collections[-1].get_rasterized()


def test_dominant(table, places):
    ax = pl.dominant(table, coordinates=places)
    colours = {name: to_rgba(colour) for name, colour in zip(NAMES, pl.OKABE_ITO, strict=False)}
    known = table.dropna()
    expected = pd.Series(known.idxmax(axis=1)).reindex(table.index).map(colours)
    expected = [to_rgba(pl.UNKNOWN) if colour is np.nan else colour for colour in expected]
    np.testing.assert_allclose(ax.collections[-1].get_facecolor(), expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*NAMES, "no estimate"]
    names = [text.get_text() for text in pl.dominant(table, coordinates=places, types=["B"]).get_legend().get_texts()]
    assert names == ["B", "other types", "no estimate"]


def test_more_types_than_colours(places):
    mix = np.random.default_rng(0).dirichlet(np.ones(20), 30)
    shares = pd.DataFrame(mix, places.index, list("ABCDEFGHIJKLMNOPQRST"))
    labels = [text.get_text() for text in pl.dominant(shares, coordinates=places).get_legend().get_texts()]
    assert len(labels) == 13 and labels[-1] == "other types" and labels[:12] == sorted(labels[:12])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinates": None}, "`coordinates` must be given"),
        ({"coordinates": np.zeros((4, 2))}, "one row per spot; got 4 for 30 spots"),
        ({"coordinates": np.zeros((30, 1))}, r"two columns of numbers; got shape \(30, 1\)"),
        ({"types": ["Z"]}, "`types` must be among 'A', 'B', 'C'; got 'Z'"),
        ({"data": [[1.0]]}, "must be an AnnData, a Result or a DataFrame of proportions; got list"),
        ({"ncols": 0}, "`ncols` must be a whole number >= 1"),
        ({"size": 0}, "`size` must be > 0"),
    ],
)
def test_faults(table, places, changes, message):
    arguments = {"data": table, "coordinates": places, **changes}
    with pytest.raises(DataError, match=message):
        pl.proportions(arguments.pop("data"), **arguments)


def test_missing_keys_of_anndata(table, places):
    adata = adata_of(table, places)
    with pytest.raises(DataError, match="obsm must have the key 'mix'; got .*Run stdeconv_fast.tl.deconvolve first"):
        pl.proportions(adata, key="mix")
    with pytest.raises(DataError, match="obs must have the column 'batch'; got 'slide'"):
        pl.dominant(adata, sections="batch")
