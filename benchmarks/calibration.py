"""Are standard errors as large as they say, and q-values of presence what they promise? On simulated tissue.

python benchmarks/calibration.py [--json FILE] [--repeats 3]

Tissues of `simulate`: 600 spots, 400 genes, 6 types. While the model holds (Poisson counts, 2,000 reference cells a
type, no platform effect, no smoothing) 90 % intervals of the types with a true share above 5 % have to cover 85 to
95 % of the truths at every depth. Then, told and not promised: bands of abundance outside of 85 to 95 %; with
smoothing, where bias (mean error over the standard error) and coverage are told apart; where the model does not hold. A
false discovery is a type called present (q < 0.05) in a spot that has none of it; power: types with a share above 5 %
that are called.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stdeconv_fast import deconvolve, simulate

RESULTS = Path(__file__).resolve().parent / "results" / "calibration.json"
LEVEL, INTERVAL = 0.9, 1.6449  # coverage that is asked for, and its half-width in standard errors
LEAST, LOW, HIGH = 0.05, 0.85, 0.95
CALLED = 0.05
DEPTHS = (300, 1000, 3000, 10000)
BANDS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1.01))
HOLDS = {"kind": "none", "platform_sd": 0.0, "mrna_sd": 0.0, "cells_per_type": 2000}
ALONE = {"lambda_spatial": 0.0, "platform": "none"}


def overdisperse(tissue, size: float = 4.0, seed: int = 0):
    """Counts negative-binomial: each multiplied, before it is drawn, by a gamma of variance 1 / size."""
    rng = np.random.default_rng(seed)
    counts = tissue.spots.toarray()
    mean = counts.sum(axis=1, keepdims=True) * (tissue.truth_mrna.to_numpy() @ tissue.profiles)
    return replace(tissue, spots=type(tissue.spots)(rng.poisson(mean * rng.gamma(size, 1 / size, mean.shape))))


# name: tissue, settings, what is done to the tissue
CASES = {
    "the model holds": (HOLDS, ALONE, None),
    "smooth tissue, no smoothing": ({**HOLDS, "kind": "gradients"}, ALONE, None),
    "smooth tissue, smoothing tuned": ({**HOLDS, "kind": "gradients"}, {"platform": "none"}, None),
    "sharp domains, smoothing tuned": ({**HOLDS, "kind": "domains"}, {"platform": "none"}, None),
    "no structure, smoothing of 20 counts": (HOLDS, {"platform": "none", "tune": False}, None),
    "platform effect, estimated": ({**HOLDS, "platform_sd": 0.3}, {"lambda_spatial": 0.0}, None),
    "platform effect, ignored": ({**HOLDS, "platform_sd": 0.3}, ALONE, None),
    "overdispersed counts": (HOLDS, ALONE, overdisperse),
    "30 reference cells a type": ({**HOLDS, "cells_per_type": 30}, ALONE, None),
    "a type missing": (HOLDS, {**ALONE, "exclude_types": ("type5",)}, None),
}


def measure(case: str, depth: int, repeats: int) -> list[dict]:
    """Coverage, bias and width by band of abundance, and false discoveries, over some tissues."""
    tissues, settings, change = CASES[case]
    parts = []
    for seed in range(repeats):
        tissue = simulate(600, 400, 6, counts_per_spot=depth, seed=seed + 1, **tissues)
        tissue = tissue if change is None else change(tissue)
        result = deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, abundance="mrna", progress=False,
            standard_errors=True, detection=True, **settings,
        )  # fmt: skip
        names = result.proportions.columns
        parts.append([
            tissue.truth_mrna[names].to_numpy(), result.proportions.to_numpy(), result.standard_errors.to_numpy(),
            result.q_values.to_numpy(),
        ])  # fmt: skip
    truth, found, errors, q = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows, called = [], q < CALLED
    for low, high in ((LEAST, 1.01), *BANDS):
        asked = (truth > low) & (truth <= high)
        scores = np.full(int(asked.sum()), np.inf)  # without an interval the truth is not covered
        error, width = (found - truth)[asked], errors[asked]
        np.divide(error, width, out=scores, where=width > 0)
        sound = np.isfinite(scores)
        rows.append({
            "case": case, "counts": depth, "share above": low, "share to": min(high, 1.0), "n": int(asked.sum()),
            "coverage": float((np.abs(scores) < INTERVAL).mean()), "bias / se": float(scores[sound].mean()),
            "sd / se": float(scores[sound].std()), "median se": float(np.median(width[sound])),
            "at 0": float((found[asked] == 0).mean()),
            "called": float(called[asked].mean()),
        })  # fmt: skip
    rows[0] |= {
        "false discoveries": float((called & (truth == 0)).sum() / max(called.sum(), 1)),
        "absent": float((truth == 0).mean()),
    }
    return rows


def judge(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """What is promised while the model holds, each with whether it holds."""
    part = table[table["case"] == "the model holds"]
    promises = []
    for _, row in part[part["false discoveries"].notna()].iterrows():
        name = f"{row['counts']:,} counts, shares above {row['share above']:g}"
        promises.append((f"{name}: 90 % intervals cover {row['coverage']:.1%}", LOW <= row["coverage"] <= HIGH))
        rate = row["false discoveries"]
        promises.append((f"{row['counts']:,} counts: false discoveries {rate:.2%} at q < {CALLED}", rate <= CALLED))
    return promises


def find_outside(table: pd.DataFrame) -> list[str]:
    """Bands of abundance whose coverage lies outside of what all shares above 5 % are promised, the model holding."""
    part = table[(table["case"] == "the model holds") & ~table["coverage"].between(LOW, HIGH)]
    return [
        f"{row['counts']:,} counts, share {row['share above']:g} to {row['share to']:g}: 90 % intervals cover "
        f"{row['coverage']:.1%}"
        for _, row in part.iterrows()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default=str(RESULTS), help="write all numbers as JSON")
    parser.add_argument("--repeats", type=int, default=3, help="tissues of each kind")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [row for case in CASES for depth in DEPTHS for row in measure(case, depth, options.repeats)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f", na_rep=""))
    print()
    promises = judge(table)
    for text, holds in promises:
        print(("ok     " if holds else "NOT    ") + text)
    for text in find_outside(table):
        print("outside " + text)
    rows = [{name: value for name, value in row.items() if value == value} for row in rows]
    numbers = {"table": rows, "promises": [[text, bool(holds)] for text, holds in promises]}
    Path(options.json).write_text(json.dumps(numbers, indent=1) + "\n")
    return 0 if all(holds for _, holds in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
