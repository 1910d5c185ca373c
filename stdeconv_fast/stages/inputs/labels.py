"""One label per row (cell types, sections), and the cell types of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .findings import Report, count, fold, kind_of, likeliest, some
from .names import Names, align, read_names, texts_of
from .tables import Table, is_anndata

USUAL_TYPES = (
    "cell_type", "cell_types", "cell_type_name", "annotation", "annotations", "cell_annotation", "cell_subclass",
    "subclass", "cluster_name", "cluster", "clusters", "labels", "label", "leiden", "louvain", "seurat_clusters",
)  # fmt: skip
USUAL_SECTIONS = ("section", "sections", "library_id", "sample", "sample_id", "slice", "slide", "batch")
FEW_CELLS = 5
MOST_TYPES = 2000  # more cannot be told apart, and take hours: they are names of cells


@dataclass(frozen=True)
class Labels:
    """One label per row: `texts` holds str or None; `names` names the rows (None: by position)."""

    texts: np.ndarray
    names: Names | None


def read_labels(value: Any, what: str, source: Any, role: str, report: Report) -> Labels | None:
    """Read one label per row.

    Parameters
    ----------
    value : str, Series, DataFrame, Categorical, Index, array, list or tuple
        Labels; a str names a column of ``source.obs``.
    what : {"cell_types", "sections"}
        Its name in messages.
    source : object
        The table, in case it is an AnnData.
    role : {"spatial", "reference"}
        Name of that table in messages.
    report : Report
        Takes the faults.

    Returns
    -------
    Labels or None
    """
    names = None
    if isinstance(value, str):
        value = _obs_column(value, what, source, role, report)
    elif isinstance(value, pd.DataFrame):
        names, value = read_names(value.index), _frame_column(value, what, report)
    elif isinstance(value, pd.Series):
        names = read_names(value.index)
    elif isinstance(value, (list, tuple)):
        values = np.empty(len(value), dtype=object)
        values[:] = list(value)
        value = values
    elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        value = value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value
        if value.ndim != 1:
            report.fault(f"`{what}` must have one dimension; got an array of shape {value.shape}.")
            return None
    elif not isinstance(value, (pd.Categorical, pd.Index)) and not isinstance(value, pd.api.extensions.ExtensionArray):
        remedy = " Pass pandas.Series of it." if isinstance(value, dict) else ""
        report.wrong_kind(
            f"`{what}` must be a Series, a DataFrame with one column, a list, an array or the name of a column of "
            f"{role}.obs; got {kind_of(value)}.{remedy}"
        )
        return None
    if value is None:
        return None
    try:
        return Labels(texts_of(value), names)
    except TypeError:  # values that have no hash
        report.wrong_kind(f"`{what}` must hold one name or number per row; got lists or other containers in it.")
        return None


def _obs_column(name: str, what: str, source: Any, role: str, report: Report) -> pd.Series | None:
    if not is_anndata(source):
        report.fault(
            f"`{what}` must be one label per row where `{role}` is no AnnData; got the column name {name!r}. "
            "Pass a Series or a list."
        )
        return None
    if name in source.obs.columns:
        return source.obs[name]
    usual = USUAL_TYPES if what == "cell_types" else USUAL_SECTIONS
    there = [str(column) for column in source.obs.columns]
    likely = likeliest(name, there, usual)
    remedy = f"Pass {what}={likely!r}." if likely else f"Pass the name of a column as {what}."
    report.fault(f"{role}.obs must have the column {name!r}; got {some(there, 10) or 'no columns'}. {remedy}")
    return None


def _frame_column(frame: pd.DataFrame, what: str, report: Report) -> pd.Series | None:
    if frame.shape[1] == 1:
        return frame.iloc[:, 0]
    wanted = {"celltype", "celltypes"} if what == "cell_types" else {"section", "sections"}
    found = [j for j, column in enumerate(frame.columns) if fold(column) in wanted]
    if len(found) == 1:
        return frame.iloc[:, found[0]]
    column = "celltype" if what == "cell_types" else "section"
    report.fault(
        f"`{what}` must have one column, or one called {column!r}; got {some(frame.columns, 10) or 'no columns'}. "
        f"Pass one of them: {what}['name']."
    )
    return None


def read_cell_types(
    value: Any, source: Any, table: Table | None, exclude: tuple[str, ...], min_cells: int, report: Report
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Type of each reference cell.

    Parameters
    ----------
    value : see `read_labels`
    source : object
        The caller's reference.
    table : Table or None
        The same as it was read.
    exclude : tuple of str
        Types to leave out.
    min_cells : int
        Types with fewer cells are left out with a note.
    report : Report
        Takes the faults and notes.

    Returns
    -------
    (codes, types) or None
        int32 codes, (n_cells,), -1: left out; names of the types, sorted. None after a fault.
    """
    read = read_codes(value, source, table, report)
    if read is None:
        return None
    filled = None if table.counts is None else np.diff(table.counts.indptr) > 0
    return choose_types(*read, filled, table, exclude, min_cells, report)


