"""The choice of lambda_spatial and phi from the counts at hand: fit four fifths of the molecules, score the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kernels.cpu.counts import thin_counts
from ..parallel import Workers
from ..parcels import Counts, Graph, Reference, Strengths
from ..stages import attention, graph, solve_types
from .passes import cut_out

SHARE = 0.8  # of the molecules that are fitted
PATH = (0.0, 5.0, 20.0, 50.0, 100.0, 200.0, 400.0)  # counts
LAST = 25_600.0  # doubling ends here
PHIS = (0.8, 0.9, 0.95, 0.99)
FIXED = 20.0  # counts, without tuning
PATCHES, PATCH_SPOTS = 8, 125
SWEEPS = 3


def thin(counts: Counts, row_keys: np.ndarray, gene_keys: np.ndarray, workers: Workers) -> tuple[Counts, np.ndarray]:
    """Split counts into a fitting part and a held-out part, (nnz,), on the same pattern.

    Under Poisson counts the two are independent. A molecule's lot hangs on the keys of its spot and gene and on its
    number, so neither names, order, tiles nor threads change it.
    """
    fit, test = np.empty_like(counts.data), np.empty_like(counts.data)
    arrays = (counts.indptr, counts.indices, counts.data, row_keys, gene_keys, SHARE)
    workers.over(thin_counts, counts.n_spots, arrays, (fit, test), 256)
    totals = np.bincount(np.repeat(np.arange(counts.n_spots), np.diff(counts.indptr)), fit, minlength=counts.n_spots)
    return replace(counts, data=fit, totals=totals.astype(counts.totals.dtype)), test


def choose_strengths(
    counts: Counts,
    known: Reference,
    places: Graph,
    coordinates: np.ndarray,
    sections: np.ndarray,
    row_keys: np.ndarray,
    gene_keys: np.ndarray,
    *,
    loss: str,
    phi: float,
    lambda_ridge: float,
    listen: bool,
    workers: Workers,
) -> Strengths:
    """Choose lambda_spatial, then phi, by the held-out log-likelihood on about 1,000 spots.

    Parameters
    ----------
    counts, known, places
        Counts, reference and neighbour graph of the usable spots.
    coordinates, sections, row_keys
        Place, section and key of each spot.
    gene_keys : (n_genes,) uint64
    phi : float
        Joins the values tried, and is kept where nothing beats it.
    listen : bool
        Whether the run will use attention.

    Returns
    -------
    Strengths
        Not yet multiplied by the caller's `lambda_spatial`.

    Notes
    -----
    A path of lambda with phi = 1 and place alone; attention from the fitting part's abundances at the best lambda;
    the path again on that graph, doubled while the last value wins; then phi.
    """
    rows = graph.choose_patches(coordinates, sections, row_keys, PATCHES, PATCH_SPOTS)
    fit, test = thin(graph.take_spots(counts, rows), row_keys[rows], gene_keys, workers)
    if (fit.totals <= 0).any():  # without a count to fit a spot tells nothing of the smoothing
        rows = rows[fit.totals > 0]
        fit, test = thin(graph.take_spots(counts, rows), row_keys[rows], gene_keys, workers)
    if not len(rows):
        return Strengths(FIXED, phi, False)
    problem = solve_types.pose(fit, known, loss)
    patches = cut_out(places, rows) if len(rows) < counts.n_spots else places
    links = attention.attend_by_place(patches, fit.data.dtype, workers)
    start = solve_types.start_evenly(problem)
    solve_types.solve_alone(problem, start, graph.no_neighbours(len(rows)), lambda_ridge, workers)
    tried: list[dict] = []

    def walk(lambdas: tuple[float, ...], name: str) -> tuple[float, np.ndarray]:
        """The best lambda of a path with phi = 1, warm-started, and its abundances."""
        best, found, moving = (-np.inf, 0.0), start, start.copy()
        pending = list(lambdas)
        while pending:
            strength = pending.pop(0)
            reached = attempt(moving, strength, 1.0, name)
            if reached > best[0]:
                best, found = (reached, strength), moving.copy()
                if not pending and 0 < strength < LAST:
                    pending.append(2 * strength)
        return best[1], found

    def attempt(moving: np.ndarray, strength: float, share: float, name: str) -> float:
        for _ in range(SWEEPS if strength else 0):
            solve_types.sweep(problem, moving, links, strength, share, lambda_ridge, 1, workers)
        reached = solve_types.score(problem, test, (1 - SHARE) / SHARE, moving, workers)
        tried.append({"graph": name, "lambda_spatial": strength, "phi": share, "score": reached})
        return reached

    strength, found = walk(PATH, "place")
    if listen and strength > 0:
        links = attention.attend(patches, found, workers)
        strength, found = walk(PATH, "attention")
    if strength == 0:
        return Strengths(0.0, phi, True, tried)
    name = tried[-1]["graph"]
    scores = {1.0: next(t["score"] for t in tried if (t["graph"], t["lambda_spatial"]) == (name, strength))}
    for share in sorted({*PHIS, phi} - {1.0}, reverse=True):
        scores[share] = attempt(found.copy(), strength, share, name)
    best = max(scores.values())
    chosen = phi if scores[phi] == best else max(share for share, reached in scores.items() if reached == best)
    return Strengths(strength, chosen, True, tried)

