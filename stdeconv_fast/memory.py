"""Memory: how much a run will take, how much there is, and a refusal before the work where it cannot fit."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from scipy.sparse import issparse

from .errors import MemoryLimitError
from .parallel import count_workers
from .parcels import Inputs
from .settings import Settings

GB = 1e9
CONSTANT, PER_WORKER, BLOCK = 8e6, 2e6, 1 << 22  # bytes; entries of a block of counts that is read from disk
PER_ENTRY, PER_ENTRY_GAUSSIAN, PER_ENTRY_READ = 5, 16, 16  # bytes a count
PER_SPOT, PER_NEIGHBOUR, PER_CELL = 250, 56, 12  # bytes a spot, an edge, a cell that a spot may keep
COPIES, COPIES_OF_PROFILES = 4, 10  # of abundances and of profiles that are held at once
LEARNT_SPOTS, PER_ENTRY_LEARNT = 2000, 40  # spots that the misfit is learnt on (procedures.missing); bytes a count
FILLED = 0.25  # share of a dense matrix on disk that is taken to be counts
CGROUPS = Path("/sys/fs/cgroup")


def estimate_bytes(inputs: Inputs, settings: Settings, tiles: int | None = None) -> int:
    """Bytes that a run will take at its peak, besides its input: rather too many than too few.

    Parameters
    ----------
    inputs : Inputs
    settings : Settings
    tiles : int, optional
        The tissue is cut into so many, whose counts stay on disk.

    Returns
    -------
    int

    Notes
    -----
    Counts of the shared genes, of which the run may use a part; graph; abundances; profiles, summed in parts. The
    numbers of bytes were fitted to measured peaks (``python benchmarks/faults.py`` measures some again).
    """
    n_spots, n_columns = inputs.spots.shape
    n_types, n_genes = len(inputs.types), inputs.reference.shape[1]
    item, workers = np.dtype(settings.dtype).itemsize, count_workers(settings.n_jobs)
    entries = getattr(inputs.spots, "nnz", None)
    entries = n_spots * n_columns * FILLED if entries is None else entries
    per_entry = PER_ENTRY + (PER_ENTRY_GAUSSIAN if settings.loss == "gaussian" else 0)
    per_entry += 0 if inputs.integer_counts or not issparse(inputs.spots) else item
    held = entries * len(inputs.genes) / n_columns / (max(1, tiles / workers) if tiles else 1)
    learnt = entries * len(inputs.genes) / n_columns * min(1.0, LEARNT_SPOTS / max(n_spots, 1)) * PER_ENTRY_LEARNT
    learnt = learnt if settings.objective == "model" else 0
    read = 0 if issparse(inputs.spots) and not tiles else min(entries, workers * BLOCK) * PER_ENTRY_READ
    edges = 1.1 * min(settings.k_neighbors, max(0, n_spots - 1)) + 2
    if inputs.links is not None:
        edges = inputs.links.nnz / max(1, n_spots) + 2
    cells = n_types * settings.max_cells_per_type
    cells = min(settings.max_cells_per_spot, cells, inputs.reference.shape[0]) if settings.cell_level else 0
    spot = PER_SPOT + edges * PER_NEIGHBOUR + (COPIES + settings.standard_errors) * n_types * item + cells * PER_CELL
    spot += 3 * 8 * n_types if settings.detection else 0
    if settings.objective == "original":
        sizes = np.bincount(inputs.cell_types[inputs.cell_types >= 0], minlength=n_types)
        kept = int(np.minimum(sizes, settings.max_cells_per_type).sum())
        spot += 2 * 8 * kept
        held += 5 * 8 * kept**2 / per_entry  # attention, its eigenvectors, the factor of the cells' products
    parts = 4 if n_types * n_genes > 1_000_000 else 16  # as stages.reference sums them
    profiles = (parts + COPIES_OF_PROFILES) * 8 * n_types * n_genes
    return int(CONSTANT + workers * PER_WORKER + held * per_entry + learnt + read + n_spots * spot + profiles)


def available_bytes() -> tuple[int, str] | None:
    """Memory that this process can still get, and what limits it; None where the system does not say.

    Returns
    -------
    (bytes, reason) or None
        The least of: free memory of the machine (Linux's own estimate), what is left of the limits of the control
        groups that this process is in (containers, cluster jobs), what is left of its limit of address space.
    """
    found = [*_machine(), *_control_groups(), *_address_space()]
    return min(found) if found else None


def peak_bytes() -> int | None:
    """Most memory that this process has held so far, in bytes; None where the system does not say.

    Linux counts from the start of the process, or from where its peak was last reset.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    with contextlib.suppress(ImportError, OSError):
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return None


def demand_room(needed: int, max_memory: float | None, what: str = "the run") -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    needed : int
        Bytes.
    max_memory : float, optional
        GB (1e9 bytes) that may be taken; None: what is available.
    what : str
        Name in the message.

    Raises
    ------
    MemoryLimitError
        Naming what is needed and what there is.
    """
    there = available_bytes() if max_memory is None else (int(max_memory * GB), "max_memory")
    if there is None or needed <= there[0]:
        return
    raise MemoryLimitError(
        f"{what} must fit into memory; it needs about {needed / GB:.3g} GB more, and there are {there[0] / GB:.3g} GB "
        f"({there[1]}). Cut the tissue into tiles whose counts stay on disk, use fewer genes or cells, or set "
        f"max_memory (in GB) to what you allow: max_memory={max(1, round(1.1 * needed / GB)):d} runs it all the same."
    )


def _machine() -> list[tuple[int, str]]:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return [(int(line.split()[1]) * 1024, "free memory of the machine")]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no Linux: all there is
        return [(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "memory of the machine")]
    return []


def _control_groups() -> list[tuple[int, str]]:
    """What is left in each control group around this process; pages of files that can be dropped count as left."""
    found = []
    for folder, most, used, cache in _group_folders():
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / most).read_text())  # "max" where there is none
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left = limit - int((folder / used).read_text()) + int(stat.get(cache, 0))
            if limit < 1 << 60:
                found.append((max(0, left), "limit of the control group"))
    return found


def _group_folders() -> list[tuple[Path, str, str, str]]:
    """Folders of this process's control groups up to the top, with the names of the files in them."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds == "":
                top, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in kinds.split(","):
                top = CGROUPS / "memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            inner = Path(path.strip("/"))
            found += [(top / folder, *names) for folder in (inner, *inner.parents)]
    return found


def _address_space() -> list[tuple[int, str]]:
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            return [(max(0, most - taken), "limit of address space")]
    return []
