"""The table of the settings, from the dataclass and its docstring."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from numpydoc.docscrape import NumpyDocString

from stdeconv_fast import Settings

# The unit of each; a setting that is not here ends the build, and so does one too many.
UNITS = {
    "phi": "share", "lambda_cell": "factor", "lambda_spatial": "factor", "lambda_ridge": "counts; factor for cells",
    "max_cells_per_type": "cells", "n_iter": "passes", "k_neighbors": "spots", "attention": "", "loss": "",
    "platform": "", "abundance": "", "tune": "", "cell_level": "", "max_cells_per_spot": "cells",
    "standard_errors": "", "detection": "", "unknown": "", "min_shared_genes": "genes", "min_cells_per_type": "cells",
    "exclude_types": "names", "check_counts": "", "dtype": "", "seed": "", "device": "", "n_jobs": "threads",
    "max_memory": "GB (1e9 bytes)", "progress": "", "objective": "",
}  # fmt: skip


def settings_table() -> tuple[str, list[Path]]:
    """Name, kind and range, unit, default and meaning of every setting, in the order of the dataclass."""
    told = {entry.name: entry for entry in NumpyDocString(inspect.cleandoc(Settings.__doc__))["Parameters"]}
    names = [field.name for field in fields(Settings)]
    if not set(names) == set(UNITS) == set(told):
        raise ValueError(f"settings, units and docstring differ: {set(names) ^ set(UNITS) | set(names) ^ set(told)}")
    rows = ["| setting | kind and range | unit | default | what it does |", "|---|---|---|---|---|"]
    for field in fields(Settings):
        entry = told[field.name]
        words = " ".join(" ".join(entry.desc).split()).replace("``", "`").replace("|", "\\|")
        kind = entry.type.replace("|", "\\|")
        rows.append(f"| `{field.name}` | {kind} | {UNITS[field.name] or '-'} | `{field.default!r}` | {words} |")
    return "\n".join(rows), [Path(inspect.getfile(Settings))]


MAKERS = {"settings": settings_table}
