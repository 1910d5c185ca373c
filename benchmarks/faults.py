"""Faults injected by script, and what comes of each: memory, disks, folders, signals, lost workers, caches, threads.

``python benchmarks/faults.py`` prints a table and writes benchmarks/results/faults.json; ``--only WORD`` runs those
whose name holds the word. Exit code 1 where a fault ends otherwise than it should. Those that need what the machine
does not give (root for a small disk of its own) are skipped with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.processes import machine  # noqa: E402

COMMAND = [sys.executable, "-m", "stdeconv_fast.cli", "run"]
NOBODY = 65534
MAKE = """
import sys, stdeconv_fast as sd
from pathlib import Path
folder = Path(sys.argv[1])
st, sc = sd.simulate(1500, 300, 6, kind="bins", cells_per_type=30, seed=1, as_anndata=True)
st.write_h5ad(folder / "st.h5ad"), sc.write_h5ad(folder / "sc.h5ad"), st.write_zarr(folder / "st.zarr")
"""
SAME = """
import sys, numpy as np, anndata as ad, stdeconv_fast as sd, warnings
warnings.simplefilter("ignore")
def problem(folder):
    st, sc = ad.read_h5ad(folder + "/st.h5ad"), ad.read_h5ad(folder + "/sc.h5ad")
    def run(dtype=np.float32, index=np.int32, **more):
        X = st.X.astype(dtype); X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
        types = list(sc.obs["celltype"])
        found = sd.deconvolve(X, sc.X, st.obsm["spatial"], types, progress=False, n_jobs=2, **more)
        return found.proportions.to_numpy()
    return run
"""
MEASURE = """
import json, sys, warnings, stdeconv_fast as sd, numpy as np
from scipy import sparse
from stdeconv_fast import memory, pipeline
warnings.simplefilter("ignore")
n, genes, types, depth, extra, folder = json.loads(sys.argv[1])
if len(sys.argv) > 2:
    t = sd.simulate(n, genes, types, kind="bins", cells_per_type=50, counts_per_spot=depth, seed=1)
    sparse.save_npz(folder + "/st.npz", t.spots), sparse.save_npz(folder + "/sc.npz", t.reference)
    np.save(folder + "/xy.npy", t.coordinates), np.save(folder + "/types.npy", np.asarray(t.cell_types, dtype=str))
    raise SystemExit
small = sd.simulate(60, 60, 3, cells_per_type=12)
sd.deconvolve(small.spots, small.reference, small.coordinates, small.cell_types, progress=False, n_jobs=2, **extra)
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
said = []
kept = pipeline.demand_room
pipeline.demand_room = lambda needed, most: said.append(needed)
given = [sparse.load_npz(folder + f"/{name}.npz") for name in ("st", "sc")]
given += [np.load(folder + f"/{name}.npy") for name in ("xy", "types")]
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
sd.deconvolve(*given, progress=False, n_jobs=2, **extra)
print(json.dumps([said[0] / 1e6, (status("VmHWM") - before) / 1e6]))
"""
Outcome = tuple[bool | None, str]  # None: skipped


class Bench:
    """Where the faults happen: sound inputs, an empty output folder for each, and what a right answer is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        os.chmod(folder, 0o755)
        subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, folder], check=True, env=self.environment())

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **more}

    def room(self, name: str) -> Path:
        self.runs += 1
        room = self.folder / f"{self.runs}-{name}"
        room.mkdir()
        return room

    def arguments(self, out: Path, *more: object, spatial: str = "st.h5ad") -> list[str]:
        return [
            *COMMAND, str(self.folder / spatial), str(self.folder / "sc.h5ad"), "--cell-type-key", "celltype",
            "-o", str(out), *map(str, more),
        ]  # fmt: skip

    def call(
        self, out: Path, *more: object, spatial: str = "st.h5ad", environment: dict | None = None, **options: object
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.arguments(out, *more, spatial=spatial), capture_output=True, text=True, timeout=300,
            env=self.environment(**(environment or {})), **options,
        )  # fmt: skip

    def python(self, code: str, *arguments: object, environment: dict | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True,
            timeout=300, env=self.environment(**(environment or {})),
        )  # fmt: skip


