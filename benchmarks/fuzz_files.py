"""Files for the command line for fuzz.py: sound h5ad files and zarr folders, and what strangers make of them."""

from __future__ import annotations

import json
import shutil
import tempfile
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from scipy import sparse as sp

from stdeconv_fast.io import probe
from stdeconv_fast.io.disk import opened
from stdeconv_fast.tissue import simulate

ODD_TEXTS = (
    "",
    " ",
    "=",
    "phi",
    "phi=",
    "phi=0.5",
    "phi=nan",
    "phi=1e999",
    "n_iter=2",
    "n_iter=1e3",
    "n_iter=99999999999999999999",
    "k_neighbors=3",
    "k_neighbors=-3",
    "loss=gaussian",
    "loss=ä",
    "tune=no",
    "tune=\x00",
    "exclude_types=,",
    "cell_level=1",
    "exclude_types=type0",
    "exclude_types=type0,type1,type2",
    "standard_errors=yes",
    "min_shared_genes=1000",
    "dtype=float64",
    "dtype=f8",
    "platform=joint",
    "abundance=cells",
    "min_cells_per_type=7",
    "lambda_spatial=1e300",
    "lambda_ridge=0",
    "check_counts=false",
    "__class__=1",
    "seed=1",
    "max_cells_per_spot=1",
    "k_neighbors=1_0",
    "phi=0x1",
    "phi=٣",
)
ODD_NUMBERS = (np.nan, np.inf, -1, -(10**9), 1e13, 1e30, 0.5, 2**31, 70_000)
SCALARS = ("shape", "encoding-type", "encoding-version", "_index", "column-order", "h5sparse_format", "ordered", "odd")
VALUES: tuple[Any, ...] = (
    "",
    "csr_matrix",
    "csc_matrix",
    "array",
    "dataframe",
    "dict",
    "string-array",
    "categorical",
    "null",
    "raw",
    "anndata",
    "nonsense",
    0,
    -1,
    1.5,
    [1, 2],
    [10**9, 10**9],
    [-1, 5],
    ["a", "a"],
    b"\xff",
    "0.1.0",
    "9.9.9",
    True,
)
probe.LIMIT = 1.5  # seconds: these files are small, and many hold HDF5 up for ever


