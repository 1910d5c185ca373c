"""The drop-in class: the original's call, what it accepts, and what each of its settings does."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast import AttentionRegressionDeconv as FromTop
from stdeconv_fast import DataError, simulate
from stdeconv_fast.attention_regression_deconv import AttentionRegressionDeconv
from stdeconv_fast.settings import Settings

QUIET = {"progress": False}
POSITIONS = [
    ("sc_data", None), ("st_data", None), ("st_coordinates", None), ("celltype", None), ("phi", 0.8),
    ("lambda_cell", 1.0), ("lambda_spatial", 1.0), ("lambda_ridge", 1.0), ("max_cells_per_type", 1000), ("n_iter", 5),
    ("n_jobs", -1), ("k_neighbors", 6),
]  # fmt: skip
LEAST = 1e-4  # what a change of a setting must move at least


@pytest.fixture(scope="module")
def tissue():
    """Smooth tissue with few counts, so that neighbours matter."""
    return simulate(240, 120, 5, counts_per_spot=60, cells_per_type=25, seed=3)


def frames(tissue):
    return tissue.reference_frame(), tissue.spatial_frame(), tissue.coordinate_frame(), tissue.label_series()


def model_of(tissue, coordinates=None, **settings):
    reference, spots, places, labels = frames(tissue)
    places = places if coordinates is None else coordinates
    return AttentionRegressionDeconv(reference, spots, places, labels, **{**QUIET, **settings})


def shares(tissue, **settings):
    return model_of(tissue, **{"cell_level": False, **settings}).run()[0]


def roughness(tissue, proportions):
    """Mean squared difference between spots at distance 1."""
    xy = tissue.coordinates
    i, j = np.nonzero(np.linalg.norm(xy[:, None] - xy, axis=2) < 1.1)
    values = proportions.to_numpy()
    return ((values[i] - values[j])[i != j] ** 2).sum(axis=1).mean()


def likeness(tissue, proportions):
    """Correlation of spots with spots at distance 1 (Moran's I), over all types."""
    xy = tissue.coordinates
    i, j = np.nonzero(np.abs(np.linalg.norm(xy[:, None] - xy, axis=2) - 1) < 0.1)
    values = (proportions - proportions.mean()).to_numpy()
    return (values[i] * values[j]).sum(axis=1).mean() / (values**2).sum(axis=1).mean()


def moved(one, other):
    return float((one - other).abs().max(axis=None))


def test_the_call_of_the_original(tissue):
    """Same call with tables and with arrays, same two answers."""
    sc_data, st_data, st_coordinates, celltype = frames(tissue)
    model = AttentionRegressionDeconv(
        sc_data, st_data, st_coordinates, celltype, phi=0.8, lambda_cell=1.0, lambda_spatial=1.0, lambda_ridge=1.0,
        max_cells_per_type=10, n_iter=5, n_jobs=-1, k_neighbors=6, progress=False,
    )  # fmt: skip
    proportions, seconds = model.run()
    assert isinstance(proportions, pd.DataFrame) and isinstance(seconds, float) and seconds > 0
    assert proportions.index.tolist() == tissue.spot_names and proportions.columns.tolist() == tissue.types
    np.testing.assert_allclose(proportions.sum(axis=1), 1, atol=1e-6)

    arrays = AttentionRegressionDeconv(
        sc_data.to_numpy(), st_data.to_numpy(), st_coordinates.to_numpy(), celltype.to_numpy(), max_cells_per_type=10,
        progress=False,
    )  # fmt: skip
    from_arrays, _ = arrays.run()
    assert isinstance(from_arrays, pd.DataFrame)
    assert from_arrays.index.tolist() == [f"spot_{i}" for i in range(240)]
    np.testing.assert_allclose(from_arrays.to_numpy(), proportions.to_numpy(), atol=1e-5)


def test_signature():
    parameters = inspect.signature(AttentionRegressionDeconv).parameters
    by_place = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, None if p.default is p.empty else p.default) for p in by_place] == POSITIONS
    usual = Settings(cell_level=True)
    for field in fields(Settings):
        assert parameters[field.name].default == getattr(usual, field.name), field.name
    assert FromTop is AttentionRegressionDeconv


def test_positional_arguments_land_where_they_should(tissue):
    model = AttentionRegressionDeconv(*frames(tissue), 0.7, 2.0, 3.0, 4.0, 11, 3, 1, 5, progress=False)
    for name, value in zip([name for name, _ in POSITIONS[4:]], (0.7, 2.0, 3.0, 4.0, 11, 3, 1, 5), strict=True):
        assert getattr(model.settings, name) == value


