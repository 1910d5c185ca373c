"""How long a run would take: its own stages, timed on a part of the spots, and scaled."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ..errors import DataError
from ..parallel import Workers
from ..parcels import Inputs
from ..pipeline import run
from ..procedures.pieces import Whole
from ..procedures.tiles import Tiled
from ..settings import Settings
from ..stages import graph, ingest, reference
from .warmup import count_forms, list_kernels

FIRST, MOST = 1_000, 20_000  # spots of the first part that is timed, and of the second at most
BUDGET = 6.0  # seconds that the second part may take
TINY = 300  # spots that load what is compiled, or compile it
PATCHES = 8
ONCE = ("input", "reference", "counts")  # stages that were timed on all spots, or take no longer with more of them
FIXED = ("tuning",)  # on a sample of about 1,000 spots, however many there are


@dataclass
class Start:
    """What the first run of a process waits for: kernels that are loaded, or compiled.

    Attributes
    ----------
    seconds : float
        That loading and compiling took, as far as `take` met them.
    """

    seconds: float = 0.0
    _kernels: list[Any] = field(default_factory=list_kernels)

    def __post_init__(self) -> None:
        self._before = count_forms(self._kernels)[0]

    @property
    def compiled(self) -> int:
        """Kernels compiled since this was made."""
        return count_forms(self._kernels)[0] - self._before

    @property
    def kept(self) -> bool:
        """Whether a later process finds them."""
        return all(kernel.stats.cache_path for kernel in self._kernels)

    def take(self, work: Any) -> None:
        """Do some small work twice: what the first time takes longer is added."""
        spent = []
        for _ in range(2):
            started = time.perf_counter()
            try:
                work()
            except DataError:  # a few spots or cells need not be usable by themselves
                return
            spent.append(time.perf_counter() - started)
        self.seconds += max(0.0, spent[0] - spent[1])

    def sum_some(self, inputs: Inputs, workers: Workers) -> None:
        """Meet the kernels that sum the reference."""
        cells, types = inputs.reference[:TINY], inputs.cell_types[:TINY]
        if cells.shape[0]:
            self.take(lambda: reference.sum_types(cells, types, len(inputs.types), workers))

    def solve_some(self, inputs: Inputs, settings: Settings, device: str) -> None:
        """Meet the kernels of a run, on some spots from the middle of the table."""
        usable = np.flatnonzero(inputs.spot_status == "ok")
        if len(usable):
            start = int(usable[max(0, len(usable) // 2 - TINY // 2)])
            rows = np.arange(start, min(start + TINY, len(inputs.spot_status)))
            some = _part(inputs, ingest.source_of(inputs.spots).read(int(rows[0]), int(rows[-1]) + 1), rows)
            some = replace(some, spot_status=inputs.spot_status[rows])
            self.take(lambda: _run(some, settings, device))


def forecast(
    inputs: Inputs, settings: Settings, device: str, pieces: Whole | Tiled, kept: np.ndarray, rows: np.ndarray
) -> tuple[dict[str, float], int]:
    """Seconds of each stage of a run on all spots, besides reading, and how many spots were timed.

    Parameters
    ----------
    inputs : Inputs
        With the sums of the reference.
    settings : Settings
    device : str
    pieces : Whole or Tiled
        Counts of the kept genes in the spots used.
    kept : (n_genes,) int64
    rows : (n_used,) int64
        The spots used.

    Notes
    -----
    Whole patches of the tissue are solved as a run solves them: about 1,000 spots, then as many as take a few seconds,
    20,000 at most. A stage is taken to need a fixed time and one that grows with the spots, which the two parts tell.
    Where the second part is all there is nothing is scaled.
    """
    coordinates, sections = inputs.coordinates[rows], inputs.sections[rows]
    keys = graph.spot_keys(coordinates, pieces.totals, settings.seed)

    def run_part(n_spots: int) -> tuple[dict[str, float], int]:
        chosen = graph.choose_patches(coordinates, sections, keys, PATCHES, -(-n_spots // PATCHES))
        counts = pieces.take(chosen)
        dtype = getattr(inputs.spots, "dtype", counts.data.dtype)
        matrix = csr_matrix(
            (counts.data.astype(dtype), counts.indices.astype(np.int32), counts.indptr),
            shape=(len(chosen), counts.n_genes),
        )
        part = replace(
            _part(inputs, matrix, rows[chosen]), genes=inputs.genes[kept], spot_genes=np.arange(len(kept)),
            reference_genes=inputs.reference_genes[kept],
        )  # fmt: skip
        return _run(part, settings, device), len(chosen)

    n = len(rows)
    first, n_first = run_part(FIRST)
    if n_first == n:
        return _solving(first), n
    share = BUDGET / max(sum(seconds for name, seconds in first.items() if name not in FIXED), 1e-9)
    second, n_second = run_part(int(min(n, MOST, max(2 * FIRST, FIRST * share))))
    found = {}
    for name, seconds in _solving(second).items():
        slope = max(0.0, (seconds - first[name]) / (n_second - n_first))
        found[name] = seconds if name in FIXED else seconds + slope * (n - n_second)
    return found, n_second


def _solving(seconds: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in seconds.items() if name not in ONCE}


def _part(inputs: Inputs, matrix: Any, rows: np.ndarray) -> Inputs:
    """The input of some spots, all usable."""
    source = ingest.InMemory(matrix)  # is read as those on disk are, so that the same kernels are met
    source.where = "spatial.X"
    links = None if inputs.links is None else inputs.links[rows][:, rows]
    return replace(
        inputs, spots=source, coordinates=inputs.coordinates[rows],
        sections=inputs.sections[rows], spot_names=inputs.spot_names[rows],
        spot_status=np.full(len(rows), "ok", dtype=object), links=links,
    )  # fmt: skip


def _run(inputs: Inputs, settings: Settings, device: str) -> dict[str, float]:
    """Seconds by stage of a run, whose warnings are of no interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = run(inputs, settings, device=device).seconds
    return {name: value for name, value in seconds.items() if name != "total"}
