"""Are these raw counts? If not: where is the first value that is none, and what do they look like?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse as sp

from ...kernels.cpu.counts import count_odd
from ...parallel import ALONE, Workers, cut
from .findings import Report
from .tables import Table

MOST_COUNTS = 1e12  # no instrument counts so many molecules; sums of larger ones overflow float32
BLOCK = 1 << 17  # entries looked at together: small enough for the cache
SAMPLE = 2000  # rows from which a guess is made
LOG_LIMIT = 25.0  # no log1p of a count is larger


@dataclass
class Scan:
    """What was seen: `bad` is the place of the first value that is negative or not finite, `fraction` of the first
    that is not whole (-1: none); `n_bad` and `n_negative` are numbers of values."""

    bad: int = -1
    n_bad: int = 0
    n_negative: int = 0
    fraction: int = -1


def scan(values: np.ndarray) -> Scan:
    """Look at all values once, block by block.

    Parameters
    ----------
    values : ndarray of int or float, (n,)

    Returns
    -------
    Scan
    """
    seen = Scan()
    if values.flags.c_contiguous and not count_odd(values):
        return seen
    if values.dtype.kind == "u" or (values.dtype.kind == "i" and (values.size == 0 or values.min() >= 0)):
        return seen
    rounded = np.empty(min(BLOCK, values.size), dtype=values.dtype)
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        if not (block.min() >= 0 and block.max() < np.inf):
            bad = ~((block >= 0) & (block < np.inf))
            if seen.bad < 0:
                seen.bad = start + int(bad.argmax())
            seen.n_bad += int(bad.sum())
            seen.n_negative += int((block < 0).sum())
        if values.dtype.kind == "f" and seen.fraction < 0:
            whole = np.rint(block, out=rounded[: block.size])
            if not np.array_equal(whole, block):
                broken = (whole != block) & np.isfinite(block)
                seen.fraction = start + int(broken.argmax()) if broken.any() else -1
    return seen


def check_counts(table: Table | None, demand_whole: bool, report: Report, workers: Workers = ALONE) -> bool:
    """Report values that are no raw counts.

    Parameters
    ----------
    table : Table or None
    demand_whole : bool
        Whether values that are not whole are refused, too.
    report : Report
        Takes the faults.
    workers : Workers

    Returns
    -------
    bool
        Whether all values are finite, whole and >= 0.
    """
    if table is None or table.counts is None:
        return False
    values = table.counts.data
    if not any(workers.each(count_odd, [(values[slice(*part)],) for part in cut(len(values), BLOCK)])):
        return True  # small counts, one and all
    seen = scan(values)
    if seen.bad >= 0:
        others = f" and {seen.n_bad - 1:,} more such values" if seen.n_bad > 1 else ""
        remedy = (
            f"Pass raw counts, not scaled expression.{other_counts(table)}"
            if seen.n_negative
            else "Pass raw counts without missing or infinite values."
        )
        report.fault(f"{table.where} must be finite and >= 0; got {_place(table, seen.bad)}{others}. {remedy}")
    elif table.counts.nnz and table.counts.data.max() > MOST_COUNTS:
        at = int(table.counts.data.argmax())
        report.fault(
            f"{table.where} must hold raw counts up to {MOST_COUNTS:g}; got {_place(table, at)}. Pass raw counts."
        )
    elif seen.fraction >= 0 and not demand_whole:
        report.note(
            f"{table.where} holds no raw counts (it looks like {looks_like(table.counts)}) and is used as it is: the "
            "model is one of counts, so do not trust the proportions; smoothing is not tuned."
        )
    elif seen.fraction >= 0:
        remedy = other_counts(table) or (
            " Pass raw counts; check_counts=False uses the values as they are, without tuning."
        )
        report.fault(
            f"{table.where} must hold raw counts, whole numbers; got {_place(table, seen.fraction)}. "
            f"It looks like {looks_like(table.counts)}.{remedy}"
        )
    return seen.bad < 0 and seen.fraction < 0


def _place(table: Table, at: int) -> str:
    row = int(np.searchsorted(table.counts.indptr, at, side="right")) - 1
    gene = table.gene_names()[table.counts.indices[at]]
    return f"{table.counts.data[at]:.6g} at {table.rows.unit} {table.rows.name(row)!r}, gene {gene!r}"


def looks_like(counts: sp.csr_matrix) -> str:
    """What values >= 0 that are not whole probably are, judged from up to 2,000 rows."""
    filled = np.flatnonzero(np.diff(counts.indptr))
    part = counts[filled[:: max(1, len(filled) // SAMPLE)]].astype(np.float64)
    raw = part.copy()
    is_log = part.data.max() < LOG_LIMIT
    if is_log:
        raw.data = np.expm1(raw.data)
        if np.allclose(raw.data, np.rint(raw.data), atol=1e-3, rtol=1e-5):
            return "log1p of raw counts (numpy.expm1 gives them back)"
    for values, words in ((raw, "log1p of " if is_log else ""), (part, "")):
        totals = np.asarray(values.sum(axis=1)).ravel()
        if len(totals) > 2 and totals.std() < 0.02 * totals.mean():
            return f"{words}counts normalised to a total of {totals.mean():,.4g} per row"
    return "log-transformed counts" if is_log else "normalised or corrected counts"


def _whole(matrix: object) -> bool:
    """Whether the first rows of a layer hold raw counts."""
    try:
        head = matrix[:SAMPLE]
        values = head.data if sp.issparse(head) else np.asarray(head)
        return bool(values.size and (values >= 0).all() and (values == np.rint(values)).all() and (values > 0).any())
    except (TypeError, ValueError, IndexError):
        return False  # not numbers: no counts


def other_counts(table: Table) -> str:
    """Where else in the AnnData raw counts are, as a remedy; '' if nowhere."""
    adata, role = table.adata, table.role
    if adata is None:
        return ""
    option = "layer_st" if role == "spatial" else "layer_sc"
    layers = sorted((name for name in adata.layers if name is not None), key=lambda name: name != "counts")
    for name in layers:
        if table.where != f"{role}.layers[{name!r}]" and _whole(adata.layers[name]):
            return f' {role}.layers[{name!r}] holds whole numbers: pass {option}="{name}".'
    if adata.raw is not None and _whole(adata.raw.X):
        return f" {role}.raw holds whole numbers: pass {role}.raw.to_adata()."
    if table.where != f"{role}.X" and adata.X is not None and _whole(adata.X):
        return f" {role}.X holds whole numbers: leave out {option}."
    return ""
