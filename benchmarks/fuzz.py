"""Inputs from strangers, thousands of them: always the right answer or a clear error of ours.

``python benchmarks/fuzz.py --seconds 600 --seed 0`` mutates small sound inputs, three quarters of them tables for the
library, the others files for the command line, and judges what comes of each. An input is made from the seed and its
number alone; ``--only N`` runs one again. Exit code 1, and what was found under benchmarks/results/fuzz, where any
outcome is bad: an error that is not ours, a hang, a crash of the process, NaN without a status, a warning from inside
NumPy, a partial or left-over file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIMIT = 90  # seconds for one input
ANSWER, OURS = "right answer", "our error"
GOOD = (ANSWER, OURS)


def judge_shares(shares: Any, status: Any) -> str | None:
    """What is wrong with proportions, if anything: rows sum to 1, or are NaN with a status that says why."""
    values, status = np.asarray(shares, dtype=np.float64), np.asarray(status).astype(str)
    if len(values) != len(status):
        return f"{len(values)} rows for {len(status)} spots"
    ok = status == "ok"
    if np.isnan(values[ok]).any():
        return "silent NaN"
    if not np.isnan(values[~ok]).all():
        return "proportions where the status says there are none"
    if not np.isfinite(values[ok]).all() or (values[ok] < 0).any() or (np.abs(values[ok].sum(axis=1) - 1) > 1e-4).any():
        return "rows that do not sum to 1"
    return None


def try_library(seed: int, number: int) -> dict:
    """Run one case of the library."""
    from benchmarks import fuzz_tables
    from stdeconv_fast import DataError, DeviceError, deconvolve

    given, told = fuzz_tables.make(seed, number)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = deconvolve(**given)
        except (DataError, DeviceError) as fault:
            outcome = OURS if str(fault).strip() else "an error without words"
            return {"outcome": outcome, "told": told, "said": str(fault)[:300], **_leaks(caught)}
        except Exception as fault:
            return {"outcome": f"{type(fault).__name__}", "told": told, "said": traceback.format_exc()[-3000:]}
    fault = judge_shares(result.proportions, result.status)
    if fault is None and number % 5 == 0:
        fault = _permuted(given, result)
    return {"outcome": fault or ANSWER, "told": told, "said": "", **({} if fault else _leaks(caught))}


def _leaks(caught: list) -> dict:
    """A warning that is none of ours, as the outcome."""
    from stdeconv_fast import DataWarning

    for warning in caught:
        ours = issubclass(warning.category, DataWarning) or "joblib" in str(warning.filename)
        if not ours and not issubclass(warning.category, FutureWarning | DeprecationWarning | ResourceWarning):
            where = f"{warning.filename}:{warning.lineno}"
            return {
                "outcome": "a warning from within",
                "said": f"{warning.category.__name__}: {warning.message} {where}",
            }
    return {}


def _permuted(given: dict, result: Any) -> str | None:
    """The answer must not hang on the order of the spots, where that can be changed with no more ado."""
    from stdeconv_fast import deconvolve

    spots, places = given["spatial"], given["coordinates"]
    plain = type(spots) is np.ndarray and type(places) is np.ndarray and given["sections"] is None
    if not plain or "tiles" in given:
        return None
    order = np.random.default_rng(0).permutation(len(spots))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = deconvolve(**{**given, "spatial": spots[order], "coordinates": places[order]})
    one, two = result.proportions.to_numpy()[order], other.proportions.to_numpy()
    return None if np.allclose(one, two, atol=2e-3, equal_nan=True) else "another answer for another order of spots"


def of_files(number: int) -> bool:
    """Whether a case is one of the command line."""
    return number % 4 == 1


def try_one(seed: int, number: int, folder: Path) -> dict:
    """Run one case: one in four is files, which take longer, the others tables."""
    if not of_files(number):
        return try_library(seed, number)
    from benchmarks import fuzz_files

    return fuzz_files.try_command(seed, number, folder)


# -- the child: runs cases until told to stop --------------------------------------------------------------------------


def work() -> None:
    """Read "seed number folder" lines, answer with one line of JSON each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    for line in sys.stdin:
        seed, number, folder = line.rstrip("\n").split(" ", 2)
        started = time.perf_counter()
        try:
            found = try_one(int(seed), int(number), Path(folder))
        except Exception:
            found = {"outcome": "a fault of the harness", "told": [], "said": traceback.format_exc()[-3000:]}
        found["seconds"] = time.perf_counter() - started
        answers.write(json.dumps(found, default=str) + "\n")
        answers.flush()


