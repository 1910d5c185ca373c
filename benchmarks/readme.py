"""Write the tables of README.md from the numbers in benchmarks/results/.

python benchmarks/readme.py [--check]

Make the numbers first: accuracy.py, attention.py, growth.py, peers.py, at_scale.py, widths.py, roofline.py,
cold_start.py, convergence.py, robustness.py, calibration.py, missing_types.py and original.py in benchmarks/, each with
--json. With --check nothing is written; the exit code is 1 where README.md and the numbers differ.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import readme_trust  # noqa: E402
from benchmarks.readme_trust import load as _load  # noqa: E402
from benchmarks.readme_trust import mean as _mean  # noqa: E402
from benchmarks.readme_trust import to_table as _table  # noqa: E402

METHODS = ("ours", "ours, cell level", "ours, least squares", "NNLS", "flashdeconv")


def _on(entries: list[dict]) -> str:
    """A line that names the processors on which times were measured, where the numbers hold them."""
    held = [entry["machine"] for entry in entries if "machine" in entry]
    named = sorted({f"{machine['cores']} cores, {machine['cpu']}" for machine in held})
    return f"\n\nMeasured on: {'; '.join(named)}." if named else ""


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
    return _table(["bins", *names, "total s", "peak MB"], out) + _on(rows)


def peers() -> str:
    """Wall, CPU and peak memory of whole processes and Pearson, ours and flashdeconv, by kind and number of spots."""
    entries, out = _load("peers"), []
    for entry in entries:
        ours, peer, scores = entry["tools"]["ours"], entry["tools"].get("flashdeconv"), entry["scores"]
        kind = {"hd": "bins, 320 counts", "visium": "spots, 5,000 counts"}[entry["kind"]]
        pair = [
            (f"{row['wall']:.1f}", f"{row['peak_mb']:,.0f}") if row and row["status"] == "ok" else ("failed", "-")
            for row in (ours, peer)
        ]
        ratios = [entry["ratios"][key] for key in ("wall_above", "cpu_above")]
        pearson = [scores[name]["pearson"] if name in scores else None for name in ("ours", "flashdeconv")]
        out.append(
            [kind, f"{entry['n']:,}", pair[0][0], pair[1][0]]
            + ["-" if value is None else f"{value:.1f}" for value in ratios]
            + [pair[0][1], pair[1][1], " / ".join("-" if value is None else f"{value:.3f}" for value in pearson)]
        )
    head = ["tissue", "spots", "ours, s", "flashdeconv, s", "times faster above the floor", "times less CPU above it"]
    table = _table([*head, "ours, peak MB", "flashdeconv, peak MB", "Pearson, ours / flashdeconv"], out)
    return table + _on(entries)


def at_scale() -> str:
    """What the runs in pieces showed: one row a promise, with the time and memory of the large one."""
    found, out = _load("at_scale"), []
    if "tiled" in found:
        large = found["tiled"]
        disk = (large["input_mb"] + large["work_mb"]) / 1024
        out.append([
            f"{large['n']:,} bins from zarr, {large['tiles']} tiles, 2 cores",
            f"{large['wall'] / 60:.1f} min, {large['tree_mb']:,.0f} MB in all processes together, "
            f"{disk:.1f} GB of disk with the input; Pearson {large['pearson']:.3f}",
        ])  # fmt: skip
    for name in ("cluster", "restart"):
        for text in found.get(name, {}).get("promises", ()):
            out.append([f"{found[name]['n']:,} bins", text])
    return _table(["run", "found"], out)


def widths() -> str:
    """Microseconds a bin by number of types and by number of genes."""
    found, out = _load("widths"), []
    for by, name in (("types", "n_types"), ("genes", "n_genes")):
        for row in found[by]["rows"]:
            each = 1e6 / row["n_spots"]
            out.append(
                [by, f"{row[name]:,}", f"{row['n_genes_used']:,}", f"{row['kept_non_zeros'] / row['n_spots']:.0f}"]
                + [f"{row['seconds'][stage] * each:.0f}" for stage in ("first fit", "passes", "total")]
            )
    head = ["width", "number", "genes used", "kept non-zeros a bin", "first fit, us a bin", "passes, us a bin"]
    return _table([*head, "total, us a bin, one thread"], out)


def roofline() -> str:
    """Seconds by stage, and the part of the machine's bandwidth and arithmetic that they come to."""
    found = _load("roofline")
    rates = found["machine"][str(found["n_jobs"])]
    out = [
        [row["stage"], f"{row['seconds']:.2f}", f"{row['gb_s']:.2f}", f"{row['of_bandwidth']:.1%}",
         f"{row['gflop_s']:.1f}", f"{row['of_arithmetic']:.1%}"]
        for row in found["stages"]
    ]  # fmt: skip
    head = [f"{found['sizes']['n_spots']:,} bins, {found['n_jobs']} thread", "s", "GB/s, at least"]
    head += [f"of {rates['gb_s']:.0f} GB/s", "GFLOP/s, at least", f"of {rates['gflop_s']:.0f} GFLOP/s"]
    return _table(head, out)


def cold_start() -> str:
    """Seconds of whole processes, with and without compiled kernels on disk."""
    found, out = _load("cold_start"), []
    for row in found["rows"]:
        own = row["in_deconvolve"]
        out.append([row["what"], f"{row['seconds']:.2f}", "-" if own is None else f"{own:.2f}"])
    return _table(["a process of its own, 1,000 bins", "seconds", "of these in deconvolve"], out) + _on([found])


BLOCKS = {
    make.__name__: make
    for make in (accuracy, thinned, domains, peers, at_scale, growth, widths, roofline, cold_start)
} | readme_trust.BLOCKS


def filled(text: str) -> str:
    """The README with its tables made anew."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no block {name}")
        try:
            table = make()
        except FileNotFoundError:
            table = f"Not measured yet: benchmarks/results/{name}.json is missing."
        text = pattern.sub(lambda match, table=table: match[1] + table + "\n" + match[2], text)
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
