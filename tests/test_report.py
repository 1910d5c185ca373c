"""The page about an answer: what it holds, what it escapes, what it refuses."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from html.parser import HTMLParser

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import stdeconv_fast as sd
from stdeconv_fast import cli
from stdeconv_fast.pages import packing, sources

EVIL = '<img src=x onerror="alert(1)">'
END = "</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def answer():
    """Two sections, three types, one spot without counts, every table that a run may leave."""
    spots, reference = sd.simulate(60, 60, 3, cells_per_type=12, n_sections=2, seed=2, as_anndata=True)
    counts = spots.X.toarray()
    counts[7] = 0
    spots.X = counts
    reference.obs["celltype"] = reference.obs["celltype"].cat.rename_categories({"type1": EVIL})
    sd.tl.deconvolve(
        spots, reference, cell_type_key="celltype", sample_key="section", standard_errors=True, detection=True,
        k_neighbors=5, progress=False,
    )  # fmt: skip
    return spots


def read(path):
    """Title and data of a page."""
    text = path.read_text(encoding="utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def unpack(text, dtype):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)


def made(answer, folder, **options):
    return read(sd.report(answer, folder / "page.html", **options))


# -- what it holds ---------------------------------------------------------------------------------------------------


def test_the_maps_are_those_of_the_answer(answer, tmp_path):
    data = made(answer, tmp_path)[1]
    maps, shares = data["maps"], answer.obsm["stdeconv"]
    names = zlib.decompress(base64.b64decode(maps["names"])).decode().split("\n")
    shares = shares.loc[names]
    assert sorted(names) == sorted(answer.obs_names) and data["types"] == list(shares.columns)
    for k, name in enumerate(shares):
        steps = unpack(maps["shares"][k], np.uint8) * (maps["tops"][k] / 255)
        np.testing.assert_allclose(steps, shares[name].fillna(0), atol=maps["tops"][k] / 509)
        assert maps["tops"][k] == pytest.approx(shares[name].max())
    dominant = unpack(maps["dominant"], "<u2")
    assert (dominant == 0).tolist() == shares.isna().any(axis=1).tolist() and (dominant == 0).sum() == 1
    assert (shares.fillna(0).to_numpy().argmax(axis=1) + 1)[dominant > 0].tolist() == dominant[dominant > 0].tolist()
    misfit, packed = answer.obs["stdeconv_misfit"].loc[names], maps["fit"]["misfit"]
    found = packed["low"] + unpack(packed["packed"], np.uint8) * (packed["high"] - packed["low"]) / 255
    clipped = misfit.clip(packed["low"], packed["high"])
    np.testing.assert_allclose(found[dominant > 0], clipped[dominant > 0], atol=(packed["high"] - packed["low"]) / 509)


def test_places_are_those_of_the_spots_in_each_section(answer, tmp_path):
    maps = made(answer, tmp_path)[1]["maps"]
    names = np.array(zlib.decompress(base64.b64decode(maps["names"])).decode().split("\n"))
    assert [section["name"] for section in maps["sections"]] == sorted(answer.obs["section"].unique())
    for section in maps["sections"]:
        own = slice(section["start"], section["stop"])
        rows = answer.obs_names.get_indexer(names[own])
        assert set(answer.obs["section"].iloc[rows]) == {section["name"]}
        true = np.asarray(answer.obsm["spatial"])[rows]
        unit = np.ptp(true, axis=0).max() / 65_535
        for axis, part in enumerate(("x", "y")):
            steps = unpack(maps[part], "<u2")[own]
            places = np.cumsum(steps, dtype=np.uint16) * unit
            np.testing.assert_allclose(places, true[:, axis] - true[:, axis].min(), atol=unit)


def test_the_tables_are_those_of_the_answer(answer, tmp_path):
    data, shares = made(answer, tmp_path)[1], answer.obsm["stdeconv"]
    whole, *parts = data["table"]
    assert [row["name"] for row in whole] == list(shares.columns) and len(parts) == 2
    by_section = dict(zip(sorted(answer.obs["section"].unique()), parts, strict=True))
    for k, row in enumerate(whole):
        own = shares[row["name"]].dropna()
        assert row["mean"] == pytest.approx(own.mean()) and row["highest"] == pytest.approx(own.max())
        assert row["present"] == (own >= 0.05).sum() and row["cells"] == 12
        assert row["dominant"] == (answer.obs["stdeconv_dominant"] == row["name"]).sum()
        assert row["error"] == pytest.approx(answer.obsm["stdeconv_se"][row["name"]].mean())
        assert row["detected"] == (answer.obsm["stdeconv_q"][row["name"]] <= 0.05).sum()
        for section, table in by_section.items():
            own = shares[row["name"]][(answer.obs["section"] == section).to_numpy()].dropna()
            assert table[k]["mean"] == pytest.approx(own.mean())
    assert {column["key"] for column in data["columns"]} == set(whole[0])


def test_what_the_run_left_is_told(answer, tmp_path):
    data, params = made(answer, tmp_path)[1], answer.uns["stdeconv_params"]
    assert data["settings"]["k_neighbors"] == 5 and data["call"]["sample_key"] == "section"
    assert data["versions"]["numpy"] == np.__version__ and set(data["inputs"]) == set(params["provenance"]["inputs"])
    assert data["tuning"]["score"] == pytest.approx(list(params["path"]["score"]))
    assert data["tuning"]["chosen"]["lambda_spatial"] in data["tuning"]["lambda_spatial"]
    assert data["notes"] == list(params["diagnostics"]["notes"])
    assert 0 < data["memory_gb"] == params["memory_gb"] and data["seconds"] == params["seconds"]
    assert list(data["seconds"])[:4] == ["input", "reference", "counts", "graph"]
    worst = answer.uns["stdeconv_genes"].sort_values("rank").index[:20].tolist()
    assert data["genes"]["name"] == worst and len(worst) == 20
    checks = {name: (value, remark) for name, value, remark in data["checks"]}
    assert checks["Spots estimated"] == ("59 of 60", "1 no counts") and checks["Reference cells"][0] == "36 of 3 types"
    assert [name for name, *_ in data["fit"]] == ["Deviance a count", "Spots that fit badly"]


def test_a_file_gives_the_page_of_the_object(answer, tmp_path):
    answer.write_h5ad(tmp_path / "out.h5ad")
    sd.io.write(answer, tmp_path / "out.zarr")
    pages = [
        sd.report(source, tmp_path / f"{number}.html", title="one").read_bytes()
        for number, source in enumerate((answer, tmp_path / "out.h5ad", str(tmp_path / "out.zarr")))
    ]
    for page in pages[1:]:
        data = json.loads(re.search(rb'id="data">(.*?)</script>', page, re.S)[1])
        first = json.loads(re.search(rb'id="data">(.*?)</script>', pages[0], re.S)[1])
        assert data | {"name": ""} == first
    assert sd.report(answer, tmp_path / "0.html", title="one").read_bytes() == pages[0]
    assert {file.name for file in tmp_path.iterdir()} == {"out.h5ad", "out.zarr", "0.html", "1.html", "2.html"}


def test_a_bare_answer_makes_a_page(tmp_path):
    """Least squares, nothing tuned, one section, an older version's few entries."""
    spots, reference = sd.simulate(40, 50, 2, cells_per_type=8, as_anndata=True)
    sd.tl.deconvolve(spots, reference, cell_type_key="celltype", loss="gaussian", tune=False, progress=False)
    data = made(spots, tmp_path)[1]
    assert data["fit"] == [] and data["tuning"] == {} and data["genes"] == {} and data["maps"]["fit"] == {}
    spots.uns["stdeconv_params"] = {"version": "0.0.1"}
    del spots.obs["stdeconv_status"]
    data = made(spots, tmp_path)[1]
    assert data["settings"] == {} and data["memory_gb"] is None and len(data["table"]) == 1
    spots.obsm["stdeconv"].iloc[:] = np.nan
    data = made(spots, tmp_path)[1]
    assert data["table"][0][0]["mean"] is None and not unpack(data["maps"]["dominant"], "<u2").any()


