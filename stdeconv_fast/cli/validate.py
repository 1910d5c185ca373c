"""``stdeconv-fast validate``: what a run would use and what is wrong with its input, without the run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from .console import EXIT_CODES, plain_warnings, reporting
from .sections import KEY

if TYPE_CHECKING:
    from ..errors import DataError
    from ..io.stores import SpotStore
    from ..parcels import Inputs
    from ..settings import Settings


@click.command(epilog=EXIT_CODES)
@click.argument("spatial", metavar="SPATIAL", type=click.Path())
@click.argument("reference", metavar="REFERENCE", type=click.Path())
@click.option("--cell-type-key", metavar="KEY", help="Column of the reference's obs with the types; needed for it.")
@click.option("--spatial-key", default="spatial", show_default=True, metavar="K", help="obsm key of the coordinates.")
@click.option("--sample-key", metavar="K", help="Column of the spots' obs with the section of each.")
@click.option("--neighbors-key", metavar="K", help="obsp key of a neighbour graph to use.")
@click.option("--layer-st", metavar="L", help="Layer with the counts of the spots.")
@click.option("--layer-sc", metavar="L", help="Layer with the counts of the reference.")
@click.option("--tiles", type=click.IntRange(min=1), metavar="N", help="As for run: changes the memory.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Any setting of stdeconv_fast.Settings.")
@click.option("--time/--no-time", "timed", default=True, help="Solve a part of the spots to tell how long a run takes.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@reporting
def validate(
    spatial: str, reference: str, cell_type_key: str | None, spatial_key: str, sample_key: str | None,
    neighbors_key: str | None, layer_st: str | None, layer_sc: str | None, tiles: int | None, values: tuple[str, ...],
    timed: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check SPATIAL and REFERENCE as a run does, and say what it would use, and how much memory and time it would take.

    All counts are read; nothing is written. All faults come in one message, with exit code 2. The time is an estimate:
    reading is timed as it is, and a part of the spots (20,000 at most) is solved and scaled to all. With --no-time
    nothing is solved.
    """
    import time
    import warnings

    from ..errors import DataError
    from ..io.archives import is_archive
    from ..settings import Settings
    from .requests import parse_settings

    started = time.perf_counter()
    settings = Settings.make(**{"progress": False, **parse_settings(values, own=False)})
    if settings.objective != "model":
        raise DataError(f"validate must have objective='model'; got {settings.objective!r}, whose reading it lacks.")
    if cell_type_key is None and not is_archive(reference):
        raise click.UsageError("Missing option '--cell-type-key'.")
    with ExitStack() as opened, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        keys = {
            "cell_type_key": cell_type_key, "spatial_key": spatial_key, "sample_key": sample_key,
            "neighbors_key": neighbors_key, "layer_sc": layer_sc,
        }  # fmt: skip
        store, cells = _open(spatial, reference, layer_st, keys, settings, opened)
        inputs = _read(store, cells, keys, settings)
        found = _look_through(inputs, settings, tiles, timed, time.perf_counter() - started)
    texts = [" ".join(str(warning.message).split()) for warning in told]
    found["warnings"] = list(dict.fromkeys([*texts, *found.pop("notes")]))
    if as_json:
        import json

        click.echo(json.dumps(found, allow_nan=False))
        return
    click.echo(_told(found))
    with plain_warnings(quiet=False):
        for text in found["warnings"]:
            warnings.warn(text, UserWarning, stacklevel=1)


def _open(
    spatial: str, reference: str, layer_st: str | None, keys: dict[str, str | None], settings: Settings,
    opened: ExitStack,
) -> tuple[SpotStore, Any]:  # fmt: skip
    """Both files open, or the faults of both in one message; where one cannot be opened, with those of the other."""
    from ..errors import DataError
    from ..settings import raise_faults
    from .requests import demand_there
    from .sources import open_input, read_cells

    def open_store() -> SpotStore:
        demand_there("SPATIAL", spatial)
        return opened.enter_context(open_input(spatial, layer_st))

    def read_reference() -> Any:
        demand_there("REFERENCE", reference)
        return read_cells(reference, settings.max_memory)

    faults: list[DataError] = []
    found: list[Any] = []
    for attempt in (open_store, read_reference):
        try:
            found.append(attempt())
        except DataError as fault:
            faults.append(fault)
            found.append(None)
    if faults:
        raise_faults(faults + _check_alone(*found, keys, settings), "files")
    return found[0], found[1]


