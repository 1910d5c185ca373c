"""Shares of the types against a loop over the spots."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import shares as kernels
from tests.naive import shares as naive


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_spots", "n_types"), [(0, 3), (12, 1), (130, 6)])
def test_dominant(n_spots, n_types, dtype):
    shares = np.random.default_rng(0).random((n_spots, n_types)).round(1).astype(dtype)  # with ties
    shares[3::7] = np.nan
    shares[5::11, -1] = np.nan
    codes = np.full(n_spots, -7)
    for start, stop in ((0, n_spots // 2), (n_spots // 2, n_spots)):
        kernels.find_dominant(shares, start, stop, codes)
    np.testing.assert_array_equal(codes, naive.find_dominant(shares))


def test_only_the_spots_of_the_range_are_written():
    codes = np.full(130, -7)
    kernels.find_dominant(np.random.default_rng(1).random((130, 4)), 20, 37, codes)
    assert (np.delete(codes, np.arange(20, 37)) == -7).all() and (codes[20:37] >= 0).all()
