"""io.read: every platform's folder gives the same section; what it found is told; faults say what was looked for."""

from __future__ import annotations

import logging
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import stdeconv_fast as sd
from tests import platform_folders as made
from tests.platform_folders import BARCODES, COUNTS, IDS, N_GENES, N_SPOTS, SYMBOLS, XY

IN_TISSUE = (np.arange(N_SPOTS) % 5 > 0).astype(int)


def needs_parquet():
    pytest.importorskip("pyarrow", reason="pip install 'stdeconv-fast[readers]'")


def same_section(adata, genes=N_GENES, places=True):
    assert list(adata.obs_names) == BARCODES and list(adata.var_names) == SYMBOLS[:genes]
    assert sp.isspmatrix_csr(adata.X)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[:, :genes])
    if places:
        np.testing.assert_array_equal(adata.obsm["spatial"], XY)


def source(adata):
    found = adata.uns["stdeconv_source"]
    return found["format"], list(found["notes"])


# -- Visium ----------------------------------------------------------------------------------------------------------

VISIUM = {
    "positions with header": {},
    "positions list": {"positions": "tissue_positions_list.csv", "header": False},
    "list with header": {"positions": "tissue_positions_list.csv"},
    "mtx": {"mtx": True},
}


@pytest.mark.parametrize("case", VISIUM)
def test_visium(case, tmp_path):
    adata = sd.io.read(made.visium(tmp_path / "sample", **VISIUM[case]))
    same_section(adata)
    assert source(adata)[0] == "Visium"
    np.testing.assert_array_equal(adata.obs["in_tissue"], IN_TISSUE)
    np.testing.assert_array_equal(adata.obs["array_row"], made.ROWS)
    np.testing.assert_array_equal(adata.obs["array_col"], made.COLS)
    assert list(adata.var["gene_ids"]) == IDS
    extras = adata.uns["spatial"]["sample"]
    assert extras["scalefactors"]["spot_diameter_fullres"] == 8.5
    assert extras["images"]["lowres"].shape[:2] == (4, 4) and "hires" not in extras["images"]


def test_visium_in_outs_is_named_after_the_sample(tmp_path):
    made.visium(tmp_path / "mouse" / "outs")
    adata = sd.io.read(str(tmp_path / "mouse"), images=False)
    same_section(adata)
    assert list(adata.uns["spatial"]) == ["mouse"] and adata.uns["spatial"]["mouse"]["images"] == {}


def test_what_was_read_can_be_written_and_used(tmp_path):
    adata = sd.io.read(made.visium(tmp_path / "sample"))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = sd.io.read(tmp_path / "a.h5ad")
    same_section(again)
    assert source(again)[0] == "Visium h5ad"


def test_a_damaged_picture_is_left_out_and_told(tmp_path):
    folder = made.visium(tmp_path / "sample")
    (folder / "spatial" / "tissue_hires_image.png").write_bytes(b"no picture")
    adata = sd.io.read(folder)
    assert any("'tissue_hires_image.png' cannot be read" in note for note in source(adata)[1])
    assert list(adata.uns["spatial"]["sample"]["images"]) == ["lowres"]


# -- Visium HD -------------------------------------------------------------------------------------------------------


def test_visium_hd(tmp_path):
    needs_parquet()
    folder = made.visium_hd(tmp_path / "hd")
    adata = sd.io.read(folder)
    same_section(adata)
    found, told = source(adata)
    assert found == "Visium HD" and told[0] == "bins of 8 um (there are: 2, 8, 16; bin_size chooses)"
    np.testing.assert_array_equal(adata.obs[["array_row", "array_col"]], np.column_stack([made.ROWS, made.COLS]))
    assert source(sd.io.read(folder, bin_size=16))[1][0].startswith("bins of 16 um")
    one = sd.io.read(folder / "binned_outputs" / "square_002um")
    same_section(one)
    assert source(one)[0] == "Visium HD" and list(one.uns["spatial"]) == ["hd"]
    with pytest.raises(sd.DataError, match=r"`bin_size` must be one of 2, 8, 16, in micrometres; got 4"):
        sd.io.read(folder, bin_size=4)
    with pytest.raises(sd.DataTypeError, match="whole number of micrometres"):
        sd.io.read(folder, bin_size="8")


def test_without_pyarrow_the_message_names_the_command(tmp_path, monkeypatch):
    part = tmp_path / "binned_outputs" / "square_008um"
    (part / "spatial").mkdir(parents=True)
    (part / "spatial" / "tissue_positions.parquet").write_bytes(b"")
    made.write_h5(part / "filtered_feature_bc_matrix.h5")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(sd.DataError, match=r"needs the package pyarrow.*pip install 'stdeconv-fast\[readers\]'"):
        sd.io.read(tmp_path)


# -- 10x -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
def test_10x_mtx_and_h5(version, tmp_path):
    for path, found in (
        (made.write_mtx(tmp_path / "folder", version), "10x mtx"),
        (made.write_mtx(tmp_path / "prefixed", version, prefix="GSM1_"), "10x mtx"),
        (made.write_h5(tmp_path / "counts.h5", version), "10x h5"),
    ):
        adata = sd.io.read(path)
        same_section(adata, places=False)
        assert source(adata)[0] == found and list(adata.var["gene_ids"]) == IDS
        assert "spatial" not in adata.obsm