def refused(done: subprocess.CompletedProcess, room: Path, words: str, left: tuple[str, ...] = ()) -> Outcome:
    """Whether a call ended with one message, exit code 2 and nothing left behind."""
    there = sorted(str(path.relative_to(room)) for path in room.rglob("*")) if room.exists() else []
    there = [path for path in there if path not in left]
    clean = done.returncode == 2 and not there and words in done.stderr and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return clean, f"exit code {done.returncode}, left {there or 'nothing'}: {said[0][:230]}"


@contextmanager
def small_disk(bench: Bench, megabytes: float, read_only: bool = False) -> Iterator[Path | None]:
    """A disk of its own in memory; None where it cannot be mounted."""
    room = bench.room("disk")
    size = f"size={int(megabytes * 2**20)},mode=777"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", room], capture_output=True).returncode:
        yield None
        return
    try:
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", room], check=True)
        yield room
    finally:
        subprocess.run(["umount", "-l", room], check=False)


NO_MOUNT: Outcome = (None, "skipped: mounting a small disk needs root")

# -- memory ------------------------------------------------------------------------------------------------------------


def memory_set(bench: Bench) -> Outcome:
    """More than max_memory."""
    room = bench.room("memory")
    return refused(
        bench.call(room / "o.h5ad", "--set", "max_memory=0.002"), room, "must fit into memory; it needs about"
    )


def memory_address_space(bench: Bench) -> Outcome:
    """More than the limit of address space leaves (ulimit -v)."""
    code = SAME + (
        "import resource; run = problem(sys.argv[1]); run()\n"
        "import os; used = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGE_SIZE')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 4_000_000, -1))\n"
        "try: run()\nexcept sd.MemoryLimitError as error: print(type(error).__name__, error)\n"
    )
    done = bench.python(code, bench.folder)
    return done.stdout.startswith("MemoryLimitError the run must fit"), (done.stdout or done.stderr).strip()[-250:]


def memory_huge_file(bench: Bench) -> Outcome:
    """A reference whose matrix claims 4 TB."""
    import h5py

    room = bench.room("huge")
    shutil.copy(bench.folder / "sc.h5ad", room / "sc.h5ad")
    with h5py.File(room / "sc.h5ad", "r+") as root:
        del root["X"]
        root.create_dataset("X", shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000))
    arguments = bench.arguments(room / "o.h5ad")
    arguments[arguments.index(str(bench.folder / "sc.h5ad"))] = str(room / "sc.h5ad")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=bench.environment())
    return refused(done, room, "must fit into memory; it needs about 4e+03 GB", ("sc.h5ad",))


def memory_estimate(bench: Bench) -> Outcome:
    """The estimate against the measured peak."""
    told, good = [], True
    for case in ([20_000, 1000, 10, 300, {}], [80_000, 1000, 10, 300, {}], [20_000, 1000, 50, 300, {}],
                 [20_000, 1000, 10, 2000, {}], [20_000, 1000, 10, 300, {"loss": "gaussian"}]):  # fmt: skip
        text = json.dumps([*case, str(bench.room("measure"))])
        bench.python(MEASURE, text, "make")
        done = bench.python(MEASURE, text)
        if done.returncode:
            return False, done.stderr[-250:]
        estimate, peak = json.loads(done.stdout)
        good &= 0.9 * peak <= estimate <= 2 * peak
        words = f"{case[0]:,} spots, {case[2]} types, {case[3]} counts{', least squares' if case[4] else ''}"
        told.append(f"{words}: {estimate:.0f} MB estimated, {peak:.0f} MB measured")
    return good, "; ".join(told)


