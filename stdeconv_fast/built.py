"""A reference that was read, checked and summed once, to be used for many runs: arrays and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .saved import Saved

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class TypeSums:
    """Sums over the cells of the reference, all its genes.

    Attributes
    ----------
    sums : ndarray of float64, (n_types, n_reference_genes)
        Of count / total over the cells of a type, totals over all genes.
    gene_totals : ndarray of float64, (n_reference_genes,)
        Counts of the cells of all types.
    cell_totals : ndarray of float64, (n_cells,)
        Counts of each cell.
    """

    sums: np.ndarray
    gene_totals: np.ndarray
    cell_totals: np.ndarray


@dataclass(frozen=True, repr=False)
class BuiltReference(Saved):
    """A reference that was read, checked and summed once; see `stdeconv_fast.build_reference`.

    Attributes
    ----------
    types : tuple of str
        Names of the types, sorted.
    cell_types : ndarray of int32, (n_cells,)
        Type of each cell, an index into `types`; -1: no label.
    cell_names, genes : ndarray of object
    naming : tuple of str
        Of the cells and of the genes: "own" names of the caller, "numbered" 0, 1, 2, ..., or "none".
    sums : ndarray of float64, (n_types, n_genes)
        Sums over the cells of a type of count / total.
    gene_totals : ndarray of float64, (n_types, n_genes)
        Counts of the cells of a type.
    cell_totals : ndarray of float64, (n_cells,)
    counts : csr_matrix, (n_cells, n_genes), or None
        Raw counts, which the cell level needs.
    """

    types: tuple[str, ...]
    cell_types: np.ndarray
    cell_names: np.ndarray
    genes: np.ndarray
    naming: tuple[str, str]
    sums: np.ndarray
    gene_totals: np.ndarray
    cell_totals: np.ndarray
    counts: csr_matrix | None = None

    def __repr__(self) -> str:
        cells = "with" if self.counts is not None else "without"
        return (
            f"BuiltReference({len(self.types)} types, {len(self.cell_types):,} cells, {len(self.genes):,} genes; "
            f"{cells} the counts of the cells)"
        )
