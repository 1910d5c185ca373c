"""A reference that was built before, read as if it were the table that it was built from."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse as sp

from ...built import BuiltReference, TypeSums
from ...settings import Settings
from .findings import Report, kind_of
from .labels import choose_types
from .names import Names, Rows
from .tables import Table


def table_of(built: BuiltReference) -> Table:
    """The table that a reference was built from; empty where it holds no cells."""
    n_cells, n_genes = len(built.cell_types), len(built.genes)
    cells, genes = (
        None if naming == "none" else Names(names, naming == "numbered")
        for names, naming in zip((built.cell_names, built.genes), built.naming, strict=True)
    )
    counts = sp.csr_matrix((n_cells, n_genes), dtype=np.float32) if built.counts is None else built.counts
    return Table(Rows("reference", "cell", n_cells, cells), genes, n_genes, "reference", counts)


def choose_built(
    built: BuiltReference, table: Table, cell_types: Any, layer: str | None, settings: Settings, report: Report
) -> tuple[tuple[np.ndarray, tuple[str, ...]] | None, TypeSums | None]:
    """The types to use, as `read_cell_types` gives them with the same notes, and their sums.

    Parameters
    ----------
    built : BuiltReference
    table : Table
        As `table_of` gives it.
    cell_types, layer
        The caller's, which must be None: the built reference has both.
    settings : Settings
    report : Report
        Takes the faults and notes.
    """
    for name, value in (("cell_types", cell_types), ("layer_sc", layer)):
        if value is not None:
            got = repr(value) if isinstance(value, str) else kind_of(value)
            report.fault(f"`{name}` must be left out with a built reference, which has its own; got {got}.")
    if (settings.cell_level or settings.objective == "original") and built.counts is None:
        asked = "cell_level=True" if settings.cell_level else "objective='original'"
        report.fault(
            f"`reference` must hold the counts of its cells with {asked}; got one built without. "
            "Build it with keep_cells=True."
        )
    typed = choose_types(
        built.cell_types.copy(), np.array(built.types, dtype=object), built.cell_totals > 0, table,
        settings.exclude_types, settings.min_cells_per_type, report,
    )  # fmt: skip
    if typed is None:
        return None, None
    rows = [built.types.index(name) for name in typed[1]]
    return typed, TypeSums(built.sums[rows], built.gene_totals[rows].sum(axis=0), built.cell_totals)
