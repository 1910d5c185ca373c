"""Builds the CUDA twins for the types at hand and launches them, through the array module it is handed.

A twin has the name, argument order and in-place rule of its CPU kernel; after its own arguments come sizes that the
CPU kernel reads off its arrays. The array module is CuPy, or a stand-in with the same `RawModule` and `ndarray`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
STEMS = ("attention", "cells", "counts", "fits", "laplacian", "least_squares", "presence", "spots")
MOST_TYPES = 128
WARP, TILE = 32, 8  # as in the sources
WARPS = 4  # of a block, at most
SHARED = 48 << 10  # bytes of shared memory that a block of several warps may take
MOST_PARTS = 2048  # of a sum over rows
PART_BYTES = 64 << 20  # of all parts of a sum, at most
CREWS = 1024  # warps at work at a time where each needs room of its own
CREW_BYTES = 256 << 20

# rows in parts, a warp each
SUMS = frozenset({"count_squares", "sum_genes", "sum_segments", "sum_excess", "measure_fits"})
IN_SHARED = frozenset({"solve_spots", "visit_spots", "measure_errors", "weigh_presence"})
VECTORS = {"measure_errors": 3, "weigh_presence": 7}  # beside a matrix of float64
WITH_CREWS = frozenset({"sweep_cells"})
BY_ROWS = frozenset({"solve_spots"})  # without neighbours a visit reads the counts of its own spot alone
BY_THREAD = frozenset({"owe_moves", "attend_edges", "symmetrise_edges"})  # a row a thread; else a row a warp

PLAIN = {"int": np.int32, "int64": np.int64, "double": np.float64, "unsigned char": np.bool_, "word": np.uint64}
C_NAMES = {
    "float32": "float", "float64": "double", "int32": "int", "int64": "long long", "uint8": "unsigned char",
    "uint16": "unsigned short",
}  # fmt: skip
# Sizes that a twin is told, by the argument (and axis) that holds them.
SIZES = {
    "n_types": (("profiles_t", 1), ("gram", 1), ("abundances", 1), ("values", 1), ("roots", 1), ("roots_out", 1)),
    "n_genes": (("gene_roots", 0), ("gene_map", 0)),
    "n_columns": (("sums_out", -1),),
    "n_segments": (("sums_out", -2),),
    "n_cells": (("cell_norms", 0),),
    "n_old": (("old_indices", 0),),
    "n_dense": (("cell_rows", 0),),
    "most": (("cells_out", 1),),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a twin: "real", "int64" and so on; a pointer or not, written or not."""

    kind: str
    name: str
    pointer: bool
    constant: bool


@cache
def read_source(stem: str) -> str:
    """The source of a stem with its headers in it."""
    text = (HERE / f"{stem}.cu").read_text(encoding="utf-8")
    return re.sub(r'#include "(\w+\.cuh)"', lambda found: (HERE / found[1]).read_text(encoding="utf-8"), text)


def parse(text: str) -> dict[str, tuple[Parameter, ...]]:
    """Parameters of every kernel of a source, by name."""
    found = {}
    for name, inside in re.findall(
        r'extern "C" __global__ void\s*(?:__launch_bounds__\(\d+\))?\s*(\w+)\(([^)]*)\)', text
    ):
        parts = []
        for words in inside.replace("__restrict__", "").split(","):
            kind, pointer, label = re.fullmatch(r"\s*(?:const\s+)?([\w ]+?)\s*(\*?)\s*(\w+)\s*", words).groups()
            parts.append(Parameter(kind, label, bool(pointer), "const " in words))
        found[name] = tuple(parts)
    return found


@cache
def parameters(stem: str) -> dict[str, tuple[Parameter, ...]]:
    """Parameters of every kernel of a stem, by name."""
    return parse(read_source(stem))


def options(kinds: dict[str, np.dtype], n_types: int) -> tuple[str, ...]:
    """Compiler options of one build."""
    names = {name.upper().removesuffix("_T"): C_NAMES[np.dtype(kind).name] for name, kind in kinds.items()}
    return ("--std=c++17", *(f"-D{name}={kind}" for name, kind in sorted(names.items())), f"-DMAXT={-(-n_types // 32)}")


def shared_bytes(name: str, n_types: int, real: Any) -> int:
    """Shared memory of one warp of a kernel that keeps a spot's Hessian there, packed."""
    size, packed = np.dtype(real).itemsize, n_types * (n_types + 1) // 2
    if name in VECTORS:
        return 8 * (packed + n_types * (TILE + VECTORS[name]) + WARP) + 4 * (n_types + WARP + (n_types & 1))
    reals = packed + n_types * TILE + 2 * n_types + WARP
    return (reals + (reals & 1)) * size + 4 * (n_types + WARP + (n_types & 1))


