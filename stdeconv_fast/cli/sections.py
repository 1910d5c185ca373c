"""One file of spots: its counts solved, its answer and the settings of the run written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import say_smoothing
from .recipes import recipe_path, write_recipe

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from ..built import BuiltReference

KEY = "stdeconv"
WRITTEN = {
    "obs": [f"{KEY}_dominant", f"{KEY}_status", f"{KEY}_deviance", f"{KEY}_misfit", f"{KEY}_misfit_q"],
    "obsm": [KEY, f"{KEY}_se", f"{KEY}_q", f"{KEY}_cells"],
    "uns": [f"{KEY}_params", f"{KEY}_cells", f"{KEY}_genes", f"{KEY}_types"],
}
CSV_ROWS = 100_000  # of a table that are turned into text at once


def deconvolve_file(
    spatial: str,
    reference: str,
    out: str,
    cells: Callable[[], AnnData | BuiltReference],
    run: dict[str, Any],
    settings: dict[str, Any],
    *,
    work: str | None = None,
    resume: bool = False,
    prepared: bool = False,
    request: str | None = None,
) -> dict[str, Any]:
    """Read the spots, find their composition, write OUT, the table and OUT.toml; gives the summary.

    Parameters
    ----------
    spatial, reference, out : str
    cells : callable
        Gives the reference; called once the spots and the place of OUT have been found to be usable.
    run : dict
        Keys of the table [run] of `recipes`, None where not given.
    settings : dict
        Fields of `Settings`.
    work, resume
        As for `tl.deconvolve`.
    prepared : bool
        The reference was built here, from the layer that `run` names.
    request : str, optional
        Kept with the answer, to tell later what it was made from.
    """
    from .. import tl
    from ..io.atomic import atomic_path
    from ..io.results import check_results, write_results
    from ..work_folder import clear_work
    from .sources import open_input, read_labels

    counts, csv, key = not run["no_counts"], run["csv"], run["cell_type_key"]
    with open_input(spatial, run["layer_st"]) as store:
        check_results(store, out, counts=counts)
        spots = read_labels(store, run["spatial_key"], run["neighbors_key"])
        filled = set(spots.obsm) - set(store.obsm_keys)  # places from elsewhere
        known = cells()
        tl.deconvolve(
            spots, known, **({} if key is None else {"cell_type_key": key}), key_added=KEY,
            layer_sc=None if prepared else run["layer_sc"], spatial_key=run["spatial_key"],
            sample_key=run["sample_key"], neighbors_key=run["neighbors_key"], spots=store, tiles=run["tiles"],
            work_folder=work, resume=resume, keep_work=True, **settings,
        )  # fmt: skip
        del known
        params = spots.uns[f"{KEY}_params"]
        if request is not None:
            params["request"] = request
        parts = {"obs": spots.obs.columns, "obsm": spots.obsm, "uns": spots.uns}
        new = {part: [name for name in names if name in {*WRITTEN[part], *filled}] for part, names in parts.items()}
        with ExitStack() as files:
            recipe = files.enter_context(atomic_path(recipe_path(out)))
            table = files.enter_context(atomic_path(csv)) if csv else None
            if table is not None:
                _write_csv(spots.obsm[KEY], table)
            _write_recipe(recipe, params, {**run, "spatial": spatial, "reference": reference, "out": out, "csv": csv})
            write_results(
                store, out, obs=spots.obs[new["obs"]], obsm={name: spots.obsm[name] for name in new["obsm"]},
                uns={name: spots.uns[name] for name in new["uns"]}, counts=counts,
                drop=[f"{part}/{name}" for part, names in WRITTEN.items() for name in names],  # of an earlier run
            )  # fmt: skip
        if work is not None:
            clear_work(work)
    return _summarise(spots, out, csv)


def _write_recipe(path: Path, params: dict[str, Any], run: dict[str, Any]) -> None:
    """What repeats the run, and what it was made from."""
    places = ("spatial", "reference", "out", "csv")
    run = {name: os.path.abspath(v) if name in places and v else v for name, v in run.items()}
    order = [*places, *(name for name in run if name not in places)]
    made = {"version": params["version"], **params["provenance"]}
    settings = {name: value for name, value in plain(params["settings"]).items() if name != "progress"}
    settings["device"] = params["diagnostics"]["device"].split()[0]  # of "auto": another need not give the same bits
    title = (
        f"How stdeconv-fast {params['version']} made {Path(run['out']).name}. To repeat the run:\n"
        "stdeconv-fast run --config THIS_FILE [-o OTHER.h5ad]\n[made] tells what was read and by what; it sets nothing."
    )
    write_recipe(path, title, {
        "run": {name: run[name] for name in order},
        "settings": settings,
        "made": made,
    })  # fmt: skip


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with lists in the place of arrays."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in settings.items()}


def _write_csv(shares: Any, path: Path) -> None:
    """Six digits of every share; text by blocks, so that it never lies in memory whole."""
    for start in range(0, len(shares), CSV_ROWS):
        block = shares.iloc[start : start + CSV_ROWS]
        block.to_csv(
            path, index_label="spot", float_format="%.6g", mode="a" if start else "w", header=not start
        )


def read_table(path: str, name: str, max_memory: float | None) -> AnnData:
    """An h5ad file or a zarr folder, whole."""
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


def read_obsm(path: str, name: str, key: str) -> pd.DataFrame:
    """One table of obsm, without the counts."""
    import pandas as pd
    from anndata.io import read_elem

    from ..errors import DataError
    from ..io.disk import opened, reading, refuse_pickles
    from ..io.labels import names_in, read_index

    refuse_pickles(Path(path), name)
    with opened(Path(path)) as root:
        there = names_in(root, "obsm")
        if key not in there:
            listed = ", ".join(map(repr, there)) or "no keys"
            raise DataError(f"{name} must have the key {key!r} in obsm; got {listed} in '{path}'.")
        with reading(f"obsm[{key!r}]", Path(path)):
            table = read_elem(root["obsm"][key])
        if not isinstance(table, pd.DataFrame):
            raise DataError(f"{name} must hold a table with the types as columns in obsm[{key!r}]; got an array.")
        return table.set_axis(read_index(root["obs"], "obs", Path(path)), axis=0)


def _summarise(spots: AnnData, out: str, csv: str | None) -> dict[str, Any]:
    """What the run found, in plain values."""
    params, shares, status = (
        spots.uns[f"{KEY}_params"], spots.obsm[KEY], spots.obs[f"{KEY}_status"].value_counts(),
    )  # fmt: skip
    diagnostics, deviance = params["diagnostics"], spots.obs.get(f"{KEY}_deviance")
    means = shares.mean().fillna(0.0).sort_values(ascending=False)
    return {
        "out": out,
        "csv": csv,
        "config": recipe_path(out),
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
        "settings": plain(params["settings"]),
        "version": params["version"],
        "inputs": dict(params["provenance"].get("inputs", {})),
    }


def _finite(value: float) -> float | None:
    from math import isfinite

    return float(value) if isfinite(value) else None


def tell(summary: dict[str, Any]) -> str:
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
        "wrote": " and ".join(file for file in (summary["out"], summary["csv"], summary["config"]) if file),
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())
