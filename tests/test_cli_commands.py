"""info, validate, simulate, evaluate, tune: what they print, as text and as JSON, and the faults they name."""

from __future__ import annotations

import io
import json
import re
import sys
import time
import tomllib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import sparse

import stdeconv_fast
from stdeconv_fast import cli
from stdeconv_fast.errors import DeviceError

ROOT = Path(__file__).resolve().parent.parent
SIZE = ("--n-spots", 70, "--n-genes", 60, "--n-types", 3, "--cells-per-type", 15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    done = call("simulate", "-o", folder, *SIZE, "--n-sections", 2, "--seed", 3)
    assert done.exit_code == 0 and "70 spots of 3 types, 60 genes, 45 reference cells" in done.stdout
    return folder


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def asked(folder, *more):
    files = (folder / "spatial.h5ad", folder / "reference.h5ad")
    return (*files, "--cell-type-key", "celltype", "--sample-key", "section", *more)


def refused(done, *messages):
    assert done.exit_code == 2 and not done.stdout and done.stderr.startswith("stdeconv-fast: error: "), done.output
    for message in messages:
        assert message in done.stderr


# -- info ------------------------------------------------------------------------------------------------------------


def test_info():
    said = json.loads(call("info", "--json").stdout)
    assert said["version"] == stdeconv_fast.__version__ and said["packages"]["numpy"] == np.__version__
    assert said["threads"] >= 1 and said["devices"]["auto"] in ("cpu", "cuda")
    kernels = said["kernels"]
    assert kernels["kept"] and kernels["total"] > 40 and 0 <= kernels["there"] <= kernels["total"]
    assert kernels["files"] == sum(1 for f in kernels["folders"] for _ in Path(f).glob("*.nb[ic]"))
    told = call("info")
    assert told.exit_code == 0 and f"{kernels['there']} of {kernels['total']} there" in told.stdout
    assert f"numpy {np.__version__}" in told.stdout and kernels["folders"][0] in told.stdout


def test_info_counts_kernels_that_are_there(monkeypatch, tmp_path):
    def kernel(name):
        def function():
            pass

        function.__module__, function.__qualname__ = "stdeconv_fast.kernels.cpu.fits", name
        stats = type("Stats", (), {"cache_path": str(tmp_path)})
        return type("Kernel", (), {"py_func": staticmethod(function), "stats": stats})

    names = ("one", "two", "three")
    warmup = sys.modules[cli.warmup.callback.__module__]
    monkeypatch.setattr(warmup, "list_kernels", lambda: [kernel(name) for name in names])
    for file in ("fits.one-12.py311.nbi", "fits.one-12.py311.1.nbc", "fits.two-40.py311.nbi", "other.three-1.nbi"):
        (tmp_path / file).write_bytes(b"1234")
    kernels = json.loads(call("info", "--json").stdout)["kernels"]
    assert (kernels["there"], kernels["total"], kernels["files"], kernels["megabytes"]) == (2, 3, 4, 16e-6)


def test_info_says_what_is_missing(monkeypatch):
    from stdeconv_fast import backend

    def choose(device):
        if device == "cuda":
            raise DeviceError("no such thing")
        return "cpu"

    monkeypatch.setattr(backend, "choose_device", choose)
    monkeypatch.setenv("PATH", "/nonexistent")
    devices = json.loads(call("info", "--json").stdout)["devices"]
    assert devices["cuda"] is False and devices["cuda_reason"] == "no such thing" and devices["gpus"] == []
    assert "auto takes cpu; cuda: no such thing" in call("info").stdout

    def fail(device):
        raise ImportError("libcuda is broken")

    monkeypatch.setattr(backend, "choose_device", fail)
    assert "auto fails: pass cpu; cuda: libcuda is broken" in call("info").stdout


def test_gpus_are_those_that_the_driver_lists(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for text, code, found in (("A GPU, 80 GiB", 0, ["A GPU, 80 GiB"]), ("no driver", 9, [])):
        program.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
        program.chmod(0o755)
        assert json.loads(call("info", "--json").stdout)["devices"]["gpus"] == found


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate_says_what_a_run_uses(folder, tmp_path):
    spots = anndata.read_h5ad(folder / "spatial.h5ad")
    spots.X = sparse.csr_matrix(spots.X.toarray() * (np.arange(70) != 4)[:, None])
    spots[:, :50].copy().write_h5ad(tmp_path / "st.h5ad")
    files = (tmp_path / "st.h5ad", *asked(folder)[1:])
    said = json.loads(call("validate", *files, "--json").stdout)
    run = json.loads(call("run", *files, "-o", tmp_path / "out.h5ad", "--json").stdout)
    for name in ("n_genes_shared", "n_genes_used", "n_cells", "n_spots", "status"):
        assert said[name] == run[name]
    assert said["n_spots_used"] == run["n_spots_estimated"] == 69
    assert said["cells_per_type"] == {f"type{i}": 15 for i in range(3)} and sum(said["sections"].values()) == 69
    assert 0 < said["memory_gb"] < 1 and said["platform_log2_sd"] == run["platform_log2_sd"]
    assert said["n_spots_timed"] == 69 and set(said["seconds_by_stage"]) == set(run["seconds"]) - {"total"}
    stages = sum(said["seconds_by_stage"].values())
    assert stages <= said["seconds"] <= stages + said["seconds_start"] and min(said["seconds_by_stage"].values()) >= 0
    told = call("validate", *files)
    assert told.exit_code == 0
    used = "69 of 70 would be used (1 no counts), in 2 section(s)"
    for text in (used, "of 50 shared", "all spots were solved just now", "without writing", "none"):
        assert text in told.stdout
    told = call("validate", *files, "--no-time")
    assert "not estimated" in told.stdout and json.loads(call("validate", *files, "--no-time", "--json").stdout)[
        "seconds"
    ] is None
    tiled = json.loads(call("validate", *files, "--json", "--tiles", 2).stdout)
    assert tiled["n_genes_used"] == said["n_genes_used"] and tiled["status"] == said["status"]


def test_validate_gives_the_warnings_of_a_run(folder):
    told = call("validate", *asked(folder), "--set", "k_neighbors=60")
    assert told.exit_code == 0 and told.stderr.count("warning: k_neighbors=60 is more than") == 1
    said = json.loads(call("validate", *asked(folder), "--set", "k_neighbors=60", "--json").stdout)
    assert len(said["warnings"]) == 1 and "k_neighbors=60" in said["warnings"][0]


def test_validate_names_all_faults_at_once(folder, tmp_path):
    spots = anndata.read_h5ad(folder / "spatial.h5ad")
    spots.X = spots.X.astype(np.float32)
    spots.X.data[5] = -3
    del spots.obsm["spatial"]
    spots.write_h5ad(tmp_path / "st.h5ad")
    files = (tmp_path / "st.h5ad", folder / "reference.h5ad")
    done = call("validate", *files, "--cell-type-key", "type")
    refused(done, "3 faults in the input", "must be finite and >= 0; got -3 at spot", "Pass --cell-type-key 'celltype'")
    refused(
        call("validate", tmp_path / "none.h5ad", folder / "truth.csv", "--cell-type-key", "celltype"),
        "2 faults in the files", "SPATIAL must be", "REFERENCE must be",
    )  # fmt: skip
    refused(  # one file that cannot be read does not hide what is wrong with the other
        call("validate", tmp_path / "none.h5ad", folder / "reference.h5ad", "--cell-type-key", "type"),
        "2 faults in the files", "there is no such file", "must have the column 'type'; got 'celltype'",
    )  # fmt: skip
    refused(
        call("validate", files[0], folder / "truth.csv", "--cell-type-key", "type", "--sample-key", "slide"),
        "4 faults in the files", "REFERENCE must be an h5ad file", "SPATIAL.obsm must have the key 'spatial'",
        "must have the column 'slide'", "must be finite and >= 0; got -3",
    )  # fmt: skip
    refused(call("validate", *asked(folder), "--set", "phi=7", "--set", "n_iter=0"), "2 faults in the settings")
    refused(call("validate", *asked(folder), "--set", "max_memory=0.001"), "must fit into memory")
    refused(call("validate", *asked(folder), "--set", "objective=original"), "must have objective='model'")
    refused(call("validate", *asked(folder), "--sample-key", "stdeconv_status"), "stdeconv_status")
    assert "Missing option '--cell-type-key'" in call("validate", *files).stderr


# -- simulate and evaluate -------------------------------------------------------------------------------------------


def test_simulate_writes_the_tissue_of_the_library(folder, tmp_path):
    tissue = stdeconv_fast.simulate(70, 60, 3, cells_per_type=15, n_sections=2, seed=3)
    assert (tissue.spots != anndata.read_h5ad(folder / "spatial.h5ad").X).nnz == 0
    assert (tissue.reference != anndata.read_h5ad(folder / "reference.h5ad").X).nnz == 0
    pd.testing.assert_frame_equal(pd.read_csv(folder / "truth.csv", index_col="spot"), tissue.truth, check_names=False)
    said = json.loads(call("simulate", "-o", tmp_path / "new", *SIZE, "--json").stdout)
    assert Path(said["truth"]).exists() and said["n_cells"] == 45 and said["parameters"]["n_spots"] == 70
    refused(call("simulate", "-o", tmp_path / "no", "--n-spots", 0, "--kind", "odd"), "n_spots", "kind")
    assert not (tmp_path / "no").exists()


def test_evaluate(folder, tmp_path):
    out = tmp_path / "out.h5ad"
    run = call("run", *asked(folder), "-o", out, "--no-counts", "--csv", tmp_path / "out.csv", "--quiet")
    assert run.exit_code == 0
    truth = pd.read_csv(folder / "truth.csv", index_col="spot")
    wanted = stdeconv_fast.evaluate(anndata.read_h5ad(out).obsm["stdeconv"], truth)
    said = json.loads(call("evaluate", out, folder / "truth.csv", "--json").stdout)
    assert said["pearson"] == pytest.approx(wanted["pearson"], abs=1e-12) and said["n_spots"] == 70
    assert said["per_type"]["type1"]["rmse"] == pytest.approx(wanted["per_type"]["rmse"]["type1"], abs=1e-12)
    truth.to_csv(tmp_path / "truth.tsv", sep="\t")
    said = json.loads(call("evaluate", tmp_path / "out.csv", tmp_path / "truth.tsv", "--json").stdout)
    assert said["pearson"] == pytest.approx(wanted["pearson"], abs=1e-4)
    told = call("evaluate", out, folder / "truth.csv")
    assert told.exit_code == 0 and f"{wanted['pearson']:.4f}" in told.stdout and "type2" in told.stdout
    truth["type0"] = 1 / 3
    truth["type1"] = 1 / 3
    truth["type2"] = 1 / 3
    truth.to_csv(tmp_path / "even.csv")
    assert json.loads(call("evaluate", out, tmp_path / "even.csv", "--json").stdout)["pearson"] is None

    refused(call("evaluate", out, folder / "truth.csv", "--key", "mix"), "must have the key 'mix' in obsm")
    refused(call("evaluate", folder / "none.csv", folder / "no.csv"), "2 faults", "none.csv", "no.csv")
    (tmp_path / "words.csv").write_text("spot,a\ns1,high\n")
    refused(call("evaluate", tmp_path / "words.csv", folder / "truth.csv"), "got text in 'a'")
    (tmp_path / "empty.csv").write_text("")
    refused(call("evaluate", tmp_path / "empty.csv", folder / "truth.csv"), "must be a table")
    refused(call("evaluate", folder / "spatial.h5ad", folder / "truth.csv", "--key", "spatial"), "got an array")
    (tmp_path / "t.xls").write_text("")
    refused(call("evaluate", tmp_path / "t.xls", folder / "truth.csv"), "must end in .csv")


# -- tune ------------------------------------------------------------------------------------------------------------


def test_tune(folder, tmp_path):
    grid = ("--grid", "lambda_spatial=0,0.5", "--grid", "platform=pooled,none", "--set", "tune=false")
    best, files = tmp_path / "best.toml", asked(folder)[:2]
    done = call("tune", *asked(folder), *grid, "--json", "--best", best, "--csv", tmp_path / "t.csv")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    spots, cells = (anndata.read_h5ad(folder / f"{name}.h5ad") for name in ("spatial", "reference"))
    wanted = stdeconv_fast.tl.tune(
        spots, cells, {"lambda_spatial": [0.0, 0.5], "platform": ["pooled", "none"]}, cell_type_key="celltype",
        sample_key="section", tune=False,
    )  # fmt: skip
    assert said["best"] == wanted.best and len(said["trials"]) == 4
    np.testing.assert_allclose([trial["score"] for trial in said["trials"]], wanted.table["score"], atol=1e-12)
    assert tomllib.loads(best.read_text())["settings"] == {"tune": False, **wanted.best}
    assert len(pd.read_csv(tmp_path / "t.csv")) == 4
    run = call("run", *files, "--config", best, "-o", tmp_path / "out.h5ad", "--json")
    settings = json.loads(run.stdout)["settings"]
    assert {name: settings[name] for name in wanted.best} == wanted.best and settings["tune"] is False
    told = call("tune", *asked(folder), *grid, "--work", tmp_path / "work")
    assert f"Best by held_out: --set lambda_spatial={wanted.best['lambda_spatial']}" in told.stdout
    again = call("tune", *asked(folder), *grid, "--work", tmp_path / "work", "--resume")
    assert again.stdout == told.stdout  # the seconds too: nothing was run again


def test_tune_draws(folder):
    grid = ("--grid", "lambda_spatial=log:0.1:2", "--grid", "phi=uniform:0.5:1", "--set", "tune=false")
    trials = json.loads(call("tune", *asked(folder), *grid, "--n-trials", 3, "--json").stdout)["trials"]
    assert len({trial["phi"] for trial in trials}) == 3
    assert all(0.1 <= trial["lambda_spatial"] <= 2 and 0.5 <= trial["phi"] <= 1 for trial in trials)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("phi", "--grid must be NAME=V1,V2,...; got 'phi'"),
        ("phi=high", "--grid phi must be a number; got 'high'"),
        ("lamda=1", "--grid must name one of phi"),
        ("exclude_types=a", "--grid must not name exclude_types"),
        ("phi=log:0:1", "--grid phi must be log:LOW:HIGH with LOW < HIGH"),
        ("phi=uniform:0.1:0.5", "without --n-trials; got a distribution for 'phi'"),
        ("seed=1,2", "got 'seed'"),
    ],
)
def test_faults_of_a_grid(folder, grid, message):
    refused(call("tune", *asked(folder), "--grid", grid), message)


