"""tl.deconvolve: what it writes, that it can be saved, and that nothing else is touched."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from stdeconv_fast import DataError, DataWarning, deconvolve, simulate, tl

KEYS = {"cell_type_key": "celltype", "progress": False}


def pair(**more):
    """150 spots in two sections, of which spot 3 has no counts; 4 types."""
    spots, reference = simulate(150, 100, 4, cells_per_type=15, n_sections=2, seed=1, as_anndata=True, **more)
    keep = np.ones(150)
    keep[3] = 0
    spots.X = sp.csr_matrix(sp.diags(keep) @ spots.X).astype(int)
    return spots, reference


@pytest.fixture(scope="module")
def done():
    spots, reference = pair()
    with _quiet():
        settings = {"cell_level": True, "standard_errors": True, "detection": True}
        assert tl.deconvolve(spots, reference, sample_key="section", **settings, **KEYS) is None
    return spots, reference


@contextmanager
def _quiet():
    """Without warnings: one spot has no counts, or sections lie on one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        yield


def test_what_is_written(done):
    spots, reference = done
    shares = spots.obsm["stdeconv"]
    assert isinstance(shares, pd.DataFrame) and shares.index.equals(spots.obs_names)
    assert shares.columns.tolist() == sorted(reference.obs["celltype"].unique())
    used = np.arange(150) != 3
    np.testing.assert_allclose(shares[used].sum(axis=1), 1, atol=1e-6)
    assert shares.iloc[3].isna().all()
    dominant, status = spots.obs["stdeconv_dominant"], spots.obs["stdeconv_status"]
    assert dominant.cat.categories.tolist() == shares.columns.tolist()
    assert pd.isna(dominant.iloc[3]) and (dominant[used] == shares[used].idxmax(axis=1)).all()
    assert status.iloc[3] == "no counts" and (status[used] == "ok").all()
    assert list(reference.obs) == ["celltype"] and not reference.uns and not reference.obsm


def test_errors_and_deviance(done):
    spots, _ = done
    errors, deviance = spots.obsm["stdeconv_se"], spots.obs["stdeconv_deviance"]
    assert isinstance(errors, pd.DataFrame) and errors.index.equals(spots.obs_names)
    assert errors.columns.equals(spots.obsm["stdeconv"].columns)
    assert errors.iloc[3].isna().all() and (errors.iloc[:, 0] > 0).sum() > 75
    present, misfit = spots.obsm["stdeconv_q"], spots.obs[["stdeconv_misfit", "stdeconv_misfit_q"]]
    assert present.index.equals(spots.obs_names) and present.columns.equals(errors.columns)
    assert present.iloc[3].isna().all() and misfit.iloc[3].isna().all() and misfit.notna().to_numpy().sum() == 2 * 149
    assert ((present.drop(index=present.index[3]) >= 0) & (present.drop(index=present.index[3]) <= 1)).all(axis=None)
    assert np.isnan(deviance.iloc[3]) and (deviance.drop(index=deviance.index[3]) > 0).all()
    assert not len(spots.var.columns)


def test_cells(done):
    spots, reference = done
    weights, cells = spots.obsm["stdeconv_cells"], spots.uns["stdeconv_cells"]
    assert sp.issparse(weights) and weights.shape == (150, 60)
    assert spots.uns["stdeconv_params"]["settings"]["max_cells_per_type"] == 100
    assert (reference.obs.loc[cells["names"], "celltype"].to_numpy() == cells["types"]).all()
    member = (cells["types"][:, None] == spots.obsm["stdeconv"].columns.to_numpy()).astype(float)
    np.testing.assert_allclose(weights @ member, spots.obsm["stdeconv"].fillna(0), atol=1e-6)


def test_saved_and_read_again(done, tmp_path):
    """The file holds everything, and its keywords repeat the run."""
    spots, reference = done
    spots.write_h5ad(tmp_path / "out.h5ad")
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    pd.testing.assert_frame_equal(back.obsm["stdeconv"], spots.obsm["stdeconv"], check_names=False)
    pd.testing.assert_frame_equal(back.obsm["stdeconv_se"], spots.obsm["stdeconv_se"], check_names=False)
    pd.testing.assert_frame_equal(back.obs, spots.obs, check_names=False)
    assert (back.obsm["stdeconv_cells"] != spots.obsm["stdeconv_cells"]).nnz == 0
    params = back.uns["stdeconv_params"]
    assert params["diagnostics"]["n_spots_used"] == 149 and params["seconds"]["total"] > 0
    assert len(params["path"]["score"]) == len(params["path"]["graph"]) > 5
    assert params["lambda_spatial"] == spots.uns["stdeconv_params"]["lambda_spatial"]
    with _quiet():
        again = tl.deconvolve(pair()[0], reference, copy=True, **params["call"], **params["settings"])
    np.testing.assert_array_equal(again.obsm["stdeconv"].to_numpy(), spots.obsm["stdeconv"].to_numpy())


def test_same_as_the_function_and_sections_cut_links():
    spots, reference = simulate(100, 80, 4, cells_per_type=10, n_sections=2, seed=1, as_anndata=True)
    apart = tl.deconvolve(spots, reference, sample_key="section", copy=True, **KEYS).obsm["stdeconv"]
    plain = deconvolve(spots, reference, cell_types="celltype", sections="section", progress=False).proportions
    np.testing.assert_array_equal(apart.to_numpy(), plain.to_numpy())
    with _quiet():
        joined = tl.deconvolve(spots, reference, copy=True, **KEYS).obsm["stdeconv"]
    assert (apart - joined).abs().max(axis=None) > 1e-4


