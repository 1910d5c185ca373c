"""Accuracy under disturbed input: ours, NNLS and flashdeconv 0.2.0, defaults only, on the ten sets with truth.

python benchmarks/robustness.py --data FOLDER [--sets NAME ...] [--results FOLDER] [--fresh]

Noise in the reference, genes left out, counts of the spots lost, cells of the reference left out, as
`stdeconv_fast.studies.disturbances.disturb` says. Prints the mean Pearson over the sets by kind and level and says
whether ours is the highest ("ok") or not ("NOT"); ends with 1 where any level is "NOT". Writes robustness.json and
robustness.png; sets whose rows robustness.json already holds at the same levels are not run again without --fresh.
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
from stdeconv_fast.studies.disturbances import disturb

KINDS = ("noise", "gene_drop", "depth", "cell_drop")
LEVELS = (0.0, 0.3, 0.6, 0.9)
KEY = "celltype"
OURS = "stdeconv_fast"


def cases() -> list[tuple[str, float]]:
    """The undisturbed input once, then every kind at every level above 0."""
    return [("none", 0.0), *((kind, level) for kind in KINDS for level in LEVELS if level > 0)]


def measure_set(data: Path, name: str, peer_folder: str | None) -> list[dict]:
    """Rows of one set: kind, level, method, Pearson, seconds."""
    spots, reference, truth = load(data, name)
    rows, jobs = [], []

    def add(kind: str, level: float, method: str, frame: pd.DataFrame, seconds: float) -> None:
        scores = evaluate(frame, truth.loc[truth.index.intersection(frame.index)])
        rows.append({"set": name, "kind": kind, "level": level, "method": method, "seconds": round(seconds, 2)}
                    | {key: scores[key] for key in ("pearson", "rmse", "jsd")})  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, level) in enumerate(cases()):
            st, sc = (spots, reference) if kind == "none" else disturb(
                spots, reference, KEY, kind=kind, level=level
            )  # fmt: skip
            started = time.perf_counter()
            ours = deconvolve(st, sc, cell_types=KEY, sections=sections_of(st), progress=False).proportions
            add(kind, level, OURS, ours, time.perf_counter() - started)
            started = time.perf_counter()
            add(kind, level, "NNLS", run_nnls(st, sc), time.perf_counter() - started)
            files = [f"{folder}/{number}-{part}" for part in ("st.h5ad", "sc.h5ad", "out.csv")]
            st.write_h5ad(files[0])
            sc.write_h5ad(files[1])
            jobs.append((files[0], files[1], KEY, files[2]))
        told = {row["out"]: row["wall"] for row in run_peer(jobs, peer_folder)}
        for (kind, level), job in zip(cases(), jobs, strict=True):
            add(kind, level, "flashdeconv", pd.read_csv(job[3], index_col=0), told[job[3]])
    return rows


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the undisturbed input as level 0 of every kind."""
    at_zero = table[table["kind"] == "none"]
    return pd.concat([table[table["kind"] != "none"], *(at_zero.assign(kind=kind) for kind in KINDS)])


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Mean Pearson over the sets by kind, level and method, and whether ours is the highest."""
    wide = spread(table).pivot_table(index=["kind", "level"], columns="method", values="pearson", aggfunc="mean")
    wide = wide.loc[list(KINDS)][[OURS, *(name for name in wide.columns if name != OURS)]]
    wide["ours first"] = ["ok" if row.iloc[0] > row.iloc[1:].max() else "NOT" for _, row in wide.iterrows()]
    return wide


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel a kind: mean Pearson over the sets against the level."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from stdeconv_fast import pl

    frame = spread(table).rename(columns={"set": "repeat"})
    figure, axes = plt.subplots(1, len(KINDS), figsize=(3.2 * len(KINDS), 3.4), sharey=True, layout="constrained")
    for ax, kind in zip(axes, KINDS, strict=True):
        pl.robustness(frame[frame["kind"] == kind], ax=ax, band=False)
        if ax is not axes[0]:
            ax.set_ylabel("")
            ax.get_legend().remove()
    axes[0].set_ylabel(f"Pearson, mean of {table['set'].nunique()} sets")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the sets (default: STDECONV_DATA)")
    parser.add_argument("--sets", nargs="*", default=list(WITH_TRUTH))
    parser.add_argument("--results", default=str(Path(__file__).parent / "results"), help="folder of the results")
    parser.add_argument("--fresh", action="store_true", help="run sets again that the results hold")
    parser.add_argument("--peer-env", help="folder of flashdeconv's environment")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data, out = find_data(options.data), Path(options.results) / "robustness.json"
    rows = json.loads(out.read_text())["rows"] if out.exists() and not options.fresh else []
    wanted = {*cases()}
    for name in options.sets:
        held = {(row["kind"], row["level"]) for row in rows if row["set"] == name}
        if held != wanted:
            started = time.perf_counter()
            rows = [row for row in rows if row["set"] != name] + measure_set(data, name, options.peer_env)
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        table = judge(pd.DataFrame(rows)).reset_index()
        text = {"mean_pearson": table.to_dict("records"), "rows": rows}
        out.write_text(json.dumps(text, indent=1) + "\n")
    frame = pd.DataFrame(rows)
    table = judge(frame)
    print(f"mean Pearson of {frame['set'].nunique()} sets")
    print(table.to_string(float_format="%.4f"))
    draw(frame, out.with_suffix(".png"))
    return 0 if (table["ours first"] == "ok").all() else 1


if __name__ == "__main__":
    raise SystemExit(main())
