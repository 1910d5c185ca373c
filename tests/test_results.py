"""Results are written beside the counts without loading them, whole or not at all, and read as anndata writes them."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from stdeconv_fast import DataError, DataWarning
from stdeconv_fast.io import atomic, copies
from stdeconv_fast.io.atomic import atomic_folder, check_folder
from stdeconv_fast.io.checks import check_results
from stdeconv_fast.io.results import write_results
from stdeconv_fast.io.stores import open_spots

ROOT = Path(__file__).resolve().parent.parent
zarr = pytest.importorskip("zarr")
ZARR_3 = hasattr(zarr.Group, "create_array")
FORMATS = (2, 3) if ZARR_3 else (2,)
SOURCES = ("h5ad", "gzip", *(f"zarr {form}" for form in FORMATS))


def make_tissue(rng, n=30, m=12):
    """An AnnData with something in every place."""
    counts = sp.random(n, m, 0.4, "csr", np.float32, rng, data_rvs=lambda k: rng.integers(1, 9, k))
    names, genes = [f"spot{i}" for i in range(n)], [f"gene{j}" for j in range(m)]
    obs = pd.DataFrame(
        {
            "section": pd.Categorical(rng.choice(["b", "a"], n), categories=["b", "a"], ordered=True),
            "barcode": [f"AC{i}" for i in range(n)],
            "remark": ["x", "y", "x"] * (n // 3),
            "area": rng.random(n),
            "count": rng.integers(0, 9, n),
            "in_tissue": rng.random(n) > 0.5,
            "maybe": pd.array([1, None, 3] * (n // 3), dtype="Int64"),
            "stdeconv_status": pd.Categorical(["old"] * n),
        },
        index=names,
    )
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame({"kind": ["p", "q"] * (m // 2)}, index=genes))
    adata.raw = adata.copy()
    adata.layers["counts"] = counts.astype(np.int32)
    adata.layers["columns"] = counts.tocsc()
    adata.layers["dense"] = counts.toarray().astype(np.float64)
    adata.obsm["spatial"] = rng.random((n, 2))
    adata.obsm["frame"] = pd.DataFrame({"a": rng.random(n), "b": ["u", "v"] * (n // 2)}, index=names)
    adata.obsm["cells"] = sp.random(n, 5, 0.5, "csr", random_state=rng)
    adata.obsp["near"] = sp.random(n, n, 0.2, "csr", random_state=rng)
    adata.varm["loads"], adata.varp["like"] = rng.random((m, 3)), np.eye(m)
    adata.uns["spatial"] = {"lib": {"images": {"low": rng.integers(0, 255, (9, 8, 3)).astype(np.uint8)}, "scale": 0.5}}
    adata.uns["words"], adata.uns["number"] = np.array(["one", "two"]), 3
    adata.uns["table"] = pd.DataFrame({"c": pd.Categorical(["k", "l"])}, index=["r", "s"])
    adata.uns["stdeconv_params"] = {"version": "old", "gone": 1}
    return adata


def make_answer(rng, n=30):
    """What the pipeline adds."""
    shares = pd.DataFrame(rng.dirichlet([1, 1, 1], n).astype(np.float32), columns=["T cell", "B cell", "x|y"])
    obs = pd.DataFrame(
        {
            "stdeconv_status": pd.Categorical(["ok", "no counts"] * (n // 2)),
            "stdeconv_dominant": ["T cell", "B cell", "x|y"] * (n // 3),
            "stdeconv_deviance": rng.random(n),
        }
    )
    obsm = {
        "stdeconv": shares,
        "stdeconv_cells": sp.random(n, 7, 0.3, "csr", random_state=rng),
        "frame": rng.random((n, 4)),
    }
    uns = {"stdeconv_params": {"version": "1", "call": {"key": "k"}, "path": {"phi": np.arange(3.0)}}, "number": 4}
    return {"obs": obs, "obsm": obsm, "uns": uns}


def with_answer(adata, answer):
    """The same additions in memory."""
    adata = adata.copy()
    for name, column in answer["obs"].items():
        adata.obs[name] = column.array
    for key, value in answer["obsm"].items():
        adata.obsm[key] = value.set_axis(adata.obs_names) if isinstance(value, pd.DataFrame) else value
    adata.uns.update(answer["uns"])
    return adata


def read(path):
    return anndata.read_h5ad(path) if Path(path).suffix == ".h5ad" else anndata.read_zarr(path)


@cache
def shelf():
    """A folder of what anndata has written so far in these tests."""
    return TemporaryDirectory()


def put(adata, path, form=2, **more):
    """What anndata writes; a copy where it has written the same before, since the many files of a folder take long."""
    content = hashlib.sha256(pickle.dumps((adata, form, more))).hexdigest()
    written = Path(shelf().name) / (content + Path(path).suffix)
    if not written.exists():
        with warnings.catch_warnings(), anndata.settings.override(**({"zarr_write_format": form} if ZARR_3 else {})):
            warnings.simplefilter("ignore")
            adata.write_h5ad(written, **more) if written.suffix == ".h5ad" else adata.write_zarr(written)
    shutil.rmtree(path, ignore_errors=True)  # as anndata replaces a folder
    (shutil.copytree if written.is_dir() else shutil.copyfile)(written, path)
    return Path(path)


def source_of(adata, folder, kind):
    if kind.startswith("zarr"):
        return put(adata, folder / "st.zarr", int(kind[-1]))
    return put(adata, folder / "st.h5ad", **({"compression": "gzip"} if kind == "gzip" else {}))


def same(one, other, place=""):
    """Whether two values, as anndata reads them, are the same in kind and content."""
    if hasattr(one, "obs_names"):
        for part in ("obs", "var", "X", "layers", "obsm", "varm", "obsp", "varp", "uns"):
            same(getattr(one, part), getattr(other, part), part)
        assert (one.raw is None) == (other.raw is None)
        if one.raw is not None:
            same(one.raw.X, other.raw.X), same(one.raw.var, other.raw.var), same(one.raw.varm, other.raw.varm)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif sp.issparse(one):
        assert one.format == other.format and one.dtype == other.dtype and one.shape == other.shape, place
        assert (one != other).nnz == 0 and one.nnz == other.nnz, place
    elif hasattr(one, "keys"):
        assert set(one) == set(other), place
        for key in one:
            same(one[key], other[key], f"{place}/{key}")
    else:
        assert type(one) is type(other) and getattr(one, "dtype", None) == getattr(other, "dtype", None), place
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def adata():  # the same in all tests
    return make_tissue(np.random.default_rng(1))


@pytest.fixture
def answer():
    return make_answer(np.random.default_rng(2))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", SOURCES)
def test_the_result_is_what_anndata_would_write(adata, answer, tmp_path, kind, ending):
    source = source_of(adata, tmp_path, kind)
    before = sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*"))
    with open_spots(source) as store:
        out = write_results(store, tmp_path / f"out.{ending}", **answer)
    expected, found = read(put(with_answer(adata, answer), tmp_path / f"expected.{ending}")), read(out)
    same(found, expected)
    assert list(found.obs) == list(expected.obs)
    assert sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*") if file in dict(before)) == before
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    assert open_spots(out).read(0, 30).nnz == adata.X.nnz
    put(found, tmp_path / f"again.{ending}")


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", ["h5ad", SOURCES[-1]])
def test_without_counts(adata, answer, tmp_path, kind, ending):
    out = write_results(open_spots(source_of(adata, tmp_path, kind)), tmp_path / f"o.{ending}", **answer, counts=False)
    expected = with_answer(adata, answer)
    expected = anndata.AnnData(
        obs=expected.obs, var=expected.var, obsm=dict(expected.obsm), varm=dict(expected.varm), uns=expected.uns
    )
    same(read(out), read(put(expected, tmp_path / f"expected.{ending}")))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", ["h5ad", SOURCES[-1]])
def test_what_is_dropped(adata, tmp_path, kind, ending):
    drop = [
        "obs/remark",
        "obs/section",
        "obsm/cells",
        "uns/words",
        "uns/spatial/lib/scale",
        "layers/dense",
        "obs/no",
        "varm",
    ]
    out = write_results(open_spots(source_of(adata, tmp_path, kind)), tmp_path / f"out.{ending}", drop=drop)
    for name in ("remark", "section"):
        del adata.obs[name]
    del adata.obsm["cells"], adata.uns["words"], adata.uns["spatial"]["lib"]["scale"], adata.layers["dense"]
    del adata.varm
    same(read(out), read(put(adata, tmp_path / f"expected.{ending}")))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_backed_anndata_keeps_what_is_in_memory(adata, answer, tmp_path, ending):
    backed = anndata.read_h5ad(put(adata, tmp_path / "st.h5ad"), backed="r+")
    backed.obs["new"], backed.obsm["new"], backed.uns["new"] = ["x", "y"] * 15, np.ones((30, 2)), {"a": 1}
    out = write_results(open_spots(backed), tmp_path / f"out.{ending}", **answer)
    expected = with_answer(backed.to_memory(), answer)
    same(read(out), read(put(expected, tmp_path / f"expected.{ending}")))
    backed.file.close()


def test_nothing_to_add_is_a_copy(adata, tmp_path):
    for kind in SOURCES:
        store = open_spots(source_of(adata, tmp_path, kind))
        same(read(write_results(store, tmp_path / f"copy{store.path.suffix}")), read(store.path))


def test_a_named_index_and_columns_that_are_read_in_order(adata, answer, tmp_path):
    adata.obs.index.name = "spot"
    store = open_spots(put(adata, tmp_path / "st.h5ad"))
    out = read(write_results(store, tmp_path / "out.h5ad", **answer))
    assert out.obs.index.name == "spot" and list(out.obs)[:8] == list(adata.obs)
    assert list(out.obs)[8:] == ["stdeconv_dominant", "stdeconv_deviance"]
    assert out.obsm["stdeconv"].index.equals(out.obs_names)
    with pytest.raises(DataError, match="`obs` must have other names than the index of the spots; got 'spot'"):
        write_results(store, tmp_path / "out.h5ad", obs=pd.DataFrame({"spot": range(30)}))


def test_chunks_are_copied_as_they_are(adata, tmp_path, monkeypatch):
    """From h5ad to h5ad nothing is unpacked: no matrix is read by blocks."""
    store = open_spots(put(adata, tmp_path / "st.h5ad", compression="gzip"))
    monkeypatch.setattr(copies, "fill", None)
    out = write_results(store, tmp_path / "out.h5ad")
    with h5py.File(out) as file:
        assert file["X/data"].compression == file["layers/columns/indices"].compression == "gzip"


@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_large_arrays_are_written_by_blocks(adata, tmp_path, monkeypatch, rng, kind, ending):
    monkeypatch.setattr(copies, "BLOCK", 16)
    monkeypatch.setattr(copies, "CHUNK", 8)
    monkeypatch.setattr(copies, "ZARR_CHUNK", 8)
    shares = np.asfortranarray(rng.random((30, 6)))
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(30, 6), order="F")
    mapped[:] = shares
    obsm = {"shares": shares, "mapped": mapped, "coo": sp.coo_matrix(np.eye(30))}
    out = read(write_results(open_spots(source_of(adata, tmp_path, kind)), tmp_path / f"out.{ending}", obsm=obsm))
    np.testing.assert_array_equal(out.obsm["shares"], shares)
    np.testing.assert_array_equal(out.obsm["mapped"], shares.astype(np.float32))
    np.testing.assert_array_equal(out.obsm["coo"].toarray(), np.eye(30))
    same(out.X, adata.X), same(out.raw.X, adata.raw.X), same(out.layers["dense"], adata.layers["dense"])


# -- tiles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_tiles_become_one(adata, answer, tmp_path, ending, rng):
    folder = tmp_path / "tiles"
    folder.mkdir()
    del adata.layers["columns"]
    parts = [adata[:11].copy(), adata[11:12].copy(), adata[12:].copy()]
    parts[1].uns["spatial"]["other"], parts[2].uns["number"] = {"scale": 2.0}, 99
    for part, name in zip(parts, ("a.h5ad", "b.zarr", "c.h5ad"), strict=True):
        put(part, folder / name)
    with open_spots(folder) as store:
        out = write_results(store, tmp_path / f"out.{ending}", **answer)
    adata.obs = anndata.concat(parts).obs  # the one spot of b.zarr knows one category only
    expected = with_answer(adata, answer)
    expected.uns["spatial"]["other"] = {"scale": 2.0}
    del expected.raw, expected.obsp
    same(read(out), read(put(expected, tmp_path / f"expected.{ending}")))
    assert read(out).uns["number"] == 4
    small = read(write_results(open_spots(folder), tmp_path / f"small.{ending}", counts=False, drop=["obs/area"]))
    assert small.X is None and not small.layers and not small.varp and small.uns["number"] == 3
    assert "area" not in small.obs and small.shape == adata.shape


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_tiles_of_both_kinds(adata, tmp_path, ending):
    """One tile sparse, one dense: the result is sparse; all dense: it is dense."""
    (tmp_path / "tiles").mkdir()
    one, two = adata[:11].copy(), adata[11:].copy()
    two.X = two.X.toarray()
    put(one, tmp_path / "tiles" / "a.h5ad"), put(two, tmp_path / "tiles" / "b.h5ad")
    with pytest.warns(DataWarning, match=r"not copied to the result: .*layers\['columns'\]` must be stored by rows"):
        out = read(write_results(open_spots(tmp_path / "tiles"), tmp_path / f"out.{ending}"))
    same(out.X, adata.X)
    assert "columns" not in out.layers and isinstance(out.layers["dense"], np.ndarray)


def test_a_folder_with_one_tile(adata, answer, tmp_path):
    (tmp_path / "tiles").mkdir()
    put(adata, tmp_path / "tiles" / "a.h5ad")
    out = read(write_results(open_spots(tmp_path / "tiles"), tmp_path / "out.h5ad", **answer))
    same(out, read(put(with_answer(adata, answer), tmp_path / "expected.h5ad")))


# -- old files ---------------------------------------------------------------------------------------------------------


def test_tables_as_anndata_0_7_stored_them(adata, answer, tmp_path):
    """There the codes of a column refer to its categories elsewhere in the file."""
    path = put(adata, tmp_path / "st.h5ad")
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        codes, words = obs["section/codes"][:], obs["section/categories"][:]
        del obs["section"]
        obs["section"] = codes
        obs["__categories/section"] = words
        obs["__categories/section"].attrs["ordered"] = True
        obs["section"].attrs["categories"] = obs["__categories/section"].ref
        obs.attrs["encoding-version"] = "0.1.0"
        for name in ("encoding-type", "encoding-version"):
            del file.attrs[name], file["raw"].attrs[name], file["uns"].attrs[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ending in ("h5ad", "zarr"):
            out = read(write_results(open_spots(path), tmp_path / f"out.{ending}", **answer))
            same(out, read(put(with_answer(read(path), answer), tmp_path / f"expected.{ending}")))


# -- what is refused ---------------------------------------------------------------------------------------------------


BAD = {
    "rows of obs": ({"obs": pd.DataFrame({"a": [1]})}, "`obs` must have a row per spot, 30; got 1"),
    "rows of obsm": ({"obsm": {"a": np.ones((3, 2))}}, r"`obsm\['a'\]` must have a row per spot, 30; got 3"),
    "no table": ({"obsm": {"a": [1] * 30}}, r"`obsm\['a'\]` must be a DataFrame, an array or a matrix; got list"),
    "no frame": ({"obs": np.ones(30)}, "`obs` must be a DataFrame; got ndarray"),
    "a slash": ({"obsm": {"a/b": np.ones((30, 2))}}, "`obsm` must have names without '/'"),
    "a slash in a column": ({"obs": pd.DataFrame({"a/b": range(30)})}, "`obs` must have names without '/'"),
    "a slash in uns": ({"uns": {"a/b": 1}}, "`uns` must have names without '/'"),
    "a number": (
        {"obsm": {"a": pd.DataFrame(np.ones((30, 2)))}},
        r"`obsm\['a'\]` must have names that are text; got 0",
    ),
    "twice": (
        {"obs": pd.DataFrame(np.ones((30, 2)), columns=["a", "a"])},
        "`obs` must have unique names; got 'a' twice",
    ),
    "the index": (
        {"obs": pd.DataFrame({"_index": range(30)})},
        "other names than the index of the spots; got '_index'",
    ),
    "unknown": ({"uns": {"a": object()}}, "'.*out.h5ad' cannot be written: "),
}


@pytest.mark.parametrize("name", BAD)
def test_additions_that_do_not_fit(adata, tmp_path, name):
    store = open_spots(put(adata, tmp_path / "st.h5ad"))
    added, message = BAD[name]
    with pytest.raises(DataError, match=message):
        write_results(store, tmp_path / "out.h5ad", **added)
    assert os.listdir(tmp_path) == ["st.h5ad"]


def test_places_that_are_refused(adata, tmp_path):
    file, folder = put(adata, tmp_path / "st.h5ad"), put(adata, tmp_path / "st.zarr")
    (tmp_path / "tiles").mkdir()
    shutil.copy(file, tmp_path / "tiles" / "a.h5ad")
    os.link(file, tmp_path / "link.h5ad")
    inside = [(file, "st.h5ad"), (file, "link.h5ad"), (folder, "st.zarr"), (folder, "st.zarr/out.h5ad")]
    inside += [(tmp_path / "tiles", "tiles/out.h5ad"), (tmp_path / "tiles", "tiles/a.h5ad")]
    for source, out in inside:
        with pytest.raises(DataError, match="`out` must not be the spots that are read, nor lie within"):
            write_results(open_spots(source), tmp_path / out)
    store = open_spots(file)
    for out, message in {
        "out.csv": "`--out` must end in .h5ad or .zarr",
        "no/out.h5ad": "must lie in a folder that exists",
        "no/out.zarr": "must lie in a folder that exists",
        "tiles.zarr": "must name a zarr folder or a new one; got '.*', which holds something else",
        "file.zarr": "must name a folder; got the file",
    }.items():
        (tmp_path / "tiles.zarr").mkdir(exist_ok=True)
        (tmp_path / "tiles.zarr" / "precious.txt").write_text("keep")
        (tmp_path / "file.zarr").write_text("keep")
        with pytest.raises(DataError, match=message):
            check_results(store, tmp_path / out, name="--out")
    assert (tmp_path / "tiles.zarr" / "precious.txt").exists()
    assert check_results(store, tmp_path / "new.zarr") == (tmp_path / "new.zarr").resolve()


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
def test_a_disk_without_room_is_named_before_any_work(adata, tmp_path, monkeypatch, kind, ending):
    store = open_spots(source_of(adata, tmp_path, kind))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1 << 20))
    with pytest.raises(DataError, match=r"`out` must lie on a disk with room for 0.0\d GB; got 0.00 GB free at"):
        write_results(store, tmp_path / f"out.{ending}")
    assert len(os.listdir(tmp_path)) == 1


def test_room_is_counted_for_what_is_copied(rng, tmp_path, monkeypatch):
    adata = anndata.AnnData(sp.random(2000, 5000, 0.3, "csr", np.float64, rng))
    store = open_spots(put(adata, tmp_path / "st.h5ad"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=30_000_000))
    with pytest.raises(DataError, match="room for 0.05 GB; got 0.03 GB"):
        check_results(store, tmp_path / "out.h5ad")
    check_results(store, tmp_path / "out.h5ad", counts=False)
    with pytest.raises(DataError, match="room for"):
        write_results(store, tmp_path / "out.h5ad", counts=False, obsm={"a": np.ones((2000, 1000))})


# -- what goes wrong on the way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_disk_that_fills_up_is_an_error_and_no_crash(adata, answer, tmp_path, kind, ending):
    """HDF5 cannot close a file that it could not write, so that a new process is needed to see whether it survives."""
    source = source_of(adata, tmp_path, kind)
    out = put(adata, tmp_path / f"out.{ending}")
    code = f"""
        import resource, signal
        import numpy as np, anndata
        from stdeconv_fast.io.stores import open_spots
        from stdeconv_fast.io.results import write_results
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = open_spots({str(source)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        try:
            write_results(store, {str(out)!r}, obsm={{"a": np.random.default_rng(0).random((30, 9000))}})
        except OSError as fault:
            print(fault.errno, fault.filename)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write_results(store, {str(tmp_path / "small.h5ad")!r})
    """
    done = in_new_process(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == errno.EFBIG and str(tmp_path) in done.stdout
    same(read(out), read(put(adata, tmp_path.parent / f"{tmp_path.name}.{ending}")))
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, out.name, "small.h5ad"])


def in_new_process(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_killed_on_the_way_the_old_result_is_whole(adata, tmp_path, ending):
    source, out = put(adata, tmp_path / "st.h5ad"), put(adata[:7].copy(), tmp_path / f"out.{ending}")
    code = f"""
        import time
        from stdeconv_fast.io import copies, results
        from stdeconv_fast.io.stores import open_spots
        write = copies.write
        def slow(group, name, value):
            write(group, name, value)
            print("on the way", flush=True)
            time.sleep(60)
        copies.write = slow
        results.write_results(open_spots({str(source)!r}), {str(out)!r}, uns={{"late": 1}})
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as process:
        assert process.stdout.readline() == b"on the way\n"
        hidden = [name for name in os.listdir(tmp_path) if name.startswith(".")]
        assert len(hidden) == 1 and hidden[0].endswith(ending)
        process.send_signal(signal.SIGKILL)
    same(read(out), read(put(adata[:7].copy(), tmp_path / f"expected.{ending}")))
    write_results(open_spots(source), out, uns={"late": 1})
    assert read(out).shape == adata.shape and read(out).uns["late"] == 1


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, OSError(errno.EIO, "bad sector")])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_fault_leaves_the_old_result(adata, tmp_path, monkeypatch, exception, ending):
    store = open_spots(put(adata, tmp_path / "st.h5ad"))
    out = put(adata[:7].copy(), tmp_path / f"out.{ending}")

    def fail(*_):
        raise exception

    monkeypatch.setattr(copies, "write", fail)
    kind = exception if isinstance(exception, type) else type(exception)
    with pytest.raises(DataError if kind is ValueError else kind):
        write_results(store, out, uns={"late": 1})
    assert sorted(os.listdir(tmp_path)) == sorted(["st.h5ad", out.name])
    assert read(out).shape == (7, 12)


