"""How sure the proportions are, and what the fit leaves unexplained, spot by spot and gene by gene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels.cpu import fits as kernels
from ..parallel import HEAVY, LIGHT, Workers
from ..parcels import Graph, Reference
from ..stages import reference, solve_types


@dataclass(frozen=True)
class Fit:
    """How the counts compare with what the solved abundances expect.

    Attributes
    ----------
    deviances : ndarray of float64, (n_spots,)
        Poisson deviance per count.
    observed, expected : ndarray of float64, (n_genes,)
        Counts of each kept gene over all spots, and what is expected.
    dispersion : ndarray of float64, (n_genes,)
        Mean over the spots of (y - mu)^2 / mu; about 1 under the model, however many the counts.
    """

    deviances: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    dispersion: np.ndarray


def estimate_errors(
    problem: solve_types.Problem,
    abundances: np.ndarray,
    graph: Graph,
    lambda_spatial: float,
    lambda_ridge: float,
    mrna_content: np.ndarray | None,
    workers: Workers,
) -> np.ndarray:
    """Standard errors of the proportions, (n_spots, n_types) float64; NaN where an abundance is 0.

    Parameters
    ----------
    problem : Problem
        With the Poisson likelihood.
    abundances : (n_spots, n_types) float
        v, solved.
    graph : Graph
        With the attention weights of the last pass; without smoothing any graph.
    lambda_spatial, lambda_ridge : float
        In counts.
    mrna_content : (n_types,) float64 or None
        As in `stages.aggregate.to_proportions`.

    Notes
    -----
    The inverse curvature of the objective over the types above 0, with reference, neighbours and that set of types
    held, carried over to the proportions by the delta method. What the platform leaves in the profiles, few
    reference cells and missing types are not in it.
    """
    counts = problem.counts
    kind = problem.profiles_t.dtype
    n_types = problem.profiles_t.shape[1]
    smoothed = lambda_spatial > 0
    degrees = graph.degrees.astype(kind, copy=False) if smoothed else np.zeros_like(counts.totals, dtype=kind)
    contents = np.ones(n_types) if mrna_content is None else np.asarray(mrna_content, dtype=np.float64)
    before = (
        counts.indptr, counts.indices, counts.data, problem.gene_weights, problem.profiles_t, degrees,
        workers.place(contents.astype(kind)), abundances,
    )  # fmt: skip
    errors = np.empty_like(counts.totals, dtype=np.float64, shape=(counts.n_spots, n_types))
    workers.over(
        kernels.measure_errors, counts.n_spots, before, (float(lambda_spatial), float(lambda_ridge), errors), 4 * HEAVY
    )
    return workers.fetch(errors)


def measure_fit(problem: solve_types.Problem, known: Reference, abundances: np.ndarray, workers: Workers) -> Fit:
    """Deviance of each spot and, gene by gene, observed and expected counts and their dispersion.

    Parameters
    ----------
    problem : Problem
        With the Poisson likelihood; its gene weights are not used.
    known : Reference
        The reference of the problem.
    abundances : (n_spots, n_types) float
        v, solved.
    """
    counts = problem.counts
    sums = workers.place(known.profiles.sum(axis=1).astype(problem.profiles_t.dtype))
    arrays = (counts.indptr, counts.indices, counts.data, counts.totals, problem.profiles_t, sums, abundances)
    deviances = np.empty_like(counts.totals, dtype=np.float64)
    workers.over(kernels.measure_deviance, counts.n_spots, arrays, (deviances,), LIGHT // 4)
    return Fit(workers.fetch(deviances), *reference.compare_genes(known, counts, abundances, workers))
