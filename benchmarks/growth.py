"""How time by stage and peak memory grow with the number of low-count bins.

/usr/bin/time -v python benchmarks/growth.py --sizes 25000 50000 100000 [--repeats 5] [--n-jobs 1] [--json FILE]

The tissue of each size is made in one process and deconvolved in another, so that the peak memory is the run's own (the
input is part of it); a first run compiles and is not counted.
The median of the repeats counts. The exponent is the slope of log time against log size from the first to the last
size; a stage that takes under 0.1 s at the largest size is too short to judge.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.processes import machine  # noqa: E402

SHORT = 0.1  # seconds
LINEAR = 1.2  # an exponent up to this counts as linear: between runs of the same size 0.15 is noise here


def make_size(n: int, folder: str) -> None:
    """Write the tissue of one size as plain files."""
    import numpy as np
    from scipy.sparse import save_npz

    from stdeconv_fast import simulate

    tissue = simulate(n, 3000, 20, kind="bins")
    save_npz(f"{folder}/spots.npz", tissue.spots, compressed=False)
    save_npz(f"{folder}/reference.npz", tissue.reference, compressed=False)
    np.savez(f"{folder}/labels.npz", places=tissue.coordinates, types=tissue.cell_types.astype(str))


def run_size(n: int, folder: str, repeats: int, n_jobs: int) -> dict:
    """Median seconds of each stage, and peak memory, of one size in this process."""
    import numpy as np
    from scipy.sparse import load_npz

    from stdeconv_fast import deconvolve

    spots, reference = load_npz(f"{folder}/spots.npz"), load_npz(f"{folder}/reference.npz")
    labels = np.load(f"{folder}/labels.npz")
    places, types = labels["places"], labels["types"]

    def once(rows: slice) -> dict[str, float]:
        result = deconvolve(spots[rows], reference, places[rows], types, progress=False, n_jobs=n_jobs)
        return result.seconds

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    once(slice(1000))
    runs = [once(slice(None)) for _ in range(repeats)]
    return {
        "n_spots": n,
        "seconds": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[25000, 50000, 100000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--json", help="write the numbers as JSON")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_size(int(options.make[0]), options.make[1])
        return 0
    if options.run:
        print(json.dumps(run_size(int(options.run[0]), options.run[1], options.repeats, options.n_jobs)))
        return 0
    rows = []
    for size in sorted(options.sizes):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, "--make", str(size), folder], check=True)
            command = [sys.executable, __file__, "--run", str(size), folder]
            command += ["--repeats", str(options.repeats), "--n-jobs", str(options.n_jobs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({**json.loads(done.stdout.splitlines()[-1]), "machine": machine()})
        row = rows[-1]
        print(f"{size} bins: {row['seconds']['total']:.2f} s, peak {row['peak_mb']:.0f} MB "
              f"({row['before_mb']:.0f} MB with the input alone)", flush=True)  # fmt: skip
    print("\nstage        " + "".join(f"{row['n_spots']:>12}" for row in rows) + "   exponent")
    good = True
    for name in rows[0]["seconds"]:
        times = [row["seconds"][name] for row in rows]
        told = "too short to judge"
        if times[-1] >= SHORT and len(rows) > 1:
            grown = math.log(max(times[-1], 1e-9) / max(times[0], 1e-9))
            exponent = grown / math.log(rows[-1]["n_spots"] / rows[0]["n_spots"])
            good &= exponent <= LINEAR
            told = f"{exponent:.2f}" + ("" if exponent <= LINEAR else "  MORE THAN LINEAR")
        print(f"{name:13s}" + "".join(f"{value:12.3f}" for value in times) + f"   {told}")
    print("\nok     no stage grows faster than linearly" if good else "\nFAILED a stage grows faster than linearly")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
