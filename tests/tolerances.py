"""Every tolerance of the kernels and stages: ten times the worst error measured, with the measurement beside it.

Where the measurement lies below the rounding of the type, the tolerance is ten roundings: 2e-15 with float64, 1e-6
with float32 (another processor rounds otherwise). An error is the greatest absolute difference over max(1, greatest
absolute expected value). To measure anew, set the environment variable STDECONV_MEASURE to a file: each check
appends its name, dtype and error to it, and nothing fails but what is not finite.
"""

from __future__ import annotations

import os

import numpy as np

TOLERANCES: dict[str, dict[str, float]] = {
    # counts
    "sum_segments": {"float64": 2e-15},  # 0
    # laplacian
    "place_edges": {"float64": 2e-15},  # 1.1e-16
    "apply_laplacian": {"float32": 3e-6, "float64": 3e-15},  # 2.6e-7, 2.9e-16
    "owe_moves": {"float32": 1e-6, "float64": 2e-15},  # 2.3e-8, 1.1e-16
    "owe_shift": {"float32": 1e-6, "float64": 4e-15},  # 8.2e-8, 3.6e-16
    # attention
    "invert_sums": {"float32": 1.7e-6, "float64": 3e-15},  # 1.7e-7, 2.8e-16: up to 2
    "root_neighbourhoods": {"float32": 1e-6, "float64": 2e-15},  # 7.6e-8, 1.1e-16
    "compare_edges": {"float32": 1e-6, "float64": 2e-15},  # 4.1e-8, 1.7e-16
    "count_squares": {"float64": 2e-15},  # 0
    "attend_edges": {"float32": 1e-6, "float64": 2e-15},  # 1.3e-7, 3.5e-16
    "symmetrise_edges": {"float32": 1e-6, "float64": 2e-15},  # 4.6e-8, 3.5e-16
    # spots: both sides run to convergence
    "solve_spots": {"float32": 8e-6, "float64": 1.1e-9},  # 7.7e-7, 1.1e-10
    "slope of solve_spots": {"float64": 4e-7},  # 3.5e-8, of slopes up to 300
    "warm start": {"float32": 1.5e-6, "float64": 4e-15},  # 1.5e-7, 3.8e-16
    "visit_spots": {"float32": 9e-6, "float64": 1.1e-9},  # 8.2e-7, 1.1e-10
    "slope of visit_spots": {"float64": 4e-7},  # 3.3e-8, of slopes up to 300
    "one visit": {"float32": 1.7e-5, "float64": 1.8e-14},  # 1.7e-6, 1.8e-15: the same sweeps on both sides
    "relaxed step": {"float32": 1e-6, "float64": 2e-15},  # 6.0e-8, 1.9e-16
    "rise of the objective": {"float32": 2e-15, "float64": 2e-15},  # 1.8e-16, 1.7e-17, of the objective
    # least squares
    "solve_spots_gaussian": {"float32": 9e-6, "float64": 6e-10},  # 8.9e-7, 6.0e-11
    "slope of solve_spots_gaussian": {"float32": 3e-3, "float64": 2.1e-7},  # 3.0e-4, 2.1e-8, of a curvature near 1000
    # fits
    "score_spots": {"float32": 1e-6, "float64": 2e-14},  # 8.6e-8, 2.0e-15
    "sum_excess": {"float32": 1e-6, "float64": 3e-15},  # 9.0e-8, 3.3e-16
    "measure_errors": {"float32": 1e-6, "float64": 4e-15},  # 4.2e-8, 3.3e-16
    "measure_errors, scatter": {"float32": 1e-6, "float64": 9e-15},  # 3.3e-8, 8.3e-16
    "score_misfit": {"float32": 1e-6, "float64": 2.3e-14},  # 2.0e-15, 2.3e-15
    "weigh_presence": {"float32": 1.9e-6, "float64": 1.2e-7},  # 1.9e-7, 1.2e-8: both sides run to convergence
    "measure_deviance": {"float32": 1.8e-6, "float64": 1.6e-14},  # 1.8e-7, 1.6e-15
    # cells: the same sweeps on both sides
    "sweep_cells": {"float32": 1.1e-6, "float64": 4e-15},  # 1.1e-7, 3.7e-16
    "slope of sweep_cells": {"float64": 1.3e-14},  # 1.3e-15
    "refine": {"float32": 2.4e-6, "float64": 4e-15},  # 2.4e-7, 3.6e-16
    # CUDA twins against the CPU kernels; measured on the stand-in. A GPU rounds otherwise: it contracts, and has an exp
    # and a log of its own
    "cuda solve_spots": {"float32": 1e-5, "float64": 1e-13},  # 2.1e-06, 1.3e-15
    "cuda solve_spots_gaussian": {"float32": 1e-5, "float64": 1e-13},  # 9.9e-07, 3.3e-15
    "cuda visit_spots": {"float32": 1e-5, "float64": 1e-13},  # 8.9e-07, 2.1e-15
    "cuda apply_laplacian": {"float32": 1e-5, "float64": 1e-13},  # 2e-07, 0
    "cuda owe_moves": {"float32": 1e-5, "float64": 1e-13},  # 3e-08, 0
    "cuda owe_shift": {"float32": 1e-5, "float64": 1e-13},  # 1.5e-08, 0
    "cuda invert_sums": {"float32": 1e-5, "float64": 1e-13},  # 1.2e-07, 2.3e-16
    "cuda root_neighbourhoods": {"float32": 1e-5, "float64": 1e-13},  # 6e-08, 1.1e-16
    "cuda compare_edges": {"float32": 1e-5, "float64": 1e-13},  # 3e-08, 1.1e-16
    "cuda count_squares": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda attend_edges": {"float32": 1e-5, "float64": 1e-13},  # 9.4e-08, 2.6e-16
    "cuda symmetrise_edges": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda sum_genes": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda sum_segments": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda count_kept": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda gather_kept": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda thin_counts": {"float32": 1e-5, "float64": 1e-13},  # 0, 0
    "cuda measure_fits": {"float32": 1e-5, "float64": 1e-13},  # 9.6e-08, 8.9e-16: deviances
    "cuda score_spots": {"float32": 1e-5, "float64": 1e-13},  # 1.1e-07, 1.3e-15
    "cuda sum_excess": {"float32": 1e-5, "float64": 1e-13},  # 6.8e-08, 3.5e-16
    "cuda measure_errors": {"float32": 1e-5, "float64": 1e-13},  # 4.1e-08, 1.2e-15
    "cuda weigh_presence": {"float32": 1e-5, "float64": 1.1e-9},  # 4.0e-07, 1.1e-10: both sides run to convergence
    "cuda sweep_cells": {"float32": 1e-5, "float64": 1e-13},  # 2.4e-07, 3.3e-16
    # stages
    "place": {"float64": 2e-15},  # 1.7e-16
    "attend": {"float32": 1.4e-6, "float64": 4e-15},  # 1.8e-7, 4.3e-16
    "average_types": {"float64": 2e-15},  # 2.8e-17
    "gene weights": {"float32": 4e-6, "float64": 7e-14},  # 3.6e-7, 7.3e-15
    # whole runs, proportions of float32
    "kinds of tables": {"float32": 1e-6},  # 0
    "order of cells": {"float32": 1e-6},  # 0
    "order of cells, cells": {"float32": 1e-6},  # 0
    "order of genes": {"float32": 1e-4},  # 1.0e-5: whether a spot is visited once more hangs on the last bits
    "order of genes, cells": {"float32": 1.2e-4},  # 1.2e-5
    "order of spots": {"float32": 1e-5},  # 1.0e-6
    "order of spots, cells": {"float32": 4e-6},  # 3.6e-7
    "order of types": {"float32": 9e-4},  # 8.1e-5: types are visited in order, and passes end once settled
    "order of types, cells": {"float32": 1.5e-2},  # 1.5e-3 (rms 2e-4): eight sweeps in the order of the types
    "float32 against float64": {"float32": 5.3e-4},  # 5.3e-5: a spot is visited once more or less by its last bits
    # the order of the colours follows the bits of the places, and passes end once settled
    "unit of coordinates": {"float32": 9e-3},  # 8.4e-4
}


def error_of(actual, expected) -> float:
    """Greatest absolute difference over max(1, greatest absolute expected value)."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape} is not {expected.shape}"
    if not expected.size:
        return 0.0
    assert np.isfinite(expected).all(), "expected values must be finite"
    return float(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))


def check(name: str, actual, expected, dtype=np.float64) -> None:
    """Assert that two arrays agree within the tolerance of that name."""
    kind = np.dtype(dtype).name
    error = error_of(actual, expected)
    assert np.isfinite(error), f"{name}, {kind}: error {error}"
    if measured := os.environ.get("STDECONV_MEASURE"):
        with open(measured, "a") as file:
            file.write(f"{name} {kind} {error:.1e}\n")
        return
    assert error <= TOLERANCES[name][kind], f"{name}, {kind}: error {error:.1e} > {TOLERANCES[name][kind]:.0e}"


def check_below(name: str, error: float, dtype=np.float64) -> None:
    """Assert that an error of its own kind stays within the tolerance of that name."""
    check(name, error, 0.0, dtype)
