"""Disturbed copies of a pair of tables: noise, fewer genes, cells, counts or types, wrong labels.

Every draw is a hash of the content of the rows and columns that it is for (see `draws`), so that the order of spots,
cells and genes and the number of jobs change nothing. Draws do not hang on the level: what is lost at one level is lost
at every higher one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..draws import GOLDEN, keys_of, mix, order_by_key
from ..errors import DataError
from ..kernels.cpu.counts import thin_counts

if TYPE_CHECKING:
    from anndata import AnnData

BLOCK = 1 << 21  # entries of dense noise at a time
Tables = tuple["AnnData", "AnnData"]


def disturb(
    spots: AnnData, cells: AnnData, key: str, *, kind: str, level: float, repeat: int = 0, seed: int = 0
) -> Tables:
    """A disturbed copy of spots and reference.

    Parameters
    ----------
    spots : AnnData, (n_spots, n_spatial_genes)
        Raw counts.
    cells : AnnData, (n_cells, n_reference_genes)
        Raw counts.
    key : str
        Column of ``cells.obs`` with the type of each cell.
    kind : str
        One of `KINDS`, by what is disturbed:

        "noise"
            Counts of the reference, upwards alone: to count c of gene g in a cell the whole number
            floor(level s_g \\|z\\| + u) is added, with z standard normal, u uniform on [0, 1) and s_g the standard
            deviation of the gene's counts over the cells.
        "gene_drop"
            Genes of the spots: the share `level` is left out.
        "cell_drop"
            Cells of the reference: the share `level` of each type is left out, one cell of a type stays.
        "depth"
            Counts of the spots: a molecule is lost with chance `level`.
        "label_noise"
            Labels: the share `level` of the cells of each type gets the label of another type, drawn evenly.
        "type_drop"
            Types of the reference: the share `level` of the types (rounded) is left out, one type stays.
    level : float in [0, 1)
        0: nothing is disturbed.
    repeat, seed : int
        Other numbers, other draws.

    Returns
    -------
    (spots, cells) : AnnData
        The table that is not disturbed is the caller's own.

    Raises
    ------
    DataError
        An unknown kind or a level out of range.
    """
    if kind not in KINDS:
        raise DataError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r}.")
    if not 0 <= level < 1:
        raise DataError(f"`level` must be at least 0 and below 1; got {level:g}.")
    if level == 0:
        return spots, cells
    return KINDS[kind](spots, cells, key, level, seed * 1_000_003 + repeat)


def keys_by_content(counts: sp.csr_matrix, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the rows and of the columns of a table of counts, (n_rows,) and (n_columns,) uint64.

    They hang on the counts in a row or column alone, wherever it stands: sums of 64-bit hashes, which wrap around, do
    not depend on the order. Rows with equal counts are told apart by their order, and so are columns.
    """
    n_rows, n_columns = counts.shape
    filled = np.diff(counts.indptr)
    rows = np.repeat(np.arange(n_rows), filled)
    values = mix(counts.data.astype(np.float64).view(np.uint64) + GOLDEN)
    first = keys_of(seed, np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel(), filled)
    column_sums, row_sums = np.zeros(n_columns, np.uint64), np.zeros(n_rows, np.uint64)
    with np.errstate(over="ignore"):
        np.add.at(column_sums, counts.indices, mix(values ^ first[rows]))
        columns = mix(column_sums)
        np.add.at(row_sums, rows, mix(values ^ columns[counts.indices]))
    return _tell_apart(mix(row_sums ^ first)), _tell_apart(columns)


def _tell_apart(keys: np.ndarray) -> np.ndarray:
    """Keys that differ: the second and later ones of equal keys are changed."""
    number = pd.Series(keys).groupby(keys, sort=False).cumcount().to_numpy().astype(np.uint64)
    return np.where(number > 0, mix(keys ^ mix(number)), keys)


def _uniform(keys: np.ndarray, number: int) -> np.ndarray:
    """Uniform on [0, 1) from keys, another one for each number."""
    with np.errstate(over="ignore"):
        return (mix(keys + np.uint64(number + 1) * GOLDEN) >> np.uint64(11)) * 2.0**-53


