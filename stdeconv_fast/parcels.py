"""What the stages hand to one another: arrays and labels, nothing that computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .saved import Saved

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from scipy.sparse import csr_matrix

    from .built import TypeSums
    from .settings import Settings


class SpotSource(Protocol):
    """Raw counts of spots, all genes, that are read by blocks of rows; may be handed to other processes.

    `shape` is (n_spots, n_genes), `where` its name in messages. `cut(most_entries)` gives ranges of rows (start,
    stop) that hang on the data alone; `read(start, stop)` a csr_matrix of these rows.
    """

    shape: tuple[int, int]
    where: str
    obs_names: pd.Index
    var_names: pd.Index

    def cut(self, most_entries: int) -> list[tuple[int, int]]: ...

    def read(self, start: int, stop: int) -> csr_matrix: ...


@dataclass(frozen=True)
class Inputs:
    """Checked input of one run.

    Attributes
    ----------
    spots : csr_matrix or SpotSource, (n_spots, n_spatial_genes)
        Raw counts, all genes, in the caller's order and dtype. A source is read, and its values are checked, later.
    reference : csr_matrix, (n_cells, n_reference_genes)
        Raw counts, all genes; empty where a built reference holds no cells.
    coordinates : ndarray of float64, (n_spots, 2 or 3)
        Place of each spot, in the caller's unit.
    sections : ndarray of int32, (n_spots,)
        Section of each spot, an index into `section_names`.
    section_names : tuple of str
    cell_types : ndarray of int32, (n_cells,)
        Type of each cell, an index into `types`; -1: left out (no label, no counts, excluded type).
    types : tuple of str
        Names of the types, sorted.
    spot_names, cell_names : ndarray of object
    genes : ndarray of object, (n_shared,)
        Names of the shared genes, in the order of `spots`.
    spot_genes, reference_genes : ndarray of int64, (n_shared,)
        Columns of the shared genes in `spots` and in `reference`.
    spot_status : ndarray of object, (n_spots,)
        "ok", or why a spot is not used ("not in tissue", "no counts").
    integer_counts : bool
        Whether the spots hold whole numbers (count thinning needs them).
    notes : tuple of str
        The warnings that were given.
    type_sums : TypeSums or None
        What a built reference knows already.
    links : csr_matrix of bool or None
        (n_spots, n_spots), the neighbours that the caller gave: row i has those of spot i.
    """

    spots: csr_matrix | SpotSource
    reference: csr_matrix
    coordinates: np.ndarray
    sections: np.ndarray
    section_names: tuple[str, ...]
    cell_types: np.ndarray
    types: tuple[str, ...]
    spot_names: np.ndarray
    cell_names: np.ndarray
    genes: np.ndarray
    spot_genes: np.ndarray
    reference_genes: np.ndarray
    spot_status: np.ndarray
    integer_counts: bool
    notes: tuple[str, ...] = ()
    type_sums: TypeSums | None = None
    links: csr_matrix | None = None


@dataclass(frozen=True)
class Counts:
    """The kept genes of the usable spots, compressed by rows.

    Attributes
    ----------
    indptr : ndarray of int64, (n_spots + 1,)
    indices : ndarray of uint16 or int32, (nnz,)
        Kept gene of each entry.
    data : ndarray of uint8, uint16 or float, (nnz,)
        Counts, > 0; one byte where all are whole and below 256, two where they are below 65,536.
    totals : ndarray of float, (n_spots,)
        Counts of each spot over the kept genes, n_i, in the working dtype.
    n_genes : int
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    totals: np.ndarray
    n_genes: int

    @property
    def n_spots(self) -> int:
        return len(self.indptr) - 1

    @property
    def dtype(self) -> np.dtype:
        """The working dtype."""
        return self.totals.dtype


@dataclass(frozen=True)
class Reference:
    """What the model knows of the types.

    Attributes
    ----------
    profiles : ndarray of float64, (n_types, n_genes)
        Expected counts of a kept gene per unit of abundance and per count of the spot: B of the model, with the
        platform effect, the scale and the floor in it.
    gene_factors : ndarray of float64, (n_genes,)
        What the mean profiles were multiplied by (platform effect and scale); the cell level uses it too.
    gene_weights : ndarray of float64, (n_genes,)
        Weight of each gene's likelihood, 1 / sqrt(dispersion), at most 1.
    kept_genes : ndarray of int64, (n_genes,)
        Kept genes, as positions among the shared ones.
    mrna_content : ndarray of float64, (n_types,)
        Mean total counts of a cell of the type, relative to the unweighted mean of the types.
    platform_log2_sd : float
        Standard deviation of the log2 platform effect over genes.
    platform : str
        How the platform effect was estimated ("pooled", "joint", "none").
    gene_correlation : float
        Of the logarithms of observed and expected counts over genes, of the pooled spots; NaN where too few were seen.
    """

    profiles: np.ndarray
    gene_factors: np.ndarray
    gene_weights: np.ndarray
    kept_genes: np.ndarray
    mrna_content: np.ndarray
    platform_log2_sd: float
    platform: str
    gene_correlation: float = float("nan")


