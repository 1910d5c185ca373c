"""Results and references in files: the round trip, and files that are none."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import stdeconv_fast as sd
from stdeconv_fast.io import archives
from stdeconv_fast.parcels import Graph, Result
from tests.small_inputs import problem


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(n_spots=60, n_genes=50, n_types=3, cells_per_type=12, seed=1, as_anndata=True)


@pytest.fixture(scope="module")
def result(tissue):
    """The optional fields filled."""
    spots = tissue[0].copy()
    spots.X = sp.csr_matrix(spots.X.multiply((np.arange(60) != 5)[:, None]))
    found = sd.deconvolve(
        spots, tissue[1], cell_types="celltype", cell_level=True, standard_errors=True, progress=False
    )
    optional = ("cell_weights", "cells", "cell_types", "graph", "standard_errors", "fit", "gene_fit", "provenance")
    assert all(getattr(found, name) is not None for name in optional)
    return found


@pytest.fixture
def saved(result, tmp_path):
    path = tmp_path / "result.npz"
    result.save(path)
    return path


def same(one, other, place="value"):
    """Two values are equal in kind, dtype and bits, NaN included."""
    assert type(one) is type(other), place
    if is_dataclass(one):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name), f"{place}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, place
        np.testing.assert_array_equal(one, other, err_msg=place)
    elif sp.issparse(one):
        assert one.shape == other.shape, place
        for part in ("indptr", "indices", "data"):
            same(getattr(one, part), getattr(other, part), f"{place}.{part}")
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True, obj=place)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, check_exact=True, obj=place)
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other, exact=True, obj=place)
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key in one:
            same(one[key], other[key], f"{place}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{place}[{k}]")
    else:
        assert one == other or (one != one and other != other), place


def test_every_field_comes_back(result, saved):
    again = Result.load(saved)
    same(result, again)
    assert repr(again) == repr(result)
    assert again.proportions.isna().any(axis=None) and again.strengths.path
    sd.pl.proportions(again, coordinates=np.random.default_rng(0).random((60, 2)))


def test_a_difference_would_be_seen(result):
    changed = replace(result, standard_errors=result.standard_errors.astype(np.float32))
    with pytest.raises(AssertionError, match="standard_errors"):
        same(result, changed)


def test_values_of_all_kinds(result, tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "ü\0"], "c": pd.Categorical(["u", None]), "d": [0.5, np.nan]})
    odd = {
        "frame": frame, "twice": pd.DataFrame(np.eye(2, dtype=np.float32), columns=["a", "a"]),
        "columns": pd.DataFrame(np.asfortranarray(np.arange(6.0).reshape(2, 3)), index=pd.Index([3, 4], name="n")),
        "empty": np.zeros((0, 3), np.int16), "scalar": np.float32(0.1), "nan": float("nan"), "inf": -float("inf"),
        "none": np.array(["a", None, ""], dtype=object), "texts": np.array(["a", "bc"]), "no texts": np.array([], "O"),
        "wide": sp.csr_matrix((np.ones(1), np.array([1], np.int64), np.array([0, 1], np.int64)), shape=(1, 3)),
        "nested": [(1, None, True), {"kind": "dict", "": []}], "big": 2**70, "surrogate": "\udcff",
        "series": pd.Series([True, False], index=["p", "q"], name="s"), "bytes order": np.arange(3, dtype=">i4"),
    }  # fmt: skip
    more = replace(result, diagnostics=odd)
    more.save(tmp_path / "odd")
    again = Result.load(tmp_path / "odd")
    same(more, again)


def test_without_the_optional_fields(tissue, tmp_path):
    result = sd.deconvolve(*tissue, cell_types="celltype", loss="gaussian", lambda_spatial=0, progress=False)
    assert result.cell_weights is None and result.fit is None
    result.save(tmp_path / "r")
    same(result, Result.load(tmp_path / "r"))


def test_provenance_tells_inputs_and_versions(result, tissue):
    again = sd.deconvolve(*tissue, cell_types="celltype", progress=False)
    one, other = result.provenance["inputs"], again.provenance["inputs"]
    assert {name for name in one if one[name] != other[name]} == {"spots"}  # one spot was emptied
    assert set(one) == {"spots", "coordinates", "sections", "reference"}
    assert result.provenance["versions"]["numpy"] == np.__version__
    assert set(result.provenance["versions"]) >= {"python", "stdeconv-fast", "numba", "pandas", "scipy"}


def test_the_file_is_plain(saved, result):
    """NumPy reads the arrays, and any JSON reader the header; no entry is a pickle."""
    with zipfile.ZipFile(saved) as archive:
        header = json.loads(archive.read("header.json"))
        names = archive.namelist()
    assert header["schema"] == 1 and header["parcel"] == "Result" and header["version"]
    assert all(name == "header.json" or name.endswith(".npy") for name in names)
    with np.load(saved, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["Result.proportions.values"], result.proportions.to_numpy())
        assert all(arrays[name.removesuffix(".npy")].dtype.kind in "biuf" for name in names if name != "header.json")


def test_saving_replaces_whole_or_not_at_all(result, saved, monkeypatch):
    before = saved.read_bytes()
    other = replace(result, diagnostics={**result.diagnostics, "n_spots": -1})

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="no space"):
            other.save(saved)
    assert saved.read_bytes() == before and [file.name for file in saved.parent.iterdir()] == [saved.name]
    other.save(saved)
    assert Result.load(saved).diagnostics["n_spots"] == -1


def test_what_files_do_not_hold_is_named(result, tmp_path):
    bad = replace(result, diagnostics={"a": {"b": [object()]}})
    with pytest.raises(sd.DataError, match=r"`Result.diagnostics.0.0.0` must be of a kind that files hold; got object"):
        bad.save(tmp_path / "r")
    with pytest.raises(sd.DataError, match="must hold numbers or a row of texts"):
        replace(result, diagnostics={"a": np.array([{}])}).save(tmp_path / "r")
    assert not list(tmp_path.iterdir())


def rewrite(path, change):
    """The archive with `change(header, arrays)` made to its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts.pop("header.json"))
    change(header, parts)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, text in parts.items():
            archive.writestr(name, text)