# -- disks and folders -------------------------------------------------------------------------------------------------


def disk_full(bench: Bench, sizes: tuple[float, ...], name: str, spatial: str, *more: object) -> Outcome:
    """A disk that fills up while OUT is written: too small by less than the check before the run can see."""
    found: list[Outcome] = []
    code = (
        "import sys\nfrom stdeconv_fast.io import checks\nchecks.SPARE = 0\nchecks.bytes_added = lambda *_: 0\n"
        "checks._bytes_of = lambda *_: 0\nfrom stdeconv_fast.cli import main\nmain()"
    )
    for megabytes in sizes:
        with small_disk(bench, megabytes) as room:
            if room is None:
                return NO_MOUNT
            arguments = bench.arguments(room / name, *[str(m).format(room=room) for m in more], spatial=spatial)
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments[3:]], capture_output=True, text=True, timeout=300,
                env=bench.environment(),
            )  # fmt: skip
            found.append(refused(done, room, "No space left on device"))
    good = all(ok for ok, _ in found)
    return good, f"4 sizes; {found[-1][1]}" if good else str(found)


def disk_without_room(bench: Bench) -> Outcome:
    """A disk without room for OUT, seen before the run."""
    with small_disk(bench, 1) as room:
        if room is None:
            return NO_MOUNT
        return refused(bench.call(room / "o.h5ad"), room, "must lie on a disk with room for")


def disk_full_of_work(bench: Bench) -> Outcome:
    """A work folder on a disk that fills up."""
    with small_disk(bench, 0.2) as disk:
        if disk is None:
            return NO_MOUNT
        room = bench.room("out")
        done = bench.call(room / "o.h5ad", "--tiles", 4, "--work", disk / "work")
        parts = [path.name for path in disk.rglob("*.part")]
        ok, told = refused(done, room, "No space left on device")
        return ok and not parts, told


def folder_read_only(bench: Bench) -> Outcome:
    """OUT on a read-only disk."""
    with small_disk(bench, 1, read_only=True) as room:
        if room is None:
            return NO_MOUNT
        return refused(bench.call(room / "o.h5ad"), room, "that can be written")


def folder_of_others(bench: Bench) -> Outcome:
    """OUT and --csv in a folder that the user may not write."""
    if os.geteuid() != 0:
        return None, "skipped: needs root to become somebody else"
    room, own, found = bench.room("others"), bench.room("own"), []
    own.chmod(0o777)
    code = (
        "import os, sys\nfrom stdeconv_fast.cli import main\n"
        "words = sys.argv[3:]; main([*words, '-o', sys.argv[1] + '/a.h5ad'], standalone_mode=False)\n"  # imports all
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "main([*words, '-o', sys.argv[2], *(['--csv', sys.argv[2]] if sys.argv[2].endswith('csv') else [])])\n"
    )
    for name in ("o.h5ad", "o.zarr"):
        words = bench.arguments(own / "b.h5ad")[3:-2]
        found.append(refused(bench.python(code, own, room / name, *words), room, "that can be written"))
    return all(ok for ok, _ in found), found[-1][1]


# -- signals -----------------------------------------------------------------------------------------------------------


