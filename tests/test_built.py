"""A reference built once gives what the table gives, bit for bit; and the filter of a reference."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import sparse as sp

import stdeconv_fast as sd
from stdeconv_fast import cli
from tests.small_inputs import CELLS, GENES, adata_of, problem
from tests.test_archives import same

ALIKE = ("proportions", "status", "cell_weights", "cells", "cell_types", "strengths", "genes", "graph",
         "standard_errors", "fit", "gene_fit", "diagnostics")  # fmt: skip


@pytest.fixture(scope="module")
def tissue():
    """A strong platform effect, a cell without counts and one without a label, a type of three cells."""
    spots, cells = sd.simulate(
        n_spots=90, n_genes=80, n_types=4, cells_per_type=15, platform_sd=1.5, seed=4, as_anndata=True
    )
    labels = cells.obs["celltype"].astype(object).to_numpy()
    labels[0] = None
    few = np.flatnonzero(labels == labels[-1])[3:]
    cells.obs["celltype"] = labels
    cells = cells[np.setdiff1d(np.arange(cells.n_obs), few)].copy()
    cells.X = sp.csr_matrix(cells.X.multiply((np.arange(cells.n_obs) != 7)[:, None]))
    return spots, cells


def run(spots, reference, cell_types=None, **settings):
    with pytest.warns(sd.DataWarning):
        return sd.deconvolve(spots, reference, cell_types=cell_types, progress=False, n_jobs=1, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell_level": True, "standard_errors": True},
        {"min_cells_per_type": 4, "tune": False},
        {"loss": "gaussian", "platform": "pooled", "exclude_types": ["type_0"]},
    ],
    ids=str,
)
def test_the_answer_is_the_same_bit_for_bit(tissue, settings, tmp_path):
    spots, cells = tissue
    if "exclude_types" in settings:
        settings = {**settings, "exclude_types": [cells.obs["celltype"].dropna().iloc[-1]]}
    path = tmp_path / "reference"
    sd.build_reference(cells, "celltype").save(path)
    raw, built = run(spots, cells, "celltype", **settings), run(spots, sd.BuiltReference.load(path), **settings)
    assert raw.provenance == built.provenance and len(raw.diagnostics["notes"]) >= 2
    for name in ALIKE:
        same(getattr(raw, name), getattr(built, name), name)


def test_without_the_cells_it_is_small_and_the_same(tissue):
    spots, cells = tissue
    built = sd.build_reference(cells, "celltype", keep_cells=False)
    assert built.counts is None and repr(built) == (
        f"BuiltReference(4 types, {cells.n_obs} cells, 80 genes; without the counts of the cells)"
    )
    raw = run(spots, cells, "celltype")
    for name in ALIKE:
        same(getattr(raw, name), getattr(run(spots, built), name), name)
    with pytest.raises(sd.DataError, match="must hold the counts of its cells with cell_level=True"):
        sd.deconvolve(spots, built, cell_level=True)


@pytest.mark.parametrize("form", ["frame", "array", "numbered", "matrix"])
def test_tables_of_all_kinds(form):
    given = problem()
    frames = {name: given[name] for name in ("spatial", "reference")}
    cell_types = given["cell_types"]
    if form != "frame":
        cell_types = cell_types.to_numpy()
    if form == "array":
        frames = {name: frame.to_numpy() for name, frame in frames.items()}
    if form == "matrix":
        frames = {name: sp.csc_matrix(frame.to_numpy()) for name, frame in frames.items()}
    if form == "numbered":
        frames = {name: frame.reset_index(drop=True).T.reset_index(drop=True).T for name, frame in frames.items()}
    places = given["coordinates"].to_numpy()
    raw = sd.deconvolve(frames["spatial"], frames["reference"], places, cell_types, progress=False, cell_level=True)
    built = sd.build_reference(frames["reference"], cell_types)
    again = sd.deconvolve(frames["spatial"], built, places, progress=False, cell_level=True)
    for name in ALIKE:
        same(getattr(raw, name), getattr(again, name), name)


def test_anndata_and_the_command_line(tissue, tmp_path):
    spots, cells = (table.copy() for table in tissue)
    built = sd.build_reference(cells, "celltype")
    with pytest.warns(sd.DataWarning):
        raw = sd.tl.deconvolve(spots, cells, cell_type_key="celltype", copy=True, progress=False)
        again = sd.tl.deconvolve(spots, built, copy=True, progress=False)
    same(raw.obsm["stdeconv"], again.obsm["stdeconv"])
    built.save(tmp_path / "reference.npz")
    spots.write_h5ad(tmp_path / "spots.h5ad")
    command = ["run", *(str(tmp_path / name) for name in ("spots.h5ad", "reference.npz"))]
    done = CliRunner().invoke(cli.main, [*command, "-o", str(tmp_path / "out.h5ad"), "--quiet"])
    assert done.exit_code == 0, done.output
    import anndata

    out = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["stdeconv"]
    np.testing.assert_array_equal(out.to_numpy(), raw.obsm["stdeconv"].to_numpy())
    cells.obs["celltype"] = cells.obs["celltype"].astype(str)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    done = CliRunner().invoke(cli.main, ["run", command[1], str(tmp_path / "cells.h5ad"), "-o", "x.h5ad"])
    assert done.exit_code == 2 and "Missing option '--cell-type-key'" in done.output


def test_a_resumed_run_of_another_built_reference_is_refused(tissue, tmp_path):
    spots, cells = tissue
    one = sd.build_reference(cells, "celltype", keep_cells=False)
    other = cells.copy()
    other.X = other.X * 2
    run(spots, one, work_folder=tmp_path / "work", keep_work=True)
    with pytest.raises(sd.DataError, match="`work_folder` must be of the same run; got reference"), pytest.warns():
        sd.deconvolve(
            spots, sd.build_reference(other, "celltype", keep_cells=False), progress=False, n_jobs=1,
            work_folder=tmp_path / "work", resume=True,
        )  # fmt: skip


def test_building_finds_all_faults(tissue):
    spots, cells = tissue
    scaled = cells.copy()
    scaled.X = scaled.X * 0.3
    with pytest.raises(sd.DataError, match="2 faults in the reference:\n.*must hold raw counts.*\n.*'types'"):
        sd.build_reference(scaled, "types")
    with pytest.raises(sd.DataError, match="`keep_cells` must be True or False; got 1"):
        sd.build_reference(cells, "celltype", keep_cells=1)
    with pytest.raises(sd.DataError, match="`cell_types` must be a Series"):
        sd.build_reference(cells)
    built = sd.build_reference(cells, "celltype")
    with pytest.raises(sd.DataError, match="which is built already"):
        sd.build_reference(built)
    with pytest.raises(sd.DataError, match="`cell_types` must be left out with a built reference.*got 'celltype'"):
        sd.deconvolve(spots, built, cell_types="celltype")
    with pytest.raises(sd.DataError, match="`exclude_types` must be among the cell types"):
        sd.deconvolve(spots, built, exclude_types=["none"])


def test_a_file_whose_tables_do_not_fit_is_refused(tissue, tmp_path):
    from dataclasses import replace

    built = sd.build_reference(tissue[1], "celltype")
    for bad in (
        replace(built, sums=built.sums[:, 1:]), replace(built, cell_types=built.cell_types + 4),
        replace(built, counts=built.counts[1:]), replace(built, naming=("own", "other")),
        replace(built, cell_totals=built.cell_totals.astype(np.float32)), replace(built, types=built.types[:1] * 4),
    ):  # fmt: skip
        bad.save(tmp_path / "bad")
        with pytest.raises(sd.DataError, match="must be a whole file written by BuiltReference.save.*do not fit"):
            sd.BuiltReference.load(tmp_path / "bad")


# -- filter_reference ------------------------------------------------------------------------------------------------


def noisy_table(rng):
    """60 cells, 40 genes: gene 7 varies most, cell 11 has all its counts in one gene."""
    counts = rng.poisson(5, (60, 40))
    counts[:, 7] = rng.choice([0, 200], 60)
    counts[11] = 0
    counts[11, 3] = 150
    return pd.DataFrame(counts, [f"cell-{i}" for i in range(60)], [f"Gene{j}" for j in range(40)])


def naive(counts, var_threshold, disp_threshold):
    logs = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    variances = logs.var(axis=0)
    genes = variances <= np.quantile(variances, 1 - var_threshold)
    left = logs[:, genes]
    ratio = left.var(axis=1) / (left.mean(axis=1) + 1e-12)
    return np.abs((ratio - ratio.mean()) / ratio.std()) <= disp_threshold, genes


def left_out(caplog):
    """What the filter logged since the last look."""
    said = [record.message for record in caplog.records]
    caplog.clear()
    return said


def test_filter_against_a_plain_one_in_every_kind_of_table(rng, caplog):
    caplog.set_level(logging.INFO, logger="stdeconv_fast")
    frame = noisy_table(rng)
    cells, genes = naive(frame.to_numpy().astype(float), 0.1, 3.0)
    assert not genes[7] and not cells[11] and genes.sum() == 36
    expected = frame.loc[cells, genes]
    kinds = {
        "frame": frame, "array": frame.to_numpy(), "csr": sp.csr_matrix(frame.to_numpy()),
        "csc": sp.csc_matrix(frame.to_numpy()), "anndata": adata_of(frame, x=1),
    }  # fmt: skip
    for name, table in kinds.items():
        before = table.copy()
        found, kept_cells, kept_genes = sd.filter_reference(table, return_kept=True)
        (said,) = left_out(caplog)
        assert "left out 4 of 40 genes (variance) and 1 of 60 cells (dispersion)" in said
        np.testing.assert_array_equal(kept_cells, cells, err_msg=name)
        np.testing.assert_array_equal(kept_genes, genes, err_msg=name)
        assert type(found) is type(table) and getattr(found, "format", None) == getattr(table, "format", None)
        if name == "frame":
            pd.testing.assert_frame_equal(found, expected)
            pd.testing.assert_frame_equal(table, before)
        elif name == "anndata":
            np.testing.assert_array_equal(found.X, expected)
            assert list(found.obs_names) == list(expected.index) and list(found.var_names) == list(expected.columns)
        else:
            dense = found.toarray() if sp.issparse(found) else found
            np.testing.assert_array_equal(dense, expected)
            assert found.dtype == table.dtype


def test_each_filter_can_be_off(rng, caplog):
    caplog.set_level(logging.INFO, logger="stdeconv_fast")
    frame = noisy_table(rng)
    pd.testing.assert_frame_equal(sd.filter_reference(frame, auto_filter_genes=False, auto_filter_cells=False), frame)
    pd.testing.assert_frame_equal(sd.filter_reference(frame, var_threshold=0, disp_threshold=99), frame)
    assert left_out(caplog) == []
    assert sd.filter_reference(frame, auto_filter_genes=False).shape == (59, 40)
    assert "0 of 40 genes" in left_out(caplog)[0]
    assert sd.filter_reference(frame, auto_filter_cells=False, var_threshold=0.5).shape == (60, 20)
    assert "0 of 60 cells" in left_out(caplog)[0]


def test_types_that_vanish_are_told(rng):
    frame = noisy_table(rng)
    labels = pd.Series("common", index=frame.index)
    labels["cell-11"] = "rare"
    with pytest.warns(sd.DataWarning, match="Types without a cell now: 'rare'"):
        sd.filter_reference(frame, labels)


def test_a_filtered_reference_runs():
    given = problem()
    reference = sd.filter_reference(given["reference"], given["cell_types"])
    result = sd.deconvolve(given["spatial"], reference, given["coordinates"], given["cell_types"], progress=False)
    assert result.diagnostics["n_genes_shared"] == 18


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"var_threshold": 1.5}, "`var_threshold` must be a number from 0 to 1; got 1.5"),
        ({"var_threshold": "a"}, "`var_threshold` must be a number; got 'a'"),
        ({"disp_threshold": -1}, "`disp_threshold` must be a number >= 0; got -1"),
        ({"disp_threshold": float("nan")}, "`disp_threshold` must be a number >= 0; got nan"),
        ({"auto_filter_genes": 1}, "`auto_filter_genes` must be True or False; got 1"),
        ({"cell_types": ["a"]}, "`cell_types` must have one row per cell"),
        ({"disp_threshold": 0}, "`disp_threshold` must leave a cell at least; got none of 30"),
        ({"reference": np.log1p(np.arange(12.0).reshape(3, 4))}, "must hold raw counts"),
        ({"reference": "file.h5ad"}, "`reference` must be a pandas DataFrame"),
    ],
)
def test_filter_refuses(changes, match):
    with pytest.raises(sd.DataError, match=match):
        sd.filter_reference(**{"reference": problem()["reference"], **changes})


def test_names_of_the_small_problem():
    assert len(CELLS) == 30 and len(GENES) == 20  # what the counts above rest on
