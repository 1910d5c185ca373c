"""Each row of the table "how the original treats its inputs": refused with a clear error, or accepted and right.

The ids are the rows. Those on evaluate() and on refined weights are tested where those are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast.errors import DataError, DataWarning
from stdeconv_fast.settings import Settings
from tests.small_inputs import CELLS, GENES, N_CELLS, N_GENES, adata_of, problem, read, same

TEXTS = np.repeat(["A", "B", "C"], 10)
PLACES = problem()["coordinates"].to_numpy()


def changed(name, edit):
    """The problem's table `name` after `edit`."""
    value = problem()[name]
    value = value.astype(float) if name in ("spatial", "reference") else value.copy()
    return {name: edit(value)}


def put(value, *places):
    def edit(frame):
        for row, column in places:
            frame.iloc[row, column] = value
        return frame

    return edit


def renamed(rows=None, columns=None):
    return lambda frame: frame.rename(index=rows, columns=columns)


ACCEPTED = {
    "sc_data ndarray alone": lambda: {"reference": problem()["reference"].to_numpy()},
    "st_data ndarray alone": lambda: {"spatial": problem()["spatial"].to_numpy()},
    "both ndarray": lambda: {key: problem()[key].to_numpy() for key in ("spatial", "reference")},
    "both ndarray, coords by strings, labels by ints": lambda: {
        **{key: problem()[key].to_numpy() for key in ("spatial", "reference")},
        "cell_types": pd.Series(TEXTS),
    },
    "celltype ndarray": lambda: {"cell_types": TEXTS},
    "celltype list": lambda: {"cell_types": TEXTS.tolist()},
    "celltype frame without column celltype (one column)": lambda: {"cell_types": pd.DataFrame({"type": TEXTS}, CELLS)},
    "celltype Series, categorical": lambda: {"cell_types": pd.Series(pd.Categorical(TEXTS), CELLS)},
    "AnnData as sc_data": lambda: {"reference": adata_of(problem()["reference"])},
    "coords columns not x,y": lambda: {"coordinates": problem()["coordinates"].set_axis(["row", "col"], axis=1)},
    "coords ndarray": lambda: {"coordinates": PLACES},
    "coords rows in other order": lambda: {"coordinates": problem()["coordinates"].iloc[::-1]},
    "k_neighbors 1": lambda: {"settings": Settings(k_neighbors=1)},
    "k_neighbors 0": lambda: {"settings": Settings(k_neighbors=0)},
    "int input": lambda: {"spatial": problem()["spatial"].astype("int32")},
}


@pytest.mark.parametrize("row", ACCEPTED)
def test_row_accepted_and_right(row):
    inputs = read(**ACCEPTED[row]())
    same(read(), inputs, names=False)
    assert inputs.notes == ()


