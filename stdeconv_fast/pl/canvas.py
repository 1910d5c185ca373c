"""One figure of maps: its axes, the picture of the tissue, and the spots upon it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .colours import UNKNOWN, shorten
from .pictures import Picture, find_pictures
from .pixels import MOST_PIXELS, Raster, lone, rasterise
from .places import FILL, Layout, Table, arrange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

RASTER = 20_000  # more spots than this are drawn as pixels
SMALL = 4  # maps of a figure from which on each has the fewest pixels, this part of the most
WIDTH, SINGLE = 2.6, 4.5  # inches of a map among several, and of one for itself
APART = 0.12  # between maps of several sections, in parts of their width, so that no section seems of the next map
RIM = (0.0, 0.0, 0.0, 0.45)  # line around a spot upon a picture
BAR = 0.9  # inches of a colour bar
LEAST_MARK = 1.6  # points: diameter of a lone spot in a map of pixels
FILL_PICTURE = 0.8  # diameter of a spot upon a picture, in spacings: the tissue is seen between the spots
VEIL, FADE = 0.6, 0.6  # upon a picture: opacity of pixels, which leave no gaps, and of the picture itself


@dataclass(frozen=True)
class Scene:
    """What all maps of a figure share.

    Attributes
    ----------
    layout : Layout
    diameter : float
        Of a spot, in the unit of the coordinates.
    sized : bool
        Whether the caller gave the diameter.
    down : bool
        Whether y points downwards.
    alpha : float
        Opacity of the spots.
    pictures : list of Picture
    image_alpha : float
    crop : bool
        Whether the map ends where the spots end.
    most_pixels : int
        Of a map, where there are many spots.
    """

    layout: Layout
    diameter: float
    sized: bool
    down: bool
    alpha: float
    pictures: list[Picture]
    image_alpha: float
    crop: bool
    most_pixels: int

    @cached_property
    def rasters(self) -> list[Raster]:
        """The pixels of each section that has spots."""
        layout = self.layout
        parts = [layout.members(section) for section in range(len(layout.shifts))]
        parts = [rows for rows in parts if isinstance(rows, slice) or len(rows)]
        radius = self.diameter / 2 if self.sized else None
        return [
            rasterise(layout.xy, rows, layout.spacing, layout.room, radius, self.most_pixels // len(parts))
            for rows in parts
        ]

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the map."""
        xy, margin = self.layout.xy, 0.75 * self.diameter
        low, high = xy.min(axis=0) - margin, xy.max(axis=0) + margin
        if not self.crop:
            for picture in self.pictures:
                left, right, top, bottom = picture.extent(self.layout.shifts)
                low, high = np.minimum(low, [left, top]), np.maximum(high, [right, bottom])
        if self.layout.titles:
            room = 0.06 * (high[1] - low[1])
            low, high = (low - [0, room], high) if self.down else (low, high + [0, room])
        return low, high

    def axes(self, n: int, ncols: int, width: float = WIDTH, legend: float = BAR) -> np.ndarray:
        """Axes of a new figure of pyplot, with some inches for a legend or a colour bar."""
        from matplotlib import pyplot

        low, high = self.box
        spread = high - low
        shape = float(np.clip(spread[1] / spread[0], 0.3, 2.5))
        ncols = min(n, ncols)
        nrows = math.ceil(n / ncols)
        if shape < 1:  # wide maps are given more room
            width = min(width / math.sqrt(shape), 2 * width)
        size = (width * ncols + legend, (width * shape + 0.35) * nrows)
        figure = pyplot.figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.07, h_pad=0.05, wspace=APART if self.layout.titles else 0.02)
        grid = figure.subplots(nrows, ncols, squeeze=False).ravel()
        for empty in grid[n:]:
            empty.remove()
        for ax in grid[:n] if n == 1 else ():
            ax.set_anchor("W")  # a legend is placed beside it before the layout knows its width
        return grid[:n]

    def paint(self, ax: Axes, values: np.ndarray, cmap: Any = None, vmin: float = 0.0, vmax: float = 1.0) -> Any:
        """Draw the spots; `values` are numbers, NaN where nothing is said, or RGBA rows.

        Returns
        -------
        ScalarMappable
            What was coloured.
        """
        from matplotlib.colors import Normalize

        self.lay_ground(ax)
        looks = {} if values.ndim == 2 else {"cmap": cmap, "norm": Normalize(vmin, vmax)}
        draw = self._pixels if len(self.layout.xy) > RASTER else self._discs
        drawn = draw(ax, values, looks)
        self.frame(ax)
        return drawn

    def lay_ground(self, ax: Axes) -> None:
        """Draw the pictures of the tissue."""
        for picture in self.pictures:
            picture.draw(ax, self.layout, self.crop, self.image_alpha)

    def frame(self, ax: Axes) -> None:
        """Set the limits of a map, name its sections and take its frame away."""
        low, high = self.box
        labels = shorten([name for name, _, _ in self.layout.titles])
        for name, x, y in self.layout.titles:
            ax.text(x, y, labels[name], ha="center", va="bottom", fontsize=7, color="#555555")
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(*((high[1], low[1]) if self.down else (low[1], high[1])))
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_visible(False)

    @property
    def rim(self) -> dict[str, Any]:
        """The line around a spot: upon a picture the pale colours of some types would be lost without one."""
        return {"linewidths": 0.3, "edgecolors": [RIM]} if self.pictures else {"linewidths": 0}

    def discs(self, ax: Axes, rows: np.ndarray, **looks: Any) -> Any:
        """Draw some spots as discs in the unit of the coordinates."""
        from matplotlib.collections import EllipseCollection

        shape = np.full(len(rows), self.diameter)
        drawn = EllipseCollection(
            shape, shape, np.zeros(len(rows)), units="xy", offsets=self.layout.xy[rows],
            offset_transform=ax.transData, alpha=self.alpha, **{"linewidths": 0, **looks},
        )  # fmt: skip
        return ax.add_collection(drawn, autolim=False)

    def _discs(self, ax: Axes, values: np.ndarray, looks: dict[str, Any]) -> ScalarMappable:
        if values.ndim == 2:
            return self.discs(ax, np.arange(len(values)), facecolors=values, **self.rim)
        known = np.isfinite(values)
        if not known.all():
            self.discs(ax, np.flatnonzero(~known), facecolors=UNKNOWN)
        drawn = self.discs(ax, np.flatnonzero(known), **looks)
        drawn.set_array(values[known])
        return drawn

    def _pixels(self, ax: Axes, values: np.ndarray, looks: dict[str, Any]) -> ScalarMappable:
        from matplotlib.colors import to_rgba

        drawn, coloured = None, values.ndim == 2
        unknown = (values == np.array(to_rgba(UNKNOWN), values.dtype)).all(axis=1) if coloured else ~np.isfinite(values)
        for raster in self.rasters:
            laid = raster.lay(values)
            if not coloured:
                if unknown.any():
                    grey = np.zeros((*laid.shape, 4), dtype=np.float32)
                    grey[(raster.owner >= 0) & np.isnan(laid)] = to_rgba(UNKNOWN)
                    self.picture(ax, grey, raster.extent)
                laid = np.ma.masked_invalid(laid)
            drawn = self.picture(ax, laid, raster.extent, **looks)
        self._mark_lone(ax, values, unknown, looks)
        return drawn

    def picture(self, ax: Axes, laid: np.ndarray, extent: Sequence[float], **looks: Any) -> ScalarMappable:
        """Draw pixels; row 0 has the lowest y. In a small figure they are averaged as colours are by the eye."""
        return ax.imshow(
            laid, extent=extent, origin="lower", interpolation="antialiased", interpolation_stage="rgba",
            aspect="equal", alpha=self.alpha if self.alpha < 1 else None, **looks,
        )  # fmt: skip

    def _mark_lone(self, ax: Axes, values: np.ndarray, unknown: np.ndarray, looks: dict[str, Any]) -> None:
        """Draw once more, large enough to be seen, the spots that stand alone, and those alone in being unknown."""
        xy, spacing = self.layout.xy, self.layout.spacing
        apart = lone(xy, np.ones(len(xy), dtype=bool), spacing)
        grey = np.union1d(lone(xy, unknown, spacing), apart[unknown[apart]])
        marks = {"s": LEAST_MARK**2, "linewidths": 0, "rasterized": True}
        for rows, colour, more in ((grey, UNKNOWN, {}), (apart[~unknown[apart]], None, looks)):
            if len(rows):
                ax.scatter(*xy[rows].T, c=values[rows] if colour is None else colour, **marks, **more)


