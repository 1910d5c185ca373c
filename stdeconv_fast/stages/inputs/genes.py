"""The genes that both tables have, and why there may be few."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .findings import Report, count, fold
from .names import Names, by_label, duplicates, find, texts_of
from .tables import Table

ENSEMBL = re.compile(r"ENS[A-Z]*[GT]\d{6,}", re.IGNORECASE)
VERSION = re.compile(r"\.\d+$")
# Columns of var that hold names of genes, as `fold` writes them: of 10x, scanpy, CELLxGENE, Ensembl, scverse readers.
NAME_COLUMNS = frozenset((
    "geneid", "geneids", "ensembl", "ensemblid", "ensemblids", "ensemblgene", "ensemblgeneid", "geneensembl",
    "featureid", "featureids", "gene", "genes", "genename", "genenames", "genesymbol", "genesymbols", "geneshortname",
    "symbol", "symbols", "featurename", "featurenames", "hgncsymbol", "mgisymbol", "name", "names",
))  # fmt: skip


def match_genes(
    spatial: Table | None, reference: Table | None, minimum: int, report: Report
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Shared genes in the order of the spatial table.

    Parameters
    ----------
    spatial, reference : Table or None
    minimum : int
        Fewer shared genes are a fault.
    report : Report
        Takes the faults, and a note where other names than the plain ones were matched.

    Returns
    -------
    (genes, spot_genes, reference_genes) or None
        Names (str objects; those of the spatial table) and columns (int64) of the shared genes, each (n_shared,);
        None after a fault.

    Notes
    -----
    Only where the plain names share fewer genes than `minimum`, the names in `NAME_COLUMNS` of ``var`` are tried too,
    and Ensembl ids without their version.
    """
    if spatial is None or reference is None:
        return None
    if by_label(spatial.genes, reference.genes):
        if duplicates(spatial.genes) or duplicates(reference.genes):
            return None  # reported with the table
        at, _ = find(spatial.genes, reference.genes)
        spot_genes = np.flatnonzero(at >= 0)
        if len(spot_genes) < minimum:
            n_plain = len(spot_genes)
            spot_genes, at, told = _by_other_names(spatial, reference)
            if len(spot_genes) < max(minimum, n_plain + 1):
                report.fault(_few(spatial, reference, n_plain, minimum))
                return None
            report.note(
                f"spatial and reference share {count(n_plain, 'gene')} by name, fewer than {minimum}: {told}."
            )
        return spatial.gene_names()[spot_genes], spot_genes.astype(np.int64), at[spot_genes].astype(np.int64)
    sizes = f"{spatial.n_genes:,} and {reference.n_genes:,}"
    if spatial.n_genes != reference.n_genes:
        remedy = _turned(spatial, reference) or "Pass both tables with gene names (DataFrame or AnnData)."
        report.fault(
            "spatial and reference must have the same number of genes where one has no gene names (the columns are "
            f"matched by position); got {sizes}. {remedy}"
        )
        return None
    if spatial.n_genes < minimum:
        report.fault(f"spatial and reference must share at least {minimum} genes; got {spatial.n_genes} in each.")
        return None
    columns = np.arange(spatial.n_genes, dtype=np.int64)
    names = reference if spatial.genes is None or spatial.genes.default else spatial
    return names.gene_names(), columns, columns.copy()


def _by_other_names(spatial: Table, reference: Table) -> tuple[np.ndarray, np.ndarray, str]:
    """The pair of namings that shares the most genes.

    Returns
    -------
    (spot_genes, at, told)
        Columns of the spatial table, (n_shared,); the column of the reference for each gene of the spatial table, -1:
        none, (n_spatial_genes,); and the words for it.
    """
    best = np.empty(0, dtype=np.int64), np.full(spatial.n_genes, -1), ""
    theirs = _namings(reference)
    for label, names in _namings(spatial):
        for other_label, others in theirs:
            named = np.flatnonzero(pd.notna(others.values))
            at = pd.Index(others.values[named]).get_indexer(names.values)
            at = np.append(named, -1)[at]  # -1 stays -1
            found = np.flatnonzero(at >= 0)
            if len(found) > len(best[0]):
                n_left = names.n_repeats + others.n_repeats
                left = f"; {count(n_left, 'gene')} whose names occur twice there are left out" if n_left else ""
                told = f"{len(found):,} are matched by {label} and {other_label}{left}"
                best = found, at, told
    return best


@dataclass(frozen=True)
class Naming:
    """Names of the genes of one table that occur once, (n_genes,) of str objects; the others have none (None)."""

    values: np.ndarray
    n_repeats: int


