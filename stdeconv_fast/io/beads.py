"""Folders of beads and cells: Slide-seq and Curio Seeker (a matrix and a table of bead locations), and Xenium."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..errors import DataError
from .disk import reading
from .tables_10x import find_mtx, read_10x_h5, read_mtx, with_unique_genes
from .visium import read_parquet

if TYPE_CHECKING:
    from anndata import AnnData

LOCATIONS = ("*bead_locations*.csv*", "*BeadLocation*.csv*", "*bead_location*.csv*")
TEXTS = ("*digital_expression*.txt*", "*DGE*.csv*", "*expression*.csv*", "*counts*.csv*")
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
ROWS = 1000  # genes of a text table that are turned sparse at once
CENTROIDS = ["x_centroid", "y_centroid"]


def find_locations(folder: Path) -> Path | None:
    """The table with the places of the beads.

    Raises
    ------
    DataError
        There are several.
    """
    found = sorted({file for pattern in LOCATIONS for file in folder.glob(pattern) if file.is_file()})
    if len(found) > 1:
        raise DataError(
            f"`path` must hold one table of bead locations; got '{found[0].name}' and '{found[1].name}' in '{folder}'. "
            "Put each puck in a folder of its own."
        )
    return found[0] if found else None


def read_beads(folder: Path) -> tuple[AnnData, list[str]]:
    """Read a puck: a table of bead locations, and counts as mtx (Curio) or as a text table of genes x beads.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    (AnnData, list of str)
        Counts of the beads that have a place, ``obsm["spatial"]``, (n_beads, 2), in the file's unit; and what the
        user should know: beads without counts or without a place are left out.

    Raises
    ------
    DataError
        Something is missing or damaged.
    """
    locations = find_locations(folder)
    places = _read_locations(locations)
    matrix = find_mtx(folder)
    if matrix is not None:
        adata, told = read_mtx(matrix)
        source = matrix[0]
    else:
        texts = sorted({file for pattern in TEXTS for file in folder.glob(pattern)} - {locations})
        if len(texts) != 1:
            got = ", ".join(f"'{file.name}'" for file in texts[:3]) or "none"
            raise DataError(
                "`path` must hold one table of counts beside the bead locations (matrix.mtx, "
                f"MoleculesPerMatchedBead.mtx, digital_expression.txt, a DGE csv); got {got} in '{folder}'."
            )
        source = texts[0]
        adata, told = _read_text_counts(source)
    told.insert(0, f"counts from '{source.name}', places from '{locations.name}'")
    at = places.index.get_indexer(adata.obs_names)
    if (at < 0).all():
        raise DataError(
            f"`path` must hold places of the beads that have counts; got none in common. First names: "
            f"{places.index[0]!r} in '{locations.name}', {adata.obs_names[0]!r} in '{source.name}'."
        )
    if (at < 0).any():
        told.append(f"left out {(at < 0).sum():,} beads that have no place")
        adata, at = adata[at >= 0].copy(), at[at >= 0]
    if len(at) < len(places):
        told.append(f"left out {len(places) - len(at):,} places whose beads have no counts")
    adata.obsm["spatial"] = places.to_numpy(dtype=np.float64)[at]
    return adata, told


def _read_locations(path: Path) -> pd.DataFrame:
    """Places by bead: the first column has the names, those called x and y (xcoord, ycoord, ...) the places."""
    with reading("path", path):
        table = pd.read_csv(path, dtype={0: str}, index_col=0)
        table.index = table.index.astype(str)
        x = [name for name in table if str(name).lower().startswith("x")]
        y = [name for name in table if str(name).lower().startswith("y")]
        chosen = [x[0], y[0]] if x and y else []
        places = table[chosen].apply(pd.to_numeric)
    if not chosen or not len(table):
        got = ", ".join(map(repr, table.columns[:6])) or "no columns"
        raise DataError(f"'{path}' must have columns for x and y beside the names of the beads; got {got}.")
    if places.isna().to_numpy().any() or not places.index.is_unique:
        what = "missing places" if places.index.is_unique else "beads that occur twice"
        raise DataError(f"'{path}' must have one place per bead; got {what}. Drop those rows.")
    return places


def _read_text_counts(path: Path) -> tuple[AnnData, list[str]]:
    """A table of genes x beads, tabs or commas, read by blocks of genes and held sparse."""
    blocks, names, beads = [], [], None
    opener = gzip.open if path.suffix == ".gz" else open
    with reading("path", path), opener(path, "rt", encoding="utf-8") as file:
        separator = "\t" if ".txt" in path.name or ".tsv" in path.name else ","
        for block in pd.read_csv(file, sep=separator, index_col=0, chunksize=ROWS, comment="#"):
            beads = block.columns
            names.extend(str(name) for name in block.index)
            values = block.to_numpy()
            if values.dtype.kind not in "iuf":
                raise DataError(f"'{path}' must hold counts, genes x beads; got text among the values.")
            blocks.append(sp.csr_matrix(values))
    if not blocks:
        raise DataError(f"'{path}' must hold counts, genes x beads; got no gene.")
    told: list[str] = []
    matrix = sp.csr_matrix(sp.vstack(blocks, format="csc").T)
    return with_unique_genes(matrix, pd.DataFrame(index=beads), pd.DataFrame(index=names), told), told


def find_cells(folder: Path) -> Path | None:
    """The table of cells of a Xenium folder; csv where there are both, as it needs no other package."""
    found = [folder / name for name in reversed(CELLS) if (folder / name).is_file()]
    return found[0] if found else None


def read_xenium(folder: Path) -> tuple[AnnData, list[str]]:
    """Read a folder of Xenium: cell_feature_matrix (h5 or mtx) and the table of cells.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    (AnnData, list of str)
        Counts of cells x genes (control probes are left out); obs: the columns of the table of cells;
        ``obsm["spatial"]``, (n_cells, 2), centroids in micrometres.

    Raises
    ------
    DataError
        Something is missing or damaged.
    """
    h5 = folder / "cell_feature_matrix.h5"
    if h5.is_file():
        adata, told = read_10x_h5(h5)
    else:
        files = find_mtx(folder / "cell_feature_matrix")
        if files is None:
            raise DataError(f"`path` must hold cell_feature_matrix.h5 or the mtx folder of this name; got '{folder}'.")
        adata, told = read_mtx(files)
    path = find_cells(folder)
    told.insert(0, f"places from '{path.name}', in micrometres; its rows are cells, not spots")
    with reading("path", path):
        cells = read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"cell_id": str})
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in cells["cell_id"]]
        cells = cells.drop(columns="cell_id").set_axis(pd.Index(names, dtype=object), axis=0)
        at = cells.index.get_indexer(adata.obs_names)
        places = cells[CENTROIDS].to_numpy(dtype=np.float64)
    if (at < 0).any():
        raise DataError(
            f"'{path}' must have a row for each cell of the matrix; got none for {(at < 0).sum():,} of {len(at):,}, "
            f"the first {adata.obs_names[at < 0][0]!r}. Copy the folder anew."
        )
    adata.obs = cells.iloc[at].set_axis(adata.obs_names, axis=0)
    adata.obsm["spatial"] = places[at]
    return adata, told
