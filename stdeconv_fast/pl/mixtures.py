"""Which types go together, and what regions are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .blocks import pool
from .colours import REST, entries_of, legend_width, pick, shorten, wrap
from .colours import legend as add_legend
from .places import coded, labels_of, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40  # types of a matrix that can be read
STEP = 0.26  # inches of a row
DIVERGING = "PuOr_r"
NEVER = "#d9d9d9"  # types that are never together, and the diagonal
LETTER = 0.068  # inches of a letter at an axis
ENTRY = 0.215  # inches of an entry of a legend


def cooccurrence(
    data: Any,
    *,
    types: Sequence[str] | str | None = None,
    block: float | None = None,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    ax: Axes | None = None,
    cmap: Any = DIVERGING,
    vmax: float = 3.0,
    colorbar: bool = True,
) -> Axes:
    """Draw how much more often than by chance two types share a spot.

    Parameters
    ----------
    data, sections, key, spatial_key
        As in `proportions`.
    types : list of str or str, optional
        In this order; by default all, or the 40 with the highest mean where there are more, alike ones side by side.
    block : float, optional
        Side of the squares that spots are pooled to first, in the unit of the coordinates: for bins that hold one cell
        each. By default types have to share a spot.
    coordinates : DataFrame or array, optional
        Needed with `block` alone.
    ax : Axes, optional
        By default that of a new figure.
    cmap : str or Colormap
        Its middle is chance.
    vmax : float > 0
        The colours end at ratios of 2^-vmax and 2^vmax.
    colorbar : bool
        Whether to add a colour bar.

    Returns
    -------
    Axes

    Raises
    ------
    DataError, DataTypeError
        As in `proportions`; or fewer than two types.

    Notes
    -----
    log2 of mean(p_a p_b) / (mean(p_a) mean(p_b)), means over the spots about which something is said: 0 where the types
    are strewn independently of each other. Shares of a spot sum to 1, so that two abundant types that are strewn at
    random lie a little below 0. A pair that shares no spot is light grey and marked with a cross.
    """
    if block is not None and not block > 0:
        raise DataError(f"`block` must be > 0; got {block!r}.")
    if not vmax > 0:
        raise DataError(f"`vmax` must be > 0; got {vmax!r}.")
    table = read(data, key, spatial_key, coordinates, sections, placed=block is not None)
    values, known = table.values, table.known
    if block is not None:
        values = pool(values, known, table.places, table.codes, block, table.places.min(axis=0)).means
        known = np.isfinite(values).all(axis=1)
    if not known.any():
        raise DataError("`data` must say something about one spot at least; got NaN in all rows.")
    some = values if known.all() else values[known]
    means = some.mean(axis=0, dtype=np.float64)
    together = (some.T @ some).astype(np.float64) / len(some)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(together / np.outer(means, means))
    if types is None:
        present = np.flatnonzero(means > 0)
        columns = _side_by_side(ratio, np.sort(present[np.argsort(-means[present], kind="stable")[:MOST_ROWS]]))
    else:
        columns = np.array(table.columns(table.chosen(types)))
    if len(columns) < 2:
        raise DataError(f"`types` must be two types at least that are present in a spot; got {len(columns)}.")
    shown = ratio[np.ix_(columns, columns)]
    np.fill_diagonal(shown, np.nan)
    return _draw_matrix(ax, shown, [table.names[k] for k in columns], cmap, vmax, colorbar)


def _side_by_side(ratio: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Types in an order that puts those which keep the same company beside one another."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import pdist

    if len(columns) < 3:
        return columns
    part = np.clip(ratio[np.ix_(columns, columns)], -4, 4)
    apart = pdist(part)
    return columns[leaves_list(optimal_leaf_ordering(linkage(apart, "average"), apart))]


def _draw_matrix(ax: Any, shown: np.ndarray, names: list[str], cmap: Any, vmax: float, colorbar: bool) -> Axes:
    from matplotlib import colormaps, pyplot

    n, short = len(names), shorten(names)
    labels = [short[name] for name in names]
    if ax is None:
        side, longest = STEP * n, LETTER * max(map(len, labels))
        figure = pyplot.figure(figsize=(side + longest + 1.5, side + 0.75 * longest + 0.4), layout="constrained")
        ax = figure.subplots()
    colours = (colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad=NEVER)
    drawn = ax.imshow(
        np.ma.masked_invalid(shown), cmap=colours, vmin=-vmax, vmax=vmax, aspect="equal", interpolation="nearest"
    )
    row, column = np.nonzero(np.isneginf(shown))
    ax.plot(column, row, linestyle="", marker="x", markersize=4, color=REST)
    ax.set_xticks(range(n), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(n), labels, fontsize=8)
    ax.tick_params(length=0)
    ax.set_xticks(np.arange(n - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    if colorbar:
        extend = "both" if (np.abs(shown[np.isfinite(shown)]) > vmax).any() else "neither"
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.7, aspect=18, pad=0.02, extend=extend)
        ticks = np.arange(-int(vmax), int(vmax) + 1)
        bar.set_ticks(ticks, labels=[f"{2.0**tick:g} x" if tick >= 0 else f"1/{2**-tick} x" for tick in ticks])
        bar.set_label("together, against chance")
        bar.outline.set_visible(False)
    return ax


def composition(
    data: Any,
    regions: Any = None,
    *,
    types: Sequence[str] | str | None = None,
    sections: Any = None,
    key: str = "stdeconv",
    ax: Axes | None = None,
    palette: Sequence[str] | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the mean composition of each region as a bar.

    Parameters
    ----------
    data, sections, key
        As in `proportions`; places are not needed.
    regions : str, Series, list or array, optional
        Region of each spot, or the column of ``data.obs`` with it (clusters, say); by default the sections.
    types : list of str or str, optional
        The types that have a colour; by default all, or the 12 with the highest mean proportion where there are more.
    ax : Axes, optional
        By default that of a new figure.
    palette : list of colours, optional
        One a type; by default as in `dominant`.
    legend : bool
        Whether to add a legend.

    Returns
    -------
    Axes
        A bar a region, the first on top; spots about which nothing is said are left out of its number.

    Raises
    ------
    DataError, DataTypeError
        As in `proportions`; or more types than colours.
    """
    from matplotlib import pyplot

    table = read(data, key, None, None, sections, placed=False)
    codes, names = table.codes, table.sections
    if regions is not None:
        codes, names = coded(labels_of(data, regions, table.spots, "regions"))
    known = table.known
    sizes = np.bincount(codes[known], minlength=len(names))
    sums = np.stack([
        np.bincount(codes[known], table.values[known, k], minlength=len(names)) for k in range(len(table.names))
    ], axis=1)  # fmt: skip
    means = sums / np.maximum(sizes, 1)[:, None]
    shown, colours = pick(table.names, sums.sum(axis=0), None if types is None else table.chosen(types), palette)
    columns = table.columns(shown)
    parts = np.column_stack([means[:, columns], means.sum(axis=1) - means[:, columns].sum(axis=1)])
    entries = entries_of(table.names, shown, colours, parts[:, -1] > 1e-6, False) if legend else []
    if ax is None:
        width = 4.6 + (legend_width(label for label, _ in entries) if legend else 0.0)
        height = max(0.34 * len(names) + 0.6, ENTRY * (len(entries) + 1)) + 0.3
        figure = pyplot.figure(figsize=(width, height), layout="constrained")
        ax = figure.subplots()
    left, at = np.zeros(len(names)), np.arange(len(names))
    for part, colour in zip(parts.T, (*colours, REST), strict=True):
        ax.barh(at, part, left=left, color=colour, height=0.82, linewidth=0)
        left = left + part
    labels = shorten(names)
    told = [wrap(labels[name] or "all spots") for name in names]
    ax.set_yticks(at, [f"{name}  ({size:,})" for name, size in zip(told, sizes, strict=True)])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("mean proportion")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if legend:
        add_legend(ax, entries)
    return ax
