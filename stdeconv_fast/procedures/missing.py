"""What the reference lacks: the direction over genes that it explains worst, who is along it, an unknown type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from ..draws import lowest_keys
from ..errors import DataError
from ..parcels import Counts, Reference
from ..stages import reference
from ..thresholds import FEWEST_COUNTS
from .uncertainty import Direction, Fit, adjust

if TYPE_CHECKING:
    from .pieces import Whole as Pieces  # or anything with its methods

UNKNOWN = "unknown"
LEARNT_SPOTS = 2000  # the direction is learnt on so many spots where there are more
PROFILE_SPOTS, PROFILE_ROUNDS = 2000, 10  # spots and rounds of the fit of the unknown profile
STEPS = 20  # of Lanczos, at most
CONVERGED = 1e-5  # residual of the leading vector, as a part of its value
MODEL_ERROR = 0.1  # squared relative error of what is expected of a gene, which tells of no missing type
DEPTH_SPOTS, MOST_DEPTHS = 200, 20  # spots of like depth that share an empirical null, at least; groups at most
WORST = 0.1  # of the spots
BEST_OF_CHANCE = 1.755  # mean of the highest tenth of normal numbers, in standard deviations
NOISE = 3.0  # standard deviations that an excess is over what chance gives
SHY = 10.0  # counts added to observed and expected, so that rare genes do not lead the ranks
ALARM = 0.2  # of the counts of the worst spots unexplained: a type may be missing
FEWEST_SPOTS = 50  # with fewer spots nothing is said


def check_names(types: tuple[str, ...]) -> None:
    """Refuse a reference that has a type of the name of the unknown one."""
    if UNKNOWN in types:
        raise DataError(
            f"reference must have no type of the name {UNKNOWN!r} with unknown=True; got one. "
            f"Rename it, or pass exclude_types=[{UNKNOWN!r}]."
        )


@dataclass(frozen=True)
class Bare:
    """Counts of some spots, and what the types expect of them without platform effect.

    Attributes
    ----------
    counts : csr_matrix of float64, (n_spots, n_genes)
    amounts : ndarray of float64, (n_spots, n_types)
        Expected counts are ``amounts @ profiles``; their total is that of the spot.
    profiles : ndarray of float64, (n_types, n_genes)
    """

    counts: csr_matrix
    amounts: np.ndarray
    profiles: np.ndarray


def lay_bare(counts: Counts, known: Reference, abundances: np.ndarray) -> Bare:
    """Take the platform effect out of what is expected.

    A type that the reference lacks hides in the platform effect, which raises its genes for all types and spots. In
    the solve the gene factors cancel but for the sums of the profiles, so that the counts each type explains stay.
    """
    profiles = reference.undo_platform(known)
    amounts = abundances * (known.profiles.sum(axis=1) / profiles.sum(axis=1))
    totals = counts.totals.astype(np.float64)
    whole = amounts @ profiles.sum(axis=1)
    amounts *= np.divide(totals, whole, out=np.zeros_like(totals), where=whole > 0)[:, None]
    entries = (counts.data.astype(np.float64), counts.indices.astype(np.int32), counts.indptr)
    return Bare(csr_matrix(entries, shape=(counts.n_spots, counts.n_genes)), amounts, profiles)


def take_some(
    pieces: Pieces, known: Reference, abundances: np.ndarray, keys: np.ndarray, most: int = LEARNT_SPOTS
) -> Bare:
    """At most so many spots, drawn by their keys."""
    rows = None if pieces.n_spots <= most else lowest_keys(keys, most)
    solved = abundances if rows is None else abundances[rows]
    return lay_bare(pieces.take(rows), known, solved.astype(np.float64))


def find_direction(bare: Bare, known: Reference) -> Direction:
    """The direction over genes along which the spots differ most from what is expected.

    The leading right singular vector of (y - mu) / sqrt(n_i m_g (1 + e n m_g)), not centred, with m_g what is
    expected of gene g a count, n the median total and e `MODEL_ERROR`; the sign such that spots are in excess on the
    mean, as a type that is there and not expected adds to its genes.
    """
    amounts, profiles = bare.amounts, bare.profiles
    totals = amounts @ profiles.sum(axis=1)
    used = totals > 0
    mean = amounts.sum(axis=0) @ profiles / max(totals.sum(), 1e-300)
    depth = float(np.median(totals[used])) if used.any() else 0.0
    scale = np.divide(1.0, np.sqrt(mean * (1 + MODEL_ERROR * depth * mean)), out=np.zeros_like(mean), where=mean > 0)
    rows = np.divide(1.0, np.sqrt(totals), out=np.zeros_like(totals), where=used)
    kept = bare.counts
    weighed = scale[kept.indices]
    weighed *= kept.data  # in place: fresh memory costs more than the products
    weighed *= np.repeat(rows, np.diff(kept.indptr))
    counts = csr_matrix((weighed, kept.indices, kept.indptr), shape=kept.shape)
    turned, expected, scaled = counts.T, rows[:, None] * amounts, profiles * scale  # no copy of the indices

    def apply(x: np.ndarray) -> np.ndarray:
        along = counts @ x - expected @ (scaled @ x)
        return turned @ along - scaled.T @ (expected.T @ along)

    excess = np.asarray(counts.sum(axis=0)).ravel() - expected.sum(axis=0) @ scaled
    genes = _lead(apply, excess) * scale
    genes *= 1.0 if float((rows * (bare.counts @ genes - amounts @ (profiles @ genes))).sum()) >= 0 else -1.0
    ratio = known.profiles.sum(axis=1) / profiles.sum(axis=1)  # amounts of v_k = 1
    return Direction(genes, ratio * (profiles @ genes), ratio * (profiles @ genes**2))


def _lead(apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Leading eigenvector of a symmetric map by Lanczos steps from `start`; zeros where that is 0."""
    norm = np.linalg.norm(start)
    if not norm > 0:
        return np.zeros_like(start)
    basis, diagonal, beside = [start / norm], [], []
    for _ in range(min(STEPS, len(start))):
        fresh = apply(basis[-1])
        diagonal.append(float(fresh @ basis[-1]))
        so_far = np.array(basis)
        for _again in range(2):  # whole orthogonalisation, twice
            fresh = fresh - so_far.T @ (so_far @ fresh)
        rest = float(np.linalg.norm(fresh))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        if not rest > 1e-9 * max(map(abs, diagonal)) or rest * abs(vectors[-1, -1]) <= CONVERGED * abs(values[-1]):
            break
        beside.append(rest)
        basis.append(fresh / rest)
    return vectors[:, -1] @ np.array(basis[: len(diagonal)])


