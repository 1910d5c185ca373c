"""What is done to one tile: functions and arguments that any process can be handed, and how a round of them is run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ..backend import hold_device
from ..parcels import Counts, Graph, Reference
from ..stages import graph, solve_types
from ..stages.ingest import NARROW, Block
from ..work_folder import WorkFolder, read_arrays, write_array
from . import passes, uncertainty

log = logging.getLogger("stdeconv_fast")

TRIES = 4  # a job whose worker was lost is run again up to three times
ENTRIES = ("indices", "data")  # the fields of a block that go to files of their own

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Posed:
    """What tiles are solved against, as a job can be told.

    Attributes
    ----------
    store : str
        The store of the work folder.
    known : str
        File of the reference in it.
    loss : str
    unit : float
        What one count weighs in the objective, over all tiles.
    device : {"cpu", "cuda"}
    """

    store: str
    known: str
    loss: str
    unit: float = 1.0
    device: str = "cpu"


# -- a round of jobs -------------------------------------------------------------------------------------------------


def run(
    folder: WorkFolder,
    room: str,
    job: Callable[..., Arrays],
    numbers: Iterable[int],
    arguments: Callable[[int], tuple],
    n_jobs: int | None,
    sync: bool = False,
) -> None:
    """Run `job(*arguments(number))` for each number whose result is not in the room yet, and keep the results there.

    joblib's context says where: threads by default, or the processes or the cluster of
    ``joblib.parallel_config(backend=...)``. The arguments are asked for as the jobs start, in any thread, a few ahead.

    Parameters
    ----------
    folder : WorkFolder
    room : str
        Results are "room/number" there; a room may end in "/" and the beginning of a name.
    job : callable
        A function of a module; gives arrays by name.
    numbers : iterable of int
    arguments : callable
    n_jobs : int or None
        As joblib takes it.
    sync : bool
        As in `WorkFolder.write`.

    Raises
    ------
    Exception
        Whatever a job raises; what tells of a lost worker after `TRIES` times.
    """
    left = [number for number in numbers if folder.read(name_of(room, number)) is None]
    for turn in range(TRIES):
        parallel = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator_unordered")
        try:
            for number, found in parallel(delayed(_numbered)(job, number, arguments(number)) for number in left):
                folder.write(name_of(room, number), sync=sync, **found)
            return
        except Exception as error:
            if not _worker_lost(error) or turn == TRIES - 1:
                raise
            log.warning("a worker was lost (%s); its jobs are run again", str(error).partition("\n")[0])
            left = [number for number in left if not folder.has(name_of(room, number))]


def name_of(room: str, number: int) -> str:
    """Name of a numbered result."""
    return f"{room}/{number:06d}" if "/" not in room else f"{room}-{number:06d}"


def _numbered(job: Callable[..., Arrays], number: int, arguments: tuple) -> tuple[int, Arrays]:
    return number, job(*arguments)


def _worker_lost(error: BaseException) -> bool:
    """Whether a process ended under a job, for loky (a BrokenExecutor) and for dask (which need not be installed)."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


# -- reading ---------------------------------------------------------------------------------------------------------


def read_range(
    room: str, number: int, read_block: Callable[[int, int], Block], start: int, stop: int, tiles: np.ndarray
) -> Arrays:
    """Read rows [start, stop), write their entries to two files, grouped by tile; gives the rest of the block.

    Parameters
    ----------
    room : str
        The folder to write to.
    number : int
        Of the range.
    read_block : callable
    tiles : (stop - start,) int
        Tile of each row.
    """
    block = read_block(start, stop)
    if not block.n_bad:  # else there are no entries, and the caller will say so
        ends = np.cumsum(block.lengths)
        order = np.argsort(tiles, kind="stable")
        at = places((ends - block.lengths)[order], block.lengths[order])
        write_array(f"{room}/{number:06d}-indices.npy", block.indices[at])
        write_array(f"{room}/{number:06d}-data.npy", narrowed(block.data[at]))
    return {field.name: getattr(block, field.name) for field in fields(block) if field.name not in ENTRIES}


def read_rest(found: Arrays) -> Block:
    """A block without its entries, from what `read_range` gave."""
    empty = {name: np.zeros(0, np.uint16) for name in ENTRIES}
    return Block(**empty, **{name: value if value.ndim else value.item() for name, value in found.items()})


