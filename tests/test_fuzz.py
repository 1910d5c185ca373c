"""A few seconds of benchmarks/fuzz.py with a fixed seed, and every fault that it found, one by one."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import sparse as sp

import stdeconv_fast as sd
from benchmarks import fuzz
from stdeconv_fast import cli
from stdeconv_fast.cli.words import to_options
from stdeconv_fast.io import probe
from stdeconv_fast.io.disk import refuse_pickles


@pytest.mark.parametrize("face", ["library", "command line"])
@pytest.mark.filterwarnings("ignore")
def test_strangers_get_an_answer_or_a_clear_error(tmp_path, monkeypatch, face):
    monkeypatch.setattr(probe, "LIMIT", 1.0)
    numbers = [n for n in range(40) if fuzz.of_files(n) == (face == "command line")][:24]
    found = {number: fuzz.try_one(3, number, tmp_path / str(number)) for number in numbers}
    assert {n: one for n, one in found.items() if one["outcome"] not in fuzz.GOOD} == {}
    assert {one["outcome"] for one in found.values()} == set(fuzz.GOOD)


def test_the_judge_of_proportions():
    good, status = [[0.25, 0.75], [np.nan, np.nan]], ["ok", "no counts"]
    assert fuzz.judge_shares(good, status) is None
    assert fuzz.judge_shares(good, ["ok", "ok"]) == "silent NaN"
    assert fuzz.judge_shares([[0.5, 0.5]] * 2, status) == "proportions where the status says there are none"
    for row in ([0.5, 0.6], [-0.1, 1.1], [np.inf, 0.0]):
        assert fuzz.judge_shares([row], ["ok"]) == "rows that do not sum to 1"
    assert fuzz.judge_shares(good, ["ok"]) == "2 rows for 1 spots"


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(30, 40, 3, cells_per_type=6, seed=2)


@pytest.fixture
def files(tmp_path, tissue):
    """Spots and cells as h5ad files, in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, adata in zip(("st", "sc"), tissue.to_anndata(), strict=True):
        adata.write_h5ad(folder / f"{name}.h5ad")
    return folder


def refused(folder: Path, words: str, spatial: str = "st.h5ad", reference: str = "sc.h5ad") -> None:
    """The command line ends with one message and leaves nothing."""
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    arguments = [folder / spatial, folder / reference, "--cell-type-key", "celltype", "-o", out / "o.h5ad"]
    done = CliRunner().invoke(cli.main, ["run", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 2 and to_options(words) in done.stderr and "Traceback" not in done.output
    assert not list(out.iterdir())


def replace(name: str, value):
    """A change of a file: a node that is there gets another value; None: a group."""

    def change(root: h5py.File) -> None:
        del root[name]
        root.create_group(name) if value is None else root.__setitem__(name, value)

    return change


def claim(root: h5py.File) -> None:
    root.create_dataset("uns/b", (10**6, 10**7), "f4", chunks=(1000, 1000))


def point(root: h5py.File) -> None:
    root.create_dataset("uns/b", data=[root.ref] * 3, dtype=h5py.ref_dtype)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("st.h5ad", replace("obsm/spatial", np.arange(3)), "`spatial.obsm` must be readable"),
        ("st.h5ad", replace("obsm/spatial", None), "`spatial.obsm` must be readable"),
        ("st.h5ad", replace("uns/a", h5py.ExternalLink("nowhere.h5", "/")), "`spatial` must be readable"),
        ("st.h5ad", replace("uns/a", h5py.SoftLink("/")), "SPATIAL must hold no links that lead back"),
        ("st.h5ad", claim, "`spatial` must hold what it claims; got '/uns/b' with 4e+04 GB"),
        ("st.h5ad", point, "`spatial` must hold no HDF5 references; got some in '/uns/b'"),
        ("sc.h5ad", replace("uns/a", h5py.SoftLink("/uns")), "REFERENCE must hold no links that lead back"),
        ("sc.h5ad", replace("X/data", h5py.Empty("f4")), "`reference.X` must be a sound sparse matrix"),
        ("sc.h5ad", replace("X/indices", 3), "`reference.X` must be a sound sparse matrix"),
        ("sc.h5ad", claim, "must fit into memory; it needs about 4e+04 GB more, and there are"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(files, name, change, words):
    with h5py.File(files / name, "r+") as root:
        root["uns/a"] = 1
        change(root)
    refused(files, words)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda path: time.sleep(60), "got no end after 0.2 s in HDF5"),
        (lambda path: os.kill(os.getpid(), signal.SIGSEGV), "got a crash in HDF5"),
    ],
)
def test_hdf5_that_hangs_or_crashes_is_told(files, monkeypatch, fault, words):
    monkeypatch.setattr(probe, "LIMIT", 0.2)
    monkeypatch.setattr(probe, "_look", fault)
    refused(files, words)


