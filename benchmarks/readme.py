"""Write the tables of README.md from the numbers in benchmarks/results/.

python benchmarks/readme.py [--check]

Make the numbers first: benchmarks/accuracy.py, attention.py and growth.py, each with --json. With --check nothing is
written; the exit code is 1 where README.md and the numbers differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
METHODS = ("ours", "ours, cell level", "ours, least squares", "NNLS", "flashdeconv")


def _load(name: str):
    return json.loads((RESULTS / f"{name}.json").read_text())


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def accuracy() -> str:
    """Pearson / JSD of each method by set, and the means of the four measures."""
    rows = _load("accuracy")
    cell = {(row["set"], row["method"]): row for row in rows}
    sets = list(dict.fromkeys(row["set"] for row in rows))
    out = []
    for name in sets:
        out.append([name] + [f"{cell[name, m]['pearson']:.3f} / {cell[name, m]['jsd']:.3f}" for m in METHODS])
    for key, label in (("pearson", "Pearson"), ("rmse", "RMSE"), ("jsd", "JSD"), ("auprc", "AUPRC")):
        means = [_mean(cell[name, method][key] for name in sets) for method in METHODS]
        out.append([f"**mean {label}**"] + [f"{value:.3f}" for value in means])
    return _table(["Pearson / JSD", *METHODS], out)


def thinned() -> str:
    """Mean Pearson of the real sets thinned to few counts."""
    rows = _load("attention")["thinned"]
    out = []
    for median in sorted({row["median counts"] for row in rows}):
        part = [row for row in rows if row["median counts"] == median]
        worst = min(row["gain"] for row in part)
        values = [_mean(row[key] for row in part) for key in ("none", "place", "tuned")]
        out.append([str(median), *(f"{value:.3f}" for value in values), f"{worst:+.3f}"])
    return _table(
        ["median counts a spot", "no smoothing", "tuned, by place alone", "tuned, attention (default)", "worst set"],
        out,
    )


def domains() -> str:
    """Best Pearson on simulated low-count bins in sharp domains, and what a strength far too large costs."""
    rows = _load("attention")["domains"]
    out = []
    for cells in (10, 20):
        for number in (8, 40):
            part = [row for row in rows if (row["cells"], row["domains"]) == (cells, number)]
            seeds = len({row["seed"] for row in part})
            best, lost = {}, {}
            for graph in ("none", "uniform", "attention", "tuned"):
                means: dict[float, float] = {}
                for row in part:
                    if row["graph"] == graph:
                        key = 0 if graph == "tuned" else row["lambda"]
                        means[key] = means.get(key, 0.0) + row["pearson"] / seeds
                best[graph] = max(means.values())
                lost[graph] = best[graph] - means.get(400, best[graph])
            out.append(
                [f"{cells} cells a bin, {number} domains"]
                + [f"{best[graph]:.3f}" for graph in ("none", "uniform", "attention", "tuned")]
                + [f"{lost[graph]:.3f}" for graph in ("uniform", "attention")]
            )
    head = ["Pearson", "none", "best uniform", "best attention", "tuned (default)"]
    return _table([*head, "lost at 400, uniform", "lost at 400, attention"], out)


def growth() -> str:
    """Seconds by stage and peak memory by number of bins."""
    rows = _load("growth")
    names = [name for name in rows[0]["seconds"] if name != "total"]
    out = [
        [f"{row['n_spots']:,}", *(f"{row['seconds'][name]:.2f}" for name in names),
         f"{row['seconds']['total']:.2f}", f"{row['peak_mb']:.0f}"]
        for row in rows
    ]  # fmt: skip
    return _table(["bins", *names, "total s", "peak MB"], out)


BLOCKS = {"accuracy": accuracy, "thinned": thinned, "domains": domains, "growth": growth}


def filled(text: str) -> str:
    """The README with its tables made anew."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no block {name}")
        text = pattern.sub(lambda match, make=make: match[1] + make() + "\n" + match[2], text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text()
    new = filled(old)
    if options.check:
        if new != old:
            print("README.md and benchmarks/results/ differ: run python benchmarks/readme.py", file=sys.stderr)
        return int(new != old)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
