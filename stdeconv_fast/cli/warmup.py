"""``stdeconv-fast warmup``: compile the kernels ahead of the first run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .console import EXIT_CODES, reporting

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

COUNTS, INDICES = ("float32", "float64", "int32", "int64"), ("int32", "int64")
GRID_SPOTS = 1200  # spots from which a grid is looked for, and some
SMALL_COUNT, LARGE_COUNT = 255, 70_000  # one byte holds it; more than two bytes hold
MEND = "Set NUMBA_CACHE_DIR to a folder that can be written, and run this again."


@click.command(epilog=EXIT_CODES)
@click.option(
    "--all", "everything", is_flag=True,
    help="Also float64, the cell level, standard errors, least squares, counts beyond 65,535.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@reporting
def warmup(everything: bool, as_json: bool) -> None:
    """Compile the kernels, so that the first run does not have to.

    Runs tiny simulated tissues with every kind of counts. The exit code is 3, and nothing is compiled, where there is
    no folder to keep the kernels in.
    """
    import time

    started = time.perf_counter()
    kernels = list_kernels()
    folders = sorted({kernel.stats.cache_path or "" for kernel in kernels})
    kept = bool(folders) and "" not in folders
    before = count_forms(kernels)
    if kept:
        _run_all(list_jobs(everything))
    compiled, loaded = (now - then for now, then in zip(count_forms(kernels), before, strict=True))
    files = [file for folder in folders if folder for file in Path(folder).glob("*.nb[ic]")]
    summary = {
        "seconds": time.perf_counter() - started,
        "compiled": compiled,
        "loaded": loaded,
        "kept": kept,
        "folders": [folder for folder in folders if folder],
        "files": len(files),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "all": everything,
    }
    if as_json:
        import json

        click.echo(json.dumps(summary))
    elif kept:
        click.echo(_told(summary))
    if not kept:
        click.echo(f"stdeconv-fast: {_why_not(bool(kernels))}", err=True)
        sys.exit(3)


def list_kernels() -> list[Any]:
    """Every compiled function of `stdeconv_fast.kernels.cpu`; none where numba is told not to compile."""
    from importlib import import_module
    from pkgutil import iter_modules

    from ..kernels import cpu

    modules = [import_module(f"{cpu.__name__}.{module.name}") for module in iter_modules(cpu.__path__)]
    made = [(module.__name__, value) for module in modules for value in vars(module).values()]
    return [value for name, value in made if hasattr(value, "signatures") and value.__module__ == name]


class Job(NamedTuple):
    """One run: its name, the dtypes of its counts and of their indices, its tissue, its settings."""

    name: str
    counts: str
    indices: str
    tissue: str
    settings: dict[str, Any]


def list_jobs(everything: bool) -> list[Job]:
    """Runs that meet every kernel in every combination of dtypes.

    Whether tuning finds smoothing worth it in a tissue is chance, so that runs without it smooth for certain; what
    takes another way on a grid needs more than a few spots; and counts are kept in as many bytes as the largest needs.
    """
    jobs: list[Job] = []
    for dtype in ("float32", "float64") if everything else ("float32",):
        work = {"dtype": dtype}
        for tissue in ("few spots", "small counts", *(("large counts",) if everything else ())):
            for counts in COUNTS:
                for indices in INDICES:
                    name = f"{dtype}: {tissue}, {counts} counts, {indices} indices"
                    jobs.append(Job(name, counts, indices, tissue, work))
            more: dict[str, dict[str, Any]] = {
                "smoothing": {"tune": False, "platform": "pooled"},
                "strong platform effect": {"platform": "joint"},
            }
            if everything:
                more["cell level, standard errors"] = {
                    "cell_level": True, "standard_errors": True, "detection": True, "tune": False,
                }
                more["least squares"] = {"loss": "gaussian", "platform": "pooled"}
                more["least squares, smoothing"] = {"loss": "gaussian", "tune": False}
            for name, settings in more.items():
                jobs.append(Job(f"{dtype}: {tissue}, {name}", "int32", "int32", tissue, work | settings))
        jobs.append(Job(f"{dtype}: a grid", "int32", "int32", "grid", work | {"tune": False}))
    return jobs


def _make_tissues(names: set[str]) -> dict[str, tuple[csr_matrix, csr_matrix, np.ndarray, np.ndarray]]:
    """Tiny tissues by the names in the jobs: counts of spots and of cells, places of the spots, types of the cells."""
    import numpy as np
    from scipy.sparse import csr_matrix, vstack

    from ..tissue import simulate

    made = {}
    for name in names:
        tissue = simulate(GRID_SPOTS if name == "grid" else 48, 60, 3, cells_per_type=12, grid="square", seed=0)
        places = tissue.coordinates.copy()
        places[1] = places[0]  # two spots that nothing but their counts could tell apart
        spots, cells = vstack([tissue.spots[[0, 0]], tissue.spots[2:]], format="csr"), tissue.reference.copy()
        if name == "small counts":
            spots.data = np.minimum(spots.data, SMALL_COUNT)
        if name == "large counts":
            for matrix in (spots, cells):
                matrix.data[matrix.data.argmax()] = LARGE_COUNT
        made[name] = csr_matrix(spots), cells, places, tissue.cell_types
    return made


def _run_all(jobs: list[Job]) -> None:
    """Deconvolve a tiny tissue once for each job."""
    import warnings

    from tqdm import tqdm

    from ..pipeline import deconvolve
    from ..stages.aggregate import dominant_types

    def cast(matrix: csr_matrix, job: Job) -> csr_matrix:
        matrix = matrix.astype(job.counts)
        matrix.indptr, matrix.indices = matrix.indptr.astype(job.indices), matrix.indices.astype(job.indices)
        return matrix

    tissues = _make_tissues({job.tissue for job in jobs})
    with tqdm(total=len(jobs), disable=not sys.stderr.isatty(), leave=False, unit="run") as bar:
        for job in jobs:
            bar.set_description(job.name)
            spots, cells, places, types = tissues[job.tissue]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = deconvolve(
                    cast(spots, job), cast(cells, job), places, types, progress=False, n_jobs=1, **job.settings
                )
                dominant_types(found.proportions.to_numpy())  # as `tl` does
            bar.update()


def count_forms(kernels: list[Any]) -> tuple[int, int]:
    """Forms of the kernels (one for each combination of dtypes) compiled and loaded in this process."""
    stats = [kernel.stats for kernel in kernels]
    return sum(sum(s.cache_misses.values()) for s in stats), sum(sum(s.cache_hits.values()) for s in stats)


def _told(summary: dict[str, Any]) -> str:
    """The summary as a person reads it."""
    compiled, loaded, seconds = summary["compiled"], summary["loaded"], summary["seconds"]
    if compiled:
        there = f"; {loaded} were there" if loaded else ""
        first = f"Compiled {compiled} kernels, one for each combination of dtypes, in {seconds:.1f} s{there}."
    else:
        first = f"Nothing to compile: every kernel was there. {seconds:.1f} s."
    where = ", ".join(summary["folders"])
    return f"{first}\nKept in {where}: {summary['files']} files, {summary['megabytes']:.1f} MB."


def _why_not(compiling: bool) -> str:
    if not compiling:
        return "the kernels are not compiled at all: NUMBA_DISABLE_JIT is set. Unset it."
    return (
        "compiled kernels cannot be kept: neither the package's own folder nor the user's cache folder can be "
        f"written. Every process compiles anew what it needs. {MEND}"
    )