def _check_alone(
    store: SpotStore | None, cells: Any, keys: dict[str, str | None], settings: Settings
) -> list[DataError]:
    """Faults of the one table that could be opened."""
    from ..built import BuiltReference
    from ..errors import DataError
    from ..stages.inputs import check_cells, check_spots
    from .sources import read_labels

    faults: list[DataError] = []
    if cells is not None and not isinstance(cells, BuiltReference):
        faults += check_cells(cells, keys["cell_type_key"], keys["layer_sc"], settings)
    if store is not None:
        try:
            spots = read_labels(store, keys["spatial_key"], None)
            faults += check_spots(spots, keys["sample_key"], keys["spatial_key"], store)
            _check_values(store, settings)
        except DataError as fault:
            faults.append(fault)
    return faults


def _read(store: SpotStore, cells: Any, keys: dict[str, str | None], settings: Settings) -> Inputs:
    """Checked input; where it has faults, those in the values of the spots are looked for, too."""
    from ..built import BuiltReference
    from ..errors import DataError
    from ..settings import raise_faults
    from ..stages.inputs import read_inputs
    from ..tl.checks import check_objects
    from .sources import read_labels

    built = isinstance(cells, BuiltReference)
    faults: list[DataError] = []
    try:
        spots = read_labels(store, keys["spatial_key"], keys["neighbors_key"])
        found = read_inputs(
            spots, cells, None, None if built else keys["cell_type_key"], sections=keys["sample_key"],
            neighbors=keys["neighbors_key"], layer_sc=keys["layer_sc"], spatial_key=keys["spatial_key"], spots=store,
            settings=settings,
        )  # fmt: skip
        check_objects(spots, cells, {
            **keys, "cell_type_key": keys["cell_type_key"] or "cell_type", "key_added": KEY, "layer_st": store.layer,
        })  # fmt: skip
        return found
    except DataError as fault:
        first, *others = str(fault).split("\n- ")
        faults = [DataError(part) for part in others] if first.endswith("faults in the input:") else [fault]
    try:
        _check_values(store, settings)
    except DataError as fault:
        faults.append(fault)
    raise_faults(faults, "input")
    raise AssertionError("faults are raised")


def _check_values(store: SpotStore, settings: Settings) -> None:
    """Refuse values of the spots that are no counts."""
    import numpy as np

    from ..stages import ingest

    ranges = store.cut(ingest.STREAMED)
    usable, genes = np.ones(store.shape[0], dtype=bool), ingest.map_genes(store.shape[1], np.arange(1))
    read = ingest.reader(store, usable, genes, entries=False)
    ingest.check_blocks(store, ranges, [read(*part) for part in ranges], settings.check_counts)


