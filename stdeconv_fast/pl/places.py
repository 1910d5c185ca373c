"""What is drawn and where: proportions, places and sections, from whatever holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError

SAMPLE = 2_000  # spots whose nearest neighbour is looked up
FILL = 0.98  # diameter of a spot, in distances to the nearest one
SIDE_BY_SIDE = 4  # sections in a row
AROUND = 6  # neighbours whose distance tells how dense the spots are


@dataclass(frozen=True)
class Table:
    """Proportions of spots, with their places and sections.

    Attributes
    ----------
    names : list of str, (n_types,)
    values : ndarray of float, (n_spots, n_types)
    places : ndarray of float64, (n_spots, 2)
    codes : ndarray of int64, (n_spots,)
        Section of each spot, an index into `sections`.
    sections : list of str
        [""] where there is but one.
    image : bool
        Whether y points downwards by default.
    source : AnnData or None
        What holds the pictures that the places are on.
    spots : Index
    """

    names: list[str]
    values: np.ndarray
    places: np.ndarray
    codes: np.ndarray
    sections: list[str]
    image: bool
    source: Any
    spots: pd.Index = field(repr=False)

    @property
    def known(self) -> np.ndarray:
        """Spots about which something is said, (n_spots,) bool."""
        return np.isfinite(self.values).all(axis=1)

    def chosen(self, types: Sequence[str] | str | None) -> list[str]:
        """The names of the types asked for; by default all."""
        names = list(self.names) if types is None else [types] if isinstance(types, str) else list(map(str, types))
        absent = [name for name in names if name not in self.names]
        if absent or not names:
            got = ", ".join(map(repr, absent)) or "none"
            raise DataError(f"`types` must be among {', '.join(map(repr, self.names))}; got {got}.")
        return names

    def columns(self, names: Sequence[str]) -> list[int]:
        """Where some types are in `values`."""
        return [self.names.index(name) for name in names]


def read(data: Any, key: str, spatial_key: str | None, coordinates: Any, sections: Any, placed: bool = True) -> Table:
    """Proportions of an AnnData, a Result or a DataFrame; with `placed`, places are demanded."""
    own_places = coordinates is None
    shares, coordinates, image = _find(data, key, spatial_key, coordinates, placed)
    if not isinstance(shares, pd.DataFrame):
        raise DataTypeError(
            f"`data` must be an AnnData, a Result or a DataFrame of proportions; got {type(shares).__name__}."
        )
    if coordinates is None and placed:
        raise DataError("`coordinates` must be given where `data` is no AnnData; got None.")
    if not len(shares) or not shares.shape[1]:
        raise DataError(f"`data` must have spots and types; got a table of shape {shares.shape}.")
    codes, titles = _sections(data, key, sections, shares.index)
    values = shares.to_numpy()
    return Table(
        names=[str(name) for name in shares.columns],
        values=values if values.dtype.kind == "f" else values.astype(np.float64),
        places=np.zeros((len(shares), 2)) if coordinates is None else _numbers(coordinates, shares.index),
        codes=codes,
        sections=titles,
        image=image,
        source=data if image and own_places else None,
        spots=shares.index,
    )


def recorded(data: Any, key: str, name: str) -> Any:
    """An argument of the run that wrote `key` into the AnnData; None where it was not given, or nothing tells."""
    params = data.uns.get(f"{key}_params", {})
    return params.get("call", {}).get(name) if hasattr(params, "get") else None


def _find(data: Any, key: str, spatial_key: str | None, coordinates: Any, placed: bool) -> tuple[Any, Any, bool]:
    """The proportions, the coordinates, and whether they are of an AnnData."""
    if not hasattr(data, "obsm"):
        return getattr(data, "proportions", data), coordinates, False
    if key not in data.obsm:
        _refuse_key(data, key, "Run stdeconv_fast.tl.deconvolve first, or pass key.")
    if coordinates is None and placed:
        spatial_key = spatial_key or recorded(data, key, "spatial_key") or "spatial"
        if spatial_key not in data.obsm:
            _refuse_key(data, spatial_key, "Pass coordinates or spatial_key.")
        coordinates = data.obsm[spatial_key]
    return data.obsm[key], coordinates, True


def _refuse_key(data: Any, wanted: str, remedy: str) -> None:
    there = ", ".join(map(repr, data.obsm)) or "no keys"
    raise DataError(f"adata.obsm must have the key {wanted!r}; got {there}. {remedy}")


def labels_of(data: Any, given: Any, spots: pd.Index, what: str) -> Any:
    """One label a spot: a column of obs by its name, or labels as they are given."""
    if isinstance(given, str):
        if not hasattr(data, "obsm"):
            raise DataTypeError(f"`{what}` must be one label per spot where `data` is no AnnData; got str.")
        if given not in data.obs.columns:
            there = ", ".join(map(repr, data.obs)) or "no columns"
            raise DataError(f"adata.obs must have the column {given!r}; got {there}.")
        given = data.obs[given]
    return aligned(given, spots, what)


def _sections(data: Any, key: str, sections: Any, spots: pd.Index) -> tuple[np.ndarray, list[str]]:
    """Section of each spot, and their names: as given, or the column that the run was given; False: one section."""
    if sections is None and hasattr(data, "obsm"):
        column = recorded(data, key, "sample_key")
        sections = column if column in data.obs.columns else None
    if sections is None or sections is False:
        return np.zeros(len(spots), np.int64), [""]
    return coded(labels_of(data, sections, spots, "sections"))


def coded(labels: Any) -> tuple[np.ndarray, list[str]]:
    """Labels as numbers and their names, in the order of categories or sorted; one more name for missing ones."""
    codes, names = pd.factorize(labels if isinstance(labels, pd.Series) else pd.Series(np.asarray(labels)), sort=True)
    names = [str(name) for name in names]
    if (codes < 0).any():
        codes, names = np.where(codes < 0, len(names), codes), [*names, "no label"]
    return codes.astype(np.int64), names


def _numbers(coordinates: Any, spots: pd.Index) -> np.ndarray:
    places = aligned(coordinates, spots, "coordinates")
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
    return places[:, :2]


def aligned(value: Any, spots: pd.Index, what: str) -> Any:
    """Rows in the order of the spots: by label where all spots are named there, else by position."""
    named = isinstance(value, pd.DataFrame | pd.Series) and not value.index.equals(spots)
    if named and value.index.is_unique and spots.isin(value.index).all():
        return value.reindex(spots)
    if len(value) != len(spots):
        raise DataError(f"`{what}` must have one row per spot; got {len(value):,} for {len(spots):,} spots.")
    return value


@dataclass(frozen=True)
class Layout:
    """Where each spot is drawn.

    Attributes
    ----------
    xy : ndarray of float64, (n_spots, 2)
    spacing : float
        Distance of a spot to its nearest neighbour, by the median.
    room : float
        Side of the square that a spot has for itself, by the median; twice the spacing where spots lie at random.
    codes : ndarray of int64, (n_spots,)
    shifts : ndarray of float64, (n_sections, 2)
        By how much each section is moved.
    titles : list of (str, float, float)
        Name and place of each section's title.
    """

    xy: np.ndarray
    spacing: float
    room: float
    codes: np.ndarray
    shifts: np.ndarray
    titles: list[tuple[str, float, float]]

    def members(self, section: int) -> np.ndarray:
        """Spots of a section, as positions or, of the only one, as a slice."""
        return slice(None) if len(self.shifts) == 1 else np.flatnonzero(self.codes == section)


def arrange(table: Table, down: bool) -> Layout:
    """Sections moved next to one another, up to four in a row."""
    codes, n = table.codes, len(table.sections)
    members = [slice(None)] if n == 1 else [np.flatnonzero(codes == section) for section in range(n)]
    filled = [(section, table.places[rows]) for section, rows in enumerate(members) if n == 1 or len(rows)]
    nearest = np.concatenate([_nearest(own) for _, own in filled])
    spacing, sixth = (float(part) for part in np.median(nearest, axis=0)) if len(nearest) else (1 / FILL, 0.0)
    room = max(spacing, math.sqrt(math.pi / AROUND) * sixth)
    shifts = np.zeros((n, 2))
    if n == 1:
        return Layout(table.places, spacing, room, codes, shifts, [])
    boxes = {section: (own.min(axis=0), np.ptp(own, axis=0)) for section, own in filled}
    cell = np.max([extent for _, extent in boxes.values()], axis=0) + FILL * spacing
    cell = cell * 1.06 + [0, 0.06 * cell.max()]
    columns = len(boxes) if len(boxes) <= SIDE_BY_SIDE else math.ceil(math.sqrt(len(boxes)))
    titles, above = [], 1.2 * FILL * spacing
    for number, (section, (low, extent)) in enumerate(boxes.items()):
        row, column = divmod(number, columns)
        corner = cell * [column, row if down else -row]
        shifts[section] = corner - low
        edge = corner[1] - above if down else corner[1] + extent[1] + above
        titles.append((table.sections[section], corner[0] + extent[0] / 2, edge))
    return Layout(table.places + shifts[codes], spacing, room, codes, shifts, titles)


def _nearest(places: np.ndarray) -> np.ndarray:
    """Distances of some spots to the nearest other place and to the sixth neighbour, (n, 2)."""
    from scipy.spatial import cKDTree

    def look(own: np.ndarray) -> np.ndarray:
        tree = cKDTree(own, balanced_tree=False, compact_nodes=False)
        apart = tree.query(own[:: max(1, len(own) // SAMPLE)], k=min(AROUND + 1, len(own)))[0][:, 1:]
        nearest = np.where(apart > 0, apart, np.inf).min(axis=1)
        return np.column_stack([nearest, apart[:, -1]])[np.isfinite(nearest)]

    if len(places) < 2:
        return np.zeros((0, 2))
    found = look(places)
    if len(found):
        return found
    own = np.unique(places, axis=0)  # several spots at every place
    return look(own) if len(own) > 1 else found
