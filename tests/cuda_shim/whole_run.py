"""Runs whole deconvolutions on the CPU and on the stand-in device, in a process of its own.

python -m tests.cuda_shim.whole_run CASE: prints one line of JSON, what differs and what was launched.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from stdeconv_fast import backend, deconvolve, simulate

from .stand_in import MEMORY, StandIn

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


def _apart(one, other) -> float:
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    assert one.shape == other.shape and (np.isnan(one) == np.isnan(other)).all()
    return float(np.nanmax(np.abs(one - other), initial=0.0))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
