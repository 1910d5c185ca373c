"""``stdeconv-fast info``: versions, devices, threads, and where compiled kernels are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import EXIT_CODES, reporting

PACKAGES = ("numpy", "scipy", "pandas", "numba", "anndata", "joblib", "h5py", "zarr", "matplotlib", "click")
CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x")
WAIT = 10  # seconds that the driver's own program may take to list the GPUs


@click.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
@reporting
def info(as_json: bool) -> None:
    """Say what is installed and what this machine offers: for a report of a fault, or before a long run."""
    import os
    import platform

    from .. import __version__
    from ..memory import available_bytes
    from ..parallel import count_workers

    there = available_bytes()
    found = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "threads": count_workers(-1),
        "cores": os.cpu_count(),
        "memory_gb": None if there is None else there[0] / 1e9,
        "memory_limit": None if there is None else there[1],
        "kernels": _kernels(),
    }
    if as_json:
        import json

        click.echo(json.dumps(found))
    else:
        click.echo(_told(found))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """What `auto` takes, whether "cuda" can be had, and why not; CuPy and GPUs as far as they can be seen."""
    from ..backend import choose_device
    from ..errors import DeviceError

    auto, reason = "cpu", None
    try:
        auto = choose_device("cuda")
    except Exception as fault:  # a CuPy that is broken raises errors of any kind, and ends runs with "auto" too
        auto = "cpu" if isinstance(fault, DeviceError) else None
        reason = " ".join(str(fault).split()) or type(fault).__name__
    cupy = {name: found for name in CUPY if (found := _version(name))}
    return {"auto": auto, "cuda": reason is None, "cuda_reason": reason, "cupy": cupy, "gpus": _gpus()}


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs, as the driver's program nvidia-smi tells them; none where it is missing or fails."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _kernels() -> dict[str, Any]:
    """Where compiled kernels are kept, and how many of them are there, in any dtypes."""
    from .warmup import list_kernels

    kernels = list_kernels()
    folders = sorted({kernel.stats.cache_path or "" for kernel in kernels})
    kept = [folder for folder in folders if folder]
    files = [file for folder in kept for file in Path(folder).glob("*.nb[ic]")]
    names = {file.name.split("-")[0] for file in files if file.suffix == ".nbi"}
    there = sum(f"{k.py_func.__module__.rpartition('.')[2]}.{k.py_func.__qualname__}" in names for k in kernels)
    return {
        "compiling": bool(kernels),
        "kept": bool(folders) and "" not in folders,
        "folders": kept,
        "total": len(kernels),
        "there": there,
        "files": len(files),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }


def _told(found: dict[str, Any]) -> str:
    """The facts as a person reads them."""
    devices, kernels = found["devices"], found["kernels"]
    packages = ", ".join(f"{name} {version or '(not there)'}" for name, version in found["packages"].items())
    cupy = ", ".join(f"{name} {version}" for name, version in devices["cupy"].items()) or "no CuPy"
    memory = "not known" if found["memory_gb"] is None else f"{found['memory_gb']:.1f} GB ({found['memory_limit']})"
    if not kernels["compiling"]:
        where = "not compiled: NUMBA_DISABLE_JIT is set"
    elif not kernels["kept"]:
        where = "nowhere to keep them: every process compiles anew. Set NUMBA_CACHE_DIR to a folder that can be written"
    else:
        where = (
            f"{kernels['there']} of {kernels['total']} there, {kernels['files']} files, "
            f"{kernels['megabytes']:.1f} MB, in {', '.join(kernels['folders'])}"
        )
        if kernels["there"] < kernels["total"]:
            where += "; the others are compiled when they are met, or by stdeconv-fast warmup"
    auto = f"auto takes {devices['auto']}" if devices["auto"] else "auto fails: pass cpu"
    lines = {
        "version": f"stdeconv-fast {found['version']}, Python {found['python']}, {found['platform']}",
        "packages": packages,
        "device": auto + ("" if devices["cuda"] else f"; cuda: {devices['cuda_reason']}"),
        "gpu": f"{'; '.join(devices['gpus']) or 'none seen'}; {cupy}",
        "threads": f"{found['threads']} for this process, {found['cores']} cores of the machine",
        "memory": memory,
        "kernels": where,
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())
