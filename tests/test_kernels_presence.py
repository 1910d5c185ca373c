"""Likelihood ratios against the absence of a type, against dense float64, and their chance under the null."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import presence as kernels
from tests.naive import presence as naive
from tests.problems import SIZES, graph_arrays, make_tissue, spot_arrays
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def statistics_of(tissue, v, spreads, pulls, lambda_spatial, lambda_ridge, dtype, rows=None):
    indptr, indices, data, gene_weights, totals, profiles_t, sums = spot_arrays(tissue, dtype)
    degrees = graph_arrays(tissue.attention, dtype)[3]
    found = np.full(v.shape, -7.0)
    kernels.weigh_presence(
        indptr, indices, data, gene_weights, spreads.astype(dtype), totals, profiles_t, sums, degrees, pulls,
        v.astype(dtype), *(rows or (0, len(v))), lambda_spatial, lambda_ridge, found,
    )  # fmt: skip
    return found


@DTYPE
@pytest.mark.parametrize("size", ["no spots", "one spot", "31 types", "130 spots"])
@pytest.mark.parametrize("lambda_spatial", [0.0, 20.0])
def test_statistics(size, lambda_spatial, dtype):
    tissue = make_tissue(*SIZES[size])
    keep = slice(0, 12)
    tissue = type(tissue)(
        tissue.counts[keep], tissue.profiles, tissue.gene_weights, tissue.truth[keep], tissue.attention[keep, keep]
    )
    v = tissue.truth + 0.02
    if len(v) > 2:
        v[1, 0] = 0  # at its bound: nothing is asked
    pulls = 0.9 * lambda_spatial * tissue.attention @ v
    spreads = tissue.gene_weights**2 * np.linspace(1, 5, tissue.counts.shape[1])
    found = statistics_of(tissue, v, spreads, pulls, lambda_spatial, 1.0, dtype)
    expected = naive.weigh_presence(tissue, v, spreads, pulls, lambda_spatial, 1.0)
    assert (found >= 0).all() and (found[v == 0] == 0).all()
    check("weigh_presence", found, expected, dtype)


def test_the_only_type_is_there_where_there_are_counts():
    tissue = make_tissue(*SIZES["one type"])
    found = statistics_of(tissue, np.full((12, 1), 0.8), tissue.gene_weights, np.zeros((12, 1)), 0, 1, np.float64)
    assert (found[:-1] == np.inf).all() and found[-1] == 0  # the last spot has no counts


def test_only_the_spots_of_the_range_are_written():
    tissue = make_tissue(*SIZES["130 spots"])
    v = tissue.truth + 0.1
    found = statistics_of(tissue, v, tissue.gene_weights, np.zeros(v.shape), 0.0, 1.0, np.float64, (20, 37))
    assert (np.delete(found, np.arange(20, 37), axis=0) == -7).all() and (found[20:37] >= 0).all()


def test_absent_types_are_found_no_more_often_than_they_should():
    """Poisson counts of spots without the first type: half the statistics are 0, the rest chi-square."""
    rng = np.random.default_rng(5)
    base = make_tissue(1, 60, 4, seed=5)
    n = 600
    truth = np.tile([0.0, 0.4, 0.35, 0.25], (n, 1))
    counts = rng.poisson(1500 * truth @ base.profiles).astype(float)
    tissue = type(base)(counts, base.profiles, np.ones(60), truth, np.zeros((n, n)))
    found = statistics_of(tissue, truth + 0.1, np.ones(60), np.zeros((n, 4)), 0.0, 0.0, np.float64)
    assert 0.4 < (found[:, 0] < 1e-3).mean() < 0.6
    for level, bound in ((0.05, 2.7055), (0.01, 5.4119)):  # P(chi2_1 > bound) / 2
        assert abs((found[:, 0] > bound).mean() - level) < 4 * np.sqrt(level / n)
    assert (found[:, 1:] > 5.4).mean() > 0.95