def test_other_features_are_left_out_and_repeated_genes_made_unique_and_told(tmp_path):
    types = ["Gene Expression"] * 13 + ["Antibody Capture"] * 2
    names = [*SYMBOLS[:2], "Gene1", *SYMBOLS[3:]]
    adata = sd.io.read(made.write_h5(tmp_path / "a.h5", names=names, types=types))
    assert adata.n_vars == 13 and adata.var_names.is_unique and adata.var_names[2] == "Gene1-1"
    told = source(adata)[1]
    assert told[0] == "left out 2 features that are no genes (Antibody Capture)"
    assert told[1].startswith("made 1 gene names that occur twice unique")


# -- beads and cells -------------------------------------------------------------------------------------------------


def test_slide_seq(tmp_path):
    adata = sd.io.read(made.slide_seq(tmp_path / "puck"))
    assert list(adata.obs_names) == BARCODES[1:]  # the first bead has no place
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[1:])
    np.testing.assert_array_equal(adata.obsm["spatial"], XY[1:])
    found, told = source(adata)
    assert found == "Slide-seq" and told[1] == "left out 1 beads that have no place"


def test_curio(tmp_path):
    adata = sd.io.read(made.curio(tmp_path / "seeker"))
    same_section(adata)
    assert source(adata)[0] == "Slide-seq"


@pytest.mark.parametrize("parquet", [False, True])
def test_xenium(parquet, tmp_path):
    if parquet:
        needs_parquet()
    adata = sd.io.read(made.xenium(tmp_path / "run", parquet))
    same_section(adata, genes=N_GENES - 2)
    assert source(adata)[0] == "Xenium" and (adata.obs["cell_area"] == 20).all()


# -- h5ad, zarr, SpatialData -----------------------------------------------------------------------------------------


def plain(**obs):
    frame = pd.DataFrame(obs, index=BARCODES)
    return anndata.AnnData(sp.csr_matrix(COUNTS), obs=frame, var=pd.DataFrame(index=SYMBOLS))


def stereo_seq():
    adata = plain()
    adata.uns["bin_type"], adata.uns["bin_size"] = "bins", 50
    adata.obsm["spatial"] = XY
    return adata


def curio_h5ad():
    adata = plain()
    adata.obsm["X_spatial"] = XY
    return adata


H5AD = {
    "Stereo-seq h5ad": stereo_seq,
    "Curio h5ad": curio_h5ad,
    "Xenium h5ad": lambda: plain(x_centroid=XY[:, 0], y_centroid=XY[:, 1], transcript_counts=COUNTS.sum(axis=1)),
    "AnnData": lambda: plain(x=XY[:, 0], y=XY[:, 1]),
}


@pytest.mark.parametrize("found", H5AD)
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_h5ad_and_zarr(found, ending, tmp_path):
    if ending == "zarr":
        pytest.importorskip("zarr")
    path = tmp_path / f"a.{ending}"
    adata = H5AD[found]()
    adata.write_zarr(path) if ending == "zarr" else adata.write_h5ad(path)
    again = sd.io.read(path)
    same_section(again)
    assert source(again)[0] == found


def test_a_reference_has_no_places_and_that_is_told(tmp_path):
    plain(cell_type="A").write_h5ad(tmp_path / "reference.h5ad")
    adata = sd.io.read(tmp_path / "reference.h5ad")
    assert "spatial" not in adata.obsm and source(adata)[1] == [
        "no places: obsm['spatial'] is missing, as in a reference"
    ]


def spatial_data(path, **tables):
    """A SpatialData on disk as far as its tables go."""
    zarr = pytest.importorskip("zarr")
    zarr.open_group(str(path), mode="w").create_group("tables")
    for name, adata in tables.items():
        adata.write_zarr(path / "tables" / name)
    return path


def test_spatialdata(tmp_path):
    path = spatial_data(tmp_path / "a.zarr", table=stereo_seq())
    adata = sd.io.read(path)
    same_section(adata)
    assert source(adata) == ("SpatialData", ["table 'table' of 'table'"])
    path = spatial_data(tmp_path / "b.zarr", square_008um=stereo_seq(), square_016um=plain())
    with pytest.raises(sd.DataError, match=r"`table` must be one of .*'square_008um', 'square_016um'; got None"):
        sd.io.read(path)
    same_section(sd.io.read(path, table="square_008um"))


