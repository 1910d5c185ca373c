"""The same data give the same answer, whatever the threads, the order of rows and columns, and the kind of table.

That kernels from the disk give the bits of those just compiled is tested in test_warmup, which compiles them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast.pipeline import deconvolve
from stdeconv_fast.tissue import simulate
from tests.tolerances import check

FAST = {"progress": False, "n_jobs": 1, "max_cells_per_type": 12}
LEVEL = pytest.mark.parametrize("cell_level", [False, True], ids=["types", "cells"])


@cache
def large():
    """More than one chunk at every stage: 1,600 spots; profiles large enough for threads in BLAS."""
    return simulate(1600, 1400, 12, kind="domains", counts_per_spot=250, cells_per_type=15, n_sections=2, seed=1)


@cache
def small():
    return simulate(420, 150, 6, kind="gradients", counts_per_spot=400, cells_per_type=25, seed=2)


def frames(tissue):
    """Keywords of `deconvolve`, as tables with names."""
    return {
        "spatial": tissue.spatial_frame(), "reference": tissue.reference_frame(),
        "coordinates": tissue.coordinate_frame(), "cell_types": tissue.label_series(),
    }  # fmt: skip


@cache
def answer(cell_level, dtype="float32"):
    return deconvolve(**frames(small()), cell_level=cell_level, dtype=dtype, **FAST)


def arrays_of(result):
    """Everything that a run computes, as arrays."""
    found = {
        "proportions": result.proportions.to_numpy(), "status": result.status.to_numpy().astype(str),
        "weights": result.graph.weights, "degrees": result.graph.degrees,
        "path": np.array([[t["lambda_spatial"], t["phi"], t["score"]] for t in result.strengths.path]),
    }  # fmt: skip
    if result.fit is not None:
        found |= {"deviance": result.fit.to_numpy(), "gene fit": result.gene_fit.to_numpy()}
    if result.standard_errors is not None:
        found["standard errors"] = result.standard_errors.to_numpy()
    if result.q_values is not None:
        found["q-values"] = result.q_values.to_numpy()
    if result.cell_weights is not None:
        matrix = result.cell_weights
        found |= {"cell indptr": matrix.indptr, "cell indices": matrix.indices, "cell weights": matrix.data}
    return found


@LEVEL
def test_threads_change_no_bit(cell_level):
    tissue = large()
    settings = {**FAST, "cell_level": cell_level, "n_iter": 2, "max_cells_per_type": 6, "standard_errors": True}
    settings["detection"] = True
    runs = {}
    for n_jobs in (1, 2, 4):
        runs[n_jobs] = arrays_of(
            deconvolve(
                tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, sections=tissue.sections,
                **{**settings, "n_jobs": n_jobs},
            )
        )  # fmt: skip
    assert len(runs[1]["path"]) > 3
    for n_jobs in (2, 4):
        for name, values in runs[1].items():
            np.testing.assert_array_equal(runs[n_jobs][name], values, err_msg=f"{name}, {n_jobs} threads")


@pytest.mark.parametrize("loss", ["poisson", "gaussian"])
def test_threads_change_no_bit_of_the_type_level_with_float64(loss):
    tissue = large()
    runs = [
        arrays_of(
            deconvolve(
                tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, sections=tissue.sections,
                **{**FAST, "n_jobs": n_jobs, "loss": loss, "dtype": "float64", "n_iter": 1, "platform": "joint"},
            )
        )
        for n_jobs in (1, 2)
    ]  # fmt: skip
    for name, values in runs[0].items():
        np.testing.assert_array_equal(runs[1][name], values, err_msg=name)


@LEVEL
def test_the_same_run_twice(cell_level):
    again = arrays_of(deconvolve(**frames(small()), cell_level=cell_level, **FAST))
    for name, values in arrays_of(answer(cell_level)).items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def assert_same_answer(name, result, cell_level):
    """Proportions by name, smoothing and cells are those of the run on the tables as they come."""
    first = answer(cell_level)
    assert set(result.proportions.index) == set(first.proportions.index)
    proportions = result.proportions.loc[first.proportions.index, first.proportions.columns]
    check(name, proportions, first.proportions, np.float32)
    assert result.strengths.lambda_spatial == first.strengths.lambda_spatial
    assert result.strengths.phi == first.strengths.phi
    if cell_level:
        assert set(result.cells) == set(first.cells)
        order = result.cells.get_indexer(first.cells)
        rows = result.proportions.index.get_indexer(first.proportions.index)
        check(name + ", cells", result.cell_weights.toarray()[rows][:, order], first.cell_weights.toarray(), np.float32)


@LEVEL
@pytest.mark.parametrize("what", ["spots", "genes", "cells"])
def test_order_does_not_matter(what, cell_level):
    tables = frames(small())
    rng = np.random.default_rng(7)
    spatial, reference = tables["spatial"], tables["reference"]
    if what == "spots":
        order = rng.permutation(len(spatial))
        tables["spatial"], tables["coordinates"] = spatial.iloc[order], tables["coordinates"].iloc[order]
    elif what == "genes":
        tables["spatial"] = spatial.iloc[:, rng.permutation(spatial.shape[1])]
        tables["reference"] = reference.iloc[:, rng.permutation(reference.shape[1])]
    else:
        order = rng.permutation(len(reference))
        tables["reference"], tables["cell_types"] = reference.iloc[order], tables["cell_types"].iloc[order]
    result = deconvolve(**tables, cell_level=cell_level, **FAST)
    assert_same_answer(f"order of {what}", result, cell_level)


@LEVEL
def test_names_of_types_do_not_matter(cell_level):
    """Other names sort otherwise: the types permute."""
    tables = frames(small())
    types = sorted(set(tables["cell_types"]))
    names = dict(zip(types, ["f", "b", "a", "e", "d", "c"], strict=True))
    tables["cell_types"] = tables["cell_types"].map(names)
    result = deconvolve(**tables, cell_level=cell_level, **FAST)
    assert list(result.proportions.columns) == sorted(names.values())
    back = {new: old for old, new in names.items()}
    renamed = result.proportions.rename(columns=back)
    name = "order of types, cells" if cell_level else "order of types"
    check(name, renamed[types], answer(cell_level).proportions[types], np.float32)


def test_names_of_spots_genes_and_cells_do_not_matter():
    tissue = small()
    result = deconvolve(
        tissue.spots.toarray(), tissue.reference.toarray(), tissue.coordinates, list(tissue.cell_types), **FAST
    )
    check("kinds of tables", result.proportions.to_numpy(), answer(False).proportions, np.float32)


@pytest.mark.parametrize("kind", ["sparse int64", "csc float32", "anndata"])
def test_kinds_of_tables_do_not_matter(kind):
    tissue = small()
    if kind == "anndata":
        spots, cells = tissue.to_anndata()
        result = deconvolve(spots, cells, cell_types="celltype", **FAST)
    else:
        make = (lambda m: m.astype(np.int64)) if kind == "sparse int64" else (lambda m: m.astype(np.float32).tocsc())
        result = deconvolve(
            make(tissue.spots), make(tissue.reference), tissue.coordinates, tissue.cell_types, **FAST
        )
    check("kinds of tables", result.proportions.to_numpy(), answer(False).proportions, np.float32)


@LEVEL
def test_float32_and_float64_agree(cell_level):
    single, double = answer(cell_level), answer(cell_level, "float64")
    assert single.strengths.lambda_spatial == double.strengths.lambda_spatial
    check("float32 against float64", single.proportions, double.proportions, np.float32)


def test_the_unit_of_the_coordinates_does_not_matter():
    tables = frames(small())
    # the keys of the spots come from the bits of the coordinates, so that another unit draws other molecules
    settings = {**FAST, "tune": False}
    first = deconvolve(**tables, **settings)
    tables["coordinates"] = tables["coordinates"] * 55.0 + 1000.0
    check("unit of coordinates", deconvolve(**tables, **settings).proportions, first.proportions, np.float32)


def test_the_seed_moves_the_draw_alone():
    first, other = answer(False), deconvolve(**frames(small()), seed=1, **FAST)
    scores = [[t["score"] for t in result.strengths.path[:7]] for result in (first, other)]
    assert scores[0] != scores[1]
    # the smoothing may change with the draw; the answer hardly does
    assert np.corrcoef(first.proportions.to_numpy().ravel(), other.proportions.to_numpy().ravel())[0, 1] > 0.99


@LEVEL
def test_a_spot_without_counts_in_the_used_genes_is_nan(cell_level):
    tissue = small()
    tables = frames(tissue)
    spatial = pd.concat(
        [tables["spatial"], pd.DataFrame({"only here": np.zeros(420, int)}, index=tables["spatial"].index)], axis=1
    )
    blank, elsewhere = spatial.index[5], spatial.index[17]
    spatial.loc[blank] = 0
    spatial.loc[elsewhere] = 0
    spatial.loc[elsewhere, "only here"] = 40
    result = deconvolve(**{**tables, "spatial": spatial}, cell_level=cell_level, **FAST)
    assert result.proportions.loc[[blank, elsewhere]].isna().all(axis=None)
    assert result.status[blank] == "no counts"
    assert result.status[elsewhere] == "no counts in the genes used"
    rest = result.proportions.drop(index=[blank, elsewhere])
    assert (result.status[rest.index] == "ok").all()
    np.testing.assert_allclose(rest.sum(axis=1), 1.0, atol=1e-9)
    assert result.graph.n_spots == 418
    if cell_level:
        assert result.cell_weights.shape == (420, len(result.cells))
        assert result.cell_weights[[5, 17]].nnz == 0
        sums = pd.DataFrame(result.cell_weights.toarray(), index=spatial.index).T.groupby(
            result.cell_types.to_numpy()
        ).sum().T
        np.testing.assert_allclose(sums.loc[rest.index, rest.columns], rest, atol=1e-5)


def test_truth_is_found():
    shares = answer(False).proportions.to_numpy()
    assert np.corrcoef(shares.ravel(), small().truth.to_numpy().ravel())[0, 1] > 0.85


def test_spots_of_a_few_counts_are_tuned_and_solved():
    """The fitting part of a spot with one or two counts is often empty; its neighbours stay sound."""
    tissue = simulate(300, 40, 3, kind="bins", counts_per_spot=3, cells_per_type=20, seed=3)
    totals = np.asarray(tissue.spots.sum(axis=1)).ravel()
    assert (totals == 1).sum() > 20
    result = deconvolve(tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, **FAST)
    scores = [t["score"] for t in result.strengths.path]
    assert len(scores) >= 7 and np.isfinite(scores).all()
    used = (result.status == "ok").to_numpy()
    assert used[totals > 2].all()
    assert np.isfinite(result.proportions[used]).all(axis=None)
