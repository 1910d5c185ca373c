"""tl.diagnose, tl.refine_cells, pp.filter_reference, and what a run leaves for them."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import stdeconv_fast as sd
from stdeconv_fast import DataError, DataTypeError

KEYS = {"cell_type_key": "celltype", "progress": False}
CHECKS = {
    "spots", "genes", "counts", "platform effect", "proportions", "smoothing", "roughness", "misfit", "deviance",
    "genes in excess", "dispersion", "rare types", "alike types",
}  # fmt: skip


def pair(**more):
    return sd.simulate(150, 100, 4, cells_per_type=15, seed=1, as_anndata=True, **more)


@pytest.fixture(scope="module")
def done():
    spots, cells = pair()
    sd.tl.deconvolve(spots, cells, store_attention=True, standard_errors=True, **KEYS)
    return spots, cells


def test_what_a_run_leaves_besides(done, tmp_path):
    spots, cells = done
    result = sd.deconvolve(*pair(), cell_types="celltype", progress=False)
    attention = spots.obsp["stdeconv_attention"]
    assert sp.issparse(attention) and attention.dtype == np.float32 and (attention != attention.T).nnz == 0
    row = np.repeat(np.arange(150), np.diff(result.graph.indptr))
    np.testing.assert_allclose(attention[row, result.graph.indices].A1, result.graph.weights)
    spots.write_h5ad(tmp_path / "out.h5ad")
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    for name, table in (("genes", result.gene_fit), ("types", result.type_fit)):
        pd.testing.assert_frame_equal(back.uns[f"stdeconv_{name}"], table, check_dtype=False, check_index_type=False)
    assert (back.obsp["stdeconv_attention"] != attention).nnz == 0
    pd.testing.assert_frame_equal(sd.tl.diagnose(back).table, sd.tl.diagnose(spots).table)
    sd.tl.deconvolve(back, cells, lambda_spatial=0, loss="gaussian", store_attention=True, **KEYS)
    assert not back.obsp and "stdeconv_genes" not in back.uns and "stdeconv_types" in back.uns


def test_alike_types_are_found():
    """Counts needed: the standard error of the split of a spot made of both by halves is then 0.1."""
    from stdeconv_fast.parcels import Reference
    from stdeconv_fast.stages.reference import find_alike

    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.ones(50), 4)
    profiles[3] = 0.9 * profiles[1] + 0.1 * profiles[3]
    fixed = {"gene_factors": None, "gene_weights": None, "kept_genes": None, "mrna_content": None}
    like, counts = find_alike(Reference(profiles, platform_log2_sd=0.0, platform="none", **fixed))
    assert like[1] == 3 and like[3] == 1 and counts[1] == counts[3] == counts.max()
    a, b = profiles[1], profiles[3]
    drawn = rng.poisson(counts[1] * (a + b) / 2, (4000, 50))
    score = (drawn / ((a + b) / 2) * (a - b)).sum(axis=1) / counts[1]  # the efficient estimate at the halves
    estimate = score / ((a - b) ** 2 / ((a + b) / 2)).sum()
    assert estimate.std() == pytest.approx(0.1, rel=0.05)
    profiles[2] = profiles[0]
    assert np.isinf(find_alike(Reference(profiles, platform_log2_sd=0.0, platform="none", **fixed))[1][[0, 2]]).all()


def test_diagnosis_of_a_sound_run(done):
    spots, _ = done
    found = sd.tl.diagnose(spots)
    assert set(found.table.index) == CHECKS | {"standard errors"}
    assert not (found.table["verdict"] == "warning").any() and not found.notes
    text = repr(found)
    assert "150 of 150 with an estimate" in text and "log2 sd" in text and "100 used of 100 shared" in text
    assert found.table.loc["smoothing", "value"].startswith("lambda_spatial ")
    assert "<table" in found._repr_html_()
    result = sd.deconvolve(*pair(), cell_types="celltype", progress=False)
    other = sd.tl.diagnose(result).table
    pd.testing.assert_frame_equal(other, found.table.drop("standard errors"))


def test_diagnosis_of_runs_that_ask_for_a_look(done):
    spots, _ = done
    bad = spots.copy()
    params = bad.uns["stdeconv_params"]
    place = params["path"]["graph"] == "place"
    params["path"]["score"] = np.where(place, params["path"]["lambda_spatial"], -1.0)  # the more, the better
    params["diagnostics"] |= {
        "platform_log2_sd": 1.1, "median_counts": 20.0,
        "notes": np.array(["... a cell type may be missing from the reference. Add it."]),
    }  # fmt: skip
    bad.obs["stdeconv_status"] = ["ok"] * 90 + ["no counts"] * 30 + ["not in tissue"] * 30
    bad.uns["stdeconv_types"].loc["type1", ["like", "counts"]] = ["type2", 5000.0]
    table = sd.tl.diagnose(bad).table
    assert list(table["verdict"][["platform effect", "smoothing", "misfit"]]) == ["warning"] * 3
    assert list(table["verdict"][["spots", "counts", "alike types"]]) == ["look"] * 3
    assert "30 no counts" in table.loc["spots", "value"] and "type1 / type2" in table.loc["alike types", "value"]
    text = repr(sd.tl.diagnose(bad))
    assert "! misfit" in text and "note: ... a cell type" in text and "? spots" in text
    params["path"]["lambda_spatial"][0] = 0.0
    params["path"]["score"] = np.where(params["path"]["lambda_spatial"] == 0, 0.0, -1.0)
    assert "ask for no smoothing" in sd.tl.diagnose(bad).table.loc["smoothing", "told"]
    with pytest.raises(DataError, match="`key` must be one that stdeconv_fast.tl.deconvolve wrote; got 'other'"):
        sd.tl.diagnose(spots, "other")
    with pytest.raises(DataTypeError, match="got DataFrame"):
        sd.tl.diagnose(spots.obsm["stdeconv"])


def test_refined_as_by_one_run(done):
    spots, cells = done
    whole = sd.tl.deconvolve(*pair(), cell_level=True, copy=True, standard_errors=True, **KEYS)
    refined = sd.tl.refine_cells(spots, cells, copy=True, progress=False)
    assert "stdeconv_cells" not in spots.obsm and "stdeconv_attention" in refined.obsp
    assert (refined.obsm["stdeconv_cells"] != whole.obsm["stdeconv_cells"]).nnz == 0
    pd.testing.assert_frame_equal(refined.obsm["stdeconv"], whole.obsm["stdeconv"])
    pd.testing.assert_frame_equal(refined.obsm["stdeconv_se"], whole.obsm["stdeconv_se"])
    apart = sd.tl.refine_cells(spots, cells, separate=True, max_cells_per_type=5)
    assert apart.shape == (150, 20) and apart.obs_names.equals(spots.obs_names)
    np.testing.assert_array_equal(apart.obsm["spatial"], spots.obsm["spatial"])
    np.testing.assert_allclose(apart.X.sum(axis=1), 1, atol=1e-5)
    assert (apart.var["cell_type"].astype(str) == cells.obs.loc[apart.var_names, "celltype"].astype(str)).all()
    assert "stdeconv_cells" not in spots.obsm


def test_refine_refuses_another_input(done):
    spots, cells = done
    with pytest.raises(DataError, match="must be the reference of the run; got one without the type 'type0'"):
        sd.tl.refine_cells(spots, cells[cells.obs["celltype"] != "type0"])
    moved = spots.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"][::-1]
    before = moved.obsm["stdeconv"].copy()
    with pytest.raises(DataError, match="must be those of the run; got other coordinates"):
        sd.tl.refine_cells(moved, cells, progress=False, max_cells_per_type=2)
    pd.testing.assert_frame_equal(moved.obsm["stdeconv"], before)
    for settings, match in (
        ({"phi": 0.5}, "settings must be among max_cells_per_type, .* got 'phi'"),
        ({"tiles": 3}, "The cell level does not go with tiles"),
        ({"copy": True, "separate": True}, "`copy` must be False with separate=True"),
        ({"key": "other"}, "got 'other', with no entry"),
    ):
        with pytest.raises(DataError, match=match):
            sd.tl.refine_cells(spots, cells, **settings)


def test_filter_in_place():
    _, cells = pair()
    expected, kept_cells, kept_genes = sd.filter_reference(cells, disp_threshold=1.0, return_kept=True)
    assert kept_genes.sum() == 90
    copied = sd.pp.filter_reference(cells, disp_threshold=1.0, copy=True, cell_type_key="celltype")
    assert cells.shape == (60, 100) and copied.shape == expected.shape == (kept_cells.sum(), kept_genes.sum())
    assert sd.pp.filter_reference(cells, disp_threshold=1.0) is None
    assert cells.obs_names.equals(expected.obs_names) and (cells.X != expected.X).nnz == 0
    with warnings.catch_warnings():
        sd.pp.filter_reference(cells, genes=False, cells=False)
    with pytest.raises(DataTypeError, match="`adata_sc` must be an AnnData; got DataFrame"):
        sd.pp.filter_reference(pd.DataFrame())