def test_places_in_shapes_need_spatialdata(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(sd.DataError, match=r"needs the package spatialdata.*'stdeconv-fast\[spatialdata\]'"):
        sd.io.read(spatial_data(tmp_path / "a.zarr", table=plain()))


def test_places_come_from_the_shapes(tmp_path):
    spatialdata = pytest.importorskip("spatialdata", reason="pip install 'stdeconv-fast[spatialdata]'")
    adata = plain(region=pd.Categorical(["spots"] * N_SPOTS), instance=np.arange(N_SPOTS))
    shapes = spatialdata.models.ShapesModel.parse(XY[::-1], geometry=0, radius=1.0, index=np.arange(N_SPOTS)[::-1])
    table = spatialdata.models.TableModel.parse(
        adata, region="spots", region_key="region", instance_key="instance", overwrite_metadata=True
    )
    data = spatialdata.SpatialData(tables={"table": table}, shapes={"spots": shapes})
    data.write(tmp_path / "a.zarr")
    for given in (tmp_path / "a.zarr", data):
        adata = sd.io.read(given)
        same_section(adata)
        assert source(adata)[1][-1] == "places are the centroids of the regions that the table annotates"
    assert "spatial" not in data.tables["table"].obsm


# -- what is told, and faults ----------------------------------------------------------------------------------------


def test_what_was_found_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="stdeconv_fast"):
        sd.io.read(made.visium(tmp_path / "sample"))
    assert "is Visium: 12 x 15 genes; counts from 'filtered_feature_bc_matrix.h5'" in caplog.text


def no_spatial(folder):
    made.write_h5(folder / "filtered_feature_bc_matrix.h5")
    (folder / "spatial").mkdir()


def other_barcodes(folder):
    made.write_spatial(folder)
    made.write_h5(folder / "filtered_feature_bc_matrix.h5", barcodes=["CCCC-1", *BARCODES[1:]])


def cut_table(folder):
    other_barcodes(folder)
    text = (folder / "spatial" / "tissue_positions.csv").read_text().replace("array_row", "row")
    (folder / "spatial" / "tissue_positions.csv").write_text(text)


def text_in_table(folder):
    other_barcodes(folder)
    text = (folder / "spatial" / "tissue_positions.csv").read_text().replace("520.0", "far")
    (folder / "spatial" / "tissue_positions.csv").write_text(text)


def index_outside(folder):
    with h5py.File(made.write_h5(folder / "filtered_feature_bc_matrix.h5"), "r+") as root:
        root["matrix/indices"][0] = 99
    made.write_spatial(folder)


def two_matrices(folder):
    made.write_mtx(folder, prefix="a_")
    made.write_mtx(folder, prefix="b_")


def short_barcodes(folder):
    made.write_mtx(folder, version=2)
    (folder / "barcodes.tsv").write_text("A\nB\n")


def far_locations(folder):
    made.curio(folder)
    path = folder / "S1_MatchedBeadLocation.csv"
    path.write_text(path.read_text().replace("ACGT", "TTTT"))


FAULTS = {
    "empty": (lambda folder: None, r"got the folder .* with nothing\. Looked for: a Visium folder .*; Visium HD"),
    "no places": (no_spatial, r"There are counts, but no subfolder 'spatial' with places"),
    "no counts": (made.write_spatial, r"must hold counts beside the folder spatial.*got none in"),
    "other barcodes": (other_barcodes, r"must have a place for each barcode; got none for 1 of 12, the first 'CCCC-1'"),
    "no such column": (cut_table, r"must have the columns barcode, in_tissue, array_row.*got barcode, in_tissue, row"),
    "text for a number": (text_in_table, r"must be readable; got a fault in .*tissue_positions\.csv"),
    "index outside": (index_outside, r"`path` must be readable; got a fault in '.*\.h5'"),
    "two matrices": (two_matrices, r"must hold one matrix; got 'a_matrix\.mtx\.gz' and 'b_matrix\.mtx\.gz'"),
    "short barcodes": (short_barcodes, r"as many barcodes and features as its matrix; got 2 and 15 for 12 x 15"),
    "far locations": (far_locations, r"places of the beads that have counts; got none in common"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_in_folders(case, tmp_path):
    make, message = FAULTS[case]
    make(tmp_path)
    with pytest.raises(sd.DataError, match=message):
        sd.io.read(tmp_path)


def test_faults_in_files(tmp_path):
    with pytest.raises(sd.DataTypeError, match="`path` must be a path or a SpatialData; got int"):
        sd.io.read(3)
    with pytest.raises(sd.DataError, match="must be a file or a folder that exists"):
        sd.io.read(tmp_path / "none")
    (tmp_path / "a.rds").write_bytes(b"x")
    with pytest.raises(sd.DataError, match=r"got the file '.*a\.rds'\. Looked for: a Visium folder"):
        sd.io.read(tmp_path / "a.rds")
    (tmp_path / "a.h5ad").write_bytes(b"x")
    with pytest.raises(sd.DataError, match="`path` must be readable"):
        sd.io.read(tmp_path / "a.h5ad")
    with pytest.raises(sd.DataError, match=r"counts of one genome in the layout of 10x|format that is known"):
        with h5py.File(tmp_path / "a.h5", "w") as root:
            root["x"] = 1
        sd.io.read(tmp_path / "a.h5")


def test_objects_in_arrays_of_zarr_are_not_unpickled(tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    stereo_seq().write_zarr(path)
    folder = path / "bad"
    folder.mkdir()
    (folder / ".zarray").write_text('{"filters": [{"id": "pickle"}]}')
    with pytest.raises(sd.DataError, match="must hold no pickles"):
        sd.io.read(path)