# -- many spots ------------------------------------------------------------------------------------------------------


def test_of_too_many_spots_means_over_squares_are_kept(rng):
    side, n_types = 30, 4
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    shares = rng.dirichlet(np.ones(n_types), size=2 * side * side).astype(np.float32)
    shares[0] = np.nan
    sections = np.repeat([0, 1], side * side)
    whole = sources.Answer(
        "", list("abcd"), shares, np.concatenate([places, places + 100]), sections, ["one", "two"],
        pd.RangeIndex(len(shares)).astype(str), pd.Series(["ok"] * len(shares)), {"misfit": shares[:, 0] * 2.0}, None,
        None, None, {},
    )  # fmt: skip
    maps = packing.pack_maps(whole, most=1000)
    assert maps["joined"] and maps["names"] is None and 100 < maps["n"] * n_types <= 1000
    assert [s["name"] for s in maps["sections"]] == ["one", "two"] and maps["sections"][1]["stop"] == maps["n"]
    total = sum(unpack(text, np.uint8) * (top / 255) for text, top in zip(maps["shares"], maps["tops"], strict=True))
    np.testing.assert_allclose(total, 1, atol=0.01)
    packed = packing.pack_maps(whole)
    assert not packed["joined"] and packed["n"] == len(shares) and packed["names"] is not None


