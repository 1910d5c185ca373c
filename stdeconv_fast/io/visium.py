"""Folders of Space Ranger: Visium of all versions, and the bins of Visium HD."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from .disk import reading
from .extras import import_extra
from .tables_10x import find_mtx, read_10x_h5, read_mtx

if TYPE_CHECKING:
    from anndata import AnnData

POSITIONS = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
NUMBERS = COLUMNS[1:]
COUNTS = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix", "filtered_gene_bc_matrices")
IMAGES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}
BIN = re.compile(r"square_(\d+)um$")
USUAL_BIN = 8  # micrometres: what 10x analyses by default


def find_positions(folder: Path) -> Path | None:
    """The table of the spots' places in the subfolder "spatial", whatever version wrote it."""
    around = folder / "spatial"
    return next((around / name for name in POSITIONS if (around / name).is_file()), None)


def find_bins(folder: Path) -> dict[int, Path]:
    """Folders square_00Xum of Visium HD by the side of their bins in micrometres."""
    around = folder / "binned_outputs" if (folder / "binned_outputs").is_dir() else folder
    return {int(BIN.search(part.name)[1]): part for part in sorted(around.iterdir()) if BIN.search(part.name)}


def choose_bin(bins: dict[int, Path], bin_size: int | None, path: Path) -> tuple[Path, str]:
    """The folder of the bins to read, and what to tell about the choice.

    Raises
    ------
    DataError
        There are none of that side.
    """
    if bin_size is not None and (isinstance(bin_size, bool) or not isinstance(bin_size, int | np.integer)):
        raise DataTypeError(f"`bin_size` must be a whole number of micrometres; got {bin_size!r}.")
    there = ", ".join(str(size) for size in sorted(bins))
    size = bin_size if bin_size is not None else USUAL_BIN if USUAL_BIN in bins else max(bins)
    if size not in bins:
        raise DataError(f"`bin_size` must be one of {there}, in micrometres; got {bin_size} for '{path}'.")
    return bins[size], f"bins of {size} um (there are: {there}; bin_size chooses)"


def read_visium(folder: Path, images: bool) -> tuple[AnnData, list[str]]:
    """Read a folder of Space Ranger, or one folder of bins.

    Parameters
    ----------
    folder : Path
        With counts (filtered_feature_bc_matrix.h5 or the mtx folder, else the raw ones) and a subfolder "spatial".
    images : bool
        Whether the pictures of the tissue are read too.

    Returns
    -------
    (AnnData, list of str)
        Counts; obs "in_tissue", "array_row", "array_col"; ``obsm["spatial"]``, (n_spots, 2): x (column) and y (row)
        in pixels of the full picture; ``uns["spatial"]`` as scanpy has it. And what the user should know.

    Raises
    ------
    DataError
        Something is missing or damaged, or barcodes without a place.
    """
    counts = _find_counts(folder)
    adata, told = read_mtx(counts) if isinstance(counts, tuple) else read_10x_h5(counts)
    source = counts[0].parent if isinstance(counts, tuple) else counts
    told.insert(0, f"counts from '{source.name}'")
    places = _read_positions(find_positions(folder))
    at = pd.Index(places["barcode"]).get_indexer(adata.obs_names)
    if (at < 0).any():
        first = adata.obs_names[at < 0][0]
        raise DataError(
            f"`path` must have a place for each barcode; got none for {(at < 0).sum():,} of {len(at):,}, the first "
            f"{first!r}, in '{folder}'. Counts and the folder spatial must come from the same run."
        )
    places = places.iloc[at]
    for column in ("in_tissue", "array_row", "array_col"):
        adata.obs[column] = places[column].to_numpy().astype(np.int64)
    adata.obsm["spatial"] = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    adata.uns["spatial"] = {_library(folder): _read_extras(folder / "spatial", images, told)}
    return adata, told


def has_counts(folder: Path) -> bool:
    """Whether a folder has counts as Space Ranger and Cell Ranger name them."""
    return _named_counts(folder) is not None


