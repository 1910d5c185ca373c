"""Recognises what a path holds, whatever platform wrote it, and reads it into an AnnData."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from .beads import find_cells, find_locations, read_beads, read_xenium
from .disk import is_zarr, reading, refuse_pickles
from .extras import import_extra
from .probe import probe
from .tables_10x import find_mtx, is_10x_h5, read_10x_h5, read_mtx
from .visium import choose_bin, find_bins, find_positions, has_counts, read_visium

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger("stdeconv_fast")
SOURCE = "stdeconv_source"
XENIUM = "cell_feature_matrix"
PLACES = ("X_spatial", "spatial_fov", "coordinates")  # keys of obsm that hold places, by other names
PAIRS = (
    ("x_centroid", "y_centroid"), ("SPATIAL_1", "SPATIAL_2"), ("xcoord", "ycoord"), ("x", "y"), ("X", "Y"),
    ("center_x", "center_y"), ("array_col", "array_row"),
)  # fmt: skip
LOOKED_FOR = (
    "a Visium folder (spatial/tissue_positions.csv, .parquet or tissue_positions_list.csv, with the counts beside it)",
    "Visium HD (binned_outputs/square_00Xum)",
    "Xenium (cell_feature_matrix.h5 with cells.parquet or cells.csv.gz)",
    "Slide-seq or Curio (a csv of bead locations with counts)",
    "a 10x mtx folder (matrix.mtx, barcodes.tsv, features.tsv or genes.tsv, .gz or not)",
    "a 10x h5 file",
    "an h5ad file",
    "a zarr folder of AnnData or SpatialData",
)


def read(path: Any, *, bin_size: int | None = None, table: str | None = None, images: bool = True) -> AnnData:
    """Read spots or a reference, in whatever format a platform wrote them.

    Parameters
    ----------
    path : str, path or SpatialData
        A folder of Space Ranger (Visium; Visium HD: the whole output or one folder ``square_00Xum``), of Xenium, of
        Slide-seq or Curio; a 10x mtx folder or h5 file; an h5ad file (Stereo-seq, Xenium, Curio, any); a zarr folder
        of AnnData or SpatialData; or a SpatialData in memory.
    bin_size : int, optional
        Side of the bins of Visium HD in micrometres; by default 8 where there are such, else the largest.
    table : str, optional
        Table of a SpatialData; needed where there are several.
    images : bool
        Whether the pictures of a Visium folder are read into ``uns["spatial"]``.

    Returns
    -------
    AnnData, (n_spots, n_genes)
        Counts in X, places in ``obsm["spatial"]`` (a reference and a bare matrix have none); ``var["gene_ids"]``,
        ``obs["in_tissue"]``, ``obs["array_row"]`` and ``obs["array_col"]`` where the format has them.
        ``uns["stdeconv_source"]`` says what was found: "format", "path" and "notes".

    Raises
    ------
    DataError
        Nothing that is known is there (the message lists what was looked for); something is missing or damaged; a
        package is needed that is not installed (the message names the command that installs it).
    DataTypeError
        `path` is neither a path nor a SpatialData.

    Notes
    -----
    Nothing in the files is executed: no pickles are read. What was found is logged, too (logger "stdeconv_fast",
    level INFO). All is held in memory; `stdeconv_fast.open_spots` reads h5ad and zarr by blocks.

    Examples
    --------
    >>> adata = sd.io.read("outs")  # doctest: +SKIP
    >>> adata.uns["stdeconv_source"]["format"]  # doctest: +SKIP
    'Visium'
    """
    if hasattr(path, "tables") and type(path).__name__ == "SpatialData":
        given, (found, adata, told) = "an object", _read_spatialdata(path, table)
    elif not isinstance(path, str | os.PathLike):
        raise DataTypeError(f"`path` must be a path or a SpatialData; got {type(path).__name__}.")
    else:
        given = Path(os.path.abspath(path))
        if not given.exists():
            raise DataError(f"`path` must be a file or a folder that exists; got '{path}'.")
        found, adata, told = _read_folder(given, bin_size, table, images) if given.is_dir() else _read_file(given)
    adata.uns[SOURCE] = {"format": found, "path": str(given), "notes": np.array(told, dtype=str)}
    said = "".join(f"; {note}" for note in told)
    log.info("'%s' is %s: %s x %s%s", given, found, f"{adata.n_obs:,}", f"{adata.n_vars:,} genes", said)
    return adata


def needs_reading(path: Path) -> bool:
    """Whether `read` alone knows what lies at a path: no AnnData, nor a folder of such, that is read by blocks.

    A folder in which nothing is known counts, so that `read` tells what was looked for.
    """
    if not path.is_dir():
        return path.suffix in (".h5", ".hdf5") and is_10x_h5(path)
    if is_zarr(path):
        return (path / "tables").is_dir()
    tables = [file for file in path.iterdir() if file.suffix in (".h5ad", ".zarr") and not file.name.startswith(".")]
    folder = path / "outs" if (path / "outs").is_dir() else path
    finders = (find_bins, find_positions, find_cells, find_locations, find_mtx)
    return not tables or any(find(where) for find in finders for where in {path, folder})


def fill_places(adata: AnnData) -> AnnData:
    """Fill ``obsm["spatial"]``, where it lacks, from where platforms keep the places."""
    return _with_places(adata)[0]


def _read_file(path: Path) -> tuple[str, AnnData, list[str]]:
    if path.suffix == ".h5ad":
        import anndata

        probe(path, "`path`")
        with reading("path", path):
            adata = anndata.read_h5ad(path)
        return _platform(adata), *_with_places(adata)
    if path.suffix in (".h5", ".hdf5") and is_10x_h5(path):
        return "10x h5", *read_10x_h5(path)
    raise _unknown(path)


def _read_folder(path: Path, bin_size: int | None, table: str | None, images: bool) -> tuple[str, AnnData, list[str]]:
    if is_zarr(path):
        return _read_zarr(path, table)
    folder = path / "outs" if (path / "outs").is_dir() and find_positions(path) is None else path
    bins = find_bins(folder)
    if bins:
        part, said = choose_bin(bins, bin_size, path)
        adata, told = read_visium(part, images)
        return "Visium HD", adata, [said, *told]
    if find_positions(folder):
        kind = "Visium HD" if find_positions(folder).suffix == ".parquet" else "Visium"
        return kind, *read_visium(folder, images)
    if find_cells(folder) and ((folder / XENIUM).with_suffix(".h5").is_file() or (folder / XENIUM).is_dir()):
        return "Xenium", *read_xenium(folder)
    if find_locations(folder):
        return "Slide-seq", *read_beads(folder)
    matrix = find_mtx(folder)
    if matrix:
        return "10x mtx", *read_mtx(matrix)
    h5ad = sorted(folder.glob("*.h5ad"))
    if len(h5ad) == 1:  # as Curio and Stereo-seq leave them among other files
        found, adata, told = _read_file(h5ad[0])
        return found, adata, [f"the only h5ad of the folder, '{h5ad[0].name}'", *told]
    raise _unknown(path)


def _unknown(path: Path) -> DataError:
    kind = "folder" if path.is_dir() else "file"
    got = f"the {kind} '{path}'"
    remedy = ""
    if path.is_dir():
        there = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
        listed = ", ".join(map(repr, there[:8])) + (", ..." if len(there) > 8 else "") or "nothing"
        got += f" with {listed}"
        if has_counts(path):
            remedy = " There are counts, but no subfolder 'spatial' with places: pass the counts for them alone."
    return DataError(
        f"`path` must hold a format that is known; got {got}.{remedy} Looked for: {'; '.join(LOOKED_FOR)}."
    )


def _read_zarr(path: Path, table: str | None) -> tuple[str, AnnData, list[str]]:
    """An AnnData in a zarr folder, or one of the tables of a SpatialData."""
    import anndata

    refuse_pickles(path, "`path`")
    tables = path / "tables"
    if not tables.is_dir():
        with reading("path", path):
            adata = anndata.read_zarr(path)
        return _platform(adata), *_with_places(adata)
    names = sorted(part.name for part in tables.iterdir() if part.is_dir() and is_zarr(part))
    table = _choose_table(names, table, f"'{path}'")
    with reading("path", tables / table):
        adata = anndata.read_zarr(tables / table)

    def whole() -> Any:
        need = f"'{path}' keeps the places of {table!r} in its shapes, and"
        spatialdata = import_extra("spatialdata", need, "pip install 'stdeconv-fast[spatialdata]'")
        with reading("path", path):
            return spatialdata.read_zarr(path)

    return "SpatialData", *_from_table(adata, names, table, whole, path)


def _read_spatialdata(data: Any, table: str | None) -> tuple[str, AnnData, list[str]]:
    """One of the tables of a SpatialData in memory, copied."""
    names = sorted(data.tables)
    table = _choose_table(names, table, "the SpatialData")
    return "SpatialData", *_from_table(data.tables[table].copy(), names, table, lambda: data, Path("SpatialData"))


def _choose_table(names: list[str], table: str | None, where: str) -> str:
    if table is None and len(names) == 1:
        return names[0]
    if table not in names:
        got = "None" if table is None else repr(table)
        listed = ", ".join(map(repr, names)) or "none"
        raise DataError(f"`table` must be one of the tables of {where}: {listed}; got {got}.")
    return table


def _from_table(
    adata: AnnData, names: list[str], table: str, whole: Callable[[], Any], path: Path
) -> tuple[AnnData, list[str]]:
    """A table with places: its own, else the centroids of the regions in the `whole` SpatialData that it annotates."""
    told = [f"table {table!r} of {', '.join(map(repr, names))}"]
    adata, more = _with_places(adata)
    if "spatial" in adata.obsm:
        return adata, told + more
    data = whole()
    with reading("path", path):
        import spatialdata

        about = adata.uns["spatialdata_attrs"]
        regions = about["region"] if isinstance(about["region"], list | tuple | np.ndarray) else [about["region"]]
        places = np.full((adata.n_obs, 2), np.nan)
        for region in regions:
            centroids = spatialdata.get_centroids(data[region]).compute()
            mine = np.flatnonzero(adata.obs[about["region_key"]].astype(str) == str(region))
            rows = centroids.index.get_indexer(pd.Index(adata.obs[about["instance_key"]].to_numpy()[mine]))
            places[mine[rows >= 0]] = centroids[["x", "y"]].to_numpy()[rows[rows >= 0]]
    if np.isnan(places).any():
        n = int(np.isnan(places).any(axis=1).sum())
        raise DataError(f"'{path}' must have a region for each row of {table!r}; got none for {n:,}.")
    adata.obsm["spatial"] = places
    return adata, [*told, "places are the centroids of the regions that the table annotates"]


def _platform(adata: AnnData) -> str:
    """Which platform an AnnData comes from, by the marks that its programs leave."""
    if {"x_centroid", "y_centroid", "transcript_counts"} <= set(adata.obs):
        return "Xenium h5ad"
    if {"bin_type", "bin_size"} & set(adata.uns) or {"orig.ident", "dnbCount"} <= set(adata.obs):
        return "Stereo-seq h5ad"
    if {"SPATIAL_1", "SPATIAL_2"} <= set(adata.obs) or "X_spatial" in adata.obsm:
        return "Curio h5ad"
    if {"in_tissue", "array_row", "array_col"} <= set(adata.obs):
        return "Visium h5ad"
    return "AnnData"


def _with_places(adata: AnnData) -> tuple[AnnData, list[str]]:
    """Fill ``obsm["spatial"]`` from where platforms keep the places, and tell from where."""
    if "spatial" in adata.obsm:
        return adata, []
    for key in PLACES:
        if key in adata.obsm:
            adata.obsm["spatial"] = np.array(adata.obsm[key], dtype=np.float64)
            return adata, [f"places from obsm[{key!r}]"]
    for pair in PAIRS:
        if set(pair) <= set(adata.obs) and all(pd.api.types.is_numeric_dtype(adata.obs[name]) for name in pair):
            adata.obsm["spatial"] = adata.obs[list(pair)].to_numpy(dtype=np.float64)
            return adata, [f"places from obs[{pair[0]!r}] and obs[{pair[1]!r}]"]
    return adata, ["no places: obsm['spatial'] is missing, as in a reference"]
