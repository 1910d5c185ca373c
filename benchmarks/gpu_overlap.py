"""What a first solve gains that begins before the counts are up, and what launches cost; `gpu_day.py scale` asks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import sparse

from stdeconv_fast import backend, deconvolve
from stdeconv_fast.kernels.cpu.laplacian import apply_laplacian
from stdeconv_fast.kernels.cuda import loader
from stdeconv_fast.parcels import Counts, Reference
from stdeconv_fast.procedures import passes
from stdeconv_fast.procedures.pieces import Whole

REPEATS = 2
LAUNCHES = 2000


def pose(spots: Any, cells: Any, cell_types: np.ndarray) -> tuple[Counts, Reference]:
    """Counts of all genes as the solver takes them, and mean profiles of the types."""
    spots, cells = sparse.csr_matrix(spots), sparse.csr_matrix(cells)
    spots.sum_duplicates()
    names, kinds = np.unique(cell_types, return_inverse=True)
    members = sparse.csr_matrix((np.ones(len(kinds)), (kinds, np.arange(len(kinds)))), (len(names), len(kinds)))
    profiles = (members @ cells).toarray() + 1e-9
    profiles /= profiles.sum(axis=1, keepdims=True)
    n_genes = spots.shape[1]
    ones = np.ones(n_genes)
    counts = Counts(
        spots.indptr.astype(np.int64), spots.indices.astype(np.uint16), spots.data.astype(np.uint16),
        np.asarray(spots.sum(axis=1)).ravel().astype(np.float32), n_genes,
    )  # fmt: skip
    return counts, Reference(profiles, ones, ones, np.arange(n_genes), np.ones(len(names)), 0.0, "none")


def measure_overlap(spots: Any, cells: Any, cell_types: np.ndarray) -> dict:
    """Seconds from counts on the host to every spot solved alone, median of some turns.

    "together": the solve begins with the first rows that are up, as runs do. "apart": it waits for all of them, which
    went up through the same buffers. "upload": no solve. The first turn of each warms up and does not count.
    """
    counts, known = pose(spots, cells, cell_types)
    seconds: dict[str, list[float]] = {"together": [], "apart": [], "upload": []}
    bits = {}
    usual = backend.OVERLAP
    try:
        for _ in range(REPEATS + 1):
            for how, found in seconds.items():
                backend.OVERLAP = how == "together"
                with backend.hold_device("cuda", None) as device:
                    started = time.perf_counter()
                    pieces = Whole(counts, device)
                    pieces.pose(known, "poisson")
                    if how != "upload":
                        bits[how] = pieces.solve_alone(1.0, passes.START)
                    found.append(time.perf_counter() - started)
                    if how != "upload":
                        bits[how] = device.fetch(bits[how])
                    del pieces
    finally:
        backend.OVERLAP = usual
    return {
        "bytes": counts.indices.nbytes + counts.data.nbytes,
        "seconds": {how: statistics.median(found[1:]) for how, found in seconds.items()},
        "same": bits["together"].tobytes() == bits["apart"].tobytes(),
    }


@contextmanager
def watch_passes() -> Iterator[dict[str, float]]:
    """Count the launches of our kernels during the passes, and their seconds."""
    told = {"launches": 0, "seconds": 0.0}
    launch, alternate, within = loader.Twins.launch, passes.alternate, []

    def count(self: loader.Twins, *arguments: Any, **named: Any) -> None:
        told["launches"] += bool(within)
        launch(self, *arguments, **named)

    def watch(*arguments: Any, **named: Any) -> Any:
        within.append(True)
        started = time.perf_counter()
        try:
            return alternate(*arguments, **named)
        finally:
            told["seconds"] += time.perf_counter() - started
            within.pop()

    loader.Twins.launch, passes.alternate = count, watch
    try:
        yield told
    finally:
        loader.Twins.launch, passes.alternate = launch, alternate


def measure_launches(small: tuple) -> dict[str, float]:
    """Seconds that a launch costs.

    "bare": a launch of a kernel with next to nothing to do, many in a row. "around": seconds of the passes for each
    launch on a tissue so small that the device has nothing to do: with the operations on arrays between the kernels and
    the waits of the host for them (how many spots are due), which a graph could not hold.
    """
    with watch_passes() as told:
        deconvolve(*small, device="cuda", progress=False)
    with backend.hold_device("cuda", None) as device:
        return {"bare": time_launch(device), "around": told["seconds"] / max(told["launches"], 1)}


def judge_launches(told: dict[str, float], each: dict[str, float]) -> dict:
    """Whether a CUDA graph of the passes could help: the part of their seconds that launches take, at most."""
    shares = {how: told["launches"] * cost / max(told["seconds"], 1e-9) for how, cost in each.items()}
    return {**told, "seconds_each": each, "shares": shares}


def time_launch(device: backend.Device) -> float:
    """Seconds of one launch, of many in a row."""
    xp = device.card.xp
    n = np.array([0, 0], np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(1), np.zeros((1, 4))
    before, after = (*device.place(n), 1.0), (device.place(np.zeros((1, 4))),)
    first, last = xp.cuda.Event(), xp.cuda.Event()
    for turns in (20, LAUNCHES):  # the first ones build it
        first.record()
        for _ in range(turns):
            device.over(apply_laplacian, 1, before, after)
        last.record()
        last.synchronize()
    return xp.cuda.get_elapsed_time(first, last) / 1e3 / LAUNCHES
