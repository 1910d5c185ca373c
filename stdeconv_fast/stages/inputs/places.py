"""Where the spots are: coordinates, sections, and whether they are in the tissue."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd

from ...kernels.cpu.neighbours import tell_in_order
from .findings import Report, count, kind_of, likeliest, some
from .labels import codes_of, read_labels
from .names import Names, Rows, align, read_names, texts_of
from .tables import Table, is_anndata

FARTHEST = 1e100  # squares of larger coordinates overflow
OK, OUTSIDE, EMPTY = "ok", "not in tissue", "no counts"
YES_NO = {"1": True, "true": True, "0": False, "false": False}


def read_coordinates(value: Any, source: Any, table: Table | None, key: str, report: Report) -> np.ndarray | None:
    """Place of each spot.

    Parameters
    ----------
    value : DataFrame, array-like (n, 2 or 3) or None
        None takes ``source.obsm[key]``.
    source : object
        The caller's spatial table.
    table : Table or None
        The same as it was read.
    key : str
        Key of obsm.
    report : Report
        Takes the faults and notes.

    Returns
    -------
    ndarray of float64, (n_spots, 2 or 3), or None
        In the caller's unit; None after a fault.
    """
    where = "coordinates"
    if value is None:
        where, value = f"spatial.obsm[{key!r}]", _from_obsm(source, key, report)
        if value is None:
            return None
    read_places = _frame_places if isinstance(value, pd.DataFrame) else _array_places
    read = read_places(value, where, report)
    if read is None or table is None:
        return None
    places, names = read
    rows = table.rows
    at = align(rows, names, len(places), "coordinates", report)
    if at is None:
        return None
    if len(at) != len(places) or (at != np.arange(len(at))).any():
        places = np.where((at >= 0)[:, None], places[at], np.nan)
    if not np.isfinite(places).all():
        absent = np.flatnonzero(~np.isfinite(places).all(axis=1))
        first = absent[0]
        got = "no row" if at[first] < 0 else str(places[first][~np.isfinite(places[first])][0])
        report.fault(
            f"`{where}` must be finite for every spot; got {got} for spot {rows.name(first)!r}: "
            f"{count(len(absent), 'spot')} without coordinates ({rows.some(absent)}). "
            "Complete them or drop these spots."
        )
        return None
    if (np.abs(places) > FARTHEST).any():
        far = np.flatnonzero((np.abs(places) > FARTHEST).any(axis=1))
        report.fault(
            f"`{where}` must lie within {FARTHEST:g} of 0; got {np.abs(places[far[0]]).max():g} for spot "
            f"{rows.name(far[0])!r}. Pass them in another unit."
        )
        return None
    return np.ascontiguousarray(places)


def _from_obsm(source: Any, key: str, report: Report) -> Any:
    if not is_anndata(source):
        report.wrong_kind(
            "`coordinates` must be given where `spatial` is no AnnData; got None. "
            "Pass a DataFrame with the columns x, y or an array (n_spots, 2)."
        )
        return None
    if not isinstance(key, str):
        report.wrong_kind(f"`spatial_key` must be a key of spatial.obsm; got {kind_of(key)}.")
        return None
    if key in source.obsm:
        return source.obsm[key]
    there = list(source.obsm)
    likely = likeliest(key, there, ("spatial", "X_spatial", "coordinates", "coords", "xy", "X_xy"))
    remedy = f"Pass spatial_key={likely!r}." if likely else "Pass spatial_key or coordinates."
    report.fault(f"spatial.obsm must have the key {key!r}; got {some(there, 10) or 'no keys'}. {remedy}")
    return None


def _axes(frame: pd.DataFrame, where: str, report: Report) -> list[int] | None:
    """Columns of a frame that hold x, y (and z)."""
    exact = [str(column) for column in frame.columns]
    folded = [name.strip().lower() for name in exact]
    if "x" in folded and "y" in folded:
        axes = [axis for axis in "xyz" if axis in folded]
        return [exact.index(axis) if axis in exact else folded.index(axis) for axis in axes]
    numeric = [
        j
        for j, dtype in enumerate(frame.dtypes)
        if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype) and folded[j] != "in_tissue"
    ]
    if len(numeric) < 2:
        got = some(exact, 10) or "no columns"
        report.fault(f"`{where}` must have the columns x, y or two columns of numbers; got {got}.")
        return None
    if len(numeric) > 3:
        used = some([exact[j] for j in numeric[:2]])
        report.note(f"{where} has no columns x, y; its first two columns of numbers are used: {used}.")
        return numeric[:2]
    return numeric


def _frame_places(frame: pd.DataFrame, where: str, report: Report) -> tuple[np.ndarray, Names] | None:
    axes = _axes(frame, where, report)
    if axes is None:
        return None
    try:
        places = frame.iloc[:, axes].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        names = some([frame.columns[j] for j in axes])
        report.wrong_kind(f"`{where}` must hold numbers in the columns {names}; got text.")
        return None
    return places, read_names(frame.index)


def _array_places(value: Any, where: str, report: Report) -> tuple[np.ndarray, None] | None:
    places = None
    if isinstance(value, (np.ndarray, list, tuple)) and not isinstance(value, np.ma.MaskedArray):
        # rows of unequal length, objects that are no numbers or too large
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            raw = np.asarray(value)
            places = raw.astype(np.float64) if raw.dtype.kind in "iufO" else None
    if places is None:
        remedy = " To use a key of obsm pass spatial_key." if isinstance(value, str) else ""
        report.wrong_kind(
            f"`{where}` must be a DataFrame with the columns x, y or an array of numbers (n_spots, 2 or 3); "
            f"got {kind_of(value)}.{remedy}"
        )
        return None
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        turned = places.ndim == 2 and places.shape[0] in (2, 3)
        remedy = f"Pass {where}.T." if turned else "Pass the columns x, y (and z) alone."
        report.fault(f"`{where}` must have the shape (n_spots, 2 or 3); got {places.shape}. {remedy}")
        return None
    return places, None


def read_sections(
    value: Any, source: Any, table: Table | None, report: Report
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Section of each spot.

    Parameters
    ----------
    value : None or see `labels.read_labels`
        None: all spots are in one section.
    source, table, report
        As in `read_coordinates`.

    Returns
    -------
    (codes, names) or None
        int32 codes, (n_spots,), into the sorted names; None after a fault.
    """
    if value is None:
        return None if table is None else (np.zeros(table.rows.n, dtype=np.int32), ("section_0",))
    labels = read_labels(value, "sections", source, "spatial", report)
    if labels is None or table is None:
        return None
    at = align(table.rows, labels.names, len(labels.texts), "sections", report)
    if at is None:
        return None
    texts = np.append(labels.texts, None)[at]
    absent = np.flatnonzero(pd.isna(texts))
    if len(absent):
        report.fault(
            f"`sections` must name a section for every spot; got none for {count(len(absent), 'spot')}: "
            f"{table.rows.some(absent)}. Complete them or drop these spots."
        )
        return None
    return codes_of(texts)


