"""Reads rows of a matrix that lies on disk, stored by rows (CSR) or dense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse as sp

from ..errors import DataError, DataTypeError
from .disk import LEGACY, Node, attribute, encoding, is_group, is_hdf5, reading

DENSE_BLOCK = 1 << 23  # entries of a dense matrix that are held at once
LARGEST_INT32 = np.iinfo(np.int32).max


class CsrRows:
    """A CSR matrix on disk.

    Attributes
    ----------
    shape : tuple of int
    nnz : int
        Entries stored.
    dtype : dtype
        Of the blocks that `pack` gives: as stored, in the byte order of the machine; float16 becomes float32.
    """

    def __init__(self, group: Node, where: str, path: Path) -> None:
        self.where, self.path = where, path
        with reading(where, path):
            shape = attribute(group, "shape", attribute(group, LEGACY.replace("format", "shape")))
            self.shape = tuple(int(n) for n in shape)
            self._data, self._indices, self._indptr = (group[name] for name in ("data", "indices", "indptr"))
            sizes = [array.shape for array in (self._data, self._indices, self._indptr)]
            sound = len(self.shape) == 2 and min(self.shape) >= 0 and all(len(size) == 1 for size in sizes)
            sound = sound and self._indices.dtype.kind in "iu" and self._indptr.dtype.kind in "iu"
            if not sound or sizes[2][0] != self.shape[0] + 1:
                raise self._damaged()
            first, last = (int(self._indptr[i]) for i in (0, self.shape[0]))
            if first != 0 or not 0 <= last <= min(sizes[0][0], sizes[1][0]):
                raise self._damaged()
        self.nnz: int | None = last
        self.dtype = _number(self._data.dtype, where)

    def _damaged(self) -> DataError:
        return DataError(
            f"`{self.where}` must be a sound sparse matrix; got index arrays that point outside of it in "
            f"'{self.path}'. The file is damaged: make it anew."
        )

    def ends(self) -> np.ndarray:
        """Where each row ends among the entries, int64 (n_rows + 1,); the first is 0."""
        return self._ends(0, self.shape[0])

    def _ends(self, start: int, stop: int) -> np.ndarray:
        with reading(self.where, self.path):
            ends = self._indptr[start : stop + 1].astype(np.int64)
        if ends[0] < 0 or ends[-1] > self.nnz or (ends[1:] < ends[:-1]).any():
            raise self._damaged()
        return ends

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows to `fetch`, one after the other."""
        if stop > start:
            yield start, stop

    def fetch(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Read rows [start, stop) from the disk; not yet checked."""
        ends = self._ends(start, stop)
        with reading(self.where, self.path):
            data = _take(self._data, int(ends[0]), int(ends[-1]), self.dtype)
            indices = _take(self._indices, int(ends[0]), int(ends[-1]), self._indices.dtype.newbyteorder("="))
        ends -= ends[0]
        return data, indices, ends

    def pack(self, read: tuple[np.ndarray, ...]) -> sp.csr_matrix:
        """Make a matrix of what `fetch` read, after a check that no index points outside."""
        data, indices, ends = read
        if indices.size:
            # read as unsigned, negative numbers are large: one pass finds both faults
            largest = indices.view(np.dtype(f"u{indices.dtype.itemsize}")).max()
            if largest >= self.shape[1]:
                raise self._damaged()
        small = max(indices.size, self.shape[1]) <= LARGEST_INT32
        index = np.int32 if small else np.int64
        arrays = (data, indices.astype(index, copy=False), ends.astype(index, copy=False))
        return sp.csr_matrix(arrays, shape=(ends.size - 1, self.shape[1]), copy=False)


class DenseRows:
    """A dense matrix on disk, read as CSR without its zeros; `nnz` is None."""

    def __init__(self, array: Node, where: str, path: Path) -> None:
        self.where, self.path, self._array = where, path, array
        with reading(where, path):
            self.shape = tuple(int(n) for n in array.shape)
        if len(self.shape) != 2:
            raise DataError(f"`{where}` must have two dimensions; got {len(self.shape)} in '{path}'.")
        self.nnz: int | None = None
        self.dtype = _number(array.dtype, where)

    def ends(self) -> np.ndarray:
        """Where each row ends among the entries, int64 (n_rows + 1,), zeros counted."""
        return np.arange(self.shape[0] + 1, dtype=np.int64) * self.shape[1]

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows to `fetch`, one after the other, so that little of the dense matrix is held."""
        step = max(1, DENSE_BLOCK // max(1, self.shape[1]))
        for first in range(start, stop, step):
            yield first, min(stop, first + step)

    def fetch(self, start: int, stop: int) -> np.ndarray:
        """Read rows [start, stop) from the disk."""
        with reading(self.where, self.path):
            return _take(self._array, start, stop, self.dtype)

    def pack(self, read: np.ndarray) -> sp.csr_matrix:
        """Make a sparse matrix of what `fetch` read."""
        filled = read != 0  # NaN is not 0
        ends = np.zeros(len(read) + 1, dtype=np.int32)
        np.cumsum(np.count_nonzero(filled, axis=1), out=ends[1:])
        places = np.flatnonzero(filled)
        indices = (places % max(1, self.shape[1])).astype(np.int32)
        return sp.csr_matrix((read.reshape(-1)[places], indices, ends), shape=read.shape, copy=False)


Rows = CsrRows | DenseRows


def open_matrix(node: Node, where: str, path: Path) -> Rows:
    """Open a stored matrix for reading by rows.

    Parameters
    ----------
    node : group or array of h5py or zarr
    where : str
        Its name in messages: "spatial.X", "spatial.layers['counts']".
    path : Path
        The file, for messages.

    Returns
    -------
    CsrRows or DenseRows

    Raises
    ------
    DataError
        It is stored by columns, in no way that is known, or damaged.
    DataTypeError
        It holds something else than numbers.
    """
    with reading(where, path):
        kind = encoding(node)
    if not is_group(node):
        return DenseRows(node, where, path)
    if kind == "csr_matrix":
        return CsrRows(node, where, path)
    if kind == "csc_matrix":
        matrix = where.replace("spatial", "adata", 1)
        raise DataError(
            f"`{where}` must be stored by rows (CSR) to be read by blocks; got columns (CSC) in '{path}'. "
            f"Convert it once: {matrix} = {matrix}.tocsr(), and write it anew."
        )
    raise DataError(
        f"`{where}` must be a sparse matrix (CSR) or a dense one; got {kind or 'a plain group'} in '{path}'. "
        "Read it with anndata, and write it anew."
    )


def _number(dtype: Any, where: str) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype.kind not in "iufb":
        raise DataTypeError(f"`{where}` must hold numbers; got {dtype}. Pass raw counts without text or dates.")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def _take(array: Node, start: int, stop: int, dtype: np.dtype) -> np.ndarray:
    """Entries or rows [start, stop) of a stored array, read straight into their place."""
    if not is_hdf5(array):
        return np.ascontiguousarray(array[start:stop], dtype=dtype)
    taken = np.empty((stop - start, *array.shape[1:]), dtype)
    if taken.size:
        array.read_direct(taken, np.s_[start:stop])
    return taken
