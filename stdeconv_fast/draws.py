"""Random numbers by counting: every draw is a hash of what it is for, never of where that stands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 1 << 14  # rows that are hashed together: few enough for the cache


def mix(x: np.ndarray) -> np.ndarray:
    """Hash of 64-bit words, (n,) uint64: the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = np.array(x, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x


def keys_of(seed: int, *columns: np.ndarray) -> np.ndarray:
    """Key of each row from the bits of some float64 columns.

    Parameters
    ----------
    seed : int
    *columns : ndarray, (n,)
        Numbers that tell the rows apart (coordinates, totals); -0.0 counts as 0.0.

    Returns
    -------
    ndarray of uint64, (n,)
    """
    keys = np.empty(len(columns[0]), dtype=np.uint64)
    for start in range(0, len(keys), BLOCK):
        block = slice(start, start + BLOCK)
        key = mix(np.full(len(keys[block]), np.uint64(seed % 2**64), dtype=np.uint64) + GOLDEN)
        for column in columns:
            bits = (np.asarray(column[block], dtype=np.float64) + 0.0).view(np.uint64)
            key = mix(key ^ mix(bits + GOLDEN))
        keys[block] = key
    return keys


def order_by_key(keys: np.ndarray) -> np.ndarray:
    """Rows in the order of their keys, (n,) int64; rows with equal keys keep their order."""
    return np.argsort(keys, kind="stable")


def lowest_keys(keys: np.ndarray, most: int) -> np.ndarray:
    """The first `most` rows of `order_by_key`, (at most `most`,) int64, ascending; they cost no sorting."""
    if len(keys) <= most:
        return np.arange(len(keys))
    last = np.partition(keys, most - 1)[most - 1]
    below = np.flatnonzero(keys < last)
    return np.sort(np.concatenate([below, np.flatnonzero(keys == last)[: most - len(below)]]))


def in_key_order(keys: np.ndarray, first: int = 1024) -> Iterator[int]:
    """The rows of `order_by_key`, one after the other; all are sorted only where more than `first` are asked for."""
    rows = lowest_keys(keys, first)
    yield from rows[order_by_key(keys[rows])]
    if len(rows) < len(keys):
        yield from order_by_key(keys)[first:]