def signalled(bench: Bench, number: signal.Signals, codes: set[int], word: str, times: int = 14) -> Outcome:
    """A signal at random moments of a run with h5ad, zarr and csv outputs; nothing may be left but whole files."""
    rng, codes_seen, faults = random.Random(0), Counter(), []
    started = time.perf_counter()
    bench.call(bench.room("warm") / "o.h5ad")
    duration = time.perf_counter() - started
    for turn in range(times):
        room = bench.room("signal")
        out = room / ("o.h5ad" if turn % 2 else "o.zarr")
        process = subprocess.Popen(
            bench.arguments(out, "--csv", room / "t.csv"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=bench.environment(),
            # a script that itself runs in the background hands on that Ctrl-C is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        time.sleep(rng.uniform(0.25, 1.05) * duration)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        codes_seen[process.returncode] += 1
        left = sorted(path.name for path in room.iterdir())
        whole = left == sorted([out.name, f"{out.name}.toml", "t.csv"])  # a signal that came as the process ended
        if process.returncode not in {0, *codes} or (left and not whole):
            faults.append(f"code {process.returncode}, left {left}, said {said.strip()[-150:]}")
        elif "Traceback" in said and process.returncode:  # at 0 Python itself lost an interrupt in a callback
            faults.append(f"code {process.returncode}, said {said.strip()[-150:]}")
    if codes_seen[0] > times // 2:
        faults.append(f"only {times - codes_seen[0]} of {times} runs noticed")
    return not faults, f"{times} moments, exit codes {dict(codes_seen)}; {faults[:3] or 'nothing left behind'}"


def interrupted(bench: Bench) -> Outcome:
    """Ctrl-C."""
    return signalled(bench, signal.SIGINT, {130, -2, 1}, "interrupted")


def terminated(bench: Bench) -> Outcome:
    """SIGTERM."""
    return signalled(bench, signal.SIGTERM, {143, -15}, "terminated")


def killed_and_resumed(bench: Bench) -> Outcome:
    """SIGKILL at random moments of a run in tiles, resumed until it is done: the same bits."""
    room, rng, kills = bench.room("kill"), random.Random(1), 0
    bench.call(room / "whole.h5ad", "--tiles", 4)
    for _ in range(30):
        process = subprocess.Popen(
            bench.arguments(room / "o.h5ad", "--tiles", 4, "--work", room / "work", "--resume"),
            env=bench.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = process.wait(rng.uniform(1.0, 4.0) if kills < 5 else 300)
        except subprocess.TimeoutExpired:
            process.kill()
            code, kills = process.wait(), kills + 1
        if code >= 0:
            break
    code_same = (
        "import sys, anndata as ad, numpy as np\n"
        "a, b = (ad.read_h5ad(f).obsm['stdeconv'].to_numpy() for f in sys.argv[1:3]); print(np.array_equal(a, b))"
    )
    same = bench.python(code_same, room / "whole.h5ad", room / "o.h5ad").stdout.strip()
    written = [f"{name}.h5ad{ending}" for name in ("o", "whole") for ending in ("", ".toml")]
    left = sorted(path.name for path in room.iterdir() if path.name not in written)
    return same == "True" and all(
        name.startswith(".") for name in left
    ), f"{kills} kills; same bits: {same}; left {left or 'nothing'}"


def killed_worker(bench: Bench) -> Outcome:
    """A process of joblib's pool killed while it works on tiles."""
    code = SAME + (
        "import joblib, os, signal, threading, time\n"
        "run = problem(sys.argv[1]); whole = run(tiles=4); killed = []\n"
        "def kill():\n"
        "    while not killed:\n"
        "        time.sleep(0.02)\n"
        "        tasks = [f'/proc/self/task/{task}/children' for task in os.listdir('/proc/self/task')]\n"
        "        for pid in ' '.join(open(task).read() for task in tasks).split():\n"
        "            try: words = open(f'/proc/{pid}/cmdline').read()\n"
        "            except OSError: continue\n"
        "            if 'LokyProcess' in words:\n"
        "                time.sleep(1.5); os.kill(int(pid), signal.SIGKILL); killed.append(pid); break\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        "with joblib.parallel_config(backend='loky'): again = run(tiles=4)\n"
        "print(len(killed), np.array_equal(whole, again))\n"
    )
    done = bench.python(code, bench.folder)
    return done.stdout.strip() == "1 True", (done.stdout or done.stderr).strip()[-300:]


# -- caches, threads, processes ----------------------------------------------------------------------------------------

USUAL = "run = problem(sys.argv[1]); np.save(sys.argv[2], run())"


def _with_cache(bench: Bench, cache: Path, code: str = USUAL) -> Outcome:
    """A run whose kernels lie in `cache`, beside one with the usual cache."""
    room = bench.room("cache")
    bench.python(SAME + USUAL, bench.folder, room / "a.npy")
    done = bench.python(SAME + code, bench.folder, room / "b.npy", environment={"NUMBA_CACHE_DIR": str(cache)})
    if done.returncode:
        return False, done.stderr.strip()[-300:]
    same = (room / "a.npy").read_bytes() == (room / "b.npy").read_bytes()
    return same, "right answer" if same else "another answer"


def cache_full(bench: Bench) -> Outcome:
    """The disk of the kernel cache fills up."""
    with small_disk(bench, 0.3) as room:
        return NO_MOUNT if room is None else _with_cache(bench, room)


def cache_read_only(bench: Bench) -> Outcome:
    """The kernel cache lies on a read-only disk."""
    with small_disk(bench, 1, read_only=True) as room:
        return NO_MOUNT if room is None else _with_cache(bench, room)


def cache_of_others(bench: Bench) -> Outcome:
    """A user who may not write to the cache compiles kernels that are not in it."""
    if os.geteuid() != 0:
        return None, "skipped: needs root to become somebody else"
    code = SAME + (
        "import os\nrun = problem(sys.argv[1]); alone = run()\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "print(np.array_equal(alone, run(np.float64, np.int64)), os.access(os.environ['NUMBA_CACHE_DIR'], os.W_OK))"
    )
    done = bench.python(code, bench.folder, environment={"NUMBA_CACHE_DIR": str(bench.room("cache"))})
    return done.stdout.strip() == "True False", (done.stdout or done.stderr).strip()[-200:]


def cache_damaged(bench: Bench) -> Outcome:
    """Every file of the kernel cache cut short, then overwritten, then unreadable."""
    cache = bench.room("damaged")
    found = [_with_cache(bench, cache)]
    for damage in (
        lambda file: file.write_bytes(file.read_bytes()[:100]), lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x80\x04nonsense."), lambda file: (file.unlink(), file.mkdir()),
    ):  # fmt: skip
        for file in list(cache.rglob("*.nb?")):
            damage(file)
        found.append(_with_cache(bench, cache))
    return all(ok for ok, _ in found), "; ".join(told for _, told in found)


def cache_cold_processes(bench: Bench) -> Outcome:
    """Four processes with counts of different dtypes compile into one empty cache at once; four more read it."""
    cache, room = bench.room("cold"), bench.room("cold-out")
    kinds = [(d, i) for d in ("float32", "float64") for i in ("int32", "int64")]
    bench.python(SAME + USUAL, bench.folder, room / "a.npy")
    answer, faults = (room / "a.npy").read_bytes(), []
    for turn in range(2):
        running = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c",
                 SAME + f"run = problem(sys.argv[1]); np.save(sys.argv[2], run(np.{d}, np.{i}))", bench.folder,
                 room / f"{turn}{d}{i}.npy"],
                env=bench.environment(NUMBA_CACHE_DIR=str(cache)), stderr=subprocess.PIPE, text=True,
            )
            for d, i in kinds
        ]  # fmt: skip
        for process, (d, i) in zip(running, kinds, strict=True):
            said = process.communicate(timeout=600)[1]
            file = room / f"{turn}{d}{i}.npy"
            if process.returncode or file.read_bytes() != answer:
                faults.append(f"{d}, {i}: {said[-200:] or 'another answer'}")
    return not faults, str(faults) if faults else "8 processes, all the same bits"


