"""Pictures of the tissue, as scanpy and squidpy keep them in ``uns["spatial"]``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, DataWarning
from .places import Layout, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("hires", "lowres")  # in the order of preference
MARGIN = 0.04  # of a section's extent, left around it of a cropped picture
LEAST_INSIDE = 0.5  # of the spots must lie on their picture


@dataclass(frozen=True)
class Picture:
    """A picture under a section.

    Attributes
    ----------
    pixels : ndarray, (height, width) or (height, width, 3 or 4)
        Row 0 is the top: y = 0.
    scale : float
        Pixels a unit of the coordinates.
    section : int
    """

    pixels: np.ndarray
    scale: float
    section: int

    def extent(self, shifts: np.ndarray) -> tuple[float, float, float, float]:
        """Left, right, lowest y, highest y, where the section is drawn."""
        height, width = self.pixels.shape[:2]
        x, y = shifts[self.section]
        return x, x + width / self.scale, y, y + height / self.scale

    def draw(self, ax: Axes, layout: Layout, crop: bool, alpha: float) -> None:
        """Draw it; of several sections, or with `crop`, only what lies about the spots."""
        pixels, (left, top) = self.pixels, layout.shifts[self.section]
        if crop or len(layout.shifts) > 1:
            own = (layout.xy[layout.members(self.section)] - layout.shifts[self.section]) * self.scale
            margin = MARGIN * max(np.ptp(own, axis=0).max(), 1.0)
            first = np.clip(np.floor(own.min(axis=0) - margin), 0, None).astype(int)
            last = np.ceil(own.max(axis=0) + margin).astype(int) + 1
            pixels = pixels[first[1] : last[1], first[0] : last[0]]
            left, top = left + first[0] / self.scale, top + first[1] / self.scale
        height, width = pixels.shape[:2]
        extent = (left, left + width / self.scale, top + height / self.scale, top)
        ax.imshow(pixels, extent=extent, origin="upper", alpha=alpha, aspect="equal", cmap="gray", zorder=0)


def find_pictures(table: Table, image: bool | str | None, library_id: str | None) -> list[Picture]:
    """The pictures of a table's sections.

    Parameters
    ----------
    table : Table
    image : bool or str, optional
        Which picture ("hires", "lowres"); True: the finest; False: none. None: the finest, where there is one.
    library_id : str, optional
        Entry of ``uns["spatial"]``; by default the only one, or, of several sections, those named like them.
    """
    wanted = image not in (None, False) or library_id is not None
    if image is False:
        return []
    libraries = {} if table.source is None else table.source.uns.get("spatial", {})
    libraries = libraries if isinstance(libraries, Mapping) else {}
    if library_id is not None and library_id not in libraries:
        there = ", ".join(map(repr, libraries)) or "no entries"
        raise DataError(f"`library_id` must name an entry of adata.uns['spatial']; got {library_id!r}, not in {there}.")
    if library_id is not None:
        pairs = [(library_id, section) for section in range(len(table.sections))][: len(table.sections)]
    elif len(table.sections) > 1:
        pairs = [(name, section) for section, name in enumerate(table.sections) if name in libraries]
    else:
        pairs = [(name, 0) for name in libraries] if len(libraries) == 1 else []
    found = [_take(libraries[name], section, image) for name, section in pairs]
    pictures = [picture for picture in found if picture is not None]
    if wanted and not pictures:
        raise DataError(
            f"`image` must be a picture in adata.uns['spatial'][library]['images'] with its scale factor; got "
            f"{image!r} with {_listed(libraries)}. Pass image=False, or library_id where there are several."
        )
    return [picture for picture in pictures if _fits(picture, table)]


def _listed(libraries: Mapping[str, Any]) -> str:
    told = [f"{name!r}: {', '.join(entry.get('images', {})) or 'none'}" for name, entry in libraries.items()]
    return "; ".join(told) or "no entries"


def _take(entry: Mapping[str, Any], section: int, image: bool | str | None) -> Picture | None:
    images, factors = entry.get("images", {}), entry.get("scalefactors", {})
    for name in (image,) if isinstance(image, str) else (*NAMES, *images):
        scale = factors.get(f"tissue_{name}_scalef")
        if name in images and scale:
            return Picture(np.asarray(images[name]), float(scale), section)
    return None


def _fits(picture: Picture, table: Table) -> bool:
    """Whether the spots lie on the picture; else their unit is another one, which is told."""
    own = table.places[table.codes == picture.section] * picture.scale
    height, width = picture.pixels.shape[:2]
    inside = ((own >= 0) & (own <= [width, height])).all(axis=1)
    if not len(own) or inside.mean() >= LEAST_INSIDE:
        return bool(len(own))
    warnings.warn(
        f"The picture of {width} x {height} pixels is not drawn: with its scale factor only {inside.mean():.0%} of the "
        "spots lie on it. Their coordinates must be in pixels of the full picture. Pass image=False.",
        DataWarning,
        stacklevel=5,
    )
    return False
