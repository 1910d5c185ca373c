"""Every CUDA source compiles by NVRTC for every GPU that is promised: no spills, few registers. Needs no GPU."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cuda import loader
from tests.cuda_shim import nvrtc

LIBRARY = nvrtc.find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=nvrtc.NEEDED)
ARCHS = (70, 75, 80, 86, 90)
REGISTERS = 128  # of a thread, at most: four warps of a block then leave room for three more blocks
STRIPED = {"spots": (1, 2, 3, 4), "least_squares": (1, 2, 3, 4)}  # types per lane
NARROW = {"index_t": np.uint16, "count_t": np.uint16}
COUNTS = (NARROW, {"index_t": np.uint16, "count_t": np.uint8}, {"index_t": np.int32, "count_t": np.uint16})


def builds(stem, real):
    """Options of the builds of a source for one type of abundances: each width, and each type of counts."""
    for per_lane in STRIPED.get(stem, (1,)):
        yield loader.options({"real": real, **NARROW}, 32 * per_lane)
    if "count_t*" in loader.read_source(stem):
        for kinds in (*COUNTS[1:], {"index_t": np.int32, "count_t": real}, {"index_t": np.uint16, "count_t": real}):
            yield loader.options({"real": real, **kinds}, 32)


def look(stem, arch, options):
    """Compile and judge; what ptxas said of each kernel."""
    found = nvrtc.measure(LIBRARY, loader.read_source(stem), arch, options)
    assert sorted(found) == sorted(loader.parameters(stem))
    for name, numbers in found.items():
        assert numbers["spills"] == 0 and numbers["frame"] == 0, f"{name}, sm_{arch}: {numbers}"
        assert numbers["registers"] <= REGISTERS, f"{name}, sm_{arch}: {numbers}"
    return found


@pytest.mark.parametrize("arch", [ARCHS[0], ARCHS[-1]])
@pytest.mark.parametrize("stem", loader.STEMS)
def test_a_source_compiles(stem, arch):
    for per_lane in {STRIPED.get(stem, (1,))[end] for end in (0, -1)}:
        look(stem, arch, loader.options({"real": np.float32, **NARROW}, 32 * per_lane))


@pytest.mark.nvrtc_all
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("stem", loader.STEMS)
def test_every_build_compiles(stem, arch, real):
    most = {}
    for options in builds(stem, real):
        for name, numbers in look(stem, arch, options).items():
            most[name] = max(most.get(name, 0), numbers["registers"])
    print(f"sm_{arch} {np.dtype(real).name} {stem}: " + ", ".join(f"{name} {n}" for name, n in sorted(most.items())))


def test_a_spill_would_be_seen():
    bounds = "__global__ void __launch_bounds__(1024, 2)\nsolve_spots"
    text = loader.read_source("spots").replace("__global__ void\nsolve_spots", bounds)
    options = loader.options({"real": np.float64, **NARROW}, 128)
    assert nvrtc.measure(LIBRARY, text, 70, options)["solve_spots"]["spills"] > 0


def test_an_error_of_the_compiler_is_told():
    with pytest.raises(RuntimeError, match="undefined"):
        nvrtc.compile_source(LIBRARY, 'extern "C" __global__ void f(int* a) { a[0] = nothing; }', ("-arch=sm_70",))
