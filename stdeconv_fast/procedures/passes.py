"""Attention and solve in turn, and the first fit that the reference is completed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..draws import lowest_keys
from ..parallel import Workers
from ..parcels import Graph, Reference
from ..stages import attention, graph, reference, solve_types
from ..thresholds import STRONG_PLATFORM

if TYPE_CHECKING:
    from .pieces import Whole as Pieces  # or anything with its methods

SETTLED = 4e-4  # of an abundance; abundances of a spot sum to about 1
START = 0.2  # of an abundance: the first fit is but a start
ROUGH = 3e-2  # of an abundance: where the genes are weighed by what the fit leaves
EARLY = (1.0, 3.0, 12.0, 50.0)  # of SETTLED, in a pass that one, two, three, and more others follow
FEW = 1 / 500  # of the spots: a pass that another one follows leaves so few to it
MOST_SWEEPS = 100  # in one pass
MOST_RELAXED = 1.8
MOST_GAIN = 0.9
GAUSSIAN_SHARE = 0.1  # of the limit, with least squares: their answers are open in more directions
WEIGHED_SPOTS = 20_000  # the dispersion of the genes is measured on so many spots where there are twice as many
BLOCK_COUNTS = 3000  # counts of a block in the joint fit of the platform effect
BLOCK_TOLERANCE = 1e-5  # ten rounds feed on each other: what one leaves open, the next ones move on
JOINT_SPOTS = 50_000  # the joint fit uses patches of so many spots where there are more


def fit_platform(
    pieces: Pieces, known: Reference, coordinates: np.ndarray, sections: np.ndarray, keys: np.ndarray, workers: Workers
) -> Reference:
    """Fit the platform effect jointly with the composition of blocks of neighbouring spots.

    Ten rounds of: fit the blocks without ridge or neighbours, then move each gene's profiles by the ratio of its
    counts over the blocks to what the fit expects.
    """
    rows = None
    if pieces.n_spots > JOINT_SPOTS:
        rows = graph.choose_patches(coordinates, sections, keys, JOINT_SPOTS // 500, 500)
        coordinates, sections, keys = coordinates[rows], sections[rows], keys[rows]
    counts = pieces.take(rows)
    blocks = graph.pool_blocks(counts, coordinates, sections, keys, BLOCK_COUNTS)
    alone = workers.place(graph.no_neighbours(blocks.n_spots))
    seen = np.bincount(blocks.indices, blocks.data, minlength=blocks.n_genes)
    abundances = None
    for _ in range(reference.JOINT_ROUNDS):
        problem = workers.place(solve_types.pose(blocks, known, "poisson"))
        cold = abundances is None
        abundances = solve_types.start_evenly(problem) if cold else abundances
        solve_types.solve_alone(problem, abundances, alone, 0.0, workers, cold, BLOCK_TOLERANCE)
        solved = workers.fetch(abundances)
        known = reference.follow_blocks(known, seen, reference.expect_genes(known, blocks, solved, workers))
    weights = blocks.totals.astype(np.float64) / blocks.totals.sum(dtype=np.float64)
    return reference.rescale(known, float(weights @ solved.sum(axis=1, dtype=np.float64)))


def first_fit(
    pieces: Pieces, known: Reference, loss: str, lambda_ridge: float, keys: np.ndarray, workers: Workers
) -> tuple[Reference, np.ndarray]:
    """Solve every spot alone, roughly; where the platform effect is weak, weigh the genes by what that leaves.

    Returns
    -------
    Reference
        With its gene weights; the pieces are posed against it.
    abundances : (n_spots, n_types) float
        The start of everything that looks at neighbours; to be finished alone where nothing does.
    """
    pieces.pose(known, loss)
    weighed = loss == "poisson" and known.platform_log2_sd < STRONG_PLATFORM
    sampled = weighed and pieces.n_spots > 2 * WEIGHED_SPOTS
    abundances = pieces.solve_alone(lambda_ridge, ROUGH if weighed and not sampled else START)
    if weighed:
        rows = lowest_keys(keys, WEIGHED_SPOTS) if sampled else None
        counts, solved = pieces.held(rows), abundances
        if sampled:
            solved = abundances[rows if isinstance(abundances, np.ndarray) else workers.place(rows)]
        counts, solved = workers.place((counts, solved))
        if sampled:
            problem = workers.place(solve_types.pose(counts, known, loss))
            alone = workers.place(graph.no_neighbours(len(rows)))
            solve_types.solve_alone(problem, solved, alone, lambda_ridge, workers, False, ROUGH)
        known = reference.weigh_genes(known, counts, solved, workers)
        pieces.pose(known, loss)
    return known, abundances


def settle(
    problem: solve_types.Problem,
    abundances: np.ndarray,
    links: Graph,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    owed: np.ndarray,
    workers: Workers,
    relax: float = 1.0,
    limit: float = SETTLED,
    most: int = MOST_SWEEPS,
    few: float = 0.0,
    early: float = 1.0,
) -> float:
    """Sweep over the spots until none is far from its answer; updates `abundances` and `owed` in place.

    A sweep visits the spots that owe more than `limit`. Where the sweeps gain slowly (strong smoothing), they are
    over-relaxed.

    Parameters
    ----------
    owed : (n_spots,) float, updated
        Bound on how far each spot is from its answer; inf: not known.
    relax : float
        Over-relaxation at the start, from 1 to below 2.
    limit : float
        Of an abundance.
    most : int
        Sweeps.
    few : float
        Part of the spots that may be left above the limit.
    early : float
        The limit is so many times as wide while the sweeps are not over-relaxed. Where they are, they gain slowly, and
        what is left adds up.

    Returns
    -------
    float
        The over-relaxation at the end: a start for the next time.
    """
    strengths = (lambda_spatial, phi, lambda_ridge)
    limit *= 1.0 if problem.gram is None else GAUSSIAN_SHARE
    wide = limit * early if relax == 1.0 else limit
    rest = wide * (2 - relax) ** 2  # what is left adds up over the sweeps not made: the more, the slower they gain
    last, due, changed, ranks = 0.0, owed > rest, 0, solve_types.rank(links)
    for turn in range(most):
        n_due = int(np.count_nonzero(due))
        if n_due <= few * len(due):
            break
        moves = solve_types.sweep(problem, abundances, links, *strengths, workers, due, relax)
        solve_types.owe_moves(links, ranks, moves, due, *strengths, relax, owed, workers)
        moved = float(moves.mean(dtype=np.float64))
        if turn > 1 and 2 * n_due > len(due):  # before, the spots still find their own answer; after, few are left
            gain = moved / last
            if turn > changed + 1:  # right after a change the moves tell of the change
                was, relax = relax, _relax_more(relax, gain)
                if relax > was:
                    changed, wide = turn, limit
            rest = min(rest, wide * (2 - relax) ** 2, wide * (1 - min(gain, MOST_GAIN)))
        last, due = moved, owed > rest
    return relax


def _relax_more(relax: float, gain: float) -> float:
    """A better over-relaxation from the ratio of two moves in a row, at least as strong as the present one.

    With mu the rate of Jacobi's method, (gain + w - 1)^2 = gain w^2 mu^2, and the best w is 2 / (1 + sqrt(1 - mu^2))
    (Young 1971; Hageman and Young 1981, chapter 9). A gain near w - 1 or below tells that w is strong enough.
    """
    if not relax - 1 + 0.1 < gain < 1:
        return relax
    squared = min((gain + relax - 1) ** 2 / (gain * relax * relax), 0.999)
    return max(relax, min(2 / (1 + np.sqrt(1 - squared)), MOST_RELAXED))


def alternate(
    pieces: Pieces,
    abundances: np.ndarray,
    places: Graph,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    n_iter: int,
    listen: bool,
    workers: Workers,
    tick: Callable[[], None] = lambda: None,
    limit: float = SETTLED,
) -> Graph:
    """Passes of attention and solve; updates `abundances` in place and returns the last graph.

    The first pass has place alone; each further one has attention from the abundances so far, and visits the spots
    that the fresh weights may move by more than `limit`. The passes end early when there is none. A pass that another
    one follows may leave more, `EARLY` times `limit` by how many follow, unless it is over-relaxed (`settle`).
    """
    links = attention.attend_by_place(places, abundances.dtype, workers)
    strengths = (lambda_spatial, phi, lambda_ridge)
    owed = np.full_like(abundances, np.inf, shape=places.n_spots)
    passes = n_iter if listen else 1
    relax = 1.0
    for turn in range(passes):
        if turn:
            fresh = attention.attend(places, abundances, workers)
            solve_types.owe_shift(links, fresh, abundances, *strengths, owed, workers)
            links = fresh
            if not (owed > limit).any():
                break
        last = turn == passes - 1
        few, early = (0.0, 1.0) if last else (FEW, EARLY[min(passes - turn - 1, len(EARLY)) - 1])
        relax = pieces.settle(abundances, links, *strengths, owed, relax, limit, few, early)
        tick()
    return links
