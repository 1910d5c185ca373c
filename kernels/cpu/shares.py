"""Shares of the types: which is the highest."""

import numpy as np

from ..compile import kernel


@kernel()
def find_dominant(shares, start, stop, codes_out):
    """Find the type with the highest share of each spot, the first of equal ones; overwrites `codes_out`.

    Parameters
    ----------
    shares : (n_spots, n_types) float
    start, stop : int
        Range of spots.
    codes_out : (n_spots,) int64
        -1 where a share is NaN.
    """
    for i in range(start, stop):
        best, code = -np.inf, -1
        known = True
        for k in range(shares.shape[1]):
            share = shares[i, k]
            known &= share == share
            code = k if share > best else code
            best = max(share, best)
        codes_out[i] = code if known else -1