def _look_through(
    inputs: Inputs, settings: Settings, tiles: int | None, timed: bool, reading: float
) -> dict[str, Any]:
    """Read the counts as a run does, and count what it would use; `reading`: seconds that the input took so far."""
    from dataclasses import replace

    import numpy as np

    from ..backend import agree, choose_device
    from ..memory import available_bytes, demand_room, estimate_bytes
    from ..parallel import hold_workers
    from ..pipeline import Clock
    from ..procedures import in_pieces, missing
    from ..stages import reference
    from .forecast import Start, forecast

    if settings.unknown:
        missing.check_names(inputs.types)
    needed, there = estimate_bytes(inputs, settings, tiles), available_bytes()
    demand_room(needed, settings.max_memory)
    status, notes = inputs.spot_status.copy(), list(inputs.notes)
    device = agree(choose_device(settings.device), settings.device, len(inputs.types), settings.dtype, notes)
    start, clock, n_timed = Start(), Clock(False, reading), None
    with (
        hold_workers(settings.n_jobs) as workers,
        in_pieces.open_tiling(inputs, settings, tiles, None, False) as tiling,
    ):
        if timed:
            start.sum_some(inputs, workers)
        with clock.stage("reference"):
            sums = inputs.type_sums or reference.sum_types(
                inputs.reference, inputs.cell_types, len(inputs.types), workers
            )
            inputs = replace(inputs, type_sums=sums)
            profiles = reference.average_types(inputs, workers)
        if timed:
            start.solve_some(inputs, settings, device)
        with clock.stage("counts"):
            pieces, kept, gene_totals, rows, whole = in_pieces.read_counts(
                inputs, profiles, settings, status, notes, workers, tiling
            )
        depth = float(np.median(pieces.totals))
        known = reference.fit_reference(profiles, kept, gene_totals, settings.platform)
        notes += [note for note in [reference.warn_of(known)] if note]
        if timed:
            solving, n_timed = forecast(replace(inputs, integer_counts=whole), settings, device, pieces, kept, rows)
            clock.seconds |= solving
    each_run = start.seconds if timed and not (start.compiled and start.kept) else 0.0
    sizes = np.bincount(inputs.cell_types[inputs.cell_types >= 0], minlength=len(inputs.types))
    names, numbers = np.unique(status.astype(str), return_counts=True)
    sections = np.bincount(inputs.sections[rows], minlength=len(inputs.section_names))
    return {
        "n_spots": len(status), "n_spots_used": len(rows),
        "status": {str(name): int(number) for name, number in zip(names, numbers, strict=True)},
        "sections": {str(name): int(n) for name, n in zip(inputs.section_names, sections, strict=True)},
        "n_genes_spatial": int(inputs.spots.shape[1]), "n_genes_reference": int(inputs.reference.shape[1]),
        "n_genes_shared": len(inputs.genes), "n_genes_used": len(kept), "median_counts": depth,
        "whole_numbers": bool(whole), "n_cells": int(sizes.sum()),
        "n_cells_left_out": int((inputs.cell_types < 0).sum()),
        "cells_per_type": {str(name): int(size) for name, size in zip(inputs.types, sizes, strict=True)},
        "memory_gb": needed / 1e9, "memory_there_gb": None if there is None else there[0] / 1e9,
        "device": device, "platform_log2_sd": known.platform_log2_sd,
        "seconds": clock.total()["total"] + each_run if timed else None,
        "seconds_by_stage": clock.seconds if timed else {}, "seconds_start": start.seconds if timed else None,
        "n_spots_timed": n_timed, "kernels_compiled": start.compiled, "kernels_kept": start.kept, "notes": notes,
    }  # fmt: skip


def _told(found: dict[str, Any]) -> str:
    """The findings as a person reads them."""
    left_out = ", ".join(f"{number:,} {status}" for status, number in found["status"].items() if status != "ok")
    types = sorted(found["cells_per_type"].items(), key=lambda pair: pair[1])
    few, there = ", ".join(f"{name} {size:,}" for name, size in types[:3]), found["memory_there_gb"]
    lines = {
        "spots": f"{found['n_spots_used']:,} of {found['n_spots']:,} would be used"
        + (f" ({left_out})" if left_out else "") + f", in {len(found['sections'])} section(s)",
        "counts": f"median {found['median_counts']:,.0f} of a spot in the genes used"
        + ("" if found["whole_numbers"] else "; not whole numbers: no tuning"),
        "genes": f"{found['n_genes_used']:,} would be used of {found['n_genes_shared']:,} shared "
        f"({found['n_genes_spatial']:,} in SPATIAL, {found['n_genes_reference']:,} in REFERENCE)",
        "types": f"{len(types)} from {found['n_cells']:,} cells ({found['n_cells_left_out']:,} cells left out); "
        f"fewest: {few}",
        "memory": f"about {found['memory_gb']:.2f} GB besides the input"
        + ("" if there is None else f"; {there:.1f} GB there"),
        "device": found["device"],
        **_tell_time(found),
        "faults": "none",
    }  # fmt: skip
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def _tell_time(found: dict[str, Any]) -> dict[str, str]:
    """How long, and what the figure rests on."""
    if found["seconds"] is None:
        return {"time": "not estimated"}
    stages, n, timed = found["seconds_by_stage"], found["n_spots_used"], found["n_spots_timed"]
    reading = sum(stages[name] for name in ("input", "reference", "counts"))
    solving = sum(stages.values()) - reading
    how = "all spots were solved just now" if timed == n else f"scaled from {timed:,} spots that were solved just now"
    compiled, start = found["kernels_compiled"], found["seconds_start"]
    if not compiled:
        first = f"nothing to compile; {start:.1f} s to load the kernels, in the time above"
    elif found["kernels_kept"]:
        first = f"{compiled} kernels were compiled just now, about {start:.0f} s that no later run needs"
    else:
        first = f"nowhere to keep kernels: every run compiles, {start:.0f} s in the time above. Set NUMBA_CACHE_DIR"
    return {
        "time": f"about {found['seconds']:.1f} s without writing: {reading:.1f} s reading, as it took just now, "
        f"{solving:.1f} s solving ({how})",
        "kernels": first,
    }
