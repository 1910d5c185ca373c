"""The original program's algorithm written plainly, with the dense solves that make it slow.

Written from formulas of what it computes; no line of it is the original's. Tables are arrays, spots and cells by genes,
labels are numbers. Everything random is handed in.
"""

from __future__ import annotations

import time

import numpy as np

DEFAULTS = {
    "phi": 0.8, "lambda_cell": 1.0, "lambda_spatial": 1.0, "lambda_ridge": 1.0, "max_cells_per_type": 1000,
    "n_iter": 5, "k_neighbors": 6,
}  # fmt: skip
SMALL = 1e-8


def normalise(counts: np.ndarray) -> np.ndarray:
    """log(1 + 10,000 x / sum), rows without counts 0."""
    totals = counts.sum(axis=1, keepdims=True).astype(float)
    return np.log1p(1e4 * counts / np.where(totals > 0, totals, 1))


def shares(values: np.ndarray) -> np.ndarray:
    """Values below 0 cut, rows divided by their sum + 1e-8."""
    values = np.clip(values, 0, None)
    return values / (values.sum(axis=-1, keepdims=True) + SMALL)


def keep_cells(labels: np.ndarray, most: int) -> np.ndarray:
    """At most so many cells of each type, type by type."""
    kept = []
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        kept.append(np.random.RandomState(0).choice(members, min(most, len(members)), replace=False))
    return np.concatenate(kept)


def attend(cells: np.ndarray, projection: np.ndarray, in_proj: np.ndarray, bias: np.ndarray, heads: int) -> np.ndarray:
    """Attention of the cells, mean over heads, float32."""
    size = len(projection)
    x = (cells @ projection.T).astype(np.float32)
    packed = x @ in_proj[: 2 * size].astype(np.float32).T + bias[: 2 * size].astype(np.float32)
    out, width = np.zeros((len(x), len(x)), np.float32), size // heads
    for head in range(heads):
        q, k = (packed[:, at + head * width : at + (head + 1) * width] for at in (0, size))
        scores = q @ k.T / np.float32(np.sqrt(width))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        out += scores / scores.sum(axis=1, keepdims=True)
    return out / np.float32(heads)


def root_laplacian(attention: np.ndarray, lambda_cell: float) -> np.ndarray:
    """sqrt(lambda_cell) U sqrt(max(values, 0)) U' of D - A, its lower triangle read alone."""
    weights = attention.copy()
    np.fill_diagonal(weights, 0)
    values, vectors = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights, UPLO="L")
    root = np.sqrt(np.clip(values, 0, None)).astype(float)
    return np.sqrt(lambda_cell) * (vectors.astype(float) * root) @ vectors.T.astype(float)


def weigh_places(coordinates: np.ndarray, k: int, index: np.ndarray | None) -> np.ndarray:
    """Gaussian weights of the k nearest spots, self among them, rows divided by their sum + 1e-8; dense."""
    n = len(coordinates)
    distances = np.sqrt(((coordinates[:, None] - coordinates) ** 2).sum(axis=2))
    if index is None:
        index = np.argsort(distances, axis=1, kind="stable")[:, :k]
    out = np.zeros((n, n))
    for i in range(n):
        d = distances[i, index[i]]
        scale = max(np.median(d[1:]), SMALL)
        out[i, index[i]] = np.exp(-(d**2) / (2 * scale**2))
        out[i, i] = 0
    return out / (out.sum(axis=1, keepdims=True) + SMALL)


def fit_types(spots, means, squares, places, phi, lambda_spatial, lambda_ridge, n_iter) -> np.ndarray:
    """The type level by the eigendecomposition of the spots' matrix."""
    n = len(spots)
    found = shares(spots @ means.T / squares)
    step = np.eye(n) - phi * places
    q = step.T @ step
    values, vectors = np.linalg.eigh(q)
    for _ in range(n_iter):
        right = spots @ means.T + lambda_spatial * np.outer(q @ np.ones(n), found.mean(axis=0))
        divisor = squares[None, :] + lambda_ridge + lambda_spatial * values[:, None]
        found = shares(vectors @ ((vectors.T @ right) / divisor))
    return found


