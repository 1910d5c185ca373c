"""What a real GPU must show; `gpu_day.sh` runs all of it.

python benchmarks/gpu_day.py card [--json FILE]      the device that is found
python benchmarks/gpu_day.py kernels                 every CUDA kernel once, on small problems (for compute-sanitizer)
python benchmarks/gpu_day.py large                   a solve of 100,000 bins (for ncu)
python benchmarks/gpu_day.py sets [--data FOLDER]    CPU against GPU on the sets with known composition
python benchmarks/gpu_day.py scale [--n N ...]       times by stage and memory at 100,000 to 1,000,000 bins; what the
                                                     overlap of upload and first solve gains, what launches cost
python benchmarks/gpu_day.py join FOLDER             the parts as one file in benchmarks/results, named after the card
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_overlap import judge_launches, measure_launches, measure_overlap, watch_passes
from benchmarks.sets import WITH_TRUTH, find_data, load, sections_of
from stdeconv_fast import backend, deconvolve, simulate

RESULTS = Path(__file__).resolve().parent / "results"
CLOSE = 1e-4  # of a proportion, CPU against GPU in float32
BLOCK = 50_000  # bins that are simulated; larger tissues are copies of them side by side
# bins or cells, genes, types, and the seconds of device time that are aimed at
SIZES = ((100_000, 3000, 20, None), (500_000, 3000, 20, None), (1_000_000, 3000, 20, 2.0), (170_000, 5000, 40, 20.0))
MOST_BYTES = 6e9
COMPARED = 500_000  # bins whose upload and first solve are timed with and without overlap
ON_DEVICE = ("first fit", "tuning", "passes", "fit")


def peak_bytes(card: backend.Card) -> int:
    """Bytes that CuPy's pool has taken from the device: it gives none back, so that this is its peak."""
    return int(card.xp.get_default_memory_pool().total_bytes())


