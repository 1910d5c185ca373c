"""``stdeconv-fast warmup``: what it compiles is all that runs need, and it says where nothing can be kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stdeconv_fast import cli

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = [sys.executable, "-m", "stdeconv_fast.cli", "warmup"]

BITS = """
import hashlib, json, os, sys, warnings
import numpy as np
from anndata import read_h5ad
from stdeconv_fast import deconvolve, simulate, tl

warnings.simplefilter("ignore")
made = simulate(400, 120, 4, kind="domains", counts_per_spot=150, seed=3)

def run(**more):
    given = (made.spots, made.reference, made.coordinates, made.cell_types)
    return deconvolve(*given, progress=False, n_jobs=1, **more)

def bits(**more):
    found = run(standard_errors=True, **more)
    parts = (found.proportions, found.fit, found.standard_errors)
    return hashlib.md5(b"".join(part.to_numpy().tobytes() for part in parts)).hexdigest()

"""
FIRST = """
from pathlib import Path
from click.testing import CliRunner
from stdeconv_fast import cli

def kept():
    return {file: file.stat().st_mtime_ns for file in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nb[ic]")}

done = CliRunner().invoke(cli.main, ["warmup", "--json"], catch_exceptions=False)
assert done.exit_code == 0 and not done.stderr, done.stderr
files = kept()
print(done.stdout.strip())
folders, size = sorted({str(file.parent) for file in files}), sum(file.stat().st_size for file in files)
print(json.dumps({"files": len(files), "folders": folders, "megabytes": size / 1e6}))
run()
assert kept() == files, "a run has compiled what the warm-up had not"
print(bits())
"""
RUNS = """
tuned, platforms = 0, set()
strong = simulate(150, 80, 4, cells_per_type=15, platform_sd=1.5, seed=4)
even = simulate(150, 80, 4, cells_per_type=15, kind="domains", counts_per_spot=80, n_sections=2, seed=5)
grid = simulate(1400, 80, 4, kind="bins", seed=6)
for tissue in (strong, even, grid):
    for counts in ("float32", "int64", "float64"):
        result = deconvolve(
            tissue.spots.astype(counts), tissue.reference.astype(counts), tissue.coordinates, tissue.cell_types,
            sections=tissue.sections, progress=False,
        )
        tuned += result.strengths.lambda_spatial > 0
        platforms.add(result.diagnostics["platform"])
deconvolve(
    even.spatial_frame(), even.reference_frame(), even.coordinate_frame(), even.label_series(), progress=False
)
spots, reference = even.to_anndata()
spots.write_h5ad(sys.argv[1] + "/st.h5ad"), reference.write_h5ad(sys.argv[1] + "/sc.h5ad")
spots, reference = read_h5ad(sys.argv[1] + "/st.h5ad"), read_h5ad(sys.argv[1] + "/sc.h5ad")
tl.deconvolve(spots, reference, cell_type_key="celltype", sample_key="section", progress=False)
assert tuned and platforms == {"joint", "pooled"}, (tuned, platforms)
print(bits())
"""

# Whatever settings a run has, it meets no kernel, in no dtypes, that a warm-up of everything has not met.
VARIANTS = """
import warnings
from click.testing import CliRunner
from stdeconv_fast import cli, deconvolve, simulate
from stdeconv_fast.cli.warmup import list_kernels

warnings.simplefilter("ignore")
assert CliRunner().invoke(cli.main, ["warmup", "--all"]).exit_code == 0
kernels = list_kernels()
met = [len(kernel.signatures) + sum(kernel.stats.cache_hits.values()) for kernel in kernels]
print(*[kernel.__name__ for kernel, n in zip(kernels, met) if not n and not kernel.__name__.startswith("_")])
known = [set(kernel.signatures) for kernel in kernels]

def meet(tissue, **settings):
    deconvolve(
        tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types,
        **{"progress": False, "n_jobs": 1, **settings},
    )
    for kernel, before in zip(kernels, known):
        if set(kernel.signatures) - before:
            print(kernel.__name__, "with", len(tissue.spots.indptr) - 1, settings, end="; ")
            before.update(kernel.signatures)

few = {"cells_per_type": 15, "kind": "domains", "counts_per_spot": 80, "seed": 5}
usual = simulate(200, 80, 4, dimensions=3, **few)
tissues = [usual, *(simulate(1300, 80, 4, grid=grid, **few) for grid in ("square", "hex", "random"))]
tissues += [simulate(130, 2000, 4, **few), simulate(120, 80, 1, **few), simulate(5, 80, 3, **few)]
wide = simulate(1300, 80, 4, **few)
for matrix in (wide.spots, wide.reference):
    matrix.data[::500] = 100_000
for dtype in ("float32", "float64"):
    for settings in (
        {}, {"attention": False}, {"k_neighbors": 0}, {"lambda_spatial": 0, "cell_level": True},
        {"lambda_spatial": 0, "standard_errors": True}, {"n_iter": 1, "phi": 1, "lambda_ridge": 0},
        {"cell_level": True, "lambda_cell": 0, "max_cells_per_type": 3}, {"abundance": "cells"},
        {"abundance": "mrna", "standard_errors": True, "detection": True}, {"platform": "none"}, {"platform": "joint"},
        {"loss": "gaussian", "cell_level": True}, {"loss": "gaussian", "attention": False, "tune": False},
        {"check_counts": False}, {"n_jobs": 2, "seed": 3, "exclude_types": "type1"},
    ):
        meet(usual, dtype=dtype, **settings)
    for tissue in tissues:
        meet(tissue, dtype=dtype, tune=False)
    for settings in ({}, {"cell_level": True, "tune": False}, {"loss": "gaussian"}, {"platform": "joint"}):
        meet(wide, dtype=dtype, **settings)
    usual.spots.data, data = usual.spots.data * 1.5, usual.spots.data
    meet(usual, dtype=dtype, check_counts=False)
    usual.spots.data = data
"""


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a new process that finds the package of this repository."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: value for name, value in values.items() if value is not None}


def start(command, **more):
    return subprocess.run(command, capture_output=True, text=True, **more)


def kept(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*.nb[ic]")}


@pytest.mark.slow
def test_after_a_warm_up_runs_compile_nothing(tmp_path):
    """In a fresh cache; and kernels from the disk give the bits of those just compiled, whatever came before them."""
    cache = tmp_path / "cache"
    fresh = environment(NUMBA_CACHE_DIR=str(cache))

    def finish(code, *more):
        done = start([sys.executable, "-c", BITS + code, str(tmp_path), *more], env=fresh)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.splitlines()

    *told, first = finish(FIRST)
    said, there = map(json.loads, told)
    assert said["kept"] and not said["all"] and said["compiled"] > 40 and said["seconds"] > 0
    assert {name: said[name] for name in there} == there
    before = kept(cache)
    again = start(WARM_UP, env=fresh)
    assert again.returncode == 0 and again.stdout.startswith("Nothing to compile"), again.stderr
    assert finish(RUNS) == [first]  # all from the disk
    assert kept(cache) == before
    assert finish("bits(tiles=3); print(bits())") == [first]  # kernels that tiles have met before
    assert finish("print(bits())") == [first]


@pytest.mark.slow
def test_a_warm_up_of_everything_meets_all_kernels():
    """In a new process, on the kernels that the other tests have compiled."""
    done = start([sys.executable, "-c", VARIANTS], env=environment())
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"warmup --all does not meet {done.stdout}"


@pytest.mark.parametrize("disabled", [False, True])
def test_it_says_where_nothing_can_be_kept(monkeypatch, disabled):
    """Within this process: as if numba had found no folder, or were told not to compile."""
    from stdeconv_fast.cli import warmup

    class Kernel:
        signatures = ()

        class stats:
            cache_path, cache_hits, cache_misses = None, {}, {}

    module = sys.modules[warmup.callback.__module__]
    monkeypatch.setattr(module, "list_kernels", lambda: [] if disabled else [Kernel(), Kernel()])
    result = CliRunner().invoke(cli.main, ["warmup"], catch_exceptions=False)
    assert result.exit_code == 3 and not result.stdout
    assert ("NUMBA_DISABLE_JIT is set" if disabled else "Every process compiles anew") in result.stderr
    said = json.loads(CliRunner().invoke(cli.main, ["warmup", "--json"]).stdout)
    assert said["kept"] is False and said["folders"] == [] and said["compiled"] == 0


@pytest.fixture
def sealed(tmp_path):
    """A copy of the package in a folder that cannot be written, and how to start a command that sees it so."""
    folder = tmp_path / "site"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stdeconv_fast", folder / "stdeconv_fast", symlinks=False, ignore=leave)
    if os.geteuid() != 0:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        yield folder, []
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
        return
    inside = ["unshare", "-m", "sh", "-c", f'mount --bind -o ro "{folder}" "{folder}" && exec "$@"', "sh"]
    if not shutil.which("unshare") or start([*inside, "true"]).returncode:
        pytest.skip("root may write anywhere, and no read-only mount can be made here")
    assert start([*inside, "touch", str(folder / "file")]).returncode
    yield folder, inside


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX modes")
def test_a_read_only_installation(sealed, tmp_path):
    folder, inside = sealed
    nowhere = "/proc/nonexistent"
    unset = dict.fromkeys(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"))
    bare = environment(PYTHONPATH=str(folder), HOME=nowhere, PYTHONDONTWRITEBYTECODE="1", **unset)
    done = start([*inside, *WARM_UP], env=bare, cwd=tmp_path)
    assert done.returncode == 3 and not done.stdout
    assert "Every process compiles anew what it needs. Set NUMBA_CACHE_DIR to a folder" in done.stderr
    code = (
        "import stdeconv_fast as s; t = s.simulate(40, 40, 3, cells_per_type=8, seed=1);"
        "r = s.deconvolve(t.spots, t.reference, t.coordinates, t.cell_types, progress=False, lambda_spatial=0, "
        "platform='pooled');"  # little to compile
        "print(s.__file__); print((r.status == 'ok').all())"
    )
    done = start([*inside, sys.executable, "-c", code], env=bare, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "stdeconv_fast" / "__init__.py"), "True"]

    # with a home, or with a folder of the user's choice, there is a place to keep them
    code = "from stdeconv_fast.cli.warmup import list_kernels; print({k.stats.cache_path for k in list_kernels()})"
    for name in ("HOME", "NUMBA_CACHE_DIR"):
        found = start([*inside, sys.executable, "-c", code], env={**bare, name: str(tmp_path / name)}, cwd=tmp_path)
        assert found.returncode == 0 and str(tmp_path / name) in found.stdout, found.stderr
