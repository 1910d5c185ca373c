"""The composition of each spot as a pie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .blocks import pool
from .canvas import Scene, set_scene
from .colours import REST, UNKNOWN, entries_of, legend_width, pick
from .colours import legend as add_legend
from .places import read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PIES = 3_000  # beyond, a pie is too small to be read
VECTORS = 1_000  # more pies than this are pixels in vector files
LEAST_WEDGE = 2e-3  # of a pie: nobody sees less
LEAST_PIE = 0.3  # diameter of the pie of a lone spot, in whole ones
CORNERS = 40  # of a whole pie
FILL_BLOCK = 0.94  # diameter of the pie of a block, in sides
FULL = 0.6  # of the median number of spots: blocks with fewer are at the rim, and their pies smaller
WIDTH = 6.5  # inches


def pies(
    data: Any,
    *,
    types: Sequence[str] | str | None = None,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    ax: Axes | None = None,
    palette: Sequence[str] | None = None,
    most: int = MOST_PIES,
    legend: bool = True,
    **looks: Any,
) -> Axes:
    """Draw the composition of each spot as a pie; of many spots, that of square blocks of them.

    Parameters
    ----------
    data, coordinates, sections, key, spatial_key, **looks
        As in `proportions`.
    types : list of str or str, optional
        The types that have a colour; by default all, or the 12 with the highest mean proportion where there are more.
        The others share one grey wedge.
    ax : Axes, optional
        By default that of a new figure.
    palette : list of colours, optional
        One a type; by default as in `dominant`.
    most : int >= 1
        More spots than this are pooled: a pie is the mean of a square block of spots then; at the rim of the tissue,
        where a block has few, its area is smaller (down to a tenth).
    legend : bool
        Whether to add a legend.

    Returns
    -------
    Axes

    Raises
    ------
    DataError, DataTypeError
        As in `proportions`; or more types than colours.
    """
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
        raise DataError(f"`most` must be a whole number >= 1; got {most!r}.")
    table = read(data, key, spatial_key, coordinates, sections)
    scene = set_scene(table, **looks)
    known, xy, title = table.known, scene.layout.xy, "composition"
    if len(xy) > most:
        spacing = scene.layout.spacing
        side = spacing * max(round(scene.layout.room * math.sqrt(len(xy) / most) / spacing), 2)
        blocks = pool(table.values, known, xy, table.codes, side, xy.min(axis=0) - spacing / 2)
        values, xy, sizes = blocks.means, blocks.centres, blocks.sizes
        part = np.minimum(sizes / (FULL * np.median(sizes[sizes > 0])), 1.0) if sizes.any() else np.ones(len(xy))
        widths = FILL_BLOCK * side * np.maximum(np.sqrt(np.where(sizes > 0, part, 1.0)), LEAST_PIE)
        title = f"composition; a pie is a block of up to {sizes.max():,} spots"
    else:
        values, widths = table.values, np.full(len(xy), scene.diameter)
    said = np.isfinite(values).all(axis=1)
    means = values[said].mean(axis=0) if said.any() else np.zeros(len(table.names))
    names, colours = pick(table.names, means, None if types is None else table.chosen(types), palette)
    columns = table.columns(names)
    rest = np.setdiff1d(np.arange(len(table.names)), columns)
    shares = np.column_stack([values[:, columns], values[:, rest].sum(axis=1)])[said]
    entries = entries_of(table.names, names, colours, shares[:, -1] > LEAST_WEDGE, ~said) if legend else []
    if ax is None:
        ax = scene.axes(1, 1, WIDTH, legend_width(label for label, _ in entries))[0]
    scene.lay_ground(ax)
    _draw_pies(ax, scene, shares, xy[said], widths[said], [*colours, REST])
    if not said.all():
        _draw_pies(ax, scene, np.ones(((~said).sum(), 1)), xy[~said], widths[~said], [UNKNOWN])
    scene.frame(ax)
    if legend:
        add_legend(ax, entries, scene.alpha)
    ax.set_title(title, fontsize=10)
    return ax


def _draw_pies(
    ax: Axes, scene: Scene, shares: np.ndarray, xy: np.ndarray, widths: np.ndarray, colours: Sequence[str]
) -> None:
    """Wedges of (n_pies, n_wedges) shares, one colour a column."""
    from matplotlib.collections import EllipseCollection, PolyCollection
    from matplotlib.colors import to_rgba_array

    ends = np.cumsum(shares, axis=1)
    ends /= np.maximum(ends[:, -1:], 1e-300)
    starts = np.column_stack([np.zeros(len(ends)), ends[:, :-1]])
    pie, part = np.nonzero(ends - starts > LEAST_WEDGE)
    corners = np.ceil((ends - starts)[pie, part] * CORNERS).astype(np.int64) + 1
    polygons, shown = [], []
    for number in np.unique(corners):  # wedges with as many corners at once
        some = np.flatnonzero(corners == number)
        rows, columns = pie[some], part[some]
        first, last = starts[rows, columns], ends[rows, columns]
        angles = 2 * np.pi * (first[:, None] + (last - first)[:, None] * np.linspace(0, 1, number))
        arc = np.stack([np.sin(angles), np.cos(angles)], axis=-1) * widths[rows, None, None] / 2
        whole = len(shares[0]) == 1
        rim = np.concatenate([np.zeros((len(rows), 0 if whole else 1, 2)), arc], axis=1) + xy[rows, None]
        polygons.extend(rim)
        shown.append(columns)
    if not polygons:
        return
    drawn = PolyCollection(
        polygons, facecolors=to_rgba_array(colours)[np.concatenate(shown)], linewidths=0, alpha=scene.alpha,
        rasterized=len(shares) > VECTORS,
    )  # fmt: skip
    drawn.set_clip_on(False)  # a block at the rim may reach beyond the spots
    ax.add_collection(drawn, autolim=False)
    if scene.pictures:
        ax.add_collection(EllipseCollection(
            widths, widths, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData,
            facecolors="none", rasterized=len(shares) > VECTORS, **scene.rim,
        ), autolim=False)  # fmt: skip
