"""Planted faults: the checks of the stand-in and of the kernel tests catch them.

Without a fault the same cases pass: `test_cuda_kernels.test_twin`. What fibres cannot show are races inside one
statement, such as two lanes that add to one number: compute-sanitizer looks for these on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cuda import loader
from tests import cuda_cases
from tests.cuda_shim import build
from tests.cuda_shim.child import in_child
from tests.test_cuda_kernels import SHIM, compare

pytestmark = SHIM
AT_LAST = "if (at >= stop) return;"
ROWS = "if (i >= stop) return;"
# stem, kernel, what is changed in the source, into what, how it is told
FAULTS = {
    "last spot dropped": ("spots", "visit_spots", AT_LAST, "if (at >= stop - 1) return;", "differ"),
    "one spot too many": ("laplacian", "apply_laplacian", ROWS, "if (i > stop) return;", "wrote outside"),
    "one owed too many": ("laplacian", "owe_moves", ROWS, "if (i > stop) return;", "wrote outside"),
    "an edge dropped": ("attention", "symmetrise_edges", "e < indptr[i + 1]", "e + 1 < indptr[i + 1]", "differ"),
    "a barrier missing after the ratios": (
        "spots", "solve_spots",
        "room.ratio[lane] = count_of(s, t) / mean_of(room, s, gene);\n        }\n        __syncwarp();",
        "room.ratio[lane] = count_of(s, t) / mean_of(room, s, gene);\n        }", "differ",
    ),
    "a barrier missing in the Hessian": (
        "spots", "visit_spots", "            __syncwarp();\n            int a = 0, b = lane;",
        "            int a = 0, b = lane;", "differ",
    ),
    "a barrier that not all lanes reach, in a sum": (
        "counts", "sum_genes", "sums[indices[e]] += (double)data[e];\n        __syncwarp();",
        "{ const double was = sums[indices[e]]; __syncwarp(); sums[indices[e]] = was + (double)data[e]; }",
        "diverged|differ",
    ),
    "a barrier that half the warp reaches": (
        "fits", "score_spots", "    score = warp_sum(score);", "    if (lane < 16) score = warp_sum(score);",
        "diverged",
    ),
    "lanes that meet in a step of the count": (
        "attention", "count_squares", "found = __popc(alike);", "found = 1;", "differ",
    ),
    "edges below the count": ("attention", "count_squares", "below = warp_sum(below);", "", "differ"),
    "a mask of half a warp": (
        "attention", "compare_edges", "square = warp_sum(square);", "square += __shfl_xor_sync(0xffffu, square, 1);",
        "part of a warp",
    ),
    "a barrier missing in the Cholesky factor": (
        "fits", "measure_errors", "matrix[packed(a, c)] / root;\n        __syncwarp();", "matrix[packed(a, c)] / root;",
        "differ",
    ),
    "a barrier missing in the sweeps": (
        "presence", "weigh_presence", "if (step == 0) continue;\n                __syncwarp();",
        "if (step == 0) continue;", "diverged|differ",
    ),
    "no room for the vectors": (
        "presence", "weigh_presence", "(TILE + n_vectors)", "(TILE + n_vectors + 1)", "past the shared memory|differ",
    ),
    "too little shared memory": (
        "spots", "solve_spots", "#define TILE 8 ", "#define TILE 12 ", "past the shared memory|differ",
    ),
    "an input overwritten": (
        "laplacian", "apply_laplacian", "product_out[(size_t)i * n_types + k] = (real)product;",
        "product_out[(size_t)i * n_types + k] = (real)product; ((real*)values)[(size_t)i * n_types + k] = 5;",
        "wrote into values",
    ),
}  # fmt: skip


def told(stem, kernel, change, dtype, size="130 spots"):
    """What the checks say of a changed source; None where they say nothing."""
    cases = [case for case in cuda_cases.of(stem, size, dtype) if case.kernel.__name__ == kernel]
    try:
        found = in_child([case.sent() for case in cases], 3, change)
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]
    try:
        for case, outputs in zip(cases, found, strict=True):
            compare(case, outputs, dtype)
    except AssertionError as error:
        return f"differ: {str(error).strip().splitlines()[0]}"
    return None


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_told(name):
    stem, kernel, old, new, how = FAULTS[name]
    said = told(stem, kernel, (stem, old, new), "float64")
    assert said is not None, f"{name}: no check noticed"
    assert any(part in said for part in how.split("|")), said
    print(f"{name}: {said}")


def test_static_shared_memory_is_refused():
    text = loader.read_source("spots").replace("DYNAMIC_SHARED(smem_raw)", "__shared__ unsigned char smem_raw[512];")
    with pytest.raises(build.BuildError, match="static_shared_memory_is_refused"):
        build.build(text, loader.options({"real": np.float64, "index_t": np.int32, "count_t": np.float64}, 1))


def test_a_crash_ends_the_child_alone():
    case = next(cuda_cases.of("laplacian", "130 spots", "float64"))
    change = ("laplacian", "double product =", "*(volatile int*)8 = 1; double product =")
    with pytest.raises(RuntimeError, match="ended with -11"):
        in_child([case.sent()], 0, change)
