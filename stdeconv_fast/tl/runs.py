"""Deconvolution of AnnData objects, in the manner of scanpy's ``tl``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..built import BuiltReference
from .checks import check_objects
from .written import write_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from ..parcels import Result, SpotSource
    from ..studies.search import Tuning

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
    store_attention: bool = False,
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
        Where the kernels run; "auto" takes CUDA where it can.
    n_jobs : int or None
        Threads; -1: all that the process may use.
    seed : int >= 0
        Of the count thinning and of the draw of cells.
    copy : bool
        Write into a copy and return it.
    spots : SpotStore, optional
        Where the counts are read from (`stdeconv_fast.open_spots`); `adata_st` needs no X then.
    store_attention : bool
        Keep the attention of the last pass: a number for each pair of neighbours. `pl.attention` draws it.
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
            ``provenance`` (fingerprints of the input, versions) and ``memory_gb`` (peak of this process so far,
            where the system tells).
        ``uns[key_added + "_genes"]``, ``uns[key_added + "_types"]``
            DataFrames of the genes used and of the types: `gene_fit` and `type_fit` of `stdeconv_fast.Result`.
        ``obsp[key_added + "_attention"]``
            With ``store_attention=True``: symmetric csr_matrix, (n_spots, n_spots), mean row sum 1 over the spots used.
            Not where nothing was smoothed.
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
    call = {
        "cell_type_key": cell_type_key, "key_added": key_added, "layer_st": layer_st, "layer_sc": layer_sc,
        "spatial_key": spatial_key, "sample_key": sample_key, "neighbors_key": neighbors_key,
    }  # fmt: skip
    check_objects(adata_st, adata_sc, call)
    result = solve(adata_st, adata_sc, call, spots=spots, device=device, n_jobs=n_jobs, seed=seed, **settings)
    if copy:
        adata_st = adata_st.to_memory() if adata_st.isbacked else adata_st.copy()
    else:
        own(adata_st)
    write_answer(adata_st, key_added, result, call, store_attention)
    return adata_st if copy else None


def solve(
    adata_st: AnnData,
    adata_sc: AnnData | BuiltReference,
    call: dict[str, Any],
    *,
    spots: SpotSource | None = None,
    **settings: Any,
) -> Result:
    """Run the model on checked objects; `call` holds the other arguments of `tl.deconvolve` by name."""
    from .. import pipeline

    if settings.get("cell_level") and settings.get("objective") != "original":
        settings.setdefault("max_cells_per_type", CELLS_PER_TYPE)
    if isinstance(settings.get("exclude_types"), np.ndarray):  # as it comes back from a file
        settings["exclude_types"] = settings["exclude_types"].tolist()
    if spots is None and adata_st.isbacked and not adata_st.is_view:
        from ..io.stores import open_spots

        spots = open_spots(adata_st, call["layer_st"])
    return pipeline.deconvolve(
        adata_st, adata_sc, None, None if isinstance(adata_sc, BuiltReference) else call["cell_type_key"],
        sections=call["sample_key"], neighbors=call["neighbors_key"],
        layer_st=call["layer_st"] if spots is None else None, layer_sc=call["layer_sc"],
        spatial_key=call["spatial_key"], spots=spots, **settings,
    )  # fmt: skip


def own(adata: AnnData) -> None:
    """Make a view an object of its own, so that it can be written to."""
    if adata.is_view:
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())


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
    from ..studies import search

    call = {
        "cell_type_key": cell_type_key, "key_added": "stdeconv", "layer_st": layer_st, "layer_sc": layer_sc,
        "spatial_key": spatial_key, "sample_key": sample_key,
    }  # fmt: skip
    check_objects(adata_st, adata_sc, call)
    searched = list(grid) if isinstance(grid, dict) else []
    if (options.get("cell_level") or "cell_level" in searched) and "max_cells_per_type" not in searched:
        options.setdefault("max_cells_per_type", CELLS_PER_TYPE)
    return search.tune(
        adata_st, adata_sc, None, None if isinstance(adata_sc, BuiltReference) else cell_type_key, grid=grid,
        sections=sample_key, layer_st=layer_st, layer_sc=layer_sc, spatial_key=spatial_key, **options,
    )  # fmt: skip