@dataclass(frozen=True)
class Graph:
    """Neighbours of the usable spots on a symmetric pattern, compressed by rows.

    Attributes
    ----------
    indptr : ndarray of int64, (n_spots + 1,)
    indices : ndarray of int32, (n_edges,)
        By the keys of the neighbours within a row, so that sums over them do not depend on the order of the spots.
    reverse : ndarray of int64, (n_edges,)
        Position of the edge j -> i for the edge i -> j.
    place : ndarray of float64, (n_edges,)
        Spatial factor exp(-d^2 / (2 s_i^2)) of the edge divided by the sum of row i; 0 where j is no neighbour
        of i (but i is one of j).
    weights : ndarray of float, (n_edges,)
        a_ij: symmetric, mean row sum 1.
    degrees : ndarray of float, (n_spots,)
        d_i: row sums of `weights`.
    colours : tuple of ndarray of int32
        Spots by colour; no two neighbours share a colour.
    """

    indptr: np.ndarray
    indices: np.ndarray
    reverse: np.ndarray
    place: np.ndarray
    weights: np.ndarray
    degrees: np.ndarray
    colours: tuple[np.ndarray, ...]

    @property
    def n_spots(self) -> int:
        return len(self.indptr) - 1


@dataclass(frozen=True, repr=False)
class Strengths:
    """The smoothing of one run.

    Attributes
    ----------
    lambda_spatial : float
        Strength of the spatial term, in counts.
    phi : float
    tuned : bool
        Whether the counts at hand chose it.
    path : list of dict
        What was tried: graph ("place", "attention"), lambda_spatial, phi, score (held-out log-likelihood a count).
    """

    lambda_spatial: float
    phi: float
    tuned: bool
    path: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        how = f"chosen from the data, {len(self.path)} tried" if self.tuned else "as set"
        return f"Strengths(lambda_spatial={self.lambda_spatial:g}, phi={self.phi:g}; {how})"


@dataclass(frozen=True)
class CellWeights:
    """Reference cells in the spots.

    Attributes
    ----------
    weights : csr_matrix of float32, (n_spots, n_cells)
        Share of each reference cell in each spot; rows sum to 1 (empty where nothing can be said).
    cells : ndarray of int64, (n_cells,)
        The cells used, as rows of the reference.
    cell_types : ndarray of int32, (n_cells,)
    """

    weights: csr_matrix
    cells: np.ndarray
    cell_types: np.ndarray


@dataclass(frozen=True, repr=False)
class Result(Saved):
    """What a run gives back.

    Attributes
    ----------
    proportions : DataFrame, (n_spots, n_types)
        Rows sum to 1; NaN where nothing can be said.
    status : Series of str, (n_spots,)
        "ok", or why a row is NaN.
    cell_weights : csr_matrix of float32 or None
        (n_spots, n_cells), where the cell level ran: shares of reference cells; rows sum to 1. Float64 with
        ``objective="original"``.
    cells : Index or None
        Names of the columns of `cell_weights`.
    cell_types : Series or None
        Type of each of `cells`.
    strengths : Strengths
    settings : Settings
    seconds : dict of str to float
        Wall time of each stage, and "total".
    diagnostics : dict
        Plain values: numbers of spots, cells and genes used, platform effect, notes given.
    genes : Index
        The genes used.
    graph : Graph or None
        The attention graph of the last pass, over the spots used (status "ok", or "no type explains the counts"). None
        with ``objective="original"``, whose weights are not symmetric.
    standard_errors : DataFrame or None
        (n_spots, n_types), of the proportions, with ``standard_errors=True``: from the curvature of the objective
        over the types above 0, the reference and the neighbours held. Where a proportion is 0, the error that it would
        have just above 0. NaN where a proportion is NaN, or the counts leave a mixture of types open. With the cell
        level too they are those of the type level.
    q_values : DataFrame or None
        (n_spots, n_types), with ``detection=True``: false discovery rate at which a type counts as present in a spot
        (likelihood ratio against its absence, neighbours held; Benjamini-Hochberg over spots and types). 1 where a
        proportion is 0. Of the type level, as the standard errors.
    fit : DataFrame or None
        (n_spots, 3) at the type level, NaN where nothing can be said; None with least squares. ``deviance``: Poisson
        deviance per count of the used genes; it falls with the counts of a spot. ``misfit``: excess of the counts
        along the gene programme that the reference explains worst, against spots of like depth (0: the usual, unit:
        their scatter); high where a type is missing. ``q_value``: of the misfit.
    gene_fit : DataFrame or None
        Genes used by ``observed`` and ``expected`` (counts over all spots), ``dispersion`` (mean over spots of
        (y - mu)^2 / mu, about 1 where the reference explains the gene), ``unexplained`` (log2 of observed over
        expected in the tenth of the spots with the highest misfit, relative to the others) and ``rank`` by it, from
        1. None with least squares.
    type_fit : DataFrame or None
        (n_types, 2): ``like``, the type that is hardest to tell from this one ("": there is but one type), and
        ``counts``, how many counts over the genes used a spot made of both needs until the share of one is known to a
        standard error of 0.1, by the profiles as fitted. None with ``objective="original"``.
    provenance : dict of str to dict of str to str
        "inputs": a fingerprint each of spots, coordinates, sections and reference, by content; "versions": of Python
        and of the packages that computed.
    """

    proportions: pd.DataFrame
    status: pd.Series
    cell_weights: csr_matrix | None
    cells: pd.Index | None
    cell_types: pd.Series | None
    strengths: Strengths
    settings: Settings
    seconds: dict[str, float]
    diagnostics: dict[str, Any]
    genes: pd.Index
    graph: Graph | None = None
    standard_errors: pd.DataFrame | None = None
    q_values: pd.DataFrame | None = None
    fit: pd.DataFrame | None = None
    gene_fit: pd.DataFrame | None = None
    type_fit: pd.DataFrame | None = None
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        told = self.diagnostics
        return (
            f"Result({told['n_spots_used']} of {told['n_spots']} spots, {told['n_types']} types, "
            f"{told['n_genes_used']} genes; {self.strengths!r}; shares of {told['abundance']}; "
            f"{self.seconds['total']:.1f} s)"
        )
