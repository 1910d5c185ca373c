"""The real and simulated sets that the accuracy benchmarks use: a folder each, with sc.h5ad, st.h5ad and truth.csv."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anndata as ad
import pandas as pd

WITH_TRUTH = (
    "starmap_mpfc", "starmap_visp", "merfish_hypo_a", "merfish_hypo_b", "merfish_hypo_animals", "merfish_hypo_xplat",
    "xenium_breast", "sim_breast", "retrofit_sim", "destvi_sim",
)  # fmt: skip


def find_data(folder: str | None) -> Path:
    """The data folder from an option or from STDECONV_DATA; ends the program, saying so, where there is none."""
    folder = folder or os.environ.get("STDECONV_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit(f"skipped: no data folder ({folder or 'set STDECONV_DATA or pass --data FOLDER'})")
    return Path(folder)


def load(folder: Path, name: str) -> tuple[ad.AnnData, ad.AnnData, pd.DataFrame | None]:
    """Spots, reference and truth (None where there is none) of one set."""
    truth = folder / name / "truth.csv"
    return (
        ad.read_h5ad(folder / name / "st.h5ad"),
        ad.read_h5ad(folder / name / "sc.h5ad"),
        pd.read_csv(truth, index_col=0) if truth.exists() else None,
    )


def sections_of(spots: ad.AnnData) -> pd.Series | None:
    """The sections of the spots, where the set has several."""
    return spots.obs.get("section")
