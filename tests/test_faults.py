"""Faults of memory, disks, signals, caches and processes, each of which ends cleanly; see also benchmarks/faults.py."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import stdeconv_fast as sd
from stdeconv_fast import cli, memory, tl, work_folder
from stdeconv_fast.cli import sections
from stdeconv_fast.io.atomic import atomic_folder
from stdeconv_fast.kernels.compile import guard, kernel
from stdeconv_fast.settings import Settings

from .problems import make_inputs


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(60, 60, 3, cells_per_type=12, seed=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory, tissue):
    folder = tmp_path_factory.mktemp("input")
    for name, adata in zip(("st", "sc"), tissue.to_anndata(), strict=True):
        adata.write_h5ad(folder / f"{name}.h5ad")
    return folder / "st.h5ad", folder / "sc.h5ad"


def run(tissue, **settings):
    given = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)
    return sd.deconvolve(*given, **{"progress": False, "n_jobs": 2, **settings})


def call(files, out, *more):
    arguments = ["run", *files, "--cell-type-key", "celltype", "-o", out, *more]
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_run_that_does_not_fit_is_refused_with_the_numbers(tissue, files, tmp_path, monkeypatch):
    words = r"the run must fit into memory; it needs about 0\.0\d+ GB more, and there are 0.001 GB \(max_memory\)"
    with pytest.raises(sd.MemoryLimitError, match=words) as caught:
        run(tissue, max_memory=0.001)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, sd.DataError)
    with pytest.raises(sd.MemoryLimitError, match=words):
        given = (tissue.reference, tissue.spots, tissue.coordinates, tissue.cell_types)
        sd.AttentionRegressionDeconv(*given, cell_level=False, max_memory=0.001, n_jobs=2)
    done = call(files, tmp_path / "o.h5ad", "--set", "max_memory=0.001")
    assert done.exit_code == 2 and "must fit into memory; it needs about" in done.stderr
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(memory, "available_bytes", lambda: (10**6, "limit of the control group"))
    with pytest.raises(sd.MemoryLimitError, match=r"there are 0.001 GB \(limit of the control group\)"):
        run(tissue)
    assert (run(tissue, max_memory=1).status == "ok").all()  # the user knows better
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert (run(tissue).status == "ok").all()  # nobody knows: not refused


def test_what_is_left_of_a_control_group(tmp_path, monkeypatch):
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    for folder, most, used in ((tmp_path, "max", 900), (tmp_path / "job", "500", 300), (group, "1000", 200)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 10\ninactive_file 50\n")
    old = tmp_path / "memory" / "old"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("700\n")
    (old / "memory.usage_in_bytes").write_text("100\n")
    (old / "memory.stat").write_text("total_inactive_file 7\n")
    names = ("memory.max", "memory.current", "inactive_file")
    folders = [(folder, *names) for folder in (group, tmp_path / "job", tmp_path, tmp_path / "none")]
    folders.append((old, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    monkeypatch.setattr(memory, "_group_folders", lambda: folders)
    assert sorted(left for left, _ in memory._control_groups()) == [250, 607, 850]
    monkeypatch.setattr(memory, "_machine", lambda: [(10**9, "free memory of the machine")])
    monkeypatch.setattr(memory, "_address_space", lambda: [])
    assert memory.available_bytes() == (250, "limit of the control group")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_machine_says_what_is_free():
    free, _ = memory.available_bytes()
    assert 1e7 < free < 1e14
    assert all(folder.is_absolute() for folder, *_ in memory._group_folders())


def test_the_estimate_grows_with_all_that_takes_memory():
    rng = np.random.default_rng(0)
    inputs = make_inputs(rng.poisson(1, (400, 80)), rng.poisson(1, (30, 80)), np.repeat(np.arange(3), 10))
    usual = memory.estimate_bytes(inputs, Settings(n_jobs=1))
    for more in ({"loss": "gaussian"}, {"k_neighbors": 30}, {"dtype": "float64"}, {"cell_level": True}, {"n_jobs": 8}):
        assert memory.estimate_bytes(inputs, Settings(**{"n_jobs": 1, **more})) > usual, more
    large = make_inputs(rng.poisson(9, (4000, 800)), rng.poisson(1, (30, 800)), np.repeat(np.arange(3), 10))
    whole, tiled = (memory.estimate_bytes(large, Settings(n_jobs=1), tiles) for tiles in (None, 10_000))
    assert whole > usual + large.spots.nnz * 5
    assert tiled < whole + large.spots.nnz * 16  # its blocks, not its counts


# -- disks and signals -----------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_work_folder_is_told(tissue, files, tmp_path, monkeypatch):
    def short(file, array, **more):  # what NumPy says where a disk is full
        file.write(b"part")
        raise OSError("131778 requested and 102336 written")

    monkeypatch.setattr(work_folder.np, "save", short)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        run(tissue, tiles=2, work_folder=tmp_path / "work")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.rglob("*.part"))
    done = call(files, tmp_path / "o.h5ad", "--tiles", 2, "--work", tmp_path / "other")
    assert done.exit_code == 2 and "No space left on device" in done.stderr and not (tmp_path / "o.h5ad").exists()


def test_a_zarr_folder_that_threads_still_write_to_is_removed(tmp_path):
    stop = threading.Event()

    def write(part: Path) -> None:
        until = time.monotonic() + 0.15
        while time.monotonic() < until and not stop.is_set():
            (part / "obs").mkdir(parents=True, exist_ok=True)
            (part / "obs" / f"{time.monotonic_ns()}").write_text("chunk")

    def late(part: Path) -> None:
        while not stop.is_set():
            try:
                return write(part)
            except FileNotFoundError:
                continue

    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "o.zarr") as part:
        part.mkdir()
        writer = threading.Thread(target=late, args=(part,))
        writer.start()
        time.sleep(0.02)
        raise KeyboardInterrupt
    stop.set()
    writer.join()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["work", "write"])
def test_signals_leave_nothing_behind(request, files, tmp_path, monkeypatch, number, code, moment):
    before = signal.getsignal(signal.SIGTERM)
    # where tests run in the background, Ctrl-C is ignored, and Python then does not set its own handler
    at_first = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, at_first))
    place, name = (tl, "deconvolve") if moment == "work" else (sections, "_write_csv")
    whole = getattr(place, name)

    def hit(*arguments, **more):
        whole(*arguments, **more)
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(place, name, hit)
    done = call(files, tmp_path / "o.h5ad", "--csv", tmp_path / "t.csv")
    assert done.exit_code == code and "Traceback" not in done.output
    assert not list(tmp_path.iterdir()) and signal.getsignal(signal.SIGTERM) is before


def test_commands_run_in_threads_too(files, tmp_path):
    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        assert pool.submit(call, files, tmp_path / "o.h5ad").result().exit_code == 0


# -- caches, threads, processes --------------------------------------------------------------------------------------


def double(x):
    return x + x


def test_a_cache_that_cannot_be_written_costs_a_compilation(monkeypatch):
    compiled = kernel()(double)
    assert compiled._cache.cache_path

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiled._cache._cache_file, "save", full)
    assert compiled(2) == 4 and compiled(2.5) == 5.0


@pytest.mark.parametrize("damage", ["cut", "empty", "nonsense", "folder"])
def test_a_cache_that_is_damaged_costs_a_compilation(tmp_path, monkeypatch, damage):
    from numba import config

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert kernel()(double)(2) == 4
    written = list(tmp_path.rglob("*.nb?"))
    assert len(written) == 2
    for file in written:
        content = file.read_bytes()
        if damage == "folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes({"cut": content[:100], "empty": b"", "nonsense": b"\x80\x04nonsense."}[damage])
    again = kernel()(double)
    assert again(2) == 4 and again.stats.cache_misses
    if damage != "folder":
        assert not kernel()(double).stats.cache_misses
        third = kernel()(double)
        assert third(2) == 4 and third.stats.cache_hits  # what was damaged was written anew


def test_an_edited_helper_of_another_file_is_compiled_anew(tmp_path):
    """The kernel's own file stays as it is; so do the bits of one whose helpers did not change."""
    source = "from stdeconv_fast.kernels.compile import kernel\n"
    (tmp_path / "deep.py").write_text(source + "@kernel\ndef deep(x):\n    return x + 1\n")
    (tmp_path / "near.py").write_text(source + "from deep import deep\n@kernel\ndef near(x):\n    return deep(x)\n")
    (tmp_path / "own.py").write_text(source + "from near import near\n@kernel\ndef own(x):\n    return near(x) * 10\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": paths}

    def call():
        code = "from own import own; print(own(1), sum(own.stats.cache_misses.values()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert call() == ["20", "1"]
    assert call() == ["20", "0"]
    (tmp_path / "deep.py").write_text(source + "@kernel\ndef deep(x):\n    return x + 2\n")
    assert call() == ["30", "1"]


