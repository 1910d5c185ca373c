"""``stdeconv-fast run``: h5ad files in, h5ad with the answer out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import plain_warnings, reporting, say_smoothing

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "stdeconv"
WRITTEN = {
    "obs": [f"{KEY}_dominant", f"{KEY}_status", f"{KEY}_deviance", f"{KEY}_misfit", f"{KEY}_misfit_q"],
    "obsm": [KEY, f"{KEY}_se", f"{KEY}_q", f"{KEY}_cells"],
    "uns": [f"{KEY}_params", f"{KEY}_cells"],
}
CSV_ROWS = 100_000  # of a table that are turned into text at once
OWN_OPTIONS = {
    "device": "--device", "n_jobs": "--n-jobs", "seed": "--seed", "cell_level": "--cell-level", "progress": "--quiet",
}  # fmt: skip


@click.command()
@click.argument("spatial", metavar="SPATIAL")
@click.argument("reference", metavar="REFERENCE")
@click.option("--cell-type-key", metavar="KEY", help="Column of the reference's obs with the types; needed for it.")
@click.option("-o", "--out", required=True, metavar="OUT", help="The spatial data with the answer: .h5ad or .zarr.")
@click.option("--no-counts", is_flag=True, help="Leave the counts out of OUT: a small file, soon written.")
@click.option("--tiles", type=click.IntRange(min=1), metavar="N", help="Solve about N tiles, their counts on disk.")
@click.option("--work", metavar="FOLDER", help="Keep finished tiles here while the run lasts, to be resumed.")
@click.option("--resume", is_flag=True, help="Go on with the killed run whose work folder is --work.")
@click.option("--csv", metavar="FILE", help="The proportions as a table, spots by types.")
@click.option("--spatial-key", default="spatial", show_default=True, metavar="K", help="obsm key of the coordinates.")
@click.option("--sample-key", metavar="K", help="Column of the spots' obs with the section of each.")
@click.option("--layer-st", metavar="L", help="Layer with the counts of the spots.")
@click.option("--layer-sc", metavar="L", help="Layer with the counts of the reference.")
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE",
    help="Any other setting of stdeconv_fast.Settings, e.g. tune=false or exclude_types=A,B; may be repeated.",
)  # fmt: skip
@click.option("--cell-level", is_flag=True, help="Go down to single reference cells (100 a type by default).")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu or cuda.")
@click.option("--n-jobs", default=-1, show_default=True, type=int, metavar="N", help="Threads; -1: all cores.")
@click.option("--seed", default=0, show_default=True, type=int, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the JSON).")
@reporting
def run(
    spatial: str,
    reference: str,
    cell_type_key: str | None,
    out: str,
    no_counts: bool,
    tiles: int | None,
    work: str | None,
    resume: bool,
    csv: str | None,
    spatial_key: str,
    sample_key: str | None,
    layer_st: str | None,
    layer_sc: str | None,
    values: tuple[str, ...],
    cell_level: bool,
    device: str,
    n_jobs: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the cell-type proportions of the spots in SPATIAL with the single-cell data in REFERENCE.

    Both hold raw counts. REFERENCE is an h5ad file, a zarr folder or a saved built reference. SPATIAL is an h5ad file,
    a zarr folder or a folder of such (tiles of one tissue); it is read by blocks and never held whole. OUT gets what
    SPATIAL holds and obsm["stdeconv"] (spots by types), obs["stdeconv_dominant"], obs["stdeconv_status"],
    obs["stdeconv_deviance"], obs["stdeconv_misfit"] (high where a type is missing from the reference) and
    uns["stdeconv_params"]; with --set standard_errors=true also obsm["stdeconv_se"], with --set detection=true
    obsm["stdeconv_q"] (q-values of presence).
    """
    from ..settings import Settings

    settings = _parse_settings(values)
    settings |= {"cell_level": cell_level, "progress": not quiet and sys.stderr.isatty()}
    Settings.make(device=device, n_jobs=n_jobs, seed=seed, **settings)
    _check_files({"SPATIAL": spatial, "REFERENCE": reference}, {"--out": out, "--csv": csv})

    from .. import tl
    from ..built import BuiltReference
    from ..io.archives import is_archive
    from ..io.atomic import atomic_path
    from ..io.probe import probe_all
    from ..io.results import check_results, write_results
    from ..io.stores import open_spots
    from ..work_folder import clear_work

    built = is_archive(reference)
    if cell_type_key is None and not built:
        raise click.UsageError("Missing option '--cell-type-key'.")
    for path, name in ((spatial, "SPATIAL"), *(() if built else ((reference, "REFERENCE"),))):
        probe_all(Path(path), name)
    with plain_warnings(quiet), open_spots(spatial, layer_st) as store:
        check_results(store, out, counts=not no_counts)
        spots = store.without_counts(spatial_key)
        most = settings.get("max_memory")
        cells = BuiltReference.load(reference) if built else _read(reference, "REFERENCE", most)
        tl.deconvolve(
            spots, cells, **({} if cell_type_key is None else {"cell_type_key": cell_type_key}), key_added=KEY,
            layer_sc=layer_sc, spatial_key=spatial_key, sample_key=sample_key, device=device, n_jobs=n_jobs, seed=seed,
            spots=store, tiles=tiles, work_folder=work, resume=resume, keep_work=True, **settings,
        )  # fmt: skip
        del cells
        new = _written(spots)
        with ExitStack() as files:
            table = files.enter_context(atomic_path(csv)) if csv else None
            if table is not None:
                _write_csv(spots.obsm[KEY], table)
            write_results(
                store, out, obs=spots.obs[new["obs"]], obsm={name: spots.obsm[name] for name in new["obsm"]},
                uns={name: spots.uns[name] for name in new["uns"]}, counts=not no_counts,
                drop=[f"{part}/{name}" for part, names in WRITTEN.items() for name in names],  # of an earlier run
            )  # fmt: skip
        if work is not None:
            clear_work(work)
    summary = _summarise(spots, out, csv)
    if as_json:
        import json

        click.echo(json.dumps(summary, allow_nan=False))
    elif not quiet:
        click.echo(_told(summary))


