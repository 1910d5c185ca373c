"""Every CUDA twin against the naive reference and the CPU kernel: by the stand-in on any machine, by CuPy on a GPU."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import import_module

import numpy as np
import pytest

from stdeconv_fast.kernels.cuda import loader
from tests import cuda_cases
from tests.cuda_shim import build
from tests.cuda_shim.child import in_child, run_cases, with_seeds
from tests.tolerances import TOLERANCES, check

SHIM = pytest.mark.skipif(build.COMPILER is None, reason=build.NO_COMPILER)
DEVICES = [pytest.param("stand-in", marks=SHIM), pytest.param("gpu", marks=pytest.mark.gpu)]
ON = pytest.mark.parametrize("device", DEVICES)
DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])
STEM = pytest.mark.parametrize("stem", loader.STEMS)


@cache
def cases_of(stem, dtype):
    return {size: list(cuda_cases.of(stem, size, dtype)) for size in cuda_cases.SIZES}


def by_gpu(cases):
    from stdeconv_fast import backend

    card = backend.find_card()
    return run_cases(card.xp, card.shared, cases)


@cache
def outputs(device, stem, dtype):
    """What the twins of a stem write, by size: twice, with another seed on the stand-in."""
    cases = cases_of(stem, dtype)
    sent = [case.sent() for some in cases.values() for case in some]
    answers = [by_gpu(sent), by_gpu(sent)] if device == "gpu" else with_seeds(sent, (1, 2))
    return [{size: [next(found) for _ in some] for size, some in cases.items()} for found in map(iter, answers)]


def compare(case, found, dtype):
    """Twin against CPU kernel, and against the naive reference; NaN and inf in the same places."""
    name = case.kernel.__name__
    expected = case.by_cpu()
    if name == "sweep_cells":
        compare_cells(case, found, expected, dtype)
        return
    assert len(found) == len(expected)
    for number, (ours, cpu) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype == cpu.dtype and ours.shape == cpu.shape
        check_one(f"cuda {name}", case, ours, cpu, dtype)
        if number in case.expected:
            tolerance, reference = case.expected[number]
            rows = slice(None) if case.rows is None else case.rows
            check_one(tolerance, case, ours[rows], reference[rows], dtype)


def check_one(tolerance, case, ours, reference, dtype):
    """One output against one reference."""
    odd = ~np.isfinite(reference) if reference.dtype.kind == "f" else np.zeros(reference.shape, bool)
    np.testing.assert_array_equal(ours[odd], reference[odd].astype(ours.dtype))
    if ours.dtype.kind == "f":
        check(tolerance, ours[~odd], reference[~odd], dtype if dtype in TOLERANCES[tolerance] else "float64")
    elif case.kernel.__name__ == "solve_spots":
        # Newton steps: without a tolerance they end by rounding
        assert case.after[5] == 0 or (np.abs(ours - reference) <= 1).all()
    elif case.kernel.__name__ == "solve_spots_gaussian":
        assert case.after[4] > 0 or (ours == reference).all()  # sweeps: near the rounding their end is open
    else:
        np.testing.assert_array_equal(ours, reference)


def compare_cells(case, found, expected, dtype):
    """The same cells, ascending; weights beyond the lengths stay as they came."""
    (lengths, cells, weights), (cpu_lengths, cpu_cells, cpu_weights) = found, expected
    np.testing.assert_array_equal(lengths, cpu_lengths)
    np.testing.assert_array_equal(cells, cpu_cells)
    check("cuda sweep_cells", weights, cpu_weights, dtype)
    for tolerance, whole in case.expected.values():
        dense = np.zeros(whole.shape)
        for i, length in enumerate(lengths[: len(whole)]):
            dense[i, cells[i, :length]] = weights[i, :length]
        check(tolerance, dense, whole, dtype)


@ON
@DTYPE
@STEM
@pytest.mark.parametrize("size", cuda_cases.SIZES)
def test_twin(device, dtype, stem, size):
    cases = cases_of(stem, dtype)[size]
    for case, found in zip(cases, outputs(device, stem, dtype)[0][size], strict=True):
        compare(case, found, dtype)


@ON
@DTYPE
@STEM
def test_the_order_of_blocks_and_lanes_changes_no_bit(device, dtype, stem):
    """Another seed on the stand-in; the same launches once more on a GPU."""
    first, second = outputs(device, stem, dtype)
    for size in cuda_cases.SIZES:
        for one, other in zip(first[size], second[size], strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


@STEM
def test_a_twin_has_the_arguments_of_its_cpu_kernel(stem):
    """The same names in the same order; then sizes that the loader can tell."""
    module = import_module(f"stdeconv_fast.kernels.cpu.{stem}")
    for name, parts in loader.parameters(stem).items():
        own = [part.name for part in parts]
        wanted = list(inspect.signature(getattr(module, name).py_func).parameters)
        assert own[: len(wanted)] == wanted
        assert set(own[len(wanted) :]) <= {*loader.SIZES, "room", "marks"}
        outputs = {part.name for part in parts if part.pointer and not part.constant}
        assert {label for label in wanted if label.endswith("_out")} <= outputs


def test_numbers_are_those_of_the_cpu_kernels():
    found, shared = 0, vars(import_module("stdeconv_fast.kernels.newton"))
    for stem in loader.STEMS:
        ours = shared | vars(import_module(f"stdeconv_fast.kernels.cpu.{stem}"))
        text = loader.read_source(stem)
        for name, value in re.findall(r"#define (\w+) ([\d.e-]+)", text):
            if name not in ("TILE", "WARP", "ALL"):
                assert ours[name] == float(value), f"{name} of {stem}"
                found += 1
    assert found == 16
    assert re.search(r"#define TILE (\d+)", loader.read_source("spots"))[1] == str(loader.TILE)


def test_every_source_is_listed():
    assert sorted(loader.STEMS) == sorted(path.stem for path in loader.HERE.glob("*.cu"))
    assert "atomicAdd" not in "".join(map(loader.read_source, loader.STEMS))


def test_arrays_of_another_type_or_place_are_refused():
    case = cases_of("laplacian", "float32")["33 types"][0]
    for change in ({3: case.before[3].astype(np.float64)}, {0: case.before[0].astype(np.int32)}):
        before = tuple(change.get(number, value) for number, value in enumerate(case.before))
        sent = (*case.sent()[:3], before, *case.sent()[4:])
        with pytest.raises(RuntimeError, match="must be a C-contiguous array of"):
            in_child([sent])
