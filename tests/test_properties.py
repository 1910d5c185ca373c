"""Properties that hold for every input of the field's domain, found out by hypothesis: see also benchmarks/fuzz.py."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse as sp

import stdeconv_fast as sd
from benchmarks.fuzz import judge_shares

N_GENES = 12
GOOD = st.one_of(st.integers(0, 5), st.sampled_from([0, 0, 0, 1, 70_000, 10**9]))
ODD = st.sampled_from([np.nan, np.inf, -1.0, 0.5, 1e13, 1e300, -0.0])
PLACES = st.one_of(
    st.floats(-1e3, 1e3), st.integers(0, 3).map(float), st.sampled_from([0.0, 1e-300, 1e99, -1e99, 5e15])
)
FORMS = st.sampled_from([("int32", False), ("float32", True), ("float64", True), ("uint16", False), (">i4", False)])


@st.composite
def tables(draw, values, most=7):
    rows = draw(st.integers(1, most))
    return draw(arrays.arrays(np.float64, (rows, N_GENES), elements=values, fill=st.just(0.0)))


def deconvolve(*arguments, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sd.DataWarning)
        return sd.deconvolve(*arguments, progress=False, n_jobs=1, **more)


def answered(result, n_spots):
    """Rows sum to 1, or are NaN with a status that says why."""
    assert len(result.proportions) == n_spots
    assert judge_shares(result.proportions, result.status) is None


@settings(max_examples=40)
@given(
    spots=tables(GOOD), cells=tables(GOOD), form=FORMS,
    places=st.lists(st.tuples(PLACES, PLACES), min_size=7, max_size=7),
    types=st.lists(st.sampled_from(["a", "b", "c/d", "", None]), min_size=7, max_size=7),
)  # fmt: skip
def test_raw_counts_give_an_answer_or_a_clear_error(spots, cells, form, places, types):
    dtype, sparse = form
    with np.errstate(all="ignore"):
        spots = spots.astype(dtype)
    places, types = np.array(places[: len(spots)]), types[: len(cells)]
    try:
        result = deconvolve(sp.csr_matrix(spots) if sparse else spots, cells, places, types)
    except sd.DataError as fault:
        assert str(fault)
        return
    answered(result, len(spots))


@settings(max_examples=30)
@given(spots=tables(st.one_of(GOOD, ODD)), cells=tables(st.one_of(GOOD, ODD)), whole=st.booleans())
def test_what_is_no_count_never_gets_through(spots, cells, whole):
    bad = ~np.isfinite(spots).all() or (spots < 0).any() or ~np.isfinite(cells).all() or (cells < 0).any()
    places, types = np.arange(2.0 * len(spots)).reshape(-1, 2), ["a", "b", "c"] * 3
    try:
        result = deconvolve(spots, cells, places, types[: len(cells)], check_counts=whole)
    except sd.DataError as fault:
        assert str(fault)
        return
    assert not bad
    answered(result, len(spots))


@pytest.mark.parametrize("platform", ["pooled", "auto"])
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), n_types=st.integers(1, 4))
def test_the_answer_permutes_with_its_input(platform, seed, n_types):
    rng = np.random.default_rng(seed)
    n_cells = n_types + int(rng.integers(6))
    spots, cells = rng.poisson(3, (6, N_GENES)), rng.poisson(2, (n_cells, N_GENES)) + 1
    places, types = rng.random((6, 2)), np.array([f"t{i % n_types}" for i in range(n_cells)])
    one = deconvolve(spots, cells, places, types, platform=platform).proportions.to_numpy()
    rows, genes, order = rng.permutation(6), rng.permutation(N_GENES), rng.permutation(n_cells)
    other = deconvolve(
        spots[rows][:, genes], cells[order][:, genes], places[rows], types[order], platform=platform
    ).proportions.to_numpy()
    np.testing.assert_allclose(one[rows], other, atol=2e-3)
