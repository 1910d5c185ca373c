"""One whole process timed from outside, and what the numbers were measured on."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STEP = 0.05  # seconds between two looks at the memory
MB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")
VERSIONS = """
import importlib, importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return importlib.import_module(name).__version__
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in sys.argv[1:]}}))
"""


def time_process(
    command: list[str], folder: str | Path, limit: float = 1800, environment: dict[str, str] | None = None
) -> dict:
    """Run a command to its end and tell what it used.

    Parameters
    ----------
    command : list of str
    folder : path
        Where it runs, and where its output goes (files stdout and stderr).
    limit : float
        Seconds after which it is killed, with all that it started.
    environment : dict, optional
        Variables on top of those of this process.

    Returns
    -------
    dict
        status ("ok" or what went wrong), wall, cpu (seconds; user and system, with waited-for children), peak_mb: the
        larger of tree_mb, the highest sum of resident memory over the process and its descendants, seen every 50 ms,
        and maxrss_mb, the kernel's own mark.

    Notes
    -----
    The kernel counts what this process holds when it starts the other one as memory of that one (Linux keeps the mark
    over exec). Keep this process small: load no tables here.
    """
    folder = Path(folder)
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        watch = _Watch(process.pid, started + limit)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watch.stop()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    unit = 1 if sys.platform == "darwin" else 1024
    tree, maxrss = watch.peak / MB, usage.ru_maxrss * unit / MB
    fault = f"time limit of {limit:g} s" if watch.late else _fault(process.returncode, folder / "stderr")
    return {
        "status": fault or "ok", "wall": wall, "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": max(tree, maxrss), "tree_mb": tree, "maxrss_mb": maxrss,
    }  # fmt: skip


class _Watch(threading.Thread):
    """Looks at the memory of a process and its descendants until stopped; kills them when their time is over."""

    def __init__(self, pid: int, deadline: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.deadline = pid, deadline
        self.peak, self.late, self._done = 0, False, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(STEP):
            self.peak = max(self.peak, resident(self.pid))
            if time.perf_counter() > self.deadline:
                self.late = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                return

    def stop(self) -> None:
        self._done.set()
        self.join()


def resident(pid: int) -> int:
    """Bytes of resident memory of a process and its descendants; 0 where there is no /proc."""
    total, waiting = 0, [pid]
    while waiting:
        home = Path("/proc", str(waiting.pop()))
        with contextlib.suppress(OSError, IndexError, ValueError):  # it ended just now
            total += int((home / "statm").read_text().split()[1]) * PAGE
            for thread in os.listdir(home / "task"):
                waiting += map(int, (home / "task" / thread / "children").read_text().split())
    return total


def _fault(code: int, stderr: Path) -> str | None:
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    said = stderr.read_text(errors="replace").strip().splitlines()
    return f"exit code {code}" + (f": {said[-1][:200]}" if said else "")


def versions(python: str | Path, packages: list[str], environment: dict[str, str] | None = None) -> dict[str, str]:
    """Versions of an interpreter and of packages that it has."""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", VERSIONS, *packages], check=True, capture_output=True, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return json.loads(done.stdout)


def machine() -> dict:
    """Cores that may be used, model of the CPU, memory in GB (2^30 bytes)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    return {"cores": cores, "cpu": model, "memory_gb": round(memory, 1), "system": platform.platform(terse=True)}
