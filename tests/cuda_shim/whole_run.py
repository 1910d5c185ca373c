"""Runs whole deconvolutions on the CPU and on the stand-in device, in a process of its own.

python -m tests.cuda_shim.whole_run CASE: prints one line of JSON, what differs and what was launched.
python -m tests.cuda_shim.whole_run CASE by-blocks: how a run whose arrays go up by small blocks, the first solve while
they do, differs from one with a plain upload.
"""

from __future__ import annotations

import json
import random
import sys

import numpy as np

from stdeconv_fast import backend, deconvolve, simulate, uploads

from .stand_in import MEMORY, StandIn
from .streams import TRAFFIC

TISSUE = {"n_spots": 150, "n_genes": 60, "n_types": 5, "cells_per_type": 20}
UNCERTAINTY = {"standard_errors": True, "detection": True}
CASES = {
    "plain": ({}, UNCERTAINTY),
    "float64": ({}, {"dtype": "float64", **UNCERTAINTY}),
    "gaussian": ({"n_spots": 80}, {"loss": "gaussian", "tune": False}),
    "cells": ({"n_spots": 60, "n_types": 3}, {"cell_level": True, "max_cells_per_type": 6, "tune": False}),
    "joint": ({"platform_sd": 1.5}, {"platform": "joint"}),
    "alone": ({}, {"lambda_spatial": 0.0, "platform": "none", **UNCERTAINTY}),
    "two tiles": ({}, {"tiles": 2, **UNCERTAINTY}),
}


def stand_in_card(free: int = 1 << 30, shared: int = 64 << 10) -> backend.Card:
    return backend.Card(StandIn, "stand-in", free, shared)


def main(name: str) -> dict:
    tissue_changes, changes = CASES[name]
    made = simulate(**{**TISSUE, **tissue_changes}, seed=3)
    given = (made.spots, made.reference, made.coordinates, made.cell_types)
    settings = {"progress": False, "n_jobs": 1, **changes}
    right = deconvolve(*given, device="cpu", **settings)
    backend.find_card = stand_in_card
    MEMORY.peak = MEMORY.used
    found = deconvolve(*given, device="cuda", **settings)
    told = {
        "proportions": _apart(found.proportions, right.proportions),
        "device": found.diagnostics["device"], "cpu": right.diagnostics["device"],
        "strengths": [repr(found.strengths), repr(right.strengths)],
        "roughness": abs(found.diagnostics["roughness"] - right.diagnostics["roughness"]),
        "weights": _apart(found.graph.weights, right.graph.weights) if len(right.graph.weights) else 0.0,
        "launches": MEMORY.launches, "peak": MEMORY.peak, "shape": list(np.shape(made.spots)),
        "nnz": int(made.spots.nnz),
        "seconds": found.seconds, "plain arrays": type(found.graph.indices) is np.ndarray,
    }  # fmt: skip
    if right.fit is not None:
        expected = right.gene_fit["expected"]
        told["deviance"] = _apart(found.fit, right.fit)
        told["expected"] = _apart(found.gene_fit["expected"], expected) / float(expected.max())
    if right.standard_errors is not None:
        told["errors"] = _apart(found.standard_errors, right.standard_errors)
    if right.q_values is not None:
        told["q-values"] = _apart(found.q_values, right.q_values)
    if right.cell_weights is not None:
        told["cells"] = _apart(found.cell_weights.toarray(), right.cell_weights.toarray())
    return told


def by_blocks(name: str) -> dict:
    tissue_changes, changes = CASES[name]
    made = simulate(**{**TISSUE, **tissue_changes}, seed=3)
    given = (made.spots, made.reference, made.coordinates, made.cell_types)
    settings = {"progress": False, "n_jobs": 2, "device": "cuda", **changes}
    backend.find_card = stand_in_card
    plain = deconvolve(*given, **settings)
    sent, plain_launches = TRAFFIC.copies, MEMORY.launches.copy()
    backend.UPLOAD, uploads.BLOCK, TRAFFIC.lots = 256, 2048, random.Random(0)
    blocks = deconvolve(*given, **settings)
    TRAFFIC.check()
    same = {}
    for field in ("proportions", "fit", "standard_errors", "q_values"):
        one, other = getattr(plain, field, None), getattr(blocks, field, None)
        if one is not None:
            same[field] = np.asarray(one).tobytes() == np.asarray(other).tobytes()
    if plain.cell_weights is not None:
        same["cells"] = (plain.cell_weights != blocks.cell_weights).nnz == 0
    launches = {key: number - plain_launches.get(key, 0) for key, number in MEMORY.launches.items()}
    return {
        "same": same, "plain sent": sent, "sent": TRAFFIC.copies - sent, "pending": TRAFFIC.pending(),
        "plain launches": plain_launches, "launches": launches,
    }  # fmt: skip


def _apart(one, other) -> float:
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    assert one.shape == other.shape and (np.isnan(one) == np.isnan(other)).all()
    return float(np.nanmax(np.abs(one - other), initial=0.0))


if __name__ == "__main__":
    print(json.dumps((by_blocks if "by-blocks" in sys.argv[2:] else main)(sys.argv[1])))
