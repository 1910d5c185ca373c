"""Runs kernels on the stand-in device in a process of its own, so that a crash ends no test run.

python -m tests.cuda_shim.child JOB ANSWER: JOB is a pickle of (seeds, change, cases), ANSWER of the outputs, a list for
each seed. A case is (module of the CPU kernel, its name, rows, arguments before, after, shape of sums or None); a
change is (stem, old, new) and edits the source first.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_cases(xp: Any, shared: int, cases: list[tuple]) -> list[list]:
    """What each case wrote: the arrays of `after`, then the sums."""
    import numpy as np

    from stdeconv_fast.kernels.cuda import loader

    def place(value: Any) -> Any:
        return xp.asarray(value) if isinstance(value, np.ndarray) and value.ndim else value

    twins, answers = loader.Twins(xp, shared), []
    for module, name, n, before, after, shape in cases:
        kernel = SimpleNamespace(__module__=module, __name__=name)
        before, after = tuple(map(place, before)), tuple(map(place, after))
        sums = []
        if shape is None:
            twins.over(kernel, n, before, after)
        else:
            sums = [twins.sums(kernel, n, before, shape, after).get()]
        answers.append([value.get() for value in after if isinstance(value, xp.ndarray)] + sums)
    return answers


def in_child(cases: list[tuple], seed: int = 0, change: tuple[str, str, str] | None = None) -> list[list]:
    """`run_cases` on the stand-in, in a child process; RuntimeError with what it said where it fails."""
    return with_seeds(cases, (seed,), change)[0]


def with_seeds(
    cases: list[tuple], seeds: tuple[int, ...], change: tuple[str, str, str] | None = None
) -> list[list[list]]:
    """The same for several seeds, in one child process."""
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job", Path(folder) / "answer"
        job.write_bytes(pickle.dumps((seeds, change, cases)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.cuda_shim.child", str(job), str(answer)],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return pickle.loads(answer.read_bytes())


def main() -> None:
    from stdeconv_fast.kernels.cuda import loader

    from .stand_in import StandIn

    seeds, change, cases = pickle.loads(Path(sys.argv[1]).read_bytes())
    if change is not None:
        stem, old, new = change
        text = loader.read_source(stem)
        assert text.count(old) >= 1, f"{old!r} is not in {stem}.cu"
        changed, original = text.replace(old, new), loader.read_source
        loader.read_source = lambda name: changed if name == stem else original(name)
    answers = []
    for StandIn.seed in seeds:
        answers.append(run_cases(StandIn, 64 << 10, cases))
    Path(sys.argv[2]).write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    main()
