"""Input and settings that mean harm: the right answer or a clear error of ours, never a crash."""

from __future__ import annotations

import os
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_info

import stdeconv_fast as sd
from stdeconv_fast import DataError, DataTypeError
from stdeconv_fast.io.atomic import check_writable


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(40, 60, 4, cells_per_type=12, counts_per_spot=300)


def run(tissue, **changes):
    given = {
        "spatial": tissue.spots, "reference": tissue.reference, "coordinates": tissue.coordinates,
        "cell_types": tissue.cell_types, "progress": False,
    }  # fmt: skip
    return sd.deconvolve(**{**given, **changes})


def damaged(matrix, part, at, value):
    matrix = sp.csr_matrix(matrix).astype(np.int32)
    getattr(matrix, part)[at] = value
    return matrix


@pytest.mark.parametrize("table", ["spatial", "reference"])
@pytest.mark.parametrize(
    ("part", "at", "value"),
    [("indices", 5, 10**6), ("indices", 5, -1), ("indptr", 3, 10**7), ("indptr", 3, 0), ("indptr", 0, 1)],
)
def test_damaged_sparse_arrays_are_refused(tissue, table, part, at, value):
    matrix = damaged(tissue.spots if table == "spatial" else tissue.reference, part, at, value)
    with pytest.raises(DataError, match="must be a sound sparse matrix"):
        run(tissue, **{table: matrix})


@pytest.mark.parametrize("dtype", ["longdouble", ">f8", ">i4"])
def test_unusual_numbers_are_read(tissue, dtype):
    plain = run(tissue, spatial=tissue.spots.toarray().astype(float))
    np.testing.assert_array_equal(
        run(tissue, spatial=tissue.spots.toarray().astype(dtype)).proportions, plain.proportions
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coordinates": np.full((40, 2), 1e160)}, "must lie within 1e.100 of 0"),
        ({"seed": 10**400}, "`seed` must be a whole number >= 0 and at most"),
        ({"k_neighbors": 10**30}, "`k_neighbors` must be"),
        ({"lambda_ridge": 1e39}, "`lambda_ridge` must be a number >= 0 and at most 1e.12"),
        ({"loss": np.array(["poisson", "gaussian"])}, "`loss` must be one of"),
        ({"spatial": np.full((40, 60), 1e20)}, "must hold raw counts up to 1e.12"),
    ],
)
def test_numbers_beyond_all_use_are_refused(tissue, changes, words):
    with pytest.raises(DataError, match=words):
        run(tissue, **changes)


def test_more_places_for_cells_than_cells(tissue):
    few, many = (run(tissue, cell_level=True, max_cells_per_spot=most) for most in (48, 10**9))
    assert (few.cell_weights != many.cell_weights).nnz == 0


def test_spots_at_one_place_permute():
    tissue = sd.simulate(2500, 80, 5, cells_per_type=12, counts_per_spot=60)
    order = np.random.default_rng(0).permutation(2500)
    places = np.zeros((2500, 2))
    with pytest.warns(sd.DataWarning, match="share their coordinates"):
        one = run(tissue, coordinates=places).proportions.to_numpy()
        other = run(tissue, spatial=tissue.spots[order], coordinates=places).proportions.to_numpy()
    np.testing.assert_allclose(one[order], other, atol=1e-5)


@pytest.mark.parametrize("changes", [{"loss": "gaussian"}, {"platform": "joint"}, {}])
def test_order_of_spots_and_names_of_types_do_not_matter(changes):
    tissue = sd.simulate(900, 80, 6, kind="bins", cells_per_type=12, seed=1)
    order = np.random.default_rng(0).permutation(900)
    one = run(tissue, **changes).proportions
    other = run(tissue, spatial=tissue.spots[order], coordinates=tissue.coordinates[order], **changes).proportions
    np.testing.assert_allclose(one.to_numpy()[order], other.to_numpy(), atol=1e-5 if not changes else 1e-3)
    names = {name: f"{9 - i}th" for i, name in enumerate(tissue.types)}
    renamed = run(tissue, cell_types=np.array([names[name] for name in tissue.cell_types]), **changes).proportions
    np.testing.assert_allclose(one, renamed[[names[name] for name in one.columns]], atol=6e-3)


def test_a_type_without_counts_in_the_genes_is_named(tissue):
    reference = tissue.reference.toarray()
    reference[tissue.cell_types == tissue.types[1]] = 0
    whole = np.hstack([reference, np.ones((len(reference), 1), reference.dtype)])
    names = [*tissue.genes, "elsewhere"]
    with pytest.raises(DataError, match=rf"got none of '{tissue.types[1]}' in .* Pass exclude_types="):
        run(
            tissue, spatial=tissue.spatial_frame(), reference=pd.DataFrame(whole, tissue.cell_names, names),
            coordinates=tissue.coordinate_frame(), cell_types=tissue.label_series(),
        )  # fmt: skip


def test_a_transcriptome_that_marks_no_type_is_still_used():
    rng = np.random.default_rng(0)
    spots, cells = rng.poisson(2, (40, 2000)), rng.poisson(2, (30, 2000))
    result = sd.deconvolve(spots, cells, rng.random((40, 2)), ["a", "b", "c"] * 10, progress=False)
    assert (result.status == "ok").all() and len(result.genes) >= 1500


def test_blas_threads_are_given_back_after_overlapping_runs(tissue):
    before = [pool["num_threads"] for pool in threadpool_info()]
    threads = [threading.Thread(target=run, args=(tissue,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pool["num_threads"] for pool in threadpool_info()][: len(before)] == before


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="`--csv` must name a plain file"):
        check_writable(tmp_path / "pipe.csv", "--csv")


def test_coordinates_are_not_overwritten(tissue):
    spots, reference = tissue.to_anndata()
    with pytest.raises(DataError, match="must not be the key of the coordinates"):
        sd.tl.deconvolve(spots, reference, cell_type_key="celltype", key_added="spatial")


def test_wrong_kinds_of_options(tissue):
    with pytest.raises(DataTypeError):
        run(tissue, tune="yes")


def test_a_platform_effect_near_the_threshold_is_told():
    tissue = sd.simulate(200, 200, 4, counts_per_spot=3000, platform_sd=np.log(2), seed=0)
    with pytest.warns(sd.DataWarning, match=r"The platform log2 sd is \d\.\d\d, near 1, where platform='auto'"):
        result = run(tissue)
    assert 0.8 <= result.diagnostics["platform_log2_sd"] <= 1.2
    run(tissue, platform="pooled", abundance="cells")  # no warning: chosen by hand