def threads(bench: Bench) -> Outcome:
    """Four runs at once in the threads of one process, kernels not compiled before; two are of other dtypes."""
    code = SAME + (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "run = problem(sys.argv[1]); kinds = [(np.float32, np.int32), (np.float64, np.int32)] * 2\n"
        "with Pool(4) as pool: found = list(pool.map(lambda kind: run(*kind), kinds))\n"
        "alone = run(); print([np.array_equal(alone, one) for one in found])\n"
    )
    done = bench.python(code, bench.folder, environment={"NUMBA_CACHE_DIR": str(bench.room("threads"))})
    return done.stdout.strip() == str([True] * 4), (done.stdout or done.stderr).strip()[-300:]


def forked(bench: Bench) -> Outcome:
    """Processes forked after a run in the parent, and while one is on in a thread of the parent."""
    code = SAME + (
        "import multiprocessing as m, threading\n"
        "run = problem(sys.argv[1]); alone = run(); fork = m.get_context('fork')\n"
        "def child(pipe): pipe.send(np.array_equal(alone, run()))\n"
        "def one():\n"
        "    here, there = fork.Pipe(); process = fork.Process(target=child, args=(there,)); process.start()\n"
        "    good = here.recv() if here.poll(120) else 'hang'\n"
        "    process.kill() if good == 'hang' else process.join(); return good\n"
        "after = [one(), one()]\n"
        "busy = threading.Thread(target=lambda: [run() for _ in range(6)]); busy.start()\n"
        "during = [one(), one()]; busy.join(); print(after, during, np.array_equal(alone, run()))\n"
    )
    done = bench.python(code, bench.folder)
    return done.stdout.strip() == "[True, True] [True, True] True", (done.stdout or done.stderr).strip()[-300:]