@cache
def sound(kind: str) -> Path:
    """A sound spatial file or folder (csr, dense, columns, zarr, tiles) or a reference, made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-sound-"))
    spots, cells = simulate(30, 40, 3, cells_per_type=6, n_sections=2, seed=2, as_anndata=True)
    spots.layers["counts"] = spots.X.copy()
    spots.obs["remark"] = pd.Series(["a", None] * 15, index=spots.obs_names, dtype=object)
    spots.uns["list"] = np.array(["a", "b"])
    spots.obsm["frame"] = pd.DataFrame({"a": np.arange(30), "b": 1.5}, index=spots.obs_names)
    adata = cells if kind.startswith("reference") else spots
    if kind.endswith("dense"):
        adata.X = adata.X.toarray().astype(np.float32)
    if kind.endswith("columns"):
        adata.X = sp.csc_matrix(adata.X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "tiles":
            target = folder / "tiles"
            target.mkdir()
            for i in range(3):
                spots[10 * i : 10 * i + 10].copy().write_h5ad(target / f"{i}.h5ad")
        elif "zarr" in kind:
            target = folder / "a.zarr"
            anndata.settings.zarr_write_format = 2 if kind.endswith("2") else 3
            adata.write_zarr(target)
        else:
            target = folder / "a.h5ad"
            adata.write_h5ad(target, **({"compression": "gzip"} if kind.endswith("packed") else {}))
    return target


SPATIAL = ("csr", "csr", "packed", "dense", "columns", "zarr", "zarr2", "tiles")
REFERENCE = (
    "reference",
    "reference",
    "reference packed",
    "reference dense",
    "reference columns",
    "reference zarr",
    "reference zarr2",
)


class Files:
    """What one call of the command line is given; mutations change the files in `folder` and the arguments."""

    def __init__(self, rng: np.random.Generator, folder: Path) -> None:
        self.rng, self.folder = rng, folder
        (folder / "out").mkdir(parents=True)
        self.told: list[str] = []
        self.spatial = self._copy(self.pick(SPATIAL), "st")
        self.reference = self._copy(self.pick(REFERENCE), "sc")
        self.out, self.options = str(folder / "out" / str(self.pick(("out.h5ad", "out.h5ad", "out.zarr")))), []
        self.key = "celltype"

    def _copy(self, kind: str, name: str) -> Path:
        source = sound(kind)
        target = self.folder / f"{name}{source.suffix}"
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        self.told.append(f"{name}: {kind}")
        return target

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def victim(self) -> Path:
        """One of the inputs; of tiles one tile."""
        path = self.pick((self.spatial, self.reference))
        return self.pick(sorted(path.iterdir())) if path.name == "st" and path.is_dir() else path


def file_of(files: Files) -> Path | None:
    """A file: the h5ad itself or one within the zarr folder."""
    path = files.victim()
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        return files.pick(inside) if inside else None
    return path if path.is_file() else None


def broken_bytes(files: Files) -> None:
    """Truncated, overwritten, zeroed, appended, empty or foreign bytes."""
    path = file_of(files)
    if path is None:
        return
    data, rng = bytearray(path.read_bytes()), files.rng
    if not data:
        return
    how = files.pick(("cut", "flip", "flip", "flips", "noise", "zeros", "append", "empty", "text", "head"))
    at = int(rng.integers(len(data)))
    if rng.random() < 0.5:
        at %= 4096  # where HDF5 keeps what matters
        at = min(at, len(data) - 1)
    n = int(rng.integers(1, 64))
    if how == "cut":
        data = data[:at]
    elif how == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif how == "flips":
        for _ in range(20):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif how == "noise":
        data[at : at + n] = rng.bytes(n)
    elif how == "zeros":
        data[at : at + n] = bytes(n)
    elif how == "append":
        data += rng.bytes(n)
    elif how == "empty":
        data = bytearray()
    elif how == "text":
        data = bytearray(b"gene,a,b\nx,1,2\n")
    else:
        data = data[at:]
    path.write_bytes(bytes(data))
    files.told.append(f"{path.name}: {how} at {at}")


def _nodes(root: h5py.Group) -> list[str]:
    found: list[str] = []
    root.visit(found.append)
    return found


def broken_h5(files: Files) -> None:
    """Nodes of an HDF5 file that are missing, of another kind, dtype or shape, links, attributes that lie."""
    path, rng = files.victim(), files.rng
    if path.is_dir() or not h5py.is_hdf5(path):
        return broken_zarr(files)
    with h5py.File(path, "r+") as root:
        names = _nodes(root)
        name = files.pick(names)
        how = files.pick(
            (
                "delete",
                "attribute",
                "attribute",
                "no attribute",
                "group",
                "dataset",
                "dtype",
                "shape",
                "values",
                "values",
                "indices",
                "codes",
                "names",
                "soft link",
                "external link",
                "huge",
                "reference",
                "scalar",
                "swap",
                "text",
                "object",
                "empty",
            )
        )
        files.told.append(f"{path.name}: {how} {name}")
        node, around, last = root[name], root[name].parent, name.rpartition("/")[2]
        datasets = [other for other in names if isinstance(root[other], h5py.Dataset)]
        data = files.pick(datasets)

        def replace(name: str, value: Any, **more: Any) -> None:
            kept = dict(root[name].attrs)
            del root[name]
            made = root.create_dataset(name, data=value, **more)
            for key, item in kept.items():
                made.attrs[key] = item

        if how == "delete":
            del root[name]
        elif how == "attribute":
            value = files.pick(VALUES)
            node.attrs[files.pick(SCALARS)] = np.bytes_(value) if isinstance(value, bytes) else value
        elif how == "no attribute":
            for key in list(node.attrs)[: int(rng.integers(1, 3))]:
                del node.attrs[key]
        elif how == "group":
            del root[name]
            root.create_group(name)
        elif how == "dataset":
            del root[name]
            root.create_dataset(name, data=np.arange(3))
        elif how == "dtype":
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                replace(data, root[data][()].astype(files.pick(("f2", "f8", ">i8", "u1", "S3", "c8", "?", "i1", "u8"))))
            files.told.append(data)
        elif how == "shape":
            value = root[data][()]
            files.told.append(data)
            options = (
                [value[:-1], np.concatenate([value, value]), value.reshape(1, *value.shape), value[:0]]
                if np.ndim(value)
                else [[1]]
            )
            replace(data, files.pick(options))
        elif how in ("values", "indices", "codes"):
            wanted = {"values": ("data", "spatial", "X"), "indices": ("indices", "indptr"), "codes": ("codes",)}[how]
            data = files.pick([other for other in datasets if other.rpartition("/")[2] in wanted] or datasets)
            value = np.array(root[data][()], dtype=np.float64 if how == "values" else None)
            files.told.append(data)
            with np.errstate(all="ignore"):
                new = np.array(files.pick(ODD_NUMBERS if how == "values" else (-1, -2, 10**9, 100, 0))).astype(
                    value.dtype
                )
            value.reshape(-1)[int(rng.integers(value.size))] = new
            replace(data, value)
        elif how == "names":
            table = files.pick(("obs", "var"))
            key = root[table].attrs["_index"]
            value = root[table][key][()].copy()
            odd = files.pick((b"\xff\xfe", "", "nan", value[0], "ä", "x" * 10_000))
            value[:] = odd if rng.random() < 0.3 else value
            value[-1] = odd
            replace(f"{table}/{key}", value, dtype=h5py.string_dtype())
        elif how == "soft link":
            del root[name]
            root[name] = h5py.SoftLink(files.pick((f"/{name}", "/", "/nowhere", "/obs")))
        elif how == "external link":
            del root[name]
            root[name] = h5py.ExternalLink(
                files.pick((str(path), "nowhere.h5", "/etc/passwd")), files.pick(("/", name))
            )
        elif how == "huge":
            shape = files.pick(((10**12,), (10**6, 10**6), (30, 10**9), (10**9,)))
            del root[data]
            root.create_dataset(
                data, shape=shape, dtype="f4", chunks=(1000,) * len(shape) if len(shape) == 1 else (10, 1000)
            )
        elif how == "reference":
            del root[data]
            root.create_dataset(data, data=[root.ref] * 3, dtype=h5py.ref_dtype)
        elif how == "scalar":
            replace(data, 3)
        elif how == "swap":
            root.move(name, "moved"), root.move(data, name) if data in root and not name.startswith(data) else None
        elif how == "text":
            replace(data, np.array(["x"] * 30, dtype=object), dtype=h5py.string_dtype())
        elif how == "object":
            around.create_dataset(last + "-odd", data=np.zeros(3, [("a", "i4"), ("b", "S3")]))
        else:
            replace(data, h5py.Empty("f4"))


def broken_zarr(files: Files) -> None:
    """Metadata of a zarr folder that lies, chunks and arrays that are missing."""
    zarrs = [path for path in (files.spatial, files.reference) if path.suffix == ".zarr"]
    if not zarrs:
        return broken_bytes(files)
    path, rng = files.pick(zarrs), files.rng
    inside = sorted(path.rglob("*"))
    metadata = [f for f in inside if f.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")]
    how = files.pick(
        ("delete", "delete folder", "json", "json", "json", "json", "pickle", "not json", "folder", "link")
    )
    victim = files.pick(metadata)
    if how == "delete":
        files.pick([f for f in inside if f.is_file()]).unlink()
    elif how == "delete folder":
        shutil.rmtree(files.pick([f for f in inside if f.is_dir()]))
    elif how == "not json":
        victim.write_text(files.pick(("", "{", "[]", "null", "3", '{"a": NaN}', "[" * 100_000)))
    elif how == "folder":
        victim.unlink()
        victim.mkdir()
    elif how == "link":
        folder = files.pick([f for f in inside if f.is_dir()])
        shutil.rmtree(folder)
        folder.symlink_to(files.pick((path, folder, Path("/etc"))))
    else:
        text = victim.read_text()
        try:
            known = json.loads(text)
        except ValueError:
            return
        spots = _leaves(known)
        if not spots:
            return
        if how == "pickle":
            arrays = [(box, key) for box, key in spots if key in ("compressor", "filters", "name", "id")]
            for box, key in arrays:
                box[key] = {"compressor": {"id": "pickle"}, "filters": [{"id": "pickle"}]}.get(key, "pickle")
        else:
            box, key = files.pick(spots)
            box[key] = files.pick(
                (None, 0, -1, 10**12, "x", [], {}, [10**9, 10**9], 1.5, True, "<f2", "|O", "csr_matrix")
            )
            files.told.append(str(key))
        victim.write_text(json.dumps(known))
        del rng
    files.told.append(f"{path.name}: {how} {victim.relative_to(path)}")


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """All places in nested JSON, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(value, key) for key, _ in items]
    for _, inner in list(items):
        found += _leaves(inner)
    return found


