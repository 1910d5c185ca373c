"""io.write by ending, whole or not at all; io.add_aliases under the names of other tools."""

from __future__ import annotations

import sys
from functools import cache

import anndata
import numpy as np
import pandas as pd
import pytest

import stdeconv_fast as sd
from stdeconv_fast.errors import DataError, DataTypeError, DataWarning


@cache
def result():
    tissue = sd.simulate(n_spots=60, n_types=3, n_genes=60, seed=0)
    return sd.deconvolve(
        tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, tune=False, n_iter=1,
        standard_errors=True, n_jobs=1,
    )  # fmt: skip


def answered(errors=True):
    """An AnnData as tl.deconvolve leaves it; the second spot says nothing."""
    names = [f"spot-{i}" for i in range(4)]
    shares = pd.DataFrame([[0.5, 0.3, 0.2], [np.nan] * 3, [0.0, 1.0, 0.0], [0.1, 0.1, 0.8]], names, ["A", "B|C", "D"])
    adata = anndata.AnnData(np.ones((4, 2), np.float32), obs=pd.DataFrame({"cells": [10, 1, 4, 5]}, index=names))
    adata.obsm["stdeconv"] = shares
    if errors:
        adata.obsm["stdeconv_se"] = shares * 0 + 0.1
    return adata


# -- write -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_tables(ending, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="pip install 'stdeconv-fast[readers]'")
    path = sd.io.write(result(), tmp_path / f"a.{ending}")
    if ending == "parquet":
        back = pd.read_parquet(path)
    else:
        back = pd.read_csv(path, sep="\t" if "tsv" in ending else ",", dtype={"spot": str})
    assert back.columns[0] == "spot"
    shares = result().proportions
    back = back.set_index("spot")
    assert list(back.index) == list(shares.index.astype(str)) and list(back.columns) == list(shares.columns)
    np.testing.assert_allclose(back, shares, rtol=0 if ending == "parquet" else 1e-5, atol=1e-12)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_anndata_of_a_result(ending, tmp_path):
    if ending == "zarr":
        pytest.importorskip("zarr")
    for key in ("stdeconv", "other"):  # the second replaces the first
        sd.io.write(result(), tmp_path / f"a.{ending}", key=key)
    back = sd.io.read(tmp_path / f"a.{ending}")
    shares = result().proportions
    np.testing.assert_array_equal(back.obsm["other"], shares)
    np.testing.assert_array_equal(back.obsm["other_se"], result().standard_errors)
    assert list(back.obs["other_dominant"]) == list(shares.idxmax(axis=1)) and set(back.obs["other_status"]) == {"ok"}
    assert "stdeconv" not in back.obsm and list(back.obsm["other"].columns) == list(shares.columns)


def test_an_anndata_keeps_all_it_has(tmp_path):
    adata = answered()
    back = sd.io.read(sd.io.write(adata, tmp_path / "a.h5ad"))
    np.testing.assert_array_equal(back.X, adata.X)
    pd.testing.assert_frame_equal(back.obsm["stdeconv"], adata.obsm["stdeconv"])
    table = pd.read_csv(sd.io.write(adata, tmp_path / "a.csv"), index_col="spot")
    np.testing.assert_allclose(table, adata.obsm["stdeconv"])