def test_code_that_was_compiled_for_other_types_is_not_used(tmp_path, monkeypatch):
    """As it is left by two processes that compile for different types at once: both write file 1, one index wins."""
    from numba import config

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert kernel()(double)(2) == 4 and kernel()(double)(2.5) == 5.0
    one, two = sorted(tmp_path.rglob("*.nbc"))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    again = kernel()(double)
    assert again(2) == 4 and again(2.5) == 5.0 and not again.stats.cache_hits
    assert guard(double) is double  # NUMBA_DISABLE_JIT: not compiled, nothing to guard


def test_runs_at_once_in_threads_give_the_same_bits(tissue):
    kinds = [{}, {"dtype": "float64"}, {"tune": False}] * 2
    alone = [run(tissue, **kind).proportions.to_numpy() for kind in kinds[:3]] * 2
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda kind: run(tissue, **kind).proportions.to_numpy(), kinds))
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_fork_after_use_works(tissue):
    alone, fork = run(tissue).proportions.to_numpy(), multiprocessing.get_context("fork")

    def child(pipe):
        pipe.send(np.array_equal(alone, run(tissue).proportions.to_numpy()))

    here, there = fork.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process = fork.Process(target=child, args=(there,))
        process.start()
    assert here.poll(60) and here.recv() is True
    process.join()
