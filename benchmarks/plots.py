"""Seconds that each figure takes, drawing and writing of a PNG included, on simulated tissues of a million bins.

python benchmarks/plots.py                     # prints a table
python benchmarks/plots.py --json              # writes benchmarks/results/plots.json, too
python benchmarks/plots.py --n 100000 --figures /tmp/figures
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

N_TYPES = 20
LIMIT = 5.0  # seconds
UNKNOWN = 5e-4  # of the bins have no estimate
LAYOUTS = ("grid", "turned", "beads")
MANY = ("proportions, 20 types",)  # no limit: many maps


def make(n: int, layout: str) -> Any:
    """An AnnData as `tl.deconvolve` leaves it: smooth fields, some bins unknown, a few far from all others."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    side = math.isqrt(n)
    x, y = np.divmod(np.arange(side * side), side)
    xy = np.column_stack([x, y]).astype(np.float64)
    if layout == "beads":
        xy = rng.random(xy.shape) * side
    elif layout == "turned":
        xy = xy @ np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    fields = np.empty((len(xy), N_TYPES), dtype=np.float32)
    for k in range(N_TYPES):
        waves, phases = rng.normal(0, 9 / side, (8, 2)), rng.uniform(0, 2 * np.pi, 8)
        fields[:, k] = np.cos(xy @ waves.T + phases) @ rng.normal(0, 1.0, 8)
    shares = np.exp(fields - fields.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[rng.random(len(xy)) < UNKNOWN] = np.nan
    xy[:3] = [[-0.05 * side, 0], [1.05 * side, side], [-0.05 * side, side]]
    regions = pd.Categorical.from_codes(rng.integers(0, 12, len(xy)), [f"region {i}" for i in range(12)])
    names = pd.Index(np.arange(len(xy)).astype(str))
    adata = AnnData(None, obs=pd.DataFrame({"region": regions}, index=names), obsm={"spatial": xy * 8.0})
    types = [f"type {k}" for k in range(N_TYPES)]
    adata.obsm["stdeconv"] = pd.DataFrame(shares, names, types)
    adata.obs["stdeconv_status"] = "ok"
    adata.uns["stdeconv_params"] = {
        "call": {}, "lambda_spatial": 20.0, "phi": 1.0, "tuned": False,
        "settings": {}, "diagnostics": {}, "seconds": {},
    }  # fmt: skip
    if layout == "grid":
        adata.obsp["stdeconv_attention"] = _neighbours(side, shares)
    return adata


def _neighbours(side: int, shares: np.ndarray) -> Any:
    """Weights to the four neighbours on the grid, the less alike the lower."""
    from scipy.sparse import coo_matrix

    number = np.arange(side * side).reshape(side, side)
    one = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
    other = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
    apart = np.nan_to_num(np.abs(shares[one] - shares[other]).sum(axis=1))
    weight = (0.25 * np.exp(-20 * apart)).astype(np.float32)
    half = coo_matrix((weight, (one, other)), shape=(side * side,) * 2).tocsr()
    return (half + half.T).tocsr()


def faces(adata: Any, layout: str) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    from stdeconv_fast import pl

    found = {
        "proportions, one type": lambda: pl.proportions(adata, types=["type 2"])[0],
        "dominant": lambda: pl.dominant(adata),
        "pies": lambda: pl.pies(adata),
    }
    if layout == "grid":
        found |= {
            "cooccurrence": lambda: pl.cooccurrence(adata),
            "cooccurrence, blocks": lambda: pl.cooccurrence(adata, block=80.0),
            "composition": lambda: pl.composition(adata, "region"),
            "attention": lambda: pl.attention(adata),
        }
    return found | {"proportions, 20 types": lambda: pl.proportions(adata, ncols=5)[0]}


def measure(n: int, figures: Path, repeats: int) -> list[dict[str, Any]]:
    """A row for each figure: the fastest and the slowest of some repeats, in seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = []
    for layout in LAYOUTS:
        adata = make(n, layout)
        for name, draw in faces(adata, layout).items():
            seconds = []
            for _ in range(1 if name in MANY else repeats):
                started = time.perf_counter()
                ax = draw()
                ax.figure.savefig(figures / f"{layout} {name}.png".replace(", ", "_").replace(" ", "_"))
                seconds.append(time.perf_counter() - started)
                plt.close("all")
            rows.append({
                "layout": layout, "figure": name, "bins": adata.n_obs, "seconds": round(min(seconds), 2),
                "slowest": round(max(seconds), 2), "limit": None if name in MANY else LIMIT,
            })  # fmt: skip
            print(f"{layout:<7} {name:<24} {rows[-1]['seconds']:7.2f}", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="bins (default: a million)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--figures", help="folder for the pictures (default: they are thrown away)")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/plots.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(options.figures or folder)
        figures.mkdir(parents=True, exist_ok=True)
        rows = measure(options.n, figures, options.repeats)
    table = pd.DataFrame(rows)
    print(f"seconds a figure, {table['bins'].iloc[0]:,} bins, {N_TYPES} types, PNG included")
    print(table.pivot(index="figure", columns="layout", values="seconds")[list(LAYOUTS)].to_string(na_rep="-"))
    if options.json:
        import matplotlib

        out = Path(__file__).parent / "results" / "plots.json"
        made = {"python": platform.python_version(), "matplotlib": matplotlib.__version__, "numpy": np.__version__}
        out.write_text(json.dumps({"versions": made, "rows": rows}, indent=1) + "\n")
    slow = table[table["limit"].notna() & (table["seconds"] > LIMIT)]
    return 1 if len(slow) else 0


if __name__ == "__main__":
    raise SystemExit(main())
