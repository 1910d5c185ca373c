"""Spots that hold a type which the reference lacks: our misfit against flashdeconv's `reference_fit_scores`.

python benchmarks/missing_types.py --data FOLDER [--json FILE] [--sets NAME ...] [--no-peer]

Each type in turn is left out of the reference of each set with known composition. AUROC of the scores for the spots
with more than 5 % of it, defaults only; of flashdeconv 0.2.0 the score of each spot (`z_raw`, which orders spots as
`score` does) and the one pooled with its neighbours. Types that fewer than 10 spots hold, or all but 10, are passed
over and named. Also told: with which references we warn of a missing type, the whole ones included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peer_env import peer_python
from benchmarks.sets import WITH_TRUTH, find_data, load, sections_of
from stdeconv_fast import deconvolve

HOLDS, FEWEST = 0.05, 10  # a spot holds a type from this share on; spots that hold it, and that do not
RESULTS = Path(__file__).resolve().parent / "results" / "missing_types.json"
RUN = """
import json, sys
import anndata as ad, numpy as np, flashdeconv as fd
models, fit = [], fd.FlashDeconv.fit_transform
def keep(self, *arguments, **named):
    models[:] = [self]
    return fit(self, *arguments, **named)
fd.FlashDeconv.fit_transform = keep
for spots_file, reference_file, jobs in json.loads(sys.argv[1]):
    spots, cells = ad.read_h5ad(spots_file), ad.read_h5ad(reference_file)
    for left_out, out in jobs:
        fd.tl.deconvolve(spots, cells[cells.obs["celltype"] != left_out].copy(), cell_type_key="celltype")
        found = fd.reference_fit_scores(models[0])
        np.savez(out, alone=found["z_raw"], pooled=found["z_raw_pooled"])
"""


def measure_auroc(scores: np.ndarray, holds: np.ndarray) -> float:
    """Chance that a spot that holds the type scores above one that does not."""
    ranks, n = rankdata(scores), int(holds.sum())
    return float((ranks[holds].sum() - n * (n + 1) / 2) / (n * (len(holds) - n)))


def choose_types(truth: pd.DataFrame, cells: pd.Series) -> tuple[list[str], dict[str, str]]:
    """Types to leave out, and why the others are passed over."""
    chosen, passed = [], {}
    for name in truth.columns:
        n = int((truth[name] > HOLDS).sum())
        if name not in set(cells):
            passed[name] = "not in the reference"
        elif n < FEWEST or n > len(truth) - FEWEST:
            passed[name] = f"in {n} of {len(truth)} spots"
        else:
            chosen.append(name)
    return chosen, passed


def run_ours(spots, reference, left_out: tuple[str, ...] = ()):
    return deconvolve(
        spots, reference, cell_types="celltype", sections=sections_of(spots), exclude_types=left_out, progress=False
    )


def warned(result) -> bool:
    return any("may be missing" in note for note in result.diagnostics["notes"])


def measure(data: Path, names: list[str], peer_folder: str | None, peer: bool) -> tuple[pd.DataFrame, dict]:
    """AUROC by set and left-out type, and what was passed over or warned of with whole references."""
    rows, told, plans = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            spots, reference, truth = load(data, name)
            truth = truth.loc[spots.obs_names]
            chosen, passed = choose_types(truth, reference.obs["celltype"].astype(str))
            whole = run_ours(spots, reference)
            told[name] = {"passed over": passed, "whole reference warned": warned(whole)}
            jobs = []
            for number, left_out in enumerate(chosen):
                started = time.perf_counter()
                result = run_ours(spots, reference, (left_out,))
                holds = (truth[left_out] > HOLDS).to_numpy()
                scores = result.fit["misfit"].fillna(-np.inf).to_numpy()
                rows.append({
                    "set": name, "left out": left_out, "held by": float(holds.mean()),
                    "ours": measure_auroc(scores, holds), "warned": warned(result),
                    "first genes": result.gene_fit["rank"].nsmallest(5).index.tolist(),
                    "seconds": time.perf_counter() - started,
                })  # fmt: skip
                jobs.append((left_out, f"{folder}/{name}-{number}.npz"))
            plans.append((str(data / name / "st.h5ad"), str(data / name / "sc.h5ad"), jobs))
            print(f"{name}: {len(chosen)} types left out", file=sys.stderr, flush=True)
        if peer:
            subprocess.run([peer_python(peer_folder), "-W", "ignore", "-c", RUN, json.dumps(plans)], check=True)
            for row in rows:
                jobs = dict(next(jobs for file, _, jobs in plans if Path(file).parent.name == row["set"]))
                truth = load(data, row["set"])[2]
                spots = load(data, row["set"])[0].obs_names
                holds = (truth.loc[spots, row["left out"]] > HOLDS).to_numpy()
                with np.load(jobs[row["left out"]]) as found:
                    row["flashdeconv"] = measure_auroc(found["alone"], holds)
                    row["flashdeconv, pooled"] = measure_auroc(found["pooled"], holds)
    return pd.DataFrame(rows), told


def judge(table: pd.DataFrame, told: dict) -> list[tuple[str, bool]]:
    """What is promised, each with whether it holds."""
    promises = []
    peers = [name for name in ("flashdeconv", "flashdeconv, pooled") if name in table]
    for how, means in (
        ("all left-out types", table[["ours", *peers]].mean()),
        ("sets", table.groupby("set")[["ours", *peers]].mean().mean()),
    ):
        if peers:
            best = means[peers].max()
            text = f"mean AUROC over {how}: {means['ours']:.3f}, flashdeconv {best:.3f}"
            promises.append((text, means["ours"] > best))
    cried = [name for name, found in told.items() if found["whole reference warned"]]
    promises.append((f"no warning with a whole reference {cried or ''}".rstrip(), not cried))
    return promises


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the sets (default: STDECONV_DATA)")
    parser.add_argument("--sets", nargs="*", default=list(WITH_TRUTH))
    parser.add_argument("--json", default=str(RESULTS), help="write the table as JSON")
    parser.add_argument("--no-peer", action="store_true", help="leave flashdeconv out")
    parser.add_argument("--peer-env", help="folder of flashdeconv's environment")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = find_data(options.data)
    table, told = measure(data, options.sets, options.peer_env, not options.no_peer)
    shown = table.drop(columns=["first genes", "seconds"])
    print(shown.to_string(index=False, float_format="%.3f"))
    print()
    print(shown.groupby("set", sort=False).mean(numeric_only=True).to_string(float_format="%.3f"))
    print()
    for name, found in told.items():
        for left, why in found["passed over"].items():
            print(f"passed over: {name}, {left} ({why})")
    print(f"warned with {int(table['warned'].sum())} of {len(table)} left-out types")
    promises = judge(table, told)
    for text, holds in promises:
        print(("ok     " if holds else "NOT    ") + text)
    numbers = {
        "table": table.to_dict("records"), "sets": told, "promises": [[text, bool(holds)] for text, holds in promises],
    }  # fmt: skip
    Path(options.json).write_text(json.dumps(numbers, indent=1) + "\n")
    return 0 if all(holds for _, holds in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
