"""The script for a day with a real GPU, as far as it runs without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu_day
from tests.test_cuda_kernels import SHIM

ROOT = Path(__file__).resolve().parent.parent
ON_THE_STAND_IN = """
import json, sys
from argparse import Namespace
from benchmarks import gpu_day
from stdeconv_fast import backend, uploads
from tests.cuda_shim.stand_in import MEMORY
from tests.cuda_shim.whole_run import stand_in_card
backend.find_card = stand_in_card
gpu_day.peak_bytes = lambda card: MEMORY.peak
gpu_day.SIZES = ((80, 150, 3, 1e-9),)
gpu_day.COMPARED, backend.UPLOAD, uploads.BLOCK = 80, 4096, 4096
if sys.argv[1] == "kernels":
    print(json.dumps(gpu_day.kernels(Namespace())))
else:
    make = gpu_day.copies
    gpu_day.copies = lambda n, genes, types, block=60: make(min(n, 80), min(genes, 150), min(types, 3), 40)
    print(json.dumps(gpu_day.scale(Namespace(n=None))))
"""


def on_the_stand_in(what):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ON_THE_STAND_IN, what],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@SHIM
def test_every_kernel_is_launched():
    from stdeconv_fast.kernels.cuda import loader

    launched = on_the_stand_in("kernels")["launched"]
    assert set(launched) == {name for stem in loader.STEMS for name in loader.parameters(stem)}


@SHIM
def test_times_and_memory_are_told_and_judged():
    found = on_the_stand_in("scale")
    (first,) = found["scale"]
    assert (first["n"], first["types"]) == (80, 3)
    assert first["device"] == "cuda (stand-in)" and 0 < first["peak_bytes"] < 1e9
    assert first["device_seconds"] == pytest.approx(sum(first["seconds"][stage] for stage in gpu_day.ON_DEVICE))
    assert not first["ok"] and not found["ok"]  # its aim is out of reach
    overlap, graph = first["overlap"], first["graph"]
    assert overlap["same"] and overlap["bytes"] > 4 * 4096
    assert set(overlap["seconds"]) == {"together", "apart", "upload"}
    assert min(overlap["seconds"].values()) > 0
    assert graph["launches"] > 10 and 0 < graph["seconds"] <= first["seconds"]["passes"]
    for how, each in graph["seconds_each"].items():
        assert graph["shares"][how] == pytest.approx(graph["launches"] * each / graph["seconds"])
    assert 0 < graph["seconds_each"]["bare"] < graph["seconds_each"]["around"]


def test_copies_stand_side_by_side():
    spots, _, places, _ = gpu_day.copies(250, 30, 3, 100)
    assert spots.shape[0] == len(places) == 250
    assert len(np.unique(places, axis=0)) == 250
    np.testing.assert_array_equal(spots[:50].toarray(), spots[200:].toarray())
    assert places[100:200, 0].min() > places[:100, 0].max()


def test_memory_counts_against_a_run():
    result = SimpleNamespace(
        seconds={"first fit": 0.5, "tuning": 0.2, "passes": 0.2, "fit": 0.1, "input": 9.0}, genes=[0] * 7,
        diagnostics={"device": "cuda (x)"},
    )  # fmt: skip
    for peak, aim, ok in ((5e9, 2.0, True), (7e9, 2.0, False), (5e9, 0.9, False), (5e9, None, True)):
        assert gpu_day.row_of(result, 10, 20, 3, aim, int(peak))["ok"] is ok


def test_the_parts_are_joined(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"card": "NVIDIA H100 80GB"}))
    (tmp_path / "sets.json").write_text(json.dumps({"sets": [], "ok": True}))
    header = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    rows = ['"0","visit_spots(const long*)","sm","%","10.0"', '"1","visit_spots(const long*)","sm","%","1,020.0"']
    (tmp_path / "ncu.csv").write_text("\n".join(["==PROF== Connected", header, *rows]))
    options = SimpleNamespace(folder=str(tmp_path), results=str(tmp_path))
    assert gpu_day.join(options)["ok"] is False  # a part is missing
    (tmp_path / "scale.json").write_text(json.dumps({"scale": [], "ok": True}))
    assert gpu_day.join(options)["ok"] is True
    whole = json.loads((tmp_path / "gpu_nvidia_h100_80gb.json").read_text())
    assert whole["ncu"] == [{"kernel": "visit_spots", "metric": "sm", "mean": 515.0, "launches": 2}]


def test_without_a_gpu_the_day_ends_with_an_error():
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", "benchmarks/gpu_day.sh"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120
    )
    assert done.returncode == 1
    assert "no usable GPU" in done.stdout and "a device is found: FAILED" in done.stdout
