"""The stages of a run, one by one, for benchmarks that time them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdeconv_fast.parallel import Workers
from stdeconv_fast.parcels import Counts, Graph, Inputs, Reference
from stdeconv_fast.procedures import passes
from stdeconv_fast.procedures.pieces import Whole
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages import graph, ingest, reference
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
    counts, kept, totals, rows = read_counts(inputs, profiles, workers, dtype)
    known = reference.fit_reference(profiles, kept, totals, "auto")
    keys = graph.spot_keys(inputs.coordinates[rows], counts.totals, 0)
    places = graph.link_spots(inputs.coordinates[rows], inputs.sections[rows], 6, keys, workers)
    return Prepared(inputs, profiles, known, counts, places, reference.gene_keys(profiles, totals, kept, 0), keys)


def read_counts(inputs: Inputs, profiles: reference.Profiles, workers: Workers, dtype: str = "float32") -> tuple:
    """One pass over the counts: those of the kept genes, these genes, their totals, the spots used."""
    source = ingest.InMemory(inputs.spots)
    candidates = reference.choose_candidates(profiles)
    gene_map = ingest.map_genes(source.shape[1], inputs.spot_genes[candidates])
    read = ingest.reader(source, inputs.spot_status == "ok", gene_map)
    blocks = workers.each(read, source.cut(ingest.IN_MEMORY))
    totals = np.sum([block.sums for block in blocks], axis=0)[inputs.spot_genes]
    kept = reference.choose_genes(profiles, totals)
    renumber = ingest.map_genes(len(candidates), np.searchsorted(candidates, kept))
    rows = np.flatnonzero(np.concatenate([block.totals for block in blocks]))
    return ingest.join_blocks(blocks, len(kept), renumber, np.dtype(dtype), workers), kept, totals, rows


def solve(prepared: Prepared, workers: Workers, n_attention: int = 3, limit: float = passes.SETTLED) -> np.ndarray:
    """The type level from a cold start: every spot alone, one pass by place, then passes with attention."""
    pieces = Whole(prepared.counts, workers)
    pieces.pose(prepared.known, "poisson")
    abundances = pieces.solve_alone(1.0, passes.ROUGH)
    passes.alternate(pieces, abundances, prepared.places, 50.0, 1.0, 1.0, 1 + n_attention, True, workers, limit=limit)
    return abundances
