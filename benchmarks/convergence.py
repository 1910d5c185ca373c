"""How far the answer is from the one in which every pass is solved to the end.

python benchmarks/convergence.py [--n 100000] [--tissue FOLDER] [--data FOLDER] [--lambdas 50 400 1600] [--json FILE]

The same run twice: as users get it, and with every pass swept until no spot owes more than 2e-6 of an abundance. The
promise: the largest difference of a proportion is at most 1e-3. With --data also on the sets of that folder that have
coordinates, their strength chosen by the counts. The exit code is 1 where the promise is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import anndata as ad  # noqa: E402
import numpy as np  # noqa: E402

import stdeconv_fast as sd  # noqa: E402
from benchmarks.peers_data import find_tissue, usual_simulator  # noqa: E402
from benchmarks.processes import machine  # noqa: E402
from stdeconv_fast.procedures import passes  # noqa: E402

END = 2e-6  # of an abundance
SWEEPS = 3000
PROMISED = 1e-3


def to_the_end():
    """Every pass solved until nothing moves."""
    sweeping = partial(passes.alternate, limit=END)
    settling = passes.settle

    def settle(*arguments):
        return settling(*arguments[:9], END, SWEEPS)

    return mock.patch.multiple(passes, alternate=sweeping, EARLY=(1.0,), settle=settle)


def compare(spots, reference, **settings) -> dict:
    """Largest and root-mean-square difference of a proportion, and seconds of both passes."""
    answers, seconds = [], []
    for context in (mock.patch.object(passes, "EARLY", passes.EARLY), to_the_end()):
        started = time.perf_counter()
        with context:
            result = sd.deconvolve(spots, reference, cell_types="celltype", progress=False, **settings)
        answers.append(result.proportions.to_numpy())
        seconds.append(time.perf_counter() - started)
    apart = np.abs(answers[0] - answers[1])
    return {
        "lambda_spatial": result.strengths.lambda_spatial, "largest": float(np.nanmax(apart)),
        "rms": float(np.sqrt(np.nanmean(apart**2))), "seconds": seconds[0], "seconds_to_the_end": seconds[1],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="bins of the simulated tissue")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[20, 50, 400, 1600], help="counts")
    parser.add_argument("--tissue", type=Path, default=Path(tempfile.gettempdir()) / "stdeconv_fast-peers")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real sets, a folder each with sc.h5ad and st.h5ad")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []

    def run(name: str, home: Path, **settings) -> None:
        spots, reference = ad.read_h5ad(home / "st.h5ad"), ad.read_h5ad(home / "sc.h5ad")
        if "section" in spots.obs:
            settings["sections"] = "section"
        rows.append({"tissue": name, "n": spots.n_obs, **compare(spots, reference, **settings)})
        row = rows[-1]
        print(f"{name:24}{row['n']:>9,}  lambda {row['lambda_spatial']:<7g} largest {row['largest']:.1e}  "
              f"rms {row['rms']:.1e}  {row['seconds']:.2f} s, to the end {row['seconds_to_the_end']:.2f} s",
              flush=True)  # fmt: skip

    home, _ = find_tissue(options.tissue.resolve(), "hd", options.n, usual_simulator())
    for strength in options.lambdas:
        run(f"bins, lambda {strength:g}", home, tune=False, lambda_spatial=strength / 20)
    for home in sorted(options.data.iterdir()) if options.data else ():
        if (home / "st.h5ad").exists():
            run(home.name, home)
    worst = max(row["largest"] for row in rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "promised": PROMISED, "rows": rows}, indent=1) + "\n")
    print(("ok     " if worst <= PROMISED else "FAILED ") + f"largest difference at most {PROMISED:g}: {worst:.1e}")
    return 0 if worst <= PROMISED else 1


if __name__ == "__main__":
    raise SystemExit(main())
