"""objective="original": equal to runs of the original program, and what it does where that program drew at random."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, random_array

from benchmarks import original, original_plain
from stdeconv_fast import OriginalDraws, deconvolve, evaluate, simulate, tl
from stdeconv_fast.original_draws import draw_layers
from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.stages.original import cell_level, places, type_level

from .original_fixtures import NAMES, Fixture, first_stages, fit_types, refine, stage_errors

pytestmark = pytest.mark.filterwarnings("ignore:2 spots share their coordinates")  # of strong_spatial
QUIET = {"objective": "original", "progress": False}
WHOLE = 1e-4  # 8.3e-6: a run that makes its own Laplacian, whose small eigenvalues are those of float32


@pytest.fixture(scope="module", params=NAMES)
def fixture(request):
    return Fixture.load(request.param)


@pytest.fixture(scope="module")
def strong():
    return Fixture.load("strong_spatial")


@pytest.fixture(scope="module")
def tissue():
    return simulate(150, 60, 4, cells_per_type=20, counts_per_spot=200, grid="square", seed=5)


def solve(tissue, order=None, **settings):
    """Proportions in the tissue's order, the spots handed in in another."""
    order = np.arange(len(tissue.coordinates)) if order is None else order
    spots = tissue.spatial_frame().iloc[order]
    result = deconvolve(
        spots, tissue.reference_frame(), tissue.coordinate_frame(), tissue.label_series(), **{**QUIET, **settings}
    )
    return result.proportions.loc[tissue.spot_names].to_numpy()


# -- equal to the original ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", list(original.LIMITS))
def test_every_stage_is_that_of_the_original(fixture, stage):
    assert stage_errors(fixture)[stage] <= original.LIMITS[stage]


def test_the_same_cells_are_kept_in_the_same_order(fixture):
    kept = first_stages(fixture).kept
    np.testing.assert_array_equal(fixture.said["sc_cells"][kept], fixture.said["kept_cells"])
    assert len(kept) < len(fixture.said["sc_cells"]) or fixture.settings["max_cells_per_type"] > 15


def test_the_type_level_is_that_of_the_original_after_each_repeat(fixture):
    stages = first_stages(fixture)
    with hold_workers(2) as workers:
        for number, expected in enumerate(fixture.said["V_iters"]):
            np.testing.assert_allclose(fit_types(fixture, stages, number, workers), expected, rtol=0, atol=1e-10)