def join_tile(
    room: str, store: str, tile: int, pieces: np.ndarray, lengths: np.ndarray, totals: np.ndarray,
    renumber: np.ndarray | None,
) -> Arrays:  # fmt: skip
    """Bring the entries of a tile together in two files of its own; gives its row pointers and totals.

    Parameters
    ----------
    room : str
        The folder of the entries.
    store : str
    tile : int
    pieces : (n_pieces, 3) int64
        Range, first and last entry of each run of entries of the tile.
    lengths, totals : (n_rows,)
        Entries and counts of the rows of the tile, none of them 0.
    renumber : (n_candidates,) int, optional
        Position among the kept genes of each gene that could have been kept.
    """
    indices, data = (
        np.concatenate([_open(f"{room}/{number:06d}-{name}.npy")[first:last] for number, first, last in pieces])
        for name in ENTRIES
    )
    if renumber is not None:
        wide = renumber.max(initial=0) > NARROW
        indices = renumber[indices].astype(np.int32 if wide else np.uint16)
    floats = np.float32 if totals.dtype == np.float32 else None
    write_array(f"{store}/tiles/{tile:06d}-indices.npy", indices)
    write_array(f"{store}/tiles/{tile:06d}-data.npy", narrowed(data, floats))
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return {"indptr": indptr, "totals": totals}


