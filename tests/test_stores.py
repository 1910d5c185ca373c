"""Spots on disk: every way to store them gives the same rows, and what is damaged is named."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from stdeconv_fast import DataError
from stdeconv_fast.errors import DataTypeError
from stdeconv_fast.io import disk, matrices, stores
from stdeconv_fast.io.stores import SpotStore, open_spots

ROOT = Path(__file__).resolve().parent.parent
zarr = pytest.importorskip("zarr")
FORMATS = (2, 3) if hasattr(zarr.Group, "create_array") else (2,)


def make_spots(rng, n_spots=40, n_genes=15, prefix="s"):
    counts = sp.random(n_spots, n_genes, 0.3, "csr", np.float32, rng, data_rvs=lambda n: rng.integers(1, 9, n))
    adata = anndata.AnnData(
        counts,
        obs=pd.DataFrame(
            {"section": pd.Categorical(rng.choice(["a", "b"], n_spots)), "area": rng.random(n_spots)},
            index=[f"{prefix}{i}" for i in range(n_spots)],
        ),
        var=pd.DataFrame({"length": rng.integers(1, 9, n_genes)}, index=[f"gene{j}" for j in range(n_genes)]),
    )
    adata.layers["counts"] = (counts * 2).astype(np.int32)
    adata.layers["dense"] = counts.toarray()
    adata.obsm["spatial"] = rng.random((n_spots, 2))
    adata.obsm["table"] = pd.DataFrame(rng.random((n_spots, 2)), index=adata.obs_names, columns=["x", "y"])
    return adata


def write_zarr(adata, path, form=2):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with anndata.settings.override(**({"zarr_write_format": form} if len(FORMATS) > 1 else {})):
            adata.write_zarr(path)
    return path


@pytest.fixture
def adata(rng):
    return make_spots(rng)


@pytest.fixture
def file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "st.h5ad")
    return tmp_path / "st.h5ad"


def write_as(adata, folder, kind):
    """The same spots, stored in one of many ways; what `open_spots` takes."""
    if kind == "h5ad":
        adata.write_h5ad(folder / "st.h5ad")
    elif kind == "gzip":
        adata.write_h5ad(folder / "st.h5ad", compression="gzip")
    elif kind == "dense":
        dense = adata.copy()
        dense.X = dense.X.toarray()
        dense.write_h5ad(folder / "st.h5ad", compression="gzip")
    elif kind == "backed":
        adata.write_h5ad(folder / "st.h5ad")
        return anndata.read_h5ad(folder / "st.h5ad", backed="r")
    elif kind in ("zarr 2", "zarr 3"):
        return write_zarr(adata, folder / "st.zarr", int(kind[-1]))
    elif kind == "zarr dense":
        dense = adata.copy()
        dense.X = dense.X.toarray()
        return write_zarr(dense, folder / "st.zarr")
    else:
        for name, rows in {"b.zarr": slice(25, 26), "a.h5ad": slice(0, 25), "c.h5ad": slice(26, None)}.items():
            part = adata[rows].copy()
            if name == "c.h5ad" and kind == "tiles, one dense":
                part.X = part.X.toarray()
            write_zarr(part, folder / name) if name.endswith("zarr") else part.write_h5ad(folder / name)
        (folder / "readme.txt").write_text("not a tile")
        (folder / ".hidden.h5ad").write_text("half a file")
        return folder
    return folder / "st.h5ad"


KINDS = (
    "h5ad", "gzip", "dense", "backed", *(f"zarr {form}" for form in FORMATS), "zarr dense", "tiles", "tiles, one dense",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_all_ways_to_store_give_the_same_rows(adata, tmp_path, kind):
    with open_spots(write_as(adata, tmp_path, kind)) as store:
        assert store.shape == adata.shape and store.where == "spatial.X" and store.dtype == np.float32
        assert store.nnz == (None if "dense" in kind else adata.X.nnz)
        assert list(store.obs_names) == list(adata.obs_names) and list(store.var_names) == list(adata.var_names)
        for start, stop in [(0, 40), (0, 0), (40, 40), (7, 8), (20, 31), (25, 26), (24, 27), (39, 40)]:
            block = store.read(start, stop)
            assert isinstance(block, sp.csr_matrix) and block.shape == (stop - start, 15)
            assert block.dtype == np.float32 and block.indices.dtype == block.indptr.dtype == np.int32
            block.check_format(full_check=True)
            np.testing.assert_array_equal(block.toarray(), adata.X[start:stop].toarray())


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_spots(adata, tmp_path, kind):
    with open_spots(write_as(adata, tmp_path, kind)) as store:
        pd.testing.assert_frame_equal(store.obs, adata.obs)
        assert store.obs_keys == ["section", "area"]
        for name in store.obs_keys:
            pd.testing.assert_series_equal(store.obs_column(name), adata.obs[name].reset_index(drop=True))
        pd.testing.assert_frame_equal(store.var, adata.var)
        assert store.layers == ["counts", "dense"] and sorted(store.obsm_keys) == ["spatial", "table"]
        np.testing.assert_array_equal(store.obsm("spatial"), adata.obsm["spatial"])
        pd.testing.assert_frame_equal(store.obsm("table"), adata.obsm["table"])
        for missing in (store.obsm, store.obs_column):
            with pytest.raises(KeyError, match="nothing"):
                missing("nothing")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["counts", "dense"])
def test_layers(adata, tmp_path, kind, layer):
    store = open_spots(write_as(adata, tmp_path, kind), layer)
    assert store.where == f"spatial.layers['{layer}']" and layer in repr(store)
    block, expected = store.read(3, 30), sp.csr_matrix(adata.layers[layer][3:30])
    assert block.dtype == expected.dtype and (block != expected).nnz == 0


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64", ">f4", ">i4"])
@pytest.mark.parametrize("dense", [False, True])
def test_numbers_keep_their_dtype(adata, tmp_path, dtype, dense):
    values = adata.X.toarray().astype(dtype)
    with h5py.File(write_as(adata, tmp_path, "h5ad"), "r+") as file:
        if dense:
            del file["X"]
            file["X"] = values
        else:
            del file["X/data"]
            file["X/data"] = adata.X.data.astype(dtype)
    expected = {"float16": "float32", ">f4": "float32", ">i4": "int32"}.get(dtype, dtype)
    block = open_spots(tmp_path / "st.h5ad").read(5, 20)
    assert block.dtype == expected and block.data.dtype.isnative
    np.testing.assert_array_equal(block.toarray(), values[5:20])


def test_nan_of_a_dense_table_stays(adata, tmp_path):
    adata.X = adata.X.toarray()
    adata.X[3, 4] = np.nan
    adata.write_h5ad(tmp_path / "st.h5ad")
    np.testing.assert_array_equal(open_spots(tmp_path / "st.h5ad").read(0, 40).toarray(), adata.X)


def test_dense_tables_are_read_in_parts(adata, tmp_path, monkeypatch):
    monkeypatch.setattr(matrices, "DENSE_BLOCK", 50)
    block = open_spots(write_as(adata, tmp_path, "dense")).read(1, 39)
    np.testing.assert_array_equal(block.toarray(), adata.X[1:39].toarray())


@pytest.mark.parametrize("dtype", ["int64", "uint16", "uint64"])
def test_indices_of_any_width(adata, file, dtype):
    with h5py.File(file, "r+") as opened:
        for name in ("indices", "indptr"):
            values = opened[f"X/{name}"][:].astype(dtype)
            del opened[f"X/{name}"]
            opened[f"X/{name}"] = values
    block = open_spots(file).read(4, 30)
    assert block.indices.dtype == np.int32 and (block != adata.X[4:30]).nnz == 0


def test_more_entries_than_int32_counts(tmp_path):
    """The arrays are larger than 2**31, but hold nothing except at their end, so that the file is small."""
    nnz, n_spots = 2**31 + 1000, 4
    ends = np.array([0, 2**31 - 10, 2**31 + 10, 2**31 + 500, nnz])
    adata = anndata.AnnData(sp.csr_matrix((n_spots, 3), dtype=np.float32))
    adata.write_h5ad(tmp_path / "st.h5ad")
    with h5py.File(tmp_path / "st.h5ad", "r+") as file:
        for name in ("data", "indices", "indptr"):
            del file[f"X/{name}"]
        file["X"].create_dataset("data", (nnz,), np.uint8, chunks=(1 << 20,), fillvalue=0)
        file["X"].create_dataset("indices", (nnz,), np.int32, chunks=(1 << 20,), fillvalue=0)
        file["X/data"][2**31 - 5 :] = 7
        file["X/indices"][2**31 - 5 :] = 2
        file["X/indptr"] = ends
    store = open_spots(tmp_path / "st.h5ad")
    assert store.nnz == nnz and store.cut() == [(0, 1), (1, 4)]
    block = store.read(1, 4)
    np.testing.assert_array_equal(np.diff(block.indptr), np.diff(ends)[1:])
    np.testing.assert_array_equal(
        block.toarray(), [[0, 0, (15 * 7) % 256], [0, 0, (490 * 7) % 256], [0, 0, 500 * 7 % 256]]
    )


def test_reading_takes_memory_for_the_rows_asked_for_only(tmp_path, rng):
    adata = make_spots(rng, 20_000, 50)
    del adata.layers["dense"], adata.layers["counts"]
    adata.write_h5ad(tmp_path / "st.h5ad")
    store = open_spots(tmp_path / "st.h5ad")
    store.read(0, 10)
    tracemalloc.start()
    try:
        block = store.read(5000, 6000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * (block.data.nbytes + block.indices.nbytes + block.indptr.nbytes)
    assert peak < adata.X.data.nbytes / 2


# -- ranges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 5, 17, 60, 10**9])
def test_ranges_hold_all_spots_and_few_entries(adata, tmp_path, most):
    store = open_spots(write_as(adata, tmp_path, "h5ad"))
    ranges = store.cut(most)
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])] and ranges[-1][1] == 40
    ends = adata.X.indptr
    for start, stop in ranges:
        assert stop > start and (ends[stop] - ends[start] <= most or stop == start + 1)
        assert stop == 40 or ends[stop + 1] - ends[start] > most or stop == start + 1
    assert all(type(bound) is int for bounds in ranges for bound in bounds)
    (tmp_path / "tiles").mkdir()
    assert open_spots(write_as(adata, tmp_path / "tiles", "tiles")).cut(most) == ranges


def test_ranges_of_dense_tables(adata, tmp_path):
    assert open_spots(write_as(adata, tmp_path, "dense")).cut(15 * 16) == [(0, 16), (16, 32), (32, 40)]


@pytest.mark.parametrize("most", [0, -1])
def test_ranges_need_an_entry(file, most):
    with pytest.raises(DataError, match=f"`most_entries` must be at least 1; got {most}"):
        open_spots(file).cut(most)


@pytest.mark.parametrize("bounds", [(-1, 3), (5, 4), (0, 41)])
def test_rows_must_be_there(file, bounds):
    with pytest.raises(DataError, match="must lie within 40 spots"):
        open_spots(file).read(*bounds)


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_are_small_and_read_the_same(adata, tmp_path, kind):
    store = open_spots(write_as(adata, tmp_path, kind), "counts")
    store.read(0, 4), store.obs_names
    packed = pickle.dumps(store)
    assert len(packed) < 400 + 200 * len(store.tiles)
    copy = pickle.loads(packed)
    assert isinstance(copy, SpotStore) and not copy._open and not copy._names
    assert (copy.shape, copy.nnz, copy.dtype, copy.where) == (store.shape, store.nnz, store.dtype, store.where)
    assert (copy.read(20, 40) != store.read(20, 40)).nnz == 0
    assert list(copy.obs_names) == list(adata.obs_names)


def test_another_process_reads_without_anndata(adata, file, tmp_path):
    (tmp_path / "store").write_bytes(pickle.dumps(open_spots(file)))
    code = (
        "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); "
        "print(s.read(2, 9).sum(), 'anndata' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == [str(adata.X[2:9].sum()), "False"], done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_at_once(adata, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(stores, "FILES_OPEN", 1)  # so that files are closed while others read
    store = open_spots(write_as(adata, tmp_path, kind))
    bounds = [(i % 37, i % 37 + 3) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda rows: store.read(*rows), bounds))
    assert len(store._open) == 1
    for (start, stop), block in zip(bounds, blocks, strict=True):
        np.testing.assert_array_equal(block.toarray(), adata.X[start:stop].toarray())


def test_a_closed_store_opens_again(adata, file):
    store = open_spots(file)
    with store:
        store.read(0, 1)
    assert not store._open
    assert (store.read(0, 40) != adata.X).nnz == 0
    store.close()
    store.close()


def test_a_file_that_changes_is_noticed(adata, file, tmp_path):
    store = open_spots(file)
    adata[:30].copy().write_h5ad(file)
    with pytest.raises(DataError, match="must stay as it is while it is read"):
        store.read(0, 10)
    file.unlink()
    with pytest.raises(DataError, match="must be a file or a folder that exists"):
        store.read(0, 10)


# -- a backed AnnData --------------------------------------------------------------------------------------------------


def test_labels_of_a_backed_anndata_are_those_in_memory(file):
    backed = anndata.read_h5ad(file, backed="r+")
    backed.obs["new"] = np.arange(40)
    backed.obsm["new"] = np.ones((40, 1))
    store = open_spots(backed)
    assert "new" in store.obs_keys and store.obs_column("new").tolist() == list(range(40))
    assert "new" in store.obsm_keys and store.obsm("new").sum() == 40
    assert store.read(0, 40).nnz == store.nnz


def test_what_is_no_file_is_refused(adata, file):
    with pytest.raises(DataTypeError, match="must be a path or an AnnData in backed mode; got one in memory"):
        open_spots(adata)
    with pytest.raises(DataError, match="got a view"):
        open_spots(anndata.read_h5ad(file, backed="r")[:10])
    with pytest.raises(DataTypeError, match="got numpy.ndarray"):
        open_spots(np.ones((2, 2)))
    with pytest.raises(DataTypeError, match="`layer_st` must be the name of a layer or None; got int"):
        open_spots(file, 3)


# -- tiles -------------------------------------------------------------------------------------------------------------


def test_tiles_must_have_the_same_genes(rng, tmp_path):
    make_spots(rng).write_h5ad(tmp_path / "a.h5ad")
    other = make_spots(rng)
    other.var_names = [*other.var_names[:3], "Actb", *other.var_names[4:]]
    other.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"same genes in the same order; got gene 'Actb' at place 3 in '.*b.h5ad'"):
        open_spots(tmp_path)
    make_spots(rng, n_genes=9).write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"got 9 genes in '.*b.h5ad'"):
        open_spots(tmp_path)


def test_tiles_share_what_all_have(rng, tmp_path):
    one, two = make_spots(rng), make_spots(rng, prefix="t")
    one.obs["more"], two.obs["section"] = 1, pd.Categorical(["c"] * 40)
    del two.layers["counts"], two.obsm["table"]
    two.X = two.X.astype(np.float64)
    one.write_h5ad(tmp_path / "a.h5ad")
    two.write_h5ad(tmp_path / "b.h5ad")
    store = open_spots(tmp_path)
    expected = anndata.concat([one, two])
    pd.testing.assert_frame_equal(store.obs, expected.obs)
    assert list(store.obs["section"].cat.categories) == ["a", "b", "c"]
    assert store.layers == ["dense"] and store.obsm_keys == ["spatial"] and store.dtype == np.float64
    assert store.read(0, 5).dtype == np.float64  # although the first tile has float32
    two.obsm["spatial"] = np.ones((40, 3))
    two.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(
        DataError, match=r"spatial.obsm\['spatial'\] must have as many columns in all tiles; got 2 and 3"
    ):
        open_spots(tmp_path).obsm("spatial")


def test_a_missing_layer_names_the_tile(rng, tmp_path):
    make_spots(rng).write_h5ad(tmp_path / "a.h5ad")
    other = make_spots(rng)
    del other.layers["counts"]
    other.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"must have 'counts'; got 'dense' in '.*b.h5ad'. Pass layer_st='dense'"):
        open_spots(tmp_path, "counts")


# -- faults ------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_anndata(tmp_path):
    with pytest.raises(DataError, match="must be a file or a folder that exists; got '.*no.h5ad'"):
        open_spots(tmp_path / "no.h5ad")
    with pytest.raises(DataError, match="a folder of such; got the folder '.*' without any"):
        open_spots(tmp_path)
    (tmp_path / "text.h5ad").write_text("spot,gene\n")
    with pytest.raises(DataError, match="must be an h5ad file; got '.*text.h5ad', which cannot be read"):
        open_spots(tmp_path / "text.h5ad")
    with h5py.File(tmp_path / "tenx.h5", "w") as file:
        file.create_group("matrix")
    with pytest.raises(DataError, match="must hold an AnnData, with obs and var; got 'matrix' in"):
        open_spots(tmp_path / "tenx.h5")
    group = zarr.open_group(str(tmp_path / "images.zarr"), mode="w")
    group.create_group("tables").create_group("table")
    with pytest.raises(DataError, match="Pass one of its tables: '.*images.zarr/tables/table'"):
        open_spots(tmp_path / "images.zarr")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / ".zgroup").write_text("{")
    with pytest.raises(DataError, match="`spatial` must be a zarr folder; got '.*broken.zarr'"):
        open_spots(tmp_path / "broken.zarr")


def test_no_counts(adata, tmp_path):
    adata.X = None
    adata.write_h5ad(tmp_path / "st.h5ad")
    with pytest.raises(
        DataError, match=r"must hold counts in X; got None in .* Pass layer_st to use a layer \('counts'"
    ):
        open_spots(tmp_path / "st.h5ad")
    with pytest.raises(DataError, match=r"must hold counts in X; got None"):
        open_spots(write_zarr(adata, tmp_path / "st.zarr"))
    with pytest.raises(DataError, match=r"spatial.layers must have 'raw'; got 'counts', 'dense' in"):
        open_spots(tmp_path / "st.h5ad", "raw")
    del adata.layers["counts"], adata.layers["dense"]
    adata.write_h5ad(tmp_path / "st.h5ad")
    with pytest.raises(DataError, match=r"must have 'raw'; got no layers in .* Leave out layer_st to use X"):
        open_spots(tmp_path / "st.h5ad", "raw")


@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
def test_columns_cannot_be_read_by_rows(adata, tmp_path, kind):
    adata.X, adata.layers["counts"] = adata.X.tocsc(), adata.layers["counts"].tocsc()
    path = write_as(adata, tmp_path, kind)
    with pytest.raises(DataError, match=r"`spatial.X` must be stored by rows .* adata.X = adata.X.tocsr\(\)"):
        open_spots(path)
    with pytest.raises(DataError, match=r"adata.layers\['counts'\] = adata.layers\['counts'\].tocsr\(\)"):
        open_spots(path, "counts")


def set_item(name, at, value):
    def damage(file):
        array = file[f"X/{name}"]
        values = array[:]
        values[at] = value
        array[:] = values

    return damage


def shorten(name):
    def damage(file):
        values = file[f"X/{name}"][:-3]
        del file[f"X/{name}"]
        file[f"X/{name}"] = values

    return damage


def remove(name):
    def damage(file):
        del file[name]

    return damage


DAMAGE = {
    "an index too large": set_item("indices", 2, 15),
    "an index below 0": set_item("indices", 2, -1),
    "ends that fall": set_item("indptr", 2, 0),
    "ends below 0": set_item("indptr", 2, -5),
    "an end beyond all": set_item("indptr", 2, 10**6),
    "a start that is not 0": set_item("indptr", 0, 1),
    "a last end beyond all": set_item("indptr", -1, 10**6),
    "too few ends": shorten("indptr"),
    "too few entries": shorten("data"),
    "too few indices": shorten("indices"),
    "no indices": remove("X/indices"),
    "no shape": lambda file: file["X"].attrs.pop("shape"),
    "an odd shape": lambda file: file["X"].attrs.__setitem__("shape", [40]),
    "no names of spots": remove("obs/_index"),
    "no names of genes": remove("var/_index"),
}


@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(adata, tmp_path, damage, kind):
    path = write_as(adata, tmp_path, kind)
    if kind == "h5ad":
        with h5py.File(path, "r+") as file:
            DAMAGE[damage](file)
    else:
        if damage.startswith("too few"):
            pytest.skip("the same check as in h5ad")
        (path / ".zmetadata").unlink(missing_ok=True)
        DAMAGE[damage](zarr.open_group(str(path), mode="r+"))
    with pytest.raises(DataError, match=r"in '.*st\.(h5ad|zarr)'.*([Dd]amaged|make it anew)"):
        open_spots(path).read(0, 5)


def test_a_shape_other_than_the_labels(adata, file):
    with h5py.File(file, "r+") as opened:
        opened["X"].attrs["shape"] = [40, 16]
    with pytest.raises(DataError, match="a column per gene; got 40 x 16 for 40 spots and 15 genes"):
        open_spots(file)


def test_a_file_cut_short(adata, file, tmp_path):
    whole = file.read_bytes()
    for part in (0.3, 0.7, 0.95):
        (tmp_path / "cut.h5ad").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match="cannot be read"):
            open_spots(tmp_path / "cut.h5ad")


def test_bytes_that_rot(adata, tmp_path):
    """Any byte may be wrong: an answer or a DataError, never a crash or another error."""
    rng = np.random.default_rng(0)
    path = write_as(adata, tmp_path, "gzip")
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        rotten = whole.copy()
        rotten[rng.integers(len(whole), size=20)] = rng.integers(256, size=20)
        path.write_bytes(rotten.tobytes())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                store = open_spots(path)
                for start, stop in store.cut(100)[:20]:
                    store.read(start, stop).check_format(full_check=True)
        except DataError as fault:
            assert str(path) in str(fault)


def test_a_zarr_chunk_cut_short(adata, tmp_path):
    path = write_as(adata, tmp_path, "zarr 2")
    chunk = next(path.glob("X/data/0"))
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(DataError, match="`spatial.X` must be readable; got a fault in"):
        open_spots(path).read(0, 5)


def test_counts_must_be_numbers(adata, file):
    with h5py.File(file, "r+") as opened:
        del opened["X/data"]
        opened["X"].create_dataset("data", data=["1"] * adata.X.nnz)
    with pytest.raises(DataTypeError, match="`spatial.X` must hold numbers; got object"):
        open_spots(file)
    with h5py.File(file, "r+") as opened:
        del opened["X"]
        opened["X"] = np.ones(40)
    with pytest.raises(DataError, match="`spatial.X` must have two dimensions; got 1"):
        open_spots(file)
    with h5py.File(file, "r+") as opened:
        del opened["X"]
        opened.create_group("X")
    with pytest.raises(DataError, match="must be a sparse matrix .* got a plain group"):
        open_spots(file)


def test_zarr_that_is_missing_is_named(adata, tmp_path, monkeypatch):
    path = write_zarr(adata, tmp_path / "st.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError, match="needs the package zarr; got: .* Run: pip install zarr"):
        open_spots(path)


def test_files_of_old_anndata(adata, file):
    """Before 0.7 sparse matrices had other attributes, and tables were one array."""
    with h5py.File(file, "r+") as opened:
        group = opened["X"]
        for name in list(group.attrs):
            del group.attrs[name]
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", adata.shape
    assert (open_spots(file).read(0, 40) != adata.X).nnz == 0
    with h5py.File(file, "r+") as opened:
        del opened["obs"]
        opened["obs"] = np.zeros(40, dtype=[("index", "S5")])
    with pytest.raises(DataError, match="as anndata 0.7 and later do it; got an older file"):
        open_spots(file)


def test_names_of_any_kind(adata, tmp_path):
    adata.obs.index.name, adata.var.index.name = "barcode", "symbol"
    adata.write_h5ad(tmp_path / "st.h5ad")
    store = open_spots(tmp_path / "st.h5ad")
    assert store.obs_names.name == "barcode" and store.var_names.name == "symbol" and store.obs_index_name == "barcode"
    with h5py.File(tmp_path / "st.h5ad", "r+") as file:
        del file["obs/barcode"]
        file["obs"].create_dataset("barcode", data=np.arange(40))
        for name, value in {"encoding-type": "array", "encoding-version": "0.2.0"}.items():
            file["obs/barcode"].attrs[name] = value
    assert list(open_spots(tmp_path / "st.h5ad").obs_names) == [str(i) for i in range(40)]


def test_the_same_folder_by_another_name(adata, tmp_path):
    path = write_zarr(adata, tmp_path / "st.zarr")
    shutil.move(path, tmp_path / "no_ending")
    assert disk.is_zarr(tmp_path / "no_ending")
    assert open_spots(str(tmp_path / "no_ending")).shape == adata.shape
