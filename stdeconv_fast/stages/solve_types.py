"""The type level: abundances of the types in each spot."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..kernels.cpu import laplacian
from ..kernels.cpu import spots as kernels
from ..kernels.cpu.fits import score_spots
from ..kernels.cpu.least_squares import solve_spots_gaussian
from ..parallel import HEAVY, LIGHT, Workers
from ..parcels import Counts, Graph, Reference

FIRST_STEPS = 40
WARM_STEPS = 6  # of expectation-maximisation from an even start, all but the last one squared
TOLERANCE = 1e-3  # of an abundance; abundances of a spot sum to about 1
GAUSSIAN_SWEEPS, GAUSSIAN_TOLERANCE = 5000, 1e-6  # least squares converge slowly: the Gram matrix is stiff
MOST_CHUNKS = 64
SCALE = 1e4  # log1p of counts per 10,000


@dataclass(frozen=True)
class Problem:
    """What the solver reads, in the working dtype.

    `products` and `gram` are there for least squares alone; `unit` is what one count weighs in that objective.
    """

    counts: Counts
    gene_weights: np.ndarray  # (n_genes,)
    profiles_t: np.ndarray  # (n_genes, n_types)
    profile_sums: np.ndarray  # (n_types,) weighted sums of the profiles
    products: np.ndarray | None = None
    gram: np.ndarray | None = None
    unit: float = 1.0


def pose(counts: Counts, reference: Reference, loss: str) -> Problem:
    """The problem of one set of counts and one reference, for the Poisson likelihood or for least squares."""
    dtype = counts.dtype
    problem = Problem(
        counts, reference.gene_weights.astype(dtype), np.ascontiguousarray(reference.profiles.T, dtype=dtype),
        (reference.profiles @ reference.gene_weights).astype(dtype),
    )  # fmt: skip
    return problem if loss == "poisson" else _pose_gaussian(problem, reference)


def _pose_gaussian(problem: Problem, reference: Reference) -> Problem:
    """Least squares on log1p of counts per 10,000, with the full Gram matrix.

    The strengths stay in counts: one count weighs the mean diagonal of the Gram matrix over the median total.
    """
    from scipy.sparse import csr_matrix

    counts = problem.counts
    dtype = counts.dtype
    profiles = reference.profiles
    logs = np.log1p(SCALE * profiles / profiles.sum(axis=1, keepdims=True))
    rate = np.divide(SCALE, counts.totals, out=np.zeros(counts.n_spots), where=counts.totals > 0)
    data = np.log1p(counts.data * np.repeat(rate, np.diff(counts.indptr))).astype(dtype)
    matrix = csr_matrix((data, counts.indices, counts.indptr), shape=(counts.n_spots, counts.n_genes))
    gram = logs @ logs.T
    unit = float(np.trace(gram) / len(gram) / max(np.median(counts.totals), 1.0))
    products = np.ascontiguousarray(matrix @ logs.T.astype(dtype))
    return replace(problem, products=products, gram=np.ascontiguousarray(gram, dtype=dtype), unit=unit)


def start_evenly(problem: Problem) -> np.ndarray:
    """Abundances 1 / n_types in every spot, (n_spots, n_types)."""
    n_types = problem.profiles_t.shape[1]
    return np.full_like(problem.profiles_t, 1.0 / n_types, shape=(problem.counts.n_spots, n_types))


def solve_alone(
    problem: Problem,
    abundances: np.ndarray,
    graph: Graph,
    lambda_ridge: float,
    workers: Workers,
    cold: bool = True,
    tolerance: float = TOLERANCE,
) -> int:
    """Solve every spot without its neighbours; updates `abundances` in place, returns the Newton steps taken.

    Parameters
    ----------
    problem : Problem
    abundances : (n_spots, n_types) float, updated
        v; proportions are v over its row sums.
    graph : Graph
        The graph without edges (`stages.graph.no_neighbours`).
    lambda_ridge : float
        In counts.
    cold : bool
        Whether the start is far off: then expectation-maximisation comes first (Poisson alone).
    tolerance : float
        A spot is left when no abundance moved by more than this part of their sum (Poisson alone).
    """
    n = problem.counts.n_spots
    if problem.gram is not None:
        sweep(problem, abundances, graph, 0.0, 1.0, lambda_ridge, workers)
        return n
    taken = np.zeros_like(problem.profiles_t, dtype=np.int32, shape=n)
    warm_steps = WARM_STEPS if cold else 0
    after = (0.0, 1.0, lambda_ridge, warm_steps, FIRST_STEPS, tolerance, abundances, taken)
    workers.over(kernels.solve_spots, n, (*_before(problem, graph), graph.colours[0]), after, _chunk(n))
    return int(taken.sum())


def sweep(
    problem: Problem,
    abundances: np.ndarray,
    graph: Graph,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    workers: Workers,
    due: np.ndarray | None = None,
    relax: float = 1.0,
) -> np.ndarray:
    """Visit the spots once, colour by colour, their neighbours held; updates `abundances` in place.

    A visit is one Newton step (with least squares: the answer for the neighbours as they are).

    Parameters
    ----------
    problem : Problem
    abundances : (n_spots, n_types) float, updated
    graph : Graph
        With attention weights.
    lambda_spatial, lambda_ridge : float
        In counts.
    phi : float
    due : (n_spots,) bool, optional
        The spots to visit; by default all.
    relax : float
        Over-relaxation, 1 for none (Poisson alone).

    Returns
    -------
    ndarray of float, (n_spots,)
        The largest change of an abundance of each spot; 0 for those that were not visited.
    """
    moves = np.zeros_like(abundances, shape=problem.counts.n_spots)
    for colour in graph.colours:
        spots = colour if due is None else colour[due[colour]]
        if not len(spots):
            continue
        if problem.gram is None:
            strengths = (lambda_spatial, phi, lambda_ridge, relax, TOLERANCE)
            before = (*_before(problem, graph), spots)
            workers.over(kernels.visit_spots, len(spots), before, (*strengths, abundances, moves), _chunk(len(spots)))
        else:
            old = abundances[spots]
            taken = np.zeros_like(abundances, dtype=np.int32, shape=problem.counts.n_spots)
            before = (problem.products, problem.gram, *_edges(problem, graph), spots)
            after = (
                lambda_spatial * problem.unit, phi, lambda_ridge * problem.unit, GAUSSIAN_SWEEPS, GAUSSIAN_TOLERANCE,
                abundances, taken,
            )  # fmt: skip
            workers.over(solve_spots_gaussian, len(spots), before, after, HEAVY)
            moves[spots] = np.abs(abundances[spots] - old).max(axis=1)
    return moves


def _chunk(n: int) -> int:
    """Spots of a chunk: enough to be worth handing to a thread, few enough for many threads."""
    return min(max(HEAVY, n // MOST_CHUNKS), 16 * HEAVY)


def _edges(problem: Problem, graph: Graph) -> tuple[np.ndarray, ...]:
    kind = problem.profiles_t.dtype
    return graph.indptr, graph.indices, graph.weights.astype(kind, copy=False), graph.degrees.astype(kind, copy=False)


def _before(problem: Problem, graph: Graph) -> tuple[np.ndarray, ...]:
    counts = problem.counts
    return (
        counts.indptr, counts.indices, counts.data, problem.gene_weights, counts.totals, problem.profiles_t,
        problem.profile_sums, *_edges(problem, graph),
    )  # fmt: skip


def rank(graph: Graph) -> np.ndarray:
    """The turn of each spot in a sweep, (n_spots,) int32: the number of its colour."""
    ranks = np.zeros_like(graph.indptr, dtype=np.int32, shape=graph.n_spots)
    for number, colour in enumerate(graph.colours):
        ranks[colour] = number
    return ranks


def owe_moves(
    graph: Graph,
    ranks: np.ndarray,
    moves: np.ndarray,
    visited: np.ndarray,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    relax: float,
    owed: np.ndarray,
    workers: Workers,
) -> None:
    """After a sweep: bound how far each spot is from its answer; updates `owed`, (n_spots,), in place.

    Parameters
    ----------
    ranks : (n_spots,) int32
        The turn of each spot in the sweep, by `rank`.
    moves : (n_spots,) float
        What the sweep returned.
    visited : (n_spots,) bool
    """
    before = (
        graph.indptr, graph.indices, graph.weights, graph.degrees, ranks, moves, visited, lambda_spatial, phi,
        lambda_ridge, relax,
    )  # fmt: skip
    workers.over(laplacian.owe_moves, graph.n_spots, before, (owed,))


def owe_shift(
    graph: Graph,
    fresh: Graph,
    abundances: np.ndarray,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    owed: np.ndarray,
    workers: Workers,
) -> None:
    """With fresh attention weights: bound how far they move the answer of each spot; adds to `owed`, (n_spots,).

    Parameters
    ----------
    graph, fresh : Graph
        The same neighbours, the weights before and now.
    abundances : (n_spots, n_types) float
        Solved for the weights before, but for what is owed.
    """
    before = (
        graph.indptr, graph.indices, graph.weights, fresh.weights, graph.degrees, fresh.degrees, abundances,
        lambda_spatial, phi, lambda_ridge,
    )  # fmt: skip
    workers.over(laplacian.owe_shift, graph.n_spots, before, (owed,))


def score(problem: Problem, test: np.ndarray, rate: float, abundances: np.ndarray, workers: Workers) -> float:
    """Held-out log-likelihood per count of other counts of the same spots and genes, gene weights in it as in the fit.

    Parameters
    ----------
    problem : Problem
    test : (nnz,) float
        Counts held out, in the places of the problem's own.
    rate : float
        Held-out counts for each count of the fit.
    abundances : (n_spots, n_types) float
        Least squares leaves their scale open: there each row is scaled to sum to 1 first.
    """
    counts = problem.counts
    if problem.gram is not None:
        abundances = abundances / np.maximum(abundances.sum(axis=1, keepdims=True), 1e-12)
    held_out = test * problem.gene_weights[counts.indices]
    totals = counts.totals * problem.profiles_t.dtype.type(rate)
    arrays = (counts.indptr, counts.indices, held_out, totals, problem.profiles_t, problem.profile_sums, abundances)
    scores = np.empty_like(problem.profiles_t, dtype=np.float64, shape=counts.n_spots)
    workers.over(score_spots, counts.n_spots, arrays, (scores,), LIGHT // 4)
    return float(scores.sum() / max(held_out.sum(dtype=np.float64), 1e-300))