REFUSED = {
    "coords lacks a spot": (
        lambda: changed("coordinates", lambda frame: frame.drop("spot-3")),
        "`coordinates` must be finite for every spot; got no row for spot 'spot-3': 1 spot without coordinates",
    ),
    "NaN coordinate": (lambda: changed("coordinates", put(np.nan, (3, 1))), "got nan for spot 'spot-3'"),
    "celltype frame without column celltype": (
        lambda: {"cell_types": pd.DataFrame({"type": TEXTS, "n": 1}, CELLS)},
        "`cell_types` must have one column, or one called 'celltype'; got 'type', 'n'",
    ),
    "label index wholly mismatched": (
        lambda: {"cell_types": pd.Series(TEXTS, [f"{name}_1" for name in CELLS])},
        "`cell_types` must name the cells of `reference`; got none of them. First names: 'cell-0_1' in cell_types, "
        "'cell-0' in reference",
    ),
    "duplicate spot name in st only": (
        lambda: changed("spatial", renamed({"spot-1": "spot-0"})),
        "`spatial` must have unique spot names; got 1 duplicate: 'spot-0'",
    ),
    "duplicate spot name in st+coords": (
        lambda: {key: problem()[key].rename({"spot-1": "spot-0"}) for key in ("spatial", "coordinates")},
        "`spatial` must have unique spot names; got 1 duplicate: 'spot-0'",
    ),
    "duplicate cell names in sc only": (
        lambda: changed("reference", renamed({"cell-1": "cell-0"})),
        "`reference` must have unique cell names; got 1 duplicate: 'cell-0'",
    ),
    "duplicate cell names in sc and labels": (
        lambda: {key: problem()[key].rename({"cell-1": "cell-0"}) for key in ("reference", "cell_types")},
        "`reference` must have unique cell names; got 1 duplicate: 'cell-0'",
    ),
    "duplicate cell names in labels": (
        lambda: changed("cell_types", lambda labels: labels.rename({"cell-1": "cell-0"})),
        "`cell_types` must have one row per cell; got duplicate names 'cell-0'. Keep one of each",
    ),
    "duplicate gene names in both": (
        lambda: {key: problem()[key].rename(columns={"Gene1": "Gene0"}) for key in ("spatial", "reference")},
        "`reference` must have unique gene names; got 1 duplicate: 'Gene0'",
    ),
    "duplicate gene names in sc only": (
        lambda: {"reference": adata_of(problem()["reference"].rename(columns={"Gene1": "Gene0"}))},
        "got 1 duplicate: 'Gene0'. Make them unique: reference.var_names_make_unique()",
    ),
    "no shared genes, other letter case": (
        lambda: changed("reference", renamed(columns=str.upper)),
        "must share at least 10 genes; got 0 of 20 and 20. First names: 'Gene0', 'GENE0'. 20 genes would match without "
        "regard to letter case",
    ),
    "few shared genes": (
        lambda: changed("reference", renamed(columns={name: f"x{name}" for name in GENES[9:]})),
        "spatial and reference must share at least 10 genes; got 9 of 20 and 20. First names: 'Gene0', 'Gene0'",
    ),
    "already log data": (
        lambda: changed("spatial", lambda frame: np.log1p(1e4 * frame.div(frame.sum(axis=1), axis=0))),
        "It looks like log1p of counts normalised to a total of 1e+04 per row",
    ),
    "whole st negated": (
        lambda: changed("spatial", lambda frame: -frame),
        "spatial must be finite and >= 0; got -2 at spot 'spot-0', gene 'Gene0'",
    ),
    "one -5 in st": (lambda: changed("spatial", put(-5, (3, 2))), "got -5 at spot 'spot-3', gene 'Gene2'. Pass raw"),
    "one NaN in st": (lambda: changed("spatial", put(np.nan, (3, 2))), "got nan at spot 'spot-3', gene 'Gene2'"),
    "one inf in st": (lambda: changed("spatial", put(np.inf, (3, 2))), "got inf at spot 'spot-3', gene 'Gene2'"),
    "one spot all -1": (
        lambda: changed("spatial", put(-1, *[(4, j) for j in range(N_GENES)])),
        "got -1 at spot 'spot-4', gene 'Gene0' and 19 more such values",
    ),
    "one NaN in sc": (
        lambda: changed("reference", put(np.nan, (3, 2))),
        "reference must be finite and >= 0; got nan at cell 'cell-3', gene 'Gene2'",
    ),
    "genes x cells orientation": (
        lambda: {"reference": problem()["reference"].T, "cell_types": ["A", "B"] * 10},
        "reference seems to be genes x cells: pass reference.T",
    ),
    "phi=1.5": (lambda: {"settings": Settings(phi=1.5)}, "`phi` must be a number from 0 to 1; got 1.5"),
    "phi=-3": (lambda: {"settings": Settings(phi=-3)}, "`phi` must be a number from 0 to 1; got -3"),
    "lambda_cell=-1": (lambda: {"settings": Settings(lambda_cell=-1)}, "`lambda_cell` must be a number >= 0"),
    "lambda_spatial=-1e4": (
        lambda: {"settings": Settings(lambda_spatial=-1e4)},
        "`lambda_spatial` must be a number >= 0",
    ),
    "lambda_ridge=-1e4": (lambda: {"settings": Settings(lambda_ridge=-1e4)}, "`lambda_ridge` must be a number >= 0"),
    "n_iter=0": (lambda: {"settings": Settings(n_iter=0)}, "`n_iter` must be a whole number >= 1"),
    "max_cells_per_type=0": (
        lambda: {"settings": Settings(max_cells_per_type=0)},
        "`max_cells_per_type` must be a whole number >= 1",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_row_refused(row):
    make, words = REFUSED[row]
    with pytest.raises(DataError) as caught:
        read(**make())
    assert words in str(caught.value)


def test_row_9_spots_at_one_point():
    places = problem()["coordinates"]
    places.iloc[:9] = 1.0
    places.iloc[9:, 0] += 10
    with pytest.warns(DataWarning, match="9 spots share their coordinates") as caught:
        inputs = read(coordinates=places)
    assert len(caught) == 1 and inputs.notes == (str(caught[0].message),)
    np.testing.assert_array_equal(inputs.coordinates, places)


def test_row_outlier_spot():
    places = problem()["coordinates"]
    places.iloc[0] = 1e4
    assert read(coordinates=places).notes == ()


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " ", "nan", "None", "<NA>", pd.NaT])
def test_row_nan_or_missing_labels(missing):
    labels = problem()["cell_types"].astype(object)
    labels.iloc[[0, 25]] = missing
    with pytest.warns(DataWarning, match="^2 reference cells of 30 without a label: left out.$") as caught:
        inputs = read(cell_types=labels)
    assert len(caught) == 1 and inputs.types == ("A", "B", "C")
    assert list(np.flatnonzero(inputs.cell_types < 0)) == [0, 25]


