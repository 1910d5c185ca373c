"""The search over settings."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import stdeconv_fast as sd
from stdeconv_fast.parcels import Reference
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs import read_inputs
from stdeconv_fast.studies import search, trials
from tests.test_studies import permuted

KEY = "celltype"
GRID = {"lambda_spatial": [0.0, 1.0, 20.0], "phi": [0.8, 1.0]}


@pytest.fixture(scope="module")
def tissue():
    """Wide domains, few counts: smoothing helps much."""
    return sd.simulate(
        n_spots=150, n_genes=60, n_types=4, kind="domains", n_domains=3, counts_per_spot=60, seed=2, as_anndata=True
    )


def search_of(tissue, **changes):
    return sd.tune(*tissue, **{"cell_types": KEY, "grid": GRID, "tune": False, **changes})


@pytest.fixture(scope="module")
def tuned(tissue):
    return search_of(tissue)


def test_the_table_and_the_best(tissue, tuned):
    table = tuned.table
    assert list(table.columns) == ["lambda_spatial", "phi", "score", "seconds", "note"]
    assert list(table[["lambda_spatial", "phi"]].itertuples(index=False, name=None)) == [
        (strength, phi) for strength in GRID["lambda_spatial"] for phi in GRID["phi"]
    ]
    top = table.loc[table["score"].idxmax()]
    assert tuned.best == {"lambda_spatial": top["lambda_spatial"], "phi": top["phi"]} and tuned.best["lambda_spatial"]
    assert table["score"][0] == table["score"][1] > 0  # without smoothing phi means nothing; the types tell something
    assert (table["note"] == "").all() and (table["seconds"] > 0).all()
    assert repr(tuned).startswith("Tuning(lambda_spatial=") and "best of 6 by held_out" in repr(tuned)
    sd.deconvolve(*tissue, cell_types=KEY, progress=False, tune=False, **tuned.best)


def test_held_out_counts_find_what_the_truth_prefers():
    tissue = sd.simulate(
        n_spots=150, n_genes=60, n_types=4, kind="domains", n_domains=3, counts_per_spot=60, seed=2
    )
    pair = tissue.to_anndata()
    strengths = [0.0, 1.0, 20.0]
    found = search_of(pair, grid={"lambda_spatial": strengths}).table["score"]
    settings = {"cell_types": KEY, "progress": False, "tune": False}
    errors = [
        sd.evaluate(sd.deconvolve(*pair, **settings, lambda_spatial=value).proportions, tissue.truth)["rmse"]
        for value in strengths
    ]
    assert np.argsort(-found).tolist() == np.argsort(errors).tolist() == [1, 0, 2]


def test_order_and_jobs_change_nothing(tissue, tuned):
    other = search_of((permuted(tissue[0], 0), permuted(tissue[1], 1)), jobs=2)
    np.testing.assert_allclose(other.table["score"], tuned.table["score"], atol=1e-5)
    assert other.best == tuned.best
    threads = search_of(tissue, jobs=2)
    np.testing.assert_array_equal(threads.table["score"], tuned.table["score"])
    assert (search_of(tissue, seed=1).table["score"] != tuned.table["score"]).all()


@pytest.mark.slow
def test_processes_and_dask(tissue, tuned):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        np.testing.assert_array_equal(search_of(tissue).table["score"], tuned.table["score"])
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None),
        joblib.parallel_config(backend="dask"),
    ):
        np.testing.assert_array_equal(search_of(tissue).table["score"], tuned.table["score"])


def test_score_against_a_plain_one(rng):
    """Three spots, four shared genes of which two are kept."""
    held, fitted = rng.integers(0, 5, (3, 4)), np.array([9.0, 4.0, 6.0, 1.0])
    known = Reference(
        profiles=rng.random((2, 2)) + 0.1, gene_factors=np.ones(2), gene_weights=np.ones(2),
        kept_genes=np.array([1, 2]), mrna_content=np.ones(2), platform_log2_sd=0.0, platform="none",
    )  # fmt: skip
    abundances, rows = np.array([[0.3, 0.7], [0.0, 0.0]]), np.array([0, 2])
    from scipy.sparse import csr_matrix

    task = trials.Task(None, "held_out", csr_matrix(held), fitted, None)
    pool = (fitted + 0.5) / (fitted + 0.5).sum()
    share = abundances[0] @ known.profiles / (abundances[0] @ known.profiles).sum()
    predicted = np.tile(pool, (3, 1))
    predicted[0, [1, 2]] = share * pool[[1, 2]].sum()
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    expected = (held * np.log(predicted / pool)).sum() / held.sum()
    found = trials.score_held_out(task, known, abundances, rows)["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_split_keeps_every_count(tissue):
    inputs = read_inputs(*tissue, None, KEY, settings=Settings())
    task = trials.set_task(inputs, "held_out", 0)
    parts = task.inputs.spots[:, inputs.spot_genes] + task.shared
    assert (parts != inputs.spots[:, inputs.spot_genes]).nnz == 0
    assert abs(task.shared.sum() / parts.sum() - 0.2) < 0.02


def test_unsupervised_parts(tissue):
    found = search_of(tissue, score="unsupervised", grid={"lambda_spatial": [0.0, 50.0]}).table
    assert list(found.columns) == ["lambda_spatial", "score", "reconstruction", "coherence", "seconds", "note"]
    np.testing.assert_allclose(found["score"], (found["reconstruction"] + found["coherence"]) / 2)
    assert found["coherence"][1] > found["coherence"][0]  # smoothing does that by itself
    assert found["reconstruction"][1] < found["reconstruction"][0]
    assert found[["reconstruction", "coherence"]].le(1).all(axis=None)


def test_unsupervised_against_a_plain_one(tissue):
    inputs = read_inputs(*tissue, None, KEY, settings=Settings())
    task = trials.set_task(inputs, "unsupervised", 0)
    n, links = len(inputs.coordinates), task.links.toarray()
    np.testing.assert_allclose(links.sum(axis=1), 1)
    rng = np.random.default_rng(0)
    profiles, abundances = rng.random((4, len(inputs.genes))), rng.random((n, 4))
    known = Reference(profiles, None, None, np.arange(len(inputs.genes)), None, 0.0, "none")
    found = trials.score_unsupervised(task, known, abundances, np.arange(n))
    counts, mean = inputs.spots.toarray()[:, inputs.spot_genes], abundances @ profiles
    cosine = (counts * mean).sum(axis=1) / np.linalg.norm(counts, axis=1) / np.linalg.norm(mean, axis=1)
    shares = abundances / abundances.sum(axis=1, keepdims=True)
    correlations = [np.corrcoef(shares[:, k], links @ shares[:, k])[0, 1] for k in range(4)]
    np.testing.assert_allclose(found["reconstruction"], cosine.mean())
    np.testing.assert_allclose(found["coherence"], shares.mean(axis=0) @ correlations)


def test_types_and_genes_may_differ_between_trials(tissue):
    types = sorted(tissue[1].obs[KEY].unique())
    grid = {"exclude_types": [[], types[:1]], "cell_level": [False, True], "loss": ["poisson", "gaussian"]}
    table = search_of(tissue, grid=grid, max_cells_per_type=10).table
    assert table["exclude_types"].tolist() == [()] * 4 + [(types[0],)] * 4
    assert table["score"].nunique() == 8 and table["score"].notna().all()
    assert table["score"][0] > table["score"][4]  # without a type that is there less is told


def test_random_points(tissue):
    grid = {"lambda_ridge": stats.loguniform(0.01, 10), "k_neighbors": stats.randint(4, 9), "phi": [0.8, 0.9]}
    points = search._points(grid, 5, 0)
    assert len(points) == 5 and points == search._points(dict(reversed(grid.items())), 5, 0)
    assert points[:3] == search._points(grid, 3, 0) != search._points(grid, 3, 1)
    assert all(type(point["k_neighbors"]) is int and 0.01 <= point["lambda_ridge"] <= 10 for point in points)
    assert len(search._points({"phi": [0.8, 0.9, 0.8]}, 5, 0)) == 2  # there are no more
    assert len(search._points({"phi": np.array([0.8, 0.9, 0.8])}, None, 0)) == 2
    table = search_of(tissue, grid=grid, n_trials=2).table
    assert table[list(grid)].to_dict("records") == points[:2]


def test_a_killed_search_goes_on(tissue, tuned, tmp_path, monkeypatch):
    folder, run = tmp_path / "search", trials.attempt
    ran = []

    def dies(task, settings):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(settings)
        return run(task, settings)

    with monkeypatch.context() as patched:
        patched.setattr(search, "attempt", dies)
        with pytest.raises(KeyboardInterrupt):
            search_of(tissue, work_folder=folder)
    with pytest.raises(sd.DataError, match="which holds a run.*resume=True"):
        search_of(tissue, work_folder=folder)
    with monkeypatch.context() as patched:
        patched.setattr(search, "attempt", lambda task, settings: ran.append(settings) or run(task, settings))
        found = search_of(tissue, work_folder=folder, resume=True)
        assert len(ran) == 6
        np.testing.assert_array_equal(found.table["score"], tuned.table["score"])
        more = {"lambda_spatial": [5.0, 0.0], "phi": [1.0]}
        again = search_of(tissue, grid=more, work_folder=folder, resume=True, n_jobs=1)
        assert len(ran) == 7 and again.table["score"][1] == found.table["score"][1]
    for changes, told in (
        ({"seed": 1}, "seed 1 for 0"), ({"score": "unsupervised"}, "score unsupervised for held_out"),
    ):  # fmt: skip
        with pytest.raises(sd.DataError, match=f"must be of the same run; got {told}"):
            search_of(tissue, work_folder=folder, resume=True, **changes)
    with pytest.raises(sd.DataError, match="must be of the same run; got .*spots"):
        search_of((tissue[0][1:].copy(), tissue[1]), work_folder=folder, resume=True)


def test_a_damaged_row_is_run_again(tissue, tuned, tmp_path):
    folder = tmp_path / "search"
    search_of(tissue, work_folder=folder)
    one = sorted(folder.glob("store/trials/*.npz"))[0]
    one.write_bytes(one.read_bytes()[:40])
    found = search_of(tissue, work_folder=folder, resume=True)
    np.testing.assert_array_equal(found.table["score"], tuned.table["score"])


def test_a_trial_that_cannot_run_is_told(tissue, monkeypatch):
    with monkeypatch.context() as patched:
        run = trials.pipeline.run

        def fails(inputs, settings, **more):
            if settings.phi == 1.0:
                raise sd.DataError("`phi` must please me; got 1.")
            return run(inputs, settings, **more)

        patched.setattr(trials.pipeline, "run", fails)
        found = search_of(tissue, grid={"phi": [1.0, 0.8]})
        assert found.table["score"].isna().tolist() == [True, False] and found.best == {"phi": 0.8}
        assert found.table["note"].tolist() == ["`phi` must please me; got 1.", ""]
        with pytest.raises(sd.DataError, match="`grid` must hold settings that can run; got none.*must please me"):
            search_of(tissue, grid={"phi": [1.0]})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"grid": {}}, "`grid` must map settings to lists of values; got {}"),
        ({"grid": {"lambda": [1]}}, "`grid` must name settings among phi, .*; got 'lambda'"),
        ({"grid": {"n_jobs": [1]}}, "`grid` must name settings among"),
        ({"grid": {"phi": 0.8}}, "`grid` must map 'phi' to a list of values; got 0.8"),
        ({"grid": {"phi": []}}, "`grid` must map 'phi'"),
        ({"grid": {"phi": "auto"}}, "`grid` must map 'phi'"),
        ({"grid": {"phi": stats.uniform()}}, "must hold lists without `n_trials`; got a distribution for 'phi'"),
        ({"grid": {"phi": [2.0]}}, "`phi` must be a number from 0 to 1; got 2.0"),
        ({"phi": 0.8}, "`grid` must not name what is passed as a setting; got 'phi' in both"),
        ({"score": "truth"}, "`score` must be one of held_out, unsupervised; got 'truth'"),
        ({"n_trials": 0}, "`n_trials` must be a whole number >= 1 or None; got 0"),
        ({"jobs": 0}, "`jobs` must be a whole number other than 0, or None; got 0"),
        ({"resume": True}, "`resume` must be False without a work folder"),
        ({"grid": {"exclude_types": [["none"]]}}, "`exclude_types` must be among the cell types"),
        ({"grid": {"min_cells_per_type": [1, 10**6]}}, "settings must leave a type; got none"),
        ({"grid": {"min_shared_genes": [10, 61]}}, "`min_shared_genes` must be at most the number of shared genes, 60"),
        ({"cell_types": "types"}, "must have the column 'types'"),
    ],
)
def test_refusals(tissue, changes, match):
    with pytest.raises(sd.DataError, match=match):
        search_of(tissue, **changes)


def test_values_that_are_no_counts_are_not_held_out(tissue):
    scaled = tissue[0].copy()
    scaled.X = scaled.X * 0.5
    with pytest.warns(sd.DataWarning, match="no raw counts"):  # noqa: SIM117
        with pytest.raises(sd.DataError, match="`score` must be 'unsupervised'"):
            search_of((scaled, tissue[1]), check_counts=False)
    with pytest.warns(sd.DataWarning, match="no raw counts"):
        found = search_of((scaled, tissue[1]), check_counts=False, score="unsupervised", grid={"phi": [0.8]})
    assert found.best == {"phi": 0.8}


def test_built_references(tissue, tuned):
    built = sd.build_reference(tissue[1], KEY)
    found = sd.tune(tissue[0], built, grid=GRID, tune=False)
    np.testing.assert_array_equal(found.table["score"], tuned.table["score"])
    types = [built.types[:1]]
    whole = search_of(tissue, grid={"exclude_types": types}).table["score"]
    assert sd.tune(tissue[0], built, grid={"exclude_types": types}, tune=False).table["score"][0] == whole[0]
    small = sd.build_reference(tissue[1], KEY, keep_cells=False)
    np.testing.assert_array_equal(sd.tune(tissue[0], small, grid=GRID, tune=False).table["score"], found.table["score"])
    for grid in ({"exclude_types": types}, {"cell_level": [True]}):
        with pytest.raises(sd.DataError, match="must hold the counts of its cells"):
            sd.tune(tissue[0], small, grid=grid)


def test_tl_tune(tissue, tuned):
    before = tissue[0].copy()
    found = sd.tl.tune(*tissue, GRID, cell_type_key=KEY, tune=False)
    assert found.best == tuned.best and isinstance(found.table, pd.DataFrame)
    assert list(tissue[0].obsm) == list(before.obsm) and list(tissue[0].uns) == list(before.uns)
    with pytest.raises(sd.DataError, match="`adata_st` must be an AnnData"):
        sd.tl.tune(before.X, tissue[1], GRID)


def test_tl_tune_takes_as_many_cells_as_tl_deconvolve(tissue, monkeypatch):
    monkeypatch.setattr(search, "tune", lambda *tables, **options: options)
    for grid, options, most in (
        ({"cell_level": [False, True]}, {}, 100), ({"phi": [1.0]}, {"cell_level": True}, 100),
        ({"cell_level": [True]}, {"max_cells_per_type": 7}, 7), ({"phi": [1.0]}, {}, None),
        ({"cell_level": [True], "max_cells_per_type": [5]}, {}, None),
    ):  # fmt: skip
        assert sd.tl.tune(*tissue, grid, cell_type_key=KEY, **options).get("max_cells_per_type") == most


def test_spots_without_counts_and_lone_spots(tissue):
    """A usable spot alone in its section has no neighbours; an empty one is left out."""
    spots = tissue[0][:40].copy()
    spots.X = (spots.X.multiply((np.arange(40) != 3)[:, None])).tocsr()
    spots.obs["section"] = ["a"] * 39 + ["b"]
    given = {"cell_types": KEY, "sections": "section"}
    for score in trials.SCORES:
        with pytest.warns(sd.DataWarning, match="more than 1 section can give"):
            found = sd.tune(spots, tissue[1], **given, grid={"phi": [0.8]}, score=score)
        assert np.isfinite(found.table["score"][0])
    with pytest.warns(sd.DataWarning):
        inputs = read_inputs(spots, tissue[1], None, **given, settings=Settings())
    links = trials.set_task(inputs, "unsupervised", 0).links
    assert links[39].nnz == 0 and links[3].nnz == 0
    np.testing.assert_allclose(np.asarray(links[:3].sum(axis=1)).ravel(), 1)
