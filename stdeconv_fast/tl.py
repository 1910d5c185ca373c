"""Deconvolution of AnnData objects, in the manner of scanpy's ``tl``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .built import BuiltReference
from .errors import DataError, DataTypeError, DataWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from .parcels import Result, SpotSource
    from .studies.search import Tuning

FIT_COLUMNS = {"deviance": "_deviance", "misfit": "_misfit", "q_value": "_misfit_q"}  # of Result.fit, in obs
WORST_GENES = 20  # that are kept beside the answer
CELLS_PER_TYPE = 100  # default of max_cells_per_type here, where the cell level is asked for


def deconvolve(
    adata_st: AnnData,
    adata_sc: AnnData | BuiltReference,
    *,
    cell_type_key: str = "cell_type",
    key_added: str = "stdeconv",
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    sample_key: str | None = None,
    neighbors_key: str | None = None,
    device: str = "auto",
    n_jobs: int | None = -1,
    seed: int = 0,
    copy: bool = False,
    spots: SpotSource | None = None,
    **settings: Any,
) -> AnnData | None:
    """Estimate the cell-type composition of every spot and write it into the AnnData.

    Parameters
    ----------
    adata_st : AnnData, (n_spots, n_genes)
        Raw counts of the spots, with coordinates in ``obsm[spatial_key]``. A view becomes an object of its own. In
        backed mode the counts are read by blocks and never held whole.
    adata_sc : AnnData or BuiltReference, (n_cells, n_genes)
        Raw counts of the reference cells, never changed; or what `stdeconv_fast.build_reference` made of them.
    cell_type_key : str
        Column of ``adata_sc.obs`` with the type of each cell. Not looked at with a built reference.
    key_added : str
        Under which name the answer is written.
    layer_st, layer_sc : str, optional
        Layers with the counts; by default X.
    spatial_key : str
        Key of ``adata_st.obsm`` for the coordinates, (n_spots, 2 or 3), in any unit.
    sample_key : str, optional
        Column of ``adata_st.obs`` with the section of each spot; spots of different sections are never neighbours.
    neighbors_key : str, optional
        Key of ``adata_st.obsp`` with the neighbours to use ("spatial_connectivities" of squidpy): who, not how much.
        By default the `k_neighbors` nearest spots.
    device : {"auto", "cpu", "cuda"}
    n_jobs : int or None
        Threads; -1: all that the process may use.
    seed : int >= 0
    copy : bool
        Write into a copy and return it.
    spots : SpotStore, optional
        Where the counts are read from (`stdeconv_fast.open_spots`); `adata_st` needs no X then.
    **settings
        Fields of `stdeconv_fast.Settings`. With ``cell_level=True``, `max_cells_per_type` is 100 unless given
        (1000, as without, with ``objective="original"``, which may be given ``original_draws``).

    Returns
    -------
    AnnData or None
        The copy with ``copy=True``. These are written:

        ``obsm[key_added]``
            DataFrame, (n_spots, n_types): rows sum to 1; NaN where nothing can be said.
        ``obs[key_added + "_dominant"]``
            Categorical: the type with the highest proportion; missing where the row is NaN.
        ``obs[key_added + "_status"]``
            Categorical: "ok", or why the row is NaN.
        ``obs[key_added + "_deviance"]``
            Poisson deviance per count of the used genes, high where the types explain a spot badly; NaN where
            nothing can be said. It falls with depth: compare spots of like counts. Not with ``loss="gaussian"``.
        ``obsm[key_added + "_se"]``
            With ``standard_errors=True``: DataFrame, (n_spots, n_types), standard errors of the proportions at the
            type level; NaN where a proportion is NaN.
        ``obs[key_added + "_misfit"]``, ``obs[key_added + "_misfit_q"]``
            How far a spot is along the gene programme that the reference explains worst, against spots of like depth,
            and the q-value of that: high and low where the reference lacks a type. Not with ``loss="gaussian"``.
        ``obsm[key_added + "_q"]``
            With ``detection=True``: DataFrame, (n_spots, n_types), q-values of the presence of each type.
        ``uns[key_added + "_params"]``
            ``call`` and ``settings`` (the keywords that repeat the run), the smoothing chosen, diagnostics, seconds,
            ``provenance`` (fingerprints of the input, versions), ``memory_gb`` (peak of this process until now, where
            the system tells) and ``genes``, those in excess where spots fit worst.
        ``obsm[key_added + "_cells"]``, ``uns[key_added + "_cells"]``
            With ``cell_level=True``: csr_matrix, (n_spots, n_cells used), the share of each reference cell; and
            the ``names`` and ``types`` of its columns.

    Raises
    ------
    DataError
        Input or settings that cannot be used; `adata_st` is then as it was.
    DeviceError
        The device asked for cannot be used.

    Examples
    --------
    >>> sd.tl.deconvolve(adata_st, adata_sc, cell_type_key="cell_type")  # doctest: +SKIP
    >>> adata_st.obsm["stdeconv"].head()  # doctest: +SKIP
    """
    from . import pipeline

    call = {
        "cell_type_key": cell_type_key, "key_added": key_added, "layer_st": layer_st, "layer_sc": layer_sc,
        "spatial_key": spatial_key, "sample_key": sample_key, "neighbors_key": neighbors_key,
    }  # fmt: skip
    _check(adata_st, adata_sc, call)
    if settings.get("cell_level") and settings.get("objective") != "original":
        settings.setdefault("max_cells_per_type", CELLS_PER_TYPE)
    if isinstance(settings.get("exclude_types"), np.ndarray):  # as it comes back from a file
        settings["exclude_types"] = settings["exclude_types"].tolist()
    if spots is None and adata_st.isbacked and not adata_st.is_view:
        from .io.stores import open_spots

        spots = open_spots(adata_st, layer_st)
    result = pipeline.deconvolve(
        adata_st, adata_sc, None, None if isinstance(adata_sc, BuiltReference) else cell_type_key,
        sections=sample_key, neighbors=neighbors_key, layer_st=layer_st if spots is None else None, layer_sc=layer_sc,
        spatial_key=spatial_key, spots=spots, device=device, n_jobs=n_jobs, seed=seed, **settings,
    )  # fmt: skip
    if copy:
        adata_st = adata_st.to_memory() if adata_st.isbacked else adata_st.copy()
    elif adata_st.is_view:
        adata_st._init_as_actual(adata_st.to_memory() if adata_st.isbacked else adata_st.copy())
    _write(adata_st, key_added, result, call)
    return adata_st if copy else None


def tune(
    adata_st: AnnData,
    adata_sc: AnnData | BuiltReference,
    grid: Mapping[str, Any],
    *,
    cell_type_key: str = "cell_type",
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    sample_key: str | None = None,
    **options: Any,
) -> Tuning:
    """Try settings on AnnData objects and say which are best, without a truth; nothing is written into them.

    Parameters
    ----------
    adata_st, adata_sc, cell_type_key, layer_st, layer_sc, spatial_key, sample_key
        As for `tl.deconvolve`.
    grid : mapping of str to list, or to a distribution
        The values of each setting to try.
    **options
        As for `stdeconv_fast.tune`: `score`, `n_trials`, `work_folder`, `resume`, `jobs`, and fields of `Settings`.
        With the cell level, `max_cells_per_type` is 100 unless given, as in `tl.deconvolve`.

    Returns
    -------
    Tuning
        ``.table``, a row a trial, and ``.best``: ``tl.deconvolve(adata_st, adata_sc, **tuning.best)``.

    Raises
    ------
    DataError
        Input, grid or options that cannot be used.
    """
    from .studies import search

    call = {
        "cell_type_key": cell_type_key, "key_added": "stdeconv", "layer_st": layer_st, "layer_sc": layer_sc,
        "spatial_key": spatial_key, "sample_key": sample_key,
    }  # fmt: skip
    _check(adata_st, adata_sc, call)
    searched = list(grid) if isinstance(grid, dict) else []
    if (options.get("cell_level") or "cell_level" in searched) and "max_cells_per_type" not in searched:
        options.setdefault("max_cells_per_type", CELLS_PER_TYPE)
    return search.tune(
        adata_st, adata_sc, None, None if isinstance(adata_sc, BuiltReference) else cell_type_key, grid=grid,
        sections=sample_key, layer_st=layer_st, layer_sc=layer_sc, spatial_key=spatial_key, **options,
    )  # fmt: skip


def _check(adata_st: Any, adata_sc: Any, call: dict[str, Any]) -> None:
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


def _write(adata: AnnData, key: str, result: Result, call: dict[str, Any]) -> None:
    # without a name: h5ad files hold no table whose index is called as a column is
    columns = _columns(result.proportions.columns)
    shares = result.proportions.set_axis(adata.obs_names.rename(None), axis=0).set_axis(columns, axis=1)
    known = result.proportions.notna().all(axis=1).to_numpy()
    codes = np.full(len(shares), -1)
    codes[known] = shares.to_numpy()[known].argmax(axis=1)
    adata.obsm[key] = shares
    adata.obs[key + "_dominant"] = pd.Categorical.from_codes(codes, categories=result.proportions.columns.astype(str))
    adata.obs[key + "_status"] = pd.Categorical(result.status.to_numpy().astype(str))
    adata.uns[key + "_params"] = _params(result, call)
    for slot in (adata.obsm, adata.uns):  # of an earlier run
        slot.pop(key + "_cells", None)
    for ending, table in (("_se", result.standard_errors), ("_q", result.q_values)):
        adata.obsm.pop(key + ending, None)
        if table is not None:
            adata.obsm[key + ending] = table.set_axis(shares.index, axis=0).set_axis(columns, axis=1)
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
    from . import __version__
    from .memory import peak_bytes

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
        **({} if result.gene_fit is None else {"genes": _worst_genes(result.gene_fit)}),
    }


def _array(values: list | tuple) -> np.ndarray:
    whole = len(values) > 0 and all(type(value) is int for value in values)
    return np.array(values, dtype=np.int64 if whole else str)


def _worst_genes(fit: pd.DataFrame) -> dict[str, np.ndarray]:
    """The genes most in excess in the spots that fit worst."""
    worst = fit.sort_values("rank", kind="stable").head(WORST_GENES)
    measures = {name: worst[name].to_numpy() for name in ("unexplained", "dispersion")}
    return {"name": worst.index.to_numpy().astype(str), **measures}


def _column(values: pd.Series) -> np.ndarray:
    numeric = pd.api.types.is_numeric_dtype(values)
    return values.to_numpy(dtype=np.float64) if numeric else values.to_numpy().astype(str)
