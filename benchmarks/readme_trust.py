"""Tables of README.md about how far results can be trusted; see readme.py."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def load(name: str):
    return json.loads((RESULTS / f"{name}.json").read_text())


def to_table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def robustness() -> str:
    """Mean Pearson over the sets by what is disturbed and how much."""
    said = {
        "noise": "noise in the reference", "gene_drop": "genes left out", "depth": "molecules lost",
        "cell_drop": "reference cells left out",
    }  # fmt: skip
    rows = load("robustness")["mean_pearson"]
    methods = ("stdeconv_fast", "NNLS", "flashdeconv")
    out = [[said[row["kind"]], f"{row['level']:g}", *(f"{row[name]:.3f}" for name in methods)] for row in rows]
    return to_table(["disturbed", "level", "ours", *methods[1:]], out)


def calibration() -> str:
    """Coverage of 90 % intervals, bias and false discoveries by case and depth, shares above 5 %."""
    rows = [row for row in load("calibration")["table"] if "false discoveries" in row]
    depths = sorted({row["counts"] for row in rows})
    cell = {(row["case"], row["counts"]): row for row in rows}
    out = []
    for case in dict.fromkeys(row["case"] for row in rows):
        found = [cell[case, depth] for depth in depths]
        out.append(
            [case]
            + [f"{row['coverage']:.0%} / {row['bias / se']:+.2f} / {row['false discoveries']:.1%}" for row in found]
        )
    return to_table(["covered / bias / false"] + [f"{depth:,} counts" for depth in depths], out)


def missing_types() -> str:
    """Mean AUROC by set, ours and flashdeconv's."""
    rows = load("missing_types")["table"]
    methods = ("ours", "flashdeconv", "flashdeconv, pooled")
    out = []
    for name in dict.fromkeys(row["set"] for row in rows):
        part = [row for row in rows if row["set"] == name]
        out.append([name, str(len(part))] + [f"{mean(row[method] for row in part):.3f}" for method in methods])
    means = [f"{mean(row[method] for row in rows):.3f}" for method in methods]
    out.append(["**mean over all types**", str(len(rows)), *means])
    return to_table(["mean AUROC", "types left out", *methods], out)


def original() -> str:
    """Pearson / RMSE of both objectives, set by set."""
    rows = load("original")["accuracy"]
    cell = {(row["set"], row["method"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    out = []
    for name in dict.fromkeys(row["set"] for row in rows):
        found = [cell[name, method] for method in methods]
        # the correlation with a constant is not defined
        pearson = ["-" if row["pearson"] is None else f"{row['pearson']:.3f}" for row in found]
        out.append([name, *(f"{text} / {row['rmse']:.3f}" for text, row in zip(pearson, found, strict=True))])
    return to_table(["Pearson / RMSE", *methods], out)


def original_speed() -> str:
    """CPU seconds of the plain program and of ours, by number of cells."""
    out = []
    for row in load("original")["speed"]:
        mark = " (extrapolated)" if row["extrapolated"] else ""
        out.append(
            [f"{row['n_cells']:,}", f"{row['plain_solves']:,.0f}{mark}", f"{row['plain_whole']:,.0f}{mark}"]
            + [f"{row[key]:.1f}" for key in ("ours_solves", "ours_attention", "ours_whole")]
            + [f"{row[key]:,.0f}" for key in ("ratio_solves", "ratio_whole")]
        )
    head = ["cells, 500 spots", "plain: solves, s", "plain: whole, s", "ours: solves, s", "ours: attention, s"]
    return to_table([*head, "ours: whole, s", "times faster, solves", "times faster, whole"], out)


def convergence() -> str:
    """How far the answer is from the one that is solved to the end."""
    rows = load("convergence")["rows"]
    out = [
        [row["tissue"], f"{row['n']:,}", f"{row['lambda_spatial']:g}", f"{row['largest']:.1e}", f"{row['rms']:.1e}"]
        for row in rows
    ]
    return to_table(["tissue", "spots", "lambda, counts", "largest difference of a proportion", "rms"], out)


BLOCKS = {
    make.__name__: make
    for make in (robustness, calibration, missing_types, original, original_speed, convergence)
}
