"""The reference: profiles of the types, choice of genes, platform effect, scale, dispersion, floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..built import TypeSums
from ..draws import keys_of
from ..kernels.cpu import counts as kernels
from ..kernels.cpu.fits import sum_excess
from ..parallel import LIGHT, Workers, cut
from ..parcels import Counts, Inputs, Reference
from ..thresholds import STRONG_PLATFORM, UNRELATED

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PANEL = 1500  # at most so many shared genes are a panel: all are kept
MARKER_LN_FOLD = 0.75
MARKER_SHARE = 1.25e-4
FLOOR = 0.01
GENES_PER_TYPE = 10  # a joint fit needs so many genes a type
JOINT_ROUNDS = 10
EM_STEPS, EM_TOLERANCE = 500, 1e-8
SEEN = 20  # pooled counts above which a gene tells of the platform
SPLIT_ERROR = 0.1  # standard error of the split between two types, for which the counts are told
FEWEST_SEEN = 30  # genes that tell how well a reference foretells the counts of the spots


@dataclass(frozen=True)
class Profiles:
    """Types over the shared genes, before any correction."""

    means: np.ndarray  # (n_types, n_shared) mean over cells of count / total
    gene_totals: np.ndarray  # (n_shared,) counts of the used cells
    mrna_content: np.ndarray  # (n_types,) mean total of a cell over the unweighted mean of the types
    cell_totals: np.ndarray  # (n_cells,) counts over all genes of the reference


def average_types(inputs: Inputs, workers: Workers) -> Profiles:
    """Mean profile of each type over its cells, each cell divided by its total over all genes of the reference.

    Returns
    -------
    Profiles
        Shares of a cell's counts, (n_types, n_shared).
    """
    known = inputs.type_sums or sum_types(inputs.reference, inputs.cell_types, len(inputs.types), workers)
    used, columns = inputs.cell_types >= 0, inputs.reference_genes
    sizes = np.bincount(inputs.cell_types[used], minlength=len(inputs.types))
    means = known.sums[:, columns] / sizes[:, None]
    library = np.bincount(inputs.cell_types[used], known.cell_totals[used], minlength=len(inputs.types)) / sizes
    return Profiles(means, known.gene_totals[columns], library / library.mean(), known.cell_totals)


def sum_types(matrix: csr_matrix, cell_types: np.ndarray, n_types: int, workers: Workers) -> TypeSums:
    """Sums over the cells with a type, each divided by its total, and total counts, over all genes."""
    n_cells, n_genes = matrix.shape
    cell_totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    used = cell_types >= 0
    weights = np.where(used, 1.0 / np.maximum(cell_totals, 1e-300), 0.0)
    arrays = (matrix.indptr, matrix.indices, matrix.data)
    parts = 4 if n_types * n_genes > 1_000_000 else 16
    sums = workers.sums(kernels.sum_segments, n_cells, (*arrays, weights, cell_types), (n_types, n_genes), parts)
    rows = np.flatnonzero(used)
    gene_totals = workers.sums(kernels.sum_genes, len(rows), (*arrays, rows), (n_genes,))
    return TypeSums(sums, gene_totals, cell_totals)


def choose_candidates(profiles: Profiles) -> np.ndarray:
    """Genes that `choose_genes` keeps in the usual case, told from the reference alone, (n_candidates,) int64."""
    return choose_genes(profiles, np.ones(len(profiles.gene_totals)))


def choose_genes(profiles: Profiles, spot_gene_totals: np.ndarray) -> np.ndarray:
    """Kept genes, as positions among the shared ones.

    A panel (at most 1,500 shared genes with counts in both tables) keeps all of them; of a whole transcriptome the
    union over types of genes with ln(B_k / mean of the other types) > 0.75 and B_k > 1.25e-4. Where fewer than ten
    genes a type pass, the 1,500 genes that come nearest to it are kept.
    """
    seen = np.flatnonzero((profiles.gene_totals > 0) & (spot_gene_totals > 0))
    means = profiles.means[:, seen]
    n_types = len(means)
    if n_types == 1 or len(seen) <= PANEL:
        return seen
    others = (means.sum(axis=0) - means) / (n_types - 1)
    marker = (means > np.exp(MARKER_LN_FOLD) * others) & (means > MARKER_SHARE)
    kept = marker.any(axis=0)
    if kept.sum() < GENES_PER_TYPE * n_types:
        fold = np.divide(means, others, out=np.zeros_like(means), where=(means > MARKER_SHARE) & (others > 0))
        kept[np.argsort(-np.where(marker, np.inf, fold).max(axis=0), kind="stable")[:PANEL]] = True
    return seen[kept]


def gather_cells(
    inputs: Inputs, rows: np.ndarray, kept_genes: np.ndarray, dtype: np.dtype, workers: Workers
) -> Counts:
    """Counts of the kept genes in some reference cells, in the working dtype."""
    matrix, columns = inputs.reference, inputs.reference_genes[kept_genes]
    gene_map = np.full(matrix.shape[1], -1, dtype=np.int32)
    gene_map[columns] = np.arange(len(columns), dtype=np.int32)
    arrays = (matrix.indptr, matrix.indices, matrix.data, gene_map, rows)
    lengths = np.zeros(len(rows), dtype=np.int64)
    totals = np.zeros(len(rows))
    workers.over(kernels.count_kept, len(rows), arrays, (lengths, totals))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = np.empty(indptr[-1], dtype=np.int32)
    data = np.empty(indptr[-1], dtype=dtype)
    workers.over(kernels.gather_kept, len(rows), (*arrays, indptr), (indices, data))
    return Counts(indptr, indices, data, totals.astype(dtype), len(columns))


def gene_keys(profiles: Profiles, spot_gene_totals: np.ndarray, kept_genes: np.ndarray, seed: int) -> np.ndarray:
    """Key of each kept gene from its two totals, (n_genes,) uint64."""
    return keys_of(seed, profiles.gene_totals[kept_genes], spot_gene_totals[kept_genes])


def _pool_by_em(means: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Composition w of the pooled spots by expectation maximisation on totals ~ Poisson(w B), (n_types,)."""
    sums = means.sum(axis=1)
    w = np.full(len(means), totals.sum() / max(sums.sum(), 1e-300))
    for _ in range(EM_STEPS):
        mean = w @ means
        ratio = np.divide(totals, mean, out=np.zeros_like(totals), where=mean > 0)
        fresh = w * np.divide(means @ ratio, sums, out=np.zeros_like(sums), where=sums > 0)
        moved = np.abs(fresh - w).max()
        w = fresh
        if moved <= EM_TOLERANCE * max(w.max(), 1e-300):
            break
    return w


