"""Preparation of the reference, in the manner of scanpy's ``pp``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import DataError, DataTypeError

if TYPE_CHECKING:
    from anndata import AnnData


def filter_reference(
    adata_sc: AnnData,
    *,
    cell_type_key: str | None = None,
    layer: str | None = None,
    genes: bool = True,
    cells: bool = True,
    var_threshold: float = 0.1,
    disp_threshold: float = 3.0,
    copy: bool = False,
) -> AnnData | None:
    """Leave the most variable genes and the cells of unusual dispersion out of a reference, in place.

    Parameters
    ----------
    adata_sc : AnnData, (n_cells, n_genes)
        Raw counts.
    cell_type_key : str, optional
        Column of ``adata_sc.obs`` with the types: those that would lose all their cells are told.
    layer : str, optional
        Layer with the counts; by default X.
    genes, cells : bool
        What is filtered.
    var_threshold : float in [0, 1]
        About the share of the genes that is left out.
    disp_threshold : float >= 0
        How many standard deviations the dispersion of a cell may lie from the mean.
    copy : bool
        Leave `adata_sc` as it is, and return what is kept.

    Returns
    -------
    AnnData or None
        What is kept with ``copy=True``.

    Raises
    ------
    DataError
        Values that are no raw counts, a file that is only opened (backed), thresholds out of range, nothing is left.
    DataTypeError
        `adata_sc` is no AnnData.

    Notes
    -----
    See `stdeconv_fast.filter_reference`, which takes other tables, too. `tl.deconvolve` does not need it: markers are
    among the most variable genes.
    """
    from anndata import AnnData

    from .studies.references import filter_reference as choose

    if not isinstance(adata_sc, AnnData):
        raise DataTypeError(
            f"`adata_sc` must be an AnnData; got {type(adata_sc).__name__}. Use stdeconv_fast.filter_reference for "
            "tables and arrays."
        )
    if adata_sc.isbacked and not copy:
        raise DataError("`adata_sc` must be in memory to be filtered in place; got a backed one. Pass copy=True.")
    kept, kept_cells, kept_genes = choose(
        adata_sc, cell_type_key, auto_filter_genes=genes, auto_filter_cells=cells, var_threshold=var_threshold,
        disp_threshold=disp_threshold, layer_sc=layer, return_kept=True,
    )  # fmt: skip
    if copy:
        return kept
    del kept
    adata_sc._inplace_subset_obs(kept_cells)
    adata_sc._inplace_subset_var(kept_genes)
    return None
