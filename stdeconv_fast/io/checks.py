"""What must hold before results are written: the place, the room on the disk, what is added."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from .atomic import check_folder, check_writable
from .disk import Node, is_group, is_hdf5, is_zarr, opened, reading
from .stores import SpotStore

COUNTS = ("X", "layers", "raw", "raw.X", "raw.var", "raw.varm", "raw.cat", "obsp", "varp")
SPARE = 1 << 24  # bytes left free on the disk
CLAIMED, MOST_PACKED = 1e9, 1e4  # bytes from which, and times, no compression explains what is not stored
TEXT = 64  # bytes that a short text takes in HDF5


def check_results(
    store: SpotStore, out: str | os.PathLike[str], *, counts: bool = True, more: int = 0, name: str = "out"
) -> Path:
    """Make sure, before long work, that `write_results` can write.

    Parameters
    ----------
    store : SpotStore
        What is to be copied.
    out : str or path
        The file (.h5ad) or folder (.zarr); it need not exist.
    counts : bool
        Whether the counts are to be copied too.
    more : int
        Bytes of what will be added.
    name : str
        What the caller calls `out`, for the message.

    Returns
    -------
    Path
        The file or folder itself, absolute.

    Raises
    ------
    DataError
        Another ending; a place that cannot be written; the files that are read, or a place within them; a disk
        without room.
    """
    target = Path(os.path.realpath(out))
    if target.suffix not in (".h5ad", ".zarr"):
        raise DataError(f"`{name}` must end in .h5ad or .zarr; got '{out}'.")
    target = check_writable(out, name) if target.suffix == ".h5ad" else check_folder(out, name)
    for read in {store.path, *(tile.path for tile in store.tiles)}:
        source = Path(os.path.realpath(read))
        same = target.exists() and source.exists() and target.samefile(source)
        if same or source in (target, *target.parents) or target in source.parents:
            raise DataError(f"`{name}` must not be the spots that are read, nor lie within; got '{out}' for '{read}'.")
    needed = _bytes_of(store, target.suffix == ".h5ad", () if counts else COUNTS) + more + SPARE
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise DataError(
            f"`{name}` must lie on a disk with room for {needed / 1e9:.2f} GB; got {free / 1e9:.2f} GB free at "
            f"'{target.parent}'. Free some, choose another disk, or leave out the counts."
        )
    return target


def check_additions(store: SpotStore, obs: pd.DataFrame, obsm: Mapping[str, Any], uns: Mapping[str, Any]) -> None:
    """Refuse what does not fit the spots, and names that files cannot hold.

    Raises
    ------
    DataError
        Another number of rows; names that are empty, taken twice, hold a "/" or are those of the index.
    DataTypeError
        `obs` is no DataFrame, an entry of `obsm` no table, or a name no text.
    """
    if not isinstance(obs, pd.DataFrame):
        raise DataTypeError(f"`obs` must be a DataFrame; got {type(obs).__name__}.")
    tables = {"obs": obs} | {f"obsm[{key!r}]": value for key, value in obsm.items()}
    names = {"obsm": list(obsm), "uns": list(uns)}
    names |= {place: list(table) for place, table in tables.items() if isinstance(table, pd.DataFrame)}
    for place, listed in names.items():
        index = {"_index", store.obs_index_name} if place == "obs" else {"_index"} if place in tables else set()
        for number, name in enumerate(listed):
            if not isinstance(name, str):
                raise DataTypeError(f"`{place}` must have names that are text; got {name!r}.")
            if not name or "/" in name:
                raise DataError(f"`{place}` must have names without '/', which files cannot hold; got {name!r}.")
            if name in index:
                raise DataError(f"`{place}` must have other names than the index of the spots; got {name!r}.")
            if number and name in listed[:number]:
                raise DataError(f"`{place}` must have unique names; got {name!r} twice.")
    for place, table in tables.items():
        if not hasattr(table, "shape") or isinstance(table, pd.Series):
            raise DataTypeError(f"`{place}` must be a DataFrame, an array or a matrix; got {type(table).__name__}.")
        if not table.shape or table.shape[0] != store.shape[0]:
            got = f"{table.shape[0]:,}" if table.shape else "a single value"
            raise DataError(f"`{place}` must have a row per spot, {store.shape[0]:,}; got {got}.")


def bytes_added(obs: pd.DataFrame, obsm: Mapping[str, Any]) -> int:
    """What the additions will take on the disk, about."""
    total = 0
    for value in (obs, *obsm.values()):
        if isinstance(value, pd.DataFrame):
            total += int(value.memory_usage(index=False).sum()) + TEXT * len(value)
        elif isinstance(value, np.ndarray):
            total += value.nbytes
        else:
            total += sum(getattr(value, part).nbytes for part in ("data", "indices", "indptr") if hasattr(value, part))
    return total


def _bytes_of(store: SpotStore, to_hdf5: bool, skip: Collection[str]) -> int:
    """What a copy of the spots' files will take on the disk."""
    total = 0
    for tile in store.tiles:
        if is_zarr(tile.path) and not to_hdf5:
            folders = [part for part in tile.path.iterdir() if part.name not in skip]
            files = [file for part in folders for file in (part.rglob("*") if part.is_dir() else [part])]
            total += sum(file.stat().st_size for file in files if file.is_file())
            continue
        with opened(tile.path) as root, reading("spatial", tile.path):  # links to nowhere, or back
            total += sum(_stored(root[name]) for name in root if name not in skip)
    return total


def _demand_contents(node: Node) -> None:
    """Refuse datasets of HDF5 that claim far more than they hold, and pointers to other places in the file."""
    claimed, held = math.prod(node.shape or ()) * node.dtype.itemsize, node.id.get_storage_size()
    if claimed > CLAIMED and claimed > MOST_PACKED * held:
        raise DataError(
            f"`spatial` must hold what it claims; got {node.name!r} with {claimed / 1e9:.3g} GB of which "
            f"{held / 1e9:.3g} GB are stored. The file is damaged: make it anew."
        )
    if h5py.check_ref_dtype(node.dtype) is not None:
        raise DataError(f"`spatial` must hold no HDF5 references; got some in {node.name!r}. Make the file anew.")


def _stored(node: Node) -> int:
    """Bytes of a node: as stored in HDF5, as they would be uncompressed from zarr."""
    if is_group(node):
        return sum(_stored(node[name]) for name in node)
    if is_hdf5(node):
        _demand_contents(node)
        return node.id.get_storage_size() + (TEXT * node.size if node.dtype.kind == "O" else 0)
    numeric = node.dtype.kind in "iufb"
    return int(np.prod(node.shape)) * (node.dtype.itemsize if numeric else TEXT)
