"""Names of spots, cells and genes, and which row of one object belongs to which row of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .findings import Report, some

MISSING_TEXTS = frozenset({"", "nan", "NaN", "None", "<NA>"})


@dataclass(frozen=True)
class Names:
    """Labels of rows or columns.

    Attributes
    ----------
    values : ndarray of str objects, (n,)
    default : bool
        Whether they are just 0, 1, 2, ...: the numbering of pandas or AnnData, no names that the caller gave.
    unique : bool
        Whether they are known to differ.
    """

    values: np.ndarray
    default: bool
    unique: bool = False

    @property
    def own(self) -> bool:
        """Whether the caller gave them."""
        return not self.default


def text_of(value: object) -> str:
    """A name as text; whole floats lose their point (3.0 is '3')."""
    if isinstance(value, (float, np.floating)) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def texts_of(values: object) -> np.ndarray:
    """Labels as text, None where there is none (None, NaN, NA, blank, 'nan', 'None').

    Parameters
    ----------
    values : one-dimensional array-like, (n,)

    Returns
    -------
    ndarray of str objects and None, (n,)
    """
    codes, uniques = pd.factorize(values)
    texts = np.empty(len(uniques) + 1, dtype=object)  # the last one, None, belongs to code -1
    for i, value in enumerate(uniques):
        text = text_of(value)
        texts[i] = None if text.strip() in MISSING_TEXTS else text
    return texts[codes]


def read_names(index: pd.Index) -> Names:
    """The names in an index of a frame, a Series or an AnnData."""
    n = len(index)
    values = np.empty(n, dtype=object)
    plain = index.inferred_type == "string"
    values[:] = index.to_numpy(dtype=object) if plain else [text_of(value) for value in index]
    numbered = n == 0 or (values[0] == "0" and values[-1] == str(n - 1))
    default = numbered and all(value == str(i) for i, value in enumerate(values))
    return Names(values, default, plain and index.is_unique)  # an AnnData has looked at that, and pandas kept it


def duplicates(names: Names | None) -> list[str]:
    """Names that occur more than once, each one time."""
    if names is None or names.default or names.unique:
        return []
    index = pd.Index(names.values)
    return [] if index.is_unique else index[index.duplicated()].unique().tolist()


def by_label(one: Names | None, other: Names | None) -> bool:
    """Whether two objects are matched by label (else by position).

    Notes
    -----
    Both need names of their own. One exception: where pandas or AnnData numbered the rows of one object, and all names
    of the other are such numbers (its rows were shuffled or cut), the numbers say which rows belong together.
    """
    if one is None or other is None or (one.default and other.default):
        return False
    if one.own and other.own:
        return True
    named, numbered = (other, one) if one.default else (one, other)
    if not str(named.values[0]).isdigit():
        return False
    return bool((pd.Index(numbered.values).get_indexer(named.values) >= 0).all())


def find(wanted: Names, given: Names) -> tuple[np.ndarray, list[str]]:
    """Where each wanted name is among the given ones (-1: nowhere), and the wanted names that are there twice."""
    index = pd.Index(given.values)
    if index.is_unique:
        return index.get_indexer(wanted.values), []
    first = np.flatnonzero(~index.duplicated())
    at = index[first].get_indexer(wanted.values)
    twice = index[index.duplicated()].unique()
    return np.where(at >= 0, first[at], -1), twice[twice.isin(wanted.values)].tolist()


@dataclass(frozen=True)
class Rows:
    """The rows of a table, as others see them: `unit` is "spot" or "cell", `table` "spatial" or "reference"."""

    table: str
    unit: str
    n: int
    names: Names | None

    def name(self, i: int) -> str:
        """Name of a row, made up where the caller gave none."""
        return self.names.values[i] if self.names is not None and self.names.own else f"{self.unit}_{i}"

    def all_names(self) -> np.ndarray:
        """Names of all rows, ndarray of str objects."""
        return named(self.names, self.n, self.unit)

    def some(self, which: Sequence[int] | np.ndarray) -> str:
        """The first few of some rows by name."""
        return some([self.name(i) for i in which[:3]] + [""] * (len(which) - 3))


def named(names: Names | None, n: int, unit: str) -> np.ndarray:
    """The caller's names, or unit_0, unit_1, ..."""
    values = np.empty(n, dtype=object)
    values[:] = names.values if names is not None and names.own else [f"{unit}_{i}" for i in range(n)]
    return values


def align(rows: Rows, given: Names | None, n_given: int, what: str, report: Report) -> np.ndarray | None:
    """Row of `what` (coordinates, cell_types, sections) for each spot or cell.

    Parameters
    ----------
    rows : Rows
        The spots or cells.
    given : Names or None
        Names of the rows of `what`.
    n_given : int
        Number of the rows of `what`.
    what : str
        Its name in messages.
    report : Report
        Takes the faults.

    Returns
    -------
    ndarray of int, (rows.n,), or None
        -1 where `what` has no such row; None where a fault was reported.
    """
    if not by_label(rows.names, given):
        if n_given == rows.n:
            return np.arange(rows.n)
        report.fault(
            f"`{what}` must have one row per {rows.unit} where it or `{rows.table}` has no names; got {n_given:,} for "
            f"{rows.n:,} {rows.unit}s. Pass both with {rows.unit} names, or one row per {rows.unit} in the same order."
        )
        return None
    at, twice = find(rows.names, given)
    if twice:
        report.fault(
            f"`{what}` must have one row per {rows.unit}; got duplicate names {some(twice)}. "
            f"Keep one of each: {what}[~{what}.index.duplicated()]."
        )
        return None
    if (at < 0).all():
        report.fault(
            f"`{what}` must name the {rows.unit}s of `{rows.table}`; got none of them. First names: "
            f"{given.values[0]!r} in {what}, {rows.names.values[0]!r} in {rows.table}: use one naming."
        )
        return None
    return at
