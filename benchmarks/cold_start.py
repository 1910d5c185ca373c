"""What the first run after an installation costs, what `stdeconv-fast warmup` saves, and how soon a command answers.

python benchmarks/cold_start.py [--repeats 3] [--n-spots 1000] [--all] [--json FILE]

Every line is a process of its own, timed from outside, start of Python and imports in it; "in deconvolve" is what the
run itself says. A first run has a fresh NUMBA_CACHE_DIR. The runs deconvolve low-count bins (3,000 genes, 20 types)
from plain files, one thread. Medians over the repeats. With --all `warmup --all` is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

COMMAND = (sys.executable, "-m", "stdeconv_fast.cli")


def run_once(folder: str) -> float:
    """Deconvolve the tissue in a folder; seconds that the run says it took."""
    import numpy as np
    from scipy.sparse import load_npz

    from stdeconv_fast import deconvolve

    labels = np.load(f"{folder}/labels.npz")
    result = deconvolve(
        load_npz(f"{folder}/spots.npz"), load_npz(f"{folder}/reference.npz"), labels["places"], labels["types"],
        progress=False, n_jobs=1,
    )  # fmt: skip
    return result.seconds["total"]


def timed(command: tuple[str, ...], cache: Path) -> tuple[float, str]:
    """Seconds and output of one process with a numba cache of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return time.perf_counter() - started, done.stdout


def measure(folder: Path, repeats: int, everything: bool) -> list[dict]:
    """One row for each command; the commands in turn, so that all see the same machine."""
    run = (sys.executable, __file__, "--run", str(folder))
    found: dict[str, list[tuple[float, float | None]]] = {}
    for turn in range(repeats):
        cold, warm, whole = (folder / f"{name}{turn}" for name in ("cold", "warm", "all"))
        plan = [
            ("stdeconv-fast --help", (*COMMAND, "--help"), cold),
            ("import", (sys.executable, "-c", "from stdeconv_fast import deconvolve"), cold),
            ("first run, nothing compiled", run, cold),
            ("second run", run, cold),
            ("stdeconv-fast warmup", (*COMMAND, "warmup"), warm),
            ("warmup again", (*COMMAND, "warmup"), warm),
            ("first run after warmup", run, warm),
        ]
        plan += [("stdeconv-fast warmup --all", (*COMMAND, "warmup", "--all"), whole)] if everything else []
        for name, command, cache in plan:
            seconds, said = timed(command, cache)
            found.setdefault(name, []).append((seconds, float(said) if command == run else None))
    return [summarise(name, runs) for name, runs in found.items()]


def summarise(name: str, runs: list[tuple[float, float | None]]) -> dict:
    """Medians of (seconds of the process, seconds in deconvolve or None)."""
    inner = [own for _, own in runs if own is not None]
    return {
        "what": name,
        "seconds": statistics.median(seconds for seconds, _ in runs),
        "in_deconvolve": statistics.median(inner) if inner else None,
        "runs": [seconds for seconds, _ in runs],
    }


def told(rows: list[dict]) -> str:
    """The rows as a table of text."""
    lines = [f"{'a process of its own':32s}{'seconds':>9s}{'in deconvolve':>16s}"]
    for row in rows:
        own = "" if row["in_deconvolve"] is None else f"{row['in_deconvolve']:.2f}"
        lines.append(f"{row['what']:32s}{row['seconds']:9.2f}{own:>16s}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-spots", type=int, default=1000)
    parser.add_argument("--all", action="store_true", help="time `warmup --all` too")
    parser.add_argument("--json", help="write the numbers as JSON")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(run_once(options.run))
        return 0
    from benchmarks.growth import make_size
    from benchmarks.processes import machine

    with tempfile.TemporaryDirectory() as folder:
        make_size(options.n_spots, folder)
        rows = measure(Path(folder), options.repeats, options.all)
    print(told(rows))
    if options.json:
        whole = {"n_spots": options.n_spots, "repeats": options.repeats, "machine": machine(), "rows": rows}
        Path(options.json).write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
