"""read_inputs: rows and genes are matched; labels, coordinates, sections and tissue of every kind are read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs import read_inputs
from tests.small_inputs import CELLS, GENES, N_CELLS, N_SPOTS, SPOTS, adata_of, problem, read, same

# --- alignment ------------------------------------------------------------------------------------------------------


def test_rows_in_other_order_are_aligned_by_label():
    given = problem()
    expected = read_inputs(**given)
    extra = pd.DataFrame({"x": [9.0], "y": [9.0]}, index=["no such spot"])
    given["coordinates"] = pd.concat([given["coordinates"], extra]).sample(frac=1, random_state=1)
    labels = pd.concat([given["cell_types"], pd.Series({"no such cell": "D"})])
    given["cell_types"] = labels.sample(frac=1, random_state=2)
    given["reference"] = given["reference"].sample(frac=1, random_state=3, axis=1)
    inputs = read_inputs(**given)
    np.testing.assert_array_equal(inputs.coordinates, expected.coordinates)
    np.testing.assert_array_equal(inputs.cell_types, expected.cell_types)
    assert inputs.types == ("A", "B", "C")
    columns = inputs.reference[:, inputs.reference_genes].toarray()
    np.testing.assert_array_equal(columns, expected.reference.toarray())


@examples(max_examples=15, deadline=None)
@given(st.permutations(range(N_CELLS)))
def test_order_of_labels_does_not_matter(order):
    cell_types = problem()["cell_types"].iloc[list(order)]
    np.testing.assert_array_equal(read(cell_types=cell_types).cell_types, np.repeat([0, 1, 2], 10))


def test_genes_are_shared_in_the_order_of_the_spatial_table():
    given = problem()
    given["spatial"] = given["spatial"].iloc[:, ::-1].drop(columns="Gene7").assign(Extra=1)
    given["reference"] = given["reference"].drop(columns=["Gene3", "Gene4"]).assign(Other=2)
    inputs = read_inputs(**given)
    names = [name for name in GENES[::-1] if name not in ("Gene3", "Gene4", "Gene7")]
    assert list(inputs.genes) == names
    assert list(given["spatial"].columns[inputs.spot_genes]) == names
    assert list(given["reference"].columns[inputs.reference_genes]) == names
    assert inputs.spots.shape == (N_SPOTS, 20) and inputs.reference.shape == (N_CELLS, 19)  # all genes are kept


def test_numbered_frames_that_were_shuffled_or_cut_are_aligned_by_their_numbers():
    given = problem()
    given["reference"] = given["reference"].reset_index(drop=True)
    given["cell_types"] = given["cell_types"].reset_index(drop=True).sample(frac=1, random_state=1)
    np.testing.assert_array_equal(read_inputs(**given).cell_types, np.repeat([0, 1, 2], 10))
    given = problem(cell_types=pd.Series(TEXTS))
    given["reference"] = given["reference"].reset_index(drop=True).iloc[::2]  # cells 0, 2, 4, ...
    np.testing.assert_array_equal(read_inputs(**given).cell_types, np.repeat([0, 1, 2], 5))


def test_integer_and_text_names_match():
    given = problem()
    given["spatial"].index = range(100, 100 + N_SPOTS)
    given["coordinates"].index = [str(i) for i in range(100, 100 + N_SPOTS)]
    given["coordinates"] = given["coordinates"].iloc[::-1]
    np.testing.assert_array_equal(read_inputs(**given).coordinates, read().coordinates)


# --- cell types -----------------------------------------------------------------------------------------------------

TEXTS = np.repeat(["A", "B", "C"], 10)
LABELS = {
    "Series": pd.Series(TEXTS, index=CELLS),
    "Series without names": pd.Series(TEXTS),
    "categorical Series": pd.Series(pd.Categorical(TEXTS, categories=["C", "unused", "B", "A"]), index=CELLS),
    "Series of string dtype": pd.Series(TEXTS, index=CELLS, dtype="string"),
    "Categorical": pd.Categorical(TEXTS),
    "list": TEXTS.tolist(),
    "tuple": tuple(TEXTS),
    "array": TEXTS,
    "column": TEXTS.astype(object)[:, None],
    "Index": pd.Index(TEXTS),
    "frame of one column": pd.DataFrame({"anything": TEXTS}, index=CELLS),
    "frame with celltype": pd.DataFrame({"n": range(N_CELLS), "celltype": TEXTS}, index=CELLS),
    "frame with Cell_Type": pd.DataFrame({"n": range(N_CELLS), "Cell_Type": TEXTS}, index=CELLS),
}


@pytest.mark.parametrize("kind", LABELS)
def test_kinds_of_labels(kind):
    same(read(), read(cell_types=LABELS[kind]))


def test_column_of_obs():
    reference = adata_of(problem()["reference"], cell_type=pd.Categorical(TEXTS))
    same(read(), read(reference=reference, cell_types="cell_type"))


@pytest.mark.parametrize("labels", [[1, 2, 10], [1.0, 2.0, 10.0], [1, "2", np.float32(10)]])
def test_numbers_become_text_and_types_are_sorted_as_text(labels):
    inputs = read(cell_types=[label for label in labels for _ in range(10)])
    assert inputs.types == ("1", "10", "2")
    np.testing.assert_array_equal(inputs.cell_types, np.repeat([0, 2, 1], 10))


def test_exclude_types():
    inputs = read(settings=Settings(exclude_types=("B",)))
    assert inputs.types == ("A", "C") and inputs.notes == ()
    np.testing.assert_array_equal(inputs.cell_types, np.repeat([0, -1, 1], 10))


# --- coordinates, sections, tissue ----------------------------------------------------------------------------------

PLACES = problem()["coordinates"].to_numpy()
COORDINATES = {
    "array": PLACES,
    "list of lists": PLACES.tolist(),
    "integers": PLACES.astype(int),
    "frame X, Y": pd.DataFrame(PLACES, SPOTS, ["X", "Y"]),
    "frame x, y among others": pd.DataFrame({"n": 1, "y": PLACES[:, 1], "x": PLACES[:, 0], "m": 2}, index=SPOTS),
    "frame row, col, text": pd.DataFrame({"name": "a", "row": PLACES[:, 0], "col": PLACES[:, 1]}, index=SPOTS),
    "frame with in_tissue": pd.DataFrame({"in_tissue": 1, "row": PLACES[:, 0], "col": PLACES[:, 1]}, index=SPOTS),
    "frame of nullable floats": pd.DataFrame(PLACES, SPOTS, ["x", "y"]).astype("Float64"),
    "frame without names": pd.DataFrame(PLACES, columns=["x", "y"]),
}


@pytest.mark.parametrize("kind", COORDINATES)
def test_kinds_of_coordinates(kind):
    same(read(), read(coordinates=COORDINATES[kind]))


def test_three_dimensions():
    deep = np.column_stack([PLACES, np.arange(N_SPOTS)])
    for value in (deep, pd.DataFrame(deep, SPOTS, list("xyz")), pd.DataFrame(deep, SPOTS, ["a", "b", "c"])):
        np.testing.assert_array_equal(read(coordinates=value).coordinates, deep)


@pytest.mark.parametrize("frame", [False, True])
def test_coordinates_of_obsm(frame):
    spatial = adata_of(problem()["spatial"])
    spatial.obsm["spatial"] = problem()["coordinates"] if frame else PLACES
    spatial.obsm["other"] = PLACES + 1
    same(read(), read(spatial=spatial, coordinates=None))
    np.testing.assert_array_equal(read(spatial=spatial, coordinates=None, spatial_key="other").coordinates, PLACES + 1)


@pytest.mark.parametrize("kind", ["Series", "list", "array", "Categorical", "obs", "frame", "numbers"])
def test_sections(kind):
    values = np.array(["s2", "s1"] * (N_SPOTS // 2))
    given = problem(settings=Settings(k_neighbors=4))
    sections = {
        "Series": pd.Series(values, SPOTS).sample(frac=1, random_state=0), "list": values.tolist(), "array": values,
        "Categorical": pd.Categorical(values), "obs": "sample",
        "frame": pd.DataFrame({"Section": values, "n": 1}, SPOTS),
        "numbers": [2.0, 1.0] * (N_SPOTS // 2),
    }[kind]  # fmt: skip
    if kind == "obs":
        given["spatial"] = adata_of(given["spatial"], sample=values)
    inputs = read_inputs(**given, sections=sections)
    assert inputs.section_names == (("1", "2") if kind == "numbers" else ("s1", "s2"))
    np.testing.assert_array_equal(inputs.sections, [1, 0] * (N_SPOTS // 2))
    assert inputs.sections.dtype == np.int32


@pytest.mark.parametrize("dtype", ["bool", "int", "float", "str", "category"])
def test_spots_outside_the_tissue_are_marked(dtype):
    inside = np.arange(N_SPOTS) != 5
    values = pd.Series(inside).astype({"bool": bool}.get(dtype, int)).astype(dtype).to_numpy()
    spatial = adata_of(problem()["spatial"], in_tissue=values)
    status = read(spatial=spatial).spot_status
    assert status[5] == "not in tissue" and set(status[inside]) == {"ok"}
