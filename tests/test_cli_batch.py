"""Batches: three files, one broken; what is finished is skipped, and only where it is what was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from stdeconv_fast import cli, simulate
from stdeconv_fast.cli import batches, sections
from stdeconv_fast.studies import references


@pytest.fixture
def files(tmp_path):
    spots, cells = simulate(180, 50, 3, cells_per_type=12, n_sections=3, seed=2, as_anndata=True)
    for number, name in enumerate("abc"):
        spots[spots.obs["section"] == f"section{number}"].write_h5ad(tmp_path / f"{name}.h5ad")
    cells.write_h5ad(tmp_path / "sc.h5ad")
    return [tmp_path / f"{name}.h5ad" for name in "abc"], tmp_path / "sc.h5ad", tmp_path / "outs"


def call(*arguments):
    return CliRunner().invoke(cli.main, ["run", *(str(a) for a in arguments)], catch_exceptions=False)


def batch(files, *more):
    spatial, reference, outs = files
    return call(*spatial, reference, "--cell-type-key", "celltype", "--out-dir", outs, *more)


def statuses(done):
    return [row["status"] for row in json.loads(done.stdout)["files"]]


def test_one_broken_file_does_not_end_the_others(files, monkeypatch):
    (one, broken, other), reference, outs = files
    whole = broken.read_bytes()
    broken.write_bytes(whole[:5000])
    built = []
    build = references.build_reference
    monkeypatch.setattr(references, "build_reference", lambda *a, **k: built.append(1) or build(*a, **k))
    done = batch(files)
    assert done.exit_code == 3 and len(built) == 1
    header, *lines = done.stdout.splitlines()
    assert header.split()[:3] == ["file", "status", "seconds"]
    assert [line.split()[1] for line in lines] == ["done", "failed", "done"]
    assert done.stderr.startswith(f"stdeconv-fast: error: {broken}: ") and "Traceback" not in done.stderr
    names = {"a.h5ad", "a.h5ad.toml", "c.h5ad", "c.h5ad.toml"}
    assert {file.name for file in outs.iterdir()} == names

    alone = one.parent / "alone.h5ad"  # a file by itself, and a file of settings of the batch: the same bits
    assert call(one, reference, "--cell-type-key", "celltype", "-o", alone).exit_code == 0
    again = one.parent / "again.h5ad"
    assert call("--config", outs / "a.h5ad.toml", "-o", again).exit_code == 0
    shares = [anndata.read_h5ad(file).obsm["stdeconv"].to_numpy() for file in (outs / "a.h5ad", alone, again)]
    np.testing.assert_array_equal(shares[0], shares[1])
    np.testing.assert_array_equal(shares[0], shares[2])

    broken.write_bytes(whole)
    done = batch(files, "--resume", "--json", "--n-jobs", 1)
    assert done.exit_code == 0 and statuses(done) == ["skipped", "done", "skipped"]
    said = json.loads(done.stdout)
    assert (said["n_done"], said["n_skipped"], said["n_failed"]) == (1, 2, 0) and len(built) == 2
    row = said["files"][1]
    assert row["seconds"] > 0 and row["summary"]["n_spots"] == 60 and row["error"] is None
    if Path("/proc/self/clear_refs").exists():
        assert row["memory_mb"] > 10
    assert statuses(batch(files, "--resume", "--json")) == ["skipped"] * 3 and len(built) == 2
    assert statuses(batch(files, "--json")) == ["done"] * 3


def test_only_what_is_asked_for_counts_as_finished(files):
    (one, two, three), reference, outs = files
    assert batch(files).exit_code == 0
    spots = anndata.read_h5ad(one)
    spots.X[0, 0] += 1
    spots.write_h5ad(one)  # other input
    two_out = outs / "b.h5ad"
    two_out.write_bytes(two_out.read_bytes()[:4000])  # not whole
    (outs / "c.h5ad.toml").unlink()
    done = batch(files, "--resume", "--json")
    rows = json.loads(done.stdout)["files"]
    assert [row["status"] for row in rows] == ["done"] * 3
    notes = [row["note"] for row in rows]
    assert notes == ["made anew: other SPATIAL", "made anew: it was not whole", "made anew: no settings beside it"]
    rows = json.loads(batch(files, "--resume", "--json", "--set", "phi=0.9", "--no-counts").stdout)["files"]
    assert {row["note"] for row in rows} == {"made anew: other no_counts, phi"}
    cells = anndata.read_h5ad(reference)
    cells[:-1].copy().write_h5ad(reference)
    rows = json.loads(batch(files, "--resume", "--json", "--set", "phi=0.9", "--no-counts").stdout)["files"]
    assert {row["note"] for row in rows} == {"made anew: other REFERENCE"}
    assert call(one, reference, "--cell-type-key", "celltype", "-o", outs / "a.h5ad").exit_code == 0
    rows = json.loads(batch(files, "--resume", "--json", "--set", "phi=0.9", "--no-counts").stdout)["files"]
    assert [row["note"] for row in rows][0] == "made anew: it was not of a batch"
    assert [row["status"] for row in rows] == ["done", "skipped", "skipped"]


def test_a_failure_does_not_leave_an_old_answer_as_finished(files):
    (one, two, three), reference, outs = files
    assert batch(files).exit_code == 0
    whole = two.read_bytes()
    two.write_bytes(b"no h5ad")
    assert statuses(batch(files, "--resume", "--json")) == ["skipped", "failed", "skipped"]
    two.write_bytes(whole)
    assert statuses(batch(files, "--resume", "--json")) == ["skipped", "done", "skipped"]


def test_faults_of_the_whole_batch(files, tmp_path):
    (one, two, three), reference, outs = files
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(one, other / "a.h5ad")
    key = ("--cell-type-key", "celltype")
    for arguments, message in (
        ((one, other / "a.h5ad", reference, *key, "--out-dir", outs), "must have names that differ; got 'a' twice"),
        ((one, two, reference, *key, "--out-dir", tmp_path), "must be another folder than that of the input"),
        ((one, two, reference, *key, "--out-dir", outs, "--csv", one), "--csv must be a folder for a batch"),
        ((one, two, reference, *key, "--out-dir", outs, "--work", one), "--work must be a folder for a batch"),
        ((one, two, reference, "--out-dir", outs), "Missing option '--cell-type-key'"),
        ((one, two, tmp_path / "none.h5ad", *key, "--out-dir", outs), "REFERENCE must be a file or a folder"),
        ((one, two, reference, "--cell-type-key", "type", "--out-dir", outs), "must have the column 'type'"),
        ((one, two, reference, *key, "--out-dir", outs, "--set", "phi=7"), "`phi` must be a number from 0 to 1"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2 and not done.stdout and message in done.stderr, done.stderr
    assert not outs.exists() or not list(outs.iterdir())


def test_a_batch_from_a_file_of_settings(files):
    spatial, reference, outs = files
    text = f"[run]\nspatial = {json.dumps([file.name for file in spatial])}\nreference = 'sc.h5ad'\nout_dir = 'outs'\n"
    config = reference.parent / "batch.toml"
    config.write_text(text + "cell_type_key = 'celltype'\n[settings]\ntune = false\n")
    done = call("--config", config, "--quiet")
    assert done.exit_code == 0 and not done.output
    assert len(list(outs.glob("*.h5ad"))) == 3
    assert anndata.read_h5ad(outs / "a.h5ad").uns["stdeconv_params"]["settings"]["tune"] == False  # noqa: E712


def test_values_that_are_no_counts_are_read_anew_by_every_run(files):
    spatial, reference, outs = files
    cells = anndata.read_h5ad(reference)
    cells.X = cells.X * 0.5
    cells.write_h5ad(reference)
    done = batch(files)
    assert done.exit_code == 2 and "raw counts" in done.stderr
    done = batch(files, "--set", "check_counts=false", "--json")
    assert done.exit_code == 0 and statuses(done) == ["done"] * 3


def test_each_file_has_a_table_and_a_work_folder_of_its_own(files, tmp_path, monkeypatch):
    (one, two, three), reference, outs = files
    tables, work = tmp_path / "tables", tmp_path / "work"
    given = []
    run = sections.deconvolve_file
    monkeypatch.setattr(
        batches, "deconvolve_file", lambda *a, **k: given.append((k["work"], k["resume"])) or run(*a, **k)
    )
    more = ("--csv", tables, "--work", work, "--tiles", 2)
    assert statuses(batch(files, *more, "--json")) == ["done"] * 3
    assert given == [(str(work / name), False) for name in "abc"] and not list(work.iterdir())
    for file, name in zip((one, two, three), "abc", strict=True):
        table = pd.read_csv(tables / f"{name}.csv", index_col="spot")
        assert list(table.index) == list(anndata.read_h5ad(file).obs_names) and table.notna().all(axis=None)
    (tables / "b.csv").unlink()
    (work / "b").mkdir()  # as a killed run leaves it, say
    del given[:]
    done = batch(files, *more, "--resume", "--json")
    assert statuses(done) == ["skipped", "done", "skipped"] and (tables / "b.csv").is_file()
    assert given == [(str(work / "b"), True)]
