"""read_inputs: every kind of input gives the same Inputs."""

from __future__ import annotations

import subprocess
import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from stdeconv_fast.errors import DataTypeError, DataWarning
from stdeconv_fast.stages.inputs import read_inputs
from tests.small_inputs import CELLS, GENES, N_GENES, N_SPOTS, SPOTS, adata_of, problem, read, same


def test_plain_case():
    given = problem()
    inputs = read_inputs(**given)
    np.testing.assert_array_equal(inputs.spots.toarray(), given["spatial"])
    np.testing.assert_array_equal(inputs.reference.toarray(), given["reference"])
    assert inputs.spots.dtype == np.int64
    np.testing.assert_array_equal(inputs.coordinates, given["coordinates"])
    assert inputs.coordinates.dtype == np.float64
    assert inputs.types == ("A", "B", "C")
    np.testing.assert_array_equal(inputs.cell_types, np.repeat([0, 1, 2], 10))
    assert inputs.cell_types.dtype == inputs.sections.dtype == np.int32
    assert inputs.section_names == ("section_0",)
    assert list(inputs.spot_names) == SPOTS and list(inputs.cell_names) == CELLS and list(inputs.genes) == GENES
    assert inputs.spot_genes.dtype == inputs.reference_genes.dtype == np.int64
    assert set(inputs.spot_status) == {"ok"}
    assert inputs.integer_counts and inputs.notes == ()


SPARSE_FORMATS = ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
KINDS = {
    "frame": lambda frame: frame,
    "frame of nullable integers": lambda frame: frame.astype("Int64"),
    "frame of objects": lambda frame: frame.astype(object),
    "frame of mixed dtypes": lambda frame: frame.astype({"Gene0": "float32", "Gene1": "uint8", "Gene2": object}),
    "sparse frame": lambda frame: pd.DataFrame.sparse.from_spmatrix(
        sp.csr_matrix(frame.to_numpy()), frame.index, frame.columns
    ),
    "frame of sparse columns filled with NaN": lambda frame: frame.astype(pd.SparseDtype("float64", np.nan)),
    "AnnData, dense": adata_of,
    "AnnData, csr": lambda frame: adata_of(frame, sp.csr_matrix(frame.to_numpy(np.float32))),
    "AnnData, csc": lambda frame: adata_of(frame, sp.csc_matrix(frame.to_numpy(np.float64))),
    "AnnData, csr_array": lambda frame: adata_of(frame, sp.csr_array(frame.to_numpy(np.float32))),
    "AnnData, view": lambda frame: adata_of(pd.concat([frame, frame.add_prefix("x", axis=0)]))[: len(frame)],
}
UNNAMED = {
    "ndarray": lambda frame: frame.to_numpy(),
    "ndarray, columns first": lambda frame: np.asfortranarray(frame.to_numpy()),
    "ndarray of objects": lambda frame: frame.to_numpy().astype(object),
    "ndarray, other byte order": lambda frame: frame.to_numpy().astype(">f8"),
    "ndarray of float16": lambda frame: frame.to_numpy().astype(np.float16),
    "frame without names": lambda frame: pd.DataFrame(frame.to_numpy()),
    "AnnData without names": lambda frame: anndata.AnnData(frame.to_numpy(np.float32)),
    **{f"{kind}_matrix": lambda frame, kind=kind: getattr(sp, f"{kind}_matrix")(frame.to_numpy())
       for kind in SPARSE_FORMATS},
    **{f"{kind}_array": lambda frame, kind=kind: getattr(sp, f"{kind}_array")(frame.to_numpy())
       for kind in SPARSE_FORMATS},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["spatial", "reference"])
def test_kinds_with_names_give_the_same(kind, side):
    given = problem()
    expected = read_inputs(**given)
    given[side] = KINDS[kind](given[side])
    same(expected, read_inputs(**given))


@pytest.mark.parametrize("kind", UNNAMED)
@pytest.mark.parametrize("sides", [("spatial",), ("reference",), ("spatial", "reference")])
def test_kinds_without_names_give_the_same_by_position(kind, sides):
    given = problem()
    expected = read_inputs(**given)
    for side in sides:
        given[side] = UNNAMED[kind](given[side])
    inputs = read_inputs(**given)
    same(expected, inputs, names=False)
    assert inputs.spot_names[3] == ("spot_3" if "spatial" in sides else "spot-3")
    assert inputs.cell_names[3] == ("cell_3" if "reference" in sides else "cell-3")
    assert inputs.genes[3] == ("gene_3" if len(sides) == 2 else "Gene3")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "float32", "float64"])
