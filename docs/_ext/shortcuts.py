"""What puts the diagnostics together: the functions for it that this version has."""

from __future__ import annotations

import inspect
from pathlib import Path

import stdeconv_fast

TOLD = {
    "tl.diagnose": "puts all of this into one table, with a verdict and a remedy in each row",
    "report": "writes all of it, with the pictures, into one page",
}


def shortcuts() -> tuple[str, list[Path]]:
    """A sentence a function; nothing where there is none."""
    lines = []
    for name, words in TOLD.items():
        home, _, own = name.rpartition(".")
        value = getattr(getattr(stdeconv_fast, home) if home else stdeconv_fast, own, None)
        if inspect.isfunction(value):
            lines.append(f"- {{func}}`stdeconv_fast.{name}` {words}.")
    return "\n".join(lines), [Path(stdeconv_fast.__file__)]


MAKERS = {"shortcuts": shortcuts}
