"""Time and memory of ours and flashdeconv 0.2.0 side by side: whole processes, from h5ad to proportions on disk.

python benchmarks/peers.py --sizes 100000 500000 [--kind hd|visium] [--repeats 3] [--tissue FOLDER] [--simulator PATH]
    [--json FILE] [--plot FILE] [--limit SECONDS] [--peer-env FOLDER] [--own-env FOLDER] [--no-peer]
python benchmarks/peers.py --only-plot --json FILE --plot FILE

Both with their defaults, in turn: a warm-up round that is not counted, then `repeats` rounds; medians. Times are those
of whole processes seen from outside, each tool in an environment that holds what its own installation brings and
nothing else (made where it is not there yet; ours runs this checkout in it). "Above the floor" is less what a process
takes that only imports the common packages, reads both files and writes a table of the same size, in the same
environment. The promises are judged on the row "ours"; the exit code is 1 where one is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peer_env import PEER, own_python, peer_python  # noqa: E402
from benchmarks.peers_data import find_tissue, usual_simulator  # noqa: E402
from benchmarks.processes import MB, machine, time_process, versions  # noqa: E402

RUN = """
import sys
import numpy as np, pandas as pd, scipy.sparse, anndata as ad
tool, spots_file, reference_file, out = sys.argv[1:]
spots, reference = ad.read_h5ad(spots_file), ad.read_h5ad(reference_file)
if tool == "stdeconv":
    import json, stdeconv_fast as sd
    sd.tl.deconvolve(spots, reference, cell_type_key="celltype")
    print(json.dumps({name: float(value) for name, value in spots.uns["stdeconv_params"]["seconds"].items()}))
elif tool == "flashdeconv":
    import flashdeconv as fd
    fd.tl.deconvolve(spots, reference, cell_type_key="celltype")
else:
    types = [str(name) for name in reference.obs["celltype"].cat.categories]
    shares = np.random.default_rng(0).random((spots.n_obs, len(types)))
    spots.obsm[tool] = pd.DataFrame(shares, spots.obs_names, types)
answer = ad.AnnData(obs=pd.DataFrame(index=spots.obs_names), obsm={tool: spots.obsm[tool]})
answer.write_h5ad(out)
"""
OURS, PEERS = "ours", "flashdeconv"
LINE, SLIM = "ours, command line", "ours, command line, no counts"
FLOOR, PEER_FLOOR = "floor", "floor, peer's environment"
COMMON = ["numba", "numpy", "scipy", "pandas", "anndata"]
# ours is this checkout, installed or not; its bytecode is kept, as pip keeps that of what it installs
HERE = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}

# promises for low-count bins from a number of bins on: how many times the peer's figure is ours
FASTER = {
    100_000: {"wall_above": 2.5, "cpu_above": 1.5},
    500_000: {"wall_above": 4.0, "cpu_above": 3.0},
    1_000_000: {"wall": 5.0},
}
SAID = {"wall_above": "wall above the floor", "cpu_above": "CPU above the floor", "wall": "whole wall"}
MEMORY_FROM, MEMORY = 100_000, 0.45  # peak of ours over that of the peer
BYTES_FROM, BYTES = 1_000_000, 5e9


def commands(home: Path, out: Path, own: Path, peer: Path | None) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The tools in the order of a round: name -> (command, variables)."""
    files = [str(home / "st.h5ad"), str(home / "sc.h5ad")]

    def script(python: str | Path, tool: str) -> list[str]:
        return [str(python), "-W", "ignore", "-c", RUN, tool, *files, str(out)]

    line = [str(own), "-W", "ignore", "-m", "stdeconv_fast.cli", "run"]
    options = subprocess.run([*line, "--help"], capture_output=True, text=True, env={**os.environ, **HERE}).stdout
    line += [*files, "--cell-type-key", "celltype", "-o", str(out), "--quiet"]
    tools = {FLOOR: (script(own, "p"), HERE)}
    if peer:
        tools[PEER_FLOOR] = (script(peer, "p"), {})
    tools[OURS] = (script(own, "stdeconv"), HERE)
    if peer:
        tools[PEERS] = (script(peer, "flashdeconv"), {})
    tools[LINE] = (line, HERE)
    if "--no-counts" in options:
        tools[SLIM] = ([*line, "--no-counts"], HERE)
    return tools


