"""The whole run as one page."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .backend import agree, choose_device, hold_device
from .errors import DataWarning
from .memory import demand_room, estimate_bytes
from .original_draws import OriginalDraws, check_draws
from .parallel import Workers
from .parcels import CellWeights, Inputs, Reference, Result, SpotSource, Strengths
from .procedures import in_pieces, missing, passes, provenance, strengths, uncertainty
from .settings import Settings
from .stages import aggregate, attention, graph, reference, refine_cells
from .stages.inputs import read_inputs
from .stages.inputs.links import take_edges
from .thresholds import BORDERLINE, STRONG_PLATFORM

log = logging.getLogger("stdeconv_fast")


def deconvolve(
    spatial: Any,
    reference: Any,
    coordinates: Any = None,
    cell_types: Any = None,
    *,
    sections: Any = None,
    neighbors: Any = None,
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    spots: SpotSource | None = None,
    tiles: int | None = None,
    work_folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    keep_work: bool = False,
    original_draws: OriginalDraws | None = None,
    **settings: Any,
) -> Result:
    """Estimate the cell-type composition of every spot.

    Parameters
    ----------
    spatial : DataFrame, ndarray, sparse matrix, AnnData or SpotStore, (n_spots, n_genes)
        Raw counts. Those of a store (`stdeconv_fast.open_spots`) are read by blocks and never held whole.
    reference : DataFrame, ndarray, sparse matrix, AnnData or BuiltReference, (n_cells, n_genes)
        Raw counts, or what `stdeconv_fast.build_reference` made of them.
    coordinates : DataFrame or array, (n_spots, 2 or 3), optional
        Place of each spot, in any unit; by default ``spatial.obsm[spatial_key]``.
    cell_types : Series, DataFrame, list, array, categorical or str
        Type of each cell, or the column of ``reference.obs`` that holds it. None with a built reference.
    sections : Series, list, array or str, optional
        Section of each spot, or the column of ``spatial.obs``; spots of different sections are never neighbours.
    neighbors : sparse matrix (n_spots, n_spots) or str, optional
        Who is whose neighbour (entries other than 0 of row i), or the key of such a graph in ``spatial.obsp``:
        "spatial_connectivities" of squidpy, say. Its weights are not used: they come from places and counts as ever.
        It must fit places and sections (`stages.inputs.links` says how). By default the `k_neighbors` nearest spots.
    layer_st, layer_sc : str, optional
        Layers of the AnnData objects that hold the counts.
    spatial_key : str
        Key of ``spatial.obsm`` for the coordinates.
    spots : SpotSource, optional
        Where the counts of the spots are read from; `spatial` is then an AnnData without X.
    tiles : int, optional
        Cut the tissue into about so many tiles, whose counts stay on disk and are solved as jobs of joblib, where
        ``joblib.parallel_config`` says (threads, processes, a dask cluster). Proportions agree with those of a whole
        run to 1e-3. By default the tissue is solved whole, and with `work_folder` in tiles of about 100,000 spots.
    work_folder : path, optional
        Where tiles keep what they have done, so that a run that was killed can be resumed; empty or not there yet. It
        is removed when the run is done. By default a temporary folder, where there are tiles.
    resume : bool
        Go on with the run that `work_folder` holds.
    keep_work : bool
        Leave the work folder as it is at the end: until the result is safe on disk, say.
    original_draws : OriginalDraws, optional
        What the original program drew at random in a run that is to be repeated with ``objective="original"``.
    **settings
        Fields of `stdeconv_fast.Settings`.

    Returns
    -------
    Result

    Raises
    ------
    DataError
        Input or settings that cannot be used; all faults in one message, before any long work.
    MemoryLimitError
        The run would need more memory than there is, or than `max_memory`.
    DeviceError
        The device asked for cannot be used.
    """
    started = time.perf_counter()
    chosen = Settings.make(**settings)
    device = choose_device(chosen.device)
    if hasattr(spatial, "without_counts"):
        spots, spatial = spatial, spatial.without_counts(spatial_key)
    inputs = read_inputs(
        spatial, reference, coordinates, cell_types,
        sections=sections, neighbors=neighbors, layer_st=layer_st, layer_sc=layer_sc, spatial_key=spatial_key,
        spots=spots, settings=chosen,
    )  # fmt: skip
    check_draws(original_draws, chosen, len(inputs.spot_names), len(inputs.genes))
    demand_room(estimate_bytes(inputs, chosen, in_pieces.count_tiles(inputs, tiles, work_folder)), chosen.max_memory)
    reading = time.perf_counter() - started
    with in_pieces.open_tiling(inputs, chosen, tiles, work_folder, resume, keep_work) as tiling:
        return run(inputs, chosen, device=device, reading=reading, tiling=tiling, draws=original_draws)


def run(
    inputs: Inputs,
    settings: Settings,
    *,
    device: str = "cpu",
    reading: float = 0.0,
    tiling: in_pieces.Tiling | None = None,
    draws: OriginalDraws | None = None,
    look: Callable[[Reference, np.ndarray, np.ndarray], None] | None = None,
) -> Result:
    """Run the model on checked input.

    Parameters
    ----------
    inputs : Inputs
    settings : Settings
    device : str
        What `backend.choose_device` said.
    reading : float
        Seconds that reading and checking took.
    tiling : Tiling, optional
        How the tissue is cut; None: solved whole.
    draws : OriginalDraws, optional
        What the original program drew, with ``objective="original"``.
    look : callable, optional
        Called once all is solved, with what is known of the types, the abundances (n_used, n_types) and the spots
        used, (n_used,): for those who score a fit.
    """
    if settings.unknown:
        missing.check_names(inputs.types)
    clock = Clock(settings.progress, reading)
    if settings.objective == "original":
        from .procedures import original  # loads what no other run needs

        return original.run_original(inputs, settings, draws, clock)
    dtype = np.dtype(settings.dtype)
    notes = list(inputs.notes)
    status = inputs.spot_status.copy()
    asked = tuple(name for name in ("standard_errors", "detection") if getattr(settings, name))
    device = agree(device, settings.device, len(inputs.types) + settings.unknown, dtype, notes, asked)
    with hold_device(device, settings.n_jobs) as workers:
        with clock.stage("reference"):
            profiles = reference.average_types(inputs, workers)
        with clock.stage("counts"):
            pieces, kept, gene_totals, rows, whole = in_pieces.read_counts(
                inputs, profiles, settings, status, notes, workers, tiling
            )
            pieces, workers = in_pieces.settle_device(pieces, workers, settings, len(inputs.types), notes)
            known = reference.fit_reference(profiles, kept, gene_totals, settings.platform)
            unrelated = reference.warn_of(known)
            if unrelated:
                notes.append(unrelated)
                warnings.warn(unrelated, DataWarning, stacklevel=3)
        with clock.stage("graph"):
            coordinates, sections = inputs.coordinates[rows], inputs.sections[rows]
            gene_keys = reference.gene_keys(profiles, gene_totals, kept, settings.seed)
            keys = graph.spot_keys(coordinates, pieces.totals, settings.seed)
            keys = graph.tell_apart(keys, pieces.take, gene_keys, workers, coordinates)
            edges = take_edges(inputs.links, rows)
            places = graph.link_spots(coordinates, sections, settings.k_neighbors, keys, workers, edges)
            linked = pieces.link(places)
        with clock.stage("first fit"):

            def start(known: Reference) -> tuple[Reference, np.ndarray]:
                if known.platform == "joint":
                    known = passes.fit_platform(pieces, known, coordinates, sections, keys, workers)
                return passes.first_fit(pieces, known, settings.loss, settings.lambda_ridge, keys, workers)

            known, abundances = start(known)
            if settings.unknown:
                profiles = missing.add_unknown(pieces, profiles, known, workers.fetch(abundances), keys)
                inputs = replace(inputs, types=(*inputs.types, missing.UNKNOWN))
                known, abundances = start(reference.fit_reference(profiles, kept, gene_totals, settings.platform))
        with clock.stage("tuning"):
            if settings.lambda_spatial == 0 or not len(places.indices):
                chosen = Strengths(0.0, settings.phi, False)
            elif settings.tune and whole:
                chosen = strengths.choose_strengths(
                    pieces.take, known, places, coordinates, sections, pieces.totals, keys, gene_keys,
                    loss=settings.loss, phi=settings.phi, lambda_ridge=settings.lambda_ridge,
                    listen=settings.attention and settings.n_iter > 1, workers=workers,
                )  # fmt: skip
            else:
                chosen = Strengths(strengths.FIXED, settings.phi, False)
            strength = chosen.lambda_spatial * settings.lambda_spatial
        with clock.stage("passes", settings.n_iter) as tick:
            links = linked
            if strength > 0:
                links = passes.alternate(
                    pieces, abundances, linked, strength, chosen.phi, settings.lambda_ridge, settings.n_iter,
                    settings.attention, workers, tick,
                )  # fmt: skip
            else:
                pieces.finish_alone(abundances, settings.lambda_ridge)
        by_cell = settings.abundance == "cells" or (
            settings.abundance == "auto" and known.platform_log2_sd < STRONG_PLATFORM
        )
        content = known.mrna_content if by_cell else None
        fit = errors = present = None
        with clock.stage("fit"):
            roughness = attention.measure_roughness(linked, abundances, workers)
            linked, links, abundances = workers.fetch((linked, links, abundances))  # below, what is needed goes up
            if settings.loss == "poisson":
                fit, misfit = missing.measure_fit(pieces, known, abundances, keys)
        if settings.standard_errors:
            with clock.stage("standard errors"):
                errors = pieces.estimate_errors(
                    fit.dispersion, abundances, links, strength, settings.lambda_ridge, content
                )
        if settings.detection:
            with clock.stage("detection"):
                present = uncertainty.to_q_values(pieces.weigh_absence(
                    fit.dispersion, abundances, links, strength, chosen.phi, settings.lambda_ridge
                ))  # fmt: skip
        cells = None
        if settings.cell_level:
            turns = 2 if strength > 0 else 1
            with clock.stage("cells", turns * len(rows)) as tick:
                fixed = {
                    "counts": pieces.held(None), "graph": links, "abundances": abundances, "lambda_spatial": strength,
                    "tick": tick,
                }  # fmt: skip
                cells = _refine(inputs, settings, profiles, known, gene_keys, fixed, workers)
                abundances = refine_cells.sum_by_type(cells, len(inputs.types), dtype)
        shares = aggregate.to_proportions(abundances, content, workers)
    if look is not None:
        look(known, abundances, rows)
    unexplained = np.isnan(shares.sum(axis=1))  # no array of booleans as large as the shares
    status[rows[unexplained]] = "no type explains the counts"
    near = abs(known.platform_log2_sd - STRONG_PLATFORM) <= BORDERLINE
    if near and "auto" in (settings.platform, settings.abundance):
        notes.append(
            f"The platform log2 sd is {known.platform_log2_sd:.2f}, near {STRONG_PLATFORM:g}, where "
            f"platform='auto' and abundance='auto' change (now {known.platform!r} and "
            f"{'cells' if by_cell else 'mrna'!r}): set both, and compare."
        )
        warnings.warn(notes[-1], DataWarning, stacklevel=3)
    if fit is not None:
        note = missing.warn_of(misfit, inputs.genes[kept], pieces.totals)
        if note and not settings.unknown:
            notes.append(note)
            warnings.warn(note, DataWarning, stacklevel=3)
    like, hardness = reference.find_alike(known)
    names, types, genes = pd.Index(inputs.spot_names), pd.Index(inputs.types), pd.Index(inputs.genes[kept])

    def by_spot(values: np.ndarray, columns: Any) -> pd.DataFrame:
        """A table of all spots; NaN in the rows about which nothing can be said."""
        if unexplained.any():
            values = np.where(unexplained[:, None], np.nan, values)
        return pd.DataFrame(aggregate.lay_out(values, rows, len(status)), index=names, columns=columns)

    diagnostics = {
        "n_spots": len(status), "n_spots_used": len(rows), "n_cells": int((inputs.cell_types >= 0).sum()),
        "n_types": len(inputs.types), "n_genes_shared": len(inputs.genes), "n_genes_used": len(kept),
        "median_counts": float(np.median(pieces.totals)) if len(rows) else float("nan"),
        "cells_per_type": np.bincount(
            inputs.cell_types[inputs.cell_types >= 0], minlength=len(inputs.types)
        ).tolist(),
        "roughness": roughness, "platform_log2_sd": known.platform_log2_sd, "platform": known.platform,
        "gene_correlation": known.gene_correlation, "abundance": "cells" if by_cell else "mrna",
        "device": workers.device, "notes": notes,
    }  # fmt: skip
    return Result(
        proportions=by_spot(shares, types),
        status=pd.Series(status.tolist(), index=names, name="status"),
        cell_weights=None if cells is None else aggregate.lay_out_cells(
            cells.weights, cells.cell_types, rows, len(status), content
        ),
        cells=None if cells is None else pd.Index(inputs.cell_names[cells.cells]),
        cell_types=None if cells is None else pd.Series(
            np.asarray(inputs.types)[cells.cell_types], index=inputs.cell_names[cells.cells], name="cell_type"
        ),
        strengths=Strengths(strength, chosen.phi, chosen.tuned, chosen.path),
        settings=settings,
        seconds=clock.total(),
        diagnostics=diagnostics,
        genes=genes,
        graph=links,
        standard_errors=None if errors is None else by_spot(errors, types),
        q_values=None if present is None else by_spot(present, types),
        fit=None if fit is None else by_spot(
            np.column_stack([fit.deviances, misfit.scores, misfit.q_values]), ["deviance", "misfit", "q_value"]
        ),
        gene_fit=None if fit is None else pd.DataFrame({
            "observed": fit.observed, "expected": fit.expected, "dispersion": fit.dispersion,
            "unexplained": misfit.genes, "rank": missing.to_ranks(misfit.genes),
        }, index=genes),
        type_fit=pd.DataFrame({"like": ["" if k < 0 else types[k] for k in like], "counts": hardness}, index=types),
        provenance=provenance.trace(inputs, profiles, pieces.totals, gene_totals),
    )  # fmt: skip


def _refine(
    inputs: Inputs,
    settings: Settings,
    profiles: reference.Profiles,
    known: Reference,
    gene_keys: np.ndarray,
    fixed: dict[str, Any],
    workers: Workers,
) -> CellWeights:
    """The cell level on the reference cells that `max_cells_per_type` allows."""
    labelled = np.flatnonzero(inputs.cell_types >= 0)
    dtype = np.dtype(settings.dtype)
    counts = reference.gather_cells(inputs, labelled, known.kept_genes, dtype, workers)
    types, totals = inputs.cell_types[labelled], profiles.cell_totals[labelled]
    drawn = refine_cells.draw_cells(
        counts, types, totals, gene_keys, settings.max_cells_per_type, settings.seed, workers
    )
    cells = refine_cells.Cells(labelled[drawn], types[drawn], graph.take_spots(counts, drawn), totals[drawn])
    return refine_cells.refine(
        cells, known, lambda_ridge=settings.lambda_ridge, lambda_cell=settings.lambda_cell,
        max_cells_per_spot=settings.max_cells_per_spot, workers=workers, **fixed,
    )  # fmt: skip


def can_show_bars() -> bool:
    """Whether stderr is a terminal or this is a notebook: in a file or a pipe, bars are noise."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


class Clock:
    """Wall time of each stage, with a progress bar on the long ones."""

    def __init__(self, progress: bool, reading: float) -> None:
        self.progress = progress and can_show_bars()
        self.seconds = {"input": reading}

    @contextmanager
    def stage(self, name: str, steps: int | None = None) -> Iterator[Any]:
        """Time one stage; yields the function that moves the bar."""
        started = time.perf_counter()
        if steps is None or not self.progress:
            yield lambda steps=1: None
        else:
            from tqdm import tqdm

            with tqdm(total=steps, desc=name, leave=False) as bar:
                yield bar.update
        self.seconds[name] = time.perf_counter() - started
        log.info("%s: %.2f s", name, self.seconds[name])

    def total(self) -> dict[str, float]:
        """Seconds by stage, and their sum as "total"."""
        return {**self.seconds, "total": sum(self.seconds.values())}

