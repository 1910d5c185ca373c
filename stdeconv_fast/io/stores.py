"""Spots that stay on disk: read by blocks of rows, so that memory does not grow with the tissue."""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..errors import DataError, DataTypeError
from .disk import Node, close_root, encoding, is_hdf5, is_zarr, length_of, open_root, opened, reading, refuse_pickles
from .labels import Labels, Tile, names_in, read_index
from .matrices import Rows, open_matrix

ENTRIES = 1 << 24  # of a block, by default
FILES_OPEN = 8  # at once, of a folder of tiles


class SpotStore(Labels):
    """Spots x genes on disk, from `open_spots`.

    A context manager. Several threads may read at once. Pickling keeps where things lie, not what they are: a worker
    process opens the files when it first reads. After `close` the next reading opens them again.

    Attributes
    ----------
    path : Path
        The file or folder.
    layer : str or None
    shape : tuple of int
        Spots and genes.
    nnz : int or None
        Entries stored; None where a matrix is dense.
    dtype : dtype
        Of the blocks.
    where : str
        Name of the matrix in messages: "spatial.X" or "spatial.layers['counts']".
    tiles : tuple of Tile
        The files, in order of the spots; one, but for a folder of tiles.
    adata : AnnData or None
        The backed AnnData that was given; labels come from it, counts from its file. Not kept by pickling.

    Notes
    -----
    Nothing is kept that grows with the entries. `obs_names` stay in memory once they were asked for; `obs` and
    `obsm` are read at every call. Spots of tiles keep the names they have in their files.
    """

    def __init__(self, path: Path, layer: str | None, tiles: tuple[Tile, ...], n_genes: int) -> None:
        self.path, self.layer, self.tiles = path, layer, tiles
        self.where = "spatial.X" if layer is None else f"spatial.layers[{layer!r}]"
        self._first = np.cumsum([0, *(tile.n_spots for tile in tiles)])  # spots before each tile
        self.shape = (int(self._first[-1]), n_genes)
        entries = [tile.nnz for tile in tiles]
        self.nnz: int | None = None if None in entries else sum(entries)
        self.dtype: np.dtype = np.result_type(*(tile.dtype for tile in tiles))
        self.adata = None
        self._names = {}
        self._open: OrderedDict[int, tuple[Node, Rows]] = OrderedDict()
        self._lock = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return SpotStore, (self.path, self.layer, self.tiles, self.shape[1])

    def __repr__(self) -> str:
        n_spots, n_genes = self.shape
        return f"SpotStore({n_spots:,} spots x {n_genes:,} genes, {self.where} in '{self.path}')"

    def __enter__(self) -> SpotStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; a later reading opens them again."""
        with self._lock:
            while self._open:
                close_root(self._open.popitem()[1][0])

    def _opened(self, tile: int) -> tuple[Node, Rows]:
        """The file of a tile, opened if need be; hold the lock."""
        if tile in self._open:
            self._open.move_to_end(tile)
            return self._open[tile]
        known = self.tiles[tile]
        root = open_root(known.path)
        try:
            rows = find_matrix(root, self.layer, self.where, known.path)
            if rows.shape != (known.n_spots, self.shape[1]) or rows.nnz != known.nnz:
                raise DataError(
                    f"'{known.path}' must stay as it is while it is read; got another matrix in {self.where}."
                )
        except BaseException:
            close_root(root)
            raise
        self._open[tile] = root, rows
        if len(self._open) > FILES_OPEN:
            close_root(self._open.popitem(last=False)[1][0])
        return root, rows

    def read(self, start: int, stop: int) -> sp.csr_matrix:
        """Read spots [start, stop), and no more of the file than these.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= n_spots.

        Returns
        -------
        csr_matrix, (stop - start, n_genes)
            Entries as stored (sorted or not, zeros included; those of a dense matrix without its zeros), dtype
            `dtype`; int32 indices, int64 where they do not suffice.

        Raises
        ------
        DataError
            Rows that are not there, or a file that is damaged, gone or changed.
        """
        start, stop = operator.index(start), operator.index(stop)
        if not 0 <= start <= stop <= self.shape[0]:
            raise DataError(f"`start` and `stop` must lie within {self.shape[0]:,} spots; got {start:,} and {stop:,}.")
        blocks = []
        tile = int(np.searchsorted(self._first, start, side="right")) - 1
        while start < stop:
            offset = int(self._first[tile])
            last = min(stop, int(self._first[tile + 1]))
            with self._lock:
                rows = self._opened(tile)[1] if last > start else None
            for first, end in rows.steps(start - offset, last - offset) if rows else ():
                blocks.append(rows.pack(self._fetch(tile, first, end)))
            start, tile = last, tile + 1
        if not blocks:
            return sp.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        block = blocks[0] if len(blocks) == 1 else sp.csr_matrix(sp.vstack(blocks, format="csr"))
        return block.astype(self.dtype, copy=False)

    def _fetch(self, tile: int, start: int, stop: int) -> Any:
        with self._lock:
            root, rows = self._opened(tile)
            if is_hdf5(root):  # one thread at a time in any case; the file must not be closed meanwhile
                return rows.fetch(start, stop)
        return rows.fetch(start, stop)

    def cut(self, most_entries: int = ENTRIES) -> list[tuple[int, int]]:
        """Ranges of spots that make blocks of like size.

        Parameters
        ----------
        most_entries : int >= 1
            Entries of a block, at most (zeros included where the matrix is dense); a spot with more is a block.

        Returns
        -------
        list of (start, stop)
            They follow each other and hold all spots. The same for the same data, however it is stored in tiles.
        """
        if operator.index(most_entries) < 1:
            raise DataError(f"`most_entries` must be at least 1; got {most_entries}.")
        ends = np.zeros(self.shape[0] + 1, dtype=np.int64)
        for number, tile in enumerate(self.tiles):
            first = int(self._first[number])
            with self._lock:
                ends[first + 1 : first + tile.n_spots + 1] = self._opened(number)[1].ends()[1:] + ends[first]
        ranges, start = [], 0
        while start < self.shape[0]:
            stop = int(np.searchsorted(ends, ends[start] + most_entries, side="right")) - 1
            ranges.append((start, max(stop, start + 1)))
            start = ranges[-1][1]
        return ranges


def open_spots(source: Any, layer: str | None = None) -> SpotStore:
    """Open spots on disk for reading by blocks.

    Parameters
    ----------
    source : str, path or AnnData
        An h5ad file, a zarr folder, a folder of such files (tiles of one tissue with the same genes, in the order of
        their names), or an AnnData in backed mode.
    layer : str, optional
        Layer with the counts; by default X.

    Returns
    -------
    SpotStore

    Raises
    ------
    DataError
        A file that is missing, damaged or no AnnData; no X, no such layer; a matrix that is stored by columns;
        tiles with different genes; a view.
    DataTypeError
        `source` is something else, or the matrix holds no numbers.
    """
    adata = None if isinstance(source, str | os.PathLike) else _backed(source)
    path = Path(os.path.abspath(adata.filename if adata is not None else source))
    if not (layer is None or isinstance(layer, str)):
        raise DataTypeError(f"`layer_st` must be the name of a layer or None; got {type(layer).__name__}.")
    where = "spatial.X" if layer is None else f"spatial.layers[{layer!r}]"
    tiles, genes = [], None
    for file in _files(path):
        refuse_pickles(file)
        with opened(file) as root:
            rows = find_matrix(root, layer, where, file)
            names = read_index(root["var"], "var", file)
            with reading("spatial.obs", file):
                n_spots = length_of(root["obs"])
            if rows.shape != (n_spots, len(names)):
                raise DataError(
                    f"`{where}` must have a row per spot and a column per gene; got {rows.shape[0]:,} x "
                    f"{rows.shape[1]:,} for {n_spots:,} spots and {len(names):,} genes in '{file}'. Make the file anew."
                )
            tiles.append(Tile(file, n_spots, rows.nnz, rows.dtype))
        genes = names if genes is None else genes
        if not names.equals(genes):
            raise DataError(
                f"tiles must have the same genes in the same order; got {_difference(genes, names)} in '{file}', other "
                f"than in '{tiles[0].path.name}'. Bring all to one list: adata = adata[:, genes]."
            )
    store = SpotStore(path, layer, tuple(tiles), len(genes))
    if adata is not None:
        if adata.shape != store.shape:
            raise DataError(f"`spatial` must be as it is in its file; got {adata.shape} and {store.shape} in '{path}'.")
        store.adata = adata
    store._names["var"] = genes
    return store


def _backed(source: Any) -> Any:
    """Refuse what is neither a path nor a backed AnnData."""
    kind = f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"
    if not (hasattr(source, "isbacked") and hasattr(source, "obs_names")):
        raise DataTypeError(f"`spatial` must be a path or an AnnData in backed mode; got {kind}.")
    if not source.isbacked:
        raise DataTypeError(
            "`spatial` must be a path or an AnnData in backed mode; got one in memory. Pass the path of its file."
        )
    if source.is_view:
        raise DataError(
            "`spatial` must be a whole AnnData in backed mode; got a view. Write it to a file of its own: "
            "adata[...].copy('part.h5ad')."
        )
    return source


def _files(path: Path) -> list[Path]:
    """The AnnData files and folders that a path stands for."""
    if not path.is_dir() or is_zarr(path):
        return [path]
    shown = [file for file in path.iterdir() if not file.name.startswith(".")]
    found = [file for file in shown if file.suffix == ".h5ad" or (file.suffix == ".zarr" and file.is_dir())]
    if not found:
        raise DataError(
            f"`spatial` must be an h5ad file, a zarr folder or a folder of such; got the folder '{path}' without any."
        )
    return sorted(found, key=lambda file: file.name)


def find_matrix(root: Node, layer: str | None, where: str, path: Path) -> Rows:
    """X or a layer of an open AnnData, ready to be read by rows."""
    with reading("spatial", path):
        there = names_in(root, "layers")
        listed = ", ".join(map(repr, there[:10]))
        if layer is not None:
            if layer not in there:
                remedy = f"Pass layer_st={there[0]!r}." if there else "Leave out layer_st to use X."
                got = listed or "no layers"
                raise DataError(f"spatial.layers must have {layer!r}; got {got} in '{path}'. {remedy}")
            node = root["layers"][layer]
        elif "X" not in root or encoding(root["X"]) == "null":
            remedy = f" Pass layer_st to use a layer ({listed})." if there else ""
            raise DataError(f"`spatial` must hold counts in X; got None in '{path}'.{remedy}")
        else:
            node = root["X"]
    return open_matrix(node, where, path)


def _difference(genes: pd.Index, others: pd.Index) -> str:
    if len(genes) != len(others):
        return f"{len(others):,} genes"
    at = int(np.flatnonzero(np.asarray(genes) != np.asarray(others))[0])
    return f"gene {str(others[at])!r} at place {at}"
