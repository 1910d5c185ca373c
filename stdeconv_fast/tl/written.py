"""How an answer is laid down in an AnnData."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataWarning

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from ..parcels import Result

FIT_COLUMNS = {"deviance": "_deviance", "misfit": "_misfit", "q_value": "_misfit_q"}  # of Result.fit, in obs
LINKED = ("ok", "no type explains the counts")  # states of the spots that are in Result.graph


def write_answer(
    adata: AnnData, key: str, result: Result, call: dict[str, Any], store_attention: bool = False
) -> None:
    """Write an answer under `key`; what an earlier run left there goes."""
    from ..stages.aggregate import dominant_types

    # without a name: h5ad files hold no table whose index is called as a column is
    columns, names = _columns(result.proportions.columns), adata.obs_names.rename(None)

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        """The same numbers, not copied, under the names of the object."""
        table = table.copy(deep=False)
        table.index, table.columns = names, columns
        return table

    codes = dominant_types(result.proportions.to_numpy())
    adata.obsm[key] = renamed(result.proportions)
    adata.obs[key + "_dominant"] = pd.Categorical.from_codes(codes, categories=result.proportions.columns.astype(str))
    adata.obs[key + "_status"] = pd.Categorical(result.status.to_numpy())
    adata.uns[key + "_params"] = _params(result, call)
    for slot, endings in ((adata.obsm, ("_cells", "_se", "_q")), (adata.uns, ("_cells", "_genes", "_types")),
                          (adata.obsp, ("_attention",))):  # fmt: skip
        for ending in endings:
            slot.pop(key + ending, None)
    for ending, table in (("_genes", result.gene_fit), ("_types", result.type_fit)):
        if table is not None:
            adata.uns[key + ending] = table.rename_axis(index=None)
    attention = attention_of(result) if store_attention else None
    if attention is not None:
        adata.obsp[key + "_attention"] = attention
    for ending, table in (("_se", result.standard_errors), ("_q", result.q_values)):
        if table is not None:
            adata.obsm[key + ending] = renamed(table)
    for column, ending in FIT_COLUMNS.items():
        if result.fit is not None:
            adata.obs[key + ending] = result.fit[column].to_numpy()
        elif key + ending in adata.obs:
            del adata.obs[key + ending]
    if result.cell_weights is not None:
        adata.obsm[key + "_cells"] = result.cell_weights
        adata.uns[key + "_cells"] = {
            "names": result.cells.to_numpy().astype(str), "types": result.cell_types.to_numpy().astype(str),
        }  # fmt: skip


def attention_of(result: Result) -> csr_matrix | None:
    """The attention among all spots, (n_spots, n_spots) float32; None where nothing was smoothed."""
    from scipy.sparse import csr_matrix

    graph, status = result.graph, result.status
    if graph is None or len(graph.weights) < len(graph.indices):  # no pass has looked at neighbours
        return None
    rows = np.flatnonzero(status.isin(LINKED).to_numpy())
    lengths = np.zeros(len(status), dtype=np.int64)
    lengths[rows] = np.diff(graph.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    index = np.int32 if indptr[-1] < 2**31 else np.int64
    parts = (graph.weights.astype(np.float32), rows[graph.indices].astype(index), indptr.astype(index))
    matrix = csr_matrix(parts, shape=(len(status), len(status)))
    matrix.sort_indices()
    return matrix


def _columns(types: pd.Index) -> list[str]:
    """Names of the types as columns that h5ad files can hold: "|" for "/", told in a warning."""
    names = [name.replace("/", "|") for name in types]
    if names != list(types):
        changed = ", ".join(repr(name) for name in types if "/" in name)
        warnings.warn(
            f"h5ad files hold no '/' in names: the columns of {changed} have '|' in its place.",
            DataWarning,
            stacklevel=4,
        )
    return names


def _params(result: Result, call: dict[str, Any]) -> dict[str, Any]:
    """What was done, in values that any h5ad file holds; None is left out, as it is the default where it is allowed."""
    from .. import __version__
    from ..memory import peak_bytes

    def plain(values: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if value is not None}
        return {name: _array(v) if isinstance(v, list | tuple) else v for name, v in kept.items()}

    peak, path = peak_bytes(), pd.DataFrame(result.strengths.path)
    return {
        "version": __version__,
        "call": plain(call),
        "settings": plain(result.settings.as_dict()),
        "lambda_spatial": float(result.strengths.lambda_spatial),
        "phi": float(result.strengths.phi),
        "tuned": bool(result.strengths.tuned),
        "path": {str(name): _column(path[name]) for name in path.columns},
        "diagnostics": plain(result.diagnostics),
        "provenance": {part: dict(values) for part, values in result.provenance.items()},
        "seconds": dict(result.seconds),
        **({} if peak is None else {"memory_gb": peak / 1e9}),
    }


def _array(values: list | tuple) -> np.ndarray:
    whole = len(values) > 0 and all(type(value) is int for value in values)
    return np.array(values, dtype=np.int64 if whole else str)


def _column(values: pd.Series) -> np.ndarray:
    numeric = pd.api.types.is_numeric_dtype(values)
    return values.to_numpy(dtype=np.float64) if numeric else values.to_numpy().astype(str)
