"""The device seam: which device is taken, what is said where none can be, how arrays go up and come back."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stdeconv_fast import DeviceError, backend, deconvolve, simulate
from stdeconv_fast.kernels.cpu import laplacian
from stdeconv_fast.kernels.cuda import loader
from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.stages.graph import no_neighbours
from tests.cuda_shim.stand_in import DeviceArray, StandIn

NO_CUPY = "`device`='cuda' must find CuPy; got none. Run pip install 'stdeconv-fast[cuda12]' (or [cuda13])."


def card(free=1 << 30, shared=64 << 10):
    return backend.Card(StandIn, "stand-in", free, shared)


@pytest.fixture
def without_cupy(monkeypatch):
    """As on a machine without CuPy."""
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "cupy" else found(name, *rest))


def with_cupy(monkeypatch, count, error=None):
    """As with a CuPy that finds `count` devices."""
    import importlib.util

    def get_count():
        if error:
            raise error
        return count

    made = SimpleNamespace(cuda=SimpleNamespace(
        is_available=lambda: get_count() > 0,
        runtime=SimpleNamespace(getDeviceCount=get_count, getDeviceProperties=lambda number: {"name": b"Some GPU"}),
        Device=lambda number=0: SimpleNamespace(
            id=number, use=lambda: None, mem_info=(5, 10), attributes={"MaxSharedMemoryPerBlockOptin": 65536}
        ),
    ))  # fmt: skip
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: made if name == "cupy" else found(name, *rest))
    monkeypatch.setitem(sys.modules, "cupy", made)


def given(n_types=3):
    made = simulate(n_spots=20, n_genes=30 if n_types < 30 else 250, n_types=n_types, cells_per_type=6, seed=0)
    return made.spots, made.reference, made.coordinates, made.cell_types


def test_cuda_without_cupy_names_the_remedy(without_cupy):
    with pytest.raises(DeviceError) as told:
        deconvolve(*given(), device="cuda")
    assert str(told.value) == NO_CUPY


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [(0, None, "must find an NVIDIA GPU; got none. Check nvidia-smi and CUDA_VISIBLE_DEVICES"),
     (1, RuntimeError("cudaErrorInsufficientDriver"), "got cudaErrorInsufficientDriver. Check nvidia-smi")],
)  # fmt: skip
def test_cuda_without_a_gpu_names_the_remedy(monkeypatch, count, error, message):
    with_cupy(monkeypatch, count, error)
    with pytest.raises(DeviceError, match=message):
        backend.choose_device("cuda")


def test_a_card_is_described(monkeypatch):
    with_cupy(monkeypatch, 2)
    found = backend.find_card()
    assert (found.name, found.free, found.shared) == ("Some GPU", 5, 65536)


def test_auto_says_which_device_it_took(without_cupy, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "stdeconv_fast"):
        result = deconvolve(*given(), device="auto", progress=False)
        assert result.diagnostics["device"] == "cpu"
        assert [text for text in caplog.messages if text.startswith("device:")] == [
            "device: cpu (must find CuPy; got none. Run pip install 'stdeconv-fast[cuda12]' (or [cuda13]).)"
        ]
        monkeypatch.setattr(backend, "find_card", card)
        assert backend.choose_device("auto") == "cuda"
        assert caplog.messages[-1] == "device: cuda (stand-in)"


@pytest.mark.parametrize(
    ("settings", "n_types", "message"),
    [({}, 129, "device='cuda' must have at most 128 cell types; got 129"),
     ({"unknown": True}, 128, "device='cuda' must have at most 128 cell types; got 129"),
     ({"standard_errors": True}, 120, r"with standard_errors=True must have 69,\d+ bytes of shared memory a block"),
     ({"detection": True}, 115, r"with detection=True must have 68,\d+ bytes of shared memory a block for 115 types"),
     ({"dtype": "float64"}, 120, r"must have 68,\d+ bytes of shared memory a block for 120 types in float64; got 65")],
)  # fmt: skip
def test_what_the_device_cannot_run_is_told_before_the_run(monkeypatch, settings, n_types, message):
    monkeypatch.setattr(backend, "find_card", card)
    with pytest.raises(DeviceError, match=message):
        deconvolve(*given(n_types), device="cuda", progress=False, **settings)
    notes = []
    more = tuple(name for name in ("standard_errors", "detection") if name in settings)
    asked = ("cuda", "auto", n_types + ("unknown" in settings), settings.get("dtype", "float32"), notes, more)
    assert backend.agree(*asked) == "cpu"
    assert notes[0].startswith("device='auto' runs on the CPU. device='cuda' ") and "must have" in notes[0]


def test_a_card_that_is_too_small_is_told_with_numbers(monkeypatch):
    monkeypatch.setattr(backend, "find_card", lambda: card(free=10_000_000))
    message = r"must have 0\.1 GB of free memory for 20 spots; got 0\.0 GB on stand-in. Pass tiles="
    with pytest.raises(DeviceError, match=message):
        deconvolve(*given(), device="cuda", progress=False)
    result = deconvolve(*given(), device="auto", progress=False)
    assert result.diagnostics["device"] == "cpu"
    assert any("runs on the CPU" in note and "free memory" in note for note in result.diagnostics["notes"])


def test_a_card_that_runs_out_of_memory_is_told(monkeypatch):
    monkeypatch.setattr(backend, "find_card", card)
    full = type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})
    message = r"stand-in ran out of it \(no 8 bytes\). Pass more `tiles`"
    with pytest.raises(DeviceError, match=message), backend.hold_device("cuda", 1):
        raise full("no 8 bytes")
    with pytest.raises(MemoryError, match="of the host"), backend.hold_device("cuda", 1):
        raise MemoryError("of the host")


def test_the_hessian_of_100_types_fits_the_shared_memory_of_sm_75():
    assert loader.shared_bytes("solve_spots", 100, np.float64) <= 64 << 10
    assert loader.shared_bytes("solve_spots", 128, np.float32) <= 48 << 10
    assert loader.shared_bytes("measure_errors", 114, np.float32) <= 64 << 10
    assert loader.shared_bytes("weigh_presence", 112, np.float32) <= 64 << 10
    assert backend.refusal(card(), 100, np.float64, ("standard_errors", "detection")) is None


@pytest.mark.parametrize(
    ("name", "number"), [("MainProcess", 0), ("LokyProcess-1", 0), ("LokyProcess-5", 1), ("Worker-9", 2)]
)
def test_processes_take_devices_in_turn(monkeypatch, name, number):
    import multiprocessing

    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name=name))
    assert backend.number_for(3) == number


def test_parcels_go_up_and_come_back(monkeypatch):
    monkeypatch.setattr(backend, "UPLOAD", 64)
    graph = no_neighbours(100)
    with hold_workers(1) as workers:
        device = backend.Device(card(), workers)
        there = device.place((graph, 3.5, np.arange(60.0).reshape(4, 15)))
        assert isinstance(there[0].colours[0], DeviceArray) and there[1] == 3.5
        back = device.fetch(there)
        np.testing.assert_array_equal(back[0].colours[0], graph.colours[0])
        np.testing.assert_array_equal(back[2], np.arange(60.0).reshape(4, 15))
        assert back[2].dtype == np.float64 and back[0].indptr.dtype == np.int64


def test_arrays_of_both_places_in_one_call_are_refused():
    with hold_workers(1) as workers:
        device = backend.Device(card(), workers)
        arrays = tuple(np.zeros(shape) for shape in (2, 1, 1, 1, (1, 3)))
        with pytest.raises(TypeError, match="of the device or of the host, not both"):
            device.over(laplacian.apply_laplacian, 1, (*device.place(arrays), 1.0), (np.zeros((1, 3)),))


def test_the_stand_in_refuses_what_cupy_refuses():
    there = StandIn.asarray(np.arange(4.0))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(there)
    with pytest.raises(TypeError, match="Unsupported type"):
        there + np.ones(4)
    with pytest.raises(TypeError, match="not known to work"):
        np.add(there, 1, where=there > 1)
    with pytest.raises(TypeError, match="not known to work"):
        np.unique(there)
    assert float((there + 1).sum()) == 10
