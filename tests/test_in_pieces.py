"""Runs in tiles: the answer of a whole run, what stays on disk, what is refused, and what a killed run leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import stdeconv_fast as sd
from stdeconv_fast import DataError, DataTypeError, cli

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(1500, 200, 5, kind="domains", counts_per_spot=150, seed=3)


@pytest.fixture(scope="module")
def whole(tissue):
    return run(tissue)


@pytest.fixture(scope="module")
def files(tissue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    spots, reference = tissue.to_anndata()
    spots.write_h5ad(folder / "st.h5ad")
    reference.write_h5ad(folder / "sc.h5ad")
    return folder


def run(tissue, **settings):
    return sd.deconvolve(
        tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, **{**QUIET, **settings}
    )


def command(files, out, *more):
    return [sys.executable, "-m", "stdeconv_fast.cli", "run", str(files / "st.h5ad"), str(files / "sc.h5ad"),
            "--cell-type-key", "celltype", "-o", str(out), "--quiet", *map(str, more)]  # fmt: skip


@pytest.mark.parametrize("n_tiles", [1, 4, 16])
def test_tiles_give_the_answer_of_the_whole(tissue, whole, n_tiles):
    tiled = run(tissue, tiles=n_tiles)
    assert np.abs(tiled.proportions - whole.proportions).to_numpy().max() <= 1e-3
    assert tiled.strengths.lambda_spatial == whole.strengths.lambda_spatial > 0
    assert tiled.strengths.phi == whole.strengths.phi
    pd.testing.assert_series_equal(tiled.status, whole.status)
    np.testing.assert_allclose(tiled.fit["deviance"], whole.fit["deviance"], rtol=1e-3)
    np.testing.assert_allclose(tiled.fit[["misfit", "q_value"]], whole.fit[["misfit", "q_value"]], atol=0.1)
    counted = ["observed", "expected", "dispersion"]
    np.testing.assert_allclose(tiled.gene_fit[counted], whole.gene_fit[counted], rtol=1e-3)
    # a spot may be among the worst tenth in one run alone
    assert np.corrcoef(tiled.gene_fit["unexplained"], whole.gene_fit["unexplained"])[0, 1] > 0.9


@pytest.mark.parametrize("settings", [
    {"attention": False, "standard_errors": True, "detection": True},
    {"tune": False, "lambda_spatial": 20.0}, {"lambda_spatial": 0.0},
    {"loss": "gaussian"}, {"platform": "joint"}, {"dtype": "float64"},
])  # fmt: skip
def test_settings_mean_the_same_in_tiles(tissue, settings):
    one, other = run(tissue, **settings), run(tissue, tiles=4, **settings)
    assert np.abs(one.proportions - other.proportions).to_numpy().max() <= 1e-3
    if "standard_errors" in settings:
        sure = ((one.proportions > 0.01) & (other.proportions > 0.01)).to_numpy()
        off = np.abs(other.standard_errors.to_numpy() - one.standard_errors.to_numpy())[sure]
        apart = np.abs(other.q_values.to_numpy() - one.q_values.to_numpy())[sure]
        assert np.quantile(apart, 0.99) < 0.02
        assert np.quantile(off, 0.99) < 1e-3  # a type at its bound in one run alone changes those beside it


def test_workers_and_backends_change_no_bit(tissue):
    answers = [run(tissue, tiles=4, n_jobs=jobs).proportions for jobs in (1, 2, 4)]
    with joblib.parallel_config(backend="loky"):
        answers.append(run(tissue, tiles=4, n_jobs=2).proportions)
    for answer in answers[1:]:
        np.testing.assert_array_equal(answers[0], answer)


def test_unusable_spots_have_their_reasons_in_tiles(tissue):
    spots = tissue.spots.copy().tolil()
    spots[[3, 700]] = 0
    given = (spots.tocsr(), tissue.reference, tissue.coordinates, tissue.cell_types)
    one, other = (sd.deconvolve(*given, **QUIET, **more) for more in ({}, {"tiles": 4}))
    pd.testing.assert_series_equal(one.status, other.status)
    assert other.proportions.isna().any(axis=1).sum() == 2
    assert np.nanmax(np.abs(one.proportions - other.proportions)) <= 1e-3


def test_a_store_in_tiles_and_processes(files, whole, tmp_path):
    reference = anndata.read_h5ad(files / "sc.h5ad")
    with sd.open_spots(files / "st.h5ad") as store, joblib.parallel_config(backend="loky"):
        tiled = sd.deconvolve(store, reference, cell_types="celltype", tiles=4, n_jobs=2, **QUIET)
    assert np.abs(tiled.proportions.to_numpy() - whole.proportions.to_numpy()).max() <= 1e-3


def test_a_store_gives_the_bits_of_the_matrix(files):
    reference = anndata.read_h5ad(files / "sc.h5ad")
    whole = sd.deconvolve(anndata.read_h5ad(files / "st.h5ad"), reference, cell_types="celltype", **QUIET)
    with sd.open_spots(files / "st.h5ad") as store:
        streamed = sd.deconvolve(store, reference, cell_types="celltype", **QUIET)
    np.testing.assert_array_equal(streamed.proportions, whole.proportions)
    backed = anndata.read_h5ad(files / "st.h5ad", backed="r")
    sd.tl.deconvolve(backed, reference, cell_type_key="celltype", **QUIET)
    np.testing.assert_array_equal(backed.obsm["stdeconv"], whole.proportions)


def test_the_work_folder_goes_when_the_run_is_done(tissue, tmp_path):
    work = tmp_path / "work"
    run(tissue, tiles=4, work_folder=work)
    assert not work.exists()
    kept = run(tissue, tiles=4, work_folder=work, keep_work=True)
    assert work.exists()
    again = run(tissue, tiles=4, work_folder=work, resume=True)
    np.testing.assert_array_equal(kept.proportions, again.proportions)
    assert not work.exists()
    run(tissue, work_folder=work)  # the number of tiles follows from the spots
    assert not list(tmp_path.iterdir())


def test_another_run_is_not_resumed(tissue, tmp_path):
    work = tmp_path / "work"
    run(tissue, tiles=4, work_folder=work, keep_work=True)
    with pytest.raises(DataError, match="new or empty; got .* resume=True"):
        run(tissue, tiles=4, work_folder=work)
    with pytest.raises(DataError, match=r"must be of the same run; got lambda_ridge 2.0 for 1.0, tiles 5 for 4 in"):
        run(tissue, tiles=5, work_folder=work, resume=True, lambda_ridge=2.0)
    other = sd.simulate(1500, 200, 5, kind="domains", counts_per_spot=150, seed=4)
    with pytest.raises(DataError, match="must be of the same run; got .*spots"):
        run(other, tiles=4, work_folder=work, resume=True)
    run(tissue, tiles=4, work_folder=work, resume=True, n_jobs=1)  # how fast is no matter


@pytest.mark.parametrize(("given", "kind", "message"), [
    ({"tiles": 0}, DataError, "`tiles` must be at least 1; got 0"),
    ({"tiles": 2.5}, DataTypeError, "`tiles` must be a whole number or None; got 2.5"),
    ({"resume": True}, DataError, "Pass work_folder"),
    ({"tiles": 4, "resume": "yes"}, DataTypeError, "`resume` must be True or False; got 'yes'"),
    ({"tiles": 4, "cell_level": True}, DataError, "`cell_level` must be False with tiles"),
])  # fmt: skip
def test_what_tiles_do_not_go_with(tissue, given, kind, message):
    with pytest.raises(kind, match=message):
        run(tissue, **given)


def test_a_killed_command_goes_on_where_it_stood(files, tmp_path):
    """SIGKILL at several moments: no broken output, and --resume gives the bits of an undisturbed run."""

    def invoke(out, *more):
        done = CliRunner().invoke(cli.main, command(files, out, "--tiles", 4, *more)[3:], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return anndata.read_h5ad(out).obsm["stdeconv"]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    expected, killed = invoke(tmp_path / "whole.h5ad"), 0
    for number, moment in enumerate(("blocks", "links", "settle-*")):
        out, work = tmp_path / f"out-{number}.h5ad", tmp_path / f"work-{number}"
        process = subprocess.Popen(command(files, out, "--tiles", 4, "--work", work), env=environment)
        while process.poll() is None and not list(work.glob(f"store/{moment}/*.npz")):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() < 0
        if out.exists():
            np.testing.assert_array_equal(anndata.read_h5ad(out).obsm["stdeconv"], expected)
        np.testing.assert_array_equal(invoke(out, "--work", work, "--resume"), expected)
        assert not work.exists()
    assert killed > 0
    names = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}
    outs = ["whole.h5ad", *(f"out-{number}.h5ad" for number in range(3))]
    assert names == {*outs, *(f"{name}.toml" for name in outs)}
