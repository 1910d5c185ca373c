"""Counts: pick the kept genes, sum by gene or by segment, thin by molecule."""

import math

import numpy as np

from ..compile import kernel

SMALL, ORDINARY = 255, 65535  # the largest counts that one byte and two bytes hold
LARGE_COUNT = 65536.0  # above it a binomial draw is made by its normal limit, not molecule by molecule


@kernel()
def sum_genes(indptr, indices, data, rows, start, stop, sums_out):
    """Sum the counts of each gene over some rows; adds to `sums_out`.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
    rows : (n_rows,) int64
        Rows to sum.
    start, stop : int
        Range of `rows`.
    sums_out : (n_genes,) float64
    """
    for r in range(start, stop):
        i = rows[r]
        for e in range(indptr[i], indptr[i + 1]):
            sums_out[indices[e]] += data[e]


@kernel()
def count_kept(indptr, indices, data, gene_map, rows, start, stop, lengths_out, totals_out):
    """Count the non-zeros and sum the counts of the kept genes of each row; overwrites both outputs.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
    gene_map : (n_genes,) int32
        Kept position of a gene, -1: not kept.
    rows : (n_rows,) int64
    start, stop : int
        Range of `rows`.
    lengths_out : (n_rows,) int64
    totals_out : (n_rows,) float64
    """
    for r in range(start, stop):
        i = rows[r]
        length = 0
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            if gene_map[indices[e]] >= 0 and data[e] > 0:
                length += 1
                total += data[e]
        lengths_out[r] = length
        totals_out[r] = total


@kernel()
def gather_kept(indptr, indices, data, gene_map, rows, kept_indptr, start, stop, kept_indices_out, kept_data_out):
    """Copy the kept genes' counts of some rows into compact arrays; overwrites both outputs.

    Parameters
    ----------
    indptr, indices, data, gene_map, rows, start, stop
        As in `count_kept`.
    kept_indptr : (n_rows + 1,) int64
        Cumulated lengths of `count_kept`.
    kept_indices_out : (n_kept,) int32
    kept_data_out : (n_kept,) float
    """
    for r in range(start, stop):
        i = rows[r]
        at = kept_indptr[r]
        for e in range(indptr[i], indptr[i + 1]):
            gene = gene_map[indices[e]]
            if gene >= 0 and data[e] > 0:
                kept_indices_out[at] = gene
                kept_data_out[at] = data[e]
                at += 1


@kernel(fastmath={"reassoc"})
def count_odd(data):
    """How many values are negative, not finite, not whole or above 65,535.

    Parameters
    ----------
    data : (n,) int or float

    Returns
    -------
    int
        0: all are counts that two bytes hold.
    """
    odd = 0
    for e in range(data.shape[0]):
        value = data[e]
        odd += (not value >= 0) | (not value <= ORDINARY) | (np.floor(value) != value)
    return odd


@kernel()
def _count_large(data):
    """How many values are above 255."""
    large = 0
    for e in range(data.shape[0]):
        large += data[e] > SMALL
    return large


@kernel()
def count_zeros(data):
    """How many stored values are 0.

    Parameters
    ----------
    data : (n,) int or float
    """
    zeros = 0
    for e in range(data.shape[0]):
        zeros += data[e] == 0
    return zeros


@kernel()
def count_disorder(indptr, indices, n_columns, start, stop):
    """How many rows have entries that are out of order or twice there, and how many of these point outside.

    Parameters
    ----------
    indptr, indices : (n_rows + 1,), (nnz,)
        Rows that lie within `indices`.
    n_columns : int
    start, stop : int
        Range of rows.

    Returns
    -------
    (int, int)
        Rows whose columns do not ascend; rows with a column below 0 or not below `n_columns`.
    """
    n_mixed, n_outside = 0, 0
    for i in range(start, stop):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        if first == last:
            continue
        falls = 0
        for e in range(first + np.uint64(1), last):
            falls += indices[e] <= indices[e - np.uint64(1)]
        lowest, highest = np.int64(indices[first]), np.int64(indices[last - np.uint64(1)])
        if falls > 0:
            n_mixed += 1
            for e in range(first, last):
                lowest, highest = min(lowest, np.int64(indices[e])), max(highest, np.int64(indices[e]))
        n_outside += (lowest < 0) | (highest >= n_columns)
    return n_mixed, n_outside


@kernel()
def _look_closely(data, facts, largest_out):
    """Find the first values that are no counts, and the largest that is one; see `sum_block`."""
    for e in range(data.shape[0]):
        value = float(data[e])
        if not 0.0 <= value < math.inf:
            facts[0] += 1
            if value < 0.0:
                facts[1] += 1
            if facts[2] < 0:
                facts[2] = e
            continue
        if facts[3] < 0 and value != np.floor(value):
            facts[3] = e
        largest_out[0] = max(largest_out[0], value)


