"""objective="original" beside the original program's algorithm written plainly: parity, seconds, accuracy.

python benchmarks/original.py [--sizes 1000 2000 5000] [--data FOLDER] [--json FILE]

1. Parity with tests/fixtures, stage by stage. 2. One thread, 500 spots, 1,000 genes: the plain program (dense solves)
is run whole at 1,000 cells; at more cells its stages are run whole and 20 of its 1,000 solves are timed, which is
marked as extrapolated. 3. Accuracy of both objectives on simulated tissue and, with --data or STDECONV_DATA, on sets
with a known truth. Writes benchmarks/results/original.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import original_plain as plain
from benchmarks.nnls import run_nnls
from benchmarks.processes import machine
from benchmarks.sets import WITH_TRUTH, load, sections_of
from stdeconv_fast import OriginalDraws, Result, Settings, deconvolve, evaluate, simulate
from stdeconv_fast.procedures.original import run_original
from stdeconv_fast.stages.inputs import read_inputs

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ("small_hex", "subsample_square", "strong_spatial")
LIMITS = {
    "C, S": 1e-12, "W": 1e-10, "B": 1e-10, "V": 1e-10, "spread": 1e-10, "attention": 1e-6,
    "root of the Laplacian": 5e-5, "cells, given its Laplacian": 1e-9,
    "cells, given it and the noise": 1e-9,
}  # fmt: skip
N_SPOTS, N_GENES, N_TYPES, SOLVES, REPEATS = 500, 1000, 8, 20, 2
KINDS = ("gradients", "domains", "bins")


def parity() -> list[dict]:
    """Largest absolute error of each stage on each fixture, with its limit."""
    from tests.original_fixtures import Fixture, stage_errors

    rows = []
    for name in FIXTURES:
        for stage, error in stage_errors(Fixture.load(name)).items():
            rows.append({"fixture": name, "stage": stage, "error": error, "limit": LIMITS[stage]})
    return rows


def make(n_cells: int):
    """Tables of one size: reference, spots, coordinates, labels, and random layers as the original draws them."""
    tissue = simulate(N_SPOTS, N_GENES, N_TYPES, cells_per_type=n_cells // N_TYPES, counts_per_spot=3000, seed=1)
    rng = np.random.default_rng(7)
    size = min(64, N_GENES)
    bounds = 1 / np.sqrt(N_GENES), np.sqrt(6 / (4 * size))
    layers = (
        rng.uniform(-bounds[0], bounds[0], (size, N_GENES)), rng.uniform(-bounds[1], bounds[1], (3 * size, size)),
        np.zeros(3 * size),
    )  # fmt: skip
    types = np.unique(tissue.label_series(), return_inverse=True)[1]
    return tissue, layers, types


class CpuClock:
    """CPU seconds of this process by stage, where a run keeps wall time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, steps: int | None = None) -> Iterator[Any]:
        started = time.process_time()
        yield lambda steps=1: None
        self.seconds[name] = time.process_time() - started

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": sum(self.seconds.values())}


def run_ours(tissue, coordinates, draws: OriginalDraws) -> Result:
    """A whole run of ours on one thread; its `seconds` are CPU seconds, reading and checks in them."""
    clock = CpuClock()
    settings = Settings(objective="original", cell_level=True, n_jobs=1)
    with clock.stage("input"):
        labels = list(tissue.label_series())
        inputs = read_inputs(tissue.spots, tissue.reference, coordinates, labels, settings=settings)
    return run_original(inputs, settings, draws, clock)


def speed(n_cells: int, whole: bool) -> dict:
    """CPU seconds of both, one thread; ours the better of two runs."""
    tissue, layers, types = make(n_cells)
    coordinates = tissue.coordinates + np.random.default_rng(0).normal(0, 0.02, tissue.coordinates.shape)  # no ties
    given = OriginalDraws(*layers, None)
    tables = (tissue.reference.toarray().astype(float), tissue.spots.toarray().astype(float))
    with threadpool_limits(1):
        slow = plain.run(
            *tables, coordinates, types, layers=layers, n_heads=given.n_heads, most_solves=None if whole else SOLVES
        )
        ours = [run_ours(tissue, coordinates, given) for _ in range(REPEATS)]
    result = min(ours, key=lambda run: run.seconds["total"])
    ours_whole = result.seconds["total"]
    row = {"n_cells": n_cells, "n_spots": N_SPOTS, "n_genes": N_GENES, "extrapolated": not whole}
    scale = slow["n_solves_whole"] / slow["n_solves"]
    plain_solves = slow["seconds"]["solves"] * scale
    plain_whole = sum(slow["seconds"].values()) - slow["seconds"]["solves"] + plain_solves
    ours_solves = result.seconds["factorisation"] + result.seconds["cells"]
    if whole:
        row["difference"] = float(np.abs(result.cell_weights.toarray() - slow["weights"]).max())
    row |= {
        "plain": slow["seconds"], "plain_solves_timed": slow["n_solves"], "plain_solves": plain_solves,
        "plain_whole": plain_whole, "ours": result.seconds, "ours_solves": ours_solves, "ours_whole": ours_whole,
        "ours_attention": result.seconds["attention"], "ratio_solves": plain_solves / ours_solves,
        "ratio_whole": plain_whole / ours_whole,
    }  # fmt: skip
    return row


