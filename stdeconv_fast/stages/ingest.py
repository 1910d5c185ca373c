"""Counts of the spots, read once, block by block: totals, gene sums, checks, and the genes that may be kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse

from ..errors import DataError
from ..kernels.cpu import counts as kernels
from ..parallel import Workers
from ..parcels import Counts, SpotSource

IN_MEMORY = 1 << 20  # entries of a block of a matrix in memory: few enough for the cache
STREAMED = 1 << 22  # entries of a block that is read from disk
MOST_COUNTS = 1e12  # as in stages.inputs
NARROWEST, NARROW = np.iinfo(np.uint8).max, np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Block:
    """What one block of rows gave.

    Attributes
    ----------
    lengths : ndarray of int64, (n_rows,)
        Entries of each row that are kept.
    totals : ndarray of float64, (n_rows,)
        Their sums.
    indices : ndarray of uint16 or int32, (n_kept,)
        Gene of each entry, a position among those that may be kept.
    data : ndarray of uint8, uint16 or float64, (n_kept,)
        Counts, > 0.
    sums : ndarray of float64, (n_columns,)
        Sum of each column over the usable rows.
    filled : ndarray of bool, (n_rows,)
        Rows with any count.
    n_bad, n_negative : int
        Values that are negative or not finite, and the negative ones among them.
    bad, fraction : int
        Entry of the block with the first such value, and with the first that is not whole; -1: none.
    largest : float
        Of all values.
    """

    lengths: np.ndarray
    totals: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    sums: np.ndarray
    filled: np.ndarray
    n_bad: int
    n_negative: int
    bad: int
    fraction: int
    largest: float


class InMemory:
    """A matrix in memory as a source of blocks; see `parcels.SpotSource`."""

    def __init__(self, matrix: csr_matrix) -> None:
        self.shape = matrix.shape
        self._arrays = (matrix.indptr, matrix.indices, matrix.data)

    def cut(self, most_entries: int) -> list[tuple[int, int]]:
        return cut_rows(self._arrays[0], most_entries)

    def read(self, start: int, stop: int) -> csr_matrix:
        indptr, indices, data = self._arrays
        first, last = indptr[start], indptr[stop]
        block = csr_matrix((0, self.shape[1]), dtype=data.dtype)
        # past the checks of the constructor, which read every index
        block.indptr = indptr[start : stop + 1] - first
        block.indices, block.data = indices[first:last], data[first:last]
        block._shape = (stop - start, self.shape[1])
        block.has_canonical_format = True
        return block


def source_of(spots: csr_matrix | SpotSource) -> SpotSource:
    """Spots as a source of blocks, be they in memory or not."""
    return InMemory(spots) if issparse(spots) else spots


def cut_rows(indptr: np.ndarray, most_entries: int) -> list[tuple[int, int]]:
    """Ranges of rows with about `most_entries` entries each, one row at least; they hang on the matrix alone."""
    n = len(indptr) - 1
    ends = [0]
    while ends[-1] < n:
        target = min(int(indptr[ends[-1]]) + most_entries, int(indptr[-1]))
        # in the array's own dtype: NumPy would turn the whole array into that of a wider number
        stop = int(np.searchsorted(indptr, indptr.dtype.type(target), side="right")) - 1
        ends.append(min(max(stop, ends[-1] + 1), n))
    return list(zip(ends[:-1], ends[1:], strict=True))


def read_block(
    source: SpotSource, usable: np.ndarray, gene_map: np.ndarray, entries: bool, start: int, stop: int
) -> Block:
    """Read rows [start, stop) of a source.

    Parameters
    ----------
    source : SpotSource
    usable : (n_spots,) bool
        Rows that count; the others give no entries.
    gene_map : (n_columns,) int32
        Position of each column among the genes that may be kept, -1: none.
    entries : bool
        Whether the counts themselves are wanted, not their sums alone.
    """
    matrix = source.read(start, stop)
    if matrix.dtype.kind == "b":
        matrix = matrix.astype(np.int32)  # as stages.inputs does it
    if not matrix.has_canonical_format:
        matrix.sum_duplicates()
    n = stop - start
    arrays = (matrix.indptr, matrix.indices, matrix.data, usable[start:stop], gene_map)
    lengths, totals, filled = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=np.bool_)
    sums, facts, largest = np.zeros(len(gene_map)), np.array([0, 0, -1, -1]), np.zeros(1)
    kernels.sum_block(*arrays, lengths, totals, filled, sums, facts, largest)
    n_kept = int(lengths.sum()) if entries else 0
    n_genes = int(gene_map.max(initial=-1)) + 1
    kind = _kind_of(facts[0], facts[3], largest[0], np.float64)
    indices = np.empty(n_kept, dtype=np.uint16 if n_genes <= NARROW else np.int32)
    data = np.empty(n_kept, dtype=kind)
    if entries and not facts[0]:
        kernels.gather_block(*arrays, indices, data)
    return Block(lengths, totals, indices, data, sums, filled, *(int(fact) for fact in facts), float(largest[0]))


def _kind_of(n_bad: int, fraction: int, largest: float, wide: Any) -> np.dtype:
    """The dtype that holds the values: of one byte or two where all are counts that these hold, else `wide`."""
    if n_bad or fraction >= 0 or largest > NARROW:
        return np.dtype(wide)
    return np.dtype(np.uint8 if largest <= NARROWEST else np.uint16)


def _widest(kinds: Iterable[np.dtype], wide: np.dtype) -> np.dtype:
    """The dtype that holds what all of some blocks hold; floats become `wide`."""
    return max((wide if kind.kind == "f" else kind for kind in kinds), key=lambda kind: kind.itemsize)


def reader(source: SpotSource, usable: np.ndarray, gene_map: np.ndarray, entries: bool = True) -> partial:
    """`read_block` of one source, as a function of start and stop that other processes can be handed."""
    return partial(read_block, source, usable, gene_map, entries)


def map_genes(n_columns: int, columns: np.ndarray) -> np.ndarray:
    """Position of each column among some columns, -1: not among them, (n_columns,) int32."""
    gene_map = np.full(n_columns, -1, dtype=np.int32)
    gene_map[columns] = np.arange(len(columns), dtype=np.int32)
    return gene_map


def check_blocks(source: SpotSource, ranges: list[tuple[int, int]], blocks: list[Block], demand_whole: bool) -> bool:
    """Refuse values that are no raw counts, in blocks read from disk; tells whether all values are whole.

    Raises
    ------
    DataError
        Naming the first such value; values of a matrix in memory were checked before.
    """
    where = source.where

    def place(block: int, entry: int) -> str:
        start, stop = ranges[block]
        matrix = source.read(start, stop)
        if not matrix.has_canonical_format:
            matrix.sum_duplicates()
        row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
        gene = source.var_names[matrix.indices[entry]]
        return f"{matrix.data[entry]:.6g} at spot {str(source.obs_names[start + row])!r}, gene {str(gene)!r}"

    n_bad, n_negative = sum(block.n_bad for block in blocks), sum(block.n_negative for block in blocks)
    if n_bad:
        at = next(i for i, block in enumerate(blocks) if block.bad >= 0)
        others = f" and {n_bad - 1:,} more such values" if n_bad > 1 else ""
        remedy = "not scaled expression" if n_negative else "without missing or infinite values"
        raise DataError(
            f"{where} must be finite and >= 0; got {place(at, blocks[at].bad)}{others}. Pass raw counts, {remedy}."
        )
    largest = max(block.largest for block in blocks)
    if largest > MOST_COUNTS:
        raise DataError(f"{where} must hold raw counts up to {MOST_COUNTS:g}; got {largest:g}. Pass raw counts.")
    if not any(block.filled.any() for block in blocks):
        raise DataError(f"{where} must hold counts; got no count in any of {source.shape[0]:,} spots.")
    broken = next((i for i, block in enumerate(blocks) if block.fraction >= 0), None)
    if broken is not None and demand_whole:
        raise DataError(
            f"{where} must hold raw counts, whole numbers; got {place(broken, blocks[broken].fraction)}. Pass raw "
            "counts; check_counts=False uses the values as they are, without tuning."
        )
    return broken is None


def gather_blocks(
    source: SpotSource,
    ranges: list[tuple[int, int]],
    blocks: list[Block],
    usable: np.ndarray,
    gene_map: np.ndarray,
    dtype: np.dtype,
    workers: Workers,
) -> Counts:
    """Counts of the rows that have any, from a source that can be read again at no cost: nothing is held twice.

    Parameters
    ----------
    source, usable, gene_map
        As for `read_block`; the genes of the map are those kept.
    ranges : list of (start, stop)
    blocks : list of Block
        What reading them gave, without entries.
    dtype : dtype
        Working dtype.
    workers : Workers
    """
    n_genes = int(gene_map.max(initial=-1)) + 1
    kinds = (_kind_of(block.n_bad, block.fraction, block.largest, dtype) for block in blocks)
    starts = np.cumsum([0, *(int(block.lengths.sum()) for block in blocks)])
    indices = np.empty(starts[-1], dtype=np.uint16 if n_genes <= NARROW else np.int32)
    data = np.empty(starts[-1], dtype=_widest(kinds, dtype))

    def gather(number: int) -> None:
        start, stop = ranges[number]
        matrix, here = source.read(start, stop), slice(starts[number], starts[number + 1])
        arrays = (matrix.indptr, matrix.indices, matrix.data, usable[start:stop], gene_map)
        kernels.gather_block(*arrays, indices[here], data[here])

    workers.each(gather, [(number,) for number in range(len(ranges))])
    lengths = np.concatenate([block.lengths for block in blocks])
    totals = np.concatenate([block.totals for block in blocks])
    indptr = np.concatenate([[0], np.cumsum(lengths[totals > 0])]).astype(np.int64)
    return Counts(indptr, indices, data, totals[totals > 0].astype(dtype), n_genes)


def join_blocks(
    blocks: list[Block], n_genes: int, renumber: np.ndarray | None, dtype: np.dtype, workers: Workers
) -> Counts:
    """Counts of the rows that have any; empties the list of blocks as it goes, so that memory holds them once.

    Parameters
    ----------
    blocks : list of Block
        Emptied.
    n_genes : int
        Genes kept.
    renumber : (n_candidates,) int, optional
        Position among the kept genes of each gene that could have been kept.
    dtype : dtype
        Working dtype.
    workers : Workers
    """
    lengths = np.concatenate([block.lengths for block in blocks])
    totals = np.concatenate([block.totals for block in blocks])
    lengths = lengths[totals > 0]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = np.empty(indptr[-1], dtype=blocks[0].indices.dtype)
    data = np.empty(indptr[-1], dtype=_widest((block.data.dtype for block in blocks), dtype))
    if renumber is not None:
        renumber = renumber.astype(indices.dtype)
    starts = np.cumsum([0, *(len(block.data) for block in blocks)])

    def lay(number: int) -> None:
        block, here = blocks[number], slice(starts[number], starts[number + 1])
        data[here] = block.data
        if renumber is None:
            indices[here] = block.indices
        else:
            np.take(renumber, block.indices, out=indices[here], mode="clip")
        blocks[number] = None

    workers.each(lay, [(number,) for number in range(len(blocks))])
    blocks.clear()
    return Counts(indptr, indices, data, totals[totals > 0].astype(dtype), n_genes)
