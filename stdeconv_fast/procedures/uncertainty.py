"""How sure the proportions are, which types are there at all, and what the fit leaves unexplained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels.cpu import fits as kernels
from ..kernels.cpu.laplacian import apply_laplacian
from ..kernels.cpu.presence import weigh_presence
from ..parallel import HEAVY, Workers
from ..parcels import Graph, Reference
from ..stages import reference, solve_types

PRESENCE = HEAVY // 4  # spots a chunk
PARTS = 64  # chunks of a sum over spots, at most


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
    misfits : ndarray of float64, (n_spots,)
        Excess along the direction that the reference explains worst, in Poisson standard deviations.
    """

    deviances: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    dispersion: np.ndarray
    misfits: np.ndarray


@dataclass(frozen=True)
class Direction:
    """A direction over genes, and what the types are expected to add along it; see `kernels.measure_fits`."""

    genes: np.ndarray  # (n_genes,)
    means: np.ndarray  # (n_types,)
    variances: np.ndarray  # (n_types,)


def estimate_errors(
    problem: solve_types.Problem,
    dispersion: np.ndarray,
    abundances: np.ndarray,
    graph: Graph,
    lambda_spatial: float,
    lambda_ridge: float,
    mrna_content: np.ndarray | None,
    workers: Workers,
) -> np.ndarray:
    """Standard errors of the proportions, (n_spots, n_types) float64; where one is 0, just above it.

    Parameters
    ----------
    problem : Problem
        With the Poisson likelihood; its arrays lie where `workers` run, those of the other arguments on the host.
    dispersion : (n_genes,) float64
        (y - mu)^2 / mu of each gene; taken as 1 where it is less.
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
    held, around the scatter of the genes (sandwich), carried over to the proportions by the delta method. What the
    platform leaves in the profiles, few reference cells and missing types are in it as far as they scatter, not as
    bias.
    """
    counts = problem.counts
    kind = problem.profiles_t.dtype
    n_types = problem.profiles_t.shape[1]
    smoothed = lambda_spatial > 0
    degrees = graph.degrees.astype(kind, copy=False) if smoothed else np.zeros(counts.n_spots, dtype=kind)
    contents = np.ones(n_types) if mrna_content is None else np.asarray(mrna_content, dtype=np.float64)
    before = (
        counts.indptr, counts.indices, counts.data, problem.gene_weights, _spread(problem, dispersion, workers),
        problem.profiles_t, *workers.place((degrees, contents.astype(kind), abundances)),
    )  # fmt: skip
    errors = np.empty_like(problem.profiles_t, dtype=np.float64, shape=(counts.n_spots, n_types))
    workers.over(
        kernels.measure_errors, counts.n_spots, before, (float(lambda_spatial), float(lambda_ridge), errors), 4 * HEAVY
    )
    return workers.fetch(errors)


def _spread(problem: solve_types.Problem, dispersion: np.ndarray, workers: Workers) -> np.ndarray:
    """Variance of a gene's part of the score over its Poisson expectation, in the working dtype."""
    weights = workers.fetch(problem.gene_weights)
    spread = weights.astype(np.float64) ** 2 * np.maximum(dispersion, 1.0)
    return workers.place(spread.astype(weights.dtype))


def pull(abundances: np.ndarray, graph: Graph, lambda_spatial: float, phi: float, workers: Workers) -> np.ndarray:
    """What the neighbours draw each abundance to, lambda_s phi sum_j a_ij v_j, (n_spots, n_types) float64.

    It lies where `workers` run; `abundances` and `graph` are the host's.
    """
    if not lambda_spatial > 0:
        return workers.place(np.zeros(abundances.shape))
    wide = np.float64
    degrees = np.zeros(len(abundances))  # what is left of D - phi A is the pull, negative
    arrays = (graph.indptr, graph.indices, graph.weights.astype(wide), degrees, abundances.astype(wide))
    arrays = workers.place(arrays)
    pulls = np.empty_like(arrays[-1])
    workers.over(apply_laplacian, len(abundances), (*arrays, float(phi)), (pulls,))
    pulls *= -float(lambda_spatial)
    return pulls


