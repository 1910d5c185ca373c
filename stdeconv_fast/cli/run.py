"""``stdeconv-fast run``: h5ad files in, h5ad with the answer out, one or many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .console import EXIT_CODES, plain_warnings, reporting


def switch(name: str, words: str) -> Any:
    """An option that is on or off, and else left to the file or the defaults."""
    return click.option(f"--{name}/--no-{name}", default=False, help=words)


@click.command(epilog=EXIT_CODES)
@click.argument("files", metavar="[SPATIAL]... [REFERENCE]", nargs=-1, type=click.Path())
@click.option("--cell-type-key", metavar="KEY", help="Column of the reference's obs with the types; needed for it.")
@click.option("-o", "--out", type=click.Path(), metavar="OUT", help="The spatial data with the answer: .h5ad or .zarr.")
@click.option("--out-dir", type=click.Path(), metavar="DIR", help="A batch: DIR/NAME.h5ad for every SPATIAL.")
@click.option("--config", type=click.Path(), metavar="FILE", help="TOML with what is not given here; see below.")
@click.option("--no-counts/--counts", "no_counts", default=False, help="Leave the counts out of OUT: soon written.")
@click.option("--tiles", type=click.IntRange(min=1), metavar="N", help="Solve about N tiles, their counts on disk.")
@click.option("--work", metavar="FOLDER", help="Keep finished tiles here while the run lasts, to be resumed.")
@click.option(
    "--resume", is_flag=True,
    help="Go on with the killed run whose work folder is --work; of a batch, skip what is finished.",
)  # fmt: skip
@click.option("--csv", type=click.Path(), metavar="FILE", help="The proportions as a table; of a batch a folder.")
@click.option("--spatial-key", default="spatial", show_default=True, metavar="K", help="obsm key of the coordinates.")
@click.option("--sample-key", metavar="K", help="Column of the spots' obs with the section of each.")
@click.option("--neighbors-key", metavar="K", help="obsp key of a neighbour graph to use (squidpy's, say).")
@click.option("--layer-st", metavar="L", help="Layer with the counts of the spots.")
@click.option("--layer-sc", metavar="L", help="Layer with the counts of the reference.")
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE",
    help="Any other setting of stdeconv_fast.Settings, e.g. tune=false or exclude_types=A,B; may be repeated.",
)  # fmt: skip
@switch("cell-level", "Go down to single reference cells (100 a type by default).")
@switch("standard-errors", "A standard error for every proportion.")
@switch("detection", "A q-value for the presence of every type in every spot.")
@switch("unknown", "One type more, for what the reference leaves unexplained.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu or cuda.")
@click.option("--n-jobs", default=-1, show_default=True, type=int, metavar="N", help="Threads; -1: all cores.")
@click.option("--seed", default=0, show_default=True, type=int, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the JSON).")
@reporting
def run(**options: Any) -> None:
    """Find the cell-type proportions of the spots in SPATIAL with the single-cell data in REFERENCE.

    Both hold raw counts. REFERENCE is an h5ad file, a zarr folder or a saved built reference. SPATIAL is an h5ad file,
    a zarr folder or a folder of such (tiles of one tissue); it is read by blocks and never held whole. Both may be
    what a platform wrote, too (Visium, Visium HD, Xenium, Slide-seq, Curio, 10x mtx and h5, SpatialData): it is read
    whole, and SPATIAL is copied into a temporary file.

    OUT gets what SPATIAL holds and obsm["stdeconv"] (spots by types), obs["stdeconv_dominant"],
    obs["stdeconv_status"], obs["stdeconv_deviance"], obs["stdeconv_misfit"] (high where a type is missing from the
    reference) and uns["stdeconv_params"]; with --standard-errors also obsm["stdeconv_se"], with --detection
    obsm["stdeconv_q"] (q-values of presence).

    The settings are written beside it, into OUT.toml: `run --config OUT.toml` repeats the run, to the same bits. Such
    a file has the tables [run] (the options above by their long names, with _ for -, and spatial and reference) and
    [settings] (fields of stdeconv_fast.Settings); options on the command line beat it. Its paths are taken from its
    folder.

    A batch is several SPATIAL with one REFERENCE, which is prepared once, and --out-dir; --csv and --work then name
    folders, in which each has a table and a work folder of its own. A SPATIAL that fails is named and does not end the
    others. With --resume those are skipped whose output is whole and was made from the same input
    with the same settings.
    """
    from ..settings import Settings
    from .requests import check_files, gather

    request, quiet, as_json = gather(options), options["quiet"], options["as_json"]
    settings = {**request.settings, "progress": not quiet and sys.stderr.isatty()}
    Settings.make(**settings)
    if request.out_dir is not None:
        from .batches import run_batch

        run_batch(request, settings, options["work"], options["resume"], as_json, quiet)
        return

    from ..errors import DataError
    from ..io.archives import is_archive
    from ..io.atomic import check_writable
    from .recipes import recipe_path
    from .sections import deconvolve_file, tell
    from .sources import read_cells

    (spatial,), reference, out = request.spatial, request.reference, request.out
    check_files({"SPATIAL": spatial, "REFERENCE": reference}, {"--out": out, "--csv": request.run["csv"]})
    if Path(out).resolve().parent.is_dir():  # else it is OUT that is refused
        recipe = check_writable(recipe_path(out), "OUT.toml")
        if request.run["csv"] and Path(request.run["csv"]).resolve() == recipe:
            raise DataError(f"--csv must not be the file of the settings; got '{recipe}'.")
    if request.run["cell_type_key"] is None and not is_archive(reference):
        raise click.UsageError("Missing option '--cell-type-key'.")
    with plain_warnings(quiet):
        summary = deconvolve_file(
            spatial, reference, out, lambda: read_cells(reference, settings.get("max_memory")), request.run, settings,
            work=options["work"], resume=options["resume"],
        )  # fmt: skip
    changed = [name for name, known in request.known_inputs.items() if summary["inputs"].get(name, known) != known]
    if changed and not quiet:
        what = ", ".join(changed)
        click.echo(f"warning: what is read has changed since '{options['config']}' was written: {what}", err=True)
    if as_json:
        import json

        click.echo(json.dumps(summary, allow_nan=False))
    elif not quiet:
        click.echo(tell(summary))