# -- help, completion, the example -----------------------------------------------------------------------------------


def test_help_tells_exit_codes_and_completion(monkeypatch):
    told = " ".join(call("--help").stdout.split())
    assert "2 input, settings or options that cannot be used" in told and "130 interrupted" in told
    line = 'eval "$(_STDECONV_FAST_COMPLETE=bash_source stdeconv-fast)"'
    assert line in told
    name, value = re.search(r"(_\w+)=(\w+)", line).groups()
    done = CliRunner().invoke(cli.main, [], prog_name="stdeconv-fast", env={name: value})
    assert done.exit_code == 0 and "_stdeconv_fast_completion" in done.stdout
    words = {"COMP_WORDS": "stdeconv-fast va", "COMP_CWORD": "1", name: "bash_complete"}
    done = CliRunner().invoke(cli.main, [], prog_name="stdeconv-fast", env=words)
    assert done.stdout.split() == ["plain,validate"]


def test_the_workflow_names_options_that_there_are():
    text = (ROOT / "examples" / "Snakefile").read_text()
    commands = re.findall(r"stdeconv-fast (\w+) (.*)", text.replace('"\n        "', ""))
    assert {name for name, _ in commands} == {"validate", "run"} and len(commands) == 3
    for name, rest in commands:
        known = {option for parameter in cli.main.commands[name].params for option in parameter.opts}
        given = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest))
        assert given and given <= known, f"{name} has no {given - known}"


def test_progress_counts_the_trials_that_are_done(tmp_path, monkeypatch):
    """On a terminal: the bar follows the work folder, those of an earlier run included."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    searches = sys.modules[cli.tune.callback.__module__]
    monkeypatch.setattr(searches, "LOOK", 0.01)
    monkeypatch.setattr(sys, "stderr", shown)
    trials = tmp_path / "work" / "store" / "trials"
    trials.mkdir(parents=True)
    with searches.count_trials(tmp_path / "work", 4):
        for number in range(3):
            (trials / f"{number:06d}.npz").touch()
        deadline = time.monotonic() + 20
        while "3/4" not in shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "3/4" in shown.getvalue()