def weigh_absence(
    problem: solve_types.Problem,
    dispersion: np.ndarray,
    abundances: np.ndarray,
    degrees: np.ndarray,
    pulls: np.ndarray,
    lambda_spatial: float,
    lambda_ridge: float,
    workers: Workers,
) -> np.ndarray:
    """Likelihood ratio of each type in each spot against its absence, (n_spots, n_types) float64; 0 where v is 0.

    Parameters
    ----------
    problem, dispersion, abundances, lambda_spatial, lambda_ridge
        As in `estimate_errors`.
    degrees : (n_spots,) float
        Row sums of the attention weights.
    pulls : (n_spots, n_types) float64
        See `pull`; it may lie where `workers` run.
    """
    counts = problem.counts
    degrees = degrees if lambda_spatial > 0 else np.zeros(counts.n_spots)
    before = (
        counts.indptr, counts.indices, counts.data, problem.gene_weights, _spread(problem, dispersion, workers),
        counts.totals, problem.profiles_t, problem.profile_sums,
        *workers.place((degrees.astype(counts.dtype), pulls, abundances)),
    )  # fmt: skip
    statistics = np.empty_like(problem.profiles_t, dtype=np.float64, shape=abundances.shape)
    after = (float(lambda_spatial), float(lambda_ridge), statistics)
    workers.over(weigh_presence, counts.n_spots, before, after, PRESENCE)
    return workers.fetch(statistics)


def to_q_values(statistics: np.ndarray) -> np.ndarray:
    """False discovery rates at which each type counts as present, the shape of `statistics`.

    Notes
    -----
    An abundance that is truly 0 lies on its bound: the likelihood ratio is 0 half of the time, else chi-square with
    one degree of freedom (Self and Liang 1987), so that p = P(chi2_1 > ratio) / 2, and 1 at 0. Benjamini and Hochberg
    (1995) over all spots and types.
    """
    from scipy.special import erfc

    p = np.where(statistics > 0, 0.5 * erfc(np.sqrt(np.maximum(statistics, 0) / 2)), 1.0)
    return adjust(p.ravel()).reshape(p.shape)


def adjust(p: np.ndarray) -> np.ndarray:
    """q-values of Benjamini and Hochberg, (n,); NaN where p is NaN, which no test was made for."""
    q = np.full(len(p), np.nan)
    asked = np.flatnonzero(~np.isnan(p))
    order = asked[np.argsort(-p[asked])]  # equal ones in any order: they get the same
    ranks = np.arange(len(order), 0, -1)
    q[order] = np.minimum.accumulate(np.minimum(p[order] * (len(order) / ranks), 1.0))
    return q


def measure_fit(
    problem: solve_types.Problem, known: Reference, abundances: np.ndarray, direction: Direction, workers: Workers
) -> Fit:
    """Deviance and misfit of each spot and, gene by gene, observed and expected counts and their dispersion.

    Parameters
    ----------
    problem : Problem
        With the Poisson likelihood; its gene weights are not used. Its arrays lie where `workers` run.
    known : Reference
        The reference of the problem.
    abundances : (n_spots, n_types) float
        v, solved.
    direction : Direction
        Along which the misfit is measured.
    """
    counts, sums = problem.counts, known.profiles.sum(axis=1)
    abundances, *along = workers.place((abundances, sums, direction.genes, direction.means, direction.variances))
    deviances = np.empty_like(abundances, dtype=np.float64, shape=counts.n_spots)
    misfits = np.empty_like(deviances)
    arrays = (counts.indptr, counts.indices, counts.data, counts.totals, problem.profiles_t, *along, abundances)
    squares, seen = workers.sums(
        kernels.measure_fits, counts.n_spots, arrays, (2, counts.n_genes), PARTS, (deviances, misfits)
    )
    expected = reference.expect_genes(known, counts, abundances, workers)
    dispersion = reference.to_dispersion(squares, seen, expected, counts.n_spots)
    return Fit(workers.fetch(deviances), seen, expected, dispersion, workers.fetch(misfits))