def set_scene(
    table: Table,
    n_maps: int = 1,
    *,
    size: float | None = None,
    invert_y: bool | None = None,
    image: bool | str | None = None,
    library_id: str | None = None,
    alpha: float | None = None,
    image_alpha: float | None = None,
    crop: bool = True,
) -> Scene:
    """Lay the sections out and find the pictures for some maps; see `proportions` for the arguments."""
    if size is not None and not float(size) > 0:
        raise DataError(f"`size` must be > 0; got {size!r}.")
    for name, value in (("alpha", alpha), ("image_alpha", image_alpha)):
        if value is not None and not 0 <= value <= 1:
            raise DataError(f"`{name}` must be a number from 0 to 1; got {value!r}.")
    pictures = find_pictures(table, image, library_id)
    down = table.image if invert_y is None else bool(invert_y)
    layout = arrange(table, down)
    usual = (FILL_PICTURE if pictures else FILL) * layout.spacing
    covered = bool(pictures) and len(layout.xy) > RASTER
    return Scene(
        layout=layout,
        diameter=usual if size is None else float(size),
        sized=size is not None,
        down=down,
        alpha=(VEIL if covered else 1.0) if alpha is None else float(alpha),
        pictures=pictures,
        image_alpha=FADE if image_alpha is None else float(image_alpha),
        crop=crop,
        most_pixels=MOST_PIXELS // min(n_maps, SMALL),  # maps among others are small
    )


def given_axes(ax: Any, n: int) -> np.ndarray:
    """The caller's axes, one for each of `n` types."""
    axes = np.empty(np.size(ax), dtype=object)
    axes[:] = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != n:
        raise DataError(f"`ax` must be one Axes for each of {n} types; got {len(axes)}. Choose with types.")
    return axes