def test_faults_of_write(tmp_path, monkeypatch):
    for what, path, message in (
        (3, "a.csv", "`what` must be a Result or an AnnData; got int"),
        (result(), 3, "`path` must be a path; got int"),
        (result(), tmp_path / "a.txt", r"must end in \.h5ad, \.zarr, \.csv.*; got '.*a\.txt'"),
        (result(), tmp_path / "none" / "a.csv", "must lie in a folder that exists"),
    ):
        with pytest.raises(DataError, match=message):
            sd.io.write(what, path)
    with pytest.raises(DataError, match=r"`key` must name a table of proportions in obsm; got 'x', .* 'stdeconv'"):
        sd.io.write(answered(), tmp_path / "a.csv", key="x")
    with pytest.raises(DataError, match="`key` must be a name without '/'"):
        sd.io.write(result(), tmp_path / "a.h5ad", key="a/b")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"needs the package pyarrow.*pip install 'stdeconv-fast\[readers\]'"):
        sd.io.write(result(), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_a_fault_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = sd.io.write(result(), tmp_path / "a.csv")
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="no space left"):
        sd.io.write(result(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# -- add_aliases -----------------------------------------------------------------------------------------------------


def test_code_for_cell2location_runs_unchanged(tmp_path):
    adata = answered()
    sd.io.add_aliases(adata, "cell2location", cells_per_spot="cells")
    # as its tutorial does it
    adata.obs[adata.uns["mod"]["factor_names"]] = adata.obsm["q05_cell_abundance_w_sf"]
    np.testing.assert_allclose(adata.obs["A"], [(0.5 - 0.1644854) * 10, np.nan, 0, 0], atol=1e-6)
    means = adata.obsm["means_cell_abundance_w_sf"]
    assert list(means) == [f"meanscell_abundance_w_sf_{name}" for name in ("A", "B|C", "D")]
    np.testing.assert_allclose(means.iloc[[0, 2, 3]].sum(axis=1), [10, 4, 5])
    np.testing.assert_allclose(adata.obsm["q95_cell_abundance_w_sf"].iloc[2], [4 * 0.1644854, 4, 4 * 0.1644854], 1e-6)
    np.testing.assert_allclose(adata.obsm["stds_cell_abundance_w_sf"].iloc[0], 1.0)
    back = sd.io.read(sd.io.write(adata, tmp_path / "a.h5ad"))
    assert list(back.uns["mod"]["factor_names"]) == ["A", "B|C", "D"]
    assert "obsm/q05_cell_abundance_w_sf" in back.uns["stdeconv_aliases"]["cell2location"]


def test_without_standard_errors_a_warning_says_what_q05_is():
    adata = answered(errors=False)
    with pytest.warns(DataWarning, match=r"holds the proportions themselves, no 5 % quantiles"):
        sd.io.add_aliases(adata, "cell2location")
    np.testing.assert_array_equal(adata.obsm["q05_cell_abundance_w_sf"], adata.obsm["stdeconv"])
    assert "q95_cell_abundance_w_sf" not in adata.obsm


def test_the_names_of_other_tools(tmp_path):
    adata = answered()
    shares = adata.obsm["stdeconv"]
    for tool in ("rctd", "flashdeconv", "tangram", "destvi", "squidpy"):
        sd.io.add_aliases(adata, like=tool)
    assert adata.obsm["rctd_weights"].dtype == np.float32
    np.testing.assert_allclose(adata.obsm["rctd_weights"], shares, rtol=1e-6)
    assert list(adata.obs["rctd_dominant_type"]) == ["A", "filtered", "B|C", "D"]
    assert list(adata.uns["rctd_cell_type_names"]) == list(shares.columns)
    assert adata.obs["flashdeconv_dominant"].isna().tolist() == [False, True, False, False]
    for key in ("flashdeconv", "tangram_ct_pred", "proportions"):
        pd.testing.assert_frame_equal(adata.obsm[key], shares)
    pd.testing.assert_frame_equal(adata.obs[list(shares.columns)], shares)
    back = sd.io.read(sd.io.write(adata, tmp_path / "a.h5ad"))
    assert set(back.uns["stdeconv_aliases"]) == {"rctd", "flashdeconv", "tangram", "destvi", "squidpy"}


def test_what_is_there_is_not_replaced_unasked():
    adata = answered()
    adata.obsm["flashdeconv"] = np.zeros((4, 1))
    with pytest.raises(DataError, match=r"room for the names of flashdeconv; got obsm\['flashdeconv'\] already"):
        sd.io.add_aliases(adata, "flashdeconv")
    assert "flashdeconv_dominant" not in adata.obs and "stdeconv_aliases" not in adata.uns
    sd.io.add_aliases(adata, "flashdeconv", overwrite=True)
    assert adata.obsm["flashdeconv"].shape == (4, 3)


ALIAS_FAULTS = {
    "tool": ({"like": "card"}, r"`like` must be one of 'cell2location', .*; got 'card'"),
    "key": ({"like": "rctd", "key": "x"}, "`key` must name a table of proportions in obsm; got 'x'"),
    "cells of another tool": ({"like": "rctd", "cells_per_spot": 3}, "`cells_per_spot` must be None unless"),
    "no column": ({"cells_per_spot": "nuclei"}, "must name a column of obs; got 'nuclei', and there are: 'cells'"),
    "shape": ({"cells_per_spot": [1, 2]}, r"a number or one per spot, 4; got \(2,\)"),
    "negative": ({"cells_per_spot": -1.0}, "must be finite and >= 0"),
    "text": ({"cells_per_spot": ["a"] * 4}, "`cells_per_spot` must hold numbers"),
}


@pytest.mark.parametrize("case", ALIAS_FAULTS)
def test_faults_of_aliases(case):
    changes, message = ALIAS_FAULTS[case]
    adata = answered()
    before = set(adata.obsm)
    with pytest.raises(DataError, match=message):
        sd.io.add_aliases(adata, **{"like": "cell2location", **changes})
    assert set(adata.obsm) == before
    with pytest.raises(DataTypeError, match="`adata` must be an AnnData"):
        sd.io.add_aliases(adata.obs, "rctd")