def fit_reference(profiles: Profiles, kept_genes: np.ndarray, spot_gene_totals: np.ndarray, platform: str) -> Reference:
    """Profiles for the fit: kept genes, pooled platform effect, scale and floor.

    Parameters
    ----------
    profiles : Profiles
    kept_genes : (n_genes,) int64
    spot_gene_totals : (n_shared,) float64
    platform : {"auto", "pooled", "joint", "none"}

    Returns
    -------
    Reference
        Its `platform` says "joint" where the caller still has to fit gene effects and composition together.

    Notes
    -----
    gamma_g = ln((Y_g + 1/2) / (mu_g + 1/2)) with mu the pooled fit; its unweighted standard deviation over genes
    with more than 20 pooled counts, over ln 2, is the platform log2 sd. B is multiplied by exp(gamma) and by the one
    number that makes abundances sum to about 1, then drawn by 1 % to the mean of the types.
    """
    means = profiles.means[:, kept_genes]
    totals = spot_gene_totals[kept_genes]
    w = _pool_by_em(means, totals)
    gamma = np.log((totals + 0.5) / (w @ means + 0.5))
    seen = totals > SEEN
    log2_sd = float(gamma[seen].std() / np.log(2)) if seen.sum() > 1 else 0.0
    observed, expected = np.log(totals[seen] + 0.5), np.log((w @ means)[seen] + 0.5)
    factors = np.ones(len(kept_genes)) if platform == "none" else np.exp(gamma)
    if platform == "auto":
        strong = log2_sd >= STRONG_PLATFORM and len(kept_genes) >= GENES_PER_TYPE * len(means)
        platform = "joint" if strong else "pooled"
    return Reference(
        profiles=lay_floor(means * scaled(factors, w, means)),
        gene_factors=scaled(factors, w, means),
        gene_weights=np.ones(len(kept_genes)),
        kept_genes=kept_genes,
        mrna_content=profiles.mrna_content,
        platform_log2_sd=log2_sd,
        platform=platform,
        gene_correlation=_correlate(observed, expected),
    )


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < FEWEST_SEEN or not (a.std() > 0 and b.std() > 0):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def warn_of(known: Reference) -> str | None:
    """A note where the reference does not foretell which genes the spots have many counts of, else None.

    Notes
    -----
    Over the genes, logarithms of the pooled counts and of what the best mixture of the types expects are correlated.
    Of a reference with nothing to do with the spots the correlation is about 0 +- 1 / sqrt(genes): over 13 data sets
    whose genes were given each other's names it was -0.02 to 0.08. With their own references it was 0.38 to 1.00, the
    least on panels of markers of like counts; with those of another platform 0.7 (`benchmarks/unrelated.py`). A weak
    platform effect is no fault.
    """
    if not known.gene_correlation < UNRELATED or known.platform_log2_sd < STRONG_PLATFORM:
        return None
    correlation = round(known.gene_correlation, 2) + 0.0  # not -0.00
    return (
        f"The reference does not foretell the counts of the spots: over the genes used, observed and expected counts "
        f"correlate by {correlation:.2f} (of one tissue mostly 0.7 and more), and the platform log2 sd is "
        f"{known.platform_log2_sd:.2f}. Check that both are of the same tissue and species and that their genes are "
        f"named alike; else the proportions mean nothing."
    )


