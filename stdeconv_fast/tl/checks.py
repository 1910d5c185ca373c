"""What is refused of AnnData objects before any work."""

from __future__ import annotations

from typing import Any

from ..built import BuiltReference
from ..errors import DataError, DataTypeError
from .written import FIT_COLUMNS


def check_objects(adata_st: Any, adata_sc: Any, call: dict[str, Any]) -> None:
    """Refuse what is no AnnData, and keys that are no names or not there."""
    from anndata import AnnData

    for name, value in (("adata_st", adata_st), ("adata_sc", adata_sc)):
        if not isinstance(value, AnnData) and not (name == "adata_sc" and isinstance(value, BuiltReference)):
            raise DataTypeError(
                f"`{name}` must be an AnnData; got {type(value).__name__}. "
                "Use stdeconv_fast.deconvolve for tables and arrays."
            )
    for name, value in call.items():
        optional = name in ("layer_st", "layer_sc", "sample_key", "neighbors_key")
        if not isinstance(value, str) and not (optional and value is None):
            raise DataTypeError(f"`{name}` must be a str{' or None' if optional else ''}; got {type(value).__name__}.")
    key = call["key_added"]
    if not key or "/" in key:
        raise DataError(f"`key_added` must be a name without '/', which h5ad files cannot hold; got {key!r}.")
    if key == call["spatial_key"]:
        raise DataError(f"`key_added` must not be the key of the coordinates; got {key!r} for both.")
    written = [key + ending for ending in ("_dominant", "_status", *FIT_COLUMNS.values())]
    if call["sample_key"] in written:
        raise DataError(f"`key_added` must leave the column of the sections as it is; got {call['sample_key']!r}.")
    built = isinstance(adata_sc, BuiltReference)
    columns = [("sample_key", "adata_st", adata_st.obs)]
    for name, table, obs in columns if built else [("cell_type_key", "adata_sc", adata_sc.obs), *columns]:
        wanted = call[name]
        if wanted is not None and wanted not in obs.columns:
            from difflib import get_close_matches

            there = [str(column) for column in obs.columns]
            close = get_close_matches(wanted, there, n=1, cutoff=0.6)
            listed = ", ".join(map(repr, there[:10])) + (", ..." if len(there) > 10 else "") or "no columns"
            remedy = f"Pass {name}={close[0]!r}" if close else f"Pass {name} with one of them"
            remedy = remedy if there else f"Add it to {table}.obs"
            raise DataError(f"{table}.obs must have the column {wanted!r}; got {listed}. {remedy}.")
    labels = {str(label) for label in (adata_sc.types if built else adata_sc.obs[call["cell_type_key"]].unique())}
    if len({label.replace("/", "|") for label in labels}) < len(labels):
        raise DataError("cell types must differ in more than '/' and '|', as h5ad files hold no '/'. Rename them.")