def test_copy_leaves_the_original_alone():
    spots, reference = simulate(60, 60, 3, cells_per_type=10, as_anndata=True)
    out = tl.deconvolve(spots, reference, copy=True, key_added="mix", seed=3, n_jobs=1, **KEYS)
    assert list(spots.obsm) == ["spatial"] and list(spots.obs) == ["section"] and not spots.uns
    assert {"mix"} < set(out.obsm) and {"mix_dominant", "mix_status"} < set(out.obs) and "mix_params" in out.uns
    assert out.uns["mix_params"]["settings"]["seed"] == 3 and "mix_cells" not in out.obsm


def test_view_becomes_an_object_of_its_own():
    whole, reference = simulate(80, 60, 3, cells_per_type=10, as_anndata=True)
    view = whole[10:70]
    tl.deconvolve(view, reference, **KEYS)
    assert not view.is_view and view.obsm["stdeconv"].shape == (60, 3)
    assert "stdeconv" not in whole.obsm and "stdeconv_status" not in whole.obs


def test_a_second_run_replaces_the_first():
    spots, reference = simulate(60, 60, 3, cells_per_type=10, as_anndata=True)
    tl.deconvolve(spots, reference, cell_level=True, max_cells_per_type=4, standard_errors=True, **KEYS)
    assert spots.obsm["stdeconv_cells"].shape == (60, 12)
    assert "stdeconv_se" in spots.obsm and {"stdeconv_deviance", "stdeconv_misfit"} < set(spots.obs)
    tl.deconvolve(spots, reference, exclude_types=["type1"], loss="gaussian", **KEYS)
    assert "stdeconv_se" not in spots.obsm and not {"stdeconv_deviance", "stdeconv_misfit"} & set(spots.obs)
    assert "stdeconv_cells" not in spots.obsm and "stdeconv_cells" not in spots.uns
    assert spots.obsm["stdeconv"].shape == (60, 2)


def test_layers_and_names_with_a_slash(tmp_path):
    spots, reference = simulate(60, 60, 3, cells_per_type=10, as_anndata=True)
    expected = tl.deconvolve(spots, reference, copy=True, **KEYS).obsm["stdeconv"].to_numpy()
    for table in (spots, reference):
        table.layers["counts"] = table.X.copy()
        table.X = table.X.astype(float).log1p()
    reference.obs["celltype"] = reference.obs["celltype"].cat.rename_categories({"type1": "T/NK cell"})
    with pytest.warns(DataWarning, match="'T/NK cell' have '|' in its place"):
        tl.deconvolve(spots, reference, layer_st="counts", layer_sc="counts", **KEYS)
    columns = spots.obsm["stdeconv"].columns.tolist()
    assert sorted(columns) == sorted(["type0", "T|NK cell", "type2"])
    assert "T/NK cell" in spots.obs["stdeconv_dominant"].cat.categories
    order = [columns.index(name) for name in ("type0", "T|NK cell", "type2")]
    np.testing.assert_allclose(spots.obsm["stdeconv"].to_numpy()[:, order], expected, atol=1e-3)  # other order of types
    with _quiet():
        spots.write_h5ad(tmp_path / "out.h5ad")
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(back.obsm["stdeconv"].to_numpy(), spots.obsm["stdeconv"].to_numpy())
    assert back.obsm["stdeconv"].columns.tolist() == columns


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_type_key": "cell_type"}, "adata_sc.obs must have the column 'cell_type'; got 'celltype'. Pass"),
        ({"sample_key": "slide"}, "adata_st.obs must have the column 'slide'; got 'section'"),
        ({"spatial_key": "xy"}, r"spatial.obsm must have the key 'xy'; got 'spatial'. Pass spatial_key='spatial'"),
        ({"layer_st": "counts"}, "layers must have 'counts'"),
        ({"key_added": "a/b"}, "`key_added` must be a name without '/'"),
        ({"key_added": None}, "`key_added` must be a str; got NoneType"),
        ({"phi": 2}, "`phi` must be a number from 0 to 1; got 2"),
        ({"lamda": 2}, "settings must be among .*; got 'lamda'"),
    ],
)
def test_faults(changes, message):
    spots, reference = simulate(20, 40, 3, cells_per_type=5, as_anndata=True)
    with pytest.raises(DataError, match=message):
        tl.deconvolve(spots, reference, **{**KEYS, **changes})
    assert list(spots.obsm) == ["spatial"] and list(spots.obs) == ["section"]


def test_tables_are_refused():
    spots, reference = simulate(20, 40, 3, cells_per_type=5, as_anndata=True)
    with pytest.raises(TypeError, match="`adata_st` must be an AnnData; got DataFrame. Use stdeconv_fast.deconvolve"):
        tl.deconvolve(spots.to_df(), reference, **KEYS)


def test_names_that_a_file_cannot_tell_apart_are_refused_before_the_run(monkeypatch):
    spots, reference = simulate(60, 60, 3, cells_per_type=10, as_anndata=True)
    names = {"type1": "T/NK cell", "type2": "T|NK cell"}
    reference.obs["celltype"] = reference.obs["celltype"].cat.rename_categories(names)
    monkeypatch.setattr("stdeconv_fast.pipeline.run", lambda *given, **more: pytest.fail("the run was started"))
    with pytest.raises(DataError, match="must differ in more than '/' and '|'"):
        tl.deconvolve(spots, reference, **KEYS)


def test_the_proportions_go_into_obs_as_the_readme_says(done):
    spots = done[0].copy()
    P = spots.obsm["stdeconv"]
    spots.obs[P.columns] = P
    np.testing.assert_array_equal(spots.obs[list(P.columns)].to_numpy(), P.to_numpy())
