"""Cases for the CUDA twins: arguments, what the CPU kernel makes of them, and what the naive reference says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from stdeconv_fast.kernels.cpu import attention, cells, counts, fits, laplacian, least_squares, presence, spots
from tests import test_kernels_cells as cell_problems
from tests.naive import attention as naive_attention
from tests.naive import counts as naive_counts
from tests.naive import fits as naive_fits
from tests.naive import laplacian as naive_laplacian
from tests.naive import least_squares as naive_least_squares
from tests.naive import presence as naive_presence
from tests.naive import spots as naive_spots
from tests.problems import Tissue, csr_arrays, graph_arrays, make_tissue, score_arrays, spot_arrays

# spots, genes, types: around the width of a warp, and up to the largest Hessian that the shared memory of sm_75 holds
SIZES = {
    "no spots": (0, 6, 3),
    "one type": (12, 9, 1),
    "31 types": (6, 70, 31),
    "32 types": (6, 70, 32),
    "33 types": (6, 70, 33),
    "64 types": (4, 90, 64),
    "100 types": (3, 130, 100),
    "130 spots": (130, 40, 6),
}
STRENGTHS = (20.0, 0.9, 1.0)
GUARD = -7
MOST_NAIVE = 4  # rows that the slow references are asked for


@dataclass(frozen=True)
class Case:
    """One launch. `expected`: tolerance and value of the naive reference for some outputs, by number."""

    kernel: Any
    n: int
    before: tuple
    after: tuple
    expected: dict[int, tuple[str, np.ndarray]]
    shape: tuple[int, ...] | None = None
    rows: np.ndarray | None = None  # that the naive reference tells; by default all

    def sent(self) -> tuple:
        return self.kernel.__module__, self.kernel.__name__, self.n, self.before, self.after, self.shape

    def by_cpu(self) -> list[np.ndarray]:
        """What the CPU kernel writes."""
        after = tuple(value.copy() if isinstance(value, np.ndarray) else value for value in self.after)
        after += () if self.shape is None else (np.zeros(self.shape),)
        self.kernel(*self.before, 0, self.n, *after)
        return [value for value in after if isinstance(value, np.ndarray)]


def of(stem: str, size: str, dtype: Any) -> Iterator[Case]:
    """The cases of a stem."""
    return globals()[f"_{stem}"](SIZES[size], np.dtype(dtype).type)


def narrow(dtype: Any) -> bool:
    """Counts and genes in two bytes go with float32, so that few builds cover both."""
    return dtype is np.float32


def near(tissue, dtype, seed=1):
    """Abundances near the truth, some 0."""
    rng = np.random.default_rng(seed)
    v = tissue.truth * rng.uniform(0.8, 1.2, tissue.truth.shape) + 0.01
    v[(rng.random(v.shape) < 0.3) & (v < 0.1)] = 0
    return v.astype(dtype)


@cache
def alone_answer(size, most):
    """The naive solution without neighbours; by spot, since the dense Hessian is of all spots at once."""
    tissue = make_tissue(*size)
    out = np.zeros(tissue.truth.shape)
    for i in range(min(len(out), most)):
        one = Tissue(tissue.counts[[i]], tissue.profiles, tissue.gene_weights, tissue.truth[[i]], np.zeros((1, 1)))
        out[i] = naive_spots.solve_spots(one, one.attention, 0.0, 1.0, 1.0)[0]
    return out


def with_neighbours(tissue, i):
    """A spot and its neighbours: all that the naive visit looks at, and their rows."""
    near = np.flatnonzero(tissue.attention[i] > 0)
    rows = np.concatenate([[i], near])
    attention = np.zeros((len(rows), len(rows)))
    attention[0, 1:] = attention[1:, 0] = tissue.attention[i, near]
    return Tissue(tissue.counts[rows], tissue.profiles, tissue.gene_weights, tissue.truth[rows], attention), rows


def _spots(size, dtype):
    tissue = make_tissue(*size)
    n, n_types = tissue.truth.shape
    alone = 0 * tissue.attention
    arrays = spot_arrays(tissue, dtype, narrow(dtype))
    every = np.arange(n, dtype=np.int32)
    answer = alone_answer(size, MOST_NAIVE)
    for warm, most, tolerance in ((0, 40, 0.0), (10, 40, 1e-3), (10, 0, 0.0), (0, 1, 1e-3)):
        start, steps = np.full((n, n_types), 1 / n_types, dtype), np.full(n, GUARD, np.int32)
        yield Case(
            spots.solve_spots, n, (*arrays, *graph_arrays(alone, dtype), every),
            (0.0, 1.0, 1.0, warm, most, tolerance, start, steps),
            {0: ("solve_spots", answer)} if tolerance == 0 and most else {}, rows=every[:MOST_NAIVE],
        )  # fmt: skip
    graph = graph_arrays(tissue.attention, dtype)
    colours = naive_laplacian.colour_spots(tissue.attention > 0, range(n))
    for colour in range(min(colours.max(initial=-1) + 1, 3)):
        chosen = np.flatnonzero(colours == colour).astype(np.int32)
        for start in (near(tissue, dtype), np.full((n, n_types), 1 / n_types, dtype)):
            for relax in (1.0, 1.5):
                wide = start.astype(float)
                expected = wide.copy()
                moves = np.full(n, GUARD, dtype)
                for i in chosen[:MOST_NAIVE]:
                    part, rows = with_neighbours(tissue, i)
                    expected[i] = naive_spots.visit_spots(part, wide[rows], 0, part.attention, *STRENGTHS, relax, 1e-3)
                told = moves.astype(float)
                told[chosen] = np.abs(expected - wide).max(axis=1)[chosen]
                yield Case(
                    spots.visit_spots, len(chosen), (*arrays, *graph, chosen),
                    (*STRENGTHS, relax, 1e-3, start.copy(), moves),
                    {0: ("one visit", expected), 1: ("one visit", told)}, rows=chosen[:MOST_NAIVE],
                )  # fmt: skip
    if n > 2:  # types that hold nothing, spots that hold nothing
        empty = near(tissue, dtype)
        empty[1] = 0
        yield Case(
            spots.visit_spots, 2, (*arrays, *graph, np.array([0, 1], np.int32)),
            (*STRENGTHS, 1.0, 1e-3, empty, np.full(n, GUARD, dtype)), {},
        )  # fmt: skip


def _least_squares(size, dtype):
    tissue = make_tissue(*size)
    n, n_types = tissue.truth.shape
    rng = np.random.default_rng(6)
    profiles = rng.random((n_types, 3 * n_types + 5))
    gram = profiles @ profiles.T + 0.3 * n_types * np.eye(n_types)
    products = (tissue.truth + rng.normal(0, 0.3, tissue.truth.shape)) @ gram
    every = np.arange(n, dtype=np.int32)
    few = min(n, MOST_NAIVE)
    answer = np.zeros((n, n_types))
    alone = np.zeros((few, few))
    answer[:few] = naive_least_squares.solve_spots_gaussian(products[:few], gram, alone, *STRENGTHS)
    still = 1e-7 if narrow(dtype) else 1e-11
    for linked, most, tolerance in ((0 * tissue.attention, 3000, still), (tissue.attention, 2, 0.0)):
        chosen = every if tolerance else every[:1]
        yield Case(
            least_squares.solve_spots_gaussian, len(chosen),
            (products.astype(dtype), gram.astype(dtype), *graph_arrays(linked, dtype), chosen),
            (*STRENGTHS, most, tolerance, near(tissue, dtype), np.full(n, GUARD, np.int32)),
            {0: ("solve_spots_gaussian", answer)} if tolerance else {}, rows=every[:MOST_NAIVE],
        )  # fmt: skip


def _laplacian(size, dtype):
    tissue = make_tissue(*size)
    n, n_types = tissue.truth.shape
    rng = np.random.default_rng(4)
    graph = graph_arrays(tissue.attention, dtype)
    yield Case(
        laplacian.apply_laplacian, n, (*graph, tissue.truth.astype(dtype), 0.8),
        (np.full((n, n_types), GUARD, dtype),),
        {0: ("apply_laplacian", naive_laplacian.apply_laplacian(tissue.attention, tissue.truth, 0.8))},
    )  # fmt: skip
    visited = rng.random(n) < 0.6
    moves = np.where(visited, rng.uniform(0, 0.3, n), 0).astype(dtype)
    owed = rng.uniform(0, 0.1, n).astype(dtype)
    ranks = naive_laplacian.colour_spots(tissue.attention > 0, range(n)).astype(np.int32)
    for relax in (1.0, 1.6):
        expected = naive_laplacian.owe_moves(
            tissue.attention, ranks, moves.astype(float), visited, *STRENGTHS, relax, owed.astype(float)
        )
        yield Case(
            laplacian.owe_moves, n, (*graph, ranks, moves, visited, *STRENGTHS, relax), (owed.copy(),),
            {0: ("owe_moves", expected)},
        )  # fmt: skip
    factor = rng.uniform(0.5, 1.5, tissue.attention.shape)
    fresh = tissue.attention * (np.triu(factor, 1) + np.triu(factor, 1).T)
    weights, degrees = graph_arrays(fresh, dtype)[2:]
    expected = naive_laplacian.owe_shift(tissue.attention, fresh, tissue.truth, *STRENGTHS, owed.astype(float))
    before = (*graph[:3], weights, graph[3], degrees, tissue.truth.astype(dtype), *STRENGTHS)
    yield Case(laplacian.owe_shift, n, before, (owed.copy(),), {0: ("owe_shift", expected)})


def _attention(size, dtype):
    tissue = make_tissue(*size)
    n, n_types = tissue.truth.shape
    rng = np.random.default_rng(4)
    indptr, indices, _ = csr_arrays(tissue.attention, np.float64)
    rows = np.repeat(np.arange(n), np.diff(indptr))
    place = tissue.attention * (rng.random(tissue.attention.shape) < 0.8)
    sums = place.sum(axis=1, keepdims=True)
    place = place / np.where(sums > 0, sums, 1)
    v = tissue.truth * rng.uniform(0.5, 2.0, (n, 1))
    v[2::5] = 0
    means = naive_attention.neighbourhood_means(place > 0, v)
    edges = (indptr, indices)
    sums = v.sum(axis=1)
    inverses = np.divide(1, sums, out=np.zeros(n), where=sums > 0)
    yield Case(
        attention.invert_sums, n, (v.astype(dtype),), (np.full(n, GUARD, dtype),), {0: ("invert_sums", inverses)}
    )
    yield Case(
        attention.root_neighbourhoods, n,
        (*edges, place[rows, indices], v.astype(dtype), inverses.astype(dtype)),
        (np.full((n, n_types), GUARD, dtype),), {0: ("root_neighbourhoods", np.sqrt(means))},
    )  # fmt: skip
    squares = naive_attention.compare(means)[rows, indices]
    yield Case(
        attention.compare_edges, n, (*edges, np.sqrt(means).astype(dtype)), (np.full(len(indices), GUARD, dtype),),
        {0: ("compare_edges", squares)},
    )  # fmt: skip
    held = np.repeat(squares[::3], 3)[: len(squares)].astype(dtype)  # some alike
    for low, shift, n_steps in ((0, 51, 4096), (1015 << 52, 49, 64), (1021 << 52, 50, 7)):
        counted = naive_attention.count_squares(place[rows, indices], held, low, shift, n_steps)
        yield Case(
            attention.count_squares, len(indices), (place[rows, indices], held, low, shift), (),
            {0: ("count_squares", counted)}, (n_steps + 1,),
        )  # fmt: skip
    directed = place * np.exp(-naive_attention.compare(means) / 0.6)
    symmetric = (directed + directed.T) / 2
    reverse = naive_laplacian.link_reverse(indptr, indices)
    yield Case(
        attention.attend_edges, n, (indptr, reverse, place[rows, indices], 0.3),
        (squares.astype(dtype), np.full(n, GUARD, dtype), np.full(n, float(GUARD))),
        {
            0: ("attend_edges", symmetric[rows, indices]), 1: ("attend_edges", symmetric.sum(axis=1)),
            2: ("attend_edges", directed.sum(axis=1)),
        },
    )  # fmt: skip
    yield Case(
        attention.symmetrise_edges, n, (indptr, reverse, directed[rows, indices]),
        (np.full(len(indices), GUARD, dtype), np.full(n, GUARD, dtype)),
        {0: ("symmetrise_edges", symmetric[rows, indices]), 1: ("symmetrise_edges", symmetric.sum(axis=1))},
    )  # fmt: skip


def _counts(size, dtype):
    dense = make_tissue(*size).counts
    n, n_genes = dense.shape
    rng = np.random.default_rng(3)
    indptr, indices, data = csr_arrays(dense, np.uint16 if narrow(dtype) else dtype)
    indices = indices.astype(np.uint16) if narrow(dtype) else indices
    arrays = (indptr, indices, data)
    gene_map = np.full(n_genes, -1, np.int32)
    kept = rng.permutation(n_genes)[: 2 * n_genes // 3]
    gene_map[kept] = rng.permutation(len(kept))
    rows = rng.permutation(n)[: max(1, 3 * n // 4)].astype(np.int64)
    yield Case(counts.sum_genes, len(rows), (*arrays, rows), (), {0: ("sum_segments", naive_counts.sum_genes(dense, rows))}, (n_genes,))  # noqa: E501
    weights, segments = rng.random(n), rng.integers(-1, 3, n).astype(np.int32)
    expected = naive_counts.sum_segments(dense, weights, segments, 3)
    yield Case(
        counts.sum_segments, n, (*arrays, weights, segments), (), {0: ("sum_segments", expected)}, (3, n_genes)
    )
    lengths, totals = naive_counts.count_kept(dense, gene_map, rows)
    yield Case(
        counts.count_kept, len(rows), (*arrays, gene_map, rows),
        (np.full(len(rows), GUARD), np.full(len(rows), float(GUARD))),
        {0: ("sum_segments", lengths), 1: ("sum_segments", totals)},
    )  # fmt: skip
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    yield Case(
        counts.gather_kept, len(rows), (*arrays, gene_map, rows, ends),
        (np.full(ends[-1], 9, indices.dtype), np.full(ends[-1], 9, data.dtype)), {},
    )  # fmt: skip
    row_keys, gene_keys = (rng.integers(0, 2**64, size, dtype=np.uint64) for size in (n, n_genes))
    fit = naive_counts.thin_counts(dense, row_keys, gene_keys, 0.8)
    at = (np.repeat(np.arange(n), np.diff(indptr)), indices)
    yield Case(
        counts.thin_counts, n, (*arrays, row_keys, gene_keys, 0.8), (np.full_like(data, 9), np.full_like(data, 9)),
        {0: ("sum_segments", fit[at]), 1: ("sum_segments", (dense - fit)[at])},
    )  # fmt: skip
    if not narrow(dtype):  # the normal limit of the binomial
        large = 100_000 * data
        yield Case(
            counts.thin_counts, n, (indptr, indices, large, row_keys, gene_keys, 0.8),
            (np.full_like(data, 9), np.full_like(data, 9)), {},
        )  # fmt: skip
    yield Case(counts.key_rows, n, (*arrays, gene_keys), (np.zeros(n, np.uint64),), {})


def _fits(size, dtype):
    tissue = make_tissue(*size)
    n, n_types = tissue.truth.shape
    v = (0.9 * tissue.truth + 0.1 / n_types).astype(dtype)
    arrays = spot_arrays(tissue, dtype, narrow(dtype))
    plain = score_arrays(tissue, dtype, weighted=False)
    kept = (*arrays[:3], *plain[3:])
    direction = np.random.default_rng(1).normal(size=size[1])
    along = (direction, tissue.profiles @ direction, tissue.profiles @ direction**2)
    expected = naive_fits.measure_fits(tissue, v.astype(float), direction)
    named = zip(("measure_deviance", "score_misfit", "sum_excess"), expected, strict=True)
    before, spare = (*kept[:5], tissue.profiles.sum(axis=1), *along), np.full(n, float(GUARD))
    yield Case(
        fits.measure_fits, n, (*before, v), (spare, spare.copy()), dict(enumerate(named)),
        (2, size[1]),
    )  # fmt: skip
    weighted = score_arrays(tissue, dtype)
    quarter = weighted[3] * dtype(0.25)
    expected = naive_fits.score_spots(tissue, 0.25 * tissue.counts.sum(axis=1), v.astype(float))
    held = (arrays[0], arrays[1], weighted[2], quarter, *weighted[4:])
    yield Case(fits.score_spots, n, (*held, v), (np.full(n, float(GUARD)),), {0: ("score_spots", expected)})
    yield Case(
        fits.sum_excess, n, (*kept[:5], v), (), {0: ("sum_excess", naive_fits.sum_excess(tissue, v.astype(float)))},
        (size[1],),
    )  # fmt: skip
    contents = np.linspace(0.4, 1.6, n_types).astype(dtype)
    degrees, some = graph_arrays(tissue.attention, dtype)[3], few_above(tissue, dtype)
    spreads = tissue.gene_weights**2 * np.linspace(1, 9, size[1])
    rows = np.arange(min(n, MOST_NAIVE))
    few = Tissue(tissue.counts[rows], tissue.profiles, tissue.gene_weights, tissue.truth[rows], tissue.attention[rows])
    for spatial, ridge, scatter in ((20.0, 1.0, spreads), (20.0, 1.0, tissue.gene_weights), (0.0, 0.0, spreads)):
        told = {}
        if ridge:
            wanted = (some[rows].astype(float), contents.astype(float), few.attention, spatial, ridge, scatter)
            told = {0: ("measure_errors, scatter", naive_fits.measure_errors(few, *wanted))}
        yield Case(
            fits.measure_errors, n,
            (*arrays[:4], scatter.astype(dtype), arrays[5], degrees, contents, some),
            (spatial, ridge, np.full(v.shape, float(GUARD))), told, rows=rows,
        )  # fmt: skip
    if n > 2:  # a seen gene that is not expected
        none = np.zeros_like(v)
        yield Case(fits.score_spots, n, (*held, none), (np.full(n, float(GUARD)),), {})
        yield Case(fits.measure_fits, n, (*before, none), (spare, spare.copy()), {}, (2, size[1]))


def few_above(tissue, dtype):
    """Abundances with types at 0; from three spots on one spot has none above 0, another only one."""
    v = (tissue.truth + 0.02) * (np.random.default_rng(len(tissue.counts)).random(tissue.truth.shape) < 0.7)
    if len(v) > 2:
        v[1] = v[2] = 0
        v[2, -1] = 0.9
    return v.astype(dtype)


def _presence(size, dtype):
    whole = make_tissue(min(size[0], 20), *size[1:])
    n, n_types = whole.truth.shape
    arrays = spot_arrays(whole, dtype, narrow(dtype))
    spreads = whole.gene_weights**2 * np.linspace(1, 5, size[1])
    degrees = graph_arrays(whole.attention, dtype)[3]
    v = whole.truth + 0.02
    v[np.argsort(np.argsort(-v, axis=1), axis=1) >= 6] = 0  # what is at 0 is not asked
    v = v.astype(dtype)
    rows = np.arange(min(n, 2))
    few = Tissue(whole.counts[rows], whole.profiles, whole.gene_weights, whole.truth[rows], whole.attention[rows])
    for spatial in (0.0, 20.0):
        pulls = 0.9 * spatial * whole.attention @ v.astype(float)
        told = {}
        if n_types > 1:
            wanted = (few, v[rows].astype(float), spreads, pulls[rows], spatial, 1.0)
            told = {0: ("weigh_presence", naive_presence.weigh_presence(*wanted))}
        yield Case(
            presence.weigh_presence, n,
            (*arrays[:4], spreads.astype(dtype), *arrays[4:], degrees, pulls, v),
            (spatial, 1.0, np.full(v.shape, float(GUARD))), told, rows=rows,
        )  # fmt: skip


def _cells(size, dtype):
    cell_problems.SIZES["cuda"] = size
    posed = cell_problems.seen(cell_problems.problem("cuda", n_cells=3 if size[2] > 30 else 5))
    n, n_cells = len(posed.counts), len(posed.cells)
    roots = np.sqrt(posed.gene_w)
    scaled = posed.cells * roots
    starts = np.searchsorted(posed.cell_types, np.arange(size[2] + 1)).astype(np.int64)
    rng = np.random.default_rng(8)
    second = rng.random((n, n_cells)) * (rng.random((n, n_cells)) < 0.4)
    raw = csr_arrays(posed.counts, np.uint16 if narrow(dtype) else dtype)
    raw = (raw[0], raw[1].astype(np.uint16) if narrow(dtype) else raw[1], raw[2])
    for old, dense, least, most in ((None, True, 1e-12, 300), (second, False, 1e-12, 300), (second, False, 0.02, 7),
                                    (None, False, 0.01, 2)):  # fmt: skip
        before = (
            *raw, posed.counts.sum(axis=1).astype(dtype), roots.astype(dtype), *csr_arrays(scaled, dtype),
            np.ascontiguousarray(scaled[: None if dense else 0], dtype), (scaled**2).sum(axis=1).astype(dtype), starts,
            *graph_arrays(posed.links, dtype), *graph_arrays(posed.attention, dtype), posed.abundances.astype(dtype),
            *csr_arrays(np.zeros((n, n_cells)) if old is None else old, dtype),
        )  # fmt: skip
        after = (
            posed.anchor, posed.ridge, posed.cell, posed.spatial, cell_problems.LEAST_SHARE, least, 2,
            np.full(n, GUARD), np.full((n, most), GUARD, np.int32), np.full((n, most), GUARD, dtype),
        )  # fmt: skip
        expected = {}
        if least < 1e-6 and n_cells < 100:
            few = replace(posed, counts=posed.counts[:MOST_NAIVE])
            expected = {3: ("sweep_cells", cell_problems.by_naive(few, old, 2))}
        yield Case(cells.sweep_cells, n, before, after, expected)
