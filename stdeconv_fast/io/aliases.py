"""Puts an answer under the names where users of other tools look for theirs, so that code after it runs unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError, DataWarning
from .outputs import proportions_in

if TYPE_CHECKING:
    from anndata import AnnData

TOOLS = ("cell2location", "destvi", "flashdeconv", "rctd", "squidpy", "tangram")
NORMAL_95 = 1.6448536269514722  # 0.95 quantile of the standard normal distribution
RECORD = "stdeconv_aliases"


def add_aliases(
    adata: AnnData, like: str, *, key: str = "stdeconv", cells_per_spot: Any = None, overwrite: bool = False
) -> None:
    """Write the proportions once more, under the names of another tool.

    Parameters
    ----------
    adata : AnnData
        With an answer of `tl.deconvolve`; changed in place.
    like : str
        Whose names to take:

        ``"cell2location"``
            ``obsm["means_cell_abundance_w_sf"]``, ``["q05_..."]``, ``["q95_..."]`` and ``["stds_..."]`` with columns
            "meanscell_abundance_w_sf_TYPE", and so on, and ``uns["mod"]["factor_names"]``. There they are numbers of
            cells a spot and quantiles of a posterior; here proportions (times `cells_per_spot`) and, with standard
            errors, the normal quantiles about them, cut at 0. Without standard errors only "means" and "q05" are
            written, both the proportions themselves, and a warning says so.
        ``"rctd"``
            ``obsm["rctd_weights"]`` (array, as rctd-py has it, rows that sum to 1 as after ``normalize_weights``),
            ``uns["rctd_cell_type_names"]``, ``obs["rctd_dominant_type"]`` ("filtered" where nothing can be said).
            spacexr itself keeps its weights in R: give it a csv of `io.write`.
        ``"flashdeconv"``
            ``obsm["flashdeconv"]``, ``obs["flashdeconv_dominant"]`` and ``uns["flashdeconv_params"]`` (names of the
            types, and that the numbers are not from flashdeconv).
        ``"tangram"``
            ``obsm["tangram_ct_pred"]``. There they are sums of mapping probabilities, here proportions.
        ``"destvi"``
            ``obsm["proportions"]``.
        ``"squidpy"``
            a column a type in ``obs``, as ``sq.pl.spatial_scatter(color=TYPE)`` and ``sc.pl.spatial`` take them.

    key : str
        Under which name the answer lies (`key_added` of `tl.deconvolve`).
    cells_per_spot : float, str or array-like (n_spots,), optional
        Only with "cell2location": cells in a spot, or a column of ``obs`` with them (nuclei counted in the picture).
        By default 1: the numbers stay proportions.
    overwrite : bool
        Replace what is there under these names. Without, that is an error: it may be the other tool's own answer.

    Raises
    ------
    DataError
        No such answer or tool; names that are taken; numbers of cells that are no numbers.
    DataTypeError
        An object of a wrong kind.

    Warns
    -----
    DataWarning
        Where what is written is weaker than what the other tool has under this name.

    Notes
    -----
    ``uns["stdeconv_aliases"]`` records which names hold our numbers. Names after cell2location's
    `export_posterior`, rctd-py 0.4.0, flashdeconv 0.2.0, Tangram's `project_cell_annotations`, DestVI's tutorial.
    """
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise DataTypeError(f"`adata` must be an AnnData; got {type(adata).__name__}.")
    if like not in TOOLS:
        raise DataError(f"`like` must be one of {', '.join(map(repr, TOOLS))}; got {like!r}.")
    if cells_per_spot is not None and like != "cell2location":
        raise DataError(f"`cells_per_spot` must be None unless like='cell2location'; got it for {like!r}.")
    shares = proportions_in(adata, key).set_axis(adata.obs_names.rename(None), axis=0)
    errors = adata.obsm.get(key + "_se")
    if like == "cell2location":
        new = _cell2location(shares, errors, _cells(adata, cells_per_spot))
    else:
        new = {"destvi": _destvi, "flashdeconv": _flashdeconv, "rctd": _rctd, "squidpy": _squidpy,
               "tangram": _tangram}[like](shares)  # fmt: skip
    taken = [f"{part}[{name!r}]" for part, entries in new.items() for name in entries if name in getattr(adata, part)]
    if taken and not overwrite:
        raise DataError(
            f"`adata` must have room for the names of {like}; got {', '.join(taken[:4])} already. "
            "Pass overwrite=True to replace them."
        )
    for part, entries in new.items():
        for name, value in entries.items():
            getattr(adata, part)[name] = value
    record = dict(adata.uns.get(RECORD, {}))
    record[like] = np.array([f"{part}/{name}" for part, entries in new.items() for name in entries], dtype=str)
    adata.uns[RECORD] = record
    if like == "cell2location" and errors is None:
        warnings.warn(
            "obsm['q05_cell_abundance_w_sf'] holds the proportions themselves, no 5 % quantiles: there are no standard "
            "errors. Pass standard_errors=True to tl.deconvolve for them.",
            DataWarning,
            stacklevel=2,
        )


Entries = Mapping[str, Mapping[str, Any]]


def _cells(adata: AnnData, given: Any) -> np.ndarray:
    """Cells of each spot, (n_spots,)."""
    if given is None:
        return np.ones(adata.n_obs)
    if isinstance(given, str) and given not in adata.obs:
        there = ", ".join(map(repr, adata.obs.columns[:10])) or "no columns"
        raise DataError(f"`cells_per_spot` must name a column of obs; got {given!r}, and there are: {there}.")
    values = adata.obs[given] if isinstance(given, str) else given
    if isinstance(values, pd.Series) and not isinstance(given, str) and not values.index.equals(adata.obs_names):
        values = values.reindex(adata.obs_names)
    try:
        cells = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataTypeError("`cells_per_spot` must hold numbers; got something else.") from None
    if cells.ndim and cells.shape != (adata.n_obs,):
        raise DataError(f"`cells_per_spot` must be a number or one per spot, {adata.n_obs:,}; got {cells.shape}.")
    if not (np.isfinite(cells) & (cells >= 0)).all():
        raise DataError("`cells_per_spot` must be finite and >= 0; got a value that is not.")
    return np.broadcast_to(cells, (adata.n_obs,))


def _cell2location(shares: pd.DataFrame, errors: Any, cells: np.ndarray) -> Entries:
    values = {"means": shares, "q05": shares}
    if errors is not None:
        spread = np.asarray(errors) * NORMAL_95
        values = {
            "means": shares, "q05": (shares - spread).clip(lower=0), "q95": (shares + spread).clip(upper=1),
            "stds": shares * 0 + np.asarray(errors),
        }  # fmt: skip
    obsm = {}
    for name, table in values.items():
        # as there: the key has a "_" after the statistic, the columns have none
        columns = [f"{name}cell_abundance_w_sf_{kind}" for kind in shares.columns]
        obsm[f"{name}_cell_abundance_w_sf"] = table.mul(cells, axis=0).set_axis(columns, axis=1)
    return {"obsm": obsm, "uns": {"mod": {"factor_names": np.array(shares.columns, dtype=str)}}}


def _dominant(shares: pd.DataFrame, otherwise: str | None = None) -> pd.Categorical:
    known = shares.notna().all(axis=1).to_numpy()
    kinds = np.array(shares.columns, dtype=object)
    names = np.full(len(shares), otherwise, dtype=object)
    names[known] = kinds[shares.to_numpy()[known].argmax(axis=1)]
    return pd.Categorical(names, categories=[*kinds, *([otherwise] if otherwise and not known.all() else [])])


def _rctd(shares: pd.DataFrame) -> Entries:
    return {
        "obsm": {"rctd_weights": shares.to_numpy(dtype=np.float32)},
        "obs": {"rctd_dominant_type": _dominant(shares, "filtered")},
        "uns": {"rctd_cell_type_names": np.array(shares.columns, dtype=str)},
    }


def _flashdeconv(shares: pd.DataFrame) -> Entries:
    about = {"cell_type_names": np.array(shares.columns, dtype=str), "computed_by": "stdeconv_fast"}
    return {
        "obsm": {"flashdeconv": shares.copy()},
        "obs": {"flashdeconv_dominant": _dominant(shares)},
        "uns": {"flashdeconv_params": about},
    }


def _tangram(shares: pd.DataFrame) -> Entries:
    return {"obsm": {"tangram_ct_pred": shares.copy()}}


def _destvi(shares: pd.DataFrame) -> Entries:
    return {"obsm": {"proportions": shares.copy()}}


def _squidpy(shares: pd.DataFrame) -> Entries:
    return {"obs": {str(name): shares[name].to_numpy() for name in shares.columns}}
