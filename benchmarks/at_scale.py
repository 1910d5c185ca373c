"""Large tissues in pieces: tiles from zarr in bounded memory, a cluster that loses a worker, runs killed and resumed.

python benchmarks/at_scale.py tiled --n 5000000 [--tile-spots 100000] [--tissue FOLDER] [--json FILE]
python benchmarks/at_scale.py cluster --n 20000 [--json FILE]
python benchmarks/at_scale.py restart --n 20000 --kills 10 [--json FILE]

tiled: copies of a tissue of 1,000,000 bins (or of N, where N is less) side by side in one zarr folder; the command line
solves it in tiles, the memory of all its processes is added up every 50 ms, and so is the disk that its work folder
takes. cluster: a dask LocalCluster of two processes, once undisturbed and once with a worker killed, beside one
process and beside the whole run. restart: the command line is killed (SIGKILL) at random moments and resumed with
--resume until it is done; the answer is compared bit by bit with that of an undisturbed run. Each prints what it found
and whether it holds.
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
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers_data import find_tissue, usual_simulator
from benchmarks.processes import time_process

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 1_000_000  # bins of one copy
COMMAND = [sys.executable, "-m", "stdeconv_fast.cli", "run"]
MOST_MB = 6e9 / 2**20  # of the tiled run, all processes together
CLOSE = 1e-3  # of a proportion
COPY = """
import sys
import anndata as ad, numpy as np
source, target, number, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
spots = ad.read_h5ad(source)
places = spots.obsm["spatial"]
spots.obsm["spatial"] = places + np.array([number * width, 0])
spots.obs_names = [f"{name}-{number}" for name in spots.obs_names]
spots.write_zarr(target)
"""
JOIN = """
import sys
from stdeconv_fast.io.results import write_results
from stdeconv_fast.io.stores import open_spots
write_results(open_spots(sys.argv[1]), sys.argv[2])
"""
SCORE = """
import json, sys
import anndata as ad, numpy as np, pandas as pd
from stdeconv_fast import evaluate
shares = ad.read_h5ad(sys.argv[1]).obsm["stdeconv"]
kept = np.load(sys.argv[2]) if sys.argv[2].endswith("npz") else None
truth = pd.DataFrame(kept["values"], columns=kept["columns"]) if kept is not None else pd.read_csv(sys.argv[2], index_col=0)
repeated = pd.DataFrame(np.tile(truth.to_numpy(), (len(shares) // len(truth), 1)), index=shares.index, columns=truth.columns)
print(json.dumps({"pearson": evaluate(shares, repeated)["pearson"], "rows": len(shares), "nan": int(shares.isna().any(axis=1).sum())}))
"""  # noqa: E501


def make_zarr(folder: Path, n: int, simulator: Path | None) -> tuple[Path, Path, Path, str]:
    """One zarr folder of n bins, the reference, the truth of one copy, and what it was made of."""
    each = min(n, BLOCK)
    home, maker = find_tissue(folder, "hd", each, simulator)
    whole, copies = folder / f"hd-{n}.zarr", n // each
    if not whole.exists():
        parts = folder / f"hd-{n}.parts"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        width = int(each**0.5) + 50
        for number in range(copies):
            target = parts / f"part_{number:03d}.zarr"
            copy = [sys.executable, "-W", "ignore", "-c", COPY, home / "st.h5ad", target, str(number), str(width)]
            subprocess.run(copy, check=True)
        subprocess.run([sys.executable, "-W", "ignore", "-c", JOIN, parts, whole], check=True, cwd=ROOT)
        shutil.rmtree(parts)
    truth = next(path for path in (home / "truth.npz", home / "truth.csv") if path.exists())
    return whole, home / "sc.h5ad", truth, f"{copies} x {maker}"


class Disk(threading.Thread):
    """The most bytes that a folder held, looked at twice a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.peak, self.done = folder, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.5):
            total = 0
            for place, _, files in os.walk(self.folder):
                for name in files:
                    try:
                        total += os.lstat(os.path.join(place, name)).st_size
                    except OSError:
                        continue
            self.peak = max(self.peak, total)


def size_of(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def tiled(options: argparse.Namespace) -> dict:
    """One large zarr folder, by the command line, in tiles."""
    folder = Path(options.tissue)
    folder.mkdir(parents=True, exist_ok=True)
    spots, reference, truth, maker = make_zarr(folder, options.n, options.simulator)
    tiles = max(2, -(-options.n // options.tile_spots))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch) / "work"
        command = [*COMMAND, str(spots), str(reference), "--cell-type-key", "celltype", "-o", f"{scratch}/out.h5ad",
                   "--no-counts", "--tiles", str(tiles), "--work", str(work), "--json", "--quiet"]  # fmt: skip
        disk = Disk(work)
        used = time_process(command, scratch, limit=options.limit, environment={"PYTHONPATH": str(ROOT)})
        disk.done.set()
        row = {"n": options.n, "tiles": tiles, "tissue": maker, "input_mb": size_of(spots) / 2**20,
               "work_mb": disk.peak / 2**20, **used}  # fmt: skip
        if used["status"] == "ok":
            row["seconds"] = json.loads(Path(scratch, "stdout").read_text())["seconds"]
            score = [sys.executable, "-W", "ignore", "-c", SCORE, f"{scratch}/out.h5ad", str(truth)]
            row |= json.loads(subprocess.run(score, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    row["promises"] = {
        "it finishes": row["status"] == "ok",
        "every bin has a row": row.get("rows") == options.n and row.get("nan") == 0,
        f"under 6 GB in all processes together ({row['peak_mb']:,.0f} MB)": row["peak_mb"] < MOST_MB,
        f"under 10 GB of disk, input and work folder ({row['input_mb'] + row['work_mb']:,.0f} MB)":
            (row["input_mb"] + row["work_mb"]) * 2**20 < 10e9,
    }  # fmt: skip
    return row


def cluster(options: argparse.Namespace) -> dict:
    """A LocalCluster of two processes, undisturbed and with a worker killed."""
    import joblib
    import numpy as np
    from distributed import Client, LocalCluster

    from stdeconv_fast import deconvolve, simulate

    tissue = simulate(options.n, 3000, 20, kind="bins")
    given = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)

    def run(**more: object) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        result = deconvolve(*given, progress=False, **more)
        return result.proportions.to_numpy(), time.perf_counter() - started

    whole, _ = run()
    one, one_seconds = run(tiles=8, n_jobs=1)
    made = LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None)
    with made, Client(made), joblib.parallel_config(backend="dask"):
        two, two_seconds = run(tiles=8, n_jobs=2)
        pid = next(iter(made.workers.values())).process.pid
        killer = threading.Timer(two_seconds / 3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        lost, lost_seconds = run(tiles=8, n_jobs=2)
        killer.join()
        gone = pid not in [worker.process.pid for worker in made.workers.values()]
    return {
        "n": options.n, "seconds": {"one process": one_seconds, "cluster": two_seconds, "worker killed": lost_seconds},
        "promises": {
            f"tiles within {CLOSE:g} of the whole run ({np.abs(one - whole).max():.1e})":
                bool(np.abs(one - whole).max() <= CLOSE),
            "two processes of a cluster give the bits of one process": bool((two == one).all()),
            f"a worker was killed ({gone}), and the bits are the same": bool(gone and (lost == one).all()),
        },
    }  # fmt: skip


def restart(options: argparse.Namespace) -> dict:
    """Kills at random moments, then --resume, against an undisturbed run."""
    import anndata as ad
    import numpy as np

    from stdeconv_fast import simulate

    lots, kills, moments = random.Random(options.seed), 0, []
    with tempfile.TemporaryDirectory() as scratch:
        spots, reference = simulate(options.n, 3000, 20, kind="bins").to_anndata()
        spots.write_h5ad(f"{scratch}/st.h5ad")
        reference.write_h5ad(f"{scratch}/sc.h5ad")

        def command(out: str, *more: str) -> list[str]:
            return [*COMMAND, f"{scratch}/st.h5ad", f"{scratch}/sc.h5ad", "--cell-type-key", "celltype",
                    "-o", f"{scratch}/{out}", "--tiles", "8", "--quiet", *more]  # fmt: skip

        def answer(out: str) -> np.ndarray:
            return ad.read_h5ad(f"{scratch}/{out}").obsm["stdeconv"].to_numpy()

        for number in range(2):  # the first one may have to compile: no kill would fall into a later, shorter one
            started = time.perf_counter()
            subprocess.run(command("whole.h5ad", "--work", f"{scratch}/undisturbed-{number}"), check=True, cwd=ROOT)
            seconds = time.perf_counter() - started
        expected, same, whole = answer("whole.h5ad"), 0, 0
        while kills < options.kills:
            out, work = f"out-{kills}.h5ad", f"{scratch}/work-{kills}"
            process = subprocess.Popen(command(out, "--work", work), cwd=ROOT)
            moment = lots.uniform(0.15, 0.98) * seconds
            try:
                process.wait(moment)
                continue  # done before its moment came: another one
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kills += 1
            moments.append(moment)
            broken = Path(scratch, out)
            whole += not broken.exists() or bool((answer(out) == expected).all())
            subprocess.run(command(out, "--work", work, "--resume"), check=True, cwd=ROOT)
            same += bool((answer(out) == expected).all()) and not Path(work).exists()
    return {
        "n": options.n, "seconds": seconds, "moments": moments,
        "promises": {
            f"{same} of {kills} killed and resumed runs give the bits of the undisturbed run": same == kills,
            f"{whole} of {kills} kills left no broken output": whole == kills,
        },
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tiled", "cluster", "restart"))
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--tile-spots", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=7200, help="seconds")
    parser.add_argument("--tissue", default=str(Path(tempfile.gettempdir()) / "stdeconv_fast-tissues"))
    parser.add_argument("--simulator", type=Path, default=usual_simulator())
    parser.add_argument("--json", help="write what was found, merged by kind")
    options = parser.parse_args()
    found = {"tiled": tiled, "cluster": cluster, "restart": restart}[options.what](options)
    promises = found.pop("promises")
    for name, value in found.items():
        print(f"{name:<10} {value}")
    for text, holds in promises.items():
        print(("ok     " if holds else "FAILED ") + text)
    if options.json:
        path = Path(options.json)
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept[options.what] = {**found, "promises": promises}
        path.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