def test_dtype_is_kept(dtype):
    for matrix in (problem()["spatial"].astype(dtype), sp.csr_matrix(problem()["spatial"].astype(dtype))):
        assert read(spatial=matrix).spots.dtype == dtype


def test_bool_counts_are_integers():
    frame = problem()["spatial"] > 2
    for table in (frame, frame.to_numpy(), sp.csr_matrix(frame.to_numpy())):
        inputs = read(spatial=table)
        assert inputs.spots.dtype == np.int32
        np.testing.assert_array_equal(inputs.spots.toarray(), frame)


def test_sparse_matrix_with_room_to_spare():
    matrix = sp.csr_matrix(problem()["spatial"].to_numpy())
    matrix.data, matrix.indices = np.append(matrix.data, -7), np.append(matrix.indices, 0)
    same(read(), read(spatial=matrix), names=False)


def test_dense_table_longer_than_a_block(monkeypatch):
    expected = read()
    monkeypatch.setattr("stdeconv_fast.stages.inputs.tables.BLOCK", 3 * N_GENES + 1)
    same(expected, read())
    same(expected, read(spatial=problem()["spatial"].to_numpy()), names=False)


def test_canonical_csr_is_not_copied():
    matrix = sp.csr_matrix(problem()["spatial"].to_numpy())
    for table in (matrix, sp.csr_array(matrix), anndata.AnnData(matrix)):
        shared = table if sp.issparse(table) else table.X
        inputs = read(spatial=table)
        assert np.shares_memory(inputs.spots.data, shared.data)
        assert np.shares_memory(inputs.spots.indices, shared.indices)


def test_duplicates_unsorted_indices_and_stored_zeros_do_not_matter_and_the_caller_keeps_them():
    dense = problem()["spatial"].to_numpy()
    rows, columns = np.nonzero(np.ones_like(dense))
    order = np.random.default_rng(1).permutation(len(rows))
    rows, columns = rows[order], columns[order]
    order = np.argsort(rows, kind="stable")
    rows, columns = np.repeat(rows[order], 2), np.repeat(columns[order], 2)  # two entries at each place, zeros as well
    data = dense[rows, columns]
    data[::2] -= np.minimum(data[::2], 1)
    data[1::2] = np.minimum(data[1::2], 1)
    messy = sp.csr_matrix((data, columns, np.arange(N_SPOTS + 1) * 2 * N_GENES), shape=dense.shape)
    before = messy.data.copy(), messy.indices.copy(), messy.indptr.copy()
    same(read(), read(spatial=messy), names=False)
    for old, new in zip(before, (messy.data, messy.indices, messy.indptr), strict=True):
        np.testing.assert_array_equal(old, new)


def test_stored_zeros_are_no_counts():
    matrix = sp.csr_matrix(problem()["spatial"].to_numpy())
    matrix.data[matrix.indptr[2] : matrix.indptr[3]] = 0
    inputs = read(spatial=matrix)
    assert inputs.spot_status[2] == "no counts" and (inputs.spots.data > 0).all()
    assert (matrix.data == 0).any()


def test_layers_and_backed_files(tmp_path):
    given = problem()
    expected = read_inputs(**given)
    for side, layer in (("spatial", "layer_st"), ("reference", "layer_sc")):
        adata = adata_of(given[side])
        adata.layers["counts"] = sp.csr_matrix(adata.X)
        adata.X = np.log1p(adata.X)
        same(expected, read_inputs(**{**given, side: adata, layer: "counts"}))
        for name, matrix in (("dense", given[side].to_numpy(np.float32)), ("sparse", sp.csr_matrix(given[side]))):
            path = tmp_path / f"{side}-{name}.h5ad"
            adata_of(given[side], matrix).write_h5ad(path)
            backed = anndata.read_h5ad(path, backed="r")
            same(expected, read_inputs(**{**given, side: backed}))
            assert backed.isbacked
            backed.file.close()


def test_import_does_not_load_anndata():
    code = "import sys, stdeconv_fast.stages.inputs; assert 'anndata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sparse_objects_are_read():
    matrix = sp.coo_matrix(problem()["spatial"].to_numpy())
    matrix.data = matrix.data.astype(object)
    same(read(), read(spatial=matrix), names=False)


def test_warning_points_at_the_caller():
    with pytest.warns(DataWarning) as caught:
        read_inputs(**problem(coordinates=np.zeros((N_SPOTS, 2))))
    assert [entry.filename for entry in caught] == [__file__]


def test_nothing_else_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read()


def test_wrong_kind_is_a_type_error_and_a_value_error():
    with pytest.raises(DataTypeError) as caught:
        read(spatial="spots.h5ad")
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)
