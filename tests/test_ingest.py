"""Counts of the spots, read block by block: equal to what SciPy gives in one go."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from scipy import sparse

from stdeconv_fast.errors import DataError
from stdeconv_fast.parallel import Workers, hold_workers
from stdeconv_fast.stages import ingest as stage

DTYPES = pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.float32, np.float64])


def matrix_of(rng, n_spots=60, n_genes=25, dtype=np.float32, largest=9):
    """Counts with empty rows, empty columns, a row of all genes."""
    counts = rng.integers(1, largest + 1, (n_spots, n_genes)) * (rng.random((n_spots, n_genes)) < 0.3)
    counts[[0, 7, n_spots - 1]] = 0
    counts[20] = largest
    counts[:, 3] = 0
    return sparse.csr_matrix(counts.astype(dtype))


class Messy:
    """A source whose blocks have their genes in any order, some twice, and stored zeros."""

    def __init__(self, matrix):
        self.shape, self._matrix = matrix.shape, matrix

    def cut(self, most_entries):
        return stage.cut_rows(self._matrix.indptr, most_entries)

    def read(self, start, stop):
        rng = np.random.default_rng(start)
        parts = []
        for row in self._matrix[start:stop].toarray():
            genes = np.flatnonzero(row)
            twice = genes[row[genes] >= 2]
            halves = [*(row[genes] - np.isin(genes, twice)), *np.ones(len(twice)), 0.0]
            genes = np.array([*genes, *twice, 3])  # gene 3 has no counts
            order = rng.permutation(len(genes))
            parts.append((genes[order], np.array(halves, dtype=row.dtype)[order]))
        ends = np.concatenate([[0], np.cumsum([len(genes) for genes, _ in parts])])
        indices, data = (np.concatenate(part) for part in zip(*parts, strict=True))
        return sparse.csr_matrix((data, indices, ends), shape=(stop - start, self.shape[1]))


def read(source, most, usable, gene_map):
    return [stage.read_block(source, usable, gene_map, True, *rows) for rows in source.cut(most)]


def dense(counts):
    return sparse.csr_matrix(
        (counts.data, counts.indices.astype(np.int32), counts.indptr), shape=(counts.n_spots, counts.n_genes)
    ).toarray()


# cut


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("most", [1, 7, 30, 10**6, 2**40])
def test_rows_are_cut_by_their_entries(rng, kind, most):
    lengths = rng.integers(0, 9, 200)
    lengths[[0, 1, 50, 199]] = 0
    lengths[77] = 500  # one huge row
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(kind)
    ranges = stage.cut_rows(indptr, most)
    assert ranges[0][0] == 0 and ranges[-1][1] == 200
    assert all(one[1] == other[0] for one, other in zip(ranges, ranges[1:], strict=False))
    for start, stop in ranges:
        assert type(start) is int and type(stop) is int and stop > start
        entries = indptr[stop] - indptr[start]
        assert entries <= most or stop == start + 1
        if stop < 200:  # no row more would fit
            assert indptr[stop + 1] - indptr[start] > most
    assert stage.cut_rows(indptr, most) == ranges


def test_empty_rows_alone_are_cut_as_well():
    assert stage.cut_rows(np.zeros(6, np.int64), 10) == [(0, 5)]
    assert stage.cut_rows(np.zeros(1, np.int64), 10) == []
    assert stage.cut_rows(np.array([0, 100]), 10) == [(0, 1)]
    assert stage.cut_rows(np.array([0, 0, 100, 100, 100]), 10) == [(0, 1), (1, 2), (2, 4)]


def test_more_entries_than_fit_in_32_bits():
    indptr = np.array([0, 3 * 2**31, 3 * 2**31 + 5, 6 * 2**31])
    assert stage.cut_rows(indptr, 2**22) == [(0, 1), (1, 2), (2, 3)]


# a matrix in memory


@DTYPES
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_a_matrix_in_memory_gives_its_rows(rng, dtype, kind):
    matrix = matrix_of(rng, dtype=dtype)
    matrix.indptr, matrix.indices = matrix.indptr.astype(kind), matrix.indices.astype(kind)
    source = stage.InMemory(matrix)
    assert source.shape == (60, 25)
    for start, stop in [*source.cut(40), (0, 60), (5, 5), (59, 60)]:
        block = source.read(start, stop)
        assert block.shape == (stop - start, 25) and block.dtype == dtype and block.has_canonical_format
        np.testing.assert_array_equal(block.toarray(), matrix.toarray()[start:stop])
        assert not block.nnz or np.shares_memory(block.data, matrix.data)  # no copy


def test_a_source_can_be_handed_to_another_process(rng):
    matrix = matrix_of(rng)
    usable, gene_map = np.ones(60, bool), stage.map_genes(25, np.arange(25))
    reading = pickle.loads(pickle.dumps(stage.reader(stage.InMemory(matrix), usable, gene_map)))
    np.testing.assert_array_equal(reading(10, 30).totals, np.asarray(matrix[10:30].sum(axis=1)).ravel())


def test_positions_of_genes():
    np.testing.assert_array_equal(stage.map_genes(6, np.array([4, 0, 5])), [1, -1, -1, -1, 0, 2])
    assert stage.map_genes(6, np.zeros(0, int)).tolist() == [-1] * 6 and stage.map_genes(2, [1]).dtype == np.int32


# blocks


@DTYPES
@pytest.mark.parametrize("kind", ["in memory", "messy"])
def test_a_block(rng, dtype, kind):
    matrix = matrix_of(rng, dtype=dtype)
    columns = rng.permutation(25)[:15]
    usable = rng.random(60) < 0.7
    gene_map = stage.map_genes(25, columns)
    source = stage.InMemory(matrix) if kind == "in memory" else Messy(matrix)
    block = stage.read_block(source, usable, gene_map, True, 10, 40)
    rows = matrix.toarray()[10:40].astype(float)
    used = rows * usable[10:40, None]
    np.testing.assert_array_equal(block.lengths, (used[:, columns] > 0).sum(axis=1))
    np.testing.assert_array_equal(block.totals, used[:, columns].sum(axis=1))
    np.testing.assert_array_equal(block.sums, used.sum(axis=0))
    np.testing.assert_array_equal(block.filled, rows.any(axis=1))
    assert (block.n_bad, block.n_negative, block.bad, block.fraction) == (0, 0, -1, -1)
    assert block.indices.dtype == np.uint16 and block.data.dtype == np.uint8
    found = np.zeros((30, 15))
    found[np.repeat(np.arange(30), block.lengths), block.indices] = block.data
    np.testing.assert_array_equal(found, used[:, columns])


@pytest.mark.parametrize(
    ("value", "dtype", "kind"),
    [(255, np.float32, np.uint8), (255, np.int64, np.uint8), (256, np.float32, np.uint16), (256, np.int32, np.uint16),
     (65_535, np.float32, np.uint16), (65_536, np.float32, np.float64), (65_536, np.int32, np.float64),
     (0.5, np.float64, np.float64), (65_535, np.uint16, np.uint16)],
)  # fmt: skip
def test_counts_of_one_byte_or_two_where_all_are_whole_and_small(rng, value, dtype, kind):
    matrix = matrix_of(rng, dtype=dtype)
    matrix.data[40] = value
    every = stage.map_genes(25, np.arange(25))
    block = stage.read_block(stage.InMemory(matrix), np.ones(60, bool), every, True, 0, 60)
    assert block.data.dtype == kind
    np.testing.assert_array_equal(block.data, matrix.data)
    assert block.fraction == (40 if value == 0.5 else -1) and block.n_bad == 0


@pytest.mark.parametrize(("n_genes", "kind"), [(65_535, np.uint16), (65_536, np.int32), (0, np.uint16)])
def test_genes_of_two_bytes_where_there_are_few(n_genes, kind):
    matrix = sparse.csr_matrix(([3.0, 1.0], ([0, 1], [0, 69_999])), shape=(2, 70_000))
    gene_map = stage.map_genes(70_000, np.arange(70_000 - n_genes, 70_000))
    block = stage.read_block(stage.InMemory(matrix), np.ones(2, bool), gene_map, True, 0, 2)
    assert block.indices.dtype == kind
    np.testing.assert_array_equal(block.indices, [n_genes - 1] if n_genes else [])
    np.testing.assert_array_equal(block.totals, [0, 1.0 if n_genes else 0])


def test_bad_values_are_told_not_kept(rng):
    matrix = matrix_of(rng)
    matrix.data[[30, 50, 51]] = np.nan, -2, np.inf
    matrix.data[10] = 0.25
    every = stage.map_genes(25, np.arange(25))
    block = stage.read_block(stage.InMemory(matrix), np.zeros(60, bool), every, True, 0, 60)
    assert (block.n_bad, block.n_negative, block.bad, block.fraction) == (3, 1, 30, 10)
    assert not block.sums.any()
    start = int(np.searchsorted(matrix.indptr, 50, side="right")) - 1
    later = stage.read_block(stage.InMemory(matrix), np.ones(60, bool), stage.map_genes(25, [0]), True, start, 60)
    assert later.bad == 50 - matrix.indptr[start] and later.n_bad == 2


# what is no count


class Named(Messy):
    """A source on disk: it has a name, and names of spots and genes."""

    where = "st.h5ad's X"

    def __init__(self, matrix):
        super().__init__(matrix)
        self.obs_names = np.array([f"spot{i}" for i in range(matrix.shape[0])])
        self.var_names = np.array([f"gene{j}" for j in range(matrix.shape[1])])

    def read(self, start, stop):
        return self._matrix[start:stop].copy()


def checked(matrix, demand_whole=True, most=40):
    source = Named(matrix)
    ranges = source.cut(most)
    blocks = read(source, most, np.zeros(60, bool), stage.map_genes(25, np.arange(9)))
    return stage.check_blocks(source, ranges, blocks, demand_whole)


def at(matrix, entry):
    """Names of the spot and the gene of an entry, as a message gives them."""
    row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
    return f"at spot 'spot{row}', gene 'gene{matrix.indices[entry]}'"


def test_counts_pass(rng):
    assert checked(matrix_of(rng)) and checked(matrix_of(rng, dtype=np.uint16, largest=65_535))
    assert checked(matrix_of(rng, dtype=np.int64, largest=10**12))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({90: np.nan}, "got nan AT90. Pass raw counts, without missing or infinite values"),
     ({90: np.inf, 130: np.nan}, "got inf AT90 and 1 more such values. Pass raw counts, without"),
     ({90: np.inf, 50: -1.5}, "got -1.5 AT50 and 1 more such values. Pass raw counts, not scaled expression")],
)  # fmt: skip
@pytest.mark.parametrize("most", [1, 40, 10**6])
def test_bad_values_are_named(rng, changes, said, most):
    matrix = matrix_of(rng)
    for entry, value in changes.items():
        matrix.data[entry] = value
        said = said.replace(f"AT{entry}", at(matrix, entry))
    with pytest.raises(DataError, match=re.escape("st.h5ad's X must be finite and >= 0; " + said)):
        checked(matrix, most=most)


@pytest.mark.parametrize("most", [1, 40, 10**6])
def test_fractions_are_named_where_whole_numbers_are_needed(rng, most):
    matrix = matrix_of(rng)
    matrix.data[[77, 140]] = 0.5, 1.25
    assert not checked(matrix, demand_whole=False, most=most)
    said = f"st.h5ad's X must hold raw counts, whole numbers; got 0.5 {at(matrix, 77)}. Pass raw counts"
    with pytest.raises(DataError, match=re.escape(said)):
        checked(matrix, most=most)


def test_no_counts_and_too_many(rng):
    matrix = matrix_of(rng, dtype=np.float64)
    matrix.data[33] = 2e12
    with pytest.raises(DataError, match=re.escape("must hold raw counts up to 1e+12; got 2e+12")):
        checked(matrix)
    matrix.data[:] = 0
    with pytest.raises(DataError, match="must hold counts; got no count in any of 60 spots"):
        checked(matrix)


# joined


@DTYPES
@pytest.mark.parametrize("most", [1, 40, 10**6])
@pytest.mark.parametrize("kind", ["in memory", "messy"])
@pytest.mark.parametrize("working", [np.float32, np.float64])
def test_all_blocks_are_what_scipy_gives(rng, dtype, most, kind, working):
    matrix = matrix_of(rng, dtype=dtype)
    columns = rng.permutation(25)[:15]
    usable = rng.random(60) < 0.7
    usable[7] = True  # a row without counts
    source = stage.InMemory(matrix) if kind == "in memory" else Messy(matrix)
    blocks = read(source, most, usable, stage.map_genes(25, columns))
    whole = matrix.toarray().astype(float)
    np.testing.assert_array_equal(sum(block.sums for block in blocks), whole[usable].sum(axis=0))
    np.testing.assert_array_equal(np.concatenate([block.filled for block in blocks]), whole.any(axis=1))
    counts = stage.join_blocks(blocks, 15, None, np.dtype(working), Workers(1, None))
    assert blocks == []  # memory holds them once
    expected = whole[:, columns] * usable[:, None]
    expected = expected[expected.any(axis=1)]
    assert counts.n_genes == 15 and counts.n_spots == len(expected) < usable.sum()
    np.testing.assert_array_equal(dense(counts), expected)
    np.testing.assert_array_equal(counts.totals, expected.sum(axis=1))
    assert counts.indptr.dtype == np.int64 and counts.data.dtype == np.uint8 and counts.indices.dtype == np.uint16
    assert counts.dtype == counts.totals.dtype == working


def test_threads_change_nothing(rng):
    matrix = matrix_of(rng, 400, 25)
    source, usable = stage.InMemory(matrix), rng.random(400) < 0.9
    reading = stage.reader(source, usable, stage.map_genes(25, np.arange(25)))
    found = []
    for n_jobs in (1, 2):
        with hold_workers(n_jobs) as workers:
            blocks = workers.each(reading, source.cut(100))
            found.append(stage.join_blocks(blocks, 25, None, np.dtype(np.float32), workers))
    for one, other in zip(*(vars(counts).values() for counts in found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_genes_without_counts_are_left_out_by_new_numbers(rng):
    """15 genes might have been kept; the three that no usable spot has are not."""
    matrix = matrix_of(rng).toarray()
    matrix[:, [11, 18]] = 0
    columns = np.array([0, 3, 4, 6, 7, 9, 11, 12, 13, 15, 18, 20, 21, 22, 24])
    kept = np.setdiff1d(columns, [3, 11, 18])
    renumber = stage.map_genes(15, np.searchsorted(columns, kept))
    source = stage.InMemory(sparse.csr_matrix(matrix))
    blocks = read(source, 50, np.ones(60, bool), stage.map_genes(25, columns))
    counts = stage.join_blocks(blocks, 12, renumber, np.dtype(np.float32), Workers(1, None))
    expected = matrix[:, kept]
    np.testing.assert_array_equal(dense(counts), expected[expected.any(axis=1)])
    assert counts.indices.dtype == np.uint16 and counts.n_genes == 12


@pytest.mark.parametrize("value", [70_000, 2.5, 256])
@pytest.mark.parametrize("working", [np.float32, np.float64])
def test_one_wide_block_makes_all_of_them_wide(rng, value, working):
    matrix = matrix_of(rng, dtype=np.float64)
    matrix.data[100] = value
    source = stage.InMemory(matrix)
    blocks = read(source, 40, np.ones(60, bool), stage.map_genes(25, np.arange(25)))
    kinds = [block.data.dtype for block in blocks]
    wide = np.uint16 if value == 256 else np.float64
    assert kinds.count(wide) == 1 and kinds.count(np.uint8) == len(kinds) - 1 > 2
    ranges, every = source.cut(40), stage.map_genes(25, np.arange(25))
    usable = np.ones(60, bool)
    again = stage.gather_blocks(source, ranges, blocks, usable, every, np.dtype(working), Workers(1, None))
    counts = stage.join_blocks(blocks, 25, None, np.dtype(working), Workers(1, None))
    for each in (counts, again):
        assert each.data.dtype == (wide if value == 256 else working) and each.totals.dtype == working
        np.testing.assert_array_equal(dense(each), matrix.toarray()[matrix.toarray().any(axis=1)])


def test_no_spot_with_counts(rng):
    source = stage.InMemory(matrix_of(rng))
    blocks = read(source, 40, np.zeros(60, bool), stage.map_genes(25, np.arange(25)))
    counts = stage.join_blocks(blocks, 25, None, np.dtype(np.float32), Workers(1, None))
    assert counts.n_spots == 0 and not len(counts.data)