def test_a_damaged_source_is_named(adata, tmp_path):
    path = put(adata, tmp_path / "st.h5ad", compression="gzip")
    store = open_spots(path)
    with h5py.File(path, "r+") as file:
        at = file["obsm/spatial"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 40)
    with pytest.raises(DataError, match="'.*out.zarr' cannot be written: "):
        write_results(store, tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == ["st.h5ad"]


# -- folders whole or not at all ---------------------------------------------------------------------------------------


def make_folder(path, text):
    path.mkdir()
    (path / ".zgroup").write_text(text)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_finished_folder_takes_its_place(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    target = tmp_path / "out.zarr"
    for text in ("first", "second"):
        with atomic_folder(target) as part:
            assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == ".zarr"
            make_folder(part, text)
        assert (target / ".zgroup").read_text() == text and os.listdir(tmp_path) == ["out.zarr"]
    (tmp_path / "link.zarr").symlink_to(target)
    with atomic_folder(tmp_path / "link.zarr") as part:
        make_folder(part, "third")
    assert (tmp_path / "link.zarr").is_symlink() and (target / ".zgroup").read_text() == "third"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has one step for it")
def test_linux_exchanges_folders_in_one_step(tmp_path):
    make_folder(tmp_path / "a", "a"), make_folder(tmp_path / "b", "b")
    assert atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / ".zgroup").read_text() == "b" and (tmp_path / "b" / ".zgroup").read_text() == "a"
    assert not atomic._exchange(tmp_path / "a", tmp_path / "no")


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt])
def test_a_broken_folder_leaves_the_old_one(tmp_path, exception):
    make_folder(tmp_path / "out.zarr", "old")
    for name in ("out.zarr", "new.zarr"):
        with pytest.raises(exception), atomic_folder(tmp_path / name) as part:
            make_folder(part, "half")
            raise exception
    assert os.listdir(tmp_path) == ["out.zarr"] and (tmp_path / "out.zarr" / ".zgroup").read_text() == "old"
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "out.zarr"):
        pass
    assert (tmp_path / "out.zarr" / ".zgroup").read_text() == "old"


