"""Environments of their own for flashdeconv 0.2.0, which pins numba < 0.64 and numpy < 2.4, and for ours.

An environment with extras (dask, say) imports slower than the one that `pip install` makes: each tool is timed in
what its own installation brings, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER = "flashdeconv==0.2.0"
RUN = """
import json, os, resource, sys, time
import anndata as ad
import flashdeconv as fd
for spots_file, reference_file, key, out in json.loads(sys.argv[1]):
    spots, reference = ad.read_h5ad(spots_file), ad.read_h5ad(reference_file)
    started, cpu = time.perf_counter(), time.process_time()
    fd.tl.deconvolve(spots, reference, cell_type_key=key)
    used = [time.perf_counter() - started, time.process_time() - cpu]
    frame = spots.obsm["flashdeconv"]
    frame.to_csv(out)
    print(json.dumps({"out": out, "wall": used[0], "cpu": used[1],
                      "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)
"""


def peer_python(folder: str | None = None) -> Path:
    """The interpreter of the peer's environment; makes the environment where it is not there yet.

    Parameters
    ----------
    folder : str, optional
        Where the environment is or goes; by default in the user's cache folder.
    """
    return _environment(PEER.replace("==", "-"), [PEER, "anndata"], folder)


def own_python(folder: str | None = None) -> Path:
    """The interpreter of an environment with what ours depends on and no extra; made where it is not there yet."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    stamp = hashlib.sha256(" ".join([sys.version, *wanted]).encode()).hexdigest()[:8]
    return _environment(f"own-{stamp}", wanted, folder)


def _environment(name: str, packages: list[str], folder: str | None) -> Path:
    """The interpreter of an environment with these packages, by default in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    home = Path(folder or Path(cache) / "stdeconv_fast" / name)
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"making the environment {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (home / "ready").touch()
    return python


def run_peer(jobs: list[tuple[str, str, str, str]], folder: str | None = None) -> list[dict]:
    """Run the peer with its defaults on (spots.h5ad, reference.h5ad, label column, output csv) jobs in one process.

    Returns
    -------
    list of dict
        out, wall, cpu (seconds of the call alone), peak_kb of the process so far.
    """
    import json

    done = subprocess.run(
        [peer_python(folder), "-W", "ignore", "-c", RUN, json.dumps(jobs)], check=True, capture_output=True, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