def test_an_unknown_schema_is_refused(saved):
    rewrite(saved, lambda header, parts: header.update(schema=2, version="9.1"))
    with pytest.raises(sd.DataError, match="must be a file of schema 1; got schema 2 in .*, written by.* 9.1"):
        Result.load(saved)


def test_an_unknown_field_is_refused_and_a_missing_one_gets_its_default(saved):
    rewrite(saved, lambda header, parts: header["tree"]["fields"].pop("gene_fit"))
    assert Result.load(saved).gene_fit is None
    rewrite(saved, lambda header, parts: header["tree"]["fields"].update(p_values=None))
    with pytest.raises(sd.DataError, match="Result has no field 'p_values' in this version"):
        Result.load(saved)
    rewrite(saved, lambda header, parts: [header["tree"]["fields"].pop(name) for name in ("p_values", "status")])
    with pytest.raises(sd.DataError, match="Result lacks 'status'"):
        Result.load(saved)


def test_another_parcel_is_refused(saved):
    with pytest.raises(sd.DataError, match="must hold a BuiltReference; got a Result in .* Use Result.load"):
        sd.BuiltReference.load(saved)


def test_truncated_and_changed_files_are_refused(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(sd.DataError, match="must be a whole file written by Result.save"):
            Result.load(saved)
    values = Result.load(rewritten(saved, whole)).proportions.to_numpy()
    at = whole.index(values.tobytes())  # one bit of one proportion
    saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(sd.DataError, match="must be a whole file written by Result.save.*CRC"):
        Result.load(saved)


def rewritten(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda header, parts: header.pop("tree"),
        lambda header, parts: header.update(format="other"),
        lambda header, parts: header.update(tree=[1]),
        lambda header, parts: header["tree"].update(type="Popen"),
        lambda header, parts: header["tree"]["fields"].update(graph={"kind": "pickle", "values": "cos"}),
        lambda header, parts: header["tree"]["fields"]["cell_weights"].update(shape=[60, 1]),
        lambda header, parts: parts.pop("Result.proportions.values.npy"),
        lambda header, parts: parts.update({"Result.proportions.values.npy": b"\x93NUMPY"}),
        lambda header, parts: parts.update({"Result.proportions.values.npy": pickle.dumps([1])}),
        lambda header, parts: parts.update({"Result.genes.values.ends.npy": parts["Result.graph.indptr.npy"]}),
    ],
)
def test_damaged_trees_are_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(sd.DataError, match="must be a whole file written by Result.save"):
        Result.load(saved)


def test_a_pickle_within_is_never_opened(saved, tmp_path):
    mark = tmp_path / "opened"

    class Evil:
        def __reduce__(self):
            return (mark.touch, ())

    import io

    text = io.BytesIO()
    np.save(text, np.array([Evil()], dtype=object), allow_pickle=True)
    rewrite(saved, lambda header, parts: parts.update({"Result.proportions.values.npy": text.getvalue()}))
    with pytest.raises(sd.DataError, match="holds object"):
        Result.load(saved)
    assert not mark.exists()
    np.load(io.BytesIO(text.getvalue()), allow_pickle=True)
    assert mark.exists()  # it would have


def test_an_array_longer_than_its_entry_is_refused(saved):
    import io

    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    rewrite(saved, lambda header, parts: parts.update({"Result.proportions.values.npy": text.getvalue()}))
    with pytest.raises(sd.DataError, match="another length than it says"):
        Result.load(saved)


def test_any_changed_byte_is_refused_or_changes_nothing(tmp_path):
    given, path = problem(), tmp_path / "reference"
    built = sd.build_reference(given["reference"], given["cell_types"])
    built.save(path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for at in rng.choice(len(whole), 400, replace=False):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
        try:
            again = sd.BuiltReference.load(path)
        except sd.DataError as error:
            assert "must be a whole file" in str(error)
            refused += 1
        else:
            same(built, again)
    assert refused > 200


def test_a_compressed_entry_is_refused(saved):
    """Such an entry could be far longer than the file."""
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    with pytest.raises(sd.DataError, match="must be a whole file.*header.json is compressed"):
        Result.load(saved)


def test_settings_out_of_range_are_damage(saved):
    rewrite(saved, lambda header, parts: header["tree"]["fields"]["settings"]["fields"].update(phi=2.0))
    with pytest.raises(sd.DataError, match="must be a whole file written by Result.save.*`phi` must be"):
        Result.load(saved)


def test_no_file(tmp_path):
    with pytest.raises(sd.DataError, match="there is no such file"):
        Result.load(tmp_path / "none")
    with pytest.raises(sd.DataError, match="there is no folder"):
        sd.build_reference(*(problem()[name] for name in ("reference", "cell_types"))).save(tmp_path / "no" / "file")


def test_is_archive(saved, tmp_path):
    assert archives.is_archive(saved) and not archives.is_archive(tmp_path / "none")
    (tmp_path / "text").write_text("text")
    assert not archives.is_archive(tmp_path / "text") and not archives.is_archive(tmp_path)
    saved.write_bytes(saved.read_bytes()[:-1])
    assert archives.is_archive(saved)  # so that a message can say that it is damaged


def test_graphs_alone_and_other_parcels_are_known():
    assert set(archives.PARCELS.values()) >= {Result, Graph, sd.Settings, sd.BuiltReference}
