"""The command line on what platforms write, with a graph of the caller's, and without bars in a pipe."""

from __future__ import annotations

import json
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import sparse as sp

import stdeconv_fast as sd
from stdeconv_fast import cli, pipeline
from stdeconv_fast.cli.sources import open_input
from tests import platform_folders as folders

SETTINGS = ("--set", "tune=false", "--set", "min_shared_genes=5", "--n-jobs", 1)


@pytest.fixture
def reference(tmp_path):
    """Cells of two types with the genes of the folders."""
    counts = np.random.default_rng(1).poisson(2.0, (20, folders.N_GENES)) + np.eye(20, folders.N_GENES, dtype=int)
    counts[:10, :7] += 5
    obs = pd.DataFrame({"celltype": ["a"] * 10 + ["b"] * 10}, index=[f"c{i}" for i in range(20)])
    cells = anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=folders.SYMBOLS))
    cells.write_h5ad(tmp_path / "sc.h5ad")
    return tmp_path / "sc.h5ad"


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def run(spatial, reference, out, *more):
    return call("run", spatial, reference, "--cell-type-key", "celltype", "-o", out, *SETTINGS, *more)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (folders.visium, "Visium"), (lambda path: folders.visium(path / "outs").parent, "Visium"),
        (folders.slide_seq, "Slide-seq"), (folders.xenium, "Xenium"), (folders.curio, "Slide-seq"),
    ],
)  # fmt: skip
def test_run_takes_the_folder_of_a_platform(make, found, reference, tmp_path):
    folder, out = make(tmp_path / "data"), tmp_path / "out.h5ad"
    done = run(folder, reference, out, "--quiet")
    assert done.exit_code == 0, done.output
    written, read = anndata.read_h5ad(out), sd.io.read(folder)
    assert written.uns["stdeconv_source"]["format"] == found
    assert written.obsm["stdeconv"].shape == (written.n_obs, 2) and (written.X != read.X).nnz == 0
    np.testing.assert_array_equal(written.obsm["spatial"], read.obsm["spatial"])
    again = tmp_path / "again.h5ad"
    assert call("run", "--config", tmp_path / "out.h5ad.toml", "-o", again, "--quiet").exit_code == 0
    np.testing.assert_array_equal(anndata.read_h5ad(again).obsm["stdeconv"], written.obsm["stdeconv"])
    said = call("validate", folder, reference, "--cell-type-key", "celltype", *SETTINGS[:4], "--no-time", "--json")
    assert json.loads(said.stdout)["n_spots_used"] == int(written.obsm["stdeconv"].notna().all(axis=1).sum())


def test_places_of_an_h5ad_are_found_and_written(reference, tmp_path):
    spots = sd.io.read(folders.xenium(tmp_path / "xenium"))
    places = np.asarray(spots.obsm.pop("spatial"))
    spots.obs["x_centroid"], spots.obs["y_centroid"] = places.T
    spots.write_h5ad(tmp_path / "st.h5ad")
    assert run(tmp_path / "st.h5ad", reference, tmp_path / "out.h5ad").exit_code == 0
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["spatial"], places)


def test_a_folder_of_nothing_known_and_a_reference_without_types(reference, tmp_path):
    empty, matrix = tmp_path / "empty", folders.write_mtx(tmp_path / "mtx")
    empty.mkdir()
    spots = folders.visium(tmp_path / "visium")
    for arguments, *messages in (
        ((empty, reference), "SPATIAL must hold a format that is known; got the folder", "with nothing. Looked for"),
        ((matrix, reference), "SPATIAL.obsm must have the key 'spatial'"),
        ((spots, matrix), "REFERENCE.obs must have the column 'celltype'"),
        ((spots, empty), "REFERENCE must hold a format that is known"),
    ):
        done = run(*arguments, tmp_path / "out.h5ad")
        assert done.exit_code == 2 and "Traceback" not in done.output
        for message in messages:
            assert message in done.stderr
    assert not (tmp_path / "out.h5ad").exists()