def compare_with_like(misfits: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Misfits against an empirical null of spots of like depth, and their q-values.

    Parameters
    ----------
    misfits : (n_spots,) float64
        In Poisson standard deviations; NaN where nothing can be said.
    totals : (n_spots,) float

    Returns
    -------
    scores, q_values : (n_spots,) float64

    Notes
    -----
    Centre and scale of a group are its median and median less 16th percentile, the upper half being where a missing
    type would show (Efron 2004); the scale is at least 1, that of Poisson counts. One-sided normal tails, Benjamini
    and Hochberg. Where most spots hold the missing type, the scores still rank them, but the q-values do not tell.
    """
    from scipy.special import ndtr

    scores = np.full(len(misfits), np.nan)
    asked = np.flatnonzero(np.isfinite(misfits))
    if not len(asked):
        return scores, scores.copy()
    n_groups = int(np.clip(len(asked) // DEPTH_SPOTS, 1, MOST_DEPTHS))
    edges = np.quantile(totals[asked].astype(np.float64), np.arange(1, n_groups) / n_groups)
    group = np.searchsorted(edges, totals[asked], side="right").astype(np.uint8)  # few: they are sorted by counting
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group, minlength=n_groups)
    for rows in np.split(asked[order], np.cumsum(sizes)[:-1]):
        if len(rows):
            low, centre = np.quantile(misfits[rows], [0.16, 0.5])
            scores[rows] = (misfits[rows] - centre) / max(centre - low, 1.0)
    return scores, adjust(ndtr(-scores))


def rank_genes(bare: Bare, direction: Direction) -> tuple[np.ndarray, float]:
    """Genes by what the worst tenth of the spots has beyond expectation, and the share of its counts that is.

    Returns
    -------
    scores : (n_genes,) float64
        log2 of observed over expected counts in the worst spots, the factor that the gene has in all others taken
        out of it (and so the platform effect), and what they have by having been chosen for it.
    share : float
        Of the counts of the worst spots: what is beyond expectation by more than `NOISE` standard deviations.
    """
    totals = bare.amounts @ bare.profiles.sum(axis=1)
    along = bare.counts @ direction.genes - bare.amounts @ (bare.profiles @ direction.genes)
    variance = bare.amounts @ (bare.profiles @ direction.genes**2)
    misfits = np.divide(along, np.sqrt(variance), out=np.zeros_like(along), where=variance > 0)
    scores = compare_with_like(misfits, totals)[0]
    worst = scores >= np.quantile(scores, 1 - WORST)
    inside, outside = (np.asarray(bare.counts[some].sum(axis=0)).ravel() for some in (worst, ~worst))
    hoped, elsewhere = (bare.amounts[some].sum(axis=0) @ bare.profiles for some in (worst, ~worst))
    chosen = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)[worst]
    chance = np.maximum(direction.genes, 0) * ((chosen[:, None] * bare.amounts[worst]).sum(axis=0) @ bare.profiles)
    hoped = hoped * (outside + 0.5) / (elsewhere + 0.5) + BEST_OF_CHANCE * chance
    beyond = np.maximum(inside - hoped - NOISE * np.sqrt(hoped), 0)
    return np.log2((inside + SHY) / (hoped + SHY)), float(beyond.sum() / max(inside.sum(), 1e-300))


def to_ranks(scores: np.ndarray) -> np.ndarray:
    """1 for the highest score, (n,) int64."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


@dataclass(frozen=True)
class Misfit:
    """What the reference leaves unexplained.

    Attributes
    ----------
    scores, q_values : ndarray of float64, (n_spots,)
        See `compare_with_like`.
    genes : ndarray of float64, (n_genes,)
    share : float
        See `rank_genes`.
    """

    scores: np.ndarray
    q_values: np.ndarray
    genes: np.ndarray
    share: float


def measure_fit(
    pieces: Pieces, known: Reference, abundances: np.ndarray, keys: np.ndarray
) -> tuple[Fit, Misfit]:
    """How the counts compare with what the solved abundances expect, and along which genes they do not.

    Parameters
    ----------
    pieces : Whole or Tiled
    known : Reference
        What the pieces are posed against.
    abundances : (n_spots, n_types) float
        v, solved.
    keys : (n_spots,) uint64
        Of the spots.
    """
    some = take_some(pieces, known, abundances, keys)
    direction = find_direction(some, known)
    fit = pieces.measure_fit(known, abundances, direction)
    scores, q_values = compare_with_like(fit.misfits, pieces.totals)
    return fit, Misfit(scores, q_values, *rank_genes(some, direction))


def warn_of(misfit: Misfit, genes: np.ndarray, totals: np.ndarray) -> str | None:
    """A note in plain words where a type may be missing, else None; `totals` are the counts of the spots."""
    if len(totals) < FEWEST_SPOTS or float(np.median(totals)) < FEWEST_COUNTS or misfit.share < ALARM:
        return None
    first = ", ".join(str(name) for name in genes[np.argsort(-misfit.genes, kind="stable")[:5]])
    return (
        f"In the tenth of the spots that the reference explains worst, {misfit.share:.0%} of the counts are beyond "
        f"what its types account for, most of all in {first}: a cell type may be missing from the reference. Add it, "
        f"or set unknown=True."
    )


def add_unknown(
    pieces: Pieces, profiles: reference.Profiles, known: Reference, abundances: np.ndarray, keys: np.ndarray
) -> reference.Profiles:
    """Profiles with one more type, estimated from what the reference leaves unexplained.

    It starts as the genes in excess along the direction; `PROFILE_ROUNDS` rounds of expectation-maximisation on
    Poisson counts, amounts and profile in turn, the profiles of the reference held. Its cells have the mean content.
    """
    bare = take_some(pieces, known, abundances, keys, PROFILE_SPOTS)
    direction = find_direction(bare, known)
    mean = bare.amounts.sum(axis=0) @ bare.profiles
    start = np.maximum(direction.genes, 0) * mean
    if not start.sum() > 0:
        start = mean
    kinds = np.vstack([bare.profiles / bare.profiles.sum(axis=1, keepdims=True), start / start.sum()])
    amounts = bare.amounts * bare.profiles.sum(axis=1)
    amounts = np.column_stack([amounts, 0.05 * amounts.sum(axis=1)])
    counts = bare.counts.tocsr()
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    ratio = counts.copy()
    for turn in range(2 * PROFILE_ROUNDS):
        expected = np.einsum("ek,ke->e", amounts[row], kinds[:, counts.indices])
        ratio.data = np.divide(counts.data, expected, out=np.zeros_like(expected), where=expected > 0)
        if turn % 2:
            fresh = kinds[-1] * (ratio.T @ amounts[:, -1])
            kinds[-1] = fresh / fresh.sum() if fresh.sum() > 0 else kinds[-1]
        else:
            amounts = amounts * (ratio @ kinds.T)
    means = profiles.means
    row = np.zeros(means.shape[1])
    row[known.kept_genes] = kinds[-1] * means[:, known.kept_genes].sum(axis=1).mean()
    return replace(
        profiles, means=np.vstack([means, row]), mrna_content=np.append(profiles.mrna_content, 1.0)
    )
