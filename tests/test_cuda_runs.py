"""Whole runs on the device seam: on the stand-in in a child process, by CuPy where there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from stdeconv_fast import deconvolve, simulate
from tests.cuda_shim.child import ROOT
from tests.cuda_shim.whole_run import CASES, TISSUE
from tests.test_cuda_kernels import SHIM

# measured, float32: proportions up to 6e-5, deviance up to 1.9e-5, q-values up to 3.8e-6: a visit more or less hangs
# on the last bits
CLOSE = {"proportions": 1e-4, "roughness": 1e-5, "deviance": 1e-4, "expected": 1e-6, "weights": 1e-4, "errors": 1e-4,
         "q-values": 1e-4, "cells": 1e-4}  # fmt: skip


@cache
def run(name, *how):
    """What `whole_run` says of a case."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.cuda_shim.whole_run", name, *how],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@SHIM
@pytest.mark.parametrize("name", CASES)
def test_the_device_gives_what_the_cpu_gives(name):
    told = run(name)
    assert (told["device"], told["cpu"]) == ("cuda (stand-in)", "cpu")
    assert told["strengths"][0] == told["strengths"][1] and told["plain arrays"]
    for key in CLOSE.keys() & told.keys():
        assert told[key] <= CLOSE[key], f"{key}: {told[key]:.1e}"
    if name == "float64":
        assert told["proportions"] <= 1e-12
    if name == "gaussian":
        assert told["launches"]["solve_spots_gaussian"] > 10
        return
    launches = told["launches"]
    assert launches["solve_spots"] >= 1 and launches["measure_fits"] >= 1
    for kernel, asked in (("measure_errors", "errors"), ("weigh_presence", "q-values")):
        assert (launches.get(kernel, 0) >= 1) == (asked in told)
    assert (told["launches"].get("visit_spots", 0) > 0) == (name != "alone")
    assert ("sweep_cells" in told["launches"]) == (name == "cells")


@SHIM
@pytest.mark.parametrize("name", ["plain", "gaussian", "cells", "two tiles"])
def test_uploads_by_blocks_change_no_bit(name):
    told = run(name, "by-blocks")
    assert told["same"] and all(told["same"].values()), told["same"]
    assert told["plain sent"] == 0 < told["sent"] and told["pending"] == 0
    ours, plain = ({**told[key]} for key in ("launches", "plain launches"))
    if name != "gaussian":  # least squares have no solve that begins before all is up
        assert ours.pop("solve_spots") > 3 * plain.pop("solve_spots")
    assert ours == plain


@SHIM
def test_the_plan_covers_what_the_run_takes():
    from stdeconv_fast.backend import plan_bytes
    from stdeconv_fast.kernels.cuda.loader import PART_BYTES

    told = run("plain")
    n_spots, n_genes = told["shape"]
    planned = plan_bytes(n_spots, told["nnz"], 12 * n_spots, TISSUE["n_types"], n_genes, 4, np.float32)
    # on top of the plan for large data: parts of the sums over genes, and a guard on either side of each array
    assert 0.1 * planned < told["peak"] + PART_BYTES and told["peak"] < planned


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_gpu_gives_what_the_cpu_gives(name):
    changes, settings = CASES[name]
    made = simulate(**{**TISSUE, **changes}, seed=3)
    given = (made.spots, made.reference, made.coordinates, made.cell_types)
    found, right = (deconvolve(*given, device=device, progress=False, **settings) for device in ("cuda", "cpu"))
    assert found.diagnostics["device"].startswith("cuda")
    np.testing.assert_allclose(found.proportions, right.proportions, atol=CLOSE["proportions"])
