"""Maps of the proportions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .errors import DataError, DataTypeError
from .studies.plots import robustness as robustness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection

UNKNOWN = "#d3d3d3"  # spots about which nothing is said
REST = "#7f7f7f"  # types beyond the colours that can be told apart
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
TWELVE = (
    "#9F0162", "#009F81", "#FF5AAF", "#00FCCF", "#8400CD", "#008DF9", "#00C2F9", "#FFB2FD", "#A40122", "#E20134",
    "#FF6E3A", "#FFC33B",
)  # fmt: skip
RASTER = 20_000  # more spots than this are drawn as pixels in vector files
SAMPLE = 2_000  # spots whose nearest neighbour is looked up
WIDTH = 2.6  # inches of a map
FILL = 0.98  # diameter of a spot, in distances to the nearest one


def proportions(
    data: Any,
    *,
    types: Sequence[str] | str | None = None,
    coordinates: Any = None,
    sections: Any = None,
    key: str = "stdeconv",
    spatial_key: str = "spatial",
    ncols: int = 4,
    ax: Axes | Sequence[Axes] | None = None,
    cmap: Any = "viridis",
    vmax: float | None = None,
    size: float | None = None,
    invert_y: bool | None = None,
    colorbar: bool = True,
) -> np.ndarray:
    """Draw one map a type, all on one colour scale.

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
        Section of each spot, or a column of ``data.obs``; sections are drawn side by side.
    key, spatial_key : str
        Keys of ``data.obsm``.
    ncols : int
        Maps in a row.
    ax : Axes or list of Axes, optional
        Where to draw, one for each type; by default a new figure.
    cmap : str or Colormap
    vmax : float, optional
        Upper end of the colours; by default the highest proportion drawn.
    size : float, optional
        Diameter of a spot in the unit of the coordinates; by default so that neighbours nearly touch.
    invert_y : bool, optional
        Whether y points downwards as in images; by default for an AnnData.
    colorbar : bool
        Whether to add the one colour bar.

    Returns
    -------
    ndarray of Axes, (n_types,)
        ``axes[0].figure.savefig("map.png")`` saves the figure; a notebook shows it, a script by ``plt.show()``.

    Raises
    ------
    DataError
        A key, a type or a coordinate is missing, or the number of axes is not that of types.
    DataTypeError
        `data` is of another kind.
    """
    table = _read(data, key, spatial_key, coordinates, sections)
    names = _chosen(table.shares, types)
    if not isinstance(ncols, int | np.integer) or ncols < 1:
        raise DataError(f"`ncols` must be a whole number >= 1; got {ncols!r}.")
    values = table.shares[names].to_numpy(dtype=np.float64)
    if vmax is None:
        top = np.nanmax(values, initial=0.0) if np.isfinite(values).any() else 1.0
        vmax = float(top) if top > 0 else 1.0
    axes = _own_axes(table, len(names), int(ncols)) if ax is None else _given_axes(ax, len(names))
    down = table.image if invert_y is None else invert_y
    places = _side_by_side(table, down)
    for i, name in enumerate(names):
        spots = _draw(axes[i], places, values[:, i], size, down)
        spots.set_cmap(cmap)
        spots.set_clim(0.0, vmax)
        axes[i].set_title(_short(name), fontsize=10)
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
    spatial_key: str = "spatial",
    ax: Axes | None = None,
    palette: Sequence[str] | None = None,
    size: float | None = None,
    invert_y: bool | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the type with the highest proportion of each spot.

    Parameters
    ----------
    data, coordinates, sections, key, spatial_key, size, invert_y
        As in `proportions`.
    types : list of str or str, optional
        The types that have a colour, in this order; by default all in the order of the table, or the 12 that
        dominate most spots where there are more. The others share one grey.
    ax : Axes, optional
        By default that of a new figure.
    palette : list of colours, optional
        One a type; by default colours that colour-blind people can tell apart (at most 12).
    legend : bool

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
    table = _read(data, key, spatial_key, coordinates, sections)
    values = table.shares.to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1)
    best = np.full(len(values), -1)
    best[known] = values[known].argmax(axis=1)
    if types is None:
        often = np.bincount(best[known], minlength=values.shape[1])
        most = len(palette) if palette is not None else len(TWELVE)
        names = [str(table.shares.columns[k]) for k in sorted(np.argsort(-often, kind="stable")[:most])]
    else:
        names = _chosen(table.shares, types)
    colours = list(palette if palette is not None else OKABE_ITO if len(names) <= len(OKABE_ITO) else TWELVE)
    if len(colours) < len(names):
        raise DataError(f"`palette` must have a colour for each of {len(names)} types; got {len(colours)}.")

    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D

    rows = np.array([to_rgba(colour) for colour in (*colours[: len(names)], REST, UNKNOWN)])
    place = {name: i for i, name in enumerate(names)}
    lookup = np.array([place.get(name, len(names)) for name in table.shares.columns] + [len(names) + 1])
    if ax is None:
        ax = _own_axes(table, 1, 1, width=4.5, legend=legend)[0]
    down = table.image if invert_y is None else invert_y
    shown = lookup[best]
    _draw(ax, _side_by_side(table, down), rows[shown], size, down)
    if legend:
        entries = [(_short(name), colours[i]) for i, name in enumerate(names)]
        entries += [("other types", REST)] if (shown == len(names)).any() else []
        entries += [("no estimate", UNKNOWN)] if (shown == len(names) + 1).any() else []
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=7, color=colour, label=label)
            for label, colour in entries
        ]
        ax.legend(
            handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9,
            handletextpad=0.2, labelspacing=0.4,
        )  # fmt: skip
    ax.set_title("dominant type", fontsize=10)
    return ax


@dataclass(frozen=True)
class _Table:
    """What is drawn: proportions, places, sections, and whether y points downwards by default."""

    shares: pd.DataFrame
    places: np.ndarray
    sections: np.ndarray | None
    image: bool


@dataclass(frozen=True)
class _Places:
    """Where each spot is drawn, the diameter of a spot, and the name and place of each section."""

    xy: np.ndarray
    diameter: float
    titles: list[tuple[str, float, float]]


def _read(data: Any, key: str, spatial_key: str, coordinates: Any, sections: Any) -> _Table:
    image = hasattr(data, "obsm")
    if image:
        for name, wanted in (("key", key), ("spatial_key", spatial_key)):
            if wanted not in data.obsm and not (name == "spatial_key" and coordinates is not None):
                remedy = "Run stdeconv_fast.tl.deconvolve first, or pass" if name == "key" else "Pass coordinates or"
                there = ", ".join(map(repr, data.obsm)) or "no keys"
                raise DataError(f"adata.obsm must have the key {wanted!r}; got {there}. {remedy} {name}.")
        shares = data.obsm[key]
        coordinates = data.obsm[spatial_key] if coordinates is None else coordinates
        if isinstance(sections, str):
            if sections not in data.obs.columns:
                there = ", ".join(map(repr, data.obs)) or "no columns"
                raise DataError(f"adata.obs must have the column {sections!r}; got {there}.")
            sections = data.obs[sections]
    else:
        shares = getattr(data, "proportions", data)
    if not isinstance(shares, pd.DataFrame):
        raise DataTypeError(
            f"`data` must be an AnnData, a Result or a DataFrame of proportions; got {type(shares).__name__}."
        )
    if coordinates is None:
        raise DataError("`coordinates` must be given where `data` is no AnnData; got None.")
    if not len(shares) or not shares.shape[1]:
        raise DataError(f"`data` must have spots and types; got a table of shape {shares.shape}.")
    shares = shares.rename(columns=str)
    places = _aligned(coordinates, shares.index, "coordinates")
    if isinstance(places, pd.DataFrame):
        if {"x", "y"} <= {str(column) for column in places.columns}:
            places = places[["x", "y"]]
        else:
            places = places.select_dtypes("number")
    try:
        places = np.asarray(places, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataTypeError("`coordinates` must hold numbers; got other values.") from None
    if places.ndim != 2 or places.shape[1] < 2:
        raise DataError(f"`coordinates` must have two columns of numbers; got shape {places.shape}.")
    if not np.isfinite(places[:, :2]).all():
        raise DataError("`coordinates` must be finite for every spot; got NaN or inf.")
    if sections is not None:
        if isinstance(sections, str):
            raise DataTypeError("`sections` must be one label per spot where `data` is no AnnData; got str.")
        sections = np.asarray(_aligned(sections, shares.index, "sections")).astype(str)
    return _Table(shares, places[:, :2], sections, image)


def _aligned(value: Any, spots: pd.Index, what: str) -> Any:
    """Rows in the order of the spots: by label where all spots are named there, else by position."""
    if isinstance(value, pd.DataFrame | pd.Series) and value.index.is_unique and spots.isin(value.index).all():
        return value.reindex(spots)
    if len(value) != len(spots):
        raise DataError(f"`{what}` must have one row per spot; got {len(value):,} for {len(spots):,} spots.")
    return value


def _chosen(shares: pd.DataFrame, types: Sequence[str] | str | None) -> list[str]:
    names = list(shares.columns) if types is None else [types] if isinstance(types, str) else list(map(str, types))
    absent = [name for name in names if name not in shares.columns]
    if absent or not names:
        got = ", ".join(map(repr, absent)) or "none"
        raise DataError(f"`types` must be among {', '.join(map(repr, shares.columns))}; got {got}.")
    return names


def _own_axes(table: _Table, n: int, ncols: int, width: float = WIDTH, legend: bool = False) -> np.ndarray:
    """Axes of a new figure of pyplot."""
    from matplotlib import pyplot

    spread = np.ptp(_side_by_side(table, table.image).xy, axis=0)
    shape = float(np.clip(spread[1] / spread[0], 0.3, 2.5)) if spread.min() > 0 else 1.0
    ncols = min(n, ncols)
    nrows = math.ceil(n / ncols)
    if shape < 1:  # wide maps are given more room
        width = min(width / math.sqrt(shape), 2 * width)
    figure = pyplot.figure(
        figsize=(width * ncols + (1.6 if legend else 0.9), (width * shape + 0.35) * nrows), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.05)
    grid = figure.subplots(nrows, ncols, squeeze=False).ravel()
    for empty in grid[n:]:
        empty.remove()
    return grid[:n]


def _given_axes(ax: Any, n: int) -> np.ndarray:
    axes = np.empty(np.size(ax), dtype=object)
    axes[:] = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != n:
        raise DataError(f"`ax` must be one Axes for each of {n} types; got {len(axes)}. Choose with types.")
    return axes


def _side_by_side(table: _Table, down: bool) -> _Places:
    """Sections moved next to one another, up to four in a row."""
    from scipy.spatial import cKDTree

    codes, names = (
        (np.zeros(len(table.places), np.int64), [""])
        if table.sections is None
        else pd.factorize(table.sections, sort=True)
    )
    nearest = []
    for section in range(len(names)):
        own = np.unique(table.places[codes == section], axis=0)
        if len(own) > 1:
            some = own[:: max(1, len(own) // SAMPLE)]
            nearest.append(cKDTree(own).query(some, k=2)[0][:, 1])
    diameter = FILL * float(np.median(np.concatenate(nearest))) if nearest else 1.0
    if len(names) < 2:
        return _Places(table.places, diameter, [])
    boxes = [(own.min(axis=0), np.ptp(own, axis=0)) for own in (table.places[codes == s] for s in range(len(names)))]
    cell = np.max([extent for _, extent in boxes], axis=0) + diameter
    cell = cell * 1.06 + [0, 0.06 * cell.max()]
    columns = len(names) if len(names) <= 4 else math.ceil(math.sqrt(len(names)))
    xy, titles = table.places.copy(), []
    for section, (low, extent) in enumerate(boxes):
        row, column = divmod(section, columns)
        corner = cell * [column, row if down else -row]
        xy[codes == section] += corner - low
        edge = corner[1] - 1.2 * diameter if down else corner[1] + extent[1] + 1.2 * diameter
        titles.append((str(names[section]), corner[0] + extent[0] / 2, edge))
    return _Places(xy, diameter, titles)


def _draw(ax: Axes, places: _Places, values: np.ndarray, size: float | None, down: bool) -> EllipseCollection:
    """Draw spots as discs in the unit of the coordinates; `values` are numbers or RGBA rows."""
    from matplotlib.collections import EllipseCollection

    diameter = places.diameter if size is None else float(size)
    if not diameter > 0:
        raise DataError(f"`size` must be > 0; got {size!r}.")

    def discs(rows: np.ndarray, **looks: Any) -> EllipseCollection:
        shape = np.full(len(rows), diameter)
        drawn = EllipseCollection(
            shape, shape, np.zeros(len(rows)), units="xy", offsets=places.xy[rows], offset_transform=ax.transData,
            linewidths=0, rasterized=len(places.xy) > RASTER, **looks,
        )  # fmt: skip
        return ax.add_collection(drawn, autolim=False)

    if values.ndim == 2:
        drawn = discs(np.arange(len(values)), facecolors=values)
    else:
        known = np.isfinite(values)
        if not known.all():
            discs(np.flatnonzero(~known), facecolors=UNKNOWN)
        drawn = discs(np.flatnonzero(known))
        drawn.set_array(values[known])
    low, high = places.xy.min(axis=0) - 0.75 * diameter, places.xy.max(axis=0) + 0.75 * diameter
    for name, x, y in places.titles:
        ax.text(x, y, _short(name), ha="center", va="bottom", fontsize=7, color="#555555")
    if places.titles:
        room = 0.06 * (high[1] - low[1])
        low, high = (low - [0, room], high) if down else (low, high + [0, room])
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(*((high[1], low[1]) if down else (low[1], high[1])))
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    return drawn


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
