"""Moves parts of AnnData files into new ones, h5ad or zarr, without holding large ones in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pandas as pd
from scipy import sparse as sp

from .disk import Node, attribute, encoding, import_zarr, is_current_frame, is_group, is_hdf5

CHUNK, ZARR_CHUNK = 1 << 18, 1 << 20  # entries of a chunk of a new sparse matrix
BLOCK = 1 << 22  # entries that are copied at once, a multiple of both
MAPPINGS = ("", "dict", "raw", "anndata")
WALKED = (*MAPPINGS, "dataframe", "csr_matrix", "csc_matrix")


class GuardedFile:
    """A file that HDF5 may write to when the disk is full.

    HDF5 cannot close a file that it could not write, and some versions crash. This file keeps the first fault and
    takes everything after it without writing, so that HDF5 comes to an end; then the fault is raised.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.fault: BaseException | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def readinto(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            taken = self._raw.readinto(view[done:])
            if not taken:
                break
            done += taken
        return done

    def write(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        try:
            while self.fault is None and done < len(view):
                done += self._raw.write(view[done:])
        except BaseException as fault:
            self.fault = fault
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.fault is None:
                return self._raw.truncate(size)
        except BaseException as fault:
            self.fault = fault
        return size or 0

    def flush(self) -> None:
        """Nothing waits: the file is not buffered."""


@contextmanager
def new_h5ad(path: Path) -> Iterator[h5py.File]:
    """Make an HDF5 file; a full disk is an OSError, raised when the file is closed."""
    with open(path, "w+b", buffering=0) as raw:
        guard = GuardedFile(raw)
        try:
            with h5py.File(guard, "w") as file:
                yield file
        except BaseException as fault:
            if guard.fault is not None:
                raise guard.fault from fault
            raise
        if guard.fault is not None:
            raise guard.fault


@contextmanager
def new_zarr(path: Path, like: Path | None = None) -> Iterator[Node]:
    """Make a zarr folder, or edit one that was copied; the list of its contents is written at the end.

    Parameters
    ----------
    path : Path
        The folder; one that exists is edited.
    like : Path, optional
        A zarr folder whose format a new one takes; by default that of anndata's settings.
    """
    zarr = import_zarr(path)
    edited, given = path.exists(), {}
    if hasattr(zarr.Group, "create_array"):  # zarr 3
        form = _usual_format() if like is None else zarr.open_group(str(like), mode="r").metadata.zarr_format
        given = {"use_consolidated": False} if edited else {"zarr_format": form}
    yield zarr.open_group(str(path), mode="r+" if edited else "w", **given)
    zarr.consolidate_metadata(str(path))


def _usual_format() -> int:
    """The format that anndata writes."""
    from anndata import settings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the setting goes away with anndata 0.14
        return getattr(settings, "zarr_write_format", 3)


def new_array(group: Node, name: str, shape: tuple[int, ...], dtype: Any, expected: int | None = None) -> Node:
    """An array to be written by blocks of rows.

    Parameters
    ----------
    group : group of h5py or zarr
    name : str
    shape : tuple of int
        One of one dimension can be resized.
    dtype : dtype
    expected : int, optional
        Rows that it will have in the end, by default those of `shape`.
    """
    expected = max(1, shape[0] if expected is None else expected)
    if is_hdf5(group):
        more = {"maxshape": (None,), "chunks": (min(CHUNK, expected),)} if len(shape) == 1 else {}
        return group.create_dataset(name, shape=shape, dtype=dtype, **more)
    rows = max(1, ZARR_CHUNK // max(1, int(np.prod(shape[1:]))))
    chunks = (min(rows, expected), *(max(1, n) for n in shape[1:]))
    create = group.create_array if hasattr(group, "create_array") else group.create_dataset
    return create(name, shape=shape, dtype=dtype, chunks=chunks)


def fill(target: Node, source: Any, at: int = 0) -> None:
    """Copy an array, in memory or on disk, into rows `at` and after of a stored one, block by block."""
    step = max(1, BLOCK // max(1, int(np.prod(source.shape[1:]))))
    for start in range(0, source.shape[0], step):
        block = source[start : start + step]
        target[at + start : at + start + len(block)] = block


def write(group: Node, name: str, value: Any) -> None:
    """Write one element as anndata does; large arrays block by block. One that is there is replaced."""
    from anndata.io import write_elem

    if isinstance(value, np.ndarray) and type(value) is not np.ndarray and not isinstance(value, np.ma.MaskedArray):
        value = np.asarray(value)  # memory-mapped files and the like
    if sp.issparse(value) and value.format not in ("csr", "csc"):
        value = value.tocsr()
    plain = type(value) is np.ndarray and value.dtype.kind in "iufb" and value.ndim > 1
    if not (plain and is_hdf5(group) and value.size > BLOCK and not value.flags.c_contiguous):
        write_elem(group, name, value)
        return
    if name in group:
        del group[name]
    fill(_encoded(group.create_dataset(name, shape=value.shape, dtype=value.dtype), "array", "0.2.0"), value)


def write_column(frame: Node, name: str, values: pd.Series | pd.Index) -> None:
    """Write one column of a stored table, or its row names; its list of columns is not touched."""
    write(frame, name, values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array)


def start_frame(group: Node, name: str, columns: list[str]) -> Node:
    """An empty table without row names, to be filled with `write_column`."""
    many = is_hdf5(group) and len(columns) > 5000  # as anndata does it: HDF5's limit of attributes
    frame = group.create_group(name, track_order=True) if many else group.create_group(name)
    frame.attrs["column-order"] = columns
    frame.attrs["_index"] = "_index"
    return _encoded(frame, "dataframe", "0.2.0")


def mapping(root: Node, name: str) -> Node:
    """The group of this name, made if need be."""
    return root[name] if name in root else _encoded(root.create_group(name), "dict", "0.1.0")


def _encoded(node: Node, kind: str, version: str) -> Node:
    node.attrs["encoding-type"] = kind
    node.attrs["encoding-version"] = version
    return node


def copy_members(source: Node, target: Node, skip: Collection[str] = (), merge: bool = False) -> None:
    """Copy all that a group holds, but for some.

    Parameters
    ----------
    source, target : group of h5py or zarr
    skip : collection of str
        Paths below `source` that are left out: "X", "obs/remark", "uns/stdeconv_params".
    merge : bool
        What `target` has already stays, and groups are filled up; else `target` must have none of it.
    """
    for name in source:
        below = [path.removeprefix(name + "/") for path in skip if path.startswith(name + "/")]
        if name in skip:
            continue
        node = source[name]
        known = name in target
        if known and not (merge and all(is_group(n) and encoding(n) in MAPPINGS for n in (node, target[name]))):
            continue
        if known:
            copy_members(node, target[name], below, merge)
        else:
            copy_node(node, target, name, below)


def copy_node(source: Node, target: Node, name: str, skip: Collection[str] = ()) -> None:
    """Copy one node under a new name into another file.

    From HDF5 to HDF5 chunks are copied as they are stored, without decompression; between the formats arrays are
    copied by blocks. Tables of old files, whose columns refer to each other, are written as new ones.
    """
    from anndata.io import read_elem, write_elem

    kind = encoding(source)
    walked = is_group(source) and kind in WALKED and (kind != "dataframe" or is_current_frame(source))
    both_hdf5 = is_hdf5(source) and is_hdf5(target)
    if walked and (kind in MAPPINGS or skip or not both_hdf5):
        many = is_hdf5(target) and len(source) > 5000
        group = target.create_group(name, track_order=True) if many else target.create_group(name)
        copy_attributes(source, group)
        copy_members(source, group, skip)
    elif both_hdf5 and kind != "dataframe" or both_hdf5 and walked:
        target.copy(source, target, name=name, expand_soft=True, expand_external=True)
    elif not is_group(source) and source.dtype.kind in "iufb" and source.shape:
        array = new_array(target, name, source.shape, source.dtype.newbyteorder("="))
        copy_attributes(source, array)
        fill(array, source)
    else:
        write_elem(target, name, read_elem(source))


def copy_attributes(source: Node, target: Node) -> None:
    """Copy the attributes of a node, and say how it is encoded where an old file does not."""
    for name in source.attrs:
        target.attrs[name] = attribute(source, name)
    kind = encoding(source)
    if is_group(source) and "encoding-type" not in source.attrs:
        _encoded(target, kind or ("raw" if target.name == "/raw" else "dict"), "0.1.0")
        if kind:
            target.attrs["shape"] = attribute(source, "shape", attribute(source, "h5sparse_shape"))


class CsrWriter:
    """Writes a sparse matrix by blocks of rows."""

    def __init__(self, root: Node, name: str, shape: tuple[int, int], dtype: Any, nnz: int | None) -> None:
        """Start an empty matrix; `nnz` is the number of entries to come, None where it is not known."""
        self._group = _encoded(root.create_group(name), "csr_matrix", "0.1.0")
        self._group.attrs["shape"] = list(shape)
        wide = np.int64 if shape[1] > np.iinfo(np.int32).max else np.int32
        expected = ZARR_CHUNK if nnz is None else nnz
        self._data = new_array(self._group, "data", (nnz or 0,), dtype, expected)
        self._indices = new_array(self._group, "indices", (nnz or 0,), wide, expected)
        self._ends, self._rows = np.zeros(shape[0] + 1, dtype=np.int64), 0

    def append(self, block: sp.csr_matrix) -> None:
        """Write the next rows."""
        start = int(self._ends[self._rows])
        stop = start + block.nnz
        for array, values in ((self._data, block.data), (self._indices, block.indices)):
            if stop > array.shape[0]:
                array.resize((stop,))
            fill(array, values, start)
        self._ends[self._rows + 1 : self._rows + block.shape[0] + 1] = block.indptr[1:].astype(np.int64) + start
        self._rows += block.shape[0]

    def close(self) -> None:
        """Write where the rows end."""
        fill(new_array(self._group, "indptr", self._ends.shape, np.int64), self._ends)
