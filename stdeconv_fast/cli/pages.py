"""``stdeconv-fast report``: one html page about an answer."""

from __future__ import annotations

import click

from .console import EXIT_CODES, plain_warnings, reporting
from .sections import KEY


@click.command("report", epilog=EXIT_CODES)
@click.argument("answer", metavar="OUT", type=click.Path())
@click.option("-o", "--out", "page", default="report.html", show_default=True, metavar="PAGE", help="The page, .html.")
@click.option("--key", default=KEY, show_default=True, metavar="K", help="obsm key of the proportions.")
@click.option("--spatial-key", metavar="K", help="obsm key of the coordinates; by default that of the run.")
@click.option("--sample-key", metavar="K", help="Column of obs with the section of each spot; default: of the run.")
@click.option("--title", metavar="TEXT", help="By default the name of OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@reporting
def write_report(
    answer: str, page: str, key: str, spatial_key: str | None, sample_key: str | None, title: str | None, as_json: bool
) -> None:
    """Write one html page about the answer in OUT, an h5ad file or zarr folder that run wrote.

    Maps of every type and section, a table of the types, checks of the input, warnings, fit, the tuning curve,
    settings, versions, time and memory. The page opens from disk: it needs no network and nothing beside it.
    """
    import time
    from pathlib import Path

    from ..pages.writing import make_page
    from .requests import demand_there
    from .sources import called

    started = time.perf_counter()
    demand_there("OUT", answer)
    with plain_warnings(quiet=False), called("--out"):
        path, held = make_page(answer, page, key, spatial_key, sample_key, title)
    maps = held["maps"]
    summary = {
        "page": str(path), "megabytes": Path(path).stat().st_size / 1e6, "n_spots": held["n_spots"],
        "n_types": len(held["types"]), "sections": [section["name"] for section in maps["sections"]],
        "n_squares": maps["n"] if maps["joined"] else None, "warnings": held["notes"],
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    if as_json:
        import json

        click.echo(json.dumps(summary))
        return
    size = summary["megabytes"]
    said = f"{size:.1f} MB" if size >= 1 else f"{1e3 * size:.0f} kB"
    squares = f" as means of {maps['n']:,} squares" if maps["joined"] else ""
    click.echo(
        f"{held['n_spots']:,} spots of {len(held['types'])} types{squares}, {len(held['notes'])} warning(s)\n"
        f"wrote {path}, {said}"
    )
