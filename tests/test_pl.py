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

from stdeconv_fast import DataError, DataWarning, pl
from stdeconv_fast.pl import canvas

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


def test_the_sections_of_the_run_are_the_default(table, places):
    adata = adata_of(table, places % 200)
    adata.uns["stdeconv_params"] = {"call": {"sample_key": "slide", "spatial_key": "spatial"}}
    assert [text.get_text() for text in pl.dominant(adata).texts] == ["one", "two"]
    assert not pl.dominant(adata, sections=False).texts
    del adata.obs["slide"]
    assert not pl.dominant(adata).texts


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_many_spots_are_pixels(monkeypatch, table, places, turn):
    """A pixel a spot on a grid; discs that leave no gaps where the grid is turned."""
    monkeypatch.setattr(canvas, "RASTER", 20)
    turned = places.to_numpy() @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    ax = pl.proportions(table, coordinates=turned, types="A")[0]
    grey, shown = ax.images
    laid, (left, right, bottom, top) = shown.get_array(), shown.get_extent()
    x = ((turned[:, 0] - left) / (right - left) * laid.shape[1]).astype(int)
    y = ((turned[:, 1] - bottom) / (top - bottom) * laid.shape[0]).astype(int)
    np.testing.assert_allclose(laid[y, x].filled(np.nan), table["A"])
    np.testing.assert_allclose(grey.get_array()[y[[4, 7]], x[[4, 7]]], [to_rgba(pl.UNKNOWN)] * 2, rtol=1e-6)
    assert laid.shape == (6, 5) if turn == 0 else laid.size > 300
    inner = laid[y.min() : y.max(), x.min() : x.max()]
    assert turn or not inner.mask.sum() > 2
    colours = pl.dominant(table, coordinates=turned).images[0].get_array()
    assert to_rgba(pl.UNKNOWN) == pytest.approx(tuple(colours[y[4], x[4]]))


def test_lone_spots_are_marked(monkeypatch, table, places):
    monkeypatch.setattr(canvas, "RASTER", 20)
    places.iloc[3] = [5000.0, 7000.0]  # far from all others
    ax = pl.proportions(table, coordinates=places, types="B")[0]
    (lone,) = ax.collections  # spots 4 and 7 are near each other: no marks of theirs
    np.testing.assert_array_equal(lone.get_offsets(), [[5000, 7000]])
    assert lone.get_array() == table["B"].iloc[3]
    table.iloc[7] = table.iloc[0]
    grey, lone = pl.proportions(table, coordinates=places, types="B")[0].collections
    np.testing.assert_array_equal(grey.get_offsets(), [[0, 400]])
    np.testing.assert_array_equal(pl.dominant(table, coordinates=places).collections[0].get_offsets(), [[0, 400]])
    np.testing.assert_allclose(grey.get_facecolor(), [to_rgba(pl.UNKNOWN)])


def test_more_spots_than_pixels_show_their_mean(table, places):
    from stdeconv_fast.pl.pixels import rasterise

    raster = rasterise(places.to_numpy(), slice(None), 1.0, 1.0, None, 4)
    laid = raster.lay(table["A"].to_numpy())
    pixel = pd.Series(raster.crowd, table.index)
    for number, own in table["A"].groupby(pixel):
        assert laid.ravel()[number] == pytest.approx(own.mean())


def picture_of(places, scale=0.5):
    """A library whose picture is white where x > 300."""
    pixels = np.zeros((int(1000 * scale), int(1000 * scale), 3))
    pixels[:, int(300 * scale) :] = 1.0
    return {"images": {"lowres": pixels}, "scalefactors": {"tissue_lowres_scalef": scale}}


def test_the_picture_of_the_tissue(table, places):
    adata = adata_of(table, places + 100)
    adata.uns["spatial"] = {"lib": picture_of(places)}
    ax = pl.proportions(adata, types="A")[0]
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    pixels = image.get_array()
    assert 0 < left < 100 and 500 < right < 600 and top < 100 and bottom > 600  # cropped
    edge = int(np.argmax(pixels[0, :, 0] > 0.5)) / pixels.shape[1] * (right - left) + left
    assert edge == pytest.approx(300) and ax.get_ylim()[0] > ax.get_ylim()[1]
    np.testing.assert_allclose(ax.collections[-1]._widths * 2, 80)  # smaller, so that it is seen
    whole = pl.dominant(adata, crop=False, image="lowres", image_alpha=0.3)
    assert whole.images[0].get_extent() == [0, 1000, 1000, 0] and whole.images[0].get_alpha() == 0.3
    assert whole.get_xlim() == (0, 1000)
    assert not pl.dominant(adata, image=False).images
    assert not pl.dominant(adata, coordinates=places).images  # in another unit, for all we know
    for bad in ({"image": "hires"}, {"image": True, "coordinates": places}):
        with pytest.raises(DataError, match="`image` must be a picture in adata.uns"):
            pl.dominant(adata, **bad)
    with pytest.raises(DataError, match="`library_id` must name an entry of .* got 'x', not in 'lib'"):
        pl.dominant(adata, library_id="x")
    with pytest.raises(DataError, match="`alpha` must be a number from 0 to 1; got 2"):
        pl.dominant(adata, alpha=2)
    adata.obsm["spatial"] = adata.obsm["spatial"] * 10
    with pytest.warns(DataWarning, match="only .* of the spots lie on it"):
        assert not pl.dominant(adata).images


def test_each_section_has_its_picture(table, places):
    adata = adata_of(table, places % 200 + 100)
    adata.uns["spatial"] = {"two": picture_of(places), "other": picture_of(places)}
    ax = pl.dominant(adata, sections="slide")
    (image,) = ax.images
    offsets = np.asarray(ax.collections[-1].get_offsets())
    left, right, *_ = image.get_extent()
    assert left < offsets[15:, 0].min() and right > offsets[15:, 0].max() and left > offsets[:15, 0].max()
    assert not pl.dominant(adata, sections=False).images  # which of two is not told


def test_long_names_stay_apart(table, places):
    from stdeconv_fast.pl.colours import shorten

    long = "oligodendrocyte precursor cell of the "
    names = [f"{long}grey matter", f"{long}white matter", "short", "a" * 30 + "1" + "b" * 30, "a" * 30 + "2" + "b" * 30]
    labels = shorten(names)
    assert len(set(labels.values())) == 5 and labels["short"] == "short"
    assert labels[names[0]].endswith("grey matter") and len(labels[names[0]]) == 28
    assert labels[names[3]] == names[3]  # nothing shorter tells it from its twin
    axes = pl.proportions(table.set_axis(names[2:], axis=1), coordinates=places)
    assert len({ax.get_title() for ax in axes}) == 3


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