def _written(spots: AnnData) -> dict[str, list[str]]:
    """What the run wrote, by the part of the AnnData."""
    parts = {"obs": spots.obs.columns, "obsm": spots.obsm, "uns": spots.uns}
    return {part: [name for name in names if name in WRITTEN[part]] for part, names in parts.items()}


def _write_csv(shares: Any, path: Path) -> None:
    """Six digits of every share; text by blocks, so that it never lies in memory whole."""
    for start in range(0, len(shares), CSV_ROWS):
        block = shares.iloc[start : start + CSV_ROWS]
        block.to_csv(
            path, index_label="spot", float_format="%.6g", mode="a" if start else "w", header=not start
        )


def _parse_settings(values: tuple[str, ...]) -> dict[str, Any]:
    """Settings from NAME=VALUE, each read as what its default is."""
    from dataclasses import fields

    from ..errors import DataError
    from ..settings import Settings

    usual = {field.name: field.default for field in fields(Settings) if field.name not in OWN_OPTIONS}
    parsed: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name, text = name.strip(), text.strip()
        if not equals:
            raise DataError(f"--set must be NAME=VALUE; got {value!r}.")
        if name in OWN_OPTIONS:
            raise DataError(f"--set must name another setting; got {name!r}. Use {OWN_OPTIONS[name]}.")
        if name not in usual:
            raise DataError(f"--set must name one of {', '.join(usual)}; got {name!r}.")
        parsed[name] = _parse(name, text, usual[name])
    return parsed


