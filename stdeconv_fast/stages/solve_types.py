"""The type level: abundances of the types in each spot."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..kernels.cpu import spots as kernels
from ..kernels.cpu.fits import score_spots
from ..parallel import HEAVY, LIGHT, Workers
from ..parcels import Counts, Graph, Reference

FIRST_STEPS = 40
WARM_STEPS = 10  # of expectation-maximisation from an even start
TOLERANCE = 1e-3  # of an abundance; abundances of a spot sum to about 1
GAUSSIAN_SWEEPS, GAUSSIAN_TOLERANCE = 5000, 1e-6  # least squares converge slowly: the Gram matrix is stiff
SCALE = 1e4  # log1p of counts per 10,000


@dataclass(frozen=True)
class Problem:
    """What the solver reads, in the working dtype.

    `products` and `gram` are there for least squares alone; `unit` is what one count weighs in that objective.
    """

    counts: Counts
    data: np.ndarray  # counts times gene weights
    gene_weights: np.ndarray  # (n_genes,)
    profiles_t: np.ndarray  # (n_genes, n_types)
    profile_sums: np.ndarray  # (n_types,) weighted sums of the profiles
    products: np.ndarray | None = None
    gram: np.ndarray | None = None
    unit: float = 1.0


def pose(counts: Counts, reference: Reference, loss: str) -> Problem:
    """The problem of one set of counts and one reference, for the Poisson likelihood or for least squares."""
    dtype = counts.data.dtype
    weights = reference.gene_weights.astype(dtype)
    data = counts.data if (weights == 1).all() else counts.data * weights[counts.indices]
    problem = Problem(
        counts, data, weights, np.ascontiguousarray(reference.profiles.T, dtype=dtype),
        (reference.profiles @ reference.gene_weights).astype(dtype),
    )  # fmt: skip
    return problem if loss == "poisson" else _pose_gaussian(problem, reference)


def _pose_gaussian(problem: Problem, reference: Reference) -> Problem:
    """Least squares on log1p of counts per 10,000, with the full Gram matrix.

    The strengths stay in counts: one count weighs the mean diagonal of the Gram matrix over the median total.
    """
    from scipy.sparse import csr_matrix

    counts = problem.counts
    dtype = counts.data.dtype
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
    return np.full((problem.counts.n_spots, n_types), 1.0 / n_types, dtype=problem.profiles_t.dtype)


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
        Whether the start is far off.
    tolerance : float
        As in `sweep`.
    """
    warm_steps = WARM_STEPS if cold else 0
    return sweep(problem, abundances, graph, 0.0, 1.0, lambda_ridge, FIRST_STEPS, workers, warm_steps, tolerance)


def sweep(
    problem: Problem,
    abundances: np.ndarray,
    graph: Graph,
    lambda_spatial: float,
    phi: float,
    lambda_ridge: float,
    steps: int,
    workers: Workers,
    warm_steps: int = 0,
    tolerance: float = TOLERANCE,
) -> int:
    """Visit every spot once, colour by colour, its neighbours held; updates `abundances` in place.

    Parameters
    ----------
    problem : Problem
    abundances : (n_spots, n_types) float, updated
    graph : Graph
        With attention weights.
    lambda_spatial, lambda_ridge : float
        In counts.
    phi : float
    steps : int
        Newton steps a visit, at most (sweeps over the types with least squares: as many as it takes).
    warm_steps : int
        Steps of expectation-maximisation before (Poisson alone).
    tolerance : float
        A spot is left when no abundance moved by more than this part of their sum (Poisson alone).

    Returns
    -------
    int
        Newton steps (or sweeps over the types) taken in all.
    """
    taken = np.zeros(problem.counts.n_spots, dtype=np.int32)
    kind = problem.profiles_t.dtype
    degrees = graph.degrees.astype(kind, copy=False)
    weights = graph.weights.astype(kind, copy=False)
    edges = (graph.indptr, graph.indices, weights, degrees)
    strengths = (lambda_spatial * problem.unit, phi, lambda_ridge * problem.unit)
    for spots in graph.colours:
        if problem.gram is None:
            counts = problem.counts
            kernel = kernels.solve_spots
            before = (
                counts.indptr, counts.indices, problem.data, counts.totals, problem.profiles_t, problem.profile_sums,
                *edges, spots,
            )  # fmt: skip
            after = (*strengths, warm_steps, steps, tolerance, abundances, taken)
        else:
            kernel = kernels.solve_spots_gaussian
            before = (problem.products, problem.gram, *edges, spots)
            after = (*strengths, GAUSSIAN_SWEEPS, GAUSSIAN_TOLERANCE, abundances, taken)
        workers.over(kernel, len(spots), before, after, HEAVY)
    return int(taken.sum())


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
    scores = np.empty(counts.n_spots)
    workers.over(score_spots, counts.n_spots, arrays, (scores,), LIGHT // 4)
    return float(scores.sum() / max(held_out.sum(dtype=np.float64), 1e-300))