def test_again_gives_the_same_bits(tissue):
    model = model_of(tissue, max_cells_per_type=5)
    first, second = model.run()[0], model.run()[0]
    np.testing.assert_array_equal(first.to_numpy(), second.to_numpy())
    alone = model_of(tissue, max_cells_per_type=5, n_jobs=1).run()[0]
    np.testing.assert_array_equal(alone.to_numpy(), first.to_numpy())


def test_cell_weights_add_up_to_the_proportions(tissue):
    model = model_of(tissue, max_cells_per_type=5)
    proportions, _ = model.run()
    weights = model.cell_weights
    assert weights.shape == (240, 25) and model.proportions is proportions and model.result.proportions is proportions
    member = pd.get_dummies(model.result.cell_types)[tissue.types].to_numpy(dtype=float)
    np.testing.assert_allclose(weights @ member, proportions.to_numpy(), atol=1e-6)
    assert set(model.result.cells) <= set(tissue.cell_names)


def test_evaluate(tissue):
    model = model_of(tissue, cell_level=False)
    proportions, _ = model.run()
    scores = model.evaluate(proportions, tissue.truth.iloc[::-1, ::-1])
    assert list(scores)[:6] == ["mse", "mae", "r2", "pearson", "spearman", "cosine"]
    assert scores["pearson"] > 0.7
    assert model.evaluate(proportions, None) is None


def test_repr_and_missing_result(tissue):
    model = model_of(tissue, phi=0.5)
    assert repr(model) == "AttentionRegressionDeconv(phi=0.5, progress=False)"
    with pytest.raises(AttributeError, match=r"call run\(\) first"):
        _ = model.proportions


def test_faults_are_found_in_the_constructor(tissue):
    reference, spots, places, labels = frames(tissue)
    with pytest.raises(DataError, match="`phi` must be a number from 0 to 1; got 1.5"):
        AttentionRegressionDeconv(reference, spots, places, labels, 1.5)
    spots.iloc[2, 3] = -1
    with pytest.raises(DataError, match="finite and >= 0"):
        AttentionRegressionDeconv(reference, spots, places, labels)


def test_sections_cut_links(tissue):
    halves = np.where(tissue.coordinates[:, 0] < np.median(tissue.coordinates[:, 0]), "left", "right")
    assert moved(shares(tissue, sections=halves), shares(tissue)) > LEAST


@pytest.mark.parametrize("tune", [True, False])
def test_lambda_spatial_smooths(tissue, tune):
    maps = [shares(tissue, lambda_spatial=value, tune=tune) for value in (0.0, 0.3, 1.0, 5.0)]
    rough = [roughness(tissue, each) for each in maps]
    assert rough == sorted(rough, reverse=True)
    assert min(moved(a, b) for a, b in zip(maps, maps[1:], strict=False)) > LEAST
    assert moved(maps[0], shares(tissue, k_neighbors=0, tune=tune)) == 0


def test_phi_listens_to_the_neighbours(tissue):
    """The higher, the more a spot is like its neighbours; at 0 their counts do not matter at all."""
    maps = [shares(tissue, phi=value, tune=False) for value in (0.0, 0.5, 1.0)]
    alike = [likeness(tissue, each) for each in maps]
    assert alike == sorted(alike)
    assert min(moved(a, b) for a, b in zip(maps, maps[1:], strict=False)) > LEAST

    reference, spots, places, labels = frames(tissue)
    near = np.argsort(np.linalg.norm(tissue.coordinates - tissue.coordinates[100], axis=1))[1:7]
    other = spots.copy()
    other.iloc[near] = spots.iloc[near].to_numpy()[:, ::-1]  # the neighbours of spot 100 become something else
    change = {}
    for value in (0.0, 1.0):
        fixed = {**QUIET, "phi": value, "tune": False, "attention": False, "platform": "none", "cell_level": False}
        models = [AttentionRegressionDeconv(reference, each, places, labels, **fixed) for each in (spots, other)]
        one, two = (model.run()[0] for model in models)
        change[value] = (one - two).iloc[100].abs().max()
    assert change[0.0] < 0.1 * change[1.0]


def test_phi_with_tuning_is_one_of_the_values_tried(tissue):
    """With tuning phi is chosen by score; on most tissues 1.0 wins, whatever phi was given."""
    model = model_of(tissue, phi=0.37, cell_level=False)
    model.run()
    chosen = model.result.strengths
    last = [t for t in chosen.path if t["graph"] == "attention" and t["lambda_spatial"] == chosen.lambda_spatial]
    assert chosen.lambda_spatial > 0 and 0.37 in {t["phi"] for t in last}
    assert chosen.phi == max(last, key=lambda t: t["score"])["phi"]
    alone = model_of(tissue, phi=0.37, k_neighbors=0, cell_level=False)
    alone.run()
    assert alone.result.strengths.lambda_spatial == 0 and alone.result.strengths.phi == 0.37


