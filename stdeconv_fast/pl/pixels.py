"""Many spots as pixels: which spot a pixel shows, found once and used for every map of a figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_PIXELS = 4_000_000  # of all sections
FINEST = 6  # pixels along a spot, where there is room
COVER = 0.71  # of the room of a spot: discs of this radius leave no gaps on a square grid, however it is turned
IRREGULAR, COVER_IRREGULAR = 1.3, 1.0  # of spots that lie at random such discs cover 96 %
ON_GRID = 0.1  # of the spacing: how far a place may be from its node
LONE_REACH = 2.5  # spacings: side of the squares of which a lone spot has nine for itself
MOST_LONE = 2_000  # beyond, they are seen as texture


@dataclass(frozen=True)
class Raster:
    """The pixels of a section.

    Attributes
    ----------
    owner : ndarray of int32, (height, width)
        The spot that each pixel shows; -1: none. Row 0 has the lowest y.
    extent : tuple of float
        Left, right, bottom, top.
    crowd : ndarray of int64, (n_spots of the section,) or None
        Pixel of each spot where pixels are coarser than spots and show the mean of theirs.
    rows : ndarray of int64 or slice
        The spots of the section.
    side : float
        Of a pixel.
    """

    owner: np.ndarray
    extent: tuple[float, float, float, float]
    crowd: np.ndarray | None
    rows: np.ndarray | slice
    side: float

    def lay(self, values: np.ndarray) -> np.ndarray:
        """Values or RGBA rows of all spots as a picture; NaN, or transparent, where there is no value."""
        shape = self.owner.shape
        own = values[self.rows]
        if self.crowd is None:
            laid = own[np.maximum(self.owner, 0)]
            laid[self.owner < 0] = np.nan if values.ndim == 1 else 0
            return laid
        known = np.isfinite(own).reshape(len(own), -1).all(axis=1)
        pixels = self.crowd[known]
        number = np.bincount(pixels, minlength=self.owner.size)
        layers = [
            np.bincount(pixels, layer[known], minlength=self.owner.size) / np.maximum(number, 1)
            for layer in own.reshape(len(own), -1).T
        ]
        laid = np.stack(layers, axis=-1)
        laid[number == 0] = np.nan if values.ndim == 1 else 0
        return laid.reshape(shape if values.ndim == 1 else (*shape, -1))


def rasterise(
    xy: np.ndarray, rows: np.ndarray | slice, spacing: float, room: float, radius: float | None, most: int
) -> Raster:
    """The pixels of some spots: a node of their grid each where they lie on one, else discs on a fine raster.

    Parameters
    ----------
    xy : (n_spots, 2)
    rows : ndarray of int64, or slice
        The spots to draw.
    spacing, room : float
        As in `Layout`.
    radius : float, optional
        Of a spot; by default neighbours touch.
    most : int
        Pixels.
    """
    own = xy[rows]
    grid = None if radius is not None else _on_grid(own, spacing)
    if grid is not None:
        return Raster(grid[0], grid[1], None, rows, spacing)
    radius = room * (COVER if room < IRREGULAR * spacing else COVER_IRREGULAR) if radius is None else radius
    low, extent = own.min(axis=0) - radius, np.ptp(own, axis=0) + 2 * radius
    side = max(2 * radius / FINEST, float(np.sqrt(extent.prod() / most)), float(extent.max()) / most * 2)
    width, height = (int(n) for n in np.ceil(extent / side) + 1)
    at = (own - low) / side
    column, row = at.astype(np.int64).T
    bounds = (low[0], low[0] + width * side, low[1], low[1] + height * side)
    owner = np.full(width * height, -1, dtype=np.int32)
    numbers = np.arange(len(own), dtype=np.int32)
    reach = radius / side
    if reach < 0.5:
        pixel = row * width + column
        owner[pixel] = numbers
        return Raster(owner.reshape(height, width), bounds, pixel, rows, side)
    steps = np.arange(-int(reach + 0.5), int(reach + 0.5) + 1)
    stamp = sorted(((dx * dx + dy * dy, dx, dy) for dx in steps for dy in steps), reverse=True)
    for square, dx, dy in stamp:  # from the rim inwards, so that a pixel shows the spot whose middle is nearest
        if square <= (reach + 0.25) ** 2:
            x, y = np.clip(column + dx, 0, width - 1), np.clip(row + dy, 0, height - 1)
            owner[y * width + x] = numbers
    return Raster(owner.reshape(height, width), bounds, None, rows, side)


def _on_grid(places: np.ndarray, spacing: float) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
    """The spot of each node of a square grid along the axes, and its extent; None where places are not on one."""
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    sizes = np.round(extent / spacing).astype(np.int64)
    if (sizes < 1).any() or (sizes + 1).prod() > 4 * len(places) + 1000:
        return None
    pitch = extent / sizes
    if np.abs(pitch / spacing - 1).max() > ON_GRID:
        return None
    at = (places - low) / pitch
    nodes = np.round(at)
    if np.abs(at - nodes).max() > ON_GRID:
        return None
    flat = (nodes[:, 1] * (sizes[0] + 1) + nodes[:, 0]).astype(np.int64)
    owner = np.full((sizes + 1).prod(), -1, dtype=np.int32)
    owner[flat] = np.arange(len(places), dtype=np.int32)
    if np.count_nonzero(owner >= 0) < len(places):
        return None
    edge = (low[0] - pitch[0] / 2, low[0] + extent[0] + pitch[0] / 2)
    edge += (low[1] - pitch[1] / 2, low[1] + extent[1] + pitch[1] / 2)
    return owner.reshape(sizes[1] + 1, sizes[0] + 1), edge


def lone(xy: np.ndarray, some: np.ndarray, spacing: float) -> np.ndarray:
    """Of `some` spots those with none of the same about them, as positions; none where there are very many.

    As pixels they would all but vanish in a small figure. About a spot: its square of `LONE_REACH` spacings and the
    eight around it.
    """
    rows = np.flatnonzero(some)
    if not len(rows):
        return rows
    column, row = np.floor((xy[rows] - xy[rows].min(axis=0)) / (LONE_REACH * spacing)).astype(np.int64).T + 1
    width = column.max() + 2
    squares, first, number = np.unique(row * width + column, return_index=True, return_counts=True)
    alone = number == 1
    for step in (1, width - 1, width, width + 1):
        for away in (step, -step):
            alone &= ~np.isin(squares + away, squares, assume_unique=True)
    apart = np.sort(rows[first[alone]])
    return apart if len(apart) <= MOST_LONE else rows[:0]
