"""Attention on whole tissues: the formula, its normalisations, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from stdeconv_fast.parallel import Workers, hold_workers
from stdeconv_fast.stages import attention as stage
from stdeconv_fast.stages import graph as places
from tests.naive import attention as naive
from tests.problems import dense_of, edge_rows, hexagonal, inside
from tests.test_graph import link
from tests.tolerances import check

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def attend(graph, abundances):
    with hold_workers(1) as workers:
        return stage.attend(graph, abundances, workers)


def by_place(graph, dtype=np.float64):
    with hold_workers(1) as workers:
        return stage.attend_by_place(graph, np.dtype(dtype), workers)


def tissue(kind, n_types=5):
    """Places, sections and abundances of one kind of tissue."""
    rng = np.random.default_rng(3)
    places = hexagonal(10, 12) if kind != "random" else rng.uniform(0, 1000, (120, 2))
    sections = np.zeros(120, np.int32)
    if kind == "sections":
        sections[60:] = 1
        sections[-1] = 2  # a section of one spot
    abundances = rng.dirichlet(np.full(n_types, 0.4), 120) * rng.uniform(0.5, 2, (120, 1))
    if kind == "empty spots":
        abundances[5:9] = 0
    return places, sections, abundances


@DTYPE
@pytest.mark.parametrize("kind", ["grid", "random", "sections", "empty spots"])
def test_attention_is_the_formula_of_the_model(kind, dtype):
    places, sections, abundances = tissue(kind)
    graph = link(places, 6, sections)
    linked = dense_of(graph, graph.place) > 0
    factors = naive.spatial_factors(places, linked)
    expected = naive.attend(factors, abundances)
    links = attend(graph, abundances.astype(dtype))
    assert links.weights.dtype == links.degrees.dtype == dtype
    found = dense_of(links, links.weights)
    check("attend", found, expected, dtype)
    check("attend", links.degrees, expected.sum(axis=1), dtype)
    np.testing.assert_array_equal(found, found.T)
    rows = naive.directed(factors, abundances).sum(axis=1)
    assert abs(rows[rows > 0].mean() - 1) < 1e-12
    # (A + A') / 2 leaves the sum of all weights: their mean over linked spots stays 1
    assert abs(links.weights.sum(dtype=float) / (rows > 0).sum() - 1) < 1e-6
    assert rows[rows > 0].std() > 0.05  # rows are not made equal: no softmax


def test_place_alone_is_the_symmetric_part_of_the_rows():
    places, sections, _ = tissue("sections")
    graph = link(places, 6, sections)
    factors = naive.spatial_factors(places, dense_of(graph, graph.place) > 0)
    sums = factors.sum(axis=1, keepdims=True)
    rows = factors / np.where(sums > 0, sums, 1)
    links = by_place(graph)
    check("attend", dense_of(links, links.weights), (rows + rows.T) / 2)


@DTYPE
def test_equal_compositions_give_place_alone(dtype):
    """All h are 0: attention is place, whatever the totals of the spots."""
    places, sections, _ = tissue("random")
    graph = link(places, 6, sections)
    totals = np.random.default_rng(0).uniform(0.5, 2, (120, 1))
    links = attend(graph, (totals * [0.5, 0.3, 0.2]).astype(dtype))
    check("attend", links.weights, by_place(graph).weights, dtype)


def test_a_border_gets_less_than_the_inside():
    places = hexagonal(14, 14)
    left = places[:, 0] < np.median(places[:, 0])
    rng = np.random.default_rng(1)
    abundances = np.where(left[:, None], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]) + rng.uniform(0, 0.05, (196, 3))
    graph = link(places)
    links = attend(graph, abundances)
    rows = edge_rows(links)
    middle = inside(places)[rows] & inside(places)[links.indices]
    across = middle & (left[rows] != left[links.indices])
    within = middle & (left[rows] == left[links.indices])
    assert across.sum() > 20
    assert links.weights[across].max() < 0.5 * np.median(links.weights[within])
    at_border = np.zeros(196, bool)
    at_border[rows[across]] = True
    assert links.degrees[at_border].max() < np.median(links.degrees[inside(places) & ~at_border])


def test_types_permute_without_change():
    places, sections, abundances = tissue("random")
    graph = link(places, 6, sections)
    order = np.random.default_rng(0).permutation(abundances.shape[1])
    permuted = attend(graph, np.ascontiguousarray(abundances[:, order]))
    check("attend", permuted.weights, attend(graph, abundances).weights)


@DTYPE
@pytest.mark.parametrize("n_edges", [1, 2, 7, 1000, 200_001])
@pytest.mark.parametrize("kind", ["spread", "alike", "faint", "both", "zero"])
def test_the_median_is_exact(kind, n_edges, dtype):
    """As by sorting; whatever lies below the first count, with ties, and where the two in the middle are far apart."""
    rng = np.random.default_rng(n_edges)
    squares = {
        "spread": rng.uniform(0, 2, n_edges), "alike": rng.integers(0, 3, n_edges) / 3,
        "faint": 10.0 ** rng.uniform(-42, -4, n_edges), "zero": np.zeros(n_edges),
        "both": np.where(np.arange(n_edges) % 2, 1e-9, 1.5),
    }[kind].astype(dtype)  # fmt: skip
    few = rng.permutation(n_edges) < n_edges // 10
    for place in (np.ones(n_edges), np.where(few, 0.0, 0.2)):
        for n_jobs in (1, 3):
            with hold_workers(n_jobs) as workers:
                found = stage.median_square(place, squares, workers)
            assert found == np.median(squares[place > 0].astype(np.float64))
    with hold_workers(1) as workers:
        assert stage.median_square(np.zeros(n_edges), squares, workers) == 0


def test_no_edges():
    graph = link(hexagonal(1, 1))
    links = attend(graph, np.ones((1, 3)))
    assert len(links.weights) == 0 and links.degrees.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roughness_is_gearys_ratio(dtype):
    """0.5 sum a_ij |x_i - x_j|^2 over sum d_i |x_i|^2, by place; smooth maps are below, a shuffled one is near 1."""
    rng = np.random.default_rng(0)
    where = np.argwhere(np.ones((20, 20))).astype(float)
    workers = Workers(1, None)
    links = places.link_spots(where, np.zeros(400, np.int32), 6, rng.integers(0, 2**63, 400).astype(np.uint64), workers)
    smooth = np.stack([where[:, 0] + 1, 40 - where[:, 0]], 1)
    found = {}
    for name, values in (("smooth", smooth), ("shuffled", rng.permutation(smooth))):
        found[name] = stage.measure_roughness(links, values.astype(dtype), workers)
        alone = stage.attend_by_place(links, np.dtype(np.float64), workers)
        x = values / values.sum(axis=1, keepdims=True)
        x = x - x.mean(axis=0)
        row = np.repeat(np.arange(400), np.diff(alone.indptr))
        apart = ((x[row] - x[alone.indices]) ** 2).sum(axis=1)
        expected = 0.5 * (alone.weights * apart).sum() / (alone.degrees[:, None] * x**2).sum()
        assert found[name] == pytest.approx(expected, rel=1e-4)
    assert found["smooth"] < 0.05 and 0.9 < found["shuffled"] < 1.1
    assert np.isnan(stage.measure_roughness(places.no_neighbours(400), smooth, workers))
