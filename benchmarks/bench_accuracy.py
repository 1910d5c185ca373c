"""asv: accuracy, tracked beside speed. The real sets are taken from STDECONV_DATA and left out without it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from benchmarks.sets import WITH_TRUTH


class RealSets:
    """Pearson correlation over all spots and types, defaults only."""

    params = list(WITH_TRUTH)
    param_names = ["set"]
    timeout = 300

    def setup(self, name):
        folder = os.environ.get("STDECONV_DATA")
        if not folder or not (Path(folder) / name).is_dir():
            raise NotImplementedError(f"STDECONV_DATA has no set {name}")  # asv's way to say: skipped
        self.folder = Path(folder)

    def track_pearson(self, name):
        from benchmarks.sets import load, sections_of
        from stdeconv_fast import deconvolve, evaluate

        spots, reference, truth = load(self.folder, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = deconvolve(
                spots, reference, cell_types="celltype", sections=sections_of(spots), progress=False
            )
        return evaluate(result.proportions, truth)["pearson"]

    track_pearson.unit = "Pearson"


class Simulated:
    """Pearson correlation on simulated tissue."""

    params = ["gradients", "domains", "bins"]
    param_names = ["kind"]
    timeout = 300

    def track_pearson(self, kind):
        from stdeconv_fast import deconvolve, evaluate, simulate

        tissue = simulate(2000, 1000, 12, kind=kind, seed=0)
        result = deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, progress=False
        )
        truth = tissue.truth[result.proportions.columns]
        return evaluate(result.proportions.to_numpy(), truth.to_numpy())["pearson"]

    track_pearson.unit = "Pearson"
