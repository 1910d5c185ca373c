"""How near each stage of a run comes to what the machine can do: bytes moved and arithmetic beside its peaks.

python benchmarks/roofline.py [--n 200000] [--n-jobs 1] [--repeats 3] [--json FILE]

The machine. Bandwidth: the triad a = b + s c over 400 MB (two arrays read, one written; what a write fetches before is
not counted). Arithmetic: chains of float32 multiply-adds on 16 kB, as numba compiles them; a multiply-add is two
operations. Both with one thread and with two, best of several.

The run. Low-count bins (320 counts, 3,000 genes, 20 types), defaults, median of the repeats. Bytes and operations of a
stage are counted from the sizes of its arrays and are lower bounds: every array is moved once though a stage may read
it several times, work whose amount no result tells is left out, and so the fractions are "at least". With z non-zeros
of the spots in all and z_r of the reference cells (b bytes each with their index), z_k kept (3 bytes each: count
and gene, one and two bytes as those of bins are held), N spots, K types, E directed edges, P the part of the spots that
tune (1,000 of N), T strengths tried above 0, and S = 1 where there is smoothing, else 0:

    stage      bytes                                   operations
    input      b (z + z_r)                             0
    reference  b z_r                                   2 z_r (sums by type)
    counts     b z + 3 z_k                             z_k (totals)
    graph      16 N + 20 E                             8 E (distance, exponential, division)
    first fit  3 z_k + 4 N K                           step
    tuning     3 P z_k (T + 1)                         P step (T + 1)
    passes     S (3 z_k + 8 N K + 28 E)                S (step + 7 E K)
    fit        3 z_k + 4 N K                           4 z_k K (deviance by spot, misfit by gene)

step = sum over spots of z_i (2 A_i + 2 K + A_i (A_i + 1)) is one Newton step of every spot, with z_i its kept non-zeros
and A_i its types above 0 in the answer: expectation over those, gradient over all types, curvature over those (its
lower triangle). How many steps a visit took is not told, so one is counted, and for the passes the least that they may
be: one sweep over all spots, its pull of the neighbours, and the attention weights once. The cell level and standard
errors are not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TRIAD_BYTES = 400_000_000
CHAIN, LANES, ROUNDS = 16, 4096, 50_000  # multiply-adds a number, numbers, times over
TUNING_SPOTS = 1000


@dataclass(frozen=True)
class Sizes:
    """What the amount of work of a run hangs on."""

    n_spots: int
    n_types: int
    non_zeros: int
    reference_non_zeros: int
    bytes_each: int  # a stored value and its column
    kept: int
    step: float  # operations of one Newton step of every spot
    edges: int
    tried: int  # strengths above 0
    smoothed: bool


def least_work(sizes: Sizes) -> dict[str, tuple[float, float]]:
    """Bytes and operations of each stage, at least; the formulas are in the module's docstring."""
    s = sizes
    n, k, each = s.n_spots, s.n_types, s.bytes_each
    part = min(n, TUNING_SPOTS) / max(n, 1) * (s.tried + 1)
    return {
        "input": (each * (s.non_zeros + s.reference_non_zeros), 0),
        "reference": (each * s.reference_non_zeros, 2 * s.reference_non_zeros),
        "counts": (each * s.non_zeros + 3 * s.kept, s.kept),
        "graph": (16 * n + 20 * s.edges, 8 * s.edges),
        "first fit": (3 * s.kept + 4 * n * k, s.step),
        "tuning": (3 * s.kept * part, s.step * part),
        "passes": (3 * s.kept + 8 * n * k + 28 * s.edges, s.step + 7 * s.edges * k) if s.smoothed else (0, 0),
        "fit": (3 * s.kept + 4 * n * k, 4 * s.kept * k),
    }


def judge(seconds: dict[str, float], work: dict[str, tuple[float, float]], peaks: tuple[float, float]) -> list[dict]:
    """Rates of each stage and their parts of the machine's peaks; "total" is the sum of the stages.

    Parameters
    ----------
    seconds : dict of str to float
        As `Result.seconds`.
    work : dict of str to (bytes, operations)
    peaks : (bytes a second, operations a second)
    """
    whole = {**work, "total": tuple(sum(column) for column in zip(*work.values(), strict=True))}
    rows = []
    for name, taken in seconds.items():
        moved, done = whole.get(name, (0.0, 0.0))
        rates = moved / max(taken, 1e-9), done / max(taken, 1e-9)
        rows.append({
            "stage": name, "seconds": taken, "bytes": moved, "operations": done, "gb_s": rates[0] / 1e9,
            "gflop_s": rates[1] / 1e9, "of_bandwidth": rates[0] / peaks[0], "of_arithmetic": rates[1] / peaks[1],
        })  # fmt: skip
    return rows


