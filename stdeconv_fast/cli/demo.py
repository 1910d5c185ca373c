"""``stdeconv-fast demo``: a simulated tissue, its deconvolution, and how well it went."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import EXIT_CODES, plain_warnings, reporting, say_smoothing

if TYPE_CHECKING:
    import pandas as pd


@click.command(epilog=EXIT_CODES)
@click.option("--out", "folder", default=".", show_default=True, metavar="DIR", help="Where the files go.")
@click.option("--n-spots", default=1517, show_default=True, type=click.IntRange(10), help="Size of the tissue.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--n-jobs", default=-1, show_default=True, help="Threads; -1: all cores.")
@reporting
def demo(folder: str, n_spots: int, seed: int, n_jobs: int) -> None:
    """Simulate a tissue, find its composition, and compare with the truth.

    Writes proportions.csv and map.png.
    """
    from ..io.atomic import atomic_path, check_writable
    from ..pipeline import deconvolve
    from ..scoring import evaluate
    from ..settings import Settings
    from ..tissue import simulate

    Settings(n_jobs=n_jobs)
    Path(folder).mkdir(parents=True, exist_ok=True)
    table_file, map_file = (Path(folder) / name for name in ("proportions.csv", "map.png"))
    for file in (table_file, map_file):
        check_writable(file)

    with plain_warnings(quiet=False):
        tissue = simulate(n_spots, 500, 8, seed=seed)
        click.echo(
            f"Simulated {n_spots:,} spots of {len(tissue.types)} types, {len(tissue.genes)} genes, "
            f"{len(tissue.cell_types)} reference cells."
        )
        spots, reference = tissue.to_anndata()
        result = deconvolve(spots, reference, None, "celltype", n_jobs=n_jobs, seed=seed, progress=sys.stderr.isatty())
        scores = evaluate(result.proportions, tissue.truth)
        with atomic_path(table_file) as part:
            result.proportions.to_csv(part, index_label="spot", float_format="%.6g")
        with atomic_path(map_file) as part:
            _draw_demo(tissue.truth, result.proportions, tissue.coordinates, part)

    chosen = result.strengths
    click.echo(f"Smoothing: {say_smoothing(chosen.lambda_spatial, chosen.phi, chosen.tuned)}")
    click.echo("\nAgainst the truth")
    meanings = {
        "pearson": "correlation, 1 is perfect", "rmse": "error of a proportion",
        "jsd": "distance of a spot's mix, bits",
        "auprc": "telling which types are there, 1 is perfect",
    }  # fmt: skip
    for name, meaning in meanings.items():
        click.echo(f"  {name:<8} {scores[name]:6.3f}   {meaning}")
    click.echo("\nSeconds by stage (the first run compiles the kernels)")
    for name, seconds in result.seconds.items():
        click.echo(f"  {name:<10} {seconds:6.2f}")
    click.echo(f"\nWrote {table_file}\nWrote {map_file}")


def _draw_demo(truth: pd.DataFrame, found: pd.DataFrame, coordinates: Any, path: Path) -> None:
    """Maps of four types, true above estimated, with the dominant type before them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from .. import pl

    types = list(truth.columns)
    shown = list(truth.mean().sort_values(ascending=False).index[:4])
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(shown) + 1)
    top = float(max(truth[shown].to_numpy().max(), found[shown].max(axis=None)))
    for row, (name, table) in enumerate((("true", truth), ("estimated", found))):
        pl.dominant(table, coordinates=coordinates, ax=axes[row, 0], types=types, legend=False)
        pl.proportions(table, types=shown, coordinates=coordinates, ax=axes[row, 1:], vmax=top, colorbar=False)
        axes[row, 0].set_ylabel(name, fontsize=11)
        for ax in axes[row] if row else ():
            ax.set_title("")
    winners = set(truth.idxmax(axis=1)) | set(found.idxmax(axis=1))
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=7, color=colour, label=name)
        for name, colour in zip(types, pl.OKABE_ITO, strict=True)
        if name in winners
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(types), frameon=False, fontsize=9, handletextpad=0.1,
        title="dominant type", title_fontsize=9,
    )  # fmt: skip
    bar = figure.colorbar(axes[1, 1].collections[-1], ax=list(axes.ravel()), fraction=0.02, aspect=30, pad=0.01)
    bar.set_label("proportion")
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110, format="png")
