"""A small problem for read_inputs: 16 spots, 30 cells of the types A, B, C, 20 genes, all named."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse as sp

from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs import read_inputs

N_SPOTS, N_CELLS, N_GENES = 16, 30, 20
SPOTS = [f"spot-{i}" for i in range(N_SPOTS)]
CELLS = [f"cell-{i}" for i in range(N_CELLS)]
GENES = [f"Gene{i}" for i in range(N_GENES)]


def problem(**changes):
    """Keywords of read_inputs: 16 spots, 30 cells of the types A, B, C, 20 genes; `changes` replaces some."""
    rng = np.random.default_rng(0)
    spatial = pd.DataFrame(rng.poisson(3, (N_SPOTS, N_GENES)), SPOTS, GENES)
    reference = pd.DataFrame(rng.poisson(2, (N_CELLS, N_GENES)), CELLS, GENES)
    x, y = np.divmod(np.arange(N_SPOTS), 4)
    coordinates = pd.DataFrame({"x": x * 1.0, "y": y * 2.0}, index=SPOTS)
    cell_types = pd.Series(np.repeat(["A", "B", "C"], 10), index=CELLS)
    return {
        "spatial": spatial, "reference": reference, "coordinates": coordinates, "cell_types": cell_types,
        "settings": Settings(), **changes,
    }  # fmt: skip


def read(**changes):
    return read_inputs(**problem(**changes))


def same(one, other, names=True):
    """Both Inputs hold the same numbers (and names)."""
    for key in ("spots", "reference"):
        a, b = getattr(one, key), getattr(other, key)
        assert isinstance(b, sp.csr_matrix) and b.has_canonical_format
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    keys = ["coordinates", "sections", "cell_types", "spot_genes", "reference_genes", "spot_status"]
    for key in keys + (["spot_names", "cell_names", "genes"] if names else []):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key), err_msg=key)
        assert getattr(one, key).dtype == getattr(other, key).dtype
    for key in ("types", "section_names", "integer_counts"):
        assert getattr(one, key) == getattr(other, key)


def adata_of(frame, matrix=None, **obs):
    return anndata.AnnData(
        frame.to_numpy(np.float32) if matrix is None else matrix,
        obs=pd.DataFrame(obs, index=frame.index),
        var=pd.DataFrame(index=frame.columns),
    )