def test_spots_without_a_place_are_left_out_of_the_maps(answer, tmp_path):
    part = answer.copy()
    part.obsm["spatial"] = np.array(part.obsm["spatial"], dtype=float)
    part.obsm["spatial"][3] = np.nan
    data = made(part, tmp_path)[1]
    assert data["maps"]["n"] == 59 and data["n_spots"] == 60


# -- what comes from strangers ---------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self):
        super().__init__()
        self.seen, self.titles, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        if self.seen[-1:] == ["title"]:
            self.titles.append(data)


def tags_of(text):
    parser = Tags()
    parser.feed(text)
    return parser


def test_names_are_texts_and_no_html(answer, tmp_path):
    plain = tags_of(made(answer, tmp_path)[0])
    bad = answer.copy()
    bad.obs["section"] = np.where(bad.obs["section"] == "section0", END, EVIL)
    bad.uns["stdeconv_params"]["diagnostics"]["notes"] = np.array([END, "\u2028<!--<script>"])
    text, data = made(bad, tmp_path, title=END + EVIL + "&amp;")
    seen = tags_of(text)
    assert seen.seen == plain.seen and "img" not in seen.seen and seen.seen.count("script") == 2
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert "".join(seen.titles).startswith(END + EVIL + "&amp;")
    assert EVIL in data["types"] and {s["name"] for s in data["maps"]["sections"]} == {END, EVIL}
    assert data["notes"] == [END, "\u2028<!--<script>"]


def test_only_its_own_script_and_style_may_run_and_nothing_is_fetched(answer, tmp_path):
    text = made(answer, tmp_path)[0]
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for part, pattern in (("script-src", r"<script>(.*?)</script>"), ("style-src", r"<style>(.*?)</style>")):
        digest = base64.b64encode(hashlib.sha256(re.search(pattern, text, re.S)[1].encode()).digest()).decode()
        assert f"{part} 'sha256-{digest}'" in policy
    assert set(re.findall(r"https?://[^\s\"']*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not a place


# -- the command, and what is refused --------------------------------------------------------------------------------


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def test_the_command(answer, tmp_path):
    answer.write_h5ad(tmp_path / "out.h5ad")
    page = tmp_path / "page.html"
    done = call("report", tmp_path / "out.h5ad", "-o", page, "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and said["n_spots"] == 60 and said["n_types"] == 3 and said["n_squares"] is None
    assert said["sections"] == ["section0", "section1"] and said["megabytes"] == page.stat().st_size / 1e6
    assert "<title>out.h5ad</title>" in page.read_text()
    told = call("report", tmp_path / "out.h5ad", "-o", page, "--title", "Mine")
    assert "60 spots of 3 types" in told.stdout and str(page) in told.stdout
    assert "<title>Mine</title>" in page.read_text()
    for arguments, message in (
        ((tmp_path / "none.h5ad",), "OUT must be a file or a folder"),
        ((tmp_path / "out.h5ad", "--key", "mix"), "must have the key 'mix'; got 'spatial', 'stdeconv'"),
        ((page,), "cannot be read"),
    ):
        done = call("report", *arguments, "-o", tmp_path / "other.html")
        assert done.exit_code == 2 and message in done.stderr and not (tmp_path / "other.html").exists()


def test_faults(answer, tmp_path):
    page = tmp_path / "page.html"
    bare = anndata.AnnData(np.zeros((2, 2)))
    without = answer.copy()
    del without.uns["stdeconv_params"]
    array = answer.copy()
    array.obsm["stdeconv"] = array.obsm["stdeconv"].to_numpy()
    for given, options, message in (
        (bare, {}, r"adata.obsm must have the key 'stdeconv'; got nothing. Run stdeconv_fast.tl.deconvolve first"),
        (without, {}, "adata.uns must have the key 'stdeconv_params'"),
        (array, {}, r"adata.obsm\['stdeconv'\] must be a table of spots by types; got shape"),
        (answer, {"spatial_key": "xy"}, "adata.obsm must have the key 'xy'"),
        (answer, {"sample_key": "slide"}, "adata.obs must have the key 'slide'"),
        (answer, {"title": 3}, "`title` must be a text; got int"),
        ([1], {}, "`answer` must be an AnnData or the path of one; got list"),
        (tmp_path / "none.h5ad", {}, "`answer` must be a file or a folder that exists"),
    ):
        with pytest.raises(sd.DataError, match=message):
            sd.report(given, page, **options)
    with pytest.raises(sd.DataError, match=r"`path` must end in .html; got 'page.pdf'"):
        sd.report(answer, "page.pdf")
    with pytest.raises(sd.DataError, match="there is no folder"):
        sd.report(answer, tmp_path / "none" / "page.html")
    assert not page.exists()


def test_what_is_no_answer_is_called_by_its_name(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(sd.DataError, match="`answer` must be an h5ad file; got '.*table.csv', which cannot be read"):
        sd.report(tmp_path / "table.csv", tmp_path / "page.html")
