"""``stdeconv-fast tune``: try settings, say which are best."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .console import EXIT_CODES, plain_warnings, reporting

LOOK = 0.5  # seconds between two looks at how many trials are done
RANGES = ("uniform", "log")


@click.command(epilog=EXIT_CODES)
@click.argument("spatial", metavar="SPATIAL", type=click.Path())
@click.argument("reference", metavar="REFERENCE", type=click.Path())
@click.option(
    "--grid", "grids", multiple=True, required=True, metavar="NAME=V1,V2,...",
    help="Values of a setting to try; with --n-trials also NAME=uniform:LOW:HIGH or NAME=log:LOW:HIGH. Repeatable.",
)  # fmt: skip
@click.option("--cell-type-key", metavar="KEY", help="Column of the reference's obs with the types; needed for it.")
@click.option("--score", default="held_out", show_default=True, metavar="S", help="held_out or unsupervised.")
@click.option("--n-trials", type=click.IntRange(min=1), metavar="N", help="Draw so many points; else all of the grid.")
@click.option("--jobs", type=int, metavar="J", help="Trials at once.")
@click.option("--work", metavar="FOLDER", help="Keep finished trials here.")
@click.option("--resume", is_flag=True, help="Go on with the trials in --work.")
@click.option("--csv", type=click.Path(), metavar="FILE", help="The trials as a table.")
@click.option("--best", type=click.Path(), metavar="FILE", help="The best settings as TOML, for run --config.")
@click.option("--spatial-key", default="spatial", show_default=True, metavar="K", help="obsm key of the coordinates.")
@click.option("--sample-key", metavar="K", help="Column of the spots' obs with the section of each.")
@click.option("--layer-st", metavar="L", help="Layer with the counts of the spots.")
@click.option("--layer-sc", metavar="L", help="Layer with the counts of the reference.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="A setting that all trials share.")
@click.option("--json", "as_json", is_flag=True, help="Print the trials and the best as one JSON object.")
@reporting
def tune(**options: Any) -> None:
    """Try settings on SPATIAL with REFERENCE and say which predict held-out counts best; no truth is needed.

    With tune=true, the default, each trial chooses its own smoothing: pass --set tune=false to search lambda_spatial
    and phi themselves.
    """
    from .. import tl
    from ..built import BuiltReference
    from ..io.archives import is_archive
    from ..io.atomic import atomic_path
    from ..io.probe import probe_all
    from ..settings import Settings
    from .recipes import write_recipe
    from .requests import check_files, parse_settings
    from .sections import read_table

    spatial, reference, key = options["spatial"], options["reference"], options["cell_type_key"]
    grid, settings = _parse_grid(options["grids"]), parse_settings(options["values"], own=False)
    Settings.make(**settings)
    built = is_archive(reference)
    check_files({"SPATIAL": spatial, "REFERENCE": reference}, {"--csv": options["csv"], "--best": options["best"]})
    if key is None and not built:
        raise click.UsageError("Missing option '--cell-type-key'.")
    for path, name in ((spatial, "SPATIAL"), *(() if built else ((reference, "REFERENCE"),))):
        probe_all(Path(path), name)
    most = settings.get("max_memory")
    with plain_warnings(quiet=False), tempfile.TemporaryDirectory(prefix="stdeconv_fast-") as temporary:
        spots = read_table(spatial, "SPATIAL", most)
        cells = BuiltReference.load(reference) if built else read_table(reference, "REFERENCE", most)
        work = options["work"] or str(Path(temporary) / "work")
        with count_trials(Path(work), _number_of(grid, options["n_trials"])):
            found = tl.tune(
                spots, cells, grid, **({} if key is None else {"cell_type_key": key}), layer_st=options["layer_st"],
                layer_sc=options["layer_sc"], spatial_key=options["spatial_key"], sample_key=options["sample_key"],
                score=options["score"], n_trials=options["n_trials"], jobs=options["jobs"], work_folder=work,
                resume=options["resume"], **settings,
            )  # fmt: skip
        if options["csv"]:
            with atomic_path(options["csv"]) as part:
                found.table.to_csv(part, index=False)
        if options["best"]:
            with atomic_path(options["best"]) as part:
                title = f"The best of {len(found.table)} trials by {found.score}, for stdeconv-fast run --config"
                keys = ("cell_type_key", "spatial_key", "sample_key", "layer_st", "layer_sc")
                chosen = {name: value for name, value in (settings | found.best).items() if name != "progress"}
                write_recipe(part, title, {"run": {k: options[k] for k in keys}, "settings": chosen})
    if options["as_json"]:
        import json

        rows = json.loads(found.table.to_json(orient="records", double_precision=15))
        click.echo(json.dumps({"score": found.score, "best": found.best, "trials": rows}))
        return
    click.echo(found.table.to_string(index=False, float_format=lambda value: f"{value:.6g}"))
    best = " ".join(f"--set {name}={_text(value)}" for name, value in found.best.items())
    click.echo(f"\nBest by {found.score}: {best}")
    for file in filter(None, (options["csv"], options["best"])):
        click.echo(f"Wrote {file}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_grid(values: tuple[str, ...]) -> dict[str, Any]:
    """The values of each setting, each read as what its default is; a range as a distribution."""
    from ..errors import DataError
    from .requests import parse_settings

    grid: dict[str, Any] = {}
    for value in values:
        name, equals, text = (part.strip() for part in value.partition("="))
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not equals or not parts:
            raise DataError(f"--grid must be NAME=V1,V2,...; got {value!r}.")
        if name in grid:
            raise DataError(f"--grid must name a setting once; got {name!r} twice.")
        if name == "exclude_types":
            raise DataError("--grid must not name exclude_types, whose values are lists. Use stdeconv_fast.tune.")
        kind = parts[0].partition(":")[0]
        if len(parts) == 1 and ":" in parts[0] and kind in RANGES:
            grid[name] = _distribution(name, parts[0])
        else:
            grid[name] = [parse_settings((f"{name}={part}",), "--grid", own=False)[name] for part in parts]
    return grid


def _distribution(name: str, text: str) -> Any:
    from scipy import stats

    from ..errors import DataError

    kind, *ends = text.split(":")
    try:
        low, high = (float(end) for end in ends)
        sound = -1e300 < low < high < 1e300 and (kind == "uniform" or low > 0)
    except ValueError:
        sound = False
    if not sound:
        raise DataError(f"--grid {name} must be {kind}:LOW:HIGH with LOW < HIGH, above 0 for log; got {text!r}.")
    return stats.uniform(low, high - low) if kind == "uniform" else stats.loguniform(low, high)


def _number_of(grid: dict[str, Any], n_trials: int | None) -> int:
    from math import prod

    return n_trials or prod(len(values) if isinstance(values, list) else 1 for values in grid.values())


@contextmanager
def count_trials(work: Path, total: int) -> Iterator[None]:
    """A bar of the trials that lie in the work folder, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    from ..work_folder import STORE

    over = threading.Event()
    with tqdm(total=total, unit="trial", leave=False) as bar:

        def watch() -> None:
            while not over.wait(LOOK):
                done = sum(1 for _ in (work / STORE / "trials").glob("[0-9]*.npz"))
                bar.update(min(done, total) - bar.n)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