def odd_arguments(files: Files) -> None:
    """Options that are odd, or outputs that cannot be."""
    how = files.pick(
        (
            "set",
            "set",
            "set",
            "set",
            "key",
            "out",
            "csv",
            "tiles",
            "layer",
            "spatial key",
            "sample",
            "seed",
            "jobs",
            "input",
        )
    )
    out, add = files.folder / "out", files.options.extend
    if how == "set":
        for _ in range(int(files.rng.integers(1, 4))):
            add(["--set", files.pick(ODD_TEXTS)])
    elif how == "key":
        files.key = files.pick(("", "section", "celltype ", "ä", "index", "_index", "/", "celltype/codes"))
    elif how == "out":
        files.out = files.pick(
            (
                str(out),
                str(out / "no" / "a.h5ad"),
                "/dev/full",
                "/dev/null",
                str(files.spatial),
                str(files.spatial / "x.h5ad"),
                str(out / "a.csv"),
                str(out / ".h5ad"),
                str(out / ("x" * 300 + ".h5ad")),
                "",
                str(files.reference),
                "/proc/a.h5ad",
            )
        )
    elif how == "csv":
        add(
            [
                "--csv",
                files.pick(
                    (
                        str(out / "t.csv"),
                        str(out / "t.csv"),
                        "/dev/full",
                        str(out),
                        "",
                        files.out,
                        str(out / "x" / "t.csv"),
                    )
                ),
            ]
        )
    elif how == "tiles":
        add(["--tiles", files.pick(("1", "3", "1000000", "0", "-1", "x"))])
        add(files.pick(([], ["--work", str(files.folder / "work")], ["--work", str(files.spatial)], ["--resume"])))
    elif how == "layer":
        add([files.pick(("--layer-st", "--layer-sc")), files.pick(("counts", "", "X", "../X", "/"))])
    elif how == "spatial key":
        add(["--spatial-key", files.pick(("", "frame", "nowhere", "/", "stdeconv"))])
    elif how == "sample":
        add(["--sample-key", files.pick(("section", "remark", "", "nowhere", "stdeconv_status"))])
    elif how == "seed":
        add(["--seed", files.pick(("1", "-1", "1e3", "99999999999999999999999", "x"))])
    elif how == "jobs":
        add(["--n-jobs", files.pick(("1", "0", "-5", "x"))])
    else:
        files.spatial = Path(
            files.pick(("", "/dev/null", "/dev/zero", "/etc/passwd", str(out), str(files.folder / "gone.h5ad")))
        )
    files.told.append(f"arguments: {how}")