def read_through(home: Path) -> None:
    """Read the files of a tissue to their end, so that every tool finds them in the machine's cache."""
    for name in ("st.h5ad", "sc.h5ad"):
        with open(home / name, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def run_size(
    home: Path, repeats: int, limit: float, own: Path, peer: Path | None
) -> tuple[list[dict], dict[str, dict]]:
    """All runs on one tissue (round 0 is the warm-up), and the scores of both tools' last answers."""
    runs: list[dict] = []
    scores: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.h5ad"
        tools = commands(home, out, own, peer)
        for number in range(repeats + 1):
            for tool, (command, variables) in tools.items():
                if any(run["tool"] == tool and run["status"] != "ok" for run in runs):
                    continue
                out.unlink(missing_ok=True)
                os.sync()  # what the run before wrote shall not weigh on this one
                read_through(home)  # nor what the machine let go of while another one ran
                run = {"tool": tool, "round": number, **time_process(command, folder, limit, variables)}
                if run["status"] == "ok" and not out.exists():
                    run["status"] = "wrote nothing"
                if run["status"] == "ok" and tool == OURS:
                    run["seconds"] = json.loads((Path(folder) / "stdout").read_text().splitlines()[-1])
                runs.append(run)
                print(f"  round {number} {tool}: {run['status']}, {run['wall']:.2f} s, {run['cpu']:.2f} s CPU, "
                      f"{run['peak_mb']:.0f} MB", file=sys.stderr, flush=True)  # fmt: skip
                if number == repeats and run["status"] == "ok" and tool in (OURS, PEERS):
                    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "peers_data.py"), "score"]
                    done = subprocess.run([*command, str(out), str(home)], capture_output=True, text=True)
                    if done.returncode:
                        run["status"] = f"no usable answer: {done.stderr.strip().splitlines()[-1][:200]}"
                        continue
                    scores[tool] = json.loads(done.stdout.splitlines()[-1])
    return runs, scores


def summarise(runs: list[dict]) -> tuple[dict[str, dict], dict[str, float]]:
    """Medians by tool, with what lies above the floor of the same interpreter, and the seconds of our stages.

    A tool with a fault has its status and the figures of the run that failed, which are left out of every ratio.
    """
    tools: dict[str, dict] = {}
    for name in dict.fromkeys(run["tool"] for run in runs):
        own = [run for run in runs if run["tool"] == name]
        bad = [run for run in own if run["status"] != "ok"]
        counted = bad[:1] or [run for run in own if run["round"] > 0]
        medians = {key: statistics.median(run[key] for run in counted) for key in ("wall", "cpu", "peak_mb")}
        tools[name] = {"status": bad[0]["status"] if bad else "ok", "runs": len(counted), **medians}
    for name, row in tools.items():
        floor = tools.get(PEER_FLOOR if name == PEERS else FLOOR)
        if name not in (FLOOR, PEER_FLOOR) and good(row) and good(floor):
            row["wall_above"], row["cpu_above"] = (row[key] - floor[key] for key in ("wall", "cpu"))
    ours = [run for run in runs if run["tool"] == OURS and run["round"] > 0 and "seconds" in run]
    if not ours:
        return tools, {}
    return tools, min(ours, key=lambda run: abs(run["wall"] - tools[OURS]["wall"]))["seconds"]


def good(row: dict | None) -> bool:
    """Whether there is a row of a tool that did not fail."""
    return bool(row) and row["status"] == "ok"


def compare(tools: dict[str, dict]) -> dict[str, float | None]:
    """The peer's figure over ours: wall and CPU above the floor, whole wall; ours over the peer's: memory.

    None where one of the two failed, or where ours cannot be told from the floor.
    """
    ours, peer = tools.get(OURS), tools.get(PEERS)
    if not (good(ours) and good(peer)):
        return dict.fromkeys((*SAID, "memory"))

    def ratio(top: float | None, below: float | None) -> float | None:
        return top / below if top is not None and below is not None and below > 0 else None

    ratios = {key: ratio(peer.get(key), ours.get(key)) for key in SAID}
    return {**ratios, "memory": ratio(ours["peak_mb"], peer["peak_mb"])}