def scaled(factors: np.ndarray, w: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Gene factors times the one number that makes abundances of the pooled spots, w, sum to 1."""
    return factors * (w.sum() / max(float(w @ (means * factors).sum(axis=1)), 1e-300))


def lay_floor(profiles: np.ndarray) -> np.ndarray:
    """0.99 B + 0.01 mean_k B: one stray count of a gene that a type lacks shall not rule it out."""
    return (1 - FLOOR) * profiles + FLOOR * profiles.mean(axis=0)


def undo_platform(reference: Reference) -> np.ndarray:
    """Profiles as the reference cells have them, (n_types, n_genes): without gene factors, the floor laid anew."""
    profiles = reference.profiles
    bare = (profiles - FLOOR * profiles.mean(axis=0)) / (1 - FLOOR) / reference.gene_factors
    bare = np.maximum(bare, 0.0)  # rounding
    return lay_floor(bare / max(float(bare.sum(axis=1).mean()), 1e-300))


def follow_blocks(reference: Reference, block_totals: np.ndarray, expected: np.ndarray) -> Reference:
    """One round of the joint platform fit: B_kg *= (Y_g + 1/2) / (sum over blocks of mu_g + 1/2).

    Parameters
    ----------
    reference : Reference
    block_totals, expected : (n_genes,) float64
        Counts of each gene over the blocks, and what the fit of the blocks expects.
    """
    step = (block_totals + 0.5) / (expected + 0.5)
    return replace(reference, profiles=reference.profiles * step, gene_factors=reference.gene_factors * step)


def rescale(reference: Reference, factor: float) -> Reference:
    """Profiles and gene factors times one number."""
    return replace(
        reference, profiles=reference.profiles * factor, gene_factors=reference.gene_factors * factor
    )


def expect_genes(reference: Reference, counts: Counts, abundances: np.ndarray, workers: Workers) -> np.ndarray:
    """Expected counts of each gene over all spots, sum_i n_i sum_k v_ik B_kg, (n_genes,) float64.

    The sum over spots is taken where their arrays are.
    """
    sums = abundances[:0].astype(np.float64).sum(axis=0)
    for start, stop in cut(counts.n_spots, LIGHT):  # no copy of all spots in float64
        sums = sums + counts.totals[start:stop].astype(np.float64) @ abundances[start:stop].astype(np.float64)
    return workers.fetch(sums) @ reference.profiles


def compare_genes(
    reference: Reference, counts: Counts, abundances: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed and expected counts of each gene over all spots, and dispersion_g = mean_i (y - mu)^2 / mu.

    Zeros are counted without being visited: (y - mu)^2 / mu = y^2 / mu - 2 y + mu, and the sum of mu needs only
    the n_i-weighted sum of the abundances.
    """
    dtype = counts.dtype
    transposed = workers.place(np.ascontiguousarray(reference.profiles.T, dtype=dtype))
    arrays = (counts.indptr, counts.indices, counts.data, counts.totals, transposed, abundances)
    squares = workers.sums(sum_excess, counts.n_spots, arrays, (counts.n_genes,))
    rows = workers.place(np.arange(counts.n_spots))
    seen = workers.sums(
        kernels.sum_genes, counts.n_spots, (counts.indptr, counts.indices, counts.data, rows), (counts.n_genes,)
    )
    expected = expect_genes(reference, counts, abundances, workers)
    return seen, expected, to_dispersion(squares, seen, expected, counts.n_spots)


def to_dispersion(squares: np.ndarray, seen: np.ndarray, expected: np.ndarray, n_spots: int) -> np.ndarray:
    """mean_i (y - mu)^2 / mu of each gene from sum y^2 / mu, sum y and sum mu, (n_genes,)."""
    return (squares - 2 * seen + expected) / n_spots


def weigh_genes(reference: Reference, counts: Counts, abundances: np.ndarray, workers: Workers) -> Reference:
    """Weights 1 / sqrt(max(dispersion, 1)) from a first fit; see `compare_genes`."""
    _, _, dispersion = compare_genes(reference, counts, abundances, workers)
    return replace(reference, gene_weights=1 / np.sqrt(np.maximum(dispersion, 1.0)))


def find_alike(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """For each type the one that is hardest to tell from it, and how many counts that takes.

    Returns
    -------
    like : (n_types,) int64
        -1 where there is but one type.
    counts : (n_types,) float64
        Counts over the kept genes of a spot made of both by halves, at which the share of one has a standard error of
        0.1: 100 / I with I = sum_g (a_g - b_g)^2 / ((a_g + b_g) / 2), the Fisher information of one Poisson count
        along the exchange of one type for the other. inf where two profiles are equal.

    Notes
    -----
    The nearest type is looked for by |sqrt a - sqrt b|^2, which I lies between twice and four times of.
    """
    profiles = reference.profiles
    n = len(profiles)
    if n == 1:
        return np.array([-1]), np.array([np.nan])
    roots, sums = np.sqrt(profiles), profiles.sum(axis=1)
    apart = sums[:, None] + sums - 2 * (roots @ roots.T)
    np.fill_diagonal(apart, np.inf)
    like = apart.argmin(axis=1)
    other = profiles[like]
    both = profiles + other
    told = np.divide(2 * (profiles - other) ** 2, both, out=np.zeros_like(both), where=both > 0).sum(axis=1)
    return like, np.divide(1 / SPLIT_ERROR**2, told, out=np.full(n, np.inf), where=told > 0)
