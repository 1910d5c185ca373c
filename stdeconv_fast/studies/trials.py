"""One trial of a search over settings: what it needs, how it is scored. Trials may run in other processes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse as sp

from .. import pipeline
from ..backend import choose_device
from ..errors import DataError
from ..kernels.cpu.counts import thin_counts
from ..parallel import hold_workers
from ..parcels import Inputs, Reference
from ..procedures.strengths import SHARE
from ..settings import Settings
from ..stages import attention, graph
from .disturbances import keys_by_content

ROWS = 512  # spots whose expected counts are held at once
NEIGHBOURS = 6  # of the coherence, whatever `k_neighbors` is tried
SCORES = {"held_out": (), "unsupervised": ("reconstruction", "coherence")}


@dataclass(frozen=True)
class Task:
    """What all trials of a search share.

    Attributes
    ----------
    inputs : Inputs
        With all types; for held-out counts the spots hold the fitting part alone.
    score : {"held_out", "unsupervised"}
    shared : csr_matrix, (n_spots, n_shared)
        Counts of the shared genes that are scored: the held-out part, or all.
    fitted : ndarray of float64, (n_shared,)
        Counts of the shared genes that are fitted, over the usable spots.
    links : csr_matrix or None, (n_spots, n_spots)
        Weights of the neighbours of each spot, rows sum to 1 or 0; for the coherence.
    """

    inputs: Inputs
    score: str
    shared: sp.csr_matrix
    fitted: np.ndarray
    links: sp.csr_matrix | None


def set_task(inputs: Inputs, score: str, seed: int) -> Task:
    """Split the counts, or link the spots, once for all trials.

    Raises
    ------
    DataError
        Counts that are not whole cannot be held out.
    """
    usable = inputs.spot_status == "ok"
    if score == "unsupervised":
        shared = inputs.spots[:, inputs.spot_genes].tocsr()
        return Task(inputs, score, shared, _sums(shared, usable), _link(inputs, usable, seed))
    if not inputs.integer_counts:
        raise DataError("`score` must be 'unsupervised' where the spots hold no raw counts; got 'held_out'.")
    row_keys, gene_keys = keys_by_content(inputs.spots, seed)
    counts = inputs.spots
    values = counts.data.astype(np.float64)
    fit, test = np.empty_like(values), np.empty_like(values)
    arrays = (counts.indptr, counts.indices, values, row_keys, gene_keys, SHARE)
    thin_counts(*arrays, 0, counts.shape[0], fit, test)
    parts = [sp.csr_matrix((part, counts.indices, counts.indptr), counts.shape, copy=True) for part in (fit, test)]
    for part in parts:
        part.eliminate_zeros()
    held = parts[1][:, inputs.spot_genes].tocsr()
    held = sp.csr_matrix(held.multiply(usable[:, None]))
    if not held.sum():
        raise DataError("spatial must have counts in the genes shared with the reference to hold some out; got none.")
    fitted = _sums(parts[0][:, inputs.spot_genes].tocsr(), usable)
    return Task(replace(inputs, spots=parts[0].astype(np.float32)), score, held, fitted, None)


def _sums(counts: sp.csr_matrix, usable: np.ndarray) -> np.ndarray:
    return np.asarray(counts[np.flatnonzero(usable)].sum(axis=0, dtype=np.float64)).ravel()


def _link(inputs: Inputs, usable: np.ndarray, seed: int) -> sp.csr_matrix:
    rows = np.flatnonzero(usable)
    with hold_workers(1) as workers:
        keys = graph.spot_keys(inputs.coordinates[rows], np.zeros(len(rows)), seed)
        places = graph.link_spots(inputs.coordinates[rows], inputs.sections[rows], NEIGHBOURS, keys, workers)
        links = attention.attend_by_place(places, np.dtype(np.float64), workers)
    weights = links.weights / np.repeat(links.degrees, np.diff(links.indptr))
    origin = np.repeat(rows, np.diff(links.indptr))
    n = len(usable)
    return sp.csr_matrix((weights, (origin, rows[links.indices])), shape=(n, n))


def choose_types(inputs: Inputs, settings: Settings) -> Inputs:
    """The input without the types that the settings leave out.

    Raises
    ------
    DataError
        Types that are not there, no type left, fewer shared genes than the settings ask for, or a built reference
        without the cells that they ask for.
    """
    unknown = [name for name in settings.exclude_types if name not in inputs.types]
    if unknown:
        there = ", ".join(map(repr, inputs.types[:20]))
        raise DataError(f"`exclude_types` must be among the cell types {there}; got {', '.join(map(repr, unknown))}.")
    if len(inputs.genes) < settings.min_shared_genes:
        raise DataError(
            f"`min_shared_genes` must be at most the number of shared genes, {len(inputs.genes):,}; got "
            f"{settings.min_shared_genes:,}."
        )
    sizes = np.bincount(inputs.cell_types[inputs.cell_types >= 0], minlength=len(inputs.types))
    kept = sizes >= settings.min_cells_per_type
    kept &= ~np.isin(np.array(inputs.types, dtype=object), list(settings.exclude_types))
    if not kept.any():
        raise DataError("settings must leave a type; got none. Lower min_cells_per_type or exclude fewer types.")
    if inputs.type_sums is not None and not inputs.reference.nnz and (settings.cell_level or not kept.all()):
        raise DataError(
            "`reference` must hold the counts of its cells to leave out types or to go down to cells; got one built "
            "without. Build it with keep_cells=True."
        )
    if kept.all():
        return inputs
    new = np.full(len(kept) + 1, -1, dtype=np.int32)  # the last one belongs to code -1
    new[:-1][kept] = np.arange(kept.sum(), dtype=np.int32)
    types = tuple(name for name, stays in zip(inputs.types, kept, strict=True) if stays)
    return replace(inputs, cell_types=new[inputs.cell_types], types=types, type_sums=None)


def attempt(task: Task, settings: Settings) -> dict[str, Any]:
    """Run one trial; its score and parts, its seconds, and a note where it could not run (the score is NaN then)."""
    started, seen = time.perf_counter(), {}
    found = dict.fromkeys(("score", *SCORES[task.score]), np.nan)
    note = ""

    def look(known: Reference, abundances: np.ndarray, rows: np.ndarray) -> None:
        seen.update(known=known, abundances=np.asarray(abundances, dtype=np.float64), rows=rows)

    try:
        pipeline.run(
            choose_types(task.inputs, settings), settings, device=choose_device(settings.device), look=look
        )
        found = score_held_out(task, **seen) if task.score == "held_out" else score_unsupervised(task, **seen)
    except DataError as error:
        note = str(error)
    return {**found, "seconds": time.perf_counter() - started, "note": np.array(note)}


def _expect(known: Reference, abundances: np.ndarray) -> np.ndarray:
    """Expected share of each kept gene in the counts of some spots, (n_rows, n_genes); rows of 0 where all are 0."""
    mean = abundances @ known.profiles
    sums = mean.sum(axis=1, keepdims=True)
    return np.divide(mean, sums, out=np.zeros_like(mean), where=sums > 0)


def score_held_out(task: Task, known: Reference, abundances: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Mean over held-out counts of ln(s_ig / q_g), in nats a count.

    s_ig is the share of gene g in spot i that the model expects, times the share Q of the kept genes in the pooled
    fitting part; q_g the share of gene g in that pool, with half a count for every gene. Counts of genes that a trial
    does not keep, and of spots of which it says nothing, are predicted by q_g, and give 0: trials with other genes or
    types are compared over the same counts.
    """
    pool = (task.fitted + 0.5) / (task.fitted + 0.5).sum()
    kept, held = known.kept_genes, task.shared[:, known.kept_genes].tocsr()
    base = np.log(pool[kept] / pool[kept].sum())
    total = 0.0
    for start in range(0, len(rows), ROWS):
        part = held[rows[start : start + ROWS]].tocoo()
        expected = _expect(known, np.nan_to_num(abundances[start : start + ROWS]))[part.row, part.col]
        told = expected > 0
        total += float((part.data[told] * (np.log(expected[told]) - base[part.col[told]])).sum())
    return {"score": total / float(task.shared.sum())}


