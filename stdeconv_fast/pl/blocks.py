"""Spots pooled to square blocks of tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """Blocks that hold spots.

    Attributes
    ----------
    means : ndarray of float64, (n_blocks, n_types)
        Mean proportions; NaN where nothing is said about any spot of the block.
    centres : ndarray of float64, (n_blocks, 2)
        Of the squares.
    sizes : ndarray of int64, (n_blocks,)
        Spots in each, those about which nothing is said left out.
    """

    means: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray


def pool(
    values: np.ndarray, known: np.ndarray, xy: np.ndarray, codes: np.ndarray, side: float, low: np.ndarray
) -> Blocks:
    """Mean proportions of square blocks; spots of different sections are never in one.

    Parameters
    ----------
    values : (n_spots, n_types)
    known : (n_spots,) bool
    xy : (n_spots, 2)
    codes : (n_spots,)
        Sections.
    side : float
        Of a block.
    low : (2,)
        Corner of a block, at or below all spots.
    """
    column, row = np.floor((xy - low) / side).astype(np.int64).T
    width, height = column.max() + 1, row.max() + 1
    squares, block = np.unique((codes * height + row) * width + column, return_inverse=True)
    sizes = np.bincount(block[known], minlength=len(squares))
    own = block[known]
    means = np.stack(
        [np.bincount(own, values[known, k], minlength=len(squares)) for k in range(values.shape[1])], axis=1
    ) / np.where(sizes > 0, sizes, np.nan)[:, None]
    centres = low + side * (np.column_stack([squares % width, squares // width % height]) + 0.5)
    return Blocks(means, centres, sizes)
