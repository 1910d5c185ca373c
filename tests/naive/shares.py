"""Shares of the types, one spot at a time."""

from __future__ import annotations

import numpy as np


def find_dominant(shares):
    """The first of the highest shares of each spot; -1 where one is NaN."""
    return np.array([-1 if np.isnan(row).any() else row.argmax() for row in shares], dtype=np.int64)