def score_unsupervised(task: Task, known: Reference, abundances: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Mean of two parts, both from the counts that were fitted and at most 1.

    reconstruction: mean over spots of the cosine of the counts of the kept genes and those that the model expects.
    coherence: correlation over spots of a type's proportion and its mean over the 6 nearest neighbours, mean over types
    weighted by their mean proportions.
    """
    seen, cosines = task.shared[:, known.kept_genes].tocsr(), []
    abundances = np.nan_to_num(abundances)
    for start in range(0, len(rows), ROWS):
        part, expected = seen[rows[start : start + ROWS]], _expect(known, abundances[start : start + ROWS])
        products = np.asarray(part.multiply(expected).sum(axis=1)).ravel()
        norms = np.sqrt(np.asarray(part.multiply(part).sum(axis=1)).ravel() * (expected**2).sum(axis=1))
        cosines.append(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))
    reconstruction = float(np.concatenate(cosines).mean())
    sums = abundances.sum(axis=1, keepdims=True)
    shares = np.zeros((task.shared.shape[0], abundances.shape[1]))
    shares[rows] = np.divide(abundances, sums, out=np.zeros_like(abundances), where=sums > 0)
    told = rows[np.diff(task.links.indptr)[rows] > 0]
    own, around = shares[told], (task.links @ shares)[told]
    own_centred, around_centred = own - own.mean(axis=0), around - around.mean(axis=0)
    norms = np.sqrt((own_centred**2).sum(axis=0) * (around_centred**2).sum(axis=0))
    correlations = np.divide((own_centred * around_centred).sum(axis=0), norms, out=np.zeros(len(norms)),
                             where=norms > 1e-12)  # fmt: skip
    weights = own.mean(axis=0)
    coherence = float(weights @ correlations / max(weights.sum(), 1e-300)) if len(told) else 0.0
    score = (reconstruction + coherence) / 2
    return {"score": score, "reconstruction": reconstruction, "coherence": coherence}