def test_a_file_with_a_wrong_byte_where_hdf5_never_comes_back(files, monkeypatch):
    """Zeros at a place that is looked for: HDF5 loops in the attributes of a group."""
    monkeypatch.setattr(probe, "LIMIT", 0.5)
    sound = (files / "st.h5ad").read_bytes()
    for at in range(2000, 4000, 250):
        (files / "st.h5ad").write_bytes(sound[:at] + bytes(40) + sound[at + 40 :])
        out = files / "o.h5ad"
        arguments = [files / "st.h5ad", files / "sc.h5ad", "--cell-type-key", "celltype", "-o", out]
        done = CliRunner().invoke(cli.main, ["run", *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code in (0, 2) and out.exists() == (done.exit_code == 0), at
        out.unlink(missing_ok=True)


@pytest.mark.filterwarnings("ignore")
def test_pickles_are_never_read(files, tissue):
    pytest.importorskip("zarr")
    for name, adata in zip(("st", "sc"), tissue.to_anndata(), strict=True):
        adata.write_zarr(files / f"{name}.zarr")
    for metadata in ({"compressor": {"id": "pickle"}}, {"codecs": [{"name": "numcodecs.pickle"}]}):
        array = files / "sc.zarr" / "obs" / "odd"
        array.mkdir(exist_ok=True)
        (array / ".zarray").write_text(json.dumps(metadata).replace("p", "\\u0070", 1))
        with pytest.raises(sd.DataError, match="must hold no pickles, which run code"):
            refuse_pickles(files / "sc.zarr")
        refused(files, "REFERENCE must hold no pickles", reference="sc.zarr")
    (files / "st.zarr" / "uns" / ".zarray").write_text('{"filters": [{"id": "pickle"}]}')
    refused(files, "must hold no pickles", spatial="st.zarr")
    refuse_pickles(files / "st.h5ad")  # HDF5 has none


@pytest.mark.filterwarnings("ignore")
def test_folders_that_lead_back_are_refused(files, tissue):
    pytest.importorskip("zarr")
    tissue.to_anndata()[0].write_zarr(files / "st.zarr")
    (files / "st.zarr" / "uns" / "back").symlink_to(files / "st.zarr", target_is_directory=True)
    refused(files, "must hold no links that lead back", spatial="st.zarr")


@pytest.mark.parametrize("matrix", ["data", "indices", "indptr"])
def test_sparse_arrays_that_are_none(tissue, matrix):
    cells = tissue.reference.copy()
    setattr(cells, matrix, np.array(3))
    with pytest.raises(sd.DataError, match="must be a sound sparse matrix"):
        sd.deconvolve(tissue.spots, cells, tissue.coordinates, tissue.cell_types, progress=False)


def test_names_of_cells_as_types():
    cells = sp.csr_matrix(np.ones((2001, 12), dtype=np.int32))
    names = [f"cell {i}" for i in range(2001)]
    with pytest.raises(sd.DataError, match=r"at most 2,000 types; got 2,001: 'cell 0'.* not with the names of cells"):
        sd.deconvolve(np.ones((3, 12)), cells, np.arange(6.0).reshape(3, 2), names, progress=False)


@pytest.mark.parametrize("dtype", ["bool", "longdouble", "float16", "uint8", ">i2"])
def test_unusual_numbers_on_disk_are_read(files, tissue, dtype):
    counts = np.minimum(tissue.spots.toarray(), 1 if dtype == "bool" else 200)
    with h5py.File(files / "st.h5ad", "r+") as root:
        del root["X"]
        root["X"] = counts.astype(dtype)
        root["X"].attrs["encoding-type"], root["X"].attrs["encoding-version"] = "array", "0.2.0"
    given = (tissue.reference, tissue.coordinates, tissue.cell_types)
    plain = sd.deconvolve(counts, *given, progress=False)
    with sd.open_spots(files / "st.h5ad") as spots:
        found = sd.deconvolve(spots, *given, progress=False)
    np.testing.assert_array_equal(found.proportions, plain.proportions)


@pytest.mark.parametrize("lambda_spatial", [0, 1])
def test_standard_errors_in_tiles_with_and_without_smoothing(tissue, lambda_spatial):
    more = {"standard_errors": True, "lambda_spatial": lambda_spatial, "tune": False, "progress": False}
    given = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)
    whole, tiled = sd.deconvolve(*given, **more), sd.deconvolve(*given, tiles=3, **more)
    np.testing.assert_allclose(tiled.standard_errors, whole.standard_errors, atol=1e-3)