@kernel()
def sum_block(
    indptr, indices, data, usable, gene_map, lengths_out, totals_out, filled_out, sums_out, facts, largest_out
):
    """Sum a block of rows by row and by gene, and look at every value; overwrites or updates the outputs.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_rows + 1,), (nnz,), (nnz,)
    usable : (n_rows,) bool
        The other rows are looked at alone.
    gene_map : (n_columns,) int32
        Position of a gene that may be kept, -1: none.
    lengths_out : (n_rows,) int64
        Entries of the genes that may be kept.
    totals_out : (n_rows,) float64
        Their sums.
    filled_out : (n_rows,) bool
        Rows with any count.
    sums_out : (n_columns,) float64, updated
        Over the usable rows; nothing is summed where a value is negative or not finite.
    facts : (4,) int64, updated
        Values that are negative or not finite; the negative ones; the first entry with such a value, and the first
        that is not whole (-1: none).
    largest_out : (1,) float64, updated
        The largest value, or 255 or 65,535 where none is larger and all are counts.
    """
    values = data[indptr[0] : indptr[-1]]
    if count_odd(values) > 0:
        _look_closely(values, facts, largest_out)
    else:
        largest_out[0] = max(largest_out[0], SMALL if _count_large(values) == 0 else ORDINARY)
    kept = np.empty(gene_map.shape[0])  # factors, not branches: whether a gene is kept cannot be foretold
    for gene in range(gene_map.shape[0]):
        kept[gene] = 1.0 if gene_map[gene] >= 0 else 0.0
    for i in range(indptr.shape[0] - 1):
        row = 0.0
        total = 0.0
        length = 0
        if usable[i] and facts[0] == 0:
            for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):  # see `gather_block`
                gene = np.uint32(indices[e])
                value = float(data[e])
                share = value * kept[gene]
                sums_out[gene] += value
                row += value
                total += share
                length += share > 0.0
        else:
            for e in range(indptr[i], indptr[i + 1]):
                row += float(data[e])
        lengths_out[i] = length
        totals_out[i] = total
        filled_out[i] = row > 0.0


@kernel()
def gather_block(indptr, indices, data, usable, gene_map, kept_indices_out, kept_data_out):
    """Copy the counts of the genes that may be kept into compact arrays; overwrites both outputs.

    Parameters
    ----------
    indptr, indices, data, usable, gene_map
        As in `sum_block`; values finite and >= 0.
    kept_indices_out : (n_kept,) uint16 or int32
    kept_data_out : (n_kept,) uint8, uint16 or float64
    """
    at = np.uint64(0)  # places without a sign: numba would look at each whether it is counted from the end
    room = np.uint64(kept_indices_out.shape[0])
    for i in range(indptr.shape[0] - 1):
        if usable[i]:
            for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                gene = gene_map[np.uint32(indices[e])]
                if at < room:  # written always, kept or not: whether a gene is kept cannot be foretold
                    kept_indices_out[at] = gene
                    kept_data_out[at] = data[e]
                at += np.uint64((gene >= 0) & (data[e] > 0))


@kernel()
def sum_segments(indptr, indices, data, row_weights, segments, start, stop, sums_out):
    """Sum weighted rows by segment; adds to `sums_out`.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_rows + 1,), (nnz,), (nnz,)
    row_weights : (n_rows,) float64
    segments : (n_rows,) int32
        Segment of each row, -1: none.
    start, stop : int
        Range of rows.
    sums_out : (n_segments, n_genes) float64
    """
    for i in range(start, stop):
        s = segments[i]
        if s < 0:
            continue
        weight = row_weights[i]
        for e in range(indptr[i], indptr[i + 1]):
            sums_out[s, indices[e]] += weight * data[e]


@kernel()
def _mix(x):
    """Finaliser of splitmix64: every bit of `x` moves every bit of the answer."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


@kernel()
def _uniform(key, number):
    """A number in [0, 1) from a key and a counter."""
    bits = _mix(key + (np.uint64(number) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel()
def thin_counts(indptr, indices, data, row_keys, gene_keys, share, start, stop, fit_out, test_out):
    """Split every count into a fitting part, Binomial(count, share), and the rest; overwrites both outputs.

    Each molecule is drawn by a hash of the keys of its row and gene and of its number, so that the draw depends on
    neither order nor threads. Counts above 65,536 are drawn by the normal limit of the binomial.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
        Whole numbers as floats.
    row_keys : (n_spots,) uint64
    gene_keys : (n_genes,) uint64
    share : float
        Chance of a molecule to fall to the fitting part.
    start, stop : int
        Range of spots.
    fit_out, test_out : (nnz,) float
    """
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            key = _mix(row_keys[i] ^ _mix(gene_keys[indices[e]]))
            count = data[e]
            if count > LARGE_COUNT:
                radius = math.sqrt(-2.0 * math.log(1.0 - _uniform(key, 0)))
                normal = radius * math.cos(2.0 * math.pi * _uniform(key, 1))
                kept = np.floor(count * share + normal * math.sqrt(count * share * (1.0 - share)) + 0.5)
                kept = min(max(kept, 0.0), float(count))
            else:
                kept = 0.0
                for molecule in range(int(count)):
                    if _uniform(key, molecule) < share:
                        kept += 1.0
            fit_out[e] = kept
            test_out[e] = count - kept


@kernel()
def key_rows(indptr, indices, data, gene_keys, start, stop, keys_out):
    """Key of each row from its counts, whatever the order of the genes; overwrites `keys_out`.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_rows + 1,), (nnz,), (nnz,)
    gene_keys : (n_genes,) uint64
    start, stop : int
        Range of rows.
    keys_out : (n_rows,) uint64
    """
    for i in range(start, stop):
        total = np.uint64(0)
        for e in range(indptr[i], indptr[i + 1]):
            if data[e] != 0:
                # thousandths, so that unequal non-integer values count as well
                total += _mix(gene_keys[indices[e]] ^ _mix(np.uint64(np.int64(data[e] * 1000.0))))
        keys_out[i] = _mix(total)
