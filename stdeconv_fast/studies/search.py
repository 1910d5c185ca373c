"""The search over settings: which are tried, where they run, what is kept of them."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from ..parcels import Inputs
from ..procedures import tile_jobs
from ..settings import Settings, raise_faults
from ..stages.inputs import read_inputs
from ..work_folder import WorkFolder, digest
from .trials import SCORES, Task, attempt, choose_types, set_task

FREE = ("n_jobs", "progress", "device")  # they change no answer
READING = ("check_counts",)  # read once, before the trials
MOST_DRAWS = 100  # draws a trial, until one is found that was not tried


@dataclass(frozen=True, repr=False)
class Tuning:
    """What a search found.

    Attributes
    ----------
    table : DataFrame
        A row a trial, in the order of the grid or of the draws: the settings that were searched, ``score`` (higher is
        better), its parts, ``seconds``, and ``note``: empty, or why a trial could not run; its score is NaN then.
    best : dict
        The searched settings of the highest score, of equal ones the first: ``deconvolve(..., **best)``.
    score : str
    """

    table: pd.DataFrame
    best: dict[str, Any]
    score: str

    def __repr__(self) -> str:
        told = {name: f"{value:.4g}" if isinstance(value, float) else repr(value) for name, value in self.best.items()}
        chosen = ", ".join(f"{name}={value}" for name, value in told.items())
        return f"Tuning({chosen}; best of {len(self.table)} by {self.score}, {self.table['score'].max():.6g})"


def tune(
    spatial: Any,
    reference: Any,
    coordinates: Any = None,
    cell_types: Any = None,
    *,
    grid: Mapping[str, Any],
    score: str = "held_out",
    n_trials: int | None = None,
    sections: Any = None,
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    work_folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    jobs: int | None = None,
    **settings: Any,
) -> Tuning:
    """Try settings and say which are best, without a truth.

    Parameters
    ----------
    spatial, reference, coordinates, cell_types, sections, layer_st, layer_sc, spatial_key
        As for `stdeconv_fast.deconvolve`; the counts of the spots must be in memory.
    grid : mapping of str to list, or to a distribution
        The values of each setting to try: any field of `stdeconv_fast.Settings` that changes the answer. With
        `n_trials` also what has a ``ppf``, as ``scipy.stats.loguniform(0.1, 10)`` has.
    score : {"held_out", "unsupervised"}
        "held_out": every count of the spots is split by Binomial(count, 0.8), the larger part is fitted and the rest
        predicted: mean log-likelihood ratio of a held-out count against the pooled spots, in nats. The settings that
        predict unseen molecules best are best. "unsupervised": the mean of ``reconstruction`` (cosine of counts and
        their fit) and ``coherence`` (correlation of proportions with those of the neighbours), both from the counts
        that were fitted. It needs no whole numbers, but rewards smoothing for its own sake; see Notes.
    n_trials : int, optional
        Draw so many different points at random; by default every point of the grid.
    work_folder : path, optional
        Where the trials that are done are kept; a folder that is not there yet or is empty. It stays.
    resume : bool
        Go on with what `work_folder` holds: of the same data and score. Trials in it are not run again; the grid
        may have changed.
    jobs : int or None
        Trials at once, as joblib takes it: in the threads, processes or cluster of ``joblib.parallel_config``; None:
        as many as it says, else one. Each has `n_jobs` threads.
    **settings
        Fields of `stdeconv_fast.Settings` that all trials share; `seed` is that of the draws too.

    Returns
    -------
    Tuning

    Raises
    ------
    DataError
        Input, grid or settings that cannot be used, a work folder of another search; before any trial. Or no trial
        could run.

    Notes
    -----
    The split is a hash of seed, counts and the number of the molecule (`draws`), the random points one of seed, name of
    the setting and number of the draw: neither names and order of spots nor the number of jobs change them. Settings
    that come after the fit (`abundance`, `standard_errors`, `max_cells_per_spot`) do not change the held-out score.

    With ``tune=True``, the default, each trial chooses its own smoothing, so that searching `lambda_spatial`
    multiplies what was chosen; pass ``tune=False`` to search `lambda_spatial` and `phi` themselves.

    The original program picked its settings by a score without a truth as well. The unsupervised score here is one of
    our own and is not claimed to equal it. Coherence rises with smoothing whether or not the tissue is smooth: a search
    over `lambda_spatial` by it tends to the strongest smoothing of the grid, so do not choose the smoothing by it.

    References
    ----------
    Neufeld, Dharamshi, Gao and Witten, "Data thinning for convolution-closed distributions", JMLR 25, 2024 (the split
    of Poisson counts into independent parts).
    """
    faults: list[DataError] = []
    if score not in SCORES:
        faults.append(DataError(f"`score` must be one of {', '.join(SCORES)}; got {score!r}."))
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, Integral) or n_trials < 1):
        faults.append(DataError(f"`n_trials` must be a whole number >= 1 or None; got {n_trials!r}."))
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, Integral) or jobs == 0):
        faults.append(DataError(f"`jobs` must be a whole number other than 0, or None; got {jobs!r}."))
    if resume and work_folder is None:
        faults.append(DataError("`resume` must be False without a work folder; got True. Pass work_folder."))
    _check_grid(grid, settings, n_trials, faults)
    raise_faults(faults, "search")
    shared = Settings.make(**{"progress": False, **_threads(jobs), **settings})
    points = _points(grid, n_trials, shared.seed)
    trials = [shared.but(**point) for point in points]
    inputs = read_inputs(
        spatial, reference, coordinates, cell_types, sections=sections, layer_st=layer_st, layer_sc=layer_sc,
        spatial_key=spatial_key, settings=shared.but(exclude_types=(), min_cells_per_type=1, min_shared_genes=2),
    )  # fmt: skip
    for trial in trials:
        choose_types(inputs, trial)  # for its faults
    task = set_task(inputs, score, shared.seed)
    with tempfile.TemporaryDirectory(prefix="stdeconv_fast-") as temporary:
        place = work_folder if work_folder is not None else os.path.join(temporary, "work")
        with WorkFolder(place, _fingerprint(inputs, score, shared), bool(resume)) as folder:
            rows = _run(folder, task, trials, jobs)
    found = [{**point, **row} for point, row in zip(points, rows, strict=True)]
    table = pd.DataFrame(found, columns=[*points[0], "score", *SCORES[score], "seconds", "note"])
    if table["score"].isna().all():
        raise DataError(f"`grid` must hold settings that can run; got none. The first: {table['note'][0]}")
    return Tuning(table, points[int(np.nanargmax(table["score"].to_numpy()))], score)


def _threads(jobs: int | None) -> dict[str, int]:
    """One thread a trial where trials run side by side, unless the caller says otherwise."""
    from joblib import effective_n_jobs

    return {"n_jobs": 1} if effective_n_jobs(jobs) > 1 else {}


def _check_grid(grid: Any, settings: Mapping[str, Any], n_trials: Any, faults: list[DataError]) -> None:
    """Faults of the grid, without the values that `Settings` checks."""
    known = [field.name for field in fields(Settings) if field.name not in (*FREE, *READING, "seed")]
    if not isinstance(grid, Mapping) or not grid:
        faults.append(DataTypeError(f"`grid` must map settings to lists of values; got {grid!r}."))
        return
    for name, values in grid.items():
        if name not in known:
            faults.append(DataError(f"`grid` must name settings among {', '.join(known)}; got {name!r}."))
        elif name in settings:
            faults.append(DataError(f"`grid` must not name what is passed as a setting; got {name!r} in both."))
        elif hasattr(values, "ppf"):
            if n_trials is None:
                faults.append(DataError(f"`grid` must hold lists without `n_trials`; got a distribution for {name!r}."))
        elif not isinstance(values, list | tuple | np.ndarray) or not len(values):
            faults.append(DataTypeError(f"`grid` must map {name!r} to a list of values; got {values!r}."))


def _points(grid: Mapping[str, Any], n_trials: int | None, seed: int) -> list[dict[str, Any]]:
    """The settings of each trial, no two alike."""
    names = list(grid)
    if n_trials is None:
        product = itertools.product(*(grid[name] for name in names))
        drawn = (dict(zip(names, map(_plain, values), strict=True)) for values in product)
        most = None
    else:
        draws = range(MOST_DRAWS * n_trials)
        drawn = ({name: _draw(name, grid[name], seed, number) for name in names} for number in draws)
        most = n_trials
    points: dict[str, dict[str, Any]] = {}
    for point in drawn:
        points.setdefault(repr(point), point)
        if len(points) == most:
            break
    return list(points.values())


def _draw(name: str, values: Any, seed: int, number: int) -> Any:
    """A value of one setting; hangs on seed, name and number alone."""
    uniform = (int(digest(seed, name, number), 16) + 0.5) / 2**64
    if not hasattr(values, "ppf"):
        return _plain(values[min(int(uniform * len(values)), len(values) - 1)])
    whole = isinstance(getattr(Settings(), name), int)
    return int(round(float(values.ppf(uniform)))) if whole else float(values.ppf(uniform))


def _plain(value: Any) -> Any:
    """A value as Python has it: lists of names become tuples."""
    value = value.item() if isinstance(value, np.generic) else value
    return tuple(value) if isinstance(value, list) else value


def _fingerprint(inputs: Inputs, score: str, shared: Settings) -> dict[str, Any]:
    """What makes two searches one: data, score, seed, version. The settings of a trial are in its name."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        release = version("stdeconv-fast")
    except PackageNotFoundError:
        release = "uninstalled"
    spots, cells = (
        digest(table.shape, table.indptr, table.indices, table.data) for table in (inputs.spots, inputs.reference)
    )
    sums = () if inputs.type_sums is None else vars(inputs.type_sums).values()
    return {
        "version": release, "score": score, "seed": shared.seed, "spots": spots,
        "coordinates": digest(inputs.coordinates), "sections": digest(inputs.sections),
        "genes": digest(inputs.spot_genes, inputs.reference_genes),
        "reference": digest(cells, *sums, inputs.cell_types, *inputs.types),
    }  # fmt: skip


def _run(folder: WorkFolder, task: Task, trials: list[Settings], jobs: int | None) -> list[dict[str, Any]]:
    """The row of each trial: read from the folder, or run and kept there."""
    numbers = [_number(trial) for trial in trials]
    by_number = dict(zip(numbers, trials, strict=True))
    tile_jobs.run(folder, "trials", attempt, list(by_number), lambda number: (task, by_number[number]), jobs)
    rows = []
    for number in numbers:
        arrays = folder.read(tile_jobs.name_of("trials", number))
        rows.append({name: str(value) if name == "note" else float(value) for name, value in arrays.items()})
    return rows


def _number(trial: Settings) -> int:
    """Name of a trial, by the settings that change its answer."""
    chosen = {name: value for name, value in trial.as_dict().items() if name not in FREE}
    return int(digest(*sorted(chosen.items())), 16)
