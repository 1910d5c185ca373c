"""Weights of the neighbours of a spot, as in the original program."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from ...draws import mix

LEAST_SCALE = 1e-8
SMALL = 1e-8
TIE = 1e-6  # relative difference of distances that counts as a tie


def take_nearest(
    origins: np.ndarray, targets: np.ndarray, distances: np.ndarray, k: int, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest of the neighbours of each spot; of equally near ones those that a hash of both spots' keys says.

    Parameters
    ----------
    origins, targets, distances : (n_edges,)
        Edges to the k nearest spots and all that tie with the last of them; more do no harm.
    k : int
    keys : (n_spots,) uint64

    Returns
    -------
    (origins, targets, distances), by origin and distance
    """
    order = np.lexsort((distances, origins))
    origins, targets, distances = origins[order], targets[order], distances[order]
    starts = np.searchsorted(origins, origins)
    rank = np.arange(len(origins)) - starts
    lengths = np.bincount(origins, minlength=len(keys))[origins]
    limit = distances[starts + np.minimum(k, lengths) - 1]  # of the last one that may stay
    level = np.where(np.abs(distances - limit) <= TIE * limit, limit, distances)
    order = np.lexsort((mix(keys[targets] ^ mix(keys[origins])), level, origins))
    kept = order[rank < k]
    kept = kept[np.lexsort((distances[kept], origins[kept]))]
    return origins[kept], targets[kept], distances[kept]


def read_index(index: np.ndarray, coordinates: np.ndarray) -> tuple[np.ndarray, ...]:
    """Edges and scales from the lists of nearest spots that the original program made.

    Parameters
    ----------
    index : (n_spots, k) int64
        Nearest spots, nearest first, the spot itself among them.
    coordinates : (n_spots, 2 or 3) float64

    Returns
    -------
    origins, targets, distances : ndarray, (n_edges,)
    scales : ndarray of float64, (n_spots,)
    """
    n, k = index.shape
    distances = np.sqrt(((coordinates[index] - coordinates[:, None]) ** 2).sum(axis=2))
    scales = np.median(distances[:, 1:], axis=1) if k > 1 else np.zeros(n)
    origins = np.repeat(np.arange(n), k)
    other = index.ravel() != origins
    return origins[other], index.ravel()[other], distances.ravel()[other], scales


def scale_places(origins: np.ndarray, distances: np.ndarray, n_spots: int) -> np.ndarray:
    """Median distance of each spot to its neighbours, (n_spots,); 0 where there are none. Edges as `take_nearest`."""
    lengths = np.bincount(origins, minlength=n_spots)
    starts = np.cumsum(lengths) - lengths
    scales, some = np.zeros(n_spots), lengths > 0
    low, high = starts + (lengths - 1) // 2, starts + lengths // 2
    scales[some] = (distances[low[some]] + distances[high[some]]) / 2
    return scales


def weigh_places(
    origins: np.ndarray, targets: np.ndarray, distances: np.ndarray, scales: np.ndarray
) -> csr_matrix:
    """W~: exp(-d^2 / (2 s_i^2)), s_i at least 1e-8, each row divided by its sum + 1e-8; not symmetric."""
    n = len(scales)
    weights = np.exp(-0.5 * (distances / np.maximum(scales, LEAST_SCALE)[origins]) ** 2)
    weights /= np.bincount(origins, weights, minlength=n)[origins] + SMALL
    out = csr_matrix((weights, (origins, targets)), shape=(n, n))
    out.eliminate_zeros()
    out.sort_indices()
    return out
