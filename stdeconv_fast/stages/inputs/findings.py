"""Collects faults and notes while the input is read, and the words that its messages share."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DataError, DataTypeError, DataWarning

PACKAGE = str(Path(__file__).parents[2]) + os.sep


@dataclass
class Report:
    """What was found wrong (`faults`, raised together) and what the user should know (`notes`, warned once each)."""

    faults: list[DataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Add a value that cannot be used."""
        self.faults.append(DataError(text))

    def wrong_kind(self, text: str) -> None:
        """Add an object of a kind that cannot be used."""
        self.faults.append(DataTypeError(text))

    def note(self, text: str) -> None:
        """Add a warning."""
        self.notes.append(text)

    def warn(self) -> None:
        """Give each note as one DataWarning at the line that called the package."""
        level, frame = 2, sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
            level, frame = level + 1, frame.f_back
        for text in self.notes:
            warnings.warn(text, DataWarning, stacklevel=level)


def some(names: Iterable[object], n: int = 3) -> str:
    """The first few names in quotes and the number of the others."""
    names = list(names)
    text = ", ".join(repr(str(name)) for name in names[:n])
    return text if len(names) <= n else f"{text} and {len(names) - n:,} more"


def count(n: int, word: str) -> str:
    """``count(2, "spot")`` is '2 spots'."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def kind_of(value: object) -> str:
    """How a message names an object of a wrong kind."""
    return "None" if value is None else type(value).__name__


def fold(name: object) -> str:
    """A name without letter case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", str(name)).casefold()


def likeliest(wanted: str, there: Sequence[str], usual: Sequence[str]) -> str | None:
    """The name among `there` that was probably meant: close to `wanted`, else one of the `usual` ones."""
    folded: dict[str, str] = {}
    for name in there:
        folded.setdefault(fold(name), name)
    close = difflib.get_close_matches(fold(wanted), folded, n=1, cutoff=0.8)
    found = close or [fold(name) for name in usual if fold(name) in folded]
    return folded[found[0]] if found else None