class Child:
    """A process that runs cases; a new one takes its place when it hangs or dies."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=open(self.log, "w"), text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},  # noqa: SIM115
        )  # fmt: skip
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, args=(self.process, self.lines), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen, lines: queue.Queue) -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    def run(self, seed: int, number: int, folder: Path, limit: float) -> dict:
        self.process.stdin.write(f"{seed} {number} {folder}\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.stop()
            self.start()
            return {"outcome": "hang", "told": [], "said": f"no answer in {limit:g} s", "seconds": limit}
        if line is not None:
            return json.loads(line)
        code = self.process.wait()
        said = self.log.read_text(errors="replace")[-2000:]
        self.start()
        return {"outcome": f"crash of the process ({code})", "told": [], "said": said, "seconds": 0.0}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--append", action="store_true", help="add to what --out holds, of another --first")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="run this one and tell all of it")
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    parser.add_argument("--keep", type=Path, default=RESULTS / "fuzz", help="folder for inputs with a bad outcome")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        work()
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        if asked.only is not None:
            found = try_one(asked.seed, asked.only, Path(temporary))
            print(json.dumps(found, indent=1, default=str).replace("\\n", "\n"))
            return int(found["outcome"] not in GOOD)
        summary = fuzz(asked, Path(temporary))
    if asked.append and asked.out.exists():
        summary = join(json.loads(asked.out.read_text()), summary)
    asked.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps({name: value for name, value in summary.items() if name != "bad"}, indent=1))
    for bad in summary["bad"]:
        print(f"{bad['number']}: {bad['outcome']}: {'; '.join(bad['told'])}")
    return int(bool(summary["bad"]))


def fuzz(asked: argparse.Namespace, temporary: Path) -> dict:
    """Run cases until the time is over."""
    from benchmarks.processes import machine

    children = [Child(temporary / f"log-{i}") for i in range(asked.workers)]
    counts, bad, slowest = {"library": Counter(), "command line": Counter()}, [], (0.0, -1)
    spent, numbers, lock = Counter(), itertools.count(asked.first), threading.Lock()
    children[0].run(asked.seed, 0, temporary / "warm", 300)  # imports and compiles
    started = time.perf_counter()

    def go_on(child: Child) -> None:
        nonlocal slowest
        while time.perf_counter() - started < asked.seconds:
            with lock:
                number = next(numbers)
            folder = temporary / f"case-{number}"
            found = child.run(asked.seed, number, folder, LIMIT)
            face = "command line" if of_files(number) else "library"
            with lock:
                counts[face][found["outcome"]] += 1
                spent[face] += found["seconds"]
                slowest = max(slowest, (found["seconds"], number))
                if found["outcome"] not in GOOD:
                    bad.append({"number": number, **found})
                    _keep(asked.keep / f"seed{asked.seed}-{number}", found, folder)
            shutil.rmtree(folder, ignore_errors=True)

    threads = [threading.Thread(target=go_on, args=(child,)) for child in children]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for child in children:
            child.stop()
    return {
        "seed": asked.seed, "first": asked.first, "inputs": sum(sum(found.values()) for found in counts.values()),
        "seconds": round(time.perf_counter() - started, 1),
        "outcomes": {face: dict(found.most_common()) for face, found in counts.items()},
        "seconds_by_face": {face: round(seconds, 1) for face, seconds in spent.items()},
        "slowest_seconds": round(slowest[0], 2), "slowest": slowest[1], "workers": asked.workers,
        "machine": machine(), "bad": bad,
    }  # fmt: skip


def join(one: dict, other: dict) -> dict:
    """Two parts of one run, of the same seed and with different numbers, as one."""
    if one["seed"] != other["seed"]:
        raise SystemExit(f"--append must add to a run of the same seed; got {one['seed']} and {other['seed']}.")
    slowest = max(one, other, key=lambda part: part["slowest_seconds"])
    counts = {face: Counter(one["outcomes"][face]) + Counter(other["outcomes"][face]) for face in one["outcomes"]}
    spent = Counter(one["seconds_by_face"]) + Counter(other["seconds_by_face"])
    return {
        **other,
        "outcomes": {face: dict(found.most_common()) for face, found in counts.items()},
        "first": [*np.atleast_1d(one["first"]).tolist(), other["first"]],
        "inputs": one["inputs"] + other["inputs"],
        "seconds": round(one["seconds"] + other["seconds"], 1),
        "seconds_by_face": {face: round(seconds, 1) for face, seconds in spent.items()},
        "slowest_seconds": slowest["slowest_seconds"],
        "slowest": slowest["slowest"],
        "bad": one["bad"] + other["bad"],
    }


def _keep(kept: Path, found: dict, folder: Path) -> None:
    """Keep what a bad outcome was found with."""
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "case.json").write_text(json.dumps(found, indent=1))
    if folder.is_dir():
        shutil.copytree(folder, kept / "files", dirs_exist_ok=True, symlinks=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
