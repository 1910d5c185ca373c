"""How the time of a run grows with the number of types and with the number of genes: no cliff anywhere.

python benchmarks/widths.py [--n-spots 20000] [--repeats 3] [--n-jobs 1] [--quick] [--json FILE]

Low-count bins (320 counts), defaults. Types: 10, 20, 50, 100 with 1,000 genes. Genes: 500, 1,000, 2,000, 5,000 with 20
types; up to 1,500 shared genes are all kept, of more the markers are chosen, so the table tells how many were used. The
median of the repeats counts; a first run at each width compiles and is not counted. --quick: 4,000 bins, no repeats,
narrow widths alone.

The promise is judged from each row to the next, on the total and on the first fit (which is the same work whatever the
tuning chooses; "lambda" tells what it chose, and with 0 there are no passes): they grow by at most 1.3 times the square
of the ratio of the types, and by at most 1.3 times the ratio of the kept non-zeros (1.3 times where there are fewer).
"ratio" is the larger of the two. The exit code is 1 where the promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SLACK = 1.3
JUDGED = ("total", "first fit")
TYPES, GENES = (10, 20, 50, 100), (500, 1000, 2000, 5000)
USUAL_TYPES, USUAL_GENES = 20, 1000


def measure(n_spots: int, n_types: int, n_genes: int, repeats: int, n_jobs: int) -> dict:
    """Median seconds of each stage of a run with so many types and genes."""
    import pandas as pd

    from stdeconv_fast import deconvolve, simulate

    tissue = simulate(n_spots, n_genes, n_types, kind="bins", seed=0)
    spots, reference = tissue.to_anndata()

    def once(some):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return deconvolve(some, reference, cell_types="celltype", n_jobs=n_jobs, progress=False)

    once(spots[:500].copy())
    results = [once(spots) for _ in range(repeats)]
    used = pd.Index(tissue.genes).get_indexer(results[0].genes)
    return {
        "n_spots": n_spots,
        "n_types": n_types,
        "n_genes": n_genes,
        "n_genes_used": int(results[0].diagnostics["n_genes_used"]),
        "kept_non_zeros": tissue.spots[:, used].nnz,
        "lambda_spatial": results[0].strengths.lambda_spatial,
        "seconds": {
            name: statistics.median(result.seconds[name] for result in results) for name in results[0].seconds
        },
    }


def judge(rows: list[dict], by: str) -> list[dict]:
    """Growth of the total and the first fit, whichever is more, from each row to the next beside what is promised.

    Parameters
    ----------
    rows : list of dict
        As `measure` gives them, with one width growing.
    by : {"types", "genes"}
        The width that grows.
    """
    found = []
    for before, row in zip(rows[:-1], rows[1:], strict=True):
        if by == "types":
            limit = SLACK * (row["n_types"] / before["n_types"]) ** 2
        else:
            limit = SLACK * max(row["kept_non_zeros"] / before["kept_non_zeros"], 1.0)
        ratio = max(row["seconds"][name] / before["seconds"][name] for name in JUDGED)
        found.append({"ratio": ratio, "limit": limit, "ok": ratio <= limit})
    return found


def told(rows: list[dict], verdicts: list[dict]) -> str:
    """The rows as a table of text."""
    stages = [name for name in rows[0]["seconds"] if name != "total"]
    head = ["types", "genes", "used", "kept/bin", "lambda", *stages, "total s", "us/bin", "ratio", "limit", ""]
    lines = [head]
    for row, verdict in zip(rows, [None, *verdicts], strict=True):
        grown = ["", "", ""]
        if verdict:
            grown = [f"{verdict['ratio']:.2f}", f"{verdict['limit']:.2f}", "ok" if verdict["ok"] else "FAILED"]
        total = row["seconds"]["total"]
        lines.append([
            str(row["n_types"]), str(row["n_genes"]), str(row["n_genes_used"]),
            f"{row['kept_non_zeros'] / row['n_spots']:.0f}", f"{row['lambda_spatial']:g}",
            *(f"{row['seconds'][name]:.2f}" for name in stages),
            f"{total:.2f}", f"{1e6 * total / row['n_spots']:.0f}", *grown,
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-spots", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="4,000 bins, one run, two widths each")
    parser.add_argument("--json", help="write the numbers as JSON")
    options = parser.parse_args()
    n_spots, repeats = (4000, 1) if options.quick else (options.n_spots, options.repeats)
    types, genes = (TYPES[:2], GENES[:2]) if options.quick else (TYPES, GENES)
    plans = {
        "types": [(n, USUAL_GENES) for n in types],
        "genes": [(USUAL_TYPES, n) for n in genes],
    }
    tables, good = {}, True
    for by, widths in plans.items():
        rows = [measure(n_spots, n_types, n_genes, repeats, options.n_jobs) for n_types, n_genes in widths]
        verdicts = judge(rows, by)
        print(f"{n_spots:,} bins, the number of {by} grows\n{told(rows, verdicts)}\n", flush=True)
        good &= all(verdict["ok"] for verdict in verdicts)
        tables[by] = {"rows": rows, "verdicts": verdicts}
    print("ok     no cliff" if good else "FAILED time grows faster than promised")
    if options.json:
        Path(options.json).write_text(json.dumps(tables, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