def spread(found, cells, labels, means) -> np.ndarray:
    """Shares of the types over their cells."""
    alike = np.clip((cells * means[labels]).sum(axis=1), 0, None) + SMALL
    for k in range(len(means)):
        own = labels == k
        alike[own] = alike[own] / (alike[own].sum() + SMALL)
    weights = found[:, labels] * alike
    return weights / (weights.sum(axis=1, keepdims=True) + SMALL)


def solve_spot(weights, i, spot, cells, gram, laplacian, places, lambda_spatial, lambda_ridge) -> np.ndarray:
    """One of the 2 n_spots dense solves."""
    near = np.flatnonzero(places[i] > 0)
    w = places[i].sum()
    mean = (places[i, near] @ weights[near]) / (w + SMALL) if len(near) else np.zeros(len(cells))
    left = gram + (lambda_ridge + lambda_spatial * w + SMALL) * np.eye(len(cells))
    return shares(np.linalg.solve(left, cells @ spot + lambda_spatial * laplacian @ mean))


def run(
    reference: np.ndarray, spots: np.ndarray, coordinates: np.ndarray, labels: np.ndarray, *, layers: tuple,
    n_heads: int, noise: np.ndarray | None = None, knn_index: np.ndarray | None = None,
    genes: tuple[np.ndarray, np.ndarray] | None = None, most_solves: int | None = None, **settings,
) -> dict:  # fmt: skip
    """The whole program.

    Parameters
    ----------
    reference, spots : (n_cells or n_spots, n_all_genes)
        Raw counts.
    coordinates : (n_spots, 2)
    labels : (n_cells,) int
    layers : (projection, in_proj, bias)
    n_heads : int
    noise : (n_sweeps, n_spots, n_genes), optional
    knn_index : (n_spots, k), optional
    genes : (columns of the reference, columns of the spots), optional
        The shared genes; by default all, in the same order.
    most_solves : int, optional
        Stop after so many solves of the cell level.

    Returns
    -------
    dict
        proportions, weights, seconds (CPU seconds of this process by stage), n_solves (done), n_solves_whole.
    """
    chosen = {**DEFAULTS, **settings}
    strengths = chosen["lambda_spatial"], chosen["lambda_ridge"]
    seconds, started = {}, time.process_time()

    def done(stage: str) -> None:
        nonlocal started
        now = time.process_time()
        seconds[stage], started = now - started, now

    kept = keep_cells(labels, chosen["max_cells_per_type"])
    labels = labels[kept]
    cells, spots = normalise(reference[kept]), normalise(spots)
    if genes is not None:
        cells, spots = cells[:, genes[0]], spots[:, genes[1]]
    means = np.array([cells[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    squares = (means**2).sum(axis=1) + 1e-12
    done("tables")
    laplacian = root_laplacian(attend(cells, *layers, n_heads), chosen["lambda_cell"])
    done("attention")
    places = weigh_places(coordinates, chosen["k_neighbors"], knn_index)
    done("graph")
    found = fit_types(spots, means, squares, places, chosen["phi"], *strengths, chosen["n_iter"])
    done("types")
    gram = cells @ cells.T
    weights = spread(found, cells, labels, means)
    n_sweeps = max(1, chosen["n_iter"] // 2)
    plan = [(t, i) for t in range(n_sweeps) for i in range(len(spots))][:most_solves]
    done("spread")
    for t, i in plan:
        spot = spots[i] if noise is None else spots[i] + noise[t, i]
        weights[i] = solve_spot(weights, i, spot, cells, gram, laplacian, places, *strengths)
    done("solves")
    sums = np.array([weights[:, labels == k].sum(axis=1) for k in range(len(means))]).T
    return {
        "proportions": sums / (sums.sum(axis=1, keepdims=True) + SMALL), "weights": weights, "seconds": seconds,
        "n_solves": len(plan), "n_solves_whole": n_sweeps * len(spots), "types": found,
    }  # fmt: skip
