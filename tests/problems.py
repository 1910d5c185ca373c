"""Problem makers in the field's units: small tissues as dense arrays, and the CSR arrays that kernels take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from stdeconv_fast.parcels import Counts, Graph, Inputs

# name: spots, genes, types. From two spots on the last spot has no counts; the last gene has none anywhere; from
# three spots on the first spot has no neighbours.
SIZES = {
    "no spots": (0, 6, 3),
    "one spot": (1, 6, 3),
    "one type": (12, 9, 1),
    "31 types": (9, 80, 31),
    "32 types": (9, 80, 32),
    "33 types": (9, 80, 33),
    "130 spots": (130, 40, 6),
}


@dataclass(frozen=True)
class Tissue:
    """Spots, profiles and graph, dense and float64."""

    counts: np.ndarray  # (n_spots, n_genes) whole numbers
    profiles: np.ndarray  # (n_types, n_genes) B: counts per count of the spot and unit of abundance
    gene_weights: np.ndarray  # (n_genes,)
    truth: np.ndarray  # (n_spots, n_types)
    attention: np.ndarray  # (n_spots, n_spots) symmetric, no diagonal


def make_tissue(n_spots: int, n_genes: int, n_types: int, depth: float = 300.0, seed: int = 0) -> Tissue:
    """A random tissue with the awkward spots and genes of `SIZES`."""
    rng = np.random.default_rng([seed, n_spots, n_genes, n_types])
    profiles = rng.gamma(0.5, 1.0, (n_types, n_genes)) + 1e-4
    profiles = 0.99 * profiles + 0.01 * profiles.mean(axis=0)
    profiles[:, -1] = 0
    profiles /= profiles.sum(axis=1).mean()
    truth = rng.dirichlet(np.full(n_types, 0.5), n_spots)
    counts = rng.poisson(depth * truth @ profiles).astype(np.float64)
    if n_spots > 1:
        counts[-1] = 0
    return Tissue(counts, profiles, rng.uniform(0.3, 1.0, n_genes), truth, make_attention(n_spots, rng))


def make_attention(n_spots: int, rng: np.random.Generator, share: float = 0.15) -> np.ndarray:
    """A random symmetric attention matrix; the first of three or more spots has no neighbours."""
    some = np.triu(rng.random((n_spots, n_spots)) < max(share, min(1.0, 4 / max(n_spots, 1))), 1)
    if n_spots > 2:
        some[0] = False
    weights = np.where(some, rng.uniform(0.05, 0.4, some.shape), 0.0)
    return weights + weights.T


def csr_arrays(dense: np.ndarray, dtype, indptr_dtype=np.int64) -> tuple[np.ndarray, ...]:
    """(indptr, indices, data) of a dense matrix."""
    matrix = sparse.csr_matrix(dense)
    return matrix.indptr.astype(indptr_dtype), matrix.indices.astype(np.int32), matrix.data.astype(dtype)


def spot_arrays(tissue: Tissue, dtype, narrow: bool = False) -> tuple[np.ndarray, ...]:
    """(indptr, indices, data, gene_weights, totals, profiles_t, profile_sums) of `solve_spots`.

    `narrow`: counts and genes in two bytes each.
    """
    indptr, indices, data = csr_arrays(tissue.counts, np.uint16 if narrow else dtype)
    return (
        indptr, indices.astype(np.uint16) if narrow else indices, data, tissue.gene_weights.astype(dtype),
        tissue.counts.sum(axis=1).astype(dtype), np.ascontiguousarray(tissue.profiles.T, dtype=dtype),
        (tissue.profiles @ tissue.gene_weights).astype(dtype),
    )  # fmt: skip


def score_arrays(tissue: Tissue, dtype, weighted: bool = True) -> tuple[np.ndarray, ...]:
    """(indptr, indices, data, totals, profiles_t, profile_sums) of `score_spots`."""
    weights = tissue.gene_weights if weighted else np.ones_like(tissue.gene_weights)
    return (
        *csr_arrays(tissue.counts * weights, dtype), tissue.counts.sum(axis=1).astype(dtype),
        np.ascontiguousarray(tissue.profiles.T, dtype=dtype), (tissue.profiles @ weights).astype(dtype),
    )  # fmt: skip


def graph_arrays(attention: np.ndarray, dtype) -> tuple[np.ndarray, ...]:
    """(indptr, indices, weights, degrees) of a dense attention matrix."""
    return (*csr_arrays(attention, dtype), attention.sum(axis=1).astype(dtype))


def slope_left(v: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """How far a slope is from optimal over v >= 0: |slope| where v > 0, its negative part where v = 0."""
    return np.where(v > 0, np.abs(slope), np.maximum(-slope, 0))


def counts_of(dense: np.ndarray, dtype=np.float64) -> Counts:
    """A dense matrix as the parcel `Counts`."""
    return Counts(*csr_arrays(dense, dtype), dense.sum(axis=1).astype(dtype), dense.shape[1])


def dense_of(graph: Graph, values: np.ndarray) -> np.ndarray:
    """Values of the edges as a dense matrix, float64."""
    out = np.zeros((graph.n_spots, graph.n_spots))
    out[edge_rows(graph), graph.indices] = values
    return out


def edge_rows(graph: Graph) -> np.ndarray:
    """The spot that each edge starts from."""
    return np.repeat(np.arange(graph.n_spots), np.diff(graph.indptr))


def hexagonal(n_rows: int, n_columns: int) -> np.ndarray:
    """Places on a hexagonal grid, neighbours 100 micrometres apart."""
    row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return 100.0 * np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2])


def square(n_rows: int, n_columns: int) -> np.ndarray:
    """Places on a square grid, neighbours 55 micrometres apart."""
    row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return 55.0 * np.column_stack([column, row])


def inside(places: np.ndarray) -> np.ndarray:
    """Spots of a grid that are at least one and a half steps from its edge."""
    step = 1.01 * np.partition(np.linalg.norm(places - places[0], axis=1), 1)[1]
    return ((places > places.min(axis=0) + step) & (places < places.max(axis=0) - step)).all(axis=1)


def make_inputs(spots: np.ndarray, reference: np.ndarray, cell_types: np.ndarray, **changes) -> Inputs:
    """Checked inputs by hand: all genes shared, in the same order, one section, spots along a line."""
    n_spots, n_genes = spots.shape
    columns = np.arange(n_genes)
    n_types = int(cell_types.max()) + 1
    values = {
        "spots": sparse.csr_matrix(spots), "reference": sparse.csr_matrix(reference),
        "coordinates": np.column_stack([np.arange(n_spots), np.zeros(n_spots)]).astype(float),
        "sections": np.zeros(n_spots, np.int32), "section_names": ("all",), "cell_types": cell_types.astype(np.int32),
        "types": tuple(f"type{k:02d}" for k in range(n_types)), "spot_names": np.arange(n_spots).astype(object),
        "cell_names": np.arange(len(reference)).astype(object), "genes": columns.astype(object),
        "spot_genes": columns, "reference_genes": columns,
        "spot_status": np.full(n_spots, "ok", dtype=object), "integer_counts": True, **changes,
    }  # fmt: skip
    return Inputs(**values)