def _counts(adata: AnnData) -> sp.csr_matrix:
    """The counts in canonical form, without stored zeros; the caller's arrays stay as they are."""
    counts = sp.csr_matrix(adata.X)
    if not counts.has_canonical_format or not counts.data.all():
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def _with_counts(adata: AnnData, counts: sp.csr_matrix) -> AnnData:
    import anndata

    return anndata.AnnData(counts, obs=adata.obs.copy(), var=adata.var.copy(), obsm=dict(adata.obsm))


def _add_noise(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    from scipy.special import ndtri

    counts = _counts(cells)
    counts = counts.astype(np.result_type(counts.dtype, np.int32) if counts.dtype.kind in "iu" else counts.dtype)
    row_keys, gene_keys = keys_by_content(counts, seed)
    values = counts.astype(np.float64)
    mean = np.asarray(values.mean(axis=0)).ravel()
    square = np.asarray(values.multiply(values).mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    step = max(1, BLOCK // counts.shape[1])
    blocks = []
    for start in range(0, counts.shape[0], step):
        keys = mix(row_keys[start : start + step, None] ^ gene_keys)
        size = ndtri(0.5 + 0.5 * _uniform(keys, 0))
        blocks.append(sp.csr_matrix(np.floor(level * spread * size + _uniform(keys, 1)).astype(counts.dtype)))
    return spots, _with_counts(cells, (counts + sp.vstack(blocks, format="csr")).tocsr())


def _drop_genes(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    _, gene_keys = keys_by_content(_counts(spots), seed)
    lost = order_by_key(gene_keys)[: int(level * spots.n_vars)]
    return spots[:, np.setdiff1d(np.arange(spots.n_vars), lost)].copy(), cells


def _members(cells: AnnData, key: str, seed: int) -> tuple[np.ndarray, list[tuple[str, np.ndarray]], np.ndarray]:
    """Labels, the cells of each type in the order in which they are lost, and the keys of all cells."""
    labels = cells.obs[key].astype(str).to_numpy()
    keys, _ = keys_by_content(_counts(cells), seed)
    members = [(name, np.flatnonzero(labels == name)) for name in np.unique(labels)]
    return labels, [(name, rows[order_by_key(keys[rows])]) for name, rows in members], keys


def _drop_cells(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    _, members, _ = _members(cells, key, seed)
    kept = [rows[min(int(level * len(rows)), len(rows) - 1) :] for _, rows in members]
    return spots, cells[np.sort(np.concatenate(kept))].copy()


def _drop_counts(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    counts = _counts(spots)
    row_keys, gene_keys = keys_by_content(counts, seed)
    values = counts.data.astype(np.float64)
    kept, lost = np.empty_like(values), np.empty_like(values)
    arrays = (counts.indptr, counts.indices, values, row_keys, gene_keys, 1.0 - level)
    thin_counts(*arrays, 0, counts.shape[0], kept, lost)
    thinned = sp.csr_matrix((kept.astype(counts.dtype), counts.indices, counts.indptr), counts.shape, copy=True)
    thinned.eliminate_zeros()
    return _with_counts(spots, thinned), cells


def _mislabel(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    labels, members, keys = _members(cells, key, seed)
    changed = labels.astype(object)
    for number, (_, rows) in enumerate(members):
        others = np.array([name for other, (name, _) in enumerate(members) if other != number], dtype=object)
        moved = rows[: int(level * len(rows))]
        if len(others):
            changed[moved] = others[(_uniform(keys[moved], 2) * len(others)).astype(np.int64)]
    disturbed = cells.copy()
    disturbed.obs[key] = pd.Categorical(changed.astype(str))
    return spots, disturbed


def _drop_types(spots: AnnData, cells: AnnData, key: str, level: float, seed: int) -> Tables:
    labels, members, keys = _members(cells, key, seed)
    with np.errstate(over="ignore"):
        type_keys = mix(np.array([np.add.reduce(keys[rows]) for _, rows in members], dtype=np.uint64))
    n_lost = min(round(level * len(members)), len(members) - 1)
    lost = [members[k][0] for k in order_by_key(type_keys)[:n_lost]]
    return spots, cells[~np.isin(labels, lost)].copy()


KINDS: dict[str, Callable[[AnnData, AnnData, str, float, int], Tables]] = {
    "noise": _add_noise,
    "gene_drop": _drop_genes,
    "cell_drop": _drop_cells,
    "depth": _drop_counts,
    "label_noise": _mislabel,
    "type_drop": _drop_types,
}
