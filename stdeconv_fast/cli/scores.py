"""``stdeconv-fast evaluate``: how close proportions are to a known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import EXIT_CODES, plain_warnings, reporting
from .sections import KEY

if TYPE_CHECKING:
    import pandas as pd

MEANINGS = {
    "pearson": "correlation over all spots and types, 1 is perfect", "pearson_type": "mean of it over types",
    "spearman": "of ranks", "r2": "coefficient of determination", "rmse": "error of a proportion",
    "mae": "mean absolute error", "jsd": "distance of a spot's mix, bits", "cosine": "of a spot's mix, 1 is perfect",
    "auprc": "telling which types are there, 1 is perfect",
}  # fmt: skip


@click.command(epilog=EXIT_CODES)
@click.argument("proportions", metavar="PROPORTIONS", type=click.Path())
@click.argument("truth", metavar="TRUTH", type=click.Path())
@click.option("--key", default=KEY, show_default=True, metavar="K", help="obsm key of the table in h5ad and zarr.")
@click.option("--truth-key", metavar="K", help="The same for TRUTH, where it is another.")
@click.option("--json", "as_json", is_flag=True, help="Print the measures as one JSON object.")
@reporting
def evaluate(proportions: str, truth: str, key: str, truth_key: str | None, as_json: bool) -> None:
    """Compare PROPORTIONS with TRUTH, spots by types, matched by name.

    Each is a .csv or .tsv table whose first column names the spots, or an h5ad file or zarr folder with the table in
    obsm, as run writes it.
    """
    from ..errors import DataError
    from ..scoring import evaluate as compare
    from ..settings import raise_faults

    tables, faults = [], []
    for name, path, place in (("PROPORTIONS", proportions, key), ("TRUTH", truth, truth_key or key)):
        try:
            tables.append(_read(path, name, place))
        except DataError as fault:
            faults.append(fault)
    raise_faults(faults, "files")
    with plain_warnings(quiet=False):
        found = compare(*tables)
    if as_json:
        import json

        click.echo(json.dumps(_plain(found), allow_nan=False))
        return
    click.echo(f"{found['n_spots']:,} spots compared, {found['n_spots_left_out']:,} left out")
    for name, meaning in MEANINGS.items():
        click.echo(f"  {name:<13} {found[name]:7.4f}   {meaning}")
    click.echo("\n" + found["per_type"].to_string(float_format=lambda value: f"{value:.4f}"))


def _read(path: str, name: str, key: str) -> pd.DataFrame:
    """A table of spots by types."""
    import pandas as pd

    from ..errors import DataError
    from .requests import demand_there

    demand_there(name, path)
    ending = Path(path).suffix.lower()
    if ending in (".csv", ".tsv"):
        try:
            table = pd.read_csv(path, sep="," if ending == ".csv" else "\t", index_col=0)
        except (ValueError, OSError) as fault:  # what pandas says of a broken table is a ValueError
            raise DataError(f"{name} must be a table; got '{path}': {str(fault).splitlines()[0]}") from fault
        wrong = [str(column) for column in table if not pd.api.types.is_numeric_dtype(table[column])]
        if wrong or not table.shape[1]:
            got = f"text in {', '.join(map(repr, wrong[:3]))}" if wrong else "no columns after the first"
            raise DataError(f"{name} must hold numbers after the names of the spots; got {got} in '{path}'.")
        return table
    if ending not in (".h5ad", ".zarr"):
        raise DataError(f"{name} must end in .csv, .tsv, .h5ad or .zarr; got '{path}'.")
    from ..io.probe import probe_all
    from .sections import read_obsm

    probe_all(Path(path), name)
    return read_obsm(path, name, key)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """The measures without NaN and tables."""
    import pandas as pd

    def number(value: Any) -> Any:
        return None if value is None or pd.isna(value) else value.item() if hasattr(value, "item") else value

    per_type = {
        str(name): {str(column): number(value) for column, value in row.items()}
        for name, row in found["per_type"].to_dict(orient="index").items()
    }
    return {name: number(value) for name, value in found.items() if name != "per_type"} | {"per_type": per_type}
