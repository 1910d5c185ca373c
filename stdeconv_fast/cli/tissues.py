"""``stdeconv-fast simulate``: a tissue whose composition is known, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import EXIT_CODES, reporting

NAMES = {"spatial": "spatial.h5ad", "reference": "reference.h5ad", "truth": "truth.csv"}


@click.command(epilog=EXIT_CODES)
@click.option("-o", "--out", "folder", required=True, type=click.Path(), metavar="DIR", help="Where the files go.")
@click.option("--n-spots", default=1000, show_default=True, type=int)
@click.option("--n-genes", default=500, show_default=True, type=int)
@click.option("--n-types", default=8, show_default=True, type=int)
@click.option("--kind", default="gradients", show_default=True, help="gradients, domains, none or bins.")
@click.option("--cells-per-type", default=60, show_default=True, type=int, help="Cells of the reference.")
@click.option("--counts-per-spot", type=float, help="1000 by default; 320 for bins.")
@click.option("--platform-sd", type=float, help="Log sd of the platform effect over genes: 0.3; 0.4 for bins.")
@click.option("--n-sections", default=1, show_default=True, type=int)
@click.option("--grid", help="How the spots lie: hex, square or random.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@reporting
def simulate(folder: str, as_json: bool, **options: Any) -> None:
    """Simulate a tissue and its reference: spatial.h5ad, reference.h5ad and truth.csv in DIR.

    The types are in the column "celltype" of the reference, the sections in the column "section" of the spots. The
    same options give the same tissue with the same version of NumPy.
    """
    from ..io.atomic import atomic_path, check_writable
    from ..tissue import simulate as make

    tissue = make(**options)
    Path(folder).mkdir(parents=True, exist_ok=True)
    files = {name: Path(folder) / file for name, file in NAMES.items()}
    for file in files.values():
        check_writable(file, "--out")
    spots, reference = tissue.to_anndata()
    for name, table in (("spatial", spots), ("reference", reference)):
        with atomic_path(files[name]) as part:
            table.write_h5ad(part, compression="gzip")
    with atomic_path(files["truth"]) as part:
        tissue.truth.to_csv(part, index_label="spot")
    if as_json:
        import json

        said = {name: str(file) for name, file in files.items()}
        said |= {"n_cells": len(tissue.cell_types), "cell_type_key": "celltype", "sample_key": "section"}
        click.echo(json.dumps(said | {"parameters": tissue.parameters}))
        return
    n_spots, n_genes = tissue.spots.shape
    click.echo(
        f"Simulated {n_spots:,} spots of {len(tissue.types)} types, {n_genes:,} genes, "
        f"{len(tissue.cell_types):,} reference cells."
    )
    click.echo("\n".join(f"Wrote {file}" for file in files.values()))
    click.echo(
        f"Next: stdeconv-fast run {files['spatial']} {files['reference']} --cell-type-key celltype "
        f"-o {Path(folder) / 'out.h5ad'}"
    )
