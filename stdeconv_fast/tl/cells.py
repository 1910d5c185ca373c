"""The cell level after a run: which reference cells are in each spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..built import BuiltReference
from ..errors import DataError, DataTypeError
from .checks import check_objects
from .left import params_of
from .runs import own, solve
from .written import write_answer

if TYPE_CHECKING:
    from anndata import AnnData

    from ..parcels import Result, SpotSource

OWN_SETTINGS = ("max_cells_per_type", "max_cells_per_spot", "lambda_cell")
ANY_SETTINGS = ("device", "n_jobs", "max_memory", "progress")  # they change no answer
OF_TILES = ("tiles", "work_folder", "resume", "keep_work")


def refine_cells(
    adata_st: AnnData,
    adata_sc: AnnData | BuiltReference,
    *,
    key: str = "stdeconv",
    separate: bool = False,
    copy: bool = False,
    spots: SpotSource | None = None,
    **settings: Any,
) -> AnnData | None:
    """Go down to single reference cells after `tl.deconvolve`: the same run again, with the cell level.

    Parameters
    ----------
    adata_st, adata_sc : AnnData
        As they were given to `tl.deconvolve`.
    key : str
        Its `key_added`.
    separate : bool
        Give the cells back as an AnnData of their own, spots by reference cells, and write nothing into `adata_st`.
    copy : bool
        Write into a copy of `adata_st`, and return it.
    spots : SpotStore, optional
        Where the counts are read from, if `adata_st` has no X.
    **settings
        `max_cells_per_type` (by default 100), `max_cells_per_spot`, `lambda_cell`, and `device`, `n_jobs`,
        `max_memory`, `progress`. All others are those of the run.

    Returns
    -------
    AnnData or None
        With `separate` the cells: X is a csr_matrix, (n_spots, n_cells), the share of each reference cell in each spot;
        ``obs`` and the places are those of the spots, ``var["cell_type"]`` has the types. With `copy` the copy. What
        is written is what ``tl.deconvolve(..., cell_level=True)`` writes: ``obsm[key + "_cells"]``,
        ``uns[key + "_cells"]``, and all else anew; proportions are then sums over the cells of a type.

    Raises
    ------
    DataError
        No run to refine, settings that are not of the cell level, or spots or reference that are not those of the run
        (of other types: before the work; of other counts or places: after it; nothing is written then).
    """
    params = params_of(adata_st, key)
    _check_settings(settings, separate, copy)
    defaults = {"layer_st": None, "layer_sc": None, "sample_key": None, "neighbors_key": None}
    call = {**defaults, **params["call"], "key_added": key}
    check_objects(adata_st, adata_sc, call)
    recorded = dict(params["settings"])
    if not recorded.get("unknown"):  # refused by the settings
        _check_types(adata_st.obsm[key], adata_sc, call["cell_type_key"])
    if not recorded.get("cell_level"):
        recorded.pop("max_cells_per_type", None)  # the default of this level is another one
    result = solve(adata_st, adata_sc, call, spots=spots, **{**recorded, **settings, "cell_level": True})
    _compare(params["provenance"].get("inputs", {}), result.provenance["inputs"])
    if separate:
        return _as_anndata(adata_st, result, call["spatial_key"])
    if copy:
        adata_st = adata_st.to_memory() if adata_st.isbacked else adata_st.copy()
    else:
        own(adata_st)
    write_answer(adata_st, key, result, call, f"{key}_attention" in adata_st.obsp)
    return adata_st if copy else None


def _check_settings(settings: dict[str, Any], separate: bool, copy: bool) -> None:
    if separate and copy:
        raise DataError("`copy` must be False with separate=True; got True. The cells are an AnnData of their own.")
    tiled = [name for name in OF_TILES if name in settings]
    if tiled:
        raise DataError(f"settings must not be of tiles; got {tiled[0]!r}. The cell level does not go with tiles.")
    other = [name for name in settings if name not in (*OWN_SETTINGS, *ANY_SETTINGS)]
    if other:
        known = ", ".join((*OWN_SETTINGS, *ANY_SETTINGS))
        raise DataTypeError(
            f"settings must be among {known}; got {', '.join(map(repr, other))}. The others are those of the run: use "
            "stdeconv_fast.tl.deconvolve(..., cell_level=True) to change them."
        )


def _check_types(shares: pd.DataFrame, adata_sc: AnnData | BuiltReference, column: str) -> None:
    """The types of the run must be in the reference; all else of it is compared by its fingerprint."""
    labels = adata_sc.types if isinstance(adata_sc, BuiltReference) else adata_sc.obs[column].unique()
    there = {str(label).replace("/", "|") for label in labels}
    absent = [str(name) for name in shares.columns if str(name) not in there]
    if absent:
        raise DataError(
            f"`adata_sc` must be the reference of the run; got one without the type {absent[0]!r}. Pass that one, or "
            "run stdeconv_fast.tl.deconvolve anew."
        )


def _compare(recorded: dict[str, str], found: dict[str, str]) -> None:
    changed = [name for name, known in recorded.items() if found.get(name, known) != known]
    if changed:
        raise DataError(
            f"`adata_st` and `adata_sc` must be those of the run; got other {', '.join(changed)}. Run "
            "stdeconv_fast.tl.deconvolve(..., cell_level=True) instead; nothing was written."
        )


def _as_anndata(adata_st: AnnData, result: Result, spatial_key: str) -> AnnData:
    from anndata import AnnData

    var = pd.DataFrame(
        {"cell_type": pd.Categorical(result.cell_types.to_numpy().astype(str))}, index=result.cells.astype(str)
    )
    obsm = {spatial_key: np.array(adata_st.obsm[spatial_key])} if spatial_key in adata_st.obsm else {}
    return AnnData(result.cell_weights, obs=adata_st.obs.copy(), var=var, obsm=obsm)
