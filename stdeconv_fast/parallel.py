"""Threads: how many, and how the work is cut. The cut depends on the data alone, never on the number of threads.

joblib says how many (its context counts); the chunks of a kernel go to a pool of threads of our own, since joblib's
waiting, 10 ms at a time, costs more than a sweep over a few thousand spots.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from joblib import effective_n_jobs

HEAVY = 256  # spots a chunk where a spot costs tens of microseconds
LIGHT = 16384  # rows a chunk where a row costs well under one


def count_workers(n_jobs: int | None) -> int:
    """Threads to use; -1: the cores that this process may use, None: what joblib's context says, else 1."""
    if n_jobs is None:
        return max(1, effective_n_jobs(None))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores + 1 + n_jobs) if n_jobs < 0 else n_jobs


def cut(n: int, size: int) -> list[tuple[int, int]]:
    """Ranges (start, stop) of `size` rows that cover n rows."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


class Workers:
    """Threads held open for a whole run; see `hold_workers`. `backend.Device` has the same face."""

    device = "cpu"
    width = 1  # chunks that a kernel of few rows is given at a time

    def __init__(self, n: int, pool: Executor | None) -> None:
        self.n = n
        self._pool = pool
        self.host = self  # what runs on arrays of the host

    def each(self, call: Callable[..., Any], jobs: list[tuple]) -> list:
        """Results of `call(*job)` for each job, in order."""
        if self._pool is None or len(jobs) < 2:
            return [call(*job) for job in jobs]
        return list(self._pool.map(lambda job: call(*job), jobs))

    def over(self, kernel: Callable[..., None], n: int, before: tuple, after: tuple, size: int = LIGHT) -> None:
        """Run `kernel(*before, start, stop, *after)` over n rows, `size` at a time; the kernel writes into `after`."""
        self.each(kernel, [(*before, start, stop, *after) for start, stop in cut(n, size)])

    def span(self, kernel: Callable[..., None], start: int, stop: int, before: tuple, after: tuple) -> None:
        """Run `kernel(*before, start, stop, *after)` over one range of rows, in this thread."""
        kernel(*before, start, stop, *after)

    def sums(
        self, kernel: Callable[..., None], n: int, before: tuple, shape: tuple[int, ...], parts: int = 16,
        after: tuple = (),
    ) -> np.ndarray:  # fmt: skip
        """Sum what `kernel(*before, start, stop, *after, sums_out)` adds up over n rows: float64, the same for any
        threads. The kernel writes into `after` what it has to say of each row."""
        size = max(LIGHT // 4, -(-n // parts))
        ranges = cut(n, size)
        sums = [np.zeros(shape) for _ in ranges]
        jobs = [(*before, start, stop, *after, out) for (start, stop), out in zip(ranges, sums, strict=True)]
        self.each(kernel, jobs)
        return np.sum(sums, axis=0) if sums else np.zeros(shape)

    def place(self, parcel: Any) -> Any:
        """The parcel with its arrays where the kernels run: as it is."""
        return parcel

    def fetch(self, parcel: Any) -> Any:
        """The parcel with its arrays on the host: as it is."""
        return parcel


ALONE = Workers(1, None)  # the thread that calls


class _OneBlasThread:
    """BLAS at one thread while any run is on: the first run sets it, the last one out gives back what was."""

    def __init__(self) -> None:
        self._lock, self._runs, self._limits = threading.Lock(), 0, None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._runs:
                self._limits = threadpool_limits(1)
            self._runs += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                self._limits.restore_original_limits()
                self._limits = None


_ONE_BLAS_THREAD = _OneBlasThread()


@contextmanager
def hold_workers(n_jobs: int | None) -> Iterator[Workers]:
    """Hold `n_jobs` threads open, and BLAS at one thread: its sums depend on how many it has."""
    n = count_workers(n_jobs)
    with _ONE_BLAS_THREAD:
        if n == 1:
            yield Workers(1, None)
        else:
            with ThreadPoolExecutor(n, "stdeconv_fast") as pool:
                yield Workers(n, pool)