def _parse(name: str, text: str, usual: Any) -> Any:
    from ..errors import DataError

    if isinstance(usual, bool):
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in known:
            raise DataError(f"--set {name} must be true or false; got {text!r}.")
        return known[text.lower()]
    if isinstance(usual, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(usual, int | float) or name == "max_memory":
        kind = float if usual is None else type(usual)
        try:
            return kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise DataError(f"--set {name} must be {word}; got {text!r}.") from None
    return text


def _check_files(inputs: dict[str, str], outputs: dict[str, str | None]) -> None:
    """Inputs that are not there, outputs that would take the place of an input or of each other."""
    from ..errors import DataError
    from ..io.atomic import check_writable

    for name, file in inputs.items():
        if not Path(file).exists():
            raise DataError(f"{name} must be a file or a folder; got '{file}': there is no such file.")
    taken = {name: Path(file) for name, file in inputs.items()}
    for name, file in outputs.items():
        if file is None:
            continue
        target = Path(file).resolve() if name == "--out" else check_writable(file, name)
        for other, path in taken.items():
            same = path.samefile(target) if path.exists() and target.exists() else path.resolve() == target
            if same:
                raise DataError(f"{name} must not be the same file as {other}; got '{file}'.")
        taken[name] = target


def _read(path: str, name: str, max_memory: float | None) -> AnnData:
    from ..errors import DataError
    from ..io.disk import refuse_pickles, unpacked_bytes
    from ..memory import demand_room

    refuse_pickles(Path(path), name)
    try:
        demand_room(unpacked_bytes(Path(path)), max_memory, f"{name} '{path}'")
        if Path(path).is_dir():
            from anndata import read_zarr

            return read_zarr(path)
        from anndata import read_h5ad

        return read_h5ad(path)
    except MemoryError:
        raise
    except Exception as fault:
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise DataError(f"{name} must be an h5ad file or a zarr folder; got '{path}': {reason}") from fault


def _summarise(spots: AnnData, out: str, csv: str | None) -> dict[str, Any]:
    """What the run found, in plain values."""
    params, shares, status = (
        spots.uns[f"{KEY}_params"], spots.obsm[KEY], spots.obs[f"{KEY}_status"].value_counts(),
    )  # fmt: skip
    diagnostics, deviance = params["diagnostics"], spots.obs.get(f"{KEY}_deviance")
    means = shares.mean().fillna(0.0).sort_values(ascending=False)
    settings = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in params["settings"].items()}
    return {
        "out": out,
        "csv": csv,
        "n_spots": int(spots.n_obs),
        "n_spots_estimated": int(shares.notna().all(axis=1).sum()),
        "status": {str(name): int(number) for name, number in status.items()},
        "n_types": int(shares.shape[1]),
        "mean_proportions": {str(name): float(share) for name, share in means.items()},
        "n_cells": int(diagnostics["n_cells"]),
        "n_genes_shared": int(diagnostics["n_genes_shared"]),
        "n_genes_used": int(diagnostics["n_genes_used"]),
        "lambda_spatial": params["lambda_spatial"],
        "phi": params["phi"],
        "tuned": params["tuned"],
        "platform": diagnostics["platform"],
        "platform_log2_sd": _finite(diagnostics["platform_log2_sd"]),
        "abundance": diagnostics["abundance"],
        "median_deviance": _finite(deviance.median()) if deviance is not None else None,
        "device": diagnostics["device"],
        "notes": [str(note) for note in diagnostics["notes"]],
        "seconds": {str(name): float(value) for name, value in params["seconds"].items()},
        "settings": settings,
        "version": params["version"],
    }


def _finite(value: float) -> float | None:
    from math import isfinite

    return float(value) if isfinite(value) else None


def _told(summary: dict[str, Any]) -> str:
    """The summary as a person reads it."""
    left_out = ", ".join(f"{number:,} {status}" for status, number in summary["status"].items() if status != "ok")
    most = ", ".join(f"{name} {share:.0%}" for name, share in list(summary["mean_proportions"].items())[:4])
    sd, deviance = summary["platform_log2_sd"], summary["median_deviance"]
    lines = {
        "spots": f"{summary['n_spots_estimated']:,} of {summary['n_spots']:,} estimated"
        + (f" ({left_out})" if left_out else ""),
        "types": f"{summary['n_types']} from {summary['n_cells']:,} cells; most: {most}",
        "genes": f"{summary['n_genes_used']:,} used of {summary['n_genes_shared']:,} shared",
        "smoothing": say_smoothing(summary["lambda_spatial"], summary["phi"], summary["tuned"]),
        "platform": ("no effect estimated" if sd is None else f"log2 sd {sd:.2f}")
        + f", {summary['platform']}; proportions of {summary['abundance']}",
        "fit": "not measured with these settings" if deviance is None else f"median deviance {deviance:.2f} a count",
        "time": f"{summary['seconds']['total']:.1f} s on {summary['device']}",
        "wrote": " and ".join(file for file in (summary["out"], summary["csv"]) if file),
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())
