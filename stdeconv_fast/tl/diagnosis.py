"""What a user needs to judge a run, from what it left; nothing is computed anew."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..thresholds import BORDERLINE, FEWEST_COUNTS, STRONG_PLATFORM
from .left import Left, read_left

OK, LOOK, WARN = "ok", "look", "warning"
MANY_LOST = 0.1  # of the spots without an estimate
MANY_MISFITS = 0.05  # of the spots, at q < 0.05
SURE = 0.05  # q-value
RARE = 1e-3  # mean proportion of a type that is hardly there
SHARE = 0.05  # proportions whose standard errors are told
BROAD = 0.1  # standard error of such a proportion
MOST_NAMED = 5
WIDTH = 100  # letters of a line

Finding = tuple[str, str, str, str]


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What speaks for a run and what against it.

    Parameters
    ----------
    table : DataFrame
        A row a check, by its name: ``verdict`` ("ok"; "look": judge for yourself; "warning"), ``value``, and ``told``,
        what it means and what to do.
    notes : list of str
        The warnings that the run gave.
    """

    table: pd.DataFrame
    notes: list[str]

    def __repr__(self) -> str:
        number = self.table["verdict"].value_counts()
        counted = ", ".join(f"{number[verdict]} {verdict}" for verdict in (WARN, LOOK, OK) if verdict in number)
        name_width = max(map(len, self.table.index))
        lines = [f"Diagnosis: {counted}"]
        for name, (verdict, value, told) in zip(self.table.index, self.table.to_numpy(), strict=True):
            sign = {OK: " ", LOOK: "?", WARN: "!"}[verdict]
            indent = " " * (name_width + 4)
            lines += textwrap.wrap(f"{sign} {name:<{name_width}}  {value}", WIDTH, subsequent_indent=indent)
            if verdict != OK:
                lines += textwrap.wrap(told, WIDTH, initial_indent=indent, subsequent_indent=indent)
        for note in self.notes:
            lines += textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="      ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.table.to_html()


def diagnose(data: Any, key: str = "stdeconv") -> Diagnosis:
    """Judge a run by what it left: spots lost, depth, platform, smoothing, misfit, genes, types, errors.

    Parameters
    ----------
    data : AnnData or Result
        After `tl.deconvolve`, or what `stdeconv_fast.deconvolve` gave.
    key : str
        The `key_added` of the run.

    Returns
    -------
    Diagnosis
        Printed, it tells all values and explains those that ask for a look; ``.table`` has them as a DataFrame.

    Raises
    ------
    DataError
        No run wrote under `key`.
    DataTypeError
        `data` is of another kind.

    Notes
    -----
    None of this knows the truth: a run without a warning may still be wrong, where reference and tissue differ in a way
    that the counts do not show.
    """
    left = read_left(data, key)
    rows = [row for check in CHECKS for row in check(left)]
    table = pd.DataFrame(rows, columns=["check", "verdict", "value", "told"]).set_index("check")
    return Diagnosis(table, [str(note) for note in left.diagnostics.get("notes", [])])


def _spots(left: Left) -> Iterator[Finding]:
    number = left.status.value_counts()
    lost = number.drop("ok", errors="ignore")
    told = "; ".join(f"{count:,} {name}" for name, count in lost.items())
    value = f"{number.get('ok', 0):,} of {len(left.status):,} with an estimate" + (f" ({told})" if told else "")
    outside = lost.drop("not in tissue", errors="ignore").sum()
    many = outside > MANY_LOST * max(len(left.status) - lost.get("not in tissue", 0), 1)
    yield "spots", LOOK if many else OK, value, "Many spots have no estimate: look at the map of their total counts."


def _depth(left: Left) -> Iterator[Finding]:
    told, median = left.diagnostics, left.diagnostics.get("median_counts")
    yield "genes", OK, f"{told['n_genes_used']:,} used of {told['n_genes_shared']:,} shared", ""
    if median is not None:
        yield (
            "counts", LOOK if median < FEWEST_COUNTS else OK, f"{median:,.0f} in the median spot, over the genes used",
            "So few counts tell little of a single spot, and a missing type is not looked for: rely on the smoothing, "
            "or pool bins to larger ones.",
        )  # fmt: skip


def _platform(left: Left) -> Iterator[Finding]:
    told = left.diagnostics
    sd, abundance = told.get("platform_log2_sd"), told.get("abundance")
    if sd is None or not np.isfinite(sd):
        return
    close = abs(sd - STRONG_PLATFORM) <= BORDERLINE
    verdict = WARN if close else LOOK if sd > STRONG_PLATFORM else OK
    means = (
        "Near 1, where platform='auto' and abundance='auto' change: set both, and compare the answers."
        if close
        else "Genes are seen very differently by the two technologies; standard errors are too small then. A reference "
        "of a nearer technology helps most."
    )
    yield "platform effect", verdict, f"log2 sd {sd:.2f} over genes, fitted {told.get('platform')}", means
    yield "proportions", OK, {"cells": "shares of cells", "mrna": "shares of mRNA"}.get(abundance, str(abundance)), ""