def copies(n: int, n_genes: int, n_types: int, block: int = BLOCK) -> tuple:
    """A tissue of n bins from copies of a simulated one; what `deconvolve` takes."""
    each = min(n, block)
    made = simulate(each, n_genes, n_types, kind="bins", seed=1)
    number = -(-n // each)
    places = np.asarray(made.coordinates, dtype=float)
    width = np.ptp(places, axis=0)[0] + 10 * np.diff(np.unique(places[:, 0])).min()
    shifted = np.concatenate([places + (turn * width, 0) for turn in range(number)])[:n]
    spots = sparse.vstack([sparse.csr_matrix(made.spots)] * number, format="csr")[:n]
    return spots, made.reference, shifted, made.cell_types


def card(options: argparse.Namespace) -> dict:
    """Name, memory and shared memory of the device."""
    found = backend.find_card()
    return {"card": found.name, "free_bytes": found.free, "shared_bytes": found.shared}


def kernels(options: argparse.Namespace) -> dict:
    """Every case of the kernel tests that is small, launched once."""
    from stdeconv_fast.kernels.cuda import loader
    from tests import cuda_cases
    from tests.cuda_shim.child import run_cases

    cuda_cases.MOST_NAIVE = 0  # the kernels are launched here, not judged
    found = backend.find_card()
    launched: dict[str, int] = {}
    for stem in loader.STEMS:
        for size in ("no spots", "one type", "33 types"):
            for dtype in ("float32", "float64"):
                cases = [case.sent() for case in cuda_cases.of(stem, size, dtype)]
                run_cases(found.xp, found.shared, cases)
                for case in cases:
                    launched[case[1]] = launched.get(case[1], 0) + 1
    return {"launched": launched}


def large(options: argparse.Namespace) -> dict:
    """One solve of 100,000 bins."""
    given = copies(100_000, 3000, 20)
    return {"seconds": deconvolve(*given, device="cuda", progress=False).seconds}


def sets(options: argparse.Namespace) -> dict:
    """Largest difference of a proportion, CPU against GPU, by set."""
    data, rows = find_data(options.data), []
    for name in options.sets:
        spots, reference, _ = load(data, name)
        found = {}
        for device in ("cpu", "cuda"):
            started = time.perf_counter()
            result = deconvolve(
                spots, reference, cell_types="celltype", sections=sections_of(spots), device=device, progress=False
            )
            found[device] = (result, time.perf_counter() - started)
        (cpu, cpu_seconds), (gpu, gpu_seconds) = found["cpu"], found["cuda"]
        apart = float(np.nanmax(np.abs(cpu.proportions.to_numpy() - gpu.proportions.to_numpy())))
        rows.append({
            "set": name, "largest_difference": apart, "cpu_seconds": cpu_seconds, "gpu_seconds": gpu_seconds,
            "strengths": [repr(cpu.strengths), repr(gpu.strengths)], "ok": apart <= CLOSE,
        })  # fmt: skip
        print(f"{name}: {apart:.1e}, CPU {cpu_seconds:.1f} s, GPU {gpu_seconds:.1f} s", flush=True)
    return {"sets": rows, "ok": all(row["ok"] for row in rows)}


def scale(options: argparse.Namespace) -> dict:
    """Times by stage and device memory; each size once to warm up (the first) and once to be timed.

    Beside them what launches cost in the passes and, at one size, what the overlap of upload and first solve gains.
    """
    small = copies(2000, 500, 20, 2000)
    deconvolve(*small, device="cuda", progress=False)
    deconvolve(*copies(2000, 500, 40, 2000), device="cuda", progress=False)
    each = measure_launches(small)
    rows = []
    for n, n_genes, n_types, aim in SIZES:
        if options.n and n not in options.n:
            continue
        given = copies(n, n_genes, n_types)
        with watch_passes() as told:
            result = deconvolve(*given, device="cuda", progress=False)
        rows.append(row_of(result, n, n_genes, n_types, aim, peak_bytes(backend.find_card())))
        rows[-1]["graph"] = judge_launches(told, each)
        if n == COMPARED:
            rows[-1]["overlap"] = found = measure_overlap(given[0], given[1], given[3])
            rows[-1]["ok"] = rows[-1]["ok"] and found["same"]
        print(json.dumps(rows[-1]), flush=True)
    return {"scale": rows, "ok": all(row["ok"] for row in rows)}


def row_of(result: Any, n: int, n_genes: int, n_types: int, aim: float | None, peak: int) -> dict:
    """What one timed run gave, and whether it keeps its promises."""
    device_seconds = sum(result.seconds[stage] for stage in ON_DEVICE)
    return {
        "n": n, "genes": n_genes, "types": n_types, "genes_used": len(result.genes), "seconds": result.seconds,
        "device_seconds": device_seconds, "aim": aim, "peak_bytes": peak, "device": result.diagnostics["device"],
        "ok": (aim is None or device_seconds <= aim) and peak <= MOST_BYTES,
    }  # fmt: skip


def join(options: argparse.Namespace) -> dict:
    """The parts that there are, in one file named after the card."""
    folder, whole = Path(options.folder), {}
    for part in ("card", "sets", "scale"):
        file = folder / f"{part}.json"
        whole[part] = json.loads(file.read_text()) if file.exists() else "missing: the step failed"
    file = folder / "ncu.csv"
    whole["ncu"] = read_ncu(file.read_text()) if file.exists() else "missing: the step failed"
    name = re.sub(r"\W+", "_", whole["card"]["card"]).strip("_").lower()
    target = Path(options.results) / f"gpu_{name}.json"
    target.write_text(json.dumps(whole, indent=1) + "\n")
    print(target)
    return {"ok": "missing" not in str([whole[part] for part in whole])}


def read_ncu(text: str) -> list[dict]:
    """Mean percentage of the peak by kernel and metric, from ncu's CSV."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    sums: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader(lines):
        key = (row["Kernel Name"].split("(")[0], row["Metric Name"])
        sums.setdefault(key, []).append(float(row["Metric Value"].replace(",", "")))
    return [
        {"kernel": kernel, "metric": metric, "mean": float(np.mean(values)), "launches": len(values)}
        for (kernel, metric), values in sums.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("card", "kernels", "large", "sets", "scale", "join"))
    parser.add_argument("folder", nargs="?", help="of the parts, for join")
    parser.add_argument("--data", help="folder of the sets (default: STDECONV_DATA)")
    parser.add_argument("--sets", nargs="*", default=list(WITH_TRUTH))
    parser.add_argument("--n", nargs="*", type=int)
    parser.add_argument("--json", help="write what was found as JSON")
    parser.add_argument("--results", default=str(RESULTS))
    options = parser.parse_args()
    found = globals()[options.what](options)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    elif options.what in ("card", "kernels"):
        print(json.dumps(found))
    return 0 if found.get("ok", True) else 1


if __name__ == "__main__":
    raise SystemExit(main())