def _namings(table: Table) -> list[tuple[str, Naming]]:
    """What the genes of a table may be called, the plain names first; each with the words for it."""
    listed = [(f"the names of {table.role}", table.gene_names())]
    if table.adata is not None:
        var = table.adata.var
        for column in var.columns:
            if fold(column) in NAME_COLUMNS and not pd.api.types.is_numeric_dtype(var[column].dtype):
                listed.append((f"{table.role}.var[{column!r}]", texts_of(var[column].astype(object))))
    namings = []
    for label, names in listed:
        namings.append((label, _once(names)))
        ids = np.array([name is not None and bool(ENSEMBL.match(name) and VERSION.search(name)) for name in names])
        if ids.any():
            bare = names.copy()
            bare[ids] = [VERSION.sub("", name) for name in names[ids]]
            namings.append((f"{label} without version suffixes", _once(bare)))
    return namings


def _once(names: np.ndarray) -> Naming:
    """Leave the names that occur more than once out: which gene is meant cannot be told."""
    names = np.asarray(names, dtype=object)
    missing = pd.isna(names)
    repeated = pd.Series(names).duplicated(keep=False).to_numpy() & ~missing
    return Naming(np.where(missing | repeated, None, names), int(repeated.sum()))


def _shared(one: np.ndarray | list[str], other: np.ndarray | list[str]) -> int:
    return len(set(one).intersection(other))


def _few(spatial: Table, reference: Table, n_shared: int, minimum: int) -> str:
    """The message for too few shared genes, with the likeliest reason."""
    one, other = spatial.gene_names(), reference.gene_names()
    reasons = (_column, _turned, _case, _version, _ensembl)
    reason = next((text for text in (why(spatial, reference) for why in reasons) if text), "Use one naming.")
    return (
        f"spatial and reference must share at least {minimum} genes; got {n_shared:,} of {len(one):,} and "
        f"{len(other):,}. First names: {one[0]!r}, {other[0]!r}. {reason}"
    )


def _better(n: int, spatial: Table, reference: Table) -> bool:
    """Whether a change of names that shares n genes is worth a word."""
    now = _shared(spatial.gene_names(), reference.gene_names())
    return n > max(2 * now, 0.05 * min(spatial.n_genes, reference.n_genes))


def _column(spatial: Table, reference: Table) -> str:
    """A column of .var holds the names that the other table has."""
    best, text = 0, ""
    for table, other in ((reference, spatial), (spatial, reference)):
        if table.adata is None:
            continue
        for column in table.adata.var.columns:
            values = table.adata.var[column]
            if pd.api.types.is_numeric_dtype(values.dtype):
                continue
            n = _shared([name for name in texts_of(values.astype(object)) if name], other.gene_names())
            if n > best and _better(n, spatial, reference):
                role = f"{table.role}.var"
                best = n
                text = (
                    f"{role}[{column!r}] would share {n:,}: set {role}_names = {role}[{column!r}] "
                    f"and call {role}_names_make_unique()."
                )
    return text


def _values(names: Names | None) -> np.ndarray | list[str]:
    return [] if names is None or names.default else names.values


def _turned(spatial: Table, reference: Table) -> str:
    """Genes are in the rows of one table or of both."""
    for turned, other, unit in ((reference, spatial, "cells"), (spatial, reference, "spots")):
        hit = _shared(_values(turned.rows.names), _values(other.genes))
        unnamed = not len(_values(turned.genes)) or not len(_values(other.genes))
        if hit > 0.5 * min(turned.rows.n, other.n_genes) or (unnamed and turned.rows.n == other.n_genes):
            return f"{turned.role} seems to be genes x {unit}: pass {turned.role}.T."
    both = _shared(_values(spatial.rows.names), _values(reference.rows.names))
    if both > 0.5 * min(spatial.rows.n, reference.rows.n):
        return "Both tables seem to hold genes in their rows: pass spatial.T and reference.T."
    return ""


def _case(spatial: Table, reference: Table) -> str:
    n = _shared([name.casefold() for name in spatial.gene_names()], [n.casefold() for n in reference.gene_names()])
    if not _better(n, spatial, reference):
        return ""
    return f"{count(n, 'gene')} would match without regard to letter case (mouse 'Actb', human 'ACTB'): use one naming."


def _version(spatial: Table, reference: Table) -> str:
    one, other = ([VERSION.sub("", name) for name in table.gene_names()] for table in (spatial, reference))
    n = _shared(one, other)
    if not _better(n, spatial, reference):
        return ""
    return f"{count(n, 'gene')} would match without version suffixes such as '.3': strip them from the names."


def _ensembl(spatial: Table, reference: Table) -> str:
    ids = [np.mean([bool(ENSEMBL.match(name)) for name in table.gene_names()]) > 0.5 for table in (spatial, reference)]
    if ids[0] == ids[1]:
        return ""
    has, lacks = ("spatial", "reference") if ids[0] else ("reference", "spatial")
    return f"{has} has Ensembl ids, {lacks} has symbols: use one naming."
