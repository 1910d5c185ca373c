"""Colours that colour-blind people can tell apart, and names that fit beside them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNKNOWN = "#d3d3d3"  # spots about which nothing is said
REST = "#7f7f7f"  # types beyond the colours that can be told apart
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
TWELVE = (
    "#9F0162", "#009F81", "#FF5AAF", "#00FCCF", "#8400CD", "#008DF9", "#00C2F9", "#FFB2FD", "#A40122", "#E20134",
    "#FF6E3A", "#FFC33B",
)  # fmt: skip
SHORT = 28  # letters of a name in a title or a legend
LETTER = 0.078  # inches of a letter of a legend
LONGER = (40, 60)  # where names would look the same otherwise


def shorten(names: Iterable[str], most: int = SHORT) -> dict[str, str]:
    """A label for each name: long ones lose their middle, no two names get the same label."""
    names = list(dict.fromkeys(names))
    labels = {name: _without_middle(name, most) for name in names}
    for longer in (*LONGER, None):
        seen = Counter(labels.values())
        for name in names:
            if seen[labels[name]] > 1:
                labels[name] = name if longer is None else _without_middle(name, longer)
    return labels


def _without_middle(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def wrap(label: str, most: int = SHORT) -> str:
    """A label on as many lines as it needs."""
    return "\n".join(textwrap.wrap(label, most)) if len(label) > most else label


def pick(
    names: list[str], weights: np.ndarray, types: Sequence[str] | None, palette: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """The types that have a colour, and their colours.

    Parameters
    ----------
    names : list of str, (n_types,)
    weights : (n_types,) float
        Where there are more types than colours, those with the highest have one.
    types : list of str, optional
        The caller's choice.
    palette : list of colours, optional
    """
    if types is None:
        most = len(palette) if palette is not None else len(TWELVE)
        types = [names[k] for k in sorted(np.argsort(-weights, kind="stable")[:most])]
    colours = list(palette if palette is not None else OKABE_ITO if len(types) <= len(OKABE_ITO) else TWELVE)
    if len(colours) < len(types):
        raise DataError(f"`palette` must have a colour for each of {len(types)} types; got {len(colours)}.")
    return list(types), colours[: len(types)]


def entries_of(
    names: list[str], chosen: list[str], colours: list[str], others: np.ndarray | bool, unknown: np.ndarray | bool
) -> list[tuple[str, str]]:
    """Labels and colours of a legend: the types chosen, and where there are any, other types and what is not known."""
    labels = shorten(names)
    entries = [(labels[name], colour) for name, colour in zip(chosen, colours, strict=True)]
    entries += [("other types", REST)] if np.any(others) else []
    return entries + ([("no estimate", UNKNOWN)] if np.any(unknown) else [])


def legend_width(labels: Iterable[str]) -> float:
    """Inches that a legend of these labels takes, on the safe side: the layout of a figure makes too little room."""
    lines = [line for label in labels for line in wrap(label).splitlines()]
    return 0.7 + LETTER * max(map(len, lines), default=0)


def legend(ax: Axes, entries: Sequence[tuple[str, str]], alpha: float = 1.0) -> None:
    """A legend of labels and colours, as opaque as in the figure, at the right of the axes."""
    from matplotlib.lines import Line2D

    dot = {"linestyle": "", "marker": "o", "markersize": 7, "markeredgewidth": 0, "alpha": alpha}
    handles = [Line2D([], [], color=colour, label=wrap(label), **dot) for label, colour in entries]
    ax.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, handletextpad=0.2,
        labelspacing=0.4,
    )  # fmt: skip
