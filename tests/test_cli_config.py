"""Settings from a TOML file and written back: a run is repeated to the bit, flags beat the file, faults are named."""

from __future__ import annotations

import json
import tomllib

import anndata
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from stdeconv_fast import cli, simulate
from stdeconv_fast.cli.recipes import to_toml

FILES = '[run]\nspatial = "st.h5ad"\nreference = "sc.h5ad"\ncell_type_key = "celltype"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    spots, reference = simulate(80, 60, 3, cells_per_type=12, n_sections=2, seed=2, as_anndata=True)
    spots.write_h5ad(folder / "st.h5ad")
    reference.write_h5ad(folder / "sc.h5ad")
    return folder


def call(*arguments):
    return CliRunner().invoke(cli.main, ["run", *(str(a) for a in arguments)], catch_exceptions=False)


def config(folder, text):
    (folder / "some.toml").write_text(text)
    return folder / "some.toml"


def test_the_file_that_is_written_repeats_the_run(folder, tmp_path):
    out, again = tmp_path / "out.h5ad", tmp_path / "again.h5ad"
    done = call(
        folder / "st.h5ad", folder / "sc.h5ad", "--cell-type-key", "celltype", "--sample-key", "section", "--seed", 7,
        "--set", "exclude_types=type1", "--cell-level", "--standard-errors", "--csv", tmp_path / "t.csv", "-o", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (tmp_path / "t.csv").unlink()
    done = call("--config", f"{out}.toml", "-o", again)
    assert done.exit_code == 0 and not done.stderr
    assert not (tmp_path / "t.csv").exists()  # it belongs to the place that --out took the place of
    first, second = (anndata.read_h5ad(file) for file in (out, again))
    for key in ("stdeconv", "stdeconv_se"):
        assert first.obsm[key].to_numpy().tobytes() == second.obsm[key].to_numpy().tobytes()
    assert first.obsm["stdeconv_cells"].data.tobytes() == second.obsm["stdeconv_cells"].data.tobytes()
    before, now = (tomllib.loads((tmp_path / f"{name}.h5ad.toml").read_text()) for name in ("out", "again"))
    assert before["settings"] == now["settings"] and before["made"] == now["made"]
    assert before["settings"]["seed"] == 7 and before["settings"]["max_cells_per_type"] == 100
    assert before["settings"]["device"] == "cpu"
    assert set(before["made"]["inputs"]) == {"spots", "coordinates", "sections", "reference"}
    del before["run"]["csv"]
    assert before["run"] | {"out": str(again)} == now["run"]


def test_input_that_has_changed_is_told(folder, tmp_path):
    spots = anndata.read_h5ad(folder / "st.h5ad")
    spots.write_h5ad(tmp_path / "st.h5ad")
    asked = (folder / "sc.h5ad", "--cell-type-key", "celltype", "-o", tmp_path / "out.h5ad")
    assert call(tmp_path / "st.h5ad", *asked).exit_code == 0
    spots[:60].copy().write_h5ad(tmp_path / "st.h5ad")
    done = call("--config", tmp_path / "out.h5ad.toml")
    assert done.exit_code == 0
    assert "warning: what is read has changed since" in done.stderr and "spots" in done.stderr
    assert anndata.read_h5ad(tmp_path / "out.h5ad").n_obs == 60


def test_flags_beat_the_file_and_the_file_beats_the_defaults(folder, tmp_path):
    text = FILES + 'sample_key = "section"\n[settings]\nphi = 1\nseed = 3\ndetection = true\ntune = false\n'
    out = tmp_path / "out.h5ad"
    done = call("--config", config(folder, text), "-o", out, "--seed", 4, "--no-detection", "--json")
    assert done.exit_code == 0, done.output
    settings = json.loads(done.stdout)["settings"]
    assert (settings["phi"], settings["seed"], settings["detection"], settings["tune"]) == (1.0, 4, False, False)
    assert settings["n_iter"] == 5 and "stdeconv_q" not in anndata.read_h5ad(out).obsm
    done = call("--config", config(folder, text), "-o", out, "--set", "phi=0.5", "--json", "--unknown")
    settings = json.loads(done.stdout)["settings"]
    assert settings["phi"] == 0.5 and settings["unknown"] is True
    assert {"unknown"} < set(anndata.read_h5ad(out).obsm["stdeconv"]) and "stdeconv_q" in anndata.read_h5ad(out).obsm


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phi = 1", "must hold in the file the tables run, settings, made; got 'phi'. Leave it out."),
        ("[run]\nspatail = 'a'", "got 'spatail'. Did you mean 'spatial'?"),
        ("[settings]\nlamda_cell = 1", "got 'lamda_cell'. Did you mean 'lambda_cell'?"),
        ("[settings]\nprogress = true", "got 'progress'. Pass --quiet on the command line."),
        ("[run]\nresume = true", "got 'resume'. Pass --resume on the command line."),
        ("[run]\ntiles = 1.5\nno_counts = 1", "2 faults in the config file"),
        ("[run]\nspatial = []", "must hold a text or a list of texts as spatial in [run]; got []"),
        ("settings = 3", "must hold the table [settings]; got the value 3"),
        (FILES + "[settings]\nphi = 7\nseed = 'x'", "2 faults in the settings"),
        ("[run\n", "--config must be a TOML file"),
    ],
)
def test_faults_in_the_file(folder, tmp_path, text, message):
    done = call("--config", config(folder, text), "-o", tmp_path / "out.h5ad")
    assert done.exit_code == 2 and not done.stdout and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_given_nowhere(folder, tmp_path):
    out, empty = tmp_path / "out.h5ad", config(folder, "")
    for arguments, message in (
        (("--config", tmp_path / "none.toml", "-o", out), "there is no such file"),
        (("--config", empty, "-o", out), "Missing argument 'SPATIAL'"),
        (("--config", empty, "a.h5ad", "-o", out), "Missing argument 'REFERENCE'"),
        (("a.h5ad", "b.h5ad"), "Missing option '-o'"),
        (("a.h5ad", "b.h5ad", "-o", out, "--out-dir", tmp_path), "exclude each other"),
        (("a.h5ad", "b.h5ad", "c.h5ad", "-o", out), "need '--out-dir'"),
        ((folder / "st.h5ad", folder / "sc.h5ad", "-o", out), "Missing option '--cell-type-key'"),
        (("a.h5ad", "b.h5ad", "-o", out, "--set", "unknown=false", "--unknown"), "must not contradict --unknown"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), TEXTS)


@given(st.dictionaries(TEXTS, st.one_of(VALUES, st.lists(VALUES), st.dictionaries(TEXTS, VALUES))))
def test_any_value_comes_back(values):
    assert tomllib.loads(f"a = {to_toml(values)}")["a"] == values