def judge(entry: dict) -> list[tuple[str, bool]]:
    """The promises about one kind and size, each with whether it holds."""
    kind, n, tools, ratios = entry["kind"], entry["n"], entry["tools"], entry["ratios"]
    ours, peer = tools[OURS], tools.get(PEERS)
    promises: list[tuple[str, bool]] = []

    def promise(text: str, holds: bool | None) -> None:
        promises.append((f"{kind} {n:,}: {text}", bool(holds)))

    def versus(text: str, value: float | None, holds) -> None:
        """One that compares: where the peer failed and ours did not, it holds."""
        if peer is None:
            return
        if not good(ours):
            promise(f"{text}: ours failed ({ours['status']})", False)
        elif not good(peer):
            promise(f"{text}: {PEERS} failed ({peer['status']}), ours did not", True)
        elif value is None:
            promise(f"{text}: cannot be told", False)
        else:
            promise(f"{text}: {value:.3g}", holds(value))

    if not good(ours):
        promise(f"ours ends well: {ours['status']}", False)
    if kind == "hd":
        rule = max((size for size in FASTER if size <= n), default=None)
        for key, least in FASTER.get(rule, {}).items():
            versus(f"{SAID[key]}, {PEERS} / ours at least {least:g}", ratios[key], lambda v, least=least: v >= least)
        if n >= MEMORY_FROM:
            versus(f"peak memory, ours / {PEERS} at most {MEMORY:g}", ratios["memory"], lambda v: v <= MEMORY)
        if n >= BYTES_FROM:
            peak = ours["peak_mb"] * MB
            promise(f"peak memory of ours under {BYTES / 1e9:g} GB: {peak / 1e9:.2f}", good(ours) and peak < BYTES)
    else:
        versus(f"whole wall, {PEERS} / ours at least 1 (aim: 2)", ratios["wall"], lambda v: v >= 1)
        stages = entry["stages"]
        solve = stages.get("first fit", 0) + stages.get("passes", 0)
        tuning = stages.get("tuning", float("inf"))
        promise(f"tuning takes no longer than the solve: {tuning:.2f} s, {solve:.2f} s", tuning <= solve)
    pearson = [entry["scores"].get(name, {}).get("pearson") for name in (OURS, PEERS)]
    lead = pearson[0] - pearson[1] if None not in pearson else None
    versus("Pearson higher, lead", lead, lambda v: v > 0)
    return promises


def told(entry: dict) -> str:
    """Everything about one kind and size as a person reads it."""
    lines = [
        f"{entry['kind']}, {entry['n']:,} spots ({entry['tissue']}), medians of {entry['repeats']}",
        f"{'':32}{'wall s':>9}{'above':>9}{'CPU s':>9}{'above':>9}{'peak MB':>9}{'Pearson':>9}{'RMSE':>8}",
    ]
    for name, row in entry["tools"].items():
        if not good(row):
            lines.append(f"{name:32}{row['status']}, after {row['wall']:.1f} s, {row['peak_mb']:.0f} MB")
            continue
        above = [f"{row[key]:9.2f}" if key in row else " " * 9 for key in ("wall_above", "cpu_above")]
        line = f"{name:32}{row['wall']:9.2f}{above[0]}{row['cpu']:9.2f}{above[1]}{row['peak_mb']:9.0f}"
        score = entry["scores"].get(name)
        lines.append(line + (f"{score['pearson']:9.4f}{score['rmse']:8.4f}" if score else ""))
    if PEERS in entry["tools"]:
        parts = [f"{SAID.get(key, 'peak memory, ours / ' + PEERS)} "
                 + ("-" if value is None else f"{value:.2f}") for key, value in entry["ratios"].items()]  # fmt: skip
        lines.append(f"{PEERS} / ours: " + ", ".join(parts))
    if entry["stages"]:
        lines.append("our stages, s: " + ", ".join(f"{name} {value:.2f}" for name, value in entry["stages"].items()))
    return "\n".join(lines)


