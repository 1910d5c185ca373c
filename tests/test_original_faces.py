"""objective="original": the class, scanpy's face and the command line, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from stdeconv_fast import (
    AttentionRegressionDeconv,
    DataError,
    DataTypeError,
    OriginalDraws,
    Settings,
    deconvolve,
    open_spots,
    simulate,
    tl,
)

from .original_fixtures import Fixture

pytestmark = pytest.mark.filterwarnings("ignore:2 spots share their coordinates")  # of strong_spatial
QUIET = {"objective": "original", "progress": False}


@pytest.fixture(scope="module")
def strong():
    return Fixture.load("strong_spatial")


@pytest.fixture(scope="module")
def tissue():
    return simulate(150, 60, 4, cells_per_type=20, counts_per_spot=200, grid="square", seed=5)


def solve(tissue, **settings):
    return deconvolve(
        tissue.spatial_frame(), tissue.reference_frame(), tissue.coordinate_frame(), tissue.label_series(),
        **QUIET, **settings,
    ).proportions.to_numpy()  # fmt: skip


# -- faces -----------------------------------------------------------------------------------------------------------


def test_the_class_gives_the_same(strong):
    spots, reference, coordinates, labels = strong.tables
    arguments = {"original_draws": strong.draws(), **QUIET, **strong.settings}
    model = AttentionRegressionDeconv(reference, spots, coordinates, labels, **arguments)
    found, _ = model.run()
    expected = deconvolve(*strong.tables, **arguments)
    pd.testing.assert_frame_equal(found, expected.proportions)
    assert model.cell_weights.shape == (len(found), len(reference)) and expected.cell_weights is None
    assert "objective='original'" in repr(model)


def test_scanpy_face_and_command_line(tissue, tmp_path):
    spots, reference = tissue.to_anndata()
    spots.write_h5ad(tmp_path / "spots.h5ad")
    reference.write_h5ad(tmp_path / "reference.h5ad")
    expected = solve(tissue)
    found = tl.deconvolve(spots, reference, cell_type_key="celltype", copy=True, cell_level=True, **QUIET)
    np.testing.assert_allclose(found.obsm["stdeconv"], expected, rtol=0, atol=1e-12)
    assert found.uns["stdeconv_params"]["settings"]["max_cells_per_type"] == 1000
    with open_spots(tmp_path / "spots.h5ad") as store:
        streamed = deconvolve(store, reference, cell_types="celltype", **QUIET)
    np.testing.assert_allclose(streamed.proportions, expected, rtol=0, atol=1e-12)
    from stdeconv_fast.cli import main

    command = ["run", "spots.h5ad", "reference.h5ad", "--cell-type-key", "celltype", "--set", "objective=original"]
    command = [str(tmp_path / part) if part.endswith("h5ad") else part for part in command]
    done = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "out.h5ad"), "--csv", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    written = pd.read_csv(tmp_path / "out.csv", index_col=0)
    np.testing.assert_allclose(written, expected, rtol=0, atol=1e-6)


def test_sections_are_never_neighbours(tissue):
    """Two sections with the same spots at the same places; the means of the types over all spots stay as they are."""
    arguments = (tissue.reference.toarray(), np.tile(tissue.coordinates, (2, 1)), list(tissue.label_series()))
    settings = {**QUIET, "lambda_spatial": 500.0}
    once = deconvolve(tissue.spots, arguments[0], tissue.coordinates, arguments[2], **settings).proportions
    spots = np.tile(tissue.spots.toarray(), (2, 1))
    sections = np.repeat(["a", "b"], len(once))
    twice = deconvolve(spots, *arguments, sections=sections, **settings).proportions
    np.testing.assert_allclose(twice, np.tile(once, (2, 1)), rtol=0, atol=1e-9)


# -- messages --------------------------------------------------------------------------------------------------------


LAYERS = {"projection": np.zeros((4, 6)), "in_proj": np.zeros((12, 4)), "bias": np.zeros(12), "noise": None}
BAD = [
    ({"projection": "no"}, DataTypeError, r"`original_draws.projection` must be an array of numbers; got <U2"),
    ({"projection": None}, DataTypeError, r"projection` must be an array of numbers; got NoneType"),
    ({"projection": np.zeros((6, 4))}, DataError, r"projection` must have from 1 row .* got the shape \(6, 4\)"),
    ({"in_proj": np.zeros((4, 4))}, DataError, r"in_proj` must have the shape \(12, 4\), as .*; got \(4, 4\)"),
    ({"bias": np.zeros((12, 1))}, DataError, r"bias` must have 1 axes; got the shape \(12, 1\)"),
    ({"bias": np.full(12, np.nan)}, DataError, r"bias` must be finite; got nan at \(0,\)"),
    ({"noise": np.zeros((2, 3, 5))}, DataError, r"noise` must have the shape \(2, 3, 6\), as `projection` has genes"),
    ({"knn_index": np.zeros((3, 2))}, DataTypeError, r"knn_index` must be an array of whole numbers; got float64"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD)
def test_draws_that_do_not_go_together(change, kind, message):
    OriginalDraws(**LAYERS)
    with pytest.raises(kind, match=message):
        OriginalDraws(**{**LAYERS, **change})


def replaced(draws, **changes):
    names = ("projection", "in_proj", "bias", "noise", "knn_index")
    return OriginalDraws(**{**{name: getattr(draws, name) for name in names}, **changes})


def test_draws_of_another_run_are_refused(strong):
    draws = strong.draws()
    index = draws.knn_index.copy()
    index[3, 1] = 30
    cases = [
        ({"original_draws": replaced(draws, noise=draws.noise[:2])}, r"noise` must have the shape \(3, 30, 80\)"),
        ({"original_draws": replaced(draws, projection=draws.projection[:, :79], noise=None)}, "share 80 genes"),
        ({"original_draws": draws, "k_neighbors": 6}, r"knn_index` must have the shape \(30, 6\)"),
        ({"original_draws": replaced(draws, knn_index=index)}, r"rows of the spots, 0 to 29; got 30 at \(3, 1\)"),
        ({"original_draws": draws, "objective": "model"}, "`original_draws` must be None with objective='model'"),
        ({"original_draws": {}}, "must be a stdeconv_fast.OriginalDraws or None; got dict"),
    ]
    spots, reference, coordinates, labels = strong.tables
    for change, message in cases:
        with pytest.raises(DataError, match=message):
            deconvolve(*strong.tables, **{**QUIET, **strong.settings, **change})
        with pytest.raises(DataError, match=message):
            AttentionRegressionDeconv(
                reference, spots, coordinates, labels, **{**QUIET, **strong.settings, **change}
            )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "gaussian"}, "`loss` must be 'poisson', its default, with objective='original'; got 'gaussian'"),
        ({"standard_errors": True}, "`standard_errors` must be False"),
        ({"device": "cuda"}, "`device` must be 'auto' or 'cpu' with objective='original'"),
        ({"objective": "theirs"}, "`objective` must be one of model, original; got 'theirs'"),
    ],
)
def test_settings_that_the_original_has_nothing_for(settings, message):
    with pytest.raises(DataError, match=message):
        Settings(**{"objective": "original", **settings})


def test_input_that_it_cannot_use(tissue):
    with pytest.raises(DataError, match="`objective` must be 'model' with tiles; got 'original'"):
        solve(tissue, tiles=2)
    adata, cells = tissue.to_anndata()
    adata.obs["in_tissue"] = np.arange(adata.n_obs) > 0
    n_genes = len(tissue.genes)
    given = OriginalDraws(
        np.zeros((4, n_genes)), np.zeros((12, 4)), np.zeros(12), None, np.zeros((adata.n_obs, 6), np.int64)
    )
    with pytest.raises(DataError, match="knn_index` must be None where spots are not in the tissue; "):
        deconvolve(adata, cells, cell_types="celltype", original_draws=given, **QUIET)
    spots, reference = tissue.spatial_frame(), tissue.reference_frame()
    spots["only here"] = 1
    reference["only there"] = 0
    labels = tissue.label_series()
    kept = list(tissue.genes)
    reference.loc[labels == "type0", kept] = 0
    reference.loc[labels == "type0", "only there"] = 1
    with pytest.raises(DataError, match="got none of 'type0' in the cells kept. Pass exclude_types="):
        deconvolve(spots, reference, tissue.coordinate_frame(), labels, **QUIET)
    spots[kept] = 0
    with pytest.raises(DataError, match="spatial must have counts in the genes shared with the reference; got none"):
        deconvolve(spots, tissue.reference_frame(), tissue.coordinate_frame(), labels, **QUIET)
