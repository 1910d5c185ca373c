"""What can be done to a reference before any run: build it once for many slides, filter its genes and cells."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..built import BuiltReference
from ..errors import DataError, DataTypeError, DataWarning
from ..kernels.cpu.counts import sum_segments
from ..parallel import hold_workers
from ..settings import Settings, raise_faults
from ..stages.inputs.counts_check import check_counts
from ..stages.inputs.findings import Report
from ..stages.inputs.labels import choose_types, read_codes
from ..stages.inputs.names import Names
from ..stages.inputs.tables import Table, is_anndata, read_table
from ..stages.reference import sum_types

log = logging.getLogger("stdeconv_fast")

PER = 1e4  # log1p of counts per 10,000


def build_reference(
    reference: Any,
    cell_types: Any = None,
    *,
    layer_sc: str | None = None,
    keep_cells: bool = True,
    n_jobs: int | None = -1,
) -> BuiltReference:
    """Read, check and sum a reference once, for many runs.

    Parameters
    ----------
    reference : DataFrame, ndarray, sparse matrix or AnnData, (n_cells, n_genes)
        Raw counts.
    cell_types : Series, DataFrame, list, array, categorical or str
        Type of each cell, or the column of ``reference.obs`` that holds it.
    layer_sc : str, optional
        Layer of an AnnData that holds the counts.
    keep_cells : bool
        Keep the counts of the cells, which ``cell_level=True`` needs. Without them a reference is small: two tables
        of types by genes.
    n_jobs : int or None
        Threads.

    Returns
    -------
    BuiltReference
        Takes the place of `reference` in `stdeconv_fast.deconvolve` and `tl.deconvolve`, without `cell_types`;
        ``.save(path)`` and ``BuiltReference.load(path)`` keep it in a file, which the command line reads too. The
        counts of the cells may share memory with `reference`: do not change it afterwards.

    Raises
    ------
    DataError
        Values that are no raw counts, names that occur twice, labels that are missing; all faults in one message.

    Notes
    -----
    Runs give the same bits as with the table that it was built from, since they add up the same numbers in the same
    order. One exception: where types are left out by `exclude_types` or `min_cells_per_type` and types times genes
    come from above 1,000,000 to below, profiles may differ by rounding, about 1e-16 of their size.
    """
    Settings.make(n_jobs=n_jobs)
    report = Report()
    if isinstance(reference, BuiltReference):
        raise DataTypeError("`reference` must be a table; got a BuiltReference, which is built already.")
    if not isinstance(keep_cells, bool | np.bool_):
        report.wrong_kind(f"`keep_cells` must be True or False; got {keep_cells!r}.")
    table = read_table(reference, "reference", layer_sc, report)
    check_counts(table, True, report)
    read = read_codes(cell_types, reference, table, report)
    if read is not None and table.counts is not None:
        filled = np.diff(table.counts.indptr) > 0
        choose_types(read[0].copy(), read[1], filled, table, (), 1, report)  # for its faults: runs give its notes
    raise_faults(report.faults, "reference")
    counts, (codes, found) = table.counts, read
    used, n_types = np.where(filled, codes, np.int32(-1)), len(found)
    with hold_workers(n_jobs) as workers:
        sums = sum_types(counts, used, n_types, workers)
        arrays = (counts.indptr, counts.indices, counts.data, np.ones(len(codes)), used)
        totals = workers.sums(sum_segments, len(codes), arrays, (n_types, counts.shape[1]), 4)
    return BuiltReference(
        types=tuple(str(name) for name in found), cell_types=codes,
        cell_names=table.rows.all_names() if table.rows.names is None else table.rows.names.values,
        genes=table.gene_names() if table.genes is None else table.genes.values,
        naming=(_naming(table.rows.names), _naming(table.genes)),
        sums=sums.sums, gene_totals=totals, cell_totals=sums.cell_totals, counts=counts if keep_cells else None,
    )  # fmt: skip


def _naming(names: Names | None) -> str:
    return "none" if names is None else "own" if names.own else "numbered"


def filter_reference(
    reference: Any,
    cell_types: Any = None,
    *,
    auto_filter_genes: bool = True,
    var_threshold: float = 0.1,
    auto_filter_cells: bool = True,
    disp_threshold: float = 3.0,
    layer_sc: str | None = None,
    return_kept: bool = False,
) -> Any:
    """Leave out the most variable genes and the cells of unusual dispersion.

    Parameters
    ----------
    reference : DataFrame, ndarray, sparse matrix or AnnData, (n_cells, n_genes)
        Raw counts; never changed.
    cell_types : Series, DataFrame, list, array, categorical or str, optional
        Type of each cell: types that lose all their cells are told; the filter itself does not look at them.
    auto_filter_genes : bool
        Whether to filter genes: those stay whose variance is at most its (1 - `var_threshold`) quantile.
    var_threshold : float in [0, 1]
        About the share of the genes that is left out; 0: none.
    auto_filter_cells : bool
        Whether to filter cells, after the genes: those stay whose ratio variance / mean over the kept genes lies at
        most `disp_threshold` standard deviations from the mean ratio of the cells.
    disp_threshold : float >= 0
        In standard deviations of the ratio over the cells.
    layer_sc : str, optional
        Layer of an AnnData that holds the counts.
    return_kept : bool
        Also give what was kept: two boolean arrays, (n_cells,) and (n_genes,).

    Returns
    -------
    DataFrame, ndarray, sparse matrix or AnnData
        The kept rows and columns, of the same kind and values as `reference`; or a tuple with the two arrays of what
        was kept. A reference of types by label stays right; labels by position need ``cell_types[kept_cells]``.

    Raises
    ------
    DataError
        Values that are no raw counts, thresholds out of range, or nothing is left.

    Warns
    -----
    DataWarning
        Which types have no cells left. How many genes and cells were left out is logged.

    Notes
    -----
    Variances are population variances of log1p of counts per 10,000, totals over all genes of the cell: raw counts
    would rank the genes by their means. The ratio of a cell is var / (mean + 1e-12) over the kept genes on that scale,
    its z-score that of all cells; where all ratios are equal every cell stays. Cells without counts have the ratio 0.

    `stdeconv_fast.deconvolve` needs no such filter: markers are among the most variable genes. It is here for
    those who compare with a filtered reference.
    """
    report = Report()
    for name, value, high in (("var_threshold", var_threshold, 1.0), ("disp_threshold", disp_threshold, np.inf)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            report.wrong_kind(f"`{name}` must be a number; got {value!r}.")
        elif not 0 <= value <= high:
            rule = ">= 0" if high == np.inf else "from 0 to 1"
            report.fault(f"`{name}` must be a number {rule}; got {value!r}.")
    for name, value in (
        ("auto_filter_genes", auto_filter_genes), ("auto_filter_cells", auto_filter_cells),
        ("return_kept", return_kept),
    ):  # fmt: skip
        if not isinstance(value, bool | np.bool_):
            report.wrong_kind(f"`{name}` must be True or False; got {value!r}.")
    table = read_table(reference, "reference", layer_sc, report)
    check_counts(table, True, report)
    read = None if cell_types is None else read_codes(cell_types, reference, table, report)
    raise_faults(report.faults, "reference")
    logs = _log_share(table.counts)
    genes, cells = np.ones(table.n_genes, dtype=bool), np.ones(table.rows.n, dtype=bool)
    if auto_filter_genes:
        variances = _moments(logs, 0)[1]
        genes = variances <= np.quantile(variances, 1.0 - var_threshold)
    if auto_filter_cells:
        mean, variance = _moments(logs[:, np.flatnonzero(genes)], 1)
        ratio = variance / (mean + 1e-12)
        cells = np.abs(ratio - ratio.mean()) <= disp_threshold * ratio.std()
    _tell(table, genes, cells, read)
    kept = _cut(reference, cells, genes)
    return (kept, cells, genes) if return_kept else kept


def _log_share(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts per 10,000."""
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    rate = np.divide(PER, totals, out=np.zeros_like(totals), where=totals > 0)
    data = np.log1p(counts.data * np.repeat(rate, np.diff(counts.indptr)))
    return sp.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def _moments(logs: sp.csr_matrix, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population variance along an axis."""
    mean = np.asarray(logs.mean(axis=axis)).ravel()
    square = np.asarray(logs.multiply(logs).mean(axis=axis)).ravel()
    return mean, np.maximum(square - mean**2, 0.0)


def _tell(table: Table, genes: np.ndarray, cells: np.ndarray, read: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Log what was left out, warn of types that are gone; an error where nothing is left."""
    for word, kept, setting in (("gene", genes, "var_threshold"), ("cell", cells, "disp_threshold")):
        if not kept.any():
            raise DataError(f"`{setting}` must leave a {word} at least; got none of {len(kept):,}. Change it.")
    lost = [f"{(~kept).sum():,} of {len(kept):,} {word}" for word, kept in (("genes", genes), ("cells", cells))]
    if genes.all() and cells.all():
        return
    text = f"filter_reference left out {lost[0]} (variance) and {lost[1]} (dispersion)."
    log.info(text)
    left = np.bincount(read[0][cells & (read[0] >= 0)], minlength=len(read[1])) if read is not None else np.ones(1)
    if (left == 0).any():
        names = ", ".join(repr(str(name)) for name in read[1][left == 0])
        warnings.warn(f"{text} Types without a cell now: {names}.", DataWarning, stacklevel=3)


def _cut(reference: Any, cells: np.ndarray, genes: np.ndarray) -> Any:
    """The kept rows and columns, in the caller's own kind."""
    if is_anndata(reference):
        kept = reference[cells, genes]
        return kept.to_memory() if reference.isbacked else kept.copy()
    if isinstance(reference, pd.DataFrame):
        return reference.iloc[np.flatnonzero(cells), np.flatnonzero(genes)].copy()
    if sp.issparse(reference):
        kept = reference.tocsr()[np.flatnonzero(cells)][:, np.flatnonzero(genes)]
        return kept.asformat(reference.format)
    return reference[np.ix_(cells, genes)]
