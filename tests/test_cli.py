"""The command line: what it writes and says, and that faults leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from stdeconv_fast import cli, simulate, tl
from stdeconv_fast.io import results

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input")
    spots, reference = simulate(80, 60, 3, cells_per_type=12, n_sections=2, seed=2, as_anndata=True)
    spots.obs["remark"] = pd.Series(["a", None] * 40, index=spots.obs_names, dtype=object)
    spots.layers["counts"] = spots.X.copy()
    spots.write_h5ad(folder / "st.h5ad")
    reference.write_h5ad(folder / "sc.h5ad")
    return folder / "st.h5ad", folder / "sc.h5ad"


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def run(files, out, *more):
    return call("run", *files, "--cell-type-key", "celltype", "--sample-key", "section", "-o", out, *more)


def refused(result, message):
    """Exit code 2, one message on stderr, nothing on stdout."""
    assert result.exit_code == 2 and not result.stdout
    assert result.stderr.startswith("stdeconv-fast: error: ") and "Traceback" not in result.stderr
    assert message in result.stderr


def test_run(files, tmp_path):
    out, csv = tmp_path / "out.h5ad", tmp_path / "out.csv"
    result = run(files, out, "--csv", csv, "--seed", 5, "--n-jobs", 1)
    assert result.exit_code == 0 and not result.stderr
    assert "80 of 80 estimated" in result.stdout and str(csv) in result.stdout and "smoothing" in result.stdout
    assert "median deviance " in result.stdout and " a count\n" in result.stdout
    written = anndata.read_h5ad(out)
    spots, reference = (anndata.read_h5ad(file) for file in files)
    tl.deconvolve(spots, reference, cell_type_key="celltype", sample_key="section", seed=5, progress=False)
    np.testing.assert_array_equal(written.obsm["stdeconv"].to_numpy(), spots.obsm["stdeconv"].to_numpy())
    assert (written.X != spots.X).nnz == 0 and {"remark", "stdeconv_status", "stdeconv_dominant"} < set(written.obs)
    assert written.uns["stdeconv_params"]["settings"]["seed"] == 5
    table = pd.read_csv(csv, index_col="spot")
    np.testing.assert_allclose(table, spots.obsm["stdeconv"], atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv", "out.h5ad", "out.h5ad.toml"]


def test_json_and_settings(files, tmp_path):
    result = run(
        files, tmp_path / "out.h5ad", "--json", "--cell-level", "--layer-st", "counts", "--set", "tune=false",
        "--set", "lambda_spatial=0.5", "--set", "k_neighbors=60", "--set", "exclude_types=type1,",
        "--set", "loss=poisson", "--set", "standard_errors=true",
    )  # fmt: skip
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    said = json.loads(result.stdout)
    assert said["n_spots"] == said["n_spots_estimated"] == 80 and said["status"] == {"ok": 80}
    assert said["lambda_spatial"] == 10 and said["tuned"] is False
    assert set(said["mean_proportions"]) == {"type0", "type2"}
    settings = said["settings"]
    assert settings["k_neighbors"] == 60 and settings["exclude_types"] == ["type1"]
    assert settings["cell_level"] is True and settings["max_cells_per_type"] == 100
    assert result.stderr.startswith("warning: k_neighbors=60 is more than") and result.stderr.count("\n") == 1
    assert any("k_neighbors=60" in note for note in said["notes"])
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert written.obsm["stdeconv_cells"].shape == (80, 24) and written.obsm["stdeconv_se"].shape == (80, 2)
    assert said["median_deviance"] == written.obs["stdeconv_deviance"].median() > 0


def test_quiet(files, tmp_path):
    result = run(files, tmp_path / "out.h5ad", "--quiet", "--set", "k_neighbors=60")
    assert result.exit_code == 0 and not result.output


def test_an_old_output_is_replaced_and_the_input_never(files, tmp_path):
    out = tmp_path / "out.h5ad"
    out.write_text("old")
    assert run(files, out).exit_code == 0
    assert anndata.read_h5ad(out).n_obs == 80
    before = files[0].read_bytes()
    refused(run(files, files[0]), "--out must not be the same file as SPATIAL")
    refused(run(files, tmp_path / "b.h5ad", "--csv", files[1]), "--csv must not be the same file as REFERENCE")
    refused(run(files, tmp_path / "b.h5ad", "--csv", tmp_path / "b.h5ad"), "--csv must not be the same file as --out")
    (tmp_path / "link.h5ad").symlink_to(files[0])
    refused(run(files, tmp_path / "link.h5ad"), "--out must not be the same file as SPATIAL")
    assert files[0].read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lamda=3", "--set must name one of phi, lambda_cell, lambda_spatial"),
        ("phi", "--set must be NAME=VALUE; got 'phi'"),
        ("phi=high", "--set phi must be a number; got 'high'"),
        ("n_iter=2.5", "--set n_iter must be a whole number; got '2.5'"),
        ("tune=maybe", "--set tune must be true or false; got 'maybe'"),
        ("seed=3", "Use --seed"),
        ("phi=7", "`phi` must be a number from 0 to 1; got 7.0"),
        ("standard_errors=often", "--set standard_errors must be true or false; got 'often'"),
        ("loss=huber", "`loss` must be one of poisson, gaussian; got 'huber'"),
    ],
)
def test_bad_settings(files, tmp_path, setting, message):
    refused(run(files, tmp_path / "out.h5ad", "--set", setting), message)
    assert not list(tmp_path.iterdir())


def test_faults_leave_nothing_behind(files, tmp_path):
    text = tmp_path / "text.h5ad"
    text.write_text("no h5ad")
    out = tmp_path / "out" / "out.h5ad"
    refused(run(files, out), f"there is no folder '{out.parent}'")
    out.parent.mkdir()
    refused(run((tmp_path / "none.h5ad", files[1]), out), "there is no such file")
    refused(run((out.parent, files[1]), tmp_path / "other.h5ad"), "got the folder")
    refused(run((text, files[1]), out), "got")
    refused(run((files[0], text), out), "REFERENCE must be an h5ad file or a zarr folder")
    refused(run(files, tmp_path / "out" / "out.txt"), ".h5ad")
    refused(run(files, out, "--device", "tpu"), "--device must be one of")
    refused(run(files, out, "--n-jobs", 0), "--n-jobs must not be 0")
    refused(call("run", *files, "--cell-type-key", "type", "-o", out), "must have the column 'type'; got 'celltype'")
    refused(run(files, out, "--spatial-key", "xy"), "must have the key 'xy'")
    assert not list(out.parent.iterdir())


def test_what_goes_wrong_while_writing(files, tmp_path, monkeypatch):
    out = tmp_path / "out.h5ad"
    out.write_text("old")

    def broken(fault):
        def write(group, name, value):
            raise fault

        monkeypatch.setattr(results.copies, "write", write)
        return run(files, out, "--csv", tmp_path / "out.csv")

    refused(broken(OSError(28, "No space left on device")), "No space left on device")
    refused(broken(TypeError("no way to write this\nmore")), f"'{out}' cannot be written: no way to write this")
    result = broken(KeyboardInterrupt())
    assert result.exit_code == 130 and not result.stdout and "Traceback" not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5ad"] and out.read_text() == "old"


def test_demo(tmp_path):
    result = call("demo", "--out", tmp_path / "new", "--n-spots", 120)
    assert result.exit_code == 0, result.output
    for word in ("pearson", "tuning", str(tmp_path / "new" / "map.png")):
        assert word in result.stdout
    table = pd.read_csv(tmp_path / "new" / "proportions.csv", index_col="spot")
    assert table.shape == (120, 8)
    assert (tmp_path / "new" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new").iterdir())) == 2
    (tmp_path / "file").touch()
    refused(call("demo", "--out", tmp_path / "file"), "File exists")
    refused(call("demo", "--out", tmp_path, "--n-jobs", 0), "--n-jobs must not be 0")


def test_as_a_program(tmp_path):
    """Help is quick to come: it loads nothing of the numerics."""
    code = (
        "import sys; from click.testing import CliRunner; from stdeconv_fast import cli;"
        "r = CliRunner().invoke(cli.main, ['run', '--help']); print(r.exit_code);"
        "print(sorted({'numpy', 'pandas', 'numba', 'anndata', 'matplotlib'} & set(sys.modules)))"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "[]"]
    done = subprocess.run(
        [sys.executable, "-m", "stdeconv_fast.cli", "run", "a.h5ad", "b.h5ad", "--cell-type-key", "t", "-o", "c.h5ad"],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    message = "SPATIAL must be a file or a folder; got 'a.h5ad': there is no such file."
    assert done.stderr == f"stdeconv-fast: error: {message}\n"
    assert call("--version").stdout.startswith("stdeconv-fast ")


def test_too_little_room_is_told_before_the_run(files, monkeypatch, tmp_path):
    out = tmp_path / "out.h5ad"
    out.write_text("old")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    refused(run(files, out, "--quiet"), "got")
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]


def test_without_counts(files, tmp_path):
    for name in ("whole.h5ad", "small.h5ad"):
        assert run(files, tmp_path / name, *(["--no-counts"] if name == "small.h5ad" else [])).exit_code == 0
    whole, small = (anndata.read_h5ad(tmp_path / name) for name in ("whole.h5ad", "small.h5ad"))
    assert small.X is None and whole.X is not None
    np.testing.assert_array_equal(whole.obsm["stdeconv"], small.obsm["stdeconv"])
    assert list(whole.obs.columns) == list(small.obs.columns)


def test_zarr_and_tiles_give_the_answer_of_the_h5ad(files, tmp_path):
    pytest.importorskip("zarr")
    spots = anndata.read_h5ad(files[0])
    spots.write_zarr(tmp_path / "st.zarr")
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    spots[:33].write_h5ad(tiles / "a.h5ad")
    spots[33:].copy().write_zarr(tiles / "b.zarr")
    shares = {}
    for name, source in (("h5ad", files[0]), ("zarr", tmp_path / "st.zarr"), ("h5ad", tiles)):
        out = tmp_path / f"out.{name}"
        assert run((source, files[1]), out).exit_code == 0
        read = anndata.read_h5ad if name == "h5ad" else anndata.read_zarr
        shares[str(source)] = read(out).obsm["stdeconv"]
    one, two, three = shares.values()
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)


def test_a_second_run_replaces_the_first(files, tmp_path):
    """What an earlier run wrote into the input does not come through."""
    first, second = tmp_path / "first.h5ad", tmp_path / "second.h5ad"
    assert run(files, first, "--set", "standard_errors=true", "--cell-level").exit_code == 0
    assert {"stdeconv_se", "stdeconv_cells"} <= set(anndata.read_h5ad(first).obsm)
    assert run((first, files[1]), second).exit_code == 0
    written = anndata.read_h5ad(second)
    assert set(written.obsm) == {"spatial", "stdeconv"} and "stdeconv_cells" not in written.uns


def test_bad_values_on_disk_are_named(files, tmp_path):
    spots = anndata.read_h5ad(files[0])
    for value, message in ((-3.0, "must be finite and >= 0; got -3 at spot"), (1.5, "whole numbers; got 1.5 at spot")):
        bad = spots.copy()
        bad.X = bad.X.astype(np.float32)
        bad.X.data[5] = value
        bad.write_h5ad(tmp_path / "bad.h5ad")
        refused(run((tmp_path / "bad.h5ad", files[1]), tmp_path / "out.h5ad"), message)
    assert not (tmp_path / "out.h5ad").exists()
