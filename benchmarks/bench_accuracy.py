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
    """Agreement with the truth on simulated tissue, by kind of tissue and by what is asked for."""

    params = [["gradients", "domains", "bins"], ["types", "cell level", "least squares", "float64"]]
    param_names = ["kind", "level"]
    timeout = 300
    asked = {
        "types": {},
        "cell level": {"cell_level": True, "max_cells_per_type": 30},
        "least squares": {"loss": "gaussian"},
        "float64": {"dtype": "float64"},
    }

    def scores(self, kind, level):
        from stdeconv_fast import deconvolve, evaluate, simulate

        tissue = simulate(1000 if level == "cell level" else 2000, 1000, 12, kind=kind, seed=0)
        result = deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, progress=False, **self.asked[level]
        )
        truth = tissue.truth[result.proportions.columns]
        return evaluate(result.proportions.to_numpy(), truth.to_numpy())

    def track_pearson(self, kind, level):
        return self.scores(kind, level)["pearson"]

    track_pearson.unit = "Pearson"

    def track_jsd(self, kind, level):
        return self.scores(kind, level)["jsd"]

    track_jsd.unit = "bits"


class StandardErrors:
    """Share of the true proportions above 0 within two standard errors of the estimate, without smoothing."""

    timeout = 300

    def track_within_two(self):
        import numpy as np

        from stdeconv_fast import deconvolve, simulate

        tissue = simulate(2000, 1000, 8, counts_per_spot=2000, platform_sd=0, mrna_sd=0, cells_per_type=300, seed=0)
        result = deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, lambda_spatial=0,
            standard_errors=True, platform="none", abundance="mrna", progress=False,
        )  # fmt: skip
        errors, found = result.standard_errors.to_numpy(), result.proportions.to_numpy()
        told = np.isfinite(errors) & (errors > 0)
        distance = np.abs(found - tissue.truth_mrna[result.proportions.columns].to_numpy())
        return float((distance[told] <= 2 * errors[told]).mean())

    track_within_two.unit = "share"
