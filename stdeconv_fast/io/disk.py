"""Opens AnnData files (h5ad) and folders (zarr) for reading, and says clearly where that cannot be done."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ..errors import DataError
from .atomic import ZARR_MARKS
from .extras import import_extra

Node = Any  # a group or an array of h5py or zarr
METADATA = ("zarr.json", ".zarray", ".zmetadata")  # files of a zarr folder that tell how arrays are stored
TEXT = 64  # bytes that a short text takes
LEGACY = "h5sparse_format"  # how anndata marked sparse matrices before 0.7


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group."""
    return any((path / mark).is_file() for mark in ZARR_MARKS)


def is_group(node: Node) -> bool:
    """Whether a node holds others, rather than being an array."""
    return hasattr(node, "keys")


def is_hdf5(node: Node) -> bool:
    """Whether a node lies in an HDF5 file, rather than in a zarr folder."""
    return isinstance(node, h5py.Group | h5py.Dataset)


def attribute(node: Node, name: str, otherwise: Any = None) -> Any:
    """An attribute of a node; text as str, arrays as lists."""
    value = node.attrs.get(name, otherwise)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [item.decode() if isinstance(item, bytes) else item for item in value]
    return value.decode() if isinstance(value, bytes) else value


def encoding(node: Node) -> str:
    """How anndata stored a node: "csr_matrix", "dataframe", "array", ...; "" where it did not say."""
    legacy = attribute(node, LEGACY)
    return f"{legacy}_matrix" if legacy else attribute(node, "encoding-type", "")


def is_current_frame(node: Node) -> bool:
    """Whether a table is stored as anndata 0.8 and later store it: every column by itself, none refers to another."""
    return encoding(node) == "dataframe" and attribute(node, "encoding-version") != "0.1.0"


def import_zarr(path: Path) -> Any:
    """The package zarr.

    Raises
    ------
    DataError
        It is not installed.
    """
    return import_extra("zarr", f"'{path}'", "pip install zarr")


def unpacked_bytes(path: Path) -> int:
    """Bytes of all that an h5ad file or a zarr folder holds once it is read, about: texts are taken to be short."""
    if path.is_dir():
        return _bytes_of(import_zarr(path).open_group(str(path), mode="r"))
    with h5py.File(path, "r") as root:
        return _bytes_of(root)


def _bytes_of(node: Node, depth: int = 0) -> int:
    if is_group(node):
        below = [node[name] for name in node] if depth < 12 else []  # a link may lead back to where it comes from
        return sum(_bytes_of(child, depth + 1) for child in below)
    return math.prod(node.shape or ()) * (node.dtype.itemsize if node.dtype.kind in "iufb" else TEXT)


def refuse_pickles(path: Path, name: str = "`spatial`") -> None:
    """Refuse a zarr folder with an array that is stored as pickles: to read those is to run what is in them.

    Parameters
    ----------
    path : Path
        Passed over where it is no folder: HDF5 has no such thing.
    name : str
        What the caller calls it, for the message.

    Raises
    ------
    DataError
        The metadata names the codec "pickle". zarr and recent numcodecs refuse most of these themselves, older ones
        do not.
    """
    seen, waiting = set(), [path] if path.is_dir() else []
    while waiting:
        folder = Path(os.path.realpath(waiting.pop()))
        if folder in seen:  # links may lead back
            continue
        seen.add(folder)
        with reading(name.strip("`"), path), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and Path(os.path.realpath(entry)) in (folder, *folder.parents):
                    raise DataError(f"{name} must hold no links that lead back; got one in '{entry.path}'. Remove it.")
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                elif entry.name in METADATA and _names_pickle(json.loads(Path(entry.path).read_bytes())):
                    raise DataError(
                        f"{name} must hold no pickles, which run code when they are read; got one in '{entry.path}'. "
                        "Write the data anew with anndata."
                    )