def _smoothing(left: Left) -> Iterator[Finding]:
    value = f"lambda_spatial {left.lambda_spatial:g} counts, phi {left.phi:g}"
    if left.settings.get("objective") == "original":
        yield "smoothing", OK, f"{value} (as set)", ""
    elif left.lambda_spatial == 0 and not left.tuned:
        yield "smoothing", OK, "off", ""
    elif not left.tuned:
        yield "smoothing", LOOK, f"{value} (as set)", "The counts did not choose it: tune=True lets them."
    else:
        yield "smoothing", *_tuned(left, f"{value}, chosen from {len(left.path)} tried")
    rough = left.diagnostics.get("roughness")
    if rough is not None and np.isfinite(rough):
        yield "roughness", OK, f"{rough:.2f} (0: neighbours are alike; 1: strangers)", ""


def _tuned(left: Left, value: str) -> tuple[str, str, str]:
    """Whether the best lies at an end of what was tried."""
    path = left.path
    best = path.loc[path["score"].idxmax()]
    if best["lambda_spatial"] == 0:
        return LOOK, value, "The counts ask for no smoothing: neighbouring spots tell nothing of each other."
    if best["lambda_spatial"] == path.loc[path["graph"] == "place", "lambda_spatial"].max():
        return WARN, value, "The strongest smoothing tried is best: the tissue is all but even, or far too shallow."
    if left.phi == path["phi"].min() < path["phi"].max():
        return LOOK, value, "The lowest phi tried is best: pass a lower one, phi=0.6, which then is tried, too."
    return OK, value, ""


def _misfit(left: Left) -> Iterator[Finding]:
    alarm = [note for note in left.diagnostics.get("notes", []) if "may be missing from the reference" in str(note)]
    if left.fit is not None and "misfit" in left.fit:
        known = left.fit["q_value"].notna()
        far = (left.fit["q_value"] < SURE) & (left.fit["misfit"] > 0)
        share = far.sum() / max(known.sum(), 1)
        verdict = WARN if alarm else LOOK if share > MANY_MISFITS else OK
        told = "A type may be missing: see the map of the misfit, and the genes in excess." if verdict != OK else ""
        yield "misfit", verdict, f"{far.sum():,} spots ({share:.1%}) with q < {SURE:g}", told
        deviance = left.fit["deviance"].median()
        yield "deviance", OK, f"{deviance:.2f} a count in the median spot", ""
    elif alarm:
        yield "misfit", WARN, "a type may be missing", "See the note."


def _genes(left: Left) -> Iterator[Finding]:
    if left.genes is None:
        return
    worst = left.genes.sort_values("rank").index[:MOST_NAMED]
    yield "genes in excess", OK, f"{', '.join(map(str, worst))} (in the spots explained worst)", ""
    scatter = left.genes["dispersion"]
    top = ", ".join(f"{name} {value:.0f}" for name, value in scatter.nlargest(3).items())
    yield "dispersion", OK, f"{scatter.median():.1f} in the median gene; most: {top}", ""


def _types(left: Left) -> Iterator[Finding]:
    shares = left.shares.to_numpy()
    known = np.isfinite(shares).all(axis=1)
    if known.any():
        means = pd.Series(shares[known].mean(axis=0), left.shares.columns)
        rare = means[means < RARE].index
        yield (
            "rare types", OK, f"{len(rare)} of {len(means)} below {RARE:.1%} on average" + _list(rare), ""
        )  # fmt: skip
    median = left.diagnostics.get("median_counts")
    if left.types is None or median is None:
        return
    hard = left.types[left.types["counts"] > median].sort_values("counts", ascending=False)
    pairs = dict.fromkeys(frozenset((str(name), str(row["like"]))) for name, row in hard.iterrows())
    said = [f"{' / '.join(sorted(pair))}" for pair in pairs]
    number = f"{len(said)} pair{'s' * (len(said) != 1)}"
    need = "" if hard.empty else f"; up to {hard['counts'].iloc[0]:,.0f} counts a spot needed, {median:,.0f} there"
    yield (
        "alike types", LOOK if said else OK, f"{number} hard to tell apart{_list(said)}{need}",
        "In a spot that holds both, their parts are known to no better than 0.1: add them up, or name them as one.",
    )  # fmt: skip


def _errors(left: Left) -> Iterator[Finding]:
    if left.errors is None:
        return
    there = left.shares.to_numpy() > SHARE
    errors = left.errors.to_numpy()[there]
    median = float(np.nanmedian(errors)) if np.isfinite(errors).any() else float("nan")
    yield (
        "standard errors", LOOK if median > BROAD else OK, f"{median:.3f} in the median of shares above {SHARE:.0%}",
        "Single spots are uncertain: compare regions, not spots.",
    )  # fmt: skip


def _list(names: Any) -> str:
    names = [str(name) for name in names]
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f": {', '.join(names[:MOST_NAMED])}{more}" if names else ""


CHECKS = (_spots, _depth, _platform, _smoothing, _misfit, _genes, _types, _errors)
