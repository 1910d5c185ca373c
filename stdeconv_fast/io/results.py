"""Writes an answer into a copy of the spots' file, without holding its counts in memory."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import DataError, DataWarning
from . import copies
from .atomic import atomic_folder, atomic_path
from .checks import COUNTS, bytes_added, check_additions, check_results
from .disk import Node, columns_of, encoding, index_key, is_current_frame, opened, reason
from .stores import SpotStore, open_spots

LABELS = ("obs", "var", "obsm", "varm", "uns")


def write_results(
    store: SpotStore,
    out: str | os.PathLike[str],
    *,
    obs: pd.DataFrame | None = None,
    obsm: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    counts: bool = True,
    drop: Collection[str] = (),
) -> Path:
    """Write an AnnData that holds what the spots' file holds, and more.

    Parameters
    ----------
    store : SpotStore
        The spots.
    out : str or path
        File (.h5ad) or folder (.zarr) to write or to replace, whole or not at all.
    obs : DataFrame, (n_spots, ...), optional
        Columns to add or to replace, aligned by position; text with repeats becomes categories, as in h5ad.
    obsm : dict of DataFrame, ndarray or sparse matrix, (n_spots, ...), optional
        Entries to add or to replace, aligned by position.
    uns : dict, optional
        Entries to add or to replace.
    counts : bool
        False: X, layers, raw, obsp and varp are left out.
    drop : collection of str
        What of the spots' file is left out besides: "obs/COLUMN", "obsm/KEY", "uns/KEY"; names that are not there
        are passed over.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    DataError
        `out` cannot be written (see `check_results`), what is added does not fit, or the spots' file is damaged.
    DataTypeError
        What is added is of a kind that cannot be stored under a name.
    OSError
        The disk failed or filled up; what was at `out` is still there.

    Notes
    -----
    From h5ad to h5ad chunks are copied as they are stored; a zarr folder is copied file by file. From one format to
    the other, and from tiles, matrices are copied by blocks, uncompressed in h5ad. Of tiles, the result has what all
    have: X, layers, obs, obsm; var, varm and varp of the first; uns of all, the first of equal names; no raw or obsp.
    Of a backed AnnData, labels are those in memory, and X, layers and raw those in its file.
    """
    obs = pd.DataFrame(index=range(store.shape[0])) if obs is None else obs
    obsm, uns = dict(obsm or {}), dict(uns or {})
    check_additions(store, obs, obsm, uns)
    target = check_results(store, out, counts=counts, more=bytes_added(obs, obsm))
    dropped = {str(path).strip("/") for path in drop}
    skip = dropped | {f"obs/{name}" for name in obs} | {f"obsm/{key}" for key in obsm} | {f"uns/{key}" for key in uns}
    skip |= set() if counts else set(COUNTS)
    with opened(store.tiles[0].path) as root:
        in_memory = len(store.tiles) > 1 or store.adata is not None or not is_current_frame(root["obs"])
    skip |= {"obs"} if in_memory else set()
    try:
        with _new(store, target, skip) as root:
            if in_memory:
                _write_obs(store, root, obs, dropped)
            if len(store.tiles) > 1:
                _copy_tiles(store, root, skip)
            elif store.adata is not None:
                _copy_backed(store, root, skip)
            elif "var" not in root:  # else the folder was copied file by file
                with opened(store.tiles[0].path) as source:
                    copies.copy_members(source, root, skip)
            if not in_memory:
                _edit_obs(root["obs"], obs, dropped)
            for key, value in obsm.items():
                _write_obsm(store, root, key, value)
            for key, value in uns.items():
                copies.write(copies.mapping(root, "uns"), key, value)
            root.attrs["encoding-type"], root.attrs["encoding-version"] = "anndata", "0.1.0"
    except (MemoryError, DataError):
        raise
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno is not None:  # those of HDF5 have no number
            raise OSError(fault.errno, fault.strerror, fault.filename or str(target)) from fault
        first = fault.args[0][0][2] if isinstance(fault, shutil.Error) else reason(fault)  # of many
        raise DataError(f"'{out}' cannot be written: {first}.") from fault
    return target


@contextmanager
def _new(store: SpotStore, target: Path, skip: set[str]) -> Iterator[Node]:
    """A new file or folder in place of `target`: empty, or a copy of the zarr folder that is read."""
    if target.suffix == ".h5ad":
        with atomic_path(target) as part, copies.new_h5ad(part) as root:
            yield root
        return
    first = store.tiles[0].path
    with atomic_folder(target) as part:
        if len(store.tiles) == 1 and first.is_dir():

            def left_out(folder: str, names: list[str]) -> list[str]:
                place = Path(folder).relative_to(first)
                return [name for name in names if (place / name).as_posix() in skip or name == ".zmetadata"]

            shutil.copytree(first, part, ignore=left_out, copy_function=shutil.copyfile)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*zarr v3|.*[Cc]onsolidated|.*auto.?shard", UserWarning)
            with copies.new_zarr(part, first if first.is_dir() else None) as root:
                yield root


def _copy_backed(store: SpotStore, root: Node, skip: set[str]) -> None:
    with opened(store.tiles[0].path) as source:
        copies.copy_members(source, root, {*skip, *LABELS})
    copies.write(root, "var", _categorised(store.adata.var))
    for table in ("obsm", "varm", "uns"):
        values, group = getattr(store.adata, table), copies.mapping(root, table)
        for key in values:
            if f"{table}/{key}" not in skip:
                copies.write(group, key, values[key])


def _copy_tiles(store: SpotStore, root: Node, skip: set[str]) -> None:
    for number, tile in enumerate(store.tiles):
        with opened(tile.path) as source:
            if number == 0:
                copies.copy_members(source, root, {*skip, *COUNTS, "obs", "obsm", "uns"})
                if "varp" in source and "varp" not in skip:
                    copies.copy_node(source["varp"], root, "varp")
            if "uns" in source and "uns" not in skip:
                below = [path.removeprefix("uns/") for path in skip if path.startswith("uns/")]
                copies.copy_members(source["uns"], copies.mapping(root, "uns"), below, merge=True)
    for key in store.obsm_keys:
        if f"obsm/{key}" not in skip:
            _write_obsm(store, root, key, store.obsm(key))
    if store.has_x and "X" not in skip:
        _copy_matrix(store, None, root)
    for layer in store.layers:
        if not {"layers", f"layers/{layer}"} & skip:
            _copy_matrix(store, layer, root)


def _copy_matrix(store: SpotStore, layer: str | None, root: Node) -> None:
    """Copy X or a layer of all tiles by blocks."""
    try:
        matrix = open_spots(store.path, layer)
    except DataError as fault:
        if layer == store.layer:
            raise
        warnings.warn(f"not copied to the result: {fault}", DataWarning, stacklevel=4)
        return
    group, name = (root, "X") if layer is None else (copies.mapping(root, "layers"), layer)
    with matrix:
        if all(tile.nnz is None for tile in matrix.tiles):
            array = copies.new_array(group, name, matrix.shape, matrix.dtype)
            for start, stop in matrix.cut(copies.BLOCK):
                copies.fill(array, matrix.read(start, stop).toarray(), start)
            array.attrs["encoding-type"], array.attrs["encoding-version"] = "array", "0.2.0"
            return
        writer = copies.CsrWriter(group, name, matrix.shape, matrix.dtype, matrix.nnz)
        for start, stop in matrix.cut(copies.BLOCK):
            writer.append(matrix.read(start, stop))
        writer.close()


def _write_obs(store: SpotStore, root: Node, obs: pd.DataFrame, dropped: set[str]) -> None:
    """Write obs from memory, with new columns."""
    frame = store.obs
    old, new = _categorised(frame.drop(columns=[name for name in frame if f"obs/{name}" in dropped])), _categorised(obs)
    _write_frame(store, root, "obs", {name: old[name] for name in old} | {name: new[name] for name in new})


def _edit_obs(group: Node, obs: pd.DataFrame, dropped: set[str]) -> None:
    """Add columns to an obs that was copied without those that are dropped or replaced."""
    new = _categorised(obs)
    for name in new:
        copies.write_column(group, name, new[name])
    kept = [name for name in columns_of(group) if f"obs/{name}" not in dropped or name in new]
    group.attrs["column-order"] = kept + [name for name in new if name not in kept]


def _categorised(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of text that repeats as categories, as `AnnData.write_h5ad` stores them."""
    from anndata import AnnData

    frame = frame.copy(deep=False)
    AnnData().strings_to_categoricals(frame)
    return frame


def _write_obsm(store: SpotStore, root: Node, key: str, value: Any) -> None:
    group = copies.mapping(root, "obsm")
    if isinstance(value, pd.DataFrame):
        _write_frame(store, group, key, {str(name): value.iloc[:, j] for j, name in enumerate(value)}, root["obs"])
    else:
        copies.write(group, key, value)


def _write_frame(
    store: SpotStore, group: Node, name: str, columns: Mapping[str, pd.Series], obs: Node | None = None
) -> None:
    """Write a table of spots, column by column; its row names are those of `obs`, copied on the disk."""
    frame = copies.start_frame(group, name, list(columns))
    names = None if obs is None else obs[index_key(obs)]
    if names is not None and encoding(names) in ("string-array", "nullable-string-array"):
        copies.copy_node(names, frame, "_index")
    else:
        key = "_index" if obs is not None else store.obs_names.name or "_index"
        frame.attrs["_index"] = key
        copies.write_column(frame, key, store.obs_names)
    for column, values in columns.items():
        copies.write_column(frame, column, values)
