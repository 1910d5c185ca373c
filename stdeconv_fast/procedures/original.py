"""``objective="original"``: the original program's run, stage by stage, with its cubic steps over spots removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, issparse, vstack

from ..draws import keys_of, order_by_key
from ..errors import DataError
from ..original_draws import OriginalDraws, count_sweeps, draw_layers
from ..parallel import Workers, hold_workers
from ..parcels import CellWeights, Inputs, Result, Strengths
from ..settings import Settings
from ..stages import aggregate, graph, ingest, reference
from ..stages.original import attention, cell_level, places, tables, type_level
from . import provenance

if TYPE_CHECKING:
    from ..pipeline import Clock

OUTSIDE = "not in tissue"


def run_original(
    inputs: Inputs, settings: Settings, draws: OriginalDraws | None, clock: Clock
) -> Result:
    """Run what the original program computes on checked input.

    Parameters
    ----------
    inputs : Inputs
    settings : Settings
        phi, lambda_cell, lambda_spatial, lambda_ridge, max_cells_per_type, n_iter and k_neighbors mean what they mean
        in the original: nothing is tuned, and the k neighbours of a spot count the spot itself.
    draws : OriginalDraws or None
        What the original drew. None: its layers are drawn by counting (`original_draws.draw_layers`, by `seed` and
        by the counts of the genes), there is no noise, and equally near neighbours and the order of the spots in the
        cell level hang on the places and counts of the spots.
    clock : Clock

    Returns
    -------
    Result
        Spots without counts take part, as in the original, but their rows are NaN. Rows sum to 1 less 1e-8. With
        ``cell_level=True`` the weights of all kept cells, float64.

    Raises
    ------
    DataError
        No counts in the shared genes, or a type without any.

    Notes
    -----
    Everything is float64 but the attention and its eigendecomposition, which are float32 as in the original. Memory:
    n_spots x n_cells and about four times n_cells^2 float64, for the kept cells.
    """
    status = inputs.spot_status.copy()
    rows = np.flatnonzero(status != OUTSIDE)
    if draws is not None and draws.knn_index is not None and len(rows) < len(status):
        raise DataError(
            f"`original_draws.knn_index` must be None where spots are not in the tissue; got "
            f"{len(status) - len(rows)} such spots. Drop them from the spots' table."
        )
    n_types, strengths = len(inputs.types), {
        "lambda_spatial": settings.lambda_spatial, "lambda_ridge": settings.lambda_ridge,
    }  # fmt: skip
    with hold_workers(settings.n_jobs) as workers:
        with clock.stage("reference"):
            kept = tables.draw_cells(inputs.cell_types, n_types, settings.max_cells_per_type)
            cells = tables.normalise(inputs.reference[kept], inputs.reference_genes)
            cell_types = inputs.cell_types[kept]
            means, squares = tables.average_types(cells, cell_types, n_types)
            _every_type_seen(means, inputs)
            profiles = reference.average_types(inputs, workers)
        with clock.stage("counts"):
            spots, facts, gene_totals = _read_spots(inputs, settings, status, workers)
            spots, facts = spots[rows], facts[rows]
        with clock.stage("graph"):
            keys = keys_of(settings.seed, *inputs.coordinates[rows].T, *facts.T)
            near = _link(inputs, settings, rows, keys, None if draws is None else draws.knn_index, workers)
            visits = cell_level.order_visits(near, order_by_key(keys) if draws is None else np.arange(len(rows)))
        with clock.stage("types"):
            shares = type_level.fit_types(
                spots, means, squares, near, phi=settings.phi, n_iter=settings.n_iter, workers=workers, **strengths
            )
        with clock.stage("attention"):
            layers = draw_layers(_gene_keys(inputs, settings.seed), settings.seed) if draws is None else draws
            laplacian = attention.root_laplacian(
                attention.attend_cells(cells, layers, workers), settings.lambda_cell
            )
        with clock.stage("factorisation"):
            factor = cell_level.factorise(cells)
        n_sweeps = count_sweeps(settings.n_iter)
        with clock.stage("cells", n_sweeps * len(rows)) as tick:
            weights = cell_level.spread(shares, cells, cell_types, means)
            cell_level.refine(
                weights, spots, factor, laplacian, near, visits, n_sweeps=n_sweeps,
                noise=None if layers.noise is None else layers.noise[:, rows], workers=workers, tick=tick, **strengths,
            )  # fmt: skip
        shares = cell_level.sum_by_type(weights, cell_types, n_types)
    told = status[rows] == "ok"
    unexplained = told & ~(shares.sum(axis=1) > 0)
    status[rows[unexplained]] = "no type explains the counts"
    told &= ~unexplained
    shares[~told] = np.nan
    found = CellWeights(_lay_out(weights, told, rows, len(status)), kept, cell_types) if settings.cell_level else None
    made_from = provenance.trace(inputs, profiles, facts[:, 0], gene_totals)
    return replace(_to_result(inputs, settings, shares, status, rows, found, clock), provenance=made_from)


def _to_result(
    inputs: Inputs, settings: Settings, shares: np.ndarray, status: np.ndarray, rows: np.ndarray,
    found: CellWeights | None, clock: Clock,
) -> Result:  # fmt: skip
    names, types = pd.Index(inputs.spot_names), pd.Index(inputs.types)
    diagnostics: dict[str, Any] = {
        "n_spots": len(status), "n_spots_used": int((status == "ok").sum()),
        "n_cells": int((inputs.cell_types >= 0).sum()), "n_types": len(types), "n_genes_shared": len(inputs.genes),
        "cells_per_type": np.bincount(inputs.cell_types[inputs.cell_types >= 0], minlength=len(types)).tolist(),
        "n_genes_used": len(inputs.genes), "platform_log2_sd": float("nan"), "platform": "none",
        "abundance": "cell weights", "device": "cpu", "notes": list(inputs.notes),
    }  # fmt: skip
    result = Result(
        proportions=pd.DataFrame(aggregate.lay_out(shares, rows, len(status)), index=names, columns=types),
        status=pd.Series(status.astype(str), index=names, name="status"),
        cell_weights=None,
        cells=None,
        cell_types=None,
        strengths=Strengths(settings.lambda_spatial, settings.phi, False),
        settings=settings,
        seconds=clock.total(),
        diagnostics=diagnostics,
        genes=pd.Index(inputs.genes),
    )
    if found is None:
        return result
    cells = pd.Index(inputs.cell_names[found.cells])
    cell_types = pd.Series(types.to_numpy()[found.cell_types], index=cells, name="cell_type")
    return replace(result, cell_weights=found.weights, cells=cells, cell_types=cell_types)


def _every_type_seen(means: np.ndarray, inputs: Inputs) -> None:
    unseen = [name for name, seen in zip(inputs.types, means.any(axis=1), strict=True) if not seen]
    if unseen:
        raise DataError(
            f"reference must have counts of every type in the shared genes; got none of "
            f"{', '.join(map(repr, unseen))} in the cells kept. Pass exclude_types={unseen!r}."
        )


def _read_spots(
    inputs: Inputs, settings: Settings, status: np.ndarray, workers: Workers
) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Normalised shared genes of all spots, total and sum of squares of each, and counts of the shared genes.

    Notes in `status` who has no counts.
    """
    source = ingest.source_of(inputs.spots)
    ranges = source.cut(ingest.STREAMED)
    usable = status != OUTSIDE
    every = np.arange(source.shape[1])
    blocks = workers.each(ingest.reader(source, usable, ingest.map_genes(source.shape[1], every)), ranges)
    if not issparse(inputs.spots):
        ingest.check_blocks(source, ranges, blocks, settings.check_counts)
        status[usable & ~np.concatenate([block.filled for block in blocks])] = "no counts"
    parts, facts = [], []
    for block in blocks:
        indptr = np.concatenate([[0], np.cumsum(block.lengths)])
        matrix = csr_matrix(
            (block.data.astype(np.float64), block.indices.astype(np.int32), indptr),
            shape=(len(block.lengths), len(every)),
        )
        parts.append(tables.normalise(matrix, inputs.spot_genes))
        facts.append(np.column_stack([block.totals, np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()]))
    spots = vstack(parts, format="csr") if len(parts) > 1 else parts[0]
    status[(status == "ok") & (np.diff(spots.indptr) == 0)] = "no counts in the genes used"
    if not (status == "ok").any():
        raise DataError("spatial must have counts in the genes shared with the reference; got none.")
    return spots, np.concatenate(facts), sum(block.sums for block in blocks)[inputs.spot_genes]


