"""Counts: plain NumPy on dense float64 matrices, Python integers for the hashes."""

from __future__ import annotations

import math

import numpy as np


def count_disorder(indptr, indices, n_columns):
    """Rows that do not ascend, and rows that point outside."""
    rows = [indices[a:b].astype(np.int64) for a, b in zip(indptr[:-1], indptr[1:], strict=True)]
    return sum((np.diff(row) <= 0).any() for row in rows), sum(((row < 0) | (row >= n_columns)).any() for row in rows)

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def sum_genes(counts, rows):
    """Counts of each gene over some rows."""
    return counts[rows].sum(axis=0)


def count_kept(counts, gene_map, rows):
    """Non-zeros and counts of each row over the kept genes."""
    kept = counts[rows][:, gene_map >= 0]
    return (kept > 0).sum(axis=1), kept.sum(axis=1)


def gather_kept(counts, gene_map, rows):
    """Kept genes of some rows, dense, in their kept order."""
    columns = np.flatnonzero(gene_map >= 0)
    out = np.zeros((len(rows), len(columns)))
    out[:, gene_map[columns]] = counts[rows][:, columns]
    return out


def sum_block(indptr, indices, data, usable, gene_map):
    """(lengths, totals, filled, sums, facts, largest) of a block of rows, entry by entry as float64.

    Nothing is summed where a value is negative or not finite. The largest value is 255 or 65,535 where no value is
    larger and all are counts.
    """
    n = len(indptr) - 1
    rows = np.repeat(np.arange(n), np.diff(indptr))
    values = data.astype(np.float64)
    bad = ~np.isfinite(values) | (values < 0)
    whole = bad | (np.floor(np.where(bad, 0, values)) == values)
    good = np.where(bad, 0, values)
    top = good.max(initial=0)
    counted = np.where(usable[rows] & ~bad.any(), good, 0)
    kept = (gene_map[indices.astype(int)] >= 0) & (counted > 0)
    facts = [bad.sum(), (values < 0).sum(), *(np.append(np.flatnonzero(some), -1)[0] for some in (bad, ~whole))]
    return (
        np.bincount(rows[kept], minlength=n), np.bincount(rows[kept], counted[kept], minlength=n),
        np.bincount(rows, good, minlength=n) > 0,
        np.bincount(indices.astype(int), counted, minlength=len(gene_map)), facts,
        max(top, (255 if top <= 255 else 65_535) if whole.all() and not bad.any() else 0),
    )  # fmt: skip


def gather_block(indptr, indices, data, usable, gene_map):
    """(indices, data) of the kept genes' counts above 0 in the usable rows, in the order of the block."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    genes = gene_map[indices.astype(int)]
    kept = usable[rows] & (genes >= 0) & (data > 0)
    return genes[kept], data[kept].astype(np.float64)


def sum_segments(counts, row_weights, segments, n_segments):
    """Weighted rows summed by segment; -1 is none."""
    return np.array([(counts * row_weights[:, None])[segments == s].sum(axis=0) for s in range(n_segments)])


def mix(x):
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014) on a Python integer."""
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 % WORD
    x ^= x >> 27
    x = x * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def uniform(key, number):
    """Number `number` of the stream of a key, in [0, 1) with 53 bits."""
    return (mix((key + (number + 1) * GOLDEN) % WORD) >> 11) / 2**53


def thin_counts(counts, row_keys, gene_keys, share):
    """Fitting part of each count: molecules whose number falls below `share`; the normal limit above 65,536."""
    fit = np.zeros(counts.shape)
    for i, g in zip(*np.nonzero(counts), strict=True):
        key = mix(int(row_keys[i]) ^ mix(int(gene_keys[g])))
        count = counts[i, g]
        if count > 65536:
            normal = math.sqrt(-2 * math.log(1 - uniform(key, 0))) * math.cos(2 * math.pi * uniform(key, 1))
            kept = math.floor(count * share + normal * math.sqrt(count * share * (1 - share)) + 0.5)
            fit[i, g] = min(max(kept, 0), count)
        else:
            fit[i, g] = sum(uniform(key, molecule) < share for molecule in range(int(count)))
    return fit


def key_rows(counts, gene_keys):
    """Key of each row: hash of the sum of one hash a non-zero."""
    keys = []
    for row in counts:
        total = sum(mix(int(gene_keys[g]) ^ mix(int(row[g] * 1000) % WORD)) for g in np.flatnonzero(row))
        keys.append(mix(total % WORD))
    return np.array(keys, dtype=np.uint64)