def test_the_temporary_copy_goes_and_is_not_named(tmp_path):
    folder = folders.visium(tmp_path / "visium")
    with open_input(str(folder), None) as store:
        copy = store.path
        assert copy.exists() and store.shape[1] == folders.N_GENES
    assert not copy.exists()
    with pytest.raises(sd.DataError, match="layers must have 'raw'") as fault, open_input(str(folder), "raw"):
        pass
    assert str(folder) in str(fault.value) and "spots.h5ad" not in str(fault.value)


def test_a_graph_of_the_callers(tmp_path):
    spots, cells = sd.simulate(60, 60, 3, cells_per_type=12, seed=2, as_anndata=True)
    places = np.asarray(spots.obsm["spatial"])
    near = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    order = np.argsort(near, axis=1)[:, 1:4]
    graph = sp.csr_matrix((np.ones(order.size), (np.repeat(np.arange(60), 3), order.ravel())), shape=(60, 60))
    spots.obsp["near"] = graph
    spots.write_h5ad(tmp_path / "st.h5ad")
    cells.write_h5ad(tmp_path / "sc.h5ad")
    done = run(tmp_path / "st.h5ad", tmp_path / "sc.h5ad", tmp_path / "out.h5ad", "--neighbors-key", "near", "--json")
    assert done.exit_code == 0 and "neighbors" in json.loads(done.stdout)["inputs"]
    sd.tl.deconvolve(spots, cells, cell_type_key="celltype", neighbors_key="near", tune=False, progress=False)
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obsm["stdeconv"], spots.obsm["stdeconv"])
    assert written.uns["stdeconv_params"]["call"]["neighbors_key"] == "near"
    assert 'neighbors_key = "near"' in (tmp_path / "out.h5ad.toml").read_text()
    done = run(tmp_path / "st.h5ad", tmp_path / "sc.h5ad", tmp_path / "no.h5ad", "--neighbors-key", "far")
    assert done.exit_code == 2 and "SPATIAL.obsp must have 'far'; got 'near'" in done.stderr
    files = (tmp_path / "st.h5ad", tmp_path / "sc.h5ad", "--cell-type-key", "celltype")
    assert call("validate", *files, "--neighbors-key", "near", "--json").exit_code == 0
    (tmp_path / "tiles").mkdir()
    spots[:30].write_h5ad(tmp_path / "tiles" / "a.h5ad")
    spots[30:].write_h5ad(tmp_path / "tiles" / "b.h5ad")
    done = run(tmp_path / "tiles", tmp_path / "sc.h5ad", tmp_path / "no.h5ad", "--neighbors-key", "near")
    assert done.exit_code == 2 and "--neighbors-key must be left out where SPATIAL is a folder of tiles" in done.stderr


def test_an_unrelated_reference_is_told(tmp_path):
    spots, cells = sd.simulate(80, 200, 4, cells_per_type=15, seed=1, as_anndata=True)
    other = sd.simulate(80, 200, 4, cells_per_type=15, seed=99, as_anndata=True)[1]
    for cells_of, warned in ((cells, False), (other, True)):
        spots.write_h5ad(tmp_path / "st.h5ad")
        cells_of.write_h5ad(tmp_path / "sc.h5ad")
        files = (tmp_path / "st.h5ad", tmp_path / "sc.h5ad")
        done = run(*files, tmp_path / "out.h5ad", "--json")
        assert ("The reference does not foretell the counts of the spots" in done.stderr) is warned
        said = call("validate", *files, "--cell-type-key", "celltype", "--no-time", "--json")
        assert any("does not foretell" in text for text in json.loads(said.stdout)["warnings"]) is warned
        params = anndata.read_h5ad(tmp_path / "out.h5ad").uns["stdeconv_params"]["diagnostics"]
        assert (params["gene_correlation"] < 0.3) is warned or not warned and params["gene_correlation"] > 0.7


def test_bars_are_for_terminals(monkeypatch, capsys):
    spots, cells = sd.simulate(40, 60, 3, cells_per_type=10, as_anndata=True)
    sd.tl.deconvolve(spots, cells, cell_type_key="celltype")
    assert capsys.readouterr().err == ""
    for terminal, notebook in ((True, False), (False, True)):
        with monkeypatch.context() as patched:
            patched.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
            if notebook:
                patched.setitem(sys.modules, "ipykernel", sys)
            assert pipeline.can_show_bars()
    assert not pipeline.can_show_bars()