class Twins:
    """The twins on one device.

    Parameters
    ----------
    xp : module
        CuPy or a stand-in.
    most_shared : int
        Bytes of shared memory that a block may ask for.
    """

    def __init__(self, xp: Any, most_shared: int) -> None:
        self.xp, self.most_shared = xp, most_shared
        self._modules: dict[tuple, Any] = {}
        self._functions: dict[tuple, Any] = {}

    def over(self, kernel: Callable, n: int, before: tuple, after: tuple) -> None:
        """Run the twin of a CPU kernel over n rows; it writes into `after`."""
        self.launch(kernel, (*before, 0, n, *after), n)

    def sums(self, kernel: Callable, n: int, before: tuple, shape: tuple[int, ...], after: tuple = ()) -> Any:
        """Sums over n rows by the twin of a CPU kernel, float64: the parts are fixed by the sizes alone.

        A kernel that writes something of each row, too, is given it in `after`.
        """
        size = int(np.prod(shape))
        parts = max(1, min(MOST_PARTS, PART_BYTES // max(8 * size, 1), n))
        stack = self.xp.zeros((parts, *shape), dtype=np.float64)
        self.launch(kernel, (*before, 0, n, *after, stack), n, parts)
        return stack.sum(axis=0)

    def goes_by_rows(self, kernel: Callable, n: int, before: tuple) -> bool:
        """Whether row i of the twin reads row i of the counts alone and nothing that another row writes."""
        stem, name = kernel.__module__.rpartition(".")[2], kernel.__name__
        if name not in BY_ROWS:
            return False
        given = dict(zip((part.name for part in parameters(stem)[name]), before, strict=False))
        spots = given["spots"]
        if given["graph_indices"].shape[0] or n != spots.shape[0] or n != given["indptr"].shape[0] - 1:
            return False
        return bool((spots == self.xp.arange(n, dtype=spots.dtype)).all())

    def launch(self, kernel: Callable, arguments: tuple, n: int, parts: int = 0) -> None:
        """Launch the twin of a CPU kernel on the arguments of that kernel, for n rows."""
        stem, name = kernel.__module__.rpartition(".")[2], kernel.__name__
        if n == 0:
            return
        wanted = parameters(stem)[name]
        given = dict(zip((part.name for part in wanted), arguments, strict=False))
        kinds = self._kinds(name, wanted, given)
        n_types = self._size("n_types", given) or 1
        grid, block, shared, more = self._geometry(name, n, parts, n_types, kinds["real"], given)
        values = []
        for part in wanted:
            if part.name in given:
                value = given[part.name]
            else:
                value = more[part.name] if part.name in more else self._size(part.name, given)
            kind = kinds.get(part.kind, PLAIN.get(part.kind))
            if not part.pointer:
                values.append(np.dtype(kind).type(value))
                continue
            if not isinstance(value, self.xp.ndarray) or value.dtype != kind or not value.flags.c_contiguous:
                raise TypeError(
                    f"{part.name} of {name} must be a C-contiguous array of {np.dtype(kind).name} on the device; got "
                    f"{type(value).__name__} of {getattr(value, 'dtype', '')}."
                )
            values.append(value)
        function = self._function(stem, name, kinds, n_types, shared)
        function((grid,), (block,), tuple(values), shared_mem=shared)

    def _kinds(self, name: str, wanted: tuple[Parameter, ...], given: dict[str, Any]) -> dict[str, np.dtype]:
        """The types of this build, from the first array of each kind."""
        kinds: dict[str, np.dtype] = {}
        for part in wanted:
            if part.pointer and part.kind in ("real", "index_t", "count_t") and part.name in given:
                kinds.setdefault(part.kind, np.dtype(given[part.name].dtype))
        return {"real": np.dtype(np.float32), "index_t": np.dtype(np.int32), "count_t": np.dtype(np.float32), **kinds}

    @staticmethod
    def _size(name: str, given: dict[str, Any]) -> int:
        for argument, axis in SIZES[name]:
            if argument in given:
                return int(given[argument].shape[axis])
        return 0

    def _geometry(
        self, name: str, n: int, parts: int, n_types: int, real: np.dtype, given: dict[str, Any]
    ) -> tuple[int, int, int, dict[str, Any]]:
        """Blocks, threads of a block, bytes of shared memory, and arguments that only the launch knows."""
        if name in SUMS:
            return parts, WARP, 0, {}
        if name in WITH_CREWS:
            n_cells, n_genes = self._size("n_cells", given), self._size("n_genes", given)
            reals, ints = 3 * n_cells + n_genes + n_types, 2 * n_cells + 3 * (n_types + 1)
            crews = max(1, min(n, CREWS, CREW_BYTES // (reals * real.itemsize + 4 * ints)))
            room, marks = self.xp.empty((crews, reals), dtype=real), self.xp.empty((crews, ints), dtype=np.int32)
            return crews, WARP, 0, {"room": room, "marks": marks}
        if name in BY_THREAD:
            return -(-n // (WARP * WARPS)), WARP * WARPS, 0, {}
        if name not in IN_SHARED:
            return -(-n // WARPS), WARP * WARPS, 0, {}
        each = shared_bytes(name, n_types, real)
        warps = max(1, min(WARPS, SHARED // each))
        return -(-n // warps), WARP * warps, warps * each, {}

    def _function(self, stem: str, name: str, kinds: dict[str, np.dtype], n_types: int, shared: int) -> Any:
        per_lane = -(-n_types // WARP) if "< MAXT" in read_source(stem) else 1
        build = (stem, *(str(kind) for kind in kinds.values()), per_lane)
        if (build, name) not in self._functions:
            if build not in self._modules:
                self._modules[build] = self.xp.RawModule(
                    code=read_source(stem), options=options(kinds, per_lane * WARP), backend="nvrtc"
                )
            self._functions[build, name] = self._modules[build].get_function(name)
        function = self._functions[build, name]
        if shared > SHARED and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        return function
