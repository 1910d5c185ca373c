"""Settings: ranges, kinds, all faults in one message, unknown names."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from stdeconv_fast import DataError, DataTypeError, Settings

INF, NAN = float("inf"), float("nan")

# setting: (values that are good, values out of range, values of the wrong kind)
RANGES = {
    "phi": ((0, 0.5, 1, np.float32(0.25)), (-0.01, 1.01, NAN, INF), ("0.5", True, None)),
    "lambda_cell": ((0, 7.5), (-1, NAN, INF), ("1", False)),
    "lambda_spatial": ((0, 7.5), (-1, NAN, INF), ("1", None)),
    "lambda_ridge": ((0, 7.5), (-1, NAN, INF), ("1", [1])),
    "max_cells_per_type": ((1, 10**6, np.int64(5)), (0, -1), (1.0, True)),
    "n_iter": ((1, 50), (0,), (2.5, "5")),
    "k_neighbors": ((0, 100), (-1,), (6.0, None)),
    "max_cells_per_spot": ((1, 500), (0,), (10.0,)),
    "min_shared_genes": ((2, 500), (1, 0), (10.0,)),
    "min_cells_per_type": ((1, 30), (0,), (1.5,)),
    "seed": ((0, 2**40), (-1,), (0.5, None, True)),
    "loss": (("poisson", "gaussian"), ("Poisson", None, 1), ()),
    "platform": (("auto", "pooled", "joint", "none"), ("no", None), ()),
    "abundance": (("auto", "cells", "mrna"), ("mRNA", None), ()),
    "objective": (("model", "original"), ("Original", None), ()),
    "device": (("auto", "cpu", "cuda"), ("gpu", None), ()),
    "dtype": (("float32", "float64", np.float32, np.dtype("float64")), ("float16", int), ()),
    "attention": ((True, False), (), (1, None)),
    "tune": ((True, False, np.True_), (), (1, "yes", None)),
    "cell_level": ((True, False), (), (0, "no")),
    "standard_errors": ((True, False, np.True_), (), (1, "yes", None)),
    "detection": ((True, False), (), (1, None)),
    "unknown": ((True, False), (), (0, "yes")),
    "check_counts": ((True, False), (), (1,)),
    "progress": ((True, False), (), (None,)),
    "n_jobs": ((None, -1, 1, 64), (0,), (1.0, True, "2")),
    "max_memory": ((None, 0, 0.5, 10**6), (-1, NAN, INF), ("8", True)),
    "exclude_types": ((("a", "b"), ["a"], "a", (), None), (), (3,)),
}


def cases(which):
    return [(name, value) for name, kinds in RANGES.items() for value in kinds[which]]


def test_the_table_names_every_setting():
    assert set(RANGES) == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(("name", "value"), cases(0))
def test_good_values(name, value):
    settings = Settings(**{name: value})
    assert type(getattr(settings, name)) in (int, float, str, bool, tuple, type(None))


@pytest.mark.parametrize(("name", "value"), cases(1))
def test_out_of_range(name, value):
    with pytest.raises(DataError, match=f"`{name}` must ") as caught:
        Settings(**{name: value})
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize(("name", "value"), cases(2))
def test_wrong_kind(name, value):
    with pytest.raises(DataTypeError, match=f"`{name}` must .*; got "):
        Settings(**{name: value})


def test_both_errors_are_the_usual_ones_too():
    with pytest.raises(ValueError):
        Settings(phi=2)
    with pytest.raises(TypeError):
        Settings(n_iter="5")


def test_message_of_one_fault():
    with pytest.raises(DataError) as caught:
        Settings(phi=1.5)
    assert str(caught.value) == "`phi` must be a number from 0 to 1; got 1.5."


@pytest.mark.parametrize("name", ["standard_errors", "detection", "unknown"])
def test_what_needs_the_poisson_loss(name):
    with pytest.raises(DataError, match=f"{name} needs the Poisson loss"):
        Settings(**{name: True}, loss="gaussian")
    assert Settings(**{name: False}, loss="gaussian").loss == "gaussian"


def test_an_unknown_type_has_no_cells():
    with pytest.raises(DataError, match="`unknown` must be False with cell_level=True; got True"):
        Settings(unknown=True, cell_level=True)


def test_all_faults_in_one_message():
    with pytest.raises(DataError) as caught:
        Settings(phi=-3, n_iter=0, loss="huber", n_jobs=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 faults in the settings:"
    for name in ("phi", "n_iter", "loss", "n_jobs"):
        assert sum(f"`{name}`" in line for line in lines) == 1


def test_faults_of_kind_alone_are_a_type_error():
    with pytest.raises(DataTypeError, match="2 faults"):
        Settings(n_iter="5", tune="yes")
    with pytest.raises(DataError) as caught:
        Settings(n_iter="5", phi=2)
    assert not isinstance(caught.value, TypeError)


def test_unknown_settings_are_named_with_the_known_ones():
    with pytest.raises(DataTypeError, match="must be among phi, lambda_cell, .*; got 'lamda_cell', 'n_iters'"):
        Settings.make(lamda_cell=1, n_iters=3)


def test_make_is_the_same_as_the_class():
    assert Settings.make(phi=0.3, n_iter=2) == Settings(phi=0.3, n_iter=2)


def test_types_to_exclude_become_a_tuple_of_texts():
    assert Settings(exclude_types="B cell").exclude_types == ("B cell",)
    assert Settings(exclude_types=[1, "b"]).exclude_types == ("1", "b")
    assert Settings(exclude_types=None).exclude_types == ()


def test_frozen_and_copied_with_changes():
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.phi = 0.1
    assert settings.but(phi=0.1).phi == 0.1 and settings.phi == 0.8
    with pytest.raises(DataError):
        settings.but(phi=2)


def test_as_dict_is_plain_and_whole():
    values = Settings(exclude_types=("a",)).as_dict()
    assert values["exclude_types"] == ["a"] and set(values) == set(RANGES)
    assert Settings.make(**values).as_dict() == values
