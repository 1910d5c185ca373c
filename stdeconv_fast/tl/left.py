"""What a run left behind, read from the AnnData that it wrote into or from its Result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from .written import FIT_COLUMNS, attention_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Left:
    """One answer and what was found on the way; see `stdeconv_fast.Result` for the tables.

    Attributes
    ----------
    shares : DataFrame, (n_spots, n_types)
    status : Series, (n_spots,)
    lambda_spatial, phi : float
    tuned : bool
    path : DataFrame
        What the tuning tried; no rows without it.
    settings, diagnostics, seconds : dict
    fit, genes, types, errors : DataFrame or None
    attention : csr_matrix or None
        (n_spots, n_spots).
    """

    shares: pd.DataFrame
    status: pd.Series
    lambda_spatial: float
    phi: float
    tuned: bool
    path: pd.DataFrame
    settings: dict[str, Any]
    diagnostics: dict[str, Any]
    seconds: dict[str, float]
    fit: pd.DataFrame | None
    genes: pd.DataFrame | None
    types: pd.DataFrame | None
    errors: pd.DataFrame | None
    attention: csr_matrix | None


def read_left(data: Any, key: str = "stdeconv") -> Left:
    """What a run left in an AnnData under `key`, or in a Result.

    Raises
    ------
    DataError
        No run wrote under `key`.
    DataTypeError
        `data` is of another kind.
    """
    if hasattr(data, "obsm"):
        return _of_anndata(data, key)
    if not hasattr(data, "strengths"):
        raise DataTypeError(f"`data` must be an AnnData or a Result; got {type(data).__name__}.")
    strengths = data.strengths
    return Left(
        shares=data.proportions, status=data.status, lambda_spatial=strengths.lambda_spatial, phi=strengths.phi,
        tuned=strengths.tuned, path=pd.DataFrame(strengths.path), settings=data.settings.as_dict(),
        diagnostics=data.diagnostics, seconds=data.seconds, fit=data.fit, genes=data.gene_fit, types=data.type_fit,
        errors=data.standard_errors, attention=attention_of(data),
    )  # fmt: skip


def params_of(adata: Any, key: str) -> dict[str, Any]:
    """``uns[key + "_params"]``, or an error that says what to run."""
    params = adata.uns.get(f"{key}_params")
    if key not in adata.obsm or params is None:
        raise DataError(
            f"`key` must be one that stdeconv_fast.tl.deconvolve wrote; got {key!r}, with "
            f"{'no' if params is None else 'an'} entry adata.uns[{key + '_params'!r}]. Run it first, or pass key."
        )
    return params


def _of_anndata(adata: Any, key: str) -> Left:
    params = params_of(adata, key)
    columns = {column: key + ending for column, ending in FIT_COLUMNS.items() if key + ending in adata.obs}
    fit = pd.DataFrame({column: adata.obs[name] for column, name in columns.items()}) if columns else None
    return Left(
        shares=adata.obsm[key], status=adata.obs[f"{key}_status"].astype(str),
        lambda_spatial=float(params["lambda_spatial"]), phi=float(params["phi"]), tuned=bool(params["tuned"]),
        path=pd.DataFrame(dict(params.get("path", {}))), settings=_plain(params["settings"]),
        diagnostics=_plain(params["diagnostics"]), seconds=dict(params["seconds"]), fit=fit,
        genes=adata.uns.get(f"{key}_genes"), types=adata.uns.get(f"{key}_types"), errors=adata.obsm.get(f"{key}_se"),
        attention=adata.obsp.get(f"{key}_attention"),
    )  # fmt: skip


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Plain values in the place of those that a file gives back."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in values.items()
    }