def test_phi_that_foretells_best_is_taken_and_changes_the_result():
    """With tuning a given phi that beats the grid's own values wins: a better score, another answer."""
    changed = 0
    for kind, counts, seed in (("domains", 300, 5), ("bins", 120, 3)):
        some = simulate(200, 200, 4, kind=kind, counts_per_spot=counts, seed=seed)
        first, second = (model_of(some, phi=value, cell_level=False) for value in (0.8, 0.995))
        shares = [model.run()[0].to_numpy() for model in (first, second)]
        old, new = first.result.strengths, second.result.strengths
        scores = [max(row["score"] for row in each.path if row["graph"] == "attention") for each in (old, new)]
        assert scores[1] >= scores[0]
        if new.phi == 0.995:
            assert scores[1] > scores[0]
            assert np.abs(shares[1] - shares[0]).max() > 1e-4
            changed += 1
    assert changed > 0


@pytest.mark.parametrize("tune", [True, False])
def test_lambda_ridge_evens_out(tissue, tune):
    maps = [shares(tissue, lambda_ridge=value, tune=tune) for value in (0.0, 1.0, 30.0)]
    extreme = [each.max(axis=1).mean() for each in maps]
    if not tune:  # tuning may choose another smoothing for another ridge
        assert extreme == sorted(extreme, reverse=True)
    assert min(moved(a, b) for a, b in zip(maps, maps[1:], strict=False)) > LEAST


@pytest.mark.parametrize("tune", [True, False])
def test_more_neighbours_smooth_more(tissue, tune):
    few, many = (shares(tissue, k_neighbors=value, tune=tune) for value in (6, 18))
    assert moved(few, many) > LEAST
    if not tune:  # tuning may choose another strength for the wider graph
        assert roughness(tissue, many) < roughness(tissue, few)


@pytest.mark.parametrize("tune", [True, False])
def test_passes_bring_attention_in(tissue, tune):
    once = model_of(tissue, n_iter=1, tune=tune, cell_level=False)
    more = model_of(tissue, n_iter=5, tune=tune, cell_level=False)
    assert moved(once.run()[0], more.run()[0]) > LEAST
    # place alone: all six neighbours of an inner spot weigh the same; attention tells them apart
    spread = [np.ptp(model.result.graph.weights) for model in (once, more)]
    assert spread[1] > 1.5 * spread[0]


@pytest.mark.parametrize("tune", [True, False])
def test_cells_of_a_type(tissue, tune):
    maps = {}
    for most in (3, 12):
        model = model_of(tissue, max_cells_per_type=most, tune=tune)
        maps[most] = model.run()[0]
        assert model.cell_weights.shape[1] == 5 * most
    assert moved(maps[3], maps[12]) > LEAST


@pytest.mark.parametrize("tune", [True, False])
def test_lambda_cell_draws_similar_cells_together(tissue, tune):
    """Weights of the cells of a type become more alike, measured against their mean in the spot."""
    spread, maps = [], []
    for value in (0.0, 1.0, 20.0):
        model = model_of(tissue, lambda_cell=value, max_cells_per_type=12, tune=tune)
        maps.append(model.run()[0])
        weights = model.cell_weights.toarray().reshape(240, 5, 12)
        means = weights.mean(axis=2)
        seen = means > 0.01
        spread.append(float((weights.std(axis=2)[seen] / means[seen]).mean()))
    assert spread == sorted(spread, reverse=True)
    assert min(moved(a, b) for a, b in zip(maps, maps[1:], strict=False)) > LEAST


def test_false_places_cost_accuracy(tissue):
    places = tissue.coordinate_frame()
    shuffled = places.sample(frac=1, random_state=0).set_axis(places.index)
    right, wrong = (model_of(tissue, each, cell_level=False) for each in (places, shuffled))
    scores = [model.evaluate(model.run()[0], tissue.truth)["pearson"] for model in (right, wrong)]
    assert scores[0] > scores[1] + 0.02
    fixed = [model_of(tissue, each, cell_level=False, tune=False, phi=1.0) for each in (places, shuffled)]
    scores = [model.evaluate(model.run()[0], tissue.truth)["pearson"] for model in fixed]
    assert scores[0] > scores[1] + 0.02
