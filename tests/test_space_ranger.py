"""io.write_visium: what it writes, io.read reads; a fault leaves nothing behind."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import stdeconv_fast as sd

XY = np.array([[10.0, 5.0], [20.0, 5.0], [15.0, 13.0], [25.0, 13.0]])


def section(**changes):
    names = [f"AC{i}-1" for i in range(4)]
    obs = pd.DataFrame({"in_tissue": [1, 0, 1, 1], "array_row": [7, 7, 9, 9]}, index=names)
    var = pd.DataFrame({"gene_ids": ["ENSG1", "ENSG2", "ENSG3"]}, index=["A", "B", "C\u03b1"])
    given = {"X": sp.csr_matrix(np.arange(12).reshape(4, 3) % 5), "obs": obs, "var": var, "obsm": {"spatial": XY}}
    return anndata.AnnData(**(given | changes))


@pytest.mark.parametrize("bin_size", [None, 8])
def test_there_and_back(bin_size, tmp_path):
    if bin_size:
        pytest.importorskip("pyarrow", reason="pip install 'stdeconv-fast[readers]'")
    adata = section()
    assert sd.io.write_visium(adata, tmp_path / "outs", bin_size=bin_size) == tmp_path / "outs"
    assert [file.name for file in tmp_path.iterdir()] == ["outs"]
    back = sd.io.read(tmp_path / "outs", bin_size=bin_size)
    assert back.uns["stdeconv_source"]["format"] == ("Visium HD" if bin_size else "Visium")
    assert list(back.obs_names) == list(adata.obs_names) and list(back.var_names) == ["A", "B", "C\u03b1"]
    assert list(back.var["gene_ids"]) == ["ENSG1", "ENSG2", "ENSG3"]
    np.testing.assert_array_equal(back.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(back.obsm["spatial"], XY)
    assert list(back.obs["in_tissue"]) == [1, 0, 1, 1] and list(back.obs["array_row"]) == [7, 7, 9, 9]
    assert list(back.obs["array_col"]) == [0, 2, 1, 3]  # ranks of x: there is no such column
    (extras,) = back.uns["spatial"].values()
    distance = np.hypot(5, 8)  # to the nearest spot
    wanted = {"spot_diameter_fullres": distance, "microns_per_pixel": 8 / distance, "bin_size_um": 8.0}
    wanted = wanted if bin_size else {"spot_diameter_fullres": distance * 0.55}
    for name, value in wanted.items():
        assert extras["scalefactors"][name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        ({"X": np.full((4, 3), 0.5)}, {}, "adata.X must hold raw counts, whole numbers >= 0"),
        ({"X": np.full((4, 3), -1)}, {}, "adata.X must hold raw counts"),
        ({"X": np.full((4, 3), np.inf)}, {}, "adata.X must hold raw counts"),
        ({"X": None}, {}, "adata.X must hold the counts in memory"),
        ({"obsm": {}}, {}, "adata.obsm must have the key 'spatial'; got no keys"),
        ({"obsm": {"spatial": XY[:, :1]}}, {}, r"must hold finite x and y of every spot; got shape \(4, 1\)"),
        ({}, {"bin_size": 0}, "`bin_size` must be from 1 to 999 micrometres; got 0"),
        ({}, {"bin_size": 8.0}, "`bin_size` must be a whole number of micrometres; got 8.0"),
        ({"obs": pd.DataFrame(index=list("aabc"))}, {}, "must be unique"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_refuses(changes, options, match, tmp_path):
    with pytest.raises(sd.DataError, match=match):
        sd.io.write_visium(section(**changes), tmp_path / "outs", **options)
    assert not list(tmp_path.iterdir())


def test_never_over_something_else(tmp_path):
    (tmp_path / "outs").mkdir()
    (tmp_path / "outs" / "mine.txt").write_text("keep")
    with pytest.raises(sd.DataError, match="`path` must be a folder that is not there yet or is empty"):
        sd.io.write_visium(section(), tmp_path / "outs")
    with pytest.raises(sd.DataError, match="`path` must lie in a folder that exists"):
        sd.io.write_visium(section(), tmp_path / "no" / "outs")
    with pytest.raises(sd.DataTypeError, match="`adata` must be an AnnData; got dict"):
        sd.io.write_visium({}, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    sd.io.write_visium(section(), tmp_path / "empty")
    assert sd.io.read(tmp_path / "empty").n_obs == 4
