"""Builds a CUDA source as a library for the CPU with g++; kept in a folder by the hash of all that went into it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from stdeconv_fast.kernels.cuda import loader

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
COMPILER = shutil.which("g++")
FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-fno-stack-protector")
C_TYPES = {"int": ctypes.c_int, "int64": ctypes.c_longlong, "double": ctypes.c_double, "real": None}
NO_COMPILER = "needs g++ to run CUDA sources on the CPU: apt-get install g++"


class BuildError(RuntimeError):
    """g++ refused a source."""


def wrappers(text: str) -> str:
    """A function of plain C for each kernel: run_NAME(grid, block, shared, seed, arguments)."""
    lines = []
    for name, parts in loader.parse(text).items():
        declared = ", ".join(
            f"{'const ' if part.constant else ''}{part.kind}{'*' if part.pointer else ''} {part.name}" for part in parts
        )
        given = ", ".join(part.name for part in parts)
        lines.append(
            f'extern "C" int run_{name}(unsigned grid, unsigned block, unsigned long long shared, unsigned long long '
            f"seed, {declared}) {{ return emu::launch(grid, block, shared, seed, [&] {{ {name}({given}); }}); }}"
        )
    return "\n".join(lines)


def build(text: str, options: tuple[str, ...]) -> Path:
    """The library of a source (with its header in it) for these -D options."""
    if COMPILER is None:
        raise BuildError(NO_COMPILER)
    defines = [option for option in options if option.startswith("-D")]
    whole = f'{SHIM.read_text(encoding="utf-8")}\n{text.replace(_EXTERN, "static void")}\n{wrappers(text)}\n'
    digest = hashlib.sha256("\0".join([whole, COMPILER, *FLAGS, *defines]).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("STDECONV_SHIM_CACHE") or Path(tempfile.gettempdir()) / "stdeconv_fast_cuda_shim")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, made = Path(scratch) / "source.cpp", Path(scratch) / "made.so"
            source.write_text(whole, encoding="utf-8")
            done = subprocess.run(
                [COMPILER, *FLAGS, *defines, str(source), "-o", str(made)], capture_output=True, text=True
            )
            if done.returncode:
                raise BuildError(done.stderr[:4000])
            made.replace(library)
    return library


_EXTERN = 'extern "C" __global__ void'


@cache
def load(library: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library))
