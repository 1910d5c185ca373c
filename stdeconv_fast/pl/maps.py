"""Maps of the proportions: one a type, or the dominant type of each spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .canvas import SINGLE, given_axes, set_scene
from .colours import REST, UNKNOWN, entries_of, legend_width, pick, shorten, wrap
from .colours import legend as add_legend
from .places import read

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def proportions(
    data: Any,
    *,
    types: Sequence[str] | str | None = None,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    ncols: int = 4,
    ax: Axes | Sequence[Axes] | None = None,
    cmap: Any = "viridis",
    vmax: float | None = None,
    colorbar: bool = True,
    **looks: Any,
) -> np.ndarray:
    """Draw one map a type, all on one colour scale, upon the picture of the tissue where there is one.

    Parameters
    ----------
    data : AnnData, Result or DataFrame, (n_spots, n_types)
        An AnnData after `tl.deconvolve`, a result, or the proportions themselves. NaN rows are light grey.
    types : list of str or str, optional
        The types to draw, in this order; by default all.
    coordinates : DataFrame or array, (n_spots, 2 or more), optional
        Place of each spot; needed unless `data` is an AnnData, where it is ``obsm[spatial_key]``. The first two
        columns (or x, y) are drawn.
    sections : Series, list, array or str, optional
        Section of each spot, or a column of ``data.obs``; sections are drawn side by side. By default the column
        that the run was given as `sample_key`. False: all spots as one section.
    key, spatial_key : str, optional
        Keys of ``data.obsm``; by default the `spatial_key` that the run was given.
    ncols : int
        Maps in a row.
    ax : Axes or list of Axes, optional
        Where to draw, one for each type; by default a new figure.
    cmap : str or Colormap
        Colours of the proportions.
    vmax : float, optional
        Upper end of the colours; by default the highest proportion drawn.
    colorbar : bool
        Whether to add the one colour bar.
    **looks
        size : float, optional
            Diameter of a spot in the unit of the coordinates; by default so that neighbours nearly touch, and a
            little less upon a picture.
        invert_y : bool, optional
            Whether y points downwards as in images; by default for an AnnData.
        image : bool or str, optional
            The picture of ``uns["spatial"]`` to draw beneath: "hires", "lowres"; False: none. By default the finest
            where there is one.
        library_id : str, optional
            Entry of ``uns["spatial"]``; by default the only one, or, of several sections, those named like them.
        alpha, image_alpha : float from 0 to 1, optional
            Opacity of the spots (by default 1; 0.6 where pixels cover a picture) and of the picture (0.6).
        crop : bool
            Whether the map ends where the spots end; False: it shows the whole picture.

    Returns
    -------
    ndarray of Axes, (n_types,)
        ``axes[0].figure.savefig("map.png")`` saves the figure; a notebook shows it, a script by ``plt.show()``.

    Raises
    ------
    DataError
        A key, a type, a picture or a coordinate is missing, or the number of axes is not that of types.
    DataTypeError
        `data` is of another kind.

    Notes
    -----
    More than 20,000 spots are drawn as pixels: one a spot where the places are the nodes of a square grid, else discs
    on a fine raster. A pixel that several spots share has their mean. Spots that stand alone are drawn once more,
    large enough to be seen.
    """
    table = read(data, key, spatial_key, coordinates, sections)
    names = table.chosen(types)
    if not isinstance(ncols, int | np.integer) or ncols < 1:
        raise DataError(f"`ncols` must be a whole number >= 1; got {ncols!r}.")
    columns = table.columns(names)
    if vmax is None:
        tops = [np.nanmax(table.values[:, k], initial=0.0) for k in columns if np.isfinite(table.values[:, k]).any()]
        vmax = float(max(tops, default=0.0)) or 1.0
    scene = set_scene(table, len(names), **looks)
    axes = scene.axes(len(names), int(ncols)) if ax is None else given_axes(ax, len(names))
    labels = shorten(table.names)
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        spots = scene.paint(axes[i], table.values[:, column], cmap, 0.0, vmax)
        axes[i].set_title(wrap(labels[name]), fontsize=10)
        if colorbar and i == len(names) - 1:
            bar = axes[i].figure.colorbar(spots, ax=list(axes), fraction=0.05, shrink=0.8, aspect=25, pad=0.02)
            bar.set_label("proportion")
            bar.outline.set_visible(False)
    return axes


def dominant(
    data: Any,
    *,
    types: Sequence[str] | str | None = None,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    ax: Axes | None = None,
    palette: Sequence[str] | None = None,
    legend: bool = True,
    **looks: Any,
) -> Axes:
    """Draw the type with the highest proportion of each spot.

    Parameters
    ----------
    data, coordinates, sections, key, spatial_key, **looks
        As in `proportions`.
    types : list of str or str, optional
        The types that have a colour, in this order; by default all in the order of the table, or the 12 that
        dominate most spots where there are more. The others share one grey.
    ax : Axes, optional
        By default that of a new figure.
    palette : list of colours, optional
        One a type; by default colours that colour-blind people can tell apart (at most 12).
    legend : bool
        Whether to add a legend.

    Returns
    -------
    Axes

    Raises
    ------
    DataError, DataTypeError
        As in `proportions`; or more types than colours.

    References
    ----------
    Okabe and Ito, "Color Universal Design", 2008 (up to 8 types); Krzywinski, "Designing for Color blindness",
    mk.bcgsc.ca/colorblind (up to 12).
    """
    from matplotlib.colors import to_rgba

    table = read(data, key, spatial_key, coordinates, sections)
    known = table.known
    best = np.full(len(table.values), -1)
    best[known] = table.values[known].argmax(axis=1)
    often = np.bincount(best[known], minlength=len(table.names))
    names, colours = pick(table.names, often, None if types is None else table.chosen(types), palette)
    rows = np.array([to_rgba(colour) for colour in (*colours, REST, UNKNOWN)], dtype=np.float32)
    place = {name: i for i, name in enumerate(names)}
    lookup = np.array([place.get(name, len(names)) for name in table.names] + [len(names) + 1])
    shown = lookup[best]
    entries = entries_of(table.names, names, colours, shown == len(names), shown == len(names) + 1) if legend else []
    scene = set_scene(table, **looks)
    if ax is None:
        ax = scene.axes(1, 1, SINGLE, legend_width(label for label, _ in entries))[0]
    scene.paint(ax, rows[shown])
    if legend:
        add_legend(ax, entries, scene.alpha)
    ax.set_title("dominant type", fontsize=10)
    return ax