def read_codes(value: Any, source: Any, table: Table | None, report: Report) -> tuple[np.ndarray, np.ndarray] | None:
    """Label of each cell, int32, -1: none, as an index into all labels, sorted; None after a fault."""
    labels = read_labels(value, "cell_types", source, "reference", report)
    if labels is None or table is None:
        return None
    at = align(table.rows, labels.names, len(labels.texts), "cell_types", report)
    if at is None:
        return None
    texts = np.append(labels.texts, None)[at]  # at -1: no label
    codes, found = pd.factorize(texts, sort=True)
    return codes.astype(np.int32), found


def choose_types(
    codes: np.ndarray, found: np.ndarray, filled: np.ndarray | None, table: Table, exclude: tuple[str, ...],
    min_cells: int, report: Report,
) -> tuple[np.ndarray, tuple[str, ...]] | None:  # fmt: skip
    """The types to use, as `read_cell_types` gives them, from the label of each cell.

    Parameters
    ----------
    codes : (n_cells,) int32, overwritten
        Label of each cell, an index into `found`; -1: none.
    found : (n_found,) object
        All labels, sorted.
    filled : (n_cells,) bool or None
        Whether a cell has counts; None: not known.
    """
    if len(found) == 0:
        report.fault(f"`cell_types` must hold a label; got none for any of {table.rows.n:,} cells.")
        return None
    if len(found) > MOST_TYPES:
        report.fault(
            f"`cell_types` must hold at most {MOST_TYPES:,} types; got {len(found):,}: {some(found)}. Pass a column "
            "with types, not with the names of cells."
        )
        return None
    unknown = [name for name in exclude if name not in set(found)]
    if unknown:
        report.fault(f"`exclude_types` must be among the cell types {some(found, 20)}; got {some(unknown)}.")
    n_unlabelled = int((codes < 0).sum())
    if n_unlabelled:
        report.note(f"{count(n_unlabelled, 'reference cell')} of {len(codes):,} without a label: left out.")
    codes[np.isin(codes, np.flatnonzero(np.isin(found, exclude)))] = -1
    _leave_out_empty(codes, filled, report)
    kept = _keep_types(codes, found, exclude, min_cells, report)
    if not kept.any():
        if not unknown:
            report.fault(
                f"`cell_types` must leave a type with at least {count(min_cells, 'cell')} with counts; got none. "
                "Lower min_cells_per_type or exclude fewer types."
            )
        return None
    new = np.full(len(found) + 1, -1, dtype=np.int32)  # the last one belongs to code -1
    new[:-1][kept] = np.arange(kept.sum(), dtype=np.int32)
    return new[codes], tuple(str(name) for name in found[kept])


def _leave_out_empty(codes: np.ndarray, filled: np.ndarray | None, report: Report) -> None:
    """Set the code of cells without counts to -1, in place."""
    if filled is None:
        return
    empty = ~filled & (codes >= 0)
    codes[empty] = -1
    n = int(empty.sum())
    if n:
        report.note(f"{count(n, 'reference cell')} of {len(codes):,} without counts: left out.")


def _keep_types(
    codes: np.ndarray, found: np.ndarray, exclude: tuple[str, ...], min_cells: int, report: Report
) -> np.ndarray:
    """Which types have enough cells, bool (n_found,)."""
    sizes = np.bincount(codes[codes >= 0], minlength=len(found))
    kept = sizes >= min_cells
    small = np.flatnonzero(~kept & ~np.isin(found, exclude))
    few = np.flatnonzero(kept & (sizes < FEW_CELLS))

    def listed(which: np.ndarray) -> str:
        return ", ".join(f"{found[k]!r} ({sizes[k]})" for k in which)

    if len(small):
        report.note(f"Types with fewer than {count(min_cells, 'cell')} with counts: {listed(small)}; left out.")
    if len(few) and kept.any():
        report.note(f"Types with fewer than {FEW_CELLS} cells: {listed(few)}; their profiles rest on few cells.")
    return kept


def codes_of(texts: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int32 codes into their sorted names."""
    codes, names = pd.factorize(texts, sort=True)
    return codes.astype(np.int32), tuple(str(name) for name in names)
