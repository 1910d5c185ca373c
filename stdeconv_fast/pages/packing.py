"""Puts maps into few bytes: a byte a proportion, deflated, type by type."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from .sources import Answer

MOST_VALUES = 10_500_000  # spots x types that are kept one by one: a page of about 10 MB
SAMPLE = 2_000  # spots whose nearest neighbour is looked up
NAMED = 20_000  # spots whose names are kept, at most
LEVELS, FINE = 255, 65_535
LEVEL = 6  # of the compression


@dataclass(frozen=True)
class Dots:
    """What is drawn: spots, or the means of those in a square, in the order of their sections, rows and columns."""

    shares: np.ndarray  # (n, n_types) float32, NaN where nothing is known
    places: np.ndarray  # (n, 2)
    sections: np.ndarray  # (n,)
    fit: dict[str, np.ndarray]
    names: np.ndarray | None
    spacing: list[float]  # diameter of a dot, by section
    joined: bool  # squares


def pack_maps(answer: Answer, most: int = MOST_VALUES) -> dict[str, Any]:
    """The maps as plain values and texts that the page unpacks.

    Parameters
    ----------
    answer : Answer
    most : int
        Spots x types that are kept one by one; of more, means over squares are kept.

    Returns
    -------
    dict
        "shares": a text a type, "tops" the proportion that 255 stands for; "dominant": 0 where nothing is known, else
        the number of the type from 1; "x", "y": differences of 16 bits along a section; "fit": name to (text, lowest,
        highest); "sections": name, first and last dot, extent, diameter; "names" or None; "joined"; "n".
    """
    dots = _order(answer)
    if dots.shares.size > most:
        dots = _join(dots, most)
    known = np.isfinite(dots.shares).all(axis=1)
    tops, packed = [], []
    for values in dots.shares.T:
        top = float(values[known].max()) if known.any() else 0.0
        tops.append(top if top > 0 else 1.0)
        packed.append(_pack(_to_bytes(values, 0.0, tops[-1])))
    best = np.zeros(len(known), dtype=np.uint16)
    best[known] = dots.shares[known].argmax(axis=1) + 1
    sections, x, y = [], [], []
    for number, name in enumerate(answer.section_names):
        rows = np.flatnonzero(dots.sections == number)
        start, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        own = dots.places[start:stop]
        low = own.min(axis=0) if len(own) else np.zeros(2)
        extent = np.ptp(own, axis=0) if len(own) else np.zeros(2)
        unit = float(extent.max()) / FINE or 1.0
        fine = np.rint((own - low) / unit).astype(np.int64)
        x.append(np.diff(fine[:, 0], prepend=0))
        y.append(np.diff(fine[:, 1], prepend=0))
        sections.append({
            "name": name, "start": start, "stop": stop, "width": float(extent[0] / unit),
            "height": float(extent[1] / unit), "diameter": float(dots.spacing[number] / unit),
        })  # fmt: skip
    fit = {}
    for name, values in dots.fit.items():
        if np.isfinite(values).any():
            low, high = (float(end) for end in np.nanquantile(values, (0.01, 0.99)))
            high = high if high > low else low + 1.0
            fit[name] = {"packed": _pack(_to_bytes(values, low, high)), "low": low, "high": high}
    return {
        "n": len(known), "joined": dots.joined, "shares": packed, "tops": tops, "dominant": _pack(best),
        "x": _pack(np.concatenate(x).astype(np.uint16)), "y": _pack(np.concatenate(y).astype(np.uint16)),
        "fit": fit, "sections": sections,
        "names": None if dots.names is None else _pack_text("\n".join(map(str, dots.names))),
    }  # fmt: skip


def _order(answer: Answer) -> Dots:
    """Spots with a place, by section, row and column: neighbours in the list are alike, and deflate well."""
    spacing = [_spacing(answer.places[answer.sections == s]) for s in range(len(answer.section_names))]
    there = np.flatnonzero(np.isfinite(answer.places).all(axis=1) & (answer.sections >= 0))
    places, sections = answer.places[there], answer.sections[there]
    rows = np.floor(places[:, 1] / np.asarray(spacing)[sections])
    order = there[np.lexsort((places[:, 0], rows, sections))]
    return Dots(
        answer.shares[order], answer.places[order], answer.sections[order],
        {name: answer.fit[name][order] for name in ("deviance", "misfit") if name in answer.fit},
        answer.spot_names.to_numpy()[order] if len(order) <= NAMED else None, spacing, False,
    )  # fmt: skip


def _spacing(places: np.ndarray) -> float:
    """Distance of a spot to its nearest one, the median of some."""
    own = np.unique(places[np.isfinite(places).all(axis=1)], axis=0)
    if len(own) < 2:
        return 1.0
    return float(np.median(cKDTree(own).query(own[:: max(1, len(own) // SAMPLE)], k=2)[0][:, 1]))


def _join(dots: Dots, most: int) -> Dots:
    """Means over squares, as small as `most` values allow."""
    n_types = dots.shares.shape[1]
    factor = np.sqrt(dots.shares.size / most)
    while True:
        sides = factor * np.asarray(dots.spacing)[dots.sections]
        cells = np.floor(dots.places / sides[:, None]).astype(np.int64)
        corner = cells.min(axis=0)
        width, height = (int(n) for n in cells.max(axis=0) - corner + 1)
        squares = (dots.sections * height + cells[:, 1] - corner[1]) * width + cells[:, 0] - corner[0]
        _, first, number = np.unique(squares, return_index=True, return_inverse=True)
        if len(first) * n_types <= most:
            break
        factor *= 1.1

    def mean(values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        sums = np.bincount(number[known], values[known], minlength=len(first))
        sizes = np.bincount(number[known], minlength=len(first))
        return np.divide(sums, sizes, out=np.full(len(first), np.nan), where=sizes > 0)

    return Dots(
        np.column_stack([mean(values) for values in dots.shares.T]).astype(np.float32),
        (cells[first] + 0.5) * sides[first][:, None], dots.sections[first],
        {name: mean(values) for name, values in dots.fit.items()}, None,
        [factor * spacing for spacing in dots.spacing], True,
    )  # fmt: skip


def _to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values between two ends in 256 steps; what is not known is 0."""
    steps = np.rint((np.nan_to_num(values, nan=low) - low) * (LEVELS / (high - low)))
    return np.clip(steps, 0, LEVELS).astype(np.uint8)


def _pack(values: np.ndarray) -> str:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(zlib.compress(little.tobytes(), LEVEL)).decode()


def _pack_text(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), LEVEL)).decode()