def test_sweeps_of_the_cell_level(fixture):
    stages, said = first_stages(fixture), fixture.said
    for turn, expected in enumerate(said["refined_cells_noise0_by_sweep"]):
        found = refine(fixture, stages, said["scaled_L_cell"], None, n_sweeps=turn + 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        shares = cell_level.sum_by_type(found, stages.cell_types, stages.n_types)
    np.testing.assert_allclose(shares, said["refined_noise0"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise", [False, True])
def test_whole_runs(fixture, noise):
    result = deconvolve(
        *fixture.tables, original_draws=fixture.draws(noise), cell_level=True, **QUIET, **fixture.settings
    )
    told = (result.status == "ok").to_numpy()
    key = "noise" if noise else "noise0"
    for found, expected in (
        (result.proportions.to_numpy(), f"refined_{key}"), (result.cell_weights.toarray(), f"refined_cells_{key}"),
    ):  # fmt: skip
        np.testing.assert_allclose(found[told], fixture.said[expected][told], rtol=0, atol=WHOLE)
    np.testing.assert_array_equal(result.cells, fixture.said["kept_cells"])
    np.testing.assert_array_equal(result.cell_types, fixture.said["kept_types"])
    assert list(result.proportions.columns) == list(fixture.said["types"])
    np.testing.assert_array_equal(result.proportions.index, fixture.said["st_spots"])


@pytest.mark.parametrize("name", ["small_hex", "strong_spatial"])
def test_neighbours_are_found_as_the_original_finds_them(name):
    """Where no two spots are equally near the lists need not be handed in: the spot itself and k - 1 others."""
    fixture = Fixture.load(name)
    result = deconvolve(*fixture.tables, original_draws=fixture.draws(index=False), **QUIET, **fixture.settings)
    told = (result.status == "ok").to_numpy()
    expected = fixture.said["refined_noise"][told]
    np.testing.assert_allclose(result.proportions.to_numpy()[told], expected, rtol=0, atol=WHOLE)


def test_noise_changes_the_answer(fixture):
    runs = [
        deconvolve(*fixture.tables, original_draws=fixture.draws(noise), **QUIET, **fixture.settings).proportions
        for noise in (False, True)
    ]
    assert np.nanmax(np.abs((runs[0] - runs[1]).to_numpy())) > 1e-6


@pytest.mark.parametrize(("key", "said"), [("eval_type", "type_level"), ("eval_noise0", "refined_noise0")])
def test_the_numbers_of_its_evaluation(fixture, key, said):
    types = list(fixture.said["types"])
    truth = pd.DataFrame(fixture.said["truth"], columns=list(fixture.said["truth_types"]))[types]
    found = evaluate(fixture.said[said], truth.to_numpy())
    for name, expected in json.loads(str(fixture.said[key])).items():
        assert found[name] == pytest.approx(expected, abs=1e-7), name


def test_the_plain_program_of_the_benchmark_is_the_original(fixture):
    """It is what ours is timed against; here ours is compared with it on other settings, too."""
    spots, reference, coordinates, labels = fixture.tables
    shared = [gene for gene in spots.columns if gene in set(reference.columns)]
    genes = reference.columns.get_indexer(shared), spots.columns.get_indexer(shared)
    codes = np.unique(labels.loc[reference.index], return_inverse=True)[1]
    draws = fixture.draws()
    arguments = (reference.to_numpy(), spots.to_numpy(), coordinates.loc[spots.index].to_numpy(), codes)
    layers = {"layers": (draws.projection, draws.in_proj, draws.bias), "n_heads": draws.n_heads, "genes": genes}
    found = original_plain.run(*arguments, **layers, noise=draws.noise, knn_index=draws.knn_index, **fixture.settings)
    np.testing.assert_allclose(found["weights"], fixture.said["refined_cells_noise"], rtol=0, atol=WHOLE)
    other = {"phi": 0.3, "lambda_cell": 0.2, "lambda_spatial": 40.0, "lambda_ridge": 0.0, "n_iter": 2, "k_neighbors": 3}
    draws = OriginalDraws(draws.projection, draws.in_proj, draws.bias, None, draws.knn_index[:, :3])
    found = original_plain.run(*arguments, **layers, knn_index=draws.knn_index, **other)
    result = deconvolve(*fixture.tables, original_draws=draws, **QUIET, **other)
    told = (result.status == "ok").to_numpy()
    np.testing.assert_allclose(result.proportions.to_numpy()[told], found["proportions"][told], rtol=0, atol=WHOLE)


# -- spots of which nothing can be said ----------------------------------------------------------------------------


def test_a_spot_without_counts_has_a_reason_and_no_numbers(strong):
    empty = ~strong.said["st_data"].any(axis=1)
    result = deconvolve(*strong.tables, cell_level=True, **QUIET, **strong.settings)
    assert empty.sum() == 1
    assert list(result.status[empty]) == ["no counts"] and (result.status[~empty] == "ok").all()
    np.testing.assert_array_equal(result.proportions.isna().all(axis=1), empty)
    np.testing.assert_array_equal(np.diff(result.cell_weights.indptr) == 0, empty)
    sums = result.cell_weights.toarray()[~empty] @ pd.get_dummies(result.cell_types).to_numpy(float)
    np.testing.assert_allclose(sums, result.proportions[~empty], atol=1e-7)


def test_spots_outside_the_tissue_take_no_part(tissue):
    spots, reference = tissue.to_anndata()
    inside = np.arange(spots.n_obs) % 7 > 0
    alone = tl.deconvolve(spots[inside].copy(), reference, cell_type_key="celltype", copy=True, **QUIET)
    spots.obs["in_tissue"] = inside
    whole = tl.deconvolve(spots, reference, cell_type_key="celltype", copy=True, **QUIET)
    assert set(whole.obs["stdeconv_status"][~inside]) == {"not in tissue"}
    assert whole.obsm["stdeconv"][~inside].isna().all(axis=None)
    np.testing.assert_allclose(whole.obsm["stdeconv"][inside], alone.obsm["stdeconv"], rtol=0, atol=1e-12)


# -- without draws ---------------------------------------------------------------------------------------------------


def test_the_same_bits_again_and_with_any_threads(tissue):
    first = solve(tissue, n_jobs=1)
    for n_jobs in (1, 2, 3):
        np.testing.assert_array_equal(solve(tissue, n_jobs=n_jobs), first)
    assert np.abs(solve(tissue, seed=1) - first).max() > 0


def test_the_order_of_the_spots_does_not_matter(tissue, rng):
    """On a square grid, where many spots are equally near, and with the neighbours' term strong."""
    settings = {"lambda_spatial": 3000.0, "k_neighbors": 4}
    first = solve(tissue, **settings)
    found = solve(tissue, rng.permutation(len(first)), **settings)
    np.testing.assert_allclose(found, first, rtol=0, atol=1e-5)
    assert np.abs(solve(tissue, **settings, phi=0.0, n_iter=1) - first).max() > 1e-5


def test_names_and_order_of_genes_do_not_matter(tissue, rng):
    first = solve(tissue)
    genes = rng.permutation(len(tissue.genes))
    spots, reference = tissue.spatial_frame().iloc[:, genes], tissue.reference_frame().iloc[:, genes]
    names = [f"other{i}" for i in range(len(genes))]
    spots.columns, reference.columns = names, names
    found = deconvolve(spots, reference, tissue.coordinate_frame(), tissue.label_series(), **QUIET)
    np.testing.assert_allclose(found.proportions, first, rtol=0, atol=1e-5)


def test_ties_are_cut_to_k_minus_1_neighbours(rng):
    points = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    i, j = np.nonzero((distance > 0) & (distance < 1.5))
    keys = rng.integers(0, 2**63, len(points)).astype(np.uint64)
    origins, targets, distances = places.take_nearest(i, j, distance[i, j], 3, keys)
    np.testing.assert_array_equal(np.bincount(origins), 3)
    np.testing.assert_array_equal(distances, distance[origins, targets])
    np.testing.assert_array_equal(distances, np.sort(distance, axis=1)[:, 1:4].ravel())
    middle = targets[origins == 14]
    assert len(set(middle)) == 3
    weights = places.weigh_places(origins, targets, distances, places.scale_places(origins, distances, 36))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-8)
    shuffled = rng.permutation(36)  # point p now stands at place[p]
    place = np.argsort(shuffled)
    again = places.take_nearest(place[i], place[j], distance[i, j], 3, keys[shuffled])
    assert set(shuffled[again[1][again[0] == place[14]]]) == set(middle)


def test_layers_hang_on_the_content_of_the_genes_alone(rng):
    keys = rng.integers(0, 2**63, 90).astype(np.uint64)
    layers, order = draw_layers(keys, 0), rng.permutation(90)
    np.testing.assert_array_equal(draw_layers(keys[order], 0).projection, layers.projection[:, order])
    bounds = (1 / np.sqrt(90), np.sqrt(6 / 256))
    for values, bound in zip((layers.projection, layers.in_proj), bounds, strict=True):
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.99 * bound
        assert abs(values.mean()) < 0.05 * bound and values.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
        assert len(np.unique(values)) == values.size


@pytest.mark.parametrize(("n_genes", "heads"), [(1, 1), (17, 1), (18, 2), (40, 2), (45, 3), (48, 4), (90, 4)])
def test_heads_divide_the_dimensions(n_genes, heads):
    """Where they do not the original stops with an assertion: the next lower number is taken."""
    assert draw_layers(np.arange(n_genes, dtype=np.uint64), 0).n_heads == heads


# -- the algebra -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_cells", "n_genes", "density"), [(12, 30, 0.5), (30, 12, 0.5), (40, 90, 0.05), (90, 40, 0.05)]
)
def test_one_factorisation_serves_every_spot(rng, n_cells, n_genes, density):
    cells = csr_matrix(random_array((n_cells, n_genes), density=density, rng=rng))
    spots, drawn = rng.random((4, n_genes)), rng.normal(size=(4, n_cells))
    shifts = np.array([2.0, 2.0 - 1e-8, 1e-2, 7e3])
    factor = cell_level.factorise(cells)
    assert factor.whole == (n_cells <= n_genes)
    dense = cells.toarray()
    for at in range(4):
        left = dense @ dense.T + shifts[at] * np.eye(n_cells)
        expected = np.linalg.solve(left, dense @ spots[at] + drawn[at])
        found = factor.solve(spots[at : at + 1] @ factor.genes, drawn[at : at + 1].copy(), shifts[at : at + 1])
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()))