def _named_counts(folder: Path) -> Path | tuple[Path, Path, Path] | None:
    for name in COUNTS:
        for file in sorted(folder.glob(f"*{name}*.h5")):
            return file
        if (folder / name).is_dir():
            parts = [folder / name, *(part for part in sorted((folder / name).iterdir()) if part.is_dir())]
            found = [files for files in map(find_mtx, parts) if files]
            if found:
                return found[0]
    return None


def _find_counts(folder: Path) -> Path | tuple[Path, Path, Path]:
    found = _named_counts(folder) or find_mtx(folder)
    if found is None:
        raise DataError(
            f"`path` must hold counts beside the folder spatial: filtered_feature_bc_matrix.h5, "
            f"filtered_feature_bc_matrix/ or the raw ones; got none in '{folder}'."
        )
    return found


def _read_positions(path: Path) -> pd.DataFrame:
    """The table of places with `COLUMNS`, with or without a header, csv or parquet."""
    if path.suffix == ".parquet":
        table = read_parquet(path)
    else:
        with reading("path", path):
            with open(path, encoding="utf-8", newline="") as file:
                first = next(csv.reader(file), [])
            header = bool(first) and first[0].strip().lower() == "barcode"
            table = pd.read_csv(path, header=0 if header else None, dtype={0: str, "barcode": str})
            if not header and table.shape[1] == len(COLUMNS):
                table.columns = COLUMNS
    lacking = [name for name in COLUMNS if name not in table.columns]
    if lacking:
        got = ", ".join(str(name) for name in table.columns[:8])
        raise DataError(f"'{path}' must have the columns {', '.join(COLUMNS)}; got {got}. Copy the folder anew.")
    with reading("path", path):
        table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric)
    if table[NUMBERS].isna().to_numpy().any() or not table["barcode"].is_unique:
        what = "barcodes that occur twice" if not table["barcode"].is_unique else "missing values"
        raise DataError(f"'{path}' must have one whole row per barcode; got {what}. Copy the folder anew.")
    return table


def read_parquet(path: Path) -> pd.DataFrame:
    """A parquet file as a DataFrame.

    Raises
    ------
    DataError
        pyarrow is not installed, or the file cannot be read.
    """
    parquet = import_parquet(path)
    with reading("path", path):
        return parquet.read_table(path).to_pandas()


def import_parquet(path: Path) -> Any:
    """The module pyarrow.parquet.

    Raises
    ------
    DataError
        It is not installed.
    """
    return import_extra("pyarrow.parquet", f"'{path}'", "pip install 'stdeconv-fast[readers]'")


def _library(folder: Path) -> str:
    """What the section is called: the folder, or the one around "outs" and "binned_outputs"."""
    parts = [part for part in folder.resolve().parts if part not in ("outs", "binned_outputs", folder.anchor)]
    named = [part for part in parts if not BIN.match(part)]
    return named[-1] if named else "section"


def _read_extras(around: Path, images: bool, told: list[str]) -> dict[str, Any]:
    """Scale factors and pictures, as scanpy and squidpy look for them in ``uns["spatial"]``."""
    extras: dict[str, Any] = {"images": {}, "scalefactors": {}, "metadata": {}}
    factors = around / "scalefactors_json.json"
    if factors.is_file():
        with reading("path", factors):
            extras["scalefactors"] = json.loads(factors.read_text(encoding="utf-8"))
    else:
        told.append("there are no scale factors (scalefactors_json.json)")
    for key, stem in IMAGES.items() if images else ():
        file = next((around / (stem + end) for end in (".png", ".jpg") if (around / (stem + end)).is_file()), None)
        if file is None:
            continue
        from matplotlib.image import imread

        try:
            extras["images"][key] = np.asarray(imread(file))
        except (OSError, SyntaxError, ValueError) as fault:  # pillow says SyntaxError to some damaged files
            told.append(f"the picture '{file.name}' cannot be read ({type(fault).__name__}) and is left out")
    return extras
