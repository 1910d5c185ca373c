"""Counts: pick the kept genes, sum by gene or by segment, thin by molecule."""

import math

import numpy as np

from ..compile import kernel

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