def read_status(table: Table | None, report: Report) -> np.ndarray | None:
    """Which spots can be used: "ok", "not in tissue" (by ``obs["in_tissue"]``) or "no counts".

    Parameters
    ----------
    table : Table or None
        The spatial table.
    report : Report
        Takes the faults.

    Returns
    -------
    ndarray of str objects, (n_spots,), or None
    """
    if table is None:
        return None
    status = np.array([OK], dtype=object).repeat(table.rows.n)  # np.full takes twenty times as long
    if table.adata is not None and "in_tissue" in table.adata.obs.columns:
        status[~_in_tissue(table.adata.obs["in_tissue"], table.rows, report)] = OUTSIDE
    if table.counts is None:
        return status
    filled = np.diff(table.counts.indptr) > 0
    if filled.all():
        return status
    if not filled.any():
        report.fault(f"{table.where} must hold counts; got no count in any of {count(table.rows.n, 'spot')}.")
    elif (status == OK).any() and not filled[status == OK].any():
        report.fault(f"{table.where} must hold counts for a spot in the tissue; got counts outside of it alone.")
    status[~filled & (status == OK)] = EMPTY
    return status


def _in_tissue(values: pd.Series, rows: Rows, report: Report) -> np.ndarray:
    texts = texts_of(values)
    known = np.array([str(text).lower() in YES_NO for text in texts])
    if not known.all():
        first = int(np.argmin(known))
        got = values.iloc[first]
        report.fault(f"spatial.obs['in_tissue'] must be 0 or 1; got {got!r} at spot {rows.name(first)!r}.")
        return np.ones(rows.n, dtype=bool)
    inside = np.array([YES_NO[text.lower()] for text in texts])
    if not inside.any():
        report.fault(
            "spatial.obs['in_tissue'] must be 1 for a spot at least; got 0 for all. Drop the column to use all spots."
        )
    return inside


def note_places(
    places: np.ndarray, sections: np.ndarray, section_names: tuple[str, ...], status: np.ndarray, k: int, report: Report
) -> None:
    """Note spots that coincide, and sections with fewer than k + 1 usable spots.

    Parameters
    ----------
    places : ndarray of float64, (n_spots, 2 or 3)
    sections : ndarray of int32, (n_spots,)
    section_names : tuple of str
    status : ndarray of str objects, (n_spots,)
    k : int
        Neighbours of a spot.
    report : Report
        Takes the notes.
    """
    n = 0
    if not tell_in_order(places):
        inside = status != OUTSIDE
        keys = pd.DataFrame(places[inside]).assign(section=sections[inside])
        n = int(keys.duplicated(keep=False).sum())
    if n:
        report.note(
            f"{n:,} spots share their coordinates with another spot of their section; they are used as such. Spots of "
            "several sections need sections= (sample_key= in tl, --sample-key)."
        )
    sizes = np.bincount(sections[status == OK], minlength=len(section_names))
    short = np.flatnonzero((sizes > 0) & (sizes < k + 1))
    if k == 0 or len(sections) == 1 or not len(short):
        return
    listed = ", ".join(f"{section_names[s]!r} ({count(int(sizes[s]), 'spot')})" for s in short[:5])
    listed += f" and {len(short) - 5:,} more" if len(short) > 5 else ""
    report.note(
        f"k_neighbors={k} is more than {count(len(short), 'section')} can give: {listed}; "
        "their spots take all others of the section as neighbours."
    )
