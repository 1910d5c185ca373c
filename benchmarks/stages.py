"""The stages of a run, one by one, for benchmarks that time them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdeconv_fast.parallel import Workers
from stdeconv_fast.parcels import Counts, Graph, Inputs, Reference
from stdeconv_fast.procedures import passes
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages import graph, reference, solve_types
from stdeconv_fast.stages.inputs import read_inputs


@dataclass
class Prepared:
    """Everything that the type-level solve starts from."""

    inputs: Inputs
    profiles: reference.Profiles
    known: Reference
    counts: Counts
    places: Graph
    gene_keys: np.ndarray
    keys: np.ndarray


def prepare(tissue, workers: Workers, dtype: str = "float32") -> Prepared:
    """Run the stages up to the neighbour graph on a simulated tissue."""
    inputs = read_inputs(
        tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, settings=Settings(progress=False)
    )
    profiles = reference.average_types(inputs, workers)
    rows = np.flatnonzero(inputs.spot_status == "ok")
    totals = reference.total_genes(inputs, rows, workers)
    kept = reference.choose_genes(profiles, totals)
    known = reference.fit_reference(profiles, kept, totals, "auto")
    counts = reference.gather_counts(inputs, rows, kept, np.dtype(dtype), workers)
    keys = graph.spot_keys(inputs.coordinates[rows], counts.totals, 0)
    places = graph.link_spots(inputs.coordinates[rows], inputs.sections[rows], 6, keys, workers)
    return Prepared(inputs, profiles, known, counts, places, reference.gene_keys(profiles, totals, kept, 0), keys)


def solve(prepared: Prepared, workers: Workers, n_attention: int = 3, settled: float = passes.SETTLED) -> np.ndarray:
    """The type level from a cold start: every spot alone, one pass by place, then passes with attention.

    With `settled=0` no pass ends early.
    """
    counts = prepared.counts
    problem = solve_types.pose(counts, prepared.known, "poisson")
    abundances = solve_types.start_evenly(problem)
    solve_types.solve_alone(problem, abundances, graph.no_neighbours(counts.n_spots), 1.0, workers)
    passes.alternate(
        problem, abundances, prepared.places, 50.0, 1.0, 1.0, 1 + n_attention, True, workers, settled=settled
    )
    return abundances