def test_renames_that_fail_keep_a_whole_folder(tmp_path, monkeypatch):
    make_folder(tmp_path / "out.zarr", "old")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    rename = os.rename

    def fail(one, other, last):
        if Path(other) == tmp_path / "out.zarr" and (last or ".old-" not in str(one)):
            raise OSError(errno.EIO, "no")
        rename(one, other)

    monkeypatch.setattr(os, "rename", lambda one, other: fail(one, other, False))
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "out.zarr") as part:
        make_folder(part, "new")
    assert os.listdir(tmp_path) == ["out.zarr"] and (tmp_path / "out.zarr" / ".zgroup").read_text() == "old"
    monkeypatch.setattr(os, "rename", lambda one, other: fail(one, other, True))
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "out.zarr") as part:
        make_folder(part, "new")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.zarr.old-") and (left / ".zgroup").read_text() == "old"


def test_folders_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "empty.zarr").mkdir()
    assert check_folder(tmp_path / "empty.zarr") == tmp_path.resolve() / "empty.zarr"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="must lie in a folder that can be written"):
        check_folder(tmp_path / "new.zarr", "out")


# -- the guarded file --------------------------------------------------------------------------------------------------


class Stubborn:
    """A raw file that takes a few bytes at a time, and none after `full`."""

    def __init__(self, raw, full):
        self.raw, self.full = raw, full

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def write(self, data):
        if self.raw.tell() + len(data) > self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.raw.write(data[:777])

    def readinto(self, buffer):
        return self.raw.readinto(buffer[:555])


def test_writes_that_fall_short_are_taken_up(tmp_path):
    values = np.random.default_rng(0).random(5000)
    with open(tmp_path / "a.h5", "w+b", buffering=0) as raw:
        guard = copies.GuardedFile(Stubborn(raw, 10**9))
        with h5py.File(guard, "w") as file:
            file["a"] = values
            np.testing.assert_array_equal(file["a"][:], values)
        assert guard.fault is None
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["a"][:], values)


@pytest.mark.parametrize("full", [0, 100, 2000, 10_000, 30_000, 45_000])
def test_a_guarded_file_lets_hdf5_finish(tmp_path, full, monkeypatch):
    wrapped = copies.GuardedFile
    monkeypatch.setattr(copies, "GuardedFile", lambda raw: wrapped(Stubborn(raw, full)))
    with pytest.raises(OSError, match="No space left on device"), copies.new_h5ad(tmp_path / "a.h5") as file:
        for i in range(30):
            file[f"{i}/a"] = np.arange(200.0)
            file[f"{i}"].attrs["words"] = ["a", "b"]
