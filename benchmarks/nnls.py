"""The plain yardstick: non-negative least squares on counts per 10,000 of spots and of type means."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import nnls


def cp10k(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """Counts per 10,000 of each row; rows without counts stay 0."""
    matrix = sparse.csr_matrix(matrix, dtype=np.float64)
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.diags(np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)) @ matrix


def run_nnls(spots: ad.AnnData, reference: ad.AnnData, key: str = "celltype") -> pd.DataFrame:
    """Proportions by NNLS on the shared genes, spots x types."""
    genes = spots.var_names.intersection(reference.var_names)
    labels = reference.obs[key].astype(str).to_numpy()
    counts = sparse.csr_matrix(reference[:, genes].X)
    types = np.unique(labels)
    sums = sparse.vstack([sparse.csr_matrix(counts[labels == name].sum(axis=0)) for name in types])
    profiles = cp10k(sums).toarray()
    values = np.stack([nnls(profiles.T, row.toarray().ravel())[0] for row in cp10k(spots[:, genes].X)])
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    return pd.DataFrame(values, index=spots.obs_names, columns=types)