def narrowed(data: np.ndarray, floats: Any = None) -> np.ndarray:
    """Counts in the fewest bytes that hold them: uint8, uint16, float32, else as they are.

    Parameters
    ----------
    data : ndarray
        Counts, > 0.
    floats : dtype, optional
        What those that are not whole are rounded to; by default none is.
    """
    top = data.max(initial=0)
    whole = data.dtype.kind in "ui" or bool((data == np.rint(data)).all())
    if whole and top <= NARROW:
        return data.astype(np.uint8 if top < 256 else np.uint16, copy=False)
    single = data.astype(np.float32)
    return single if floats == np.float32 or (single == data).all() else data.astype(np.float64, copy=False)


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of runs of entries, one run after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def find_pieces(ranges: list[tuple[int, int]], tiles: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where the entries of each tile lie: (tile, range, first entry, last entry) by tile, then range, int64."""
    pieces = []
    for number, (start, stop) in enumerate(ranges):
        order = np.argsort(tiles[start:stop], kind="stable")
        of_row, ends = tiles[start:stop][order], np.cumsum(lengths[start:stop][order])
        last = np.flatnonzero(np.diff(of_row, append=-2))  # last row of each tile
        upto = ends[last]
        pieces.append(np.column_stack([of_row[last], np.full(len(last), number), np.append(0, upto[:-1]), upto]))
    pieces = np.concatenate(pieces).astype(np.int64)
    return pieces[np.argsort(pieces[:, 0], kind="stable")]


# -- solving ---------------------------------------------------------------------------------------------------------


def open_counts(store: str, tile: int, n_genes: int) -> Counts:
    """The counts of a tile; those of its spots that are not looked at stay on the disk."""
    head = read_arrays(f"{store}/tiles/{tile:06d}.npz")
    if head is None:
        raise FileNotFoundError(f"{store}/tiles must hold the counts of every tile; got none of tile {tile}.")
    indices, data = (_open(f"{store}/tiles/{tile:06d}-{name}.npy") for name in ENTRIES)
    return Counts(head["indptr"], indices, data, head["totals"], n_genes)


def _open(path: str) -> np.ndarray:
    """An array on disk as one in memory: its pages are read when they are touched.

    Opened for changes that never reach the disk, so that kernels are compiled once for it and for what they may
    write; they write nothing here.
    """
    return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)


def write_reference(folder: WorkFolder, name: str, known: Reference) -> None:
    """Keep a reference in the folder, for the jobs."""
    folder.write(name, **vars(known))


@lru_cache(maxsize=2)
def read_reference(posed: Posed) -> Reference:
    """What `write_reference` kept; its name tells what is in it."""
    found = read_arrays(Path(posed.store) / f"{posed.known}.npz")
    return Reference(**{name: value if value.ndim else value.item() for name, value in found.items()})


def pose_tile(posed: Posed, tile: int, n_halo: int = 0) -> solve_types.Problem:
    """The problem of a tile; the spots of its halo come after its own, without counts."""
    known = read_reference(posed)
    counts = open_counts(posed.store, tile, known.profiles.shape[1])
    if n_halo:
        indptr, totals = np.pad(counts.indptr, (0, n_halo), "edge"), np.pad(counts.totals, (0, n_halo))
        counts = replace(counts, indptr=indptr, totals=totals)
    return replace(solve_types.pose(counts, known, posed.loss), unit=posed.unit)


def solve_tile(
    posed: Posed, tile: int, abundances: np.ndarray | None, lambda_ridge: float, tolerance: float
) -> Arrays:
    """Solve the spots of a tile without their neighbours, from an even start or from these abundances."""
    with hold_device(posed.device, 1) as workers:
        problem = workers.place(pose_tile(posed, tile))
        alone = workers.place(graph.no_neighbours(problem.counts.n_spots))
        cold = abundances is None
        abundances = solve_types.start_evenly(problem) if cold else workers.place(np.array(abundances))
        solve_types.solve_alone(problem, abundances, alone, lambda_ridge, workers, cold, tolerance)
        return {"abundances": workers.fetch(abundances)}


def settle_tile(
    posed: Posed, tile: int, abundances: np.ndarray, weights: np.ndarray, degrees: np.ndarray, owed: np.ndarray,
    relax: float, strengths: tuple[float, float, float], limit: float,
) -> Arrays:  # fmt: skip
    """Sweep over the spots of a tile until none is far from its answer, the spots of the halo held.

    Parameters
    ----------
    posed : Posed
    tile : int
    abundances : (n_own + n_halo, n_types) float
    weights : (n_edges,) float
        Of the edges of the tile's own spots, in the order of its links.
    degrees, owed : (n_own,) float
    relax : float
    strengths : tuple
        lambda_spatial, phi, lambda_ridge.
    limit : float
        As in `passes.settle`.
    """
    found = read_arrays(f"{posed.store}/links/{tile:06d}.npz")
    n_own, n_halo = len(owed), len(abundances) - len(owed)
    none, colour = np.zeros(0), found["colour"]
    links = Graph(
        np.pad(found["indptr"], (0, n_halo), "edge"), found["indices"], np.zeros(0, np.int64), none,
        np.array(weights), np.pad(degrees, (0, n_halo)),
        tuple(np.flatnonzero(colour == number).astype(np.int32) for number in np.unique(colour)),
    )  # fmt: skip
    abundances, owed = np.array(abundances), np.pad(owed, (0, n_halo))  # copies: they may have come read-only
    with hold_device(posed.device, 1) as workers:
        problem, links = workers.place((pose_tile(posed, tile, n_halo), links))
        abundances, owed = workers.place((abundances, owed))
        relax = passes.settle(problem, abundances, links, *strengths, owed, workers, relax, limit)
        abundances, owed = workers.fetch((abundances, owed))
    return {"abundances": abundances[:n_own], "owed": owed[:n_own], "relax": relax}


def fit_tile(posed: Posed, tile: int, abundances: np.ndarray, direction: uncertainty.Direction) -> Arrays:
    """How the counts of a tile compare with what is expected; see `uncertainty.Fit`."""
    with hold_device(posed.device, 1) as workers:
        problem, known = workers.place(pose_tile(posed, tile)), read_reference(posed)
        fit = uncertainty.measure_fit(problem, known, np.array(abundances), direction, workers)
    return vars(fit)


def errors_tile(
    posed: Posed, tile: int, abundances: np.ndarray, degrees: np.ndarray, lambda_spatial: float, lambda_ridge: float,
    mrna_content: np.ndarray | None, dispersion: np.ndarray,
) -> Arrays:  # fmt: skip
    """Standard errors of the proportions in a tile; see `uncertainty.estimate_errors`."""
    with hold_device(posed.device, 1) as workers:
        problem = workers.place(pose_tile(posed, tile))
        links = replace(graph.no_neighbours(len(degrees)), degrees=np.array(degrees))
        errors = uncertainty.estimate_errors(
            problem, dispersion, np.array(abundances), links, lambda_spatial, lambda_ridge, mrna_content, workers
        )
    return {"errors": errors}


def absence_tile(
    posed: Posed, tile: int, abundances: np.ndarray, degrees: np.ndarray, pulls: np.ndarray, lambda_spatial: float,
    lambda_ridge: float, dispersion: np.ndarray,
) -> Arrays:  # fmt: skip
    """Likelihood ratios against the absence of types in a tile; see `uncertainty.weigh_absence`."""
    with hold_device(posed.device, 1) as workers:
        statistics = uncertainty.weigh_absence(
            workers.place(pose_tile(posed, tile)), dispersion, np.array(abundances), np.array(degrees), np.array(pulls),
            lambda_spatial, lambda_ridge, workers,
        )  # fmt: skip
    return {"absence": statistics}
