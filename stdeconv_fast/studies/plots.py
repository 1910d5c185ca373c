"""Curves of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito
MARKS = ("o", "s", "^", "D", "v", "P")
LEVELS = {
    "noise": "noise, standard deviations of a gene", "gene_drop": "genes left out", "depth": "molecules lost",
    "cell_drop": "reference cells left out", "label_noise": "labels wrong", "type_drop": "types left out",
}  # fmt: skip
METRICS = {"pearson": "Pearson", "rmse": "RMSE", "jsd": "Jensen-Shannon distance", "auprc": "AUPRC"}
AGAINST = {"truth": "against the truth", "undisturbed": "against the undisturbed answer"}


def robustness(
    frame: pd.DataFrame, *, metric: str = "pearson", ax: Axes | None = None, band: bool = True
) -> Axes:
    """Draw accuracy, or without a truth stability, against the level of a disturbance, a line a method.

    Parameters
    ----------
    frame : DataFrame
        As `stdeconv_fast.robustness` gives it: ``kind`` (one of them alone), ``level``, ``method`` and `metric`.
    metric : str
        The column to draw: the mean over the rows of a level; rows of NaN are left out.
    ax : Axes, optional
        Where to draw; by default a new figure.
    band : bool
        Whether to shade from the lowest to the highest row of a level.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        Columns that are missing, no rows, or rows of several kinds.
    DataTypeError
        `frame` is no DataFrame.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataTypeError(f"`frame` must be a DataFrame of stdeconv_fast.robustness; got {type(frame).__name__}.")
    missing = [name for name in ("kind", "level", "method", metric) if name not in frame.columns]
    if missing:
        there = ", ".join(map(repr, frame.columns)) or "no columns"
        raise DataError(f"`frame` must have the columns {', '.join(map(repr, missing))}; got {there}.")
    kinds = frame["kind"].unique()
    if len(kinds) != 1:
        got = ", ".join(map(repr, kinds)) or "no rows"
        raise DataError(f"`frame` must hold the rows of one kind; got {got}. Pass frame[frame['kind'] == 'noise'].")
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
    for number, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        told = rows.groupby("level")[metric].agg(["mean", "min", "max"])
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(told.index, told["mean"], color=colour, marker=MARKS[number % len(MARKS)], markersize=5, label=method)
        if band and not np.allclose(told["min"], told["max"], equal_nan=True):
            ax.fill_between(told.index, told["min"], told["max"], color=colour, alpha=0.15, linewidth=0)
    ax.set_xlabel(LEVELS.get(kinds[0], f"{kinds[0]} level"))
    compared = set(frame["against"]) if "against" in frame.columns else set()
    label = METRICS.get(metric, metric.replace("_", " "))
    if metric in METRICS and len(compared) == 1:  # else the caller knows what was compared
        label += f"\n{AGAINST.get(compared.pop(), '')}".rstrip()
    ax.set_ylabel(label)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return ax
