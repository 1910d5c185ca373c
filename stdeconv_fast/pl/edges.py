"""The attention of a run: who listens to whom, and where the borders are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..tl.left import read_left
from .canvas import BAR, SINGLE, set_scene
from .colours import legend_width
from .places import Layout, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from scipy.sparse import csr_matrix

MOST_EDGES = 60_000  # more are not drawn one by one
VECTORS = 15_000  # more edges than this are pixels in vector files
STRONG = 0.9  # quantile of the weights that counts as undivided attention
WEAK = 0.5  # of that: pairs below are drawn as a border
LENGTHS = 10  # groups of pairs that are about as far apart
REACH = 1.25  # sides of the room of a spot: no border is drawn between spots that are farther apart
ACROSS = 0.62  # length of a piece of border, in distances of the pair: the side of a hexagon, and a little more
EDGE, BORDER = "#8CC5EA", "#B33B00"
WIDEST = 1.6  # points
EXPLAINED = ("much attention", "little attention", "border")
KINDS = ("edges", "spots")


def attention(
    data: Any,
    *,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    kind: str | None = None,
    ax: Axes | None = None,
    cmap: Any = "cividis",
    legend: bool = True,
    **looks: Any,
) -> Axes:
    """Draw the attention between neighbouring spots, and the borders where they stop listening to each other.

    Parameters
    ----------
    data : AnnData or Result
        After ``tl.deconvolve(..., store_attention=True)``, or a Result.
    coordinates, sections, key, spatial_key, **looks
        As in `proportions`.
    kind : {"edges", "spots"}, optional
        "edges": a line for each pair of neighbours, the wider the more they listen to each other, and across the pairs
        with little attention, for their distance, a piece of border, the darker the less. "spots": a map of the sum of
        each spot's weights; it is low at borders. By default edges, and spots where there are more than 60,000 pairs.
    ax : Axes, optional
        By default that of a new figure.
    cmap : str or Colormap
        Of the map of spots.
    legend : bool
        Whether to add a legend, or of a map of spots a colour bar.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        As in `proportions`; or no attention was kept, or there was none, as nothing was smoothed.
    DataTypeError
        `data` is of another kind.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r}.")
    left = read_left(data, key)
    if left.attention is None:
        remedy = "nothing was smoothed" if left.lambda_spatial == 0 else "none was kept. Pass store_attention=True"
        raise DataError(f"`data` must hold the attention of a run that smoothed; got {remedy}.")
    table = read(data, key, spatial_key, coordinates, sections)
    scene = set_scene(table, **looks)
    weights = left.attention
    by_spot = kind == "spots" or (kind is None and weights.nnz > 2 * MOST_EDGES)
    if ax is None:
        ax = scene.axes(1, 1, SINGLE, BAR if by_spot else legend_width(EXPLAINED))[0]
    if by_spot:
        sums = np.asarray(weights.sum(axis=1)).ravel().astype(np.float64)
        sums[(np.diff(weights.indptr) == 0) | ~table.known] = np.nan
        top = float(np.nanquantile(sums, 0.99)) if np.isfinite(sums).any() else 1.0
        drawn = scene.paint(ax, sums, cmap, 0.0, top)
        if legend:
            bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.7, aspect=20, pad=0.02)
            bar.set_label("attention to neighbours, in all")
            bar.outline.set_visible(False)
    else:
        scene.lay_ground(ax)
        _draw_edges(ax, scene.layout, weights)
        scene.frame(ax)
        if legend:
            _explain(ax)
    ax.set_title("attention", fontsize=10)
    return ax


def _draw_edges(ax: Axes, layout: Layout, weights: csr_matrix) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    once = row < weights.indices
    ends = np.stack([layout.xy[row[once]], layout.xy[weights.indices[once]]], axis=1)
    weight, step = weights.data[once].astype(np.float64), ends[:, 1] - ends[:, 0]
    if not len(weight):
        return
    length, raster = np.hypot(*step.T), len(weight) > VECTORS
    widths = WIDEST * np.clip(weight / max(float(np.quantile(weight, STRONG)), 1e-300), 0, 1)
    ax.add_collection(
        LineCollection(ends, linewidths=widths, colors=EDGE, capstyle="round", rasterized=raster), autolim=False
    )
    heard = _compare_like(weight, length)
    weak = np.flatnonzero((heard < WEAK) & (length <= REACH * layout.room))
    middle, step = ends[weak].mean(axis=1), step[weak] * ACROSS / 2
    across = np.stack([-step[:, 1], step[:, 0]], axis=1)
    colours = np.column_stack([np.tile(to_rgb(BORDER), (len(weak), 1)), 1 - heard[weak] / WEAK])
    ax.add_collection(LineCollection(
        np.stack([middle - across, middle + across], axis=1), linewidths=WIDEST, colors=colours, capstyle="round",
        rasterized=raster,
    ), autolim=False)  # fmt: skip


def _compare_like(weight: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Weights against the strong ones among pairs that are as far apart: distance alone makes no border."""
    bins = np.searchsorted(np.unique(np.quantile(length, np.linspace(0, 1, LENGTHS + 1))[1:-1] * (1 + 1e-6)), length)
    strong = pd.Series(weight).groupby(bins).transform(lambda own: own.quantile(STRONG)).to_numpy()
    return np.clip(weight / np.maximum(strong, 1e-300), 0, 1)


def _explain(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    looks = ((EDGE, WIDEST), (EDGE, WIDEST / 4), (BORDER, WIDEST))
    handles = [
        Line2D([], [], color=colour, linewidth=width, label=label)
        for label, (colour, width) in zip(EXPLAINED, looks, strict=True)
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
