"""A neighbour graph that the caller brings, of squidpy say: checked against the places before it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse as sp

from ...settings import Settings
from .findings import Report, count, kind_of, some
from .tables import Table

MOST_NEIGHBOURS = 4  # of a spot in the mean, in multiples of k_neighbors: as many as ties may add to a graph of our own
FAR = 3.0  # median length of an edge, in median distances to the nearest spot times the root of the mean degree


def read_links(
    value: Any, table: Table | None, places: np.ndarray | None, sections: np.ndarray | None, settings: Settings,
    report: Report,
) -> sp.csr_matrix | None:  # fmt: skip
    """A graph as the pattern of who is whose neighbour.

    Parameters
    ----------
    value : sparse matrix or array (n_spots, n_spots), str or None
        Row i has entries other than 0 at the neighbours of spot i; a str names an entry of ``spatial.obsp``.
    table : Table or None
        The spatial table.
    places : (n_spots, 2 or 3) float64 or None
    sections : (n_spots,) int32 or None
    settings : Settings
    report : Report
        Takes the faults.

    Returns
    -------
    csr_matrix of bool, (n_spots, n_spots), or None
        Sorted, without the diagonal; None without a graph and after a fault.

    Notes
    -----
    A graph is right where its values are finite and >= 0, it links spots of one section only, with at most
    ``4 k_neighbors`` neighbours a spot in the mean, and its edges are short: their median is at most 3 sqrt(m) times
    the median distance to the nearest spot, m the mean degree. Over m neighbours of evenly spread spots the median
    distance is about 0.4 to 0.8 sqrt(m) of these; a graph of like expression has edges across the whole tissue. Small
    sections (fewer than about 36 m spots) cannot be told so.
    """
    if value is None or table is None or places is None or sections is None:
        return None
    if settings.objective == "original":
        report.fault("`neighbors` must be None with objective='original'; got a graph. The original finds its own.")
        return None
    if isinstance(value, str):
        there = [] if table.adata is None else list(table.adata.obsp)
        if value not in there:
            remedy = "Run squidpy.gr.spatial_neighbors first, or pass the matrix."
            report.fault(f"spatial.obsp must have {value!r}; got {some(there, 10) or 'no graph'}. {remedy}")
            return None
        value = table.adata.obsp[value]
    if not (sp.issparse(value) or isinstance(value, np.ndarray)) or value.ndim != 2 or value.dtype.kind not in "biuf":
        report.wrong_kind(
            f"`neighbors` must be a sparse matrix or an array of numbers, spots x spots; got {kind_of(value)}."
        )
        return None
    n = table.rows.n
    if value.shape != (n, n):
        report.fault(f"`neighbors` must be {n:,} x {n:,}, spots x spots; got {value.shape[0]:,} x {value.shape[1]:,}.")
        return None
    links = sp.coo_matrix(value)
    if not np.isfinite(links.data).all() or (links.data.astype(np.float64) < 0).any():
        report.fault("`neighbors` must be finite and >= 0; got a value that is not. Pass the connectivities.")
        return None
    kept = (links.row != links.col) & (links.data != 0)
    i, j = links.row[kept], links.col[kept]
    links = sp.csr_matrix((np.ones(len(i), dtype=bool), (i, j)), shape=(n, n))
    links.sum_duplicates()
    fault = _fault(links, table, places, sections, settings.k_neighbors)
    if fault:
        report.fault(fault)
        return None
    return links


def _fault(links: sp.csr_matrix, table: Table, places: np.ndarray, sections: np.ndarray, k: int) -> str:
    """Why a graph is not right for these places; "" where it is."""
    from scipy.spatial import cKDTree

    if not links.nnz:
        return "`neighbors` must link spots; got no edge. Pass k_neighbors=0 for a run without neighbours."
    i = np.repeat(np.arange(links.shape[0]), np.diff(links.indptr))
    j = links.indices
    across = np.flatnonzero(sections[i] != sections[j])
    if len(across):
        one, other = table.rows.name(i[across[0]]), table.rows.name(j[across[0]])
        return (
            f"`neighbors` must link spots of one section only; got {count(len(across), 'edge')} between sections, the "
            f"first from {one!r} to {other!r}. Pass library_key to squidpy.gr.spatial_neighbors."
        )
    degree = links.nnz / (np.diff(links.indptr) > 0).sum()
    if degree > MOST_NEIGHBOURS * max(k, 1):
        return (
            f"`neighbors` must give a spot {MOST_NEIGHBOURS} k_neighbors neighbours at most in the mean; got "
            f"{degree:.1f} with k_neighbors={k}. Pass a sparser graph, or a higher k_neighbors."
        )
    lengths = np.sqrt(((places[i] - places[j]) ** 2).sum(axis=1))
    parts = [places[sections == section] for section in np.unique(sections)]  # sections may lie on each other
    nearest = np.concatenate([cKDTree(part).query(part, k=2)[0][:, 1] for part in parts])
    nearest = nearest[(nearest > 0) & np.isfinite(nearest)]
    if len(nearest) and np.median(lengths) > FAR * np.sqrt(max(degree, 1.0)) * np.median(nearest):
        times = np.median(lengths) / np.median(nearest)
        return (
            f"`neighbors` must link spots that are near each other; got edges whose median length is {times:.0f} times "
            "the distance to the nearest spot. Pass the graph of places (spatial_connectivities), not of expression."
        )
    return ""


def take_edges(links: sp.csr_matrix | None, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The edges among some spots, as `graph.link_spots` takes them.

    Parameters
    ----------
    links : csr_matrix, (n_spots, n_spots), or None
    rows : (n_used,) int64
        The spots used.

    Returns
    -------
    (ends, others) or None
        First edge of each of these spots, (n_used + 1,) int64, and whom they go to, (n_edges,) int32.
    """
    if links is None:
        return None
    among = links[rows][:, rows]
    among.sort_indices()
    return among.indptr.astype(np.int64), among.indices.astype(np.int32)
