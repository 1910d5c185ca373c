"""read_inputs: what is accepted with one warning, or in silence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast.errors import DataError, DataWarning
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs.counts_check import BLOCK, Scan, scan
from tests.small_inputs import CELLS, problem, read

GIVEN = problem()
SPATIAL, REFERENCE, PLACES, LABELS = (GIVEN[key] for key in ("spatial", "reference", "coordinates", "cell_types"))
TYPES = LABELS.to_numpy()


def masked(frame, rows, value=pd.NA):
    frame = frame.copy()
    frame.loc[rows] = value
    return frame


def test_values_that_are_not_whole_can_be_allowed():
    loose = Settings(check_counts=False)
    words = "holds no raw counts .it looks like log1p of raw counts"
    with pytest.warns(DataWarning, match="spatial " + words):
        inputs = read(spatial=np.log1p(SPATIAL), settings=loose)
    assert not inputs.integer_counts and len(inputs.notes) == 1
    with pytest.warns(DataWarning, match="reference " + words):
        assert read(reference=np.log1p(REFERENCE), settings=loose).integer_counts
    with pytest.raises(DataError, match="must be finite and >= 0"):
        read(spatial=SPATIAL - 5, settings=loose)


def test_whole_numbers_that_look_like_logs_are_accepted():
    assert read(spatial=np.rint(np.log1p(SPATIAL))).integer_counts


def test_values_above_float32_integers_are_accepted():
    assert read(spatial=SPATIAL + 2**24 + 1).notes == ()


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "float32", "float64"])
def test_scan_finds_the_first_of_each(dtype):
    values = np.ones(2 * BLOCK + 10, dtype=dtype)
    assert scan(values) == scan(values[:0]) == Scan()
    if dtype == "uint16":
        return
    values[[BLOCK + 3, 2 * BLOCK + 1]] = -1
    assert scan(values) == Scan(bad=BLOCK + 3, n_bad=2, n_negative=2)
    if dtype.startswith("float"):
        values[[5, 9, BLOCK + 2]] = np.nan, 0.5, np.inf
        assert scan(values) == Scan(bad=5, n_bad=4, n_negative=2, fraction=9)


def one_warning(words, **changes):
    with pytest.warns(DataWarning) as caught:
        inputs = read(**changes)
    assert [str(entry.message) for entry in caught] == list(inputs.notes) == [words]
    return inputs


def test_warning_for_small_types_left_out():
    labels = ["x", "y", "y", *TYPES[3:]]
    words = "Types with fewer than 5 cells with counts: 'x' (1), 'y' (2); left out."
    inputs = one_warning(words, cell_types=labels, settings=Settings(min_cells_per_type=5))
    assert inputs.types == ("A", "B", "C") and (inputs.cell_types[:3] == -1).all()


def test_warning_for_a_type_whose_cells_have_no_counts():
    reference = masked(REFERENCE, CELLS[20:], 0)
    with pytest.warns(DataWarning) as caught:
        inputs = read(reference=reference)
    assert [str(entry.message) for entry in caught] == [
        "10 reference cells of 30 without counts: left out.",
        "Types with fewer than 1 cell with counts: 'C' (0); left out.",
    ]
    assert inputs.types == ("A", "B")


def test_warning_for_guessed_columns():
    places = pd.DataFrame({"row": PLACES["x"], "col": PLACES["y"], "a": 1, "b": 2})
    words = "coordinates has no columns x, y; its first two columns of numbers are used: 'row', 'col'."
    np.testing.assert_array_equal(one_warning(words, coordinates=places).coordinates, PLACES)


def test_spots_may_coincide_across_sections():
    places = np.repeat(np.arange(8.0), 2)[:, None] * [1, 1]
    assert read(coordinates=places, sections=["a", "b"] * 8).notes == ()
    words = (
        "16 spots share their coordinates with another spot of their section; they are used as such. Spots of several "
        "sections need sections= (sample_key= in tl, --sample-key)."
    )
    one_warning(words, coordinates=places)


def test_warning_for_small_sections():
    words = (
        "k_neighbors=6 is more than 2 sections can give: 'b' (6 spots), 'c' (1 spot); their spots take all others of "
        "the section as neighbours."
    )
    one_warning(words, sections=[*"aaaaaaaaabbbbbbc"])
    assert read(sections=[*"aaaaaaaaabbbbbbc"], settings=Settings(k_neighbors=0)).notes == ()
