"""Writes an answer to a file of the format that its ending names, whole or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from ..parcels import Result
from .atomic import atomic_folder, atomic_path, check_folder, check_writable
from .visium import import_parquet

if TYPE_CHECKING:
    from anndata import AnnData

TEXT = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
ENDINGS = (".h5ad", ".zarr", *TEXT, ".parquet")
ROWS = 100_000  # of a table that become text at once


def write(what: Any, path: str | os.PathLike[str], *, key: str = "stdeconv") -> Path:
    """Write an answer.

    Parameters
    ----------
    what : Result or AnnData
        What `stdeconv_fast.deconvolve` gave, or the AnnData that `tl.deconvolve` wrote into.
    path : str or path
        The ending chooses: ``.h5ad`` and ``.zarr`` hold an AnnData (of a Result: proportions, status, standard errors
        and q-values, no counts); ``.csv``, ``.tsv`` (each with ``.gz``, too) and ``.parquet`` the proportions, a row
        a spot, its name in the first column "spot". Text has six digits, parquet all.
    key : str
        Under which name the answer lies in the AnnData, and will lie in that of a Result.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    DataError
        Another ending; a place that cannot be written; no answer of this name; pyarrow is not installed (parquet).
    DataTypeError
        `what` is neither.
    """
    from anndata import AnnData

    if not isinstance(what, Result | AnnData):
        raise DataTypeError(f"`what` must be a Result or an AnnData; got {type(what).__name__}.")
    if not isinstance(path, str | os.PathLike):
        raise DataTypeError(f"`path` must be a path; got {type(path).__name__}.")
    ending = next((end for end in ENDINGS if os.fspath(path).endswith(end)), None)
    if ending is None:
        raise DataError(f"`path` must end in {', '.join(ENDINGS)}; got '{path}'.")
    target = check_folder(path) if ending == ".zarr" else check_writable(path)
    if ending in (".h5ad", ".zarr"):
        adata = _as_anndata(what, key) if isinstance(what, Result) else what
        if ending == ".zarr":
            with atomic_folder(target) as part, warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Writing zarr v2", UserWarning)  # anndata's setting, not the caller's
                adata.write_zarr(part)
        else:
            with atomic_path(target) as part:
                adata.write_h5ad(part)
        return target
    table = _plain(what.proportions) if isinstance(what, Result) else proportions_in(what, key)
    if ending == ".parquet":
        parquet = import_parquet(target)
        import pyarrow

        with atomic_path(target) as part:
            spots = pd.Index(table.index.astype(str), name="spot")
            parquet.write_table(pyarrow.Table.from_pandas(table.set_axis(spots, axis=0).reset_index()), part)
        return target
    with atomic_path(target) as part:
        for start in range(0, max(len(table), 1), ROWS):  # a member of the gzip file each
            table.iloc[start : start + ROWS].to_csv(
                part, sep=TEXT[ending], index_label="spot", float_format="%.6g", mode="a" if start else "w",
                header=not start, compression="gzip" if ending.endswith(".gz") else None,
            )  # fmt: skip
    return target


def proportions_in(adata: AnnData, key: str) -> pd.DataFrame:
    """The proportions in an AnnData, (n_spots, n_types).

    Raises
    ------
    DataError
        There is no such table; the message lists what is there.
    """
    table = adata.obsm[key] if isinstance(key, str) and key in adata.obsm else None
    if not isinstance(table, pd.DataFrame):
        there = ", ".join(repr(name) for name in adata.obsm if isinstance(adata.obsm[name], pd.DataFrame)) or "none"
        raise DataError(
            f"`key` must name a table of proportions in obsm; got {key!r}, and there are: {there}. "
            "Run stdeconv_fast.tl.deconvolve first, or pass its key_added."
        )
    return table


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose labels are text without a name."""
    index = pd.Index(np.asarray(table.index.astype(str), dtype=object))
    return table.set_axis(index, axis=0).set_axis([str(name) for name in table.columns], axis=1)


def _as_anndata(result: Result, key: str) -> AnnData:
    """An AnnData of the spots without counts, with the names that `tl.deconvolve` gives."""
    from anndata import AnnData

    if not isinstance(key, str) or not key or "/" in key:
        raise DataError(f"`key` must be a name without '/', which files cannot hold; got {key!r}.")
    shares = _plain(result.proportions)
    columns = [name.replace("/", "|") for name in shares.columns]
    if len(set(columns)) < len(columns):
        raise DataError("cell types must differ in more than '/' and '|', as h5ad files hold no '/'. Rename them.")
    known = shares.notna().all(axis=1).to_numpy()
    codes = np.full(len(shares), -1)
    codes[known] = shares.to_numpy()[known].argmax(axis=1)
    obs = pd.DataFrame(index=shares.index)
    obs[key + "_dominant"] = pd.Categorical.from_codes(codes, categories=shares.columns)
    obs[key + "_status"] = pd.Categorical(result.status.to_numpy().astype(str))
    adata = AnnData(obs=obs)
    for ending, table in (("", shares), ("_se", result.standard_errors), ("_q", result.q_values)):
        if table is not None:
            adata.obsm[key + ending] = table.set_axis(obs.index, axis=0).set_axis(columns, axis=1)
    return adata