def test_row_cell_missing_from_the_label_index():
    with pytest.warns(DataWarning, match="^1 reference cell of 30 without a label"):
        inputs = read(cell_types=problem()["cell_types"].drop("cell-4"))
    assert list(np.flatnonzero(inputs.cell_types < 0)) == [4]


def test_row_spot_with_zero_counts():
    inputs = read(**changed("spatial", put(0, *[(4, j) for j in range(N_GENES)])))
    assert inputs.spot_status[4] == "no counts" and inputs.notes == ()
    assert (np.delete(inputs.spot_status, 4) == "ok").all()


def test_row_reference_cell_with_zero_counts():
    with pytest.warns(DataWarning, match="^1 reference cell of 30 without counts: left out.$"):
        inputs = read(**changed("reference", put(0, *[(4, j) for j in range(N_GENES)])))
    assert list(np.flatnonzero(inputs.cell_types < 0)) == [4]


def test_row_type_with_one_cell():
    labels = problem()["cell_types"]
    labels.iloc[0] = "rare"
    words = r"^Types with fewer than 5 cells: 'rare' \(1\); their profiles rest on few cells"
    with pytest.warns(DataWarning, match=words):
        inputs = read(cell_types=labels)
    assert inputs.types == ("A", "B", "C", "rare") and inputs.cell_types[0] == 3


def test_row_only_one_type():
    inputs = read(cell_types=["A"] * N_CELLS)
    assert inputs.types == ("A",) and inputs.notes == ()


def test_row_k_neighbors_above_n_spots():
    with pytest.warns(DataWarning, match=r"k_neighbors=100 is more than 1 section can give: 'section_0' \(16 spots\)"):
        read(settings=Settings(k_neighbors=100))


def test_row_one_spot_with_k_6():
    inputs = read(spatial=problem()["spatial"].iloc[:1], coordinates=[[0, 0]])
    assert inputs.spots.shape == (1, N_GENES) and inputs.notes == ()


def test_row_sc_only_gene_with_many_counts():
    """All genes stay in the tables, so that a later stage can choose what a total is."""
    inputs = read(**changed("reference", lambda frame: frame.assign(Only=10_000)))
    assert inputs.reference.shape[1] == N_GENES + 1 and N_GENES not in inputs.reference_genes