def test_without_ridge_and_neighbours_nothing_is_lost(rng):
    """The left side is then almost singular: only the part of a spot that cells explain counts."""
    cells = csr_matrix(rng.random((30, 8)))
    factor = cell_level.factorise(cells)
    spot = rng.random((1, 8))
    found = factor.solve(spot @ factor.genes, np.zeros((1, 30)), np.array([1e-8]))
    np.testing.assert_allclose(found @ cells.toarray(), spot, atol=1e-6)


def test_groups_visit_the_spots_as_one_by_one(rng):
    n = 60
    weights = csr_matrix(random_array((n, n), density=0.06, rng=rng))
    weights.setdiag(0)
    weights.eliminate_zeros()
    order = rng.permutation(n)
    groups = cell_level.order_visits(weights, order)
    assert sorted(np.concatenate(groups)) == list(range(n)) and 1 < len(groups) < n / 2
    one, other, dense = rng.random(n), None, weights.toarray()
    other = one.copy()
    for i in order:
        one[i] = dense[i] @ one + 0.1 * i
    for group in groups:
        other[group] = dense[group] @ other + 0.1 * group
    np.testing.assert_allclose(other, one, rtol=1e-12)


@pytest.mark.parametrize(("strength", "most"), [(0.0, 1000), (1.0, 1000), (1e7, 1000), (1e4, 3)])
def test_conjugate_gradients_solve_what_dense_solves_do(rng, strength, most, monkeypatch):
    """Three steps do not bring them to the end: then a sparse factorisation solves."""
    n, phi, ridge = 80, 1.0, 0.5
    monkeypatch.setattr(type_level, "MOST_STEPS", most)
    points = rng.random((n, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=2) + 10 * np.eye(n)
    near = csr_matrix(np.where(np.argsort(np.argsort(distance, axis=1), axis=1) < 5, 0.2 - 1e-9, 0.0))
    spots, means = csr_matrix(rng.random((n, 20))), rng.random((3, 20))
    squares = (means**2).sum(axis=1)
    factored, splu = [], type_level.splu
    monkeypatch.setattr(type_level, "splu", lambda matrix: factored.append(1) or splu(matrix))
    with hold_workers(1) as workers:
        found = type_level.fit_types(
            spots, means, squares, near, phi=phi, lambda_spatial=strength, lambda_ridge=ridge, n_iter=3, workers=workers
        )
    expected = original_plain.fit_types(spots.toarray(), means, squares, near.toarray(), phi, strength, ridge, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    assert bool(factored) == (most == 3)


def test_the_benchmark_measures_and_marks_what_is_extrapolated(monkeypatch):
    for name, size in {"N_SPOTS": 40, "N_GENES": 30, "N_TYPES": 2, "SOLVES": 4, "REPEATS": 1}.items():
        monkeypatch.setattr(original, name, size)
    rows = [original.speed(40, whole=True), original.speed(60, whole=False)]
    assert rows[0]["difference"] < WHOLE and "difference" not in rows[1]
    assert [row["plain_solves_timed"] for row in rows] == [80, 4]
    assert rows[1]["plain_solves"] == pytest.approx(20 * rows[1]["plain"]["solves"])
    for row in rows:
        assert row["ours_whole"] == pytest.approx(row["ours"]["total"]) and row["ours_solves"] < row["ours_whole"]
        assert row["ratio_whole"] == pytest.approx(row["plain_whole"] / row["ours_whole"])
    parity = [{"fixture": name, "stage": stage, "error": 1e-5} for name in NAMES for stage in original.LIMITS]
    lines = original.told({"parity": parity, "speed": rows, "accuracy": []}).splitlines()
    assert sum("FAILED" in line for line in lines) == len(original.LIMITS) - 1  # the root may be off by 5e-5
    assert sum("(extrapolated)" in line and "(from 4)" in line for line in lines) == 1
