"""Takes an answer out of an AnnData or its file, without the counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError

if TYPE_CHECKING:
    from anndata import AnnData

FIT = ("deviance", "misfit", "misfit_q")  # columns of obs, after the key and "_"


@dataclass(frozen=True)
class Answer:
    """What a page shows.

    Attributes
    ----------
    name : str
        Of the file; "" where there is none.
    types : list of str
    shares : ndarray of float32, (n_spots, n_types)
        Proportions; NaN rows where nothing can be said.
    places : ndarray of float64, (n_spots, 2)
        x and y, y downwards.
    sections : ndarray of int64, (n_spots,)
        An index into `section_names`.
    section_names : list of str
    spot_names : Index
    status : Series of str, (n_spots,)
    fit : dict of str to ndarray of float64
        Those of `FIT` that are there.
    errors, q_values : ndarray of float32, (n_spots, n_types), or None
    gene_fit : DataFrame or None
        `stdeconv_fast.Result.gene_fit`, as the run left it.
    params : dict
        What the run left in ``uns``.
    """

    name: str
    types: list[str]
    shares: np.ndarray
    places: np.ndarray
    sections: np.ndarray
    section_names: list[str]
    spot_names: pd.Index
    status: pd.Series
    fit: dict[str, np.ndarray]
    errors: np.ndarray | None
    q_values: np.ndarray | None
    gene_fit: pd.DataFrame | None
    params: dict[str, Any]


def read_answer(
    source: AnnData | str | os.PathLike[str], key: str, spatial_key: str | None, sample_key: str | None
) -> Answer:
    """The answer in an AnnData, an h5ad file or a zarr folder; `stdeconv_fast.report` tells the parameters.

    Raises
    ------
    DataError
        There is no such file, it is damaged, or holds no answer under `key`.
    DataTypeError
        `source` is something else.
    """
    if isinstance(source, str | os.PathLike):
        adata, name = _read_file(Path(source), key), Path(os.path.abspath(source)).name
    elif hasattr(source, "obsm") and hasattr(source, "uns"):
        adata, name = source, ""
    else:
        raise DataTypeError(f"`answer` must be an AnnData or the path of one; got {type(source).__name__}.")
    shares = _demand(adata.obsm, "obsm", key, "Run stdeconv_fast.tl.deconvolve first, or pass key.")
    params = _demand(adata.uns, "uns", f"{key}_params", "It is written beside the proportions: run anew.")
    if not isinstance(shares, pd.DataFrame) or not shares.size:
        raise DataError(f"adata.obsm[{key!r}] must be a table of spots by types; got {_kind(shares)}.")
    call = dict(params.get("call", {}))
    spatial_key = spatial_key or str(call.get("spatial_key", "spatial"))
    sample_key = sample_key or call.get("sample_key")
    places = _to_places(_demand(adata.obsm, "obsm", spatial_key, "Pass spatial_key."), spatial_key)
    codes, names = np.zeros(len(shares), dtype=np.int64), [""]
    if sample_key is not None:
        labels = _demand(adata.obs, "obs", str(sample_key), "Pass sample_key.")
        codes, found = pd.factorize(labels.astype(str).to_numpy(), sort=True)
        names = [str(label) for label in found]
    status = adata.obs.get(f"{key}_status")
    known = shares.notna().all(axis=1).to_numpy()
    usual = pd.Series(np.where(known, "ok", "no estimate"), index=shares.index)

    def table(ending: str) -> np.ndarray | None:
        return adata.obsm[key + ending].to_numpy(dtype=np.float32) if key + ending in adata.obsm else None

    fit = {part: f"{key}_{part}" for part in FIT if f"{key}_{part}" in adata.obs}
    return Answer(
        name=name, types=[str(column) for column in shares.columns], shares=shares.to_numpy(dtype=np.float32),
        places=places, sections=codes, section_names=names, spot_names=adata.obs_names,
        status=usual if status is None else status.astype(str),
        fit={part: adata.obs[column].to_numpy(dtype=np.float64) for part, column in fit.items()},
        errors=table("_se"), q_values=table("_q"), gene_fit=adata.uns.get(f"{key}_genes"), params=dict(params),
    )  # fmt: skip


def _read_file(path: Path, key: str) -> AnnData:
    """The labels of an AnnData on disk, with those entries of uns that are shown; no counts are read."""
    from anndata import AnnData
    from anndata.io import read_elem

    from ..io.disk import opened, reading, refuse_pickles
    from ..io.labels import names_in, read_index
    from ..io.probe import probe_all

    if not path.exists():
        raise DataError(f"`answer` must be a file or a folder that exists; got '{path}'.")
    refuse_pickles(path, "`answer`")
    probe_all(path, "`answer`")
    with opened(path, "answer") as root, reading("answer", path):
        obs = read_elem(root["obs"]).set_axis(read_index(root["obs"], "obs", path), axis=0)
        left_out = {f"{key}_cells"}  # large, and not shown
        obsm = {name: read_elem(root["obsm"][name]) for name in names_in(root, "obsm") if name not in left_out}
        there = names_in(root, "uns")
        uns = {name: read_elem(root["uns"][name]) for name in (f"{key}_params", f"{key}_genes") if name in there}
        for name, table in obsm.items():
            if isinstance(table, pd.DataFrame):
                obsm[name] = table.set_axis(obs.index, axis=0)
        return AnnData(obs=obs, obsm=obsm, uns=uns)


def _demand(table: Any, where: str, key: str, remedy: str) -> Any:
    if key not in table:
        there = ", ".join(repr(str(name)) for name in table) or "nothing"
        raise DataError(f"adata.{where} must have the key {key!r}; got {there}. {remedy}")
    return table[key]


def _to_places(values: Any, key: str) -> np.ndarray:
    try:
        places = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataTypeError(f"adata.obsm[{key!r}] must hold numbers; got other values.") from None
    if places.ndim != 2 or places.shape[1] < 2:
        raise DataError(f"adata.obsm[{key!r}] must have two columns or more; got shape {places.shape}.")
    return places[:, :2]


def _kind(value: Any) -> str:
    return f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