def told(rows: list[dict]) -> str:
    """The rows as a table of text."""
    head = ("seconds", 9), ("MB", 9), ("Mflop", 10), ("GB/s", 8), ("GFLOP/s", 9), ("of GB/s", 9), ("of GFLOP/s", 12)
    lines = ["stage       " + "".join(word.rjust(width) for word, width in head)]
    for r in rows:
        lines.append(
            f"{r['stage']:12s}{r['seconds']:9.3f}{r['bytes'] / 1e6:9.0f}{r['operations'] / 1e6:10.0f}{r['gb_s']:8.2f}"
            f"{r['gflop_s']:9.2f}{r['of_bandwidth']:9.1%}{r['of_arithmetic']:12.1%}"
        )
    return "\n".join(lines)


def measure_machine(threads: int, turns: int = 5) -> tuple[float, float]:
    """Bandwidth in bytes a second and float32 operations a second of so many threads, best of some turns."""
    import numba
    import numpy as np

    @numba.njit(nogil=True)
    def triad(a, b, c, scale):
        for i in range(a.shape[0]):
            a[i] = b[i] + scale * c[i]

    lines = "\n".join("            t = t * f + g" for _ in range(CHAIN))
    text = "def chain(x, f, g, rounds):\n    for _ in range(rounds):\n        for i in range(x.shape[0]):\n"
    names: dict = {}
    exec(f"{text}            t = x[i]\n{lines}\n            x[i] = t", names)
    chain = numba.njit(nogil=True, fastmath={"contract"})(names["chain"])

    n = TRIAD_BYTES // 12 // threads
    arrays = [[np.full(n, value, np.float32) for value in (0, 1, 2)] for _ in range(threads)]
    small = [np.zeros(LANES, np.float32) for _ in range(threads)]
    scale, factor, step = np.float32(3), np.float32(0.5), np.float32(1)
    triad(*(a[:8] for a in arrays[0]), scale)
    chain(small[0], factor, step, 1)
    moved, done = 12 * n * threads, 2 * CHAIN * LANES * ROUNDS * threads
    best = [0.0, 0.0]
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(turns):
            started = time.perf_counter()
            list(pool.map(lambda a: triad(*a, scale), arrays))
            best[0] = max(best[0], moved / (time.perf_counter() - started))
            started = time.perf_counter()
            list(pool.map(lambda x: chain(x, factor, step, ROUNDS), small))
            best[1] = max(best[1], done / (time.perf_counter() - started))
    return best[0], best[1]


def measure_run(n_spots: int, n_jobs: int, repeats: int) -> tuple[dict[str, float], Sizes]:
    """Median seconds of each stage of a run, and its sizes."""
    import numpy as np
    import pandas as pd

    from stdeconv_fast import deconvolve, simulate

    tissue = simulate(n_spots, 3000, 20, kind="bins", seed=0)
    spots, reference = tissue.to_anndata()

    def once(some):
        return deconvolve(some, reference, cell_types="celltype", n_jobs=n_jobs, progress=False)

    once(spots[:1000].copy())
    results = [once(spots) for _ in range(repeats)]
    first = results[0]
    used = pd.Index(tissue.genes).get_indexer(first.genes)
    matrix, n_types = tissue.spots, first.proportions.shape[1]
    kept = np.diff(matrix[:, used].indptr).astype(np.float64)
    above = (first.proportions.to_numpy() > 0).sum(axis=1)
    sizes = Sizes(
        n_spots=n_spots, n_types=n_types, non_zeros=matrix.nnz,
        reference_non_zeros=tissue.reference.nnz, bytes_each=matrix.data.itemsize + matrix.indices.itemsize,
        kept=int(kept.sum()), step=float((kept * (2 * above + 2 * n_types + above * (above + 1))).sum()),
        edges=len(first.graph.indices),
        tried=sum(step["lambda_spatial"] > 0 for step in first.strengths.path),
        smoothed=first.strengths.lambda_spatial > 0,
    )  # fmt: skip
    return {name: statistics.median(r.seconds[name] for r in results) for name in first.seconds}, sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="number of bins")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the numbers as JSON")
    options = parser.parse_args()
    machine = {}
    for threads in sorted({1, 2, options.n_jobs}):
        machine[threads] = measure_machine(threads)
        bandwidth, arithmetic = machine[threads]
        print(f"threads {threads}: {bandwidth / 1e9:.1f} GB/s, {arithmetic / 1e9:.1f} GFLOP/s", flush=True)
    seconds, sizes = measure_run(options.n, options.n_jobs, options.repeats)
    rows = judge(seconds, least_work(sizes), machine[options.n_jobs])
    print(
        f"\n{sizes.n_spots:,} bins, {sizes.n_types} types, {sizes.kept / sizes.n_spots:.0f} kept non-zeros a bin, "
        f"n_jobs={options.n_jobs}; bytes and operations are at least so many\n{told(rows)}"
    )
    if options.json:
        whole = {
            "machine": {str(n): {"gb_s": b / 1e9, "gflop_s": f / 1e9} for n, (b, f) in machine.items()},
            "n_jobs": options.n_jobs, "sizes": asdict(sizes), "stages": rows,
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
