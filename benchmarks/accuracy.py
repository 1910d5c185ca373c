"""Accuracy on the ten sets with known composition: ours, NNLS and flashdeconv 0.2.0, defaults only.

python benchmarks/accuracy.py --data FOLDER [--json FILE] [--markdown FILE] [--no-peer]

Prints Pearson, RMSE, JSD and AUPRC of each, set by set, and says whether each promise holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.nnls import run_nnls
from benchmarks.peer_env import run_peer
from benchmarks.sets import WITH_TRUTH, find_data, load, sections_of
from stdeconv_fast import deconvolve, evaluate

MEASURES = ("pearson", "rmse", "jsd", "auprc")
HIGHER = {"pearson": True, "rmse": False, "jsd": False, "auprc": True}
# what the design's prototype reached with smoothing fixed at 20 counts: Pearson and JSD
PROTOTYPE = {
    "starmap_mpfc": (0.842, 0.171), "starmap_visp": (0.877, 0.150), "merfish_hypo_a": (0.910, 0.070),
    "merfish_hypo_b": (0.935, 0.053), "merfish_hypo_animals": (0.925, 0.069), "merfish_hypo_xplat": (0.884, 0.119),
    "xenium_breast": (0.957, 0.030), "sim_breast": (0.929, 0.069), "retrofit_sim": (0.987, 0.024),
    "destvi_sim": (0.976, 0.014),
}  # fmt: skip


def run_ours(spots, reference, **settings):
    """Proportions by stdeconv_fast."""
    return deconvolve(
        spots, reference, cell_types="celltype", sections=sections_of(spots), progress=False, **settings
    )


def measure(data: Path, names: list[str], peer: bool, peer_folder: str | None = None) -> pd.DataFrame:
    """Measures by set and method, one row each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if peer:
            jobs = [
                (str(data / name / "st.h5ad"), str(data / name / "sc.h5ad"), "celltype", f"{folder}/{name}.csv")
                for name in names
            ]
            run_peer(jobs, peer_folder)
        for name in names:
            spots, reference, truth = load(data, name)
            found = {}
            started = time.perf_counter()
            found["ours"] = run_ours(spots, reference).proportions
            seconds = time.perf_counter() - started
            found["ours, cell level"] = run_ours(
                spots, reference, cell_level=True, max_cells_per_type=100
            ).proportions
            found["ours, least squares"] = run_ours(spots, reference, loss="gaussian").proportions
            found["NNLS"] = run_nnls(spots, reference)
            if peer:
                found["flashdeconv"] = pd.read_csv(f"{folder}/{name}.csv", index_col=0)
            for method, frame in found.items():
                scores = evaluate(frame, truth)
                rows.append({"set": name, "method": method, **{key: scores[key] for key in MEASURES}})
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def judge(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """The promises about accuracy, each with whether it holds."""
    wide = table.pivot(index="set", columns="method", values=list(MEASURES))
    others = [name for name in ("NNLS", "flashdeconv") if name in table["method"].unique()]
    promises = []
    short = [name for name in wide.index if wide["pearson"]["ours"][name] < PROTOTYPE[name][0] - 0.005]
    promises.append((f"Pearson at least the prototype's minus 0.005 on every set {short or ''}", not short))
    short = [name for name in wide.index if wide["jsd"]["ours"][name] > PROTOTYPE[name][1] + 0.01]
    promises.append((f"JSD at most the prototype's plus 0.01 on every set {short or ''}", not short))
    fall = (wide["pearson"]["ours"] - wide["pearson"]["ours, cell level"]).max()
    promises.append((f"with the cell level no set loses more than 0.01 Pearson (largest {fall:.4f})", fall <= 0.01))
    best = (wide["pearson"]["ours"] - wide["pearson"][others].max(axis=1)).min()
    promises.append((f"first by Pearson on every set (least lead {best:.4f})", best > 0))
    for key in MEASURES:
        means = wide[key].mean()
        rivals = means[others]
        first = means["ours"] > rivals.max() if HIGHER[key] else means["ours"] < rivals.min()
        promises.append((f"first on the mean {key} ({means['ours']:.4f} against {rivals.round(4).to_dict()})", first))
    return promises


def to_markdown(table: pd.DataFrame) -> str:
    """Pearson / JSD by set and the means of all measures, as a Markdown table."""
    methods = list(table["method"].unique())
    lines = ["| set | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for name, part in table.groupby("set", sort=False):
        cells = part.set_index("method")
        lines.append(
            f"| {name} | "
            + " | ".join(f"{cells.pearson[method]:.3f} / {cells.jsd[method]:.3f}" for method in methods) + " |"
        )  # fmt: skip
    means = table.groupby("method")[list(MEASURES)].mean()
    for key in MEASURES:
        lines.append(f"| **mean {key}** | " + " | ".join(f"{means[key][method]:.3f}" for method in methods) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the sets (default: STDECONV_DATA)")
    parser.add_argument("--sets", nargs="*", default=list(WITH_TRUTH))
    parser.add_argument("--json", help="write the table as JSON")
    parser.add_argument("--markdown", help="write the table as Markdown")
    parser.add_argument("--no-peer", action="store_true", help="leave flashdeconv out")
    parser.add_argument("--peer-env", help="folder of flashdeconv's environment")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = find_data(options.data)
    table = measure(data, options.sets, not options.no_peer, options.peer_env)
    print(table.to_string(index=False, float_format="%.4f"))
    print()
    print(table.groupby("method")[list(MEASURES)].mean().to_string(float_format="%.4f"))
    print()
    promises = judge(table)
    for text, holds in promises:
        print(("ok     " if holds else "FAILED ") + text)
    if options.json:
        Path(options.json).write_text(json.dumps(table.to_dict("records"), indent=1) + "\n")
    if options.markdown:
        Path(options.markdown).write_text(to_markdown(table) + "\n")
    return 0 if all(holds for _, holds in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
