"""The choice of lambda_spatial and phi from the counts at hand: fit four fifths of the molecules, score the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..kernels.cpu.counts import thin_counts
from ..parallel import Workers
from ..parcels import Counts, Graph, Reference, Strengths
from ..stages import attention, graph, solve_types
from .passes import settle

SHARE = 0.8  # of the molecules that are fitted
PATH = (0.0, 5.0, 20.0, 50.0, 100.0, 200.0, 400.0)  # counts
LAST = 25_600.0  # doubling ends here
PHIS = (0.8, 0.9, 0.95, 0.99)
FIXED = 20.0  # counts, without tuning
PATCHES, PATCH_SPOTS = 8, 125
LEAST_PATCHES, ENOUGH_COUNTS = 3, 1e6  # fewer where spots are deep: it is counts that tell the strengths apart
SWEEPS, SETTLED = 6, 1e-3  # of one value tried: enough to tell it from the others


def _ladder(step: int) -> float:
    """lambda of a step, in counts: those of PATH, then doubled."""
    return PATH[step] if step < len(PATH) else PATH[-1] * 2 ** (step - len(PATH) + 1)


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


def _count_patches(totals: np.ndarray) -> int:
    """Patches that hold about ENOUGH_COUNTS, at most PATCHES."""
    wanted = ENOUGH_COUNTS / (PATCH_SPOTS * max(float(totals.mean(dtype=np.float64)), 1.0))
    return int(np.clip(np.ceil(wanted), LEAST_PATCHES, PATCHES))


def choose_strengths(
    take: Callable[[np.ndarray], Counts],
    known: Reference,
    places: Graph,
    coordinates: np.ndarray,
    sections: np.ndarray,
    totals: np.ndarray,
    row_keys: np.ndarray,
    gene_keys: np.ndarray,
    *,
    loss: str,
    phi: float,
    lambda_ridge: float,
    listen: bool,
    workers: Workers,
) -> Strengths:
    """Choose lambda_spatial, then phi, by the held-out log-likelihood on at most about 1,000 spots.

    Parameters
    ----------
    take : callable
        Counts of some of the usable spots.
    known, places
        Reference and neighbour graph of the usable spots.
    coordinates, sections, totals, row_keys
        Place, section, counts and key of each spot.
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
    With phi = 1 and place alone up or down a ladder of lambda from its middle for as long as the score rises; then phi,
    from 1 down, with attention from the fitting part's abundances at the best lambda. Every value starts from the
    answer of the one before. A second climb with attention would smooth more, and too much on the shallowest data:
    attention by itself asks for more smoothing as it spares the borders.
    """
    rows = graph.choose_patches(coordinates, sections, row_keys, _count_patches(totals), PATCH_SPOTS)
    fit, test = thin(take(rows), row_keys[rows], gene_keys, workers)
    if (fit.totals <= 0).any():  # without a count to fit a spot tells nothing of the smoothing
        rows = rows[fit.totals > 0]
        fit, test = thin(take(rows), row_keys[rows], gene_keys, workers)
    if not len(rows):
        return Strengths(FIXED, phi, False)
    problem, test = workers.place((solve_types.pose(fit, known, loss), test))
    patches = workers.place(graph.cut_out(places, rows) if len(rows) < places.n_spots else places)
    links = attention.attend_by_place(patches, fit.dtype, workers)
    start = solve_types.start_evenly(problem)
    alone = workers.place(graph.no_neighbours(len(rows)))
    solve_types.solve_alone(problem, start, alone, lambda_ridge, workers)
    tried: list[dict] = []
    relax = 1.0

    def climb(first: int, state: np.ndarray, name: str) -> tuple[int, np.ndarray]:
        """The best step of the ladder with phi = 1, from step `first` on uphill, and its abundances."""
        nonlocal relax
        state = state.copy()
        best, top, found = attempt(state, _ladder(first), 1.0, name), first, state
        for direction in (1, -1):
            step, moving, relax = first, state.copy(), relax if direction > 0 else 1.0
            while step + direction >= 0 and _ladder(step + direction) <= LAST:
                step += direction
                moving = moving if step else start.copy()
                reached = attempt(moving, _ladder(step), 1.0, name)
                if not (reached > best or (direction < 0 and reached == best)):
                    break
                best, top, found = reached, step, moving.copy()
            if top > first:
                break
        return top, found

    def attempt(moving: np.ndarray, strength: float, share: float, name: str) -> float:
        nonlocal relax
        if strength:
            owed = np.full_like(moving, np.inf, shape=len(moving))
            relax = settle(
                problem, moving, links, strength, share, lambda_ridge, owed, workers, relax, SETTLED, SWEEPS
            )
        reached = solve_types.score(problem, test, (1 - SHARE) / SHARE, moving, workers)
        tried.append({"graph": name, "lambda_spatial": strength, "phi": share, "score": reached})
        return reached

    top, found = climb(PATH.index(FIXED), start, "place")
    strength, name = _ladder(top), "place"
    if strength == 0:
        return Strengths(0.0, phi, True, tried)
    if listen:
        links, name = attention.attend(patches, found, workers), "attention"
        scores = {1.0: attempt(found, strength, 1.0, name)}
    else:
        scores = {1.0: max(row["score"] for row in tried)}
    falling = False
    for share in sorted({*PHIS, phi} - {1.0}, reverse=True):
        if not falling or share == phi:
            best = max(scores.values())
            scores[share] = attempt(found.copy(), strength, share, name)
            falling = scores[share] < best
    best = max(scores.values())
    chosen = phi if scores[phi] == best else max(share for share, reached in scores.items() if reached == best)
    return Strengths(strength, chosen, True, tried)

