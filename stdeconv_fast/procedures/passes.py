"""Attention and solve in turn, and the first fit that the reference is completed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..parallel import Workers
from ..parcels import Counts, Graph, Reference
from ..stages import attention, graph, reference, solve_types

PLACE_SWEEPS = 3  # sweeps over the spots with place alone; one sweep in each pass with attention
SETTLED = 1e-4  # of an abundance; abundances of a spot sum to about 1
BLOCK_COUNTS = 3000  # counts of a block in the joint fit of the platform effect
BLOCK_TOLERANCE = 1e-5  # ten rounds feed on each other: what one leaves open, the next ones move on
JOINT_SPOTS = 50_000  # the joint fit uses patches of so many spots where there are more


def fit_platform(
    counts: Counts, known: Reference, coordinates: np.ndarray, sections: np.ndarray, keys: np.ndarray, workers: Workers
) -> Reference:
    """Fit the platform effect jointly with the composition of blocks of neighbouring spots.

    Ten rounds of: fit the blocks without ridge or neighbours, then move each gene's profiles by the ratio of its
    counts over the blocks to what the fit expects.
    """
    if counts.n_spots > JOINT_SPOTS:
        rows = graph.choose_patches(coordinates, sections, keys, JOINT_SPOTS // 500, 500)
        counts, coordinates, sections, keys = (
            graph.take_spots(counts, rows), coordinates[rows], sections[rows], keys[rows],
        )  # fmt: skip
    blocks = graph.pool_blocks(counts, coordinates, sections, keys, BLOCK_COUNTS)
    alone = graph.no_neighbours(blocks.n_spots)
    seen = np.bincount(blocks.indices, blocks.data, minlength=blocks.n_genes)
    abundances = None
    for _ in range(reference.JOINT_ROUNDS):
        problem = solve_types.pose(blocks, known, "poisson")
        cold = abundances is None
        abundances = solve_types.start_evenly(problem) if cold else abundances
        solve_types.solve_alone(problem, abundances, alone, 0.0, workers, cold, BLOCK_TOLERANCE)
        known = reference.follow_blocks(known, seen, reference.expect_genes(known, blocks, abundances))
    weights = blocks.totals.astype(np.float64) / blocks.totals.sum(dtype=np.float64)
    return reference.rescale(known, float(weights @ abundances.sum(axis=1, dtype=np.float64)))


def first_fit(
    counts: Counts, known: Reference, loss: str, lambda_ridge: float, workers: Workers
) -> tuple[Reference, solve_types.Problem, np.ndarray]:
    """Solve every spot alone; where the platform effect is weak, weigh the genes by it and solve again.

    Returns
    -------
    Reference
        With its gene weights.
    Problem, abundances
        The start of everything that looks at neighbours.
    """
    alone = graph.no_neighbours(counts.n_spots)
    problem = solve_types.pose(counts, known, loss)
    abundances = solve_types.start_evenly(problem)
    solve_types.solve_alone(problem, abundances, alone, lambda_ridge, workers)
    if loss == "poisson" and known.platform_log2_sd < reference.STRONG_PLATFORM:
        known = reference.weigh_genes(known, counts, abundances, workers)
        if (known.gene_weights < 1).any():
            problem = solve_types.pose(counts, known, loss)
            solve_types.solve_alone(problem, abundances, alone, lambda_ridge, workers, cold=False)
    return known, problem, abundances


def alternate(
    problem: solve_types.Problem,
    abundances: np.ndarray,
    places: Graph,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    n_iter: int,
    listen: bool,
    workers: Workers,
    tick: Callable[[], None] = lambda: None,
    settled: float = SETTLED,
) -> Graph:
    """Passes of attention and solve; updates `abundances` in place and returns the last graph.

    The first pass has place alone, up to three sweeps over the spots; each further one has attention from the
    abundances so far and one sweep. Without `listen` all passes have place alone. What has settled ends early: the
    place sweeps when the next one would move the abundances of a spot by less than ten times `settled` in the mean
    over spots (the largest of a spot; judged by the last two sweeps), all passes when by less than `settled`.
    """
    links = attention.attend_by_place(places, abundances.dtype, workers)
    moves: list[float] = []

    def sweep() -> None:
        before = abundances.copy()
        solve_types.sweep(problem, abundances, links, lambda_spatial, phi, lambda_ridge, 1, workers)
        moves.append(float(np.abs(abundances - before).max(axis=1).mean(dtype=np.float64)))

    def still(limit: float) -> bool:
        last, moved = moves[-2:] if len(moves) > 1 else (moves[-1], moves[-1])
        return min(moved, moved * moved / max(last, 1e-300)) < limit

    while len(moves) < PLACE_SWEEPS and not (moves and still(10 * settled if n_iter > 1 else settled)):
        sweep()
    tick()
    moves.clear()
    for _ in range(n_iter - 1):
        if listen:
            links = attention.attend(places, abundances, workers)
        sweep()
        tick()
        if still(settled):
            break
    return links


def cut_out(places: Graph, rows: np.ndarray) -> Graph:
    """The part of a graph among some spots; spatial factors of each row sum to 1 again."""
    from scipy.sparse import csr_matrix

    n = places.n_spots
    edge = csr_matrix((np.arange(1, len(places.indices) + 1), places.indices, places.indptr), shape=(n, n))
    part = edge[rows][:, rows].tocsr()
    part.sort_indices()
    old = part.data - 1
    position = np.full(len(places.indices), -1, dtype=np.int64)
    position[old] = np.arange(len(old))
    indptr = part.indptr.astype(np.int64)
    place = places.place[old]
    row = np.repeat(np.arange(len(rows)), np.diff(indptr))
    sums = np.bincount(row, place, minlength=len(rows))
    place = place / np.where(sums > 0, sums, 1.0)[row]
    colour = np.full(n, -1, dtype=np.int32)
    for number, members in enumerate(places.colours):
        colour[members] = number
    colour = colour[rows]
    return replace(
        places,
        indptr=indptr,
        indices=part.indices.astype(np.int32),
        reverse=position[places.reverse[old]],
        place=place,
        colours=tuple(np.flatnonzero(colour == number).astype(np.int32) for number in np.unique(colour)),
    )