FAULTS: dict[str, Callable[[Bench], Outcome]] = {
    "memory: above max_memory": memory_set,
    "memory: limit of address space": memory_address_space,
    "memory: a file that claims 4 TB": memory_huge_file,
    "memory: the estimate": memory_estimate,
    "disk: no room for OUT": disk_without_room,
    "disk: full while h5ad is written": lambda bench: disk_full(bench, (0.02, 0.1, 0.5, 1.0), "o.h5ad", "st.h5ad"),
    "disk: full while zarr is written": lambda bench: disk_full(bench, (0.02, 0.1, 0.3, 0.6), "o.zarr", "st.zarr"),
    "disk: full while csv is written": lambda bench: disk_full(
        bench, (0.02, 0.03, 0.05, 0.08), "o.h5ad", "st.h5ad", "--no-counts", "--csv", "{room}/t.csv"
    ),
    "disk: full while tiles are kept": disk_full_of_work,
    "folder: read-only disk": folder_read_only,
    "folder: no permission": folder_of_others,
    "signal: Ctrl-C": interrupted,
    "signal: SIGTERM": terminated,
    "signal: SIGKILL and --resume": killed_and_resumed,
    "worker: killed": killed_worker,
    "cache: full disk": cache_full,
    "cache: read-only disk": cache_read_only,
    "cache: no permission": cache_of_others,
    "cache: damaged": cache_damaged,
    "at once: processes, cold cache": cache_cold_processes,
    "at once: threads, cold cache": threads,
    "at once: fork": forked,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    asked = parser.parse_args()
    known = json.loads(asked.out.read_text())["faults"] if asked.only and asked.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        bench = Bench(Path(temporary))
        for name, inject in FAULTS.items():
            if asked.only not in name:
                continue
            started = time.perf_counter()
            try:
                ok, told = inject(bench)
            except Exception as fault:
                ok, told = False, f"{type(fault).__name__}: {str(fault)[-300:]}"
            word = {True: "clean", False: "NOT CLEAN", None: "skipped"}[ok]
            told = told.replace(temporary, "")
            known[name] = {"outcome": word, "told": told, "seconds": round(time.perf_counter() - started, 1)}
            print(f"{name:<36} {word:<10} {told}", flush=True)
    known = {name: known[name] for name in FAULTS if name in known}
    asked.out.write_text(json.dumps({"machine": machine(), "faults": known}, indent=1) + "\n")
    return int(any(found["outcome"] == "NOT CLEAN" for found in known.values()))


if __name__ == "__main__":
    raise SystemExit(main())
