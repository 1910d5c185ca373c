"""The least squares of the type level against an independent solution of the same convex problem."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from stdeconv_fast.kernels.cpu import least_squares as kernels
from tests.naive import least_squares as naive
from tests.problems import SIZES, graph_arrays, make_tissue, slope_left
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = pytest.mark.parametrize("size", SIZES)
STRENGTHS = pytest.mark.parametrize(
    ("lambda_spatial", "phi", "lambda_ridge"), [(0.0, 1.0, 1.0), (20.0, 0.9, 1.0), (100.0, 1.0, 0.5)]
)
STILL = {"float32": 1e-6, "float64": 1e-10}  # visits end where no abundance moves by more


def gaussian(tissue):
    """Products and Gram matrix of some least-squares problem in the types and spots of a tissue."""
    scale = 30 * np.sqrt(tissue.profiles)
    return 0.1 * np.log1p(tissue.counts) @ scale.T, scale @ scale.T


def solve(tissue, strengths, dtype, visits=400):
    """Visits of all spots in one call each, Gauss-Seidel in the order of the spots."""
    products, gram = gaussian(tissue)
    v = np.full(products.shape, 1 / products.shape[1], dtype)
    steps = np.zeros(len(v), np.int32)
    spots = np.arange(len(v), dtype=np.int32)
    arrays = (products.astype(dtype), gram.astype(dtype), *graph_arrays(tissue.attention, dtype))
    for _ in range(visits if strengths[0] else 1):
        before = v.copy()
        kernels.solve_spots_gaussian(*arrays, spots, 0, len(v), *strengths, 5000, 0.0, v, steps)
        if len(v) == 0 or np.abs(v - before).max() < STILL[np.dtype(dtype).name]:
            break
    return v


@cache
def naive_solution(size, strengths):
    tissue = make_tissue(*SIZES[size])
    return naive.solve_spots_gaussian(*gaussian(tissue), tissue.attention, *strengths)


@DTYPE
@SIZE
@STRENGTHS
def test_solution(size, dtype, lambda_spatial, phi, lambda_ridge):
    tissue, strengths = make_tissue(*SIZES[size]), (lambda_spatial, phi, lambda_ridge)
    v = solve(tissue, strengths, dtype)
    products, gram = gaussian(tissue)
    check("solve_spots_gaussian", v, naive_solution(size, strengths), dtype)
    _, slope = naive.gaussian_objective(products, gram, v.astype(float), tissue.attention, *strengths)
    check("slope of solve_spots_gaussian", slope_left(v, slope), np.zeros(v.shape), dtype)


@DTYPE
def test_only_the_spots_of_the_range_are_touched(dtype):
    tissue = make_tissue(*SIZES["130 spots"])
    n, n_types = tissue.truth.shape
    spots = np.random.default_rng(0).permutation(n).astype(np.int32)
    start, stop = 20, 37
    v, steps = np.full((n, n_types), 1 / n_types, dtype), np.full(n, -1, np.int32)
    products, gram = (part.astype(dtype) for part in gaussian(tissue))
    kernels.solve_spots_gaussian(
        products, gram, *graph_arrays(tissue.attention, dtype), spots, start, stop, 20.0, 1.0, 1.0, 5, 1e-3, v, steps
    )
    inside = np.zeros(n, bool)
    inside[spots[start:stop]] = True
    assert (v[~inside] == dtype(1 / n_types)).all() and (steps[~inside] == -1).all()
    assert (v[inside] != dtype(1 / n_types)).any(axis=1).all() and (steps[inside] >= 1).all()
