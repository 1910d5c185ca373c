"""Writes counts and places as a folder of Space Ranger: Visium, or bins of Visium HD."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..errors import DataError, DataTypeError
from .visium import COLUMNS, import_parquet

if TYPE_CHECKING:
    from anndata import AnnData

SPOT, PITCH = 55.0, 100.0  # micrometres: diameter of a Visium spot, distance of two
SAMPLE = 2_000  # spots whose nearest neighbour is looked up


def write_visium(
    adata: AnnData, path: str | os.PathLike[str], *, bin_size: int | None = None, spatial_key: str = "spatial"
) -> Path:
    """Write a folder as Space Ranger writes it, for what reads such folders.

    Parameters
    ----------
    adata : AnnData, (n_spots, n_genes)
        Raw counts, whole numbers, in X; ``var["gene_ids"]`` if there are ids beside the names of the genes;
        ``obs["in_tissue"]``, ``obs["array_row"]`` and ``obs["array_col"]`` if there are such.
    path : str or path
        The folder "outs"; not there yet, or empty.
    bin_size : int, optional
        Side of the bins of Visium HD in micrometres: ``binned_outputs/square_008um`` with a parquet table of places
        (pyarrow writes it). By default a folder of Visium.
    spatial_key : str
        Key of ``adata.obsm`` for x and y in pixels of the full picture.

    Returns
    -------
    Path
        `path`. ``stdeconv_fast.io.read(path)`` reads it.

    Raises
    ------
    DataError
        Counts that are no whole numbers, no coordinates, a folder that holds something, no pyarrow for bins.
    DataTypeError
        `adata` is no AnnData, `bin_size` no whole number.

    Notes
    -----
    Pictures are not written. Rows and columns of the array that `adata` lacks are the ranks of y and x. The scale
    factors take the distance of neighbouring spots for 100 micrometres, that of bins for `bin_size`. Space Ranger
    lists the spots outside of the tissue, too; here those of `adata` are all.
    """
    counts, places = _checked(adata, bin_size, spatial_key)
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"`path` must be a folder that is not there yet or is empty; got '{target}'.")
    if not target.resolve().parent.is_dir():
        raise DataError(f"`path` must lie in a folder that exists; got '{target}'.")
    parquet = import_parquet(target) if bin_size is not None else None
    part = target.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        outs = part if bin_size is None else part / "binned_outputs" / f"square_{bin_size:03d}um"
        (outs / "spatial").mkdir(parents=True)
        _write_counts(outs / "filtered_feature_bc_matrix.h5", adata, counts)
        if parquet is None:
            places.to_csv(outs / "spatial" / "tissue_positions.csv", index=False)
        else:
            import pyarrow

            parquet.write_table(pyarrow.Table.from_pandas(places), outs / "spatial" / "tissue_positions.parquet")
        factors = _factors(places, bin_size)
        (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors), encoding="utf-8")
        if target.exists():
            target.rmdir()
        os.rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _checked(adata: Any, bin_size: Any, spatial_key: str) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Counts as int32 and the table of places, or one clear error."""
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise DataTypeError(f"`adata` must be an AnnData; got {type(adata).__name__}.")
    if bin_size is not None and (isinstance(bin_size, bool) or not isinstance(bin_size, int | np.integer)):
        raise DataTypeError(f"`bin_size` must be a whole number of micrometres; got {bin_size!r}.")
    if bin_size is not None and not 1 <= bin_size <= 999:
        raise DataError(f"`bin_size` must be from 1 to 999 micrometres; got {bin_size}.")
    if spatial_key not in adata.obsm:
        there = ", ".join(map(repr, adata.obsm)) or "no keys"
        raise DataError(f"adata.obsm must have the key {spatial_key!r}; got {there}. Pass spatial_key.")
    xy = np.asarray(adata.obsm[spatial_key], dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] < 2 or not np.isfinite(xy[:, :2]).all():
        raise DataError(f"adata.obsm[{spatial_key!r}] must hold finite x and y of every spot; got shape {xy.shape}.")
    if adata.X is None or adata.isbacked:
        raise DataError("adata.X must hold the counts in memory; got none. Pass adata.to_memory(), or set X.")
    counts = sp.csr_matrix(adata.X)
    with np.errstate(invalid="ignore"):
        whole = counts.data.astype(np.int32)
    if (whole != counts.data).any() or (whole < 0).any():
        raise DataError("adata.X must hold raw counts, whole numbers >= 0; got other values. Pass the raw counts.")
    if not (adata.obs_names.is_unique and adata.var_names.is_unique):
        raise DataError("adata.obs_names and adata.var_names must be unique; got names that occur twice.")
    ranks = {
        "array_row": np.unique(xy[:, 1].round(6), return_inverse=True)[1],
        "array_col": np.unique(xy[:, 0].round(6), return_inverse=True)[1],
        "in_tissue": np.ones(len(xy), dtype=np.int64),
    }
    obs = {name: adata.obs[name].to_numpy() if name in adata.obs else ranks[name] for name in COLUMNS[1:4]}
    places = pd.DataFrame({"barcode": adata.obs_names.astype(str), **obs})
    places["pxl_row_in_fullres"], places["pxl_col_in_fullres"] = xy[:, 1], xy[:, 0]
    return sp.csr_matrix((whole, counts.indices, counts.indptr), counts.shape), places[COLUMNS]


def _write_counts(path: Path, adata: AnnData, counts: sp.csr_matrix) -> None:
    """An h5 file of 10x, version 3."""
    import h5py

    names = adata.var_names.astype(str)
    columns = {
        "id": adata.var.get("gene_ids", names),
        "name": names,
        "feature_type": ["Gene Expression"] * len(names),
        "genome": adata.var.get("genome", ["unknown"] * len(names)),
    }

    def texts(values: Any) -> np.ndarray:
        return np.array([str(value).encode() for value in values], dtype="S")

    with h5py.File(path, "w") as root:
        group = root.create_group("matrix")
        for name, values in (("data", counts.data), ("indices", counts.indices), ("indptr", counts.indptr)):
            values = values.astype(np.int32 if name == "data" else np.int64)
            group.create_dataset(name, data=values, compression="gzip", compression_opts=1)
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        group["barcodes"] = texts(adata.obs_names)
        features = group.create_group("features")
        for name, values in columns.items():
            features[name] = texts(values)


def _factors(places: pd.DataFrame, bin_size: int | None) -> dict[str, float]:
    """Scale factors, in pixels of the full picture."""
    from scipy.spatial import cKDTree

    xy = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    distance = 1.0
    if len(xy) > 1:
        distance = float(np.median(cKDTree(xy).query(xy[:: max(1, len(xy) // SAMPLE)], k=2)[0][:, 1])) or 1.0
    factors = {"tissue_hires_scalef": 1.0, "tissue_lowres_scalef": 1.0}
    if bin_size is None:
        return factors | {"spot_diameter_fullres": distance * SPOT / PITCH}
    return factors | {
        "spot_diameter_fullres": distance, "bin_size_um": float(bin_size), "microns_per_pixel": bin_size / distance,
    }  # fmt: skip
