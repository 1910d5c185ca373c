"""What was tried and how well it fits: the tuning of a run, and its genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..tl.left import read_left
from .colours import OKABE_ITO, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = ("o", "s", "^", "D", "v", "P")
MOST_LINES = len(MARKS)
LABELLED, COLUMN = 8, 0.065  # genes named, and the height of a name
DIVERGING = "PuOr_r"
CLOSE = 0.05  # of the height: labels nearer than this are written as one


def tuning_curve(data: Any, *, x: str | None = None, key: str = "stdeconv", ax: Axes | None = None) -> Axes:
    """Draw the scores of what was tried: by a run that chose its smoothing, or by `stdeconv_fast.tune`.

    Parameters
    ----------
    data : AnnData, Result or Tuning
        After `tl.deconvolve`, or what `stdeconv_fast.deconvolve` or `stdeconv_fast.tune` gave.
    x : str, optional
        Of a Tuning: the setting along the axis; by default the first one with numbers. The others make the lines.
    key : str
        The `key_added` of the run.
    ax : Axes, optional
        By default that of a new figure.

    Returns
    -------
    Axes
        Of a run: held-out log-likelihood a count, below the best, against lambda_spatial; the line is by place alone
        with phi = 1, the marks beside it are with attention, by phi. The ring is what was chosen.

    Raises
    ------
    DataError
        The run chose nothing, or `x` is no setting of the search.
    DataTypeError
        `data` is of another kind.
    """
    if hasattr(data, "table") and hasattr(data, "best"):
        return _draw_search(data, x, _axes(ax))
    if x is not None:
        raise DataError(f"`x` must be None where `data` is a run; got {x!r}. Its axis is lambda_spatial.")
    left = read_left(data, key)
    if not len(left.path):
        raise DataError("`data` must be a run that chose its smoothing; got one without tuning. Run it with tune=True.")
    ax, path = _axes(ax), left.path
    below = path["score"] - path["score"].max()
    place = path["graph"] == "place"
    line = pd.Series(below[place].to_numpy(), path.loc[place, "lambda_spatial"].to_numpy()).sort_index()
    ax.plot(line.index, line, color=OKABE_ITO[0], marker=MARKS[0], markersize=5, label="by place, phi 1")
    heard = path[~place]
    if len(heard):
        ax.plot(
            heard["lambda_spatial"], below[~place], linestyle="", color=OKABE_ITO[5], marker=MARKS[3], markersize=6,
            label="with attention",
        )  # fmt: skip
        _write_phis(ax, heard, below[~place], float(np.ptp(below)))
        chosen = heard.index[np.argmin(np.abs(heard["phi"] - left.phi))]
    else:
        chosen = path["score"].idxmax()
    ax.plot(
        path.loc[chosen, "lambda_spatial"], below[chosen], linestyle="", marker="o", markersize=13, fillstyle="none",
        color="black", label="chosen",
    )  # fmt: skip
    tried = sorted(set(path["lambda_spatial"]))
    least = min((value for value in tried if value > 0), default=1.0)
    ax.set_xscale("symlog", linthresh=least, linscale=0.5)
    ax.set_xticks(tried, [f"{value:g}" for value in tried])
    ax.xaxis.set_minor_locator(_no_ticks())
    ax.set_xlim(-0.2 * least if tried[0] == 0 else tried[0] / 1.5, max(tried[-1], least) * 2.2)
    ax.margins(y=0.12)
    ax.set_xlabel("lambda_spatial, counts")
    ax.set_ylabel("log-likelihood of a held-out count,\nbelow the best")
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _write_phis(ax: Axes, heard: pd.DataFrame, below: pd.Series, height: float) -> None:
    """The phi of each mark beside it; those of marks on one another in one line."""
    groups: list[tuple[float, float, list[str]]] = []
    for row in below.sort_values(ascending=False).index:
        x, y, phi = heard.loc[row, "lambda_spatial"], below[row], f"{heard.loc[row, 'phi']:g}"
        if groups and groups[-1][0] == x and groups[-1][1] - y < CLOSE * height:
            groups[-1][2].append(phi)
        else:
            groups.append((x, y, [phi]))
    for x, y, phis in groups:
        ax.annotate(
            f"phi {', '.join(phis)}", (x, y), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8,
            color="#333333",
        )  # fmt: skip


def _draw_search(tuning: Any, x: str | None, ax: Axes) -> Axes:
    table, searched = tuning.table, list(tuning.best)
    numeric = [name for name in searched if pd.api.types.is_numeric_dtype(table[name]) and table[name].nunique() > 1]
    numeric = [name for name in numeric if table[name].dtype != bool]
    if x is None and not numeric:
        raise DataError("`data` must have searched a setting with numbers; got none with two values.")
    x = numeric[0] if x is None else x
    if x not in searched:
        raise DataError(f"`x` must be a setting that was searched: {', '.join(searched)}; got {x!r}.")
    others = [name for name in searched if name != x and table[name].astype(str).nunique() > 1]
    shown = table[table["score"].notna()]
    names = shown[others].astype(str).agg(", ".join, axis=1) if others else pd.Series("", shown.index)
    if names.nunique() <= MOST_LINES:
        for number, (name, rows) in enumerate(shown.groupby(names, sort=False)):
            rows = rows.sort_values(x)
            ax.plot(
                rows[x], rows["score"], color=OKABE_ITO[number], marker=MARKS[number], markersize=5, label=name or None
            )
    else:
        ax.plot(shown[x], shown["score"], linestyle="", color=OKABE_ITO[0], marker="o", markersize=4)
    best = shown["score"].idxmax()
    ax.plot(
        shown.loc[best, x], shown.loc[best, "score"], linestyle="", marker="o", markersize=13, fillstyle="none",
        color="black", label="best",
    )  # fmt: skip
    ax.set_xlabel(x)
    ax.set_ylabel(f"score ({tuning.score.replace('_', ' ')})")
    ax.legend(frameon=False, fontsize="small", title=", ".join(others) or None)
    return ax


def fit(
    data: Any,
    *,
    key: str = "stdeconv",
    ax: Axes | None = None,
    cmap: Any = DIVERGING,
    n_labels: int = LABELLED,
    colorbar: bool = True,
) -> Axes:
    """Draw the counts of each gene over all spots against what the fit expects of it.

    Parameters
    ----------
    data : AnnData or Result
        After `tl.deconvolve`, or what `stdeconv_fast.deconvolve` gave.
    key : str
        The `key_added` of the run.
    ax : Axes, optional
        By default that of a new figure.
    cmap : str or Colormap
        Of the excess (log2 of observed over expected) in the tenth of the spots that the reference explains worst: on
        the line, yet in excess there, is a gene of a type that the reference lacks.
    n_labels : int >= 0
        How many of the genes most in excess there are named.
    colorbar : bool
        Whether to add a colour bar.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        The run measured no fit (least squares, ``objective="original"``).
    DataTypeError
        `data` is of another kind.
    """
    if isinstance(n_labels, bool) or not isinstance(n_labels, int | np.integer) or n_labels < 0:
        raise DataError(f"`n_labels` must be a whole number >= 0; got {n_labels!r}.")
    genes = read_left(data, key).genes
    if genes is None:
        raise DataError("`data` must be a run with the Poisson loss, which measures its genes; got one that did not.")
    ax = _axes(ax, 4.8, 4.0)
    shown = genes[(genes["observed"] > 0) & (genes["expected"] > 0)].sort_values("rank", ascending=False)
    top = max(float(np.nanquantile(np.abs(shown["unexplained"]), 0.99)), 0.5) if len(shown) else 1.0
    drawn = ax.scatter(
        shown["expected"], shown["observed"], c=shown["unexplained"], cmap=cmap, vmin=-top, vmax=top, s=16,
        edgecolors="#00000060", linewidths=0.3, rasterized=len(shown) > 5_000,
    )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    if len(shown):
        both = shown[["observed", "expected"]]
        ends = [float(both.min(axis=None)) / 1.5, float(both.max(axis=None)) * 1.5]
        ax.plot(ends, ends, color="#555555", linewidth=0.8, zorder=0)
        ax.set(xlim=ends, ylim=ends, aspect="equal")
    first = shown.iloc[::-1][: int(n_labels)].sort_values("observed", ascending=False)
    labels = shorten(map(str, first.index))
    for number, (name, row) in enumerate(first.iterrows()):  # in a column, so that no line crosses another
        ax.annotate(
            labels[str(name)], (row["expected"], row["observed"]), xytext=(0.03, 0.96 - COLUMN * number),
            textcoords="axes fraction", fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#777777", "shrinkB": 2, "relpos": (1, 0.5)},
        )  # fmt: skip
    ax.set_xlabel("expected counts")
    ax.set_ylabel("observed counts")
    if colorbar:
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.75, aspect=20, pad=0.02, extend="both")
        bar.set_label("log2 excess in the spots explained worst")
        bar.outline.set_visible(False)
    return ax


def _axes(ax: Axes | None, width: float = 4.6, height: float = 3.4) -> Axes:
    """The caller's axes, or those of a new figure of pyplot; without the frame above and at the right."""
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