def _names_pickle(metadata: Any) -> bool:
    items = metadata.items() if isinstance(metadata, dict) else enumerate(metadata)
    for key, value in items:
        if isinstance(value, dict | list):
            if _names_pickle(value):
                return True
        elif key in ("id", "name") and str(value).rpartition(".")[2] == "pickle":
            return True
    return False


def reason(fault: BaseException) -> str:
    """The first line of what an error says."""
    return (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".")


@contextmanager
def reading(where: str, path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in the ``with`` block into a DataError that names the place.

    Parameters
    ----------
    where : str
        What is read, e.g. "spatial.X".
    path : Path
        From which file.

    Raises
    ------
    DataError
        Something else than a DataError, a KeyError of ours or a lack of memory was raised.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as fault:
        raise DataError(
            f"`{where}` must be readable; got a fault in '{path}': {reason(fault)}. "
            "The file may be damaged: make it anew."
        ) from fault


def open_root(path: Path, name: str = "spatial") -> Node:
    """Open the top group of an AnnData on disk.

    Parameters
    ----------
    path : Path
        An h5ad file or a zarr folder.
    name : str
        What messages call it.

    Returns
    -------
    h5py.File or zarr.Group
        Open for reading. Give it to `close_root`.

    Raises
    ------
    DataError
        There is no such file; it cannot be read; or it holds no AnnData.
    """
    if not path.exists():
        raise DataError(f"`{name}` must be a file or a folder that exists; got '{path}'.")
    folder = path.is_dir()
    zarr = import_zarr(path) if folder else None
    try:
        # without a cache: blocks are read once, and many tiles may be open
        root = zarr.open_group(str(path), mode="r") if zarr else h5py.File(path, "r", rdcc_nbytes=0)
    except MemoryError:
        raise
    except Exception as fault:
        kind = "a zarr folder" if folder else "an h5ad file"
        raise DataError(f"`{name}` must be {kind}; got '{path}', which cannot be read: {reason(fault)}.") from fault
    try:
        _demand_anndata(root, path, name)
    except BaseException:
        close_root(root)
        raise
    return root


def close_root(root: Node) -> None:
    """Close what `open_root` opened."""
    if isinstance(root, h5py.File):
        root.close()


@contextmanager
def opened(path: Path, name: str = "spatial") -> Iterator[Node]:
    """The top group of an AnnData on disk (see `open_root`), closed when the ``with`` block ends."""
    root = open_root(path, name)
    try:
        yield root
    finally:
        close_root(root)


def _demand_anndata(root: Node, path: Path, name: str) -> None:
    with reading(name, path):
        found = sorted(root)
        if "obs" in found and "var" in found:
            if is_group(root["obs"]) and is_group(root["var"]):
                return
            raise DataError(
                f"`{name}` must be stored as anndata 0.7 and later do it; got an older file, '{path}'. "
                "Read it with anndata.read_h5ad and write it anew."
            )
        top = ", ".join(map(repr, found[:6])) + (", ..." if len(found) > 6 else "") or "nothing"
        remedy = "Read it with the package that made it, and write it with adata.write_h5ad."
        if "tables" in found and is_group(root["tables"]) and len(root["tables"]):
            remedy = f"Pass one of its tables: '{path / 'tables' / sorted(root['tables'])[0]}'."
    raise DataError(f"`{name}` must hold an AnnData, with obs and var; got {top} in '{path}'. {remedy}")


def index_key(frame: Node) -> str:
    """Name of the array with the row names of a stored table."""
    return attribute(frame, "_index", "_index")


def length_of(frame: Node) -> int:
    """Number of rows of a stored table, without reading them."""
    names = frame[index_key(frame)]
    if is_group(names):
        names = names["codes" if encoding(names) == "categorical" else "values"]
    return int(names.shape[0])


def columns_of(frame: Node) -> list[str]:
    """Names of the columns of a stored table, without reading them."""
    return [str(name) for name in attribute(frame, "column-order", [])]