def merge(old: list[dict], new: list[dict]) -> list[dict]:
    """The entries of both, new ones in place of old ones of the same kind and size, in order."""
    entries = {(entry["kind"], entry["n"]): entry for entry in [*old, *new]}
    return [entries[key] for key in sorted(entries)]


def load(file: str | Path) -> list[dict]:
    """The entries of a file of results; none where there is no file."""
    path = Path(file)
    return json.loads(path.read_text()) if path.exists() else []


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 500_000])
    parser.add_argument("--kind", choices=["hd", "visium"], default="hd", help="low-count bins or deep spots")
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds")
    parser.add_argument("--tissue", type=Path, default=Path(tempfile.gettempdir()) / "stdeconv_fast-peers",
                        metavar="FOLDER", help="tissues are kept here, each in KIND-N")  # fmt: skip
    parser.add_argument(
        "--simulator", type=Path, metavar="PATH", help="script run as PATH OUT --n N --kind KIND (default: "
        "../shared/tools/simulate.py beside the checkout, where it is there, else stdeconv_fast.simulate)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="add the numbers to this file, one entry a kind and size")
    parser.add_argument("--plot", metavar="FILE", help="draw the entries of --json, or of this run")
    parser.add_argument("--only-plot", action="store_true", help="run nothing, draw the entries of --json")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one process may take")
    parser.add_argument("--no-peer", action="store_true", help="leave flashdeconv out")
    parser.add_argument("--peer-env", metavar="FOLDER", help="folder of flashdeconv's environment")
    parser.add_argument("--own-env", metavar="FOLDER", help="folder of the environment that ours runs in")
    options = parser.parse_args(arguments)
    if options.only_plot and not (options.json and options.plot):
        parser.error("--only-plot needs --json and --plot")
    if options.repeats < 1 or min(options.sizes) < 1:
        parser.error("--repeats and --sizes must be at least 1")
    if options.simulator and not options.simulator.is_file():
        parser.error(f"--simulator must be a file; got '{options.simulator}'")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.only_plot:
        draw(options.plot, load(options.json))
        return 0
    own = own_python(options.own_env)
    peer = None if options.no_peer else peer_python(options.peer_env)
    simulator = (options.simulator or usual_simulator() or Path()).resolve()
    facts = {"ours": versions(own, ["stdeconv_fast", *COMMON], HERE)}
    if peer:
        facts["peer"] = versions(peer, [PEER.partition("==")[0], *COMMON])
    entries: list[dict] = []
    promises: list[tuple[str, bool]] = []
    for n in sorted(set(options.sizes)):
        home, maker = find_tissue(options.tissue.resolve(), options.kind, n, simulator if simulator.is_file() else None)
        busy = os.getloadavg()[0]
        print(f"{options.kind} {n:,}: {home} ({maker}); load {busy:.1f}", file=sys.stderr, flush=True)
        runs, scores = run_size(home, options.repeats, options.limit, own, peer)
        tools, stages = summarise(runs)
        entry = {
            "kind": options.kind, "n": n, "tissue": maker, "repeats": options.repeats, "limit": options.limit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {**machine(), "load_before": busy}, "versions": facts,
            "tools": tools, "ratios": compare(tools), "scores": scores, "stages": stages, "runs": runs,
        }  # fmt: skip
        entries.append(entry)
        promises += judge(entry)
        print(told(entry) + "\n", flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(merge(load(options.json), [entry]), indent=1) + "\n")
    if options.plot:
        draw(options.plot, load(options.json) if options.json else entries)
    for text, holds in promises:
        print(("ok     " if holds else "FAILED ") + text)
    return 0 if all(holds for _, holds in promises) else 1


def draw(file: str, entries: list[dict]) -> None:
    """Draw the entries; only once all runs are over, as this process stays small until then (see processes.py)."""
    from benchmarks.peers_plot import plot

    plot(entries, file)


if __name__ == "__main__":
    raise SystemExit(main())
