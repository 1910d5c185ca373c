"""Compiles CUDA sources by NVRTC, without a GPU or a driver: registers, spills and shared memory of every kernel."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from pathlib import Path

NEEDED = "needs NVRTC to compile CUDA sources: pip install 'stdeconv-fast[cudacheck]'"


def find_library() -> Path | None:
    """libnvrtc of the package nvidia-cuda-nvrtc-cu12, if it is installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).glob("cuda_nvrtc/lib/libnvrtc.so.*"))]
    found = [path for path in found if "alt" not in path.name]
    return found[0] if found else None


def compile_source(library: Path, text: str, options: tuple[str, ...]) -> str:
    """The log of a compilation; RuntimeError with the log where it fails."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"source.cu", 0, None, None)
    given = [option.encode() for option in options]
    code = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if code:
        raise RuntimeError(log.value.decode())
    return log.value.decode()


def measure(library: Path, text: str, arch: int, options: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Registers, bytes of spills and of stack frame of every kernel; kept in a folder by the hash of what goes in."""
    whole = (f"-arch=sm_{arch}", *options, "--ptxas-options=-v")
    digest = hashlib.sha256("\0".join([text, library.name, str(library.stat().st_size), *whole]).encode()).hexdigest()
    folder = Path(os.environ.get("STDECONV_SHIM_CACHE") or Path(tempfile.gettempdir()) / "stdeconv_fast_cuda_shim")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{digest[:24]}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    found = read_log(compile_source(library, text, whole))
    kept.write_text(json.dumps(found))
    return found


def read_log(log: str) -> dict[str, dict[str, int]]:
    """What ptxas says of each kernel."""
    found = {}
    for name, inside in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", log, re.S):
        numbers = {
            "registers": r"Used (\d+) registers", "spills": r"(\d+) bytes spill stores",
            "frame": r"(\d+) bytes stack frame",
        }  # fmt: skip
        found[name] = {key: int(re.search(pattern, inside)[1]) for key, pattern in numbers.items()}
    return found