def _link(
    inputs: Inputs, settings: Settings, rows: np.ndarray, keys: np.ndarray, index: np.ndarray | None, workers: Workers
) -> csr_matrix:
    """W~ over the rows, from the lists that the original made or from the places."""
    coordinates = inputs.coordinates[rows]
    if index is not None:
        return places.weigh_places(*places.read_index(index, coordinates))
    k = max(settings.k_neighbors - 1, 0)
    ends, others = graph.find_neighbours(coordinates, inputs.sections[rows], k, keys, workers)
    origins = np.repeat(np.arange(len(rows)), np.diff(ends))
    distances = np.sqrt(((coordinates[others] - coordinates[origins]) ** 2).sum(axis=1))
    edges = places.take_nearest(origins, others, distances, k, keys)
    return places.weigh_places(*edges, places.scale_places(edges[0], edges[2], len(rows)))


def _gene_keys(inputs: Inputs, seed: int) -> np.ndarray:
    """Key of each shared gene from its total and its sum of squares over the labelled cells of the reference."""
    used = csr_matrix((inputs.cell_types >= 0).astype(np.float64)[None, :])
    counts = inputs.reference.astype(np.float64)
    sums = [np.asarray((used @ values).todense()).ravel() for values in (counts, counts.multiply(counts))]
    return keys_of(seed, *(values[inputs.reference_genes] for values in sums))


def _lay_out(weights: np.ndarray, told: np.ndarray, rows: np.ndarray, n_rows: int) -> csr_matrix:
    """Weights of the cells in all spots; empty rows where nothing can be said."""
    weights[~told] = 0
    found = csr_matrix(weights)
    lengths = np.zeros(n_rows, dtype=np.int64)
    lengths[rows] = np.diff(found.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((found.data, found.indices, indptr), shape=(n_rows, weights.shape[1]))
