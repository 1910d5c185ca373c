"""What smoothing, attention and their tuning are worth where counts are few.

python benchmarks/attention.py [--data FOLDER] [--json FILE] [--repeats 3]

First part, simulated low-count bins (300 counts) in sharp domains: no smoothing, uniform smoothing (by place alone) and
attention at each strength of the path, and what the counts at hand choose. Second part, the real sets with their counts
thinned binomially to a median of 50 and 150 a spot: tuned smoothing with attention against none.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sets import WITH_TRUTH, find_data, load, sections_of
from stdeconv_fast import deconvolve, evaluate, simulate

PATH = (5, 20, 50, 100, 200, 400)
FIXED = 20  # counts that lambda_spatial = 1 means without tuning
TOO_LARGE = 400


def score(tissue, **settings) -> tuple[float, float, object]:
    """Pearson, RMSE and the result of one run on a simulated tissue."""
    result = deconvolve(
        tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, progress=False, **settings
    )
    scores = evaluate(result.proportions.to_numpy(), tissue.truth[result.proportions.columns].to_numpy())
    return scores["pearson"], scores["rmse"], result


def study_domains(repeats: int) -> pd.DataFrame:
    """Pearson and RMSE by tissue, graph and strength."""
    rows = []
    for cells in (10, 20):
        for n_domains in (8, 40):
            for seed in range(1, repeats + 1):
                tissue = simulate(
                    2500, 500, 12, kind="domains", n_domains=n_domains, counts_per_spot=300, cells_per_spot=cells,
                    grid="square", seed=seed,
                )  # fmt: skip
                case = {"cells": cells, "domains": n_domains, "seed": seed}
                pearson, rmse, _ = score(tissue, lambda_spatial=0)
                rows.append({**case, "graph": "none", "lambda": 0, "pearson": pearson, "rmse": rmse})
                for attention in (False, True):
                    for strength in PATH:
                        pearson, rmse, _ = score(
                            tissue, tune=False, phi=1, lambda_spatial=strength / FIXED, attention=attention
                        )
                        graph = "attention" if attention else "uniform"
                        rows.append({**case, "graph": graph, "lambda": strength, "pearson": pearson, "rmse": rmse})
                pearson, rmse, result = score(tissue)
                chosen = result.strengths.lambda_spatial
                rows.append({**case, "graph": "tuned", "lambda": chosen, "pearson": pearson, "rmse": rmse})
    return pd.DataFrame(rows)


def sum_up_domains(table: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, bool]]]:
    """Means over seeds by tissue, and the promises about them."""
    means = table.groupby(["cells", "domains", "graph", "lambda"])[["pearson", "rmse"]].mean().reset_index()
    rows, promises = [], []
    for (cells, domains), part in means[means.graph != "tuned"].groupby(["cells", "domains"]):
        best = {}
        for graph in ("none", "uniform", "attention"):
            own = part[part.graph == graph]
            best[graph] = (own.pearson.max(), own.rmse.min())
        tuned = table[(table.cells == cells) & (table.domains == domains) & (table.graph == "tuned")]
        far = part[part["lambda"] == TOO_LARGE].set_index("graph").pearson
        rows.append({
            "cells": cells, "domains": domains, "none": best["none"][0], "uniform": best["uniform"][0],
            "attention": best["attention"][0], "tuned": tuned.pearson.mean(), "rmse uniform": best["uniform"][1],
            "rmse attention": best["attention"][1], "lost at 400, uniform": best["uniform"][0] - far["uniform"],
            "lost at 400, attention": best["attention"][0] - far["attention"],
        })  # fmt: skip
        row = rows[-1]
        name = f"{cells} cells a bin, {domains} domains"
        gain = row["attention"] - row["uniform"]
        better = gain > 0 if cells == 20 or domains == 40 else gain >= 0
        promises.append((f"{name}: attention above the best uniform smoothing, Pearson {gain:+.4f}", better))
        gain = row["rmse uniform"] - row["rmse attention"]
        promises.append((f"{name}: attention below the best uniform smoothing, RMSE {-gain:+.4f}", gain >= 0))
        ours, plain = row["lost at 400, attention"], row["lost at 400, uniform"]
        promises.append((f"{name}: at lambda 400 attention loses {ours:.4f}, uniform {plain:.4f}", ours < plain))
        short = row["attention"] - row["tuned"]
        promises.append((f"{name}: tuned strength loses {short:.4f} to the best of the path", short < 0.005))
    return pd.DataFrame(rows), promises


def thin_spots(spots, median: float, seed: int = 0):
    """The spots with counts thinned binomially to a median total."""
    thinned = spots.copy()
    matrix = sparse.csr_matrix(thinned.X).astype(np.int64)
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data = np.random.default_rng(seed).binomial(matrix.data, min(1.0, median / np.median(totals)))
    matrix.eliminate_zeros()
    thinned.X = matrix
    return thinned


def study_thinned(data: Path) -> pd.DataFrame:
    """Pearson by set and median total: none, tuned by place alone, tuned with attention."""
    rows = []
    for median in (50, 150):
        for name in WITH_TRUTH:
            spots, reference, truth = load(data, name)
            spots = thin_spots(spots, median)
            row = {"median counts": median, "set": name}
            for label, settings in (("none", {"lambda_spatial": 0}), ("place", {"attention": False}), ("tuned", {})):
                result = deconvolve(
                    spots, reference, cell_types="celltype", sections=sections_of(spots), progress=False, **settings
                )
                row[label] = evaluate(result.proportions, truth)["pearson"]
            rows.append({**row, "lambda": result.strengths.lambda_spatial, "gain": row["tuned"] - row["none"]})
    return pd.DataFrame(rows)


def sum_up_thinned(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """The promises about the thinned sets."""
    promises = []
    for median, part in table.groupby("median counts"):
        none, place, tuned = part.none.mean(), part.place.mean(), part.tuned.mean()
        promises.append((
            f"{median} counts: mean Pearson {none:.4f} without, {place:.4f} by place alone, {tuned:.4f} with attention",
            tuned > none,
        ))  # fmt: skip
        promises.append((f"{median} counts: worst set {part.gain.min():+.4f}", part.gain.min() >= -0.01))
    return promises


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the real sets (default: STDECONV_DATA)")
    parser.add_argument("--repeats", type=int, default=3, help="simulated tissues of each kind")
    parser.add_argument("--json", help="write all numbers as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    domains = study_domains(options.repeats)
    summary, promises = sum_up_domains(domains)
    print(summary.to_string(index=False, float_format="%.4f"))
    print(flush=True)
    thinned = study_thinned(find_data(options.data))
    promises += sum_up_thinned(thinned)
    print(thinned.to_string(index=False, float_format="%.4f"))
    print()
    for text, holds in promises:
        print(("ok     " if holds else "FAILED ") + text)
    if options.json:
        numbers = {"domains": domains.to_dict("records"), "thinned": thinned.to_dict("records")}
        Path(options.json).write_text(json.dumps(numbers, indent=1) + "\n")
    return 0 if all(holds for _, holds in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