def accuracy(data: Path | None, names: list[str]) -> list[dict]:
    """Pearson and RMSE of both objectives, NNLS and the constant 1/K."""
    rows: list[dict] = []

    def judge(name: str, spots, reference, truth: pd.DataFrame, **arguments) -> None:
        frames = {}
        for objective in ("original", "model"):
            started = time.perf_counter()
            frames[objective] = deconvolve(spots, reference, objective=objective, progress=False, **arguments)
            print(f"{name}, {objective}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
        said = {objective: evaluate(result.proportions, truth) for objective, result in frames.items()}
        said["NNLS"] = evaluate(run_nnls(spots, reference), truth)
        said["constant 1/K"] = evaluate(pd.DataFrame(1 / truth.shape[1], truth.index, truth.columns), truth)
        for method, scores in said.items():
            pearson = None if np.isnan(scores["pearson"]) else scores["pearson"]
            rows.append({"set": name, "method": method, "pearson": pearson, "rmse": scores["rmse"]})

    for kind in KINDS:
        tissue = simulate(1000, 500, 8, kind=kind, seed=1)
        spots, reference = tissue.to_anndata()
        judge(f"simulated {kind}", spots, reference, tissue.truth, cell_types="celltype")
        runs = [
            deconvolve(spots, reference, cell_types="celltype", objective="original", seed=seed, progress=False)
            for seed in (0, 1)
        ]
        moved = float((runs[0].proportions - runs[1].proportions).abs().max(axis=None))
        rows[-4]["moved_by_another_attention"] = moved
    for name in names if data else ():
        spots, reference, truth = load(data, name)
        judge(name, spots, reference, truth, cell_types="celltype", sections=sections_of(spots))
    return rows


def told(found: dict) -> str:
    """The three tables."""
    names = "".join(f"{name:>18}" for name in FIXTURES)
    lines = ["parity: largest absolute error", f"{'stage':<32}{names}  limit"]
    for stage, limit in LIMITS.items():
        errors = [row["error"] for row in found["parity"] if row["stage"] == stage]
        lines.append(f"{stage:<32}" + "".join(f"{error:>18.1e}" for error in errors) + f"  {limit:g}"
                     + ("" if max(errors) <= limit else "  FAILED"))  # fmt: skip
    lines.append(
        f"\nCPU seconds, one thread, {N_SPOTS} spots, {N_GENES} genes; our solves with the factorisation\n"
        f"{'cells':>6}{'plain solves':>22}{'plain whole':>22}"
        f"{'our solves':>12}{'our attention':>15}{'our whole':>11}{'times, solves':>15}{'times, whole':>14}"
    )
    for row in found["speed"]:
        solves, whole = (f"{row[key]:.1f}" for key in ("plain_solves", "plain_whole"))
        if row["extrapolated"]:
            solves, whole = f"{solves} (from {row['plain_solves_timed']})", f"{whole} (extrapolated)"
        lines.append(
            f"{row['n_cells']:>6,}{solves:>22}{whole:>22}"
            f"{row['ours_solves']:>12.2f}{row['ours_attention']:>15.2f}{row['ours_whole']:>11.2f}"
            f"{row['ratio_solves']:>15.0f}{row['ratio_whole']:>14.0f}"
        )
        if "difference" in row:
            lines.append(f"       run whole: largest difference of a cell's weight {row['difference']:.1e}")
    table = pd.DataFrame(found["accuracy"])
    if len(table):
        lines.append("\naccuracy: Pearson / RMSE")
        methods = list(dict.fromkeys(table["method"]))
        lines.append(f"{'set':<24}" + "".join(f"{method:>18}" for method in methods))
        for name, part in table.groupby("set", sort=False):
            cells = part.set_index("method")
            lines.append(f"{name:<24}" + "".join(f"{_pair(cells, method):>18}" for method in methods))
        moved = table["moved_by_another_attention"].max()
        lines.append(f"largest change of a proportion when the attention is drawn anew, simulated sets: {moved:.1e}")
    return "\n".join(lines)


def _pair(cells: pd.DataFrame, method: str) -> str:
    pearson = cells.pearson[method]
    return f"{'-' if np.isnan(pearson) else f'{pearson:.3f}'} / {cells.rmse[method]:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 2000, 5000], help="cells; the first run whole")
    parser.add_argument("--data", default=os.environ.get("STDECONV_DATA"), help="folder of the sets")
    parser.add_argument("--sets", nargs="*", default=list(WITH_TRUTH))
    parser.add_argument("--no-accuracy", action="store_true")
    parser.add_argument("--json", default=str(ROOT / "benchmarks" / "results" / "original.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict = {"machine": machine(), "parity": parity(), "speed": [], "accuracy": []}
    for turn, n_cells in enumerate(options.sizes):
        found["speed"].append(speed(n_cells, whole=turn == 0))
        print(f"{n_cells:,} cells timed", file=sys.stderr, flush=True)
    if not options.no_accuracy:
        found["accuracy"] = accuracy(Path(options.data) if options.data else None, options.sets)
    print(told(found))
    Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return int(any(row["error"] > row["limit"] for row in found["parity"]))


if __name__ == "__main__":
    raise SystemExit(main())