MUTATIONS = (broken_bytes, broken_bytes, broken_h5, broken_h5, broken_h5, broken_zarr, odd_arguments, odd_arguments)


def make(seed: int, number: int, folder: Path) -> Files:
    """The files and arguments of one case."""
    files = Files(np.random.default_rng([seed, number]), folder)
    for option in ("--no-counts", "--cell-level", "--json", "--quiet"):
        if files.rng.random() < 0.15:
            files.options.append(option)
    if files.rng.random() < 0.3:
        files.options += ["--csv", str(folder / "out" / "t.csv")]
    if files.rng.random() < 0.3 and Path(files.out).suffix == ".h5ad":
        Path(files.out).write_text("old")
    for _ in range(int(files.rng.choice([0, 1, 2], p=[0.03, 0.72, 0.25]))):
        mutation = files.pick(MUTATIONS)
        try:
            mutation(files)
        except Exception as fault:  # on what another mutation left
            files.told.append(f"{mutation.__name__} did not go: {type(fault).__name__}")
    return files


def _listing(folder: Path) -> dict[str, bytes | None]:
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


def try_command(seed: int, number: int, folder: Path) -> dict:
    """Call the command line on one case, and judge what it says and leaves behind."""
    from click.testing import CliRunner

    from benchmarks.fuzz import ANSWER, OURS
    from stdeconv_fast.cli import main

    files = make(seed, number, folder)
    before = _listing(folder / "out")
    arguments = [
        "run",
        str(files.spatial),
        str(files.reference),
        "--cell-type-key",
        files.key,
        "-o",
        files.out,
        *files.options,
    ]
    told = [*files.told, " ".join(arguments)]
    with warnings.catch_warnings():
        done = CliRunner().invoke(main, [argument.replace("\x00", "") for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        said = "".join(traceback.format_exception(done.exception))[-3000:]
        return {"outcome": type(done.exception).__name__, "told": told, "said": said}
    found = {"told": told, "said": (done.stderr or done.output)[-600:]}
    if "Traceback" in done.output:
        return {"outcome": "a traceback on the screen", **found}
    if done.exit_code == 2:
        spoken = "stdeconv-fast: error: " in done.stderr or "Usage:" in done.stderr
        if not spoken:
            return {"outcome": "an error without words", **found}
        after = _listing(folder / "out")
        if after != before:
            return {"outcome": "left-over files", **found, "files": sorted(after)}
        return {"outcome": OURS, **found}
    if done.exit_code != 0:
        return {"outcome": f"exit code {done.exit_code}", **found}
    return {"outcome": _judge_output(files, folder / "out") or ANSWER, **found}


def _judge_output(files: Files, folder: Path) -> str | None:
    """What is wrong with the files that a run wrote, if anything."""
    from benchmarks.fuzz import judge_shares

    out = Path(files.out)
    csv = [files.options[i + 1] for i, option in enumerate(files.options) if option == "--csv"]
    expected = {out.name, f"{out.name}.toml", *(Path(name).name for name in csv[-1:])}
    there = {path.name for path in folder.iterdir()}
    if there != expected:
        return f"left-over files: {sorted(there ^ expected)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata = anndata.read_zarr(out) if out.suffix == ".zarr" else anndata.read_h5ad(out)
        shares, status = adata.obsm["stdeconv"], adata.obs["stdeconv_status"]
    except Exception as fault:
        if not _is_damaged(files.spatial):
            return f"an output that cannot be read: {type(fault).__name__}: {fault}"
        try:  # what the run did not use was copied as it is, damaged
            with opened(out) as root:
                shares, status = read_elem(root["obsm"]["stdeconv"]), read_elem(root["obs"]["stdeconv_status"])
        except Exception as fault:
            return f"an answer that cannot be read: {type(fault).__name__}: {fault}"
    if csv:
        table = pd.read_csv(csv[-1], index_col="spot", keep_default_na=True)
        if table.shape != shares.shape or not np.allclose(table, shares, atol=1e-5, equal_nan=True):
            return "a table that differs from the proportions"
    return judge_shares(shares, status)


def _is_damaged(spatial: Path) -> bool:
    """Whether anndata cannot read all of the input, or not all of it in the metadata that lists it."""
    zarrs = spatial.suffix == ".zarr"
    for path in sorted(spatial.iterdir()) if spatial.is_dir() and not zarrs else [spatial]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if zarrs:
                    for name in (".zmetadata",):
                        (path / name).unlink(missing_ok=True)
                    anndata.io.read_elem(zarr.open_group(path, mode="r", use_consolidated=False))
                else:
                    anndata.read_h5ad(path)
        except Exception:
            return True
    return False
