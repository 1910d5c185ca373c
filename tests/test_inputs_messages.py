"""read_inputs: one bad input per message, all faults at once, each naming the cause and the remedy."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from stdeconv_fast.errors import DataError, DataTypeError
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs.tables import to_csr
from tests.small_inputs import GENES, N_CELLS, N_GENES, N_SPOTS, SPOTS, problem, read

GIVEN = problem()
SPATIAL, REFERENCE, PLACES, LABELS = (GIVEN[key] for key in ("spatial", "reference", "coordinates", "cell_types"))
TYPES = LABELS.to_numpy()


def adata_of(frame, var=None, **obs):
    return anndata.AnnData(
        frame.to_numpy(np.float32),
        obs=pd.DataFrame(obs, index=frame.index),
        var=pd.DataFrame(var, index=frame.columns),
    )


def masked(frame, rows, value=pd.NA):
    frame = frame.copy()
    frame.loc[rows] = value
    return frame


def per_total(frame, total=1e4):
    return frame.div(frame.sum(axis=1), axis=0) * total


def with_layer(frame, **layers):
    adata = adata_of(frame)
    for name, values in layers.items():
        adata.layers[name] = np.asarray(values, dtype=np.float32)
    return adata


def with_raw():
    adata = adata_of(SPATIAL)
    adata.raw = adata
    adata.X = np.log1p(adata.X)
    return adata


def in_tissue(*values):
    return adata_of(SPATIAL, in_tissue=np.resize(np.array(values, dtype=object), N_SPOTS))


def renamed(make):
    """The reference with other gene names."""
    return REFERENCE.set_axis([make(i, name) for i, name in enumerate(GENES)], axis=1)


def ensembl(i, name=None):
    return f"ENSMUSG{i:011d}"


ONES = REFERENCE * 0 + 1
KIND_MESSAGES = {
    "path": ({"spatial": "a.h5ad"}, r"`spatial` must be a pandas DataFrame.*got str\. Read the file first"),
    "None": ({"reference": None}, r"`reference` must be a pandas DataFrame.*cells x genes; got None\."),
    "list": ({"spatial": SPATIAL.to_numpy().tolist()}, r"got list\. Pass numpy\.asarray of it\."),
    "Series": ({"spatial": SPATIAL["Gene0"]}, r"got Series\."),
    "text column": (
        {"spatial": SPATIAL.reset_index()},
        r"`spatial` must hold numbers; got text in column 'index'\. Drop this column, or make it the index",
    ),
    "column of mixed objects": ({"spatial": SPATIAL.astype(object).assign(a="x", b=1j)}, r"got text in column 'a'"),
    "dates": ({"spatial": SPATIAL.assign(day=pd.Timestamp("2024-01-01"))}, r"got datetime64\[\w+\] in column 'day'"),
    "complex": ({"spatial": SPATIAL.to_numpy() * 1j}, r"`spatial` must hold numbers; got complex128\."),
    "objects": (
        {"spatial": SPATIAL.to_numpy().astype(str).astype(object)},
        r"`spatial` must hold numbers; got text\.",
    ),
    "masked": (
        {"spatial": np.ma.masked_array(SPATIAL.to_numpy())},
        r"without a mask; got MaskedArray\. Pass array\.filled",
    ),
    "layer": (
        {"spatial": adata_of(SPATIAL), "layer_st": ["a"]},
        r"`layer_st` must be the name of a layer or None; got list",
    ),
    "key of obsm": (
        {"spatial": adata_of(SPATIAL), "coordinates": None, "spatial_key": 3},
        r"`spatial_key` must be a key of spatial\.obsm; got int",
    ),
    "array of another library": (
        {"spatial": type("ndarray", (), {"__module__": "cupy"})()},
        r"got ndarray\. Bring it into the memory of the host",
    ),
    "labels None": ({"cell_types": None}, r"`cell_types` must be a Series.*got None\."),
    "labels dict": ({"cell_types": LABELS.to_dict()}, r"got dict\. Pass pandas\.Series of it\."),
    "labels of lists": ({"cell_types": [["A"]] * N_CELLS}, r"`cell_types` must hold one name or number per row"),
    "no coordinates": (
        {"coordinates": None},
        r"`coordinates` must be given where `spatial` is no AnnData; got None\. Pass a DataFrame with the columns x, y",
    ),
    "coordinates text": ({"coordinates": "spatial"}, r"got str\. To use a key of obsm pass spatial_key\."),
    "coordinates ragged": ({"coordinates": [[0, 1], [2]] * 8}, r"`coordinates` must be a DataFrame .* got list\."),
    "coordinates of text": ({"coordinates": PLACES.astype(str) + "mm"}, r"must hold numbers in the columns 'x', 'y'"),
    "sections number": ({"sections": 3}, r"`sections` must be a Series.*spatial\.obs; got int\."),
}
MESSAGES = {
    # tables
    "one dimension": ({"spatial": SPATIAL.to_numpy()[0]}, r"must have two dimensions, spots x genes; got 1\."),
    "three dimensions": ({"reference": np.ones((2, 2, 2))}, r"must have two dimensions, cells x genes; got 3\."),
    "no rows": ({"spatial": SPATIAL.iloc[:0]}, r"`spatial` must have a spot and a gene at least; got 0 x 20\."),
    "no columns": ({"reference": np.ones((3, 0))}, r"`reference` must have a cell and a gene at least; got 3 x 0\."),
    "layer, no AnnData": (
        {"layer_st": "counts"},
        r"`layer_st` must be None where `spatial` is no AnnData; got 'counts'",
    ),
    "layer missing": (
        {"spatial": with_layer(SPATIAL, counts=SPATIAL, other=SPATIAL), "layer_st": "count"},
        r"spatial\.layers must have 'count'; got 'counts', 'other'\. Pass layer_st='counts'\.",
    ),
    "no layers": (
        {"reference": adata_of(REFERENCE), "layer_sc": "a"},
        r"got no layers\. Leave out layer_sc to use X\.",
    ),
    "no X": (
        {"spatial": anndata.AnnData(obs=SPATIAL[[]], var=SPATIAL.T[[]])},
        r"`spatial` must hold counts in X; got None",
    ),
    # counts
    "negative": (
        {"spatial": adata_of(SPATIAL - 2)},
        r"^spatial\.X must be finite and >= 0; got -\d at spot 'spot-\d', gene 'Gene\d' and \d+ more such values\. "
        r"Pass raw counts, not scaled expression\.$",
    ),
    "scaled": (
        {"spatial": with_layer((SPATIAL - SPATIAL.mean()) / SPATIAL.std(), counts=SPATIAL)},
        r"not scaled expression\. spatial\.layers\['counts'\] holds whole numbers: pass layer_st=\"counts\"\.",
    ),
    "NaN of a nullable integer": (
        {"spatial": masked(SPATIAL.astype("Int64"), ["spot-2"])},
        r"^spatial must be finite and >= 0; got nan at spot 'spot-2', gene 'Gene0' and 19 more such values\. "
        r"Pass raw counts without missing or infinite values",
    ),
    "None among objects": (
        {"reference": REFERENCE.astype(object).replace({"Gene3": 0}, None)},
        r"^reference must be finite and >= 0; got nan at cell 'cell-\d+', gene 'Gene3'",
    ),
    "None in an array": (
        {"reference": np.where(np.arange(N_GENES) == 3, None, REFERENCE.to_numpy())},
        r"^reference must be finite and >= 0; got nan at cell 'cell_0', gene 'gene_3' and 29 more",
    ),
    "log1p, no total": (
        {"spatial": np.log1p(SPATIAL * 0.7)},
        r"got [\d.]+ at spot .* looks like log-transformed counts\.",
    ),
    "log1p of counts": (
        {"spatial": np.log1p(SPATIAL)},
        r"looks like log1p of raw counts \(numpy\.expm1 gives them back\)",
    ),
    "normalised": (
        {"spatial": per_total(SPATIAL)},
        r"^spatial must hold raw counts, whole numbers; got [\d.]+ at spot 'spot-0', gene 'Gene\d'\. "
        r"It looks like counts normalised to a total of 1e\+04 per row\. "
        r"Pass raw counts; check_counts=False uses the values as they are",
    ),
    "corrected": ({"spatial": SPATIAL * 10.3}, r"looks like normalised or corrected counts\."),
    "log1p in X, counts in a layer": (
        {"reference": with_layer(np.log1p(per_total(REFERENCE)), scaled=-ONES, data=REFERENCE)},
        r"^reference\.X must hold .* at cell .*log1p of counts normalised to a total of 1e\+04 per row\. "
        r"reference\.layers\['data'\] holds whole numbers: pass layer_sc=\"data\"\.$",
    ),
    "log1p in X, counts in raw": (
        {"spatial": with_raw()},
        r"spatial\.raw holds whole numbers: pass spatial\.raw\.to_adata\(\)",
    ),
    "log1p in the layer, counts in X": (
        {"spatial": with_layer(SPATIAL, logs=np.log1p(SPATIAL)), "layer_st": "logs"},
        r"spatial\.layers\['logs'\] must hold .* spatial\.X holds whole numbers: leave out layer_st",
    ),
    "no counts at all": ({"spatial": SPATIAL * 0}, r"spatial must hold counts; got no count in any of 16 spots"),
    # genes
    "unnamed, unequal": (
        {"spatial": SPATIAL.to_numpy()[:, :19]},
        r"must have the same number of genes where one has no gene names .* got 19 and 20\. Pass both tables with",
    ),
    "unnamed, turned": ({"spatial": SPATIAL.to_numpy().T, "coordinates": np.zeros((20, 2))}, r"pass spatial\.T\."),
    "unnamed, few": (
        {"spatial": SPATIAL.to_numpy()[:, :9], "reference": REFERENCE.to_numpy()[:, :9]},
        r"must share at least 10 genes; got 9 in each\.",
    ),
    "Ensembl ids": (
        {"reference": renamed(ensembl)},
        r"got 0 of 20 and 20\. First names: 'Gene0', 'ENSMUSG00000000000'\. reference has Ensembl ids, spatial",
    ),
    "Ensembl ids, symbols in a column of another name": (
        {"reference": adata_of(renamed(ensembl), {"n": range(N_GENES), "curated": GENES})},
        r"reference\.var\['curated'\] would share 20: set reference\.var_names = reference\.var\['curated'\]",
    ),
    "versions": ({"reference": renamed(lambda i, name: f"{name}.3")}, r"20 genes would match without version suffixes"),
    "both turned": (
        {"spatial": SPATIAL.T, "reference": REFERENCE.T, "coordinates": np.zeros((20, 2)), "cell_types": ["A"] * 20},
        r"Both tables seem to hold genes in their rows",
    ),
    "spatial turned": ({"spatial": SPATIAL.T, "coordinates": np.zeros((20, 2))}, r"spatial seems to be genes x spots"),
    "other names": (
        {"reference": renamed(lambda i, name: f"other{i}")},
        r"got 0 of 20 and 20\. First names: 'Gene0', 'other0'\. Use one naming\.",
    ),
    "min_shared_genes": (
        {"settings": Settings(min_shared_genes=21)},
        r"must share at least 21 genes; got 20 of 20 and 20",
    ),
    # coordinates
    "coordinates, one row short": (
        {"coordinates": PLACES.to_numpy()[1:]},
        r"`coordinates` must have one row per spot where it or `spatial` has no names; got 15 for 16 spots\.",
    ),
    "coordinates, wide": (
        {"coordinates": np.ones((N_SPOTS, 4))},
        r"shape \(n_spots, 2 or 3\); got \(16, 4\)\. Pass the col",
    ),
    "coordinates, turned": ({"coordinates": PLACES.to_numpy().T}, r"got \(2, 16\)\. Pass coordinates\.T\."),
    "coordinates, flat": ({"coordinates": np.ones(N_SPOTS)}, r"shape \(n_spots, 2 or 3\); got \(16,\)"),
    "coordinates, one column": ({"coordinates": PLACES[["x"]]}, r"columns x, y or two columns of numbers; got 'x'"),
    "coordinates, several missing": (
        {"coordinates": PLACES.iloc[5:]},
        r"got no row for spot 'spot-0': 5 spots without coordinates \('spot-0', 'spot-1', 'spot-2' and 2 more\)",
    ),
    "coordinates, inf": ({"coordinates": PLACES.replace(3.0, np.inf)}, r"got inf for spot 'spot-12'"),
    "coordinates, no match": (
        {"coordinates": PLACES.rename(str.upper)},
        r"First names: 'SPOT-0' in coordinates, 'spot-0'",
    ),
    "coordinates, duplicates": ({"coordinates": PLACES.rename({"spot-1": "spot-0"})}, r"got duplicate names 'spot-0'"),
    "no obsm": (
        {"spatial": adata_of(SPATIAL), "coordinates": None},
        r"spatial\.obsm must have the key 'spatial'; got no keys",
    ),
    # cell types
    "labels, one short": ({"cell_types": TYPES[1:]}, r"`cell_types` must have one row per cell .* got 29 for 30 cells"),
    "labels, two dimensions": (
        {"cell_types": np.ones((3, 2))},
        r"must have one dimension; got an array of shape \(3, 2\)",
    ),
    "labels, name without AnnData": (
        {"cell_types": "cell_type"},
        r"`cell_types` must be one label per row where `reference` is no AnnData; got the column name 'cell_type'",
    ),
    "labels, column missing": (
        {"reference": adata_of(REFERENCE, celltype=TYPES, batch=1), "cell_types": "cell_type"},
        r"^reference\.obs must have the column 'cell_type'; got 'celltype', 'batch'\. Pass cell_types='celltype'\.$",
    ),
    "labels, usual column": (
        {"reference": adata_of(REFERENCE, cell_id=1, annotation=TYPES), "cell_types": "cell_type"},
        r"Pass cell_types='annotation'\.$",
    ),
    "labels, no likely column": (
        {"reference": adata_of(REFERENCE, a=1), "cell_types": "cell_type"},
        r"got 'a'\. Pass the name of a column as cell_types\.$",
    ),
    "labels all missing": ({"cell_types": [None] * N_CELLS}, r"must hold a label; got none for any of 30 cells"),
    "exclude_types unknown": (
        {"settings": Settings(exclude_types=("D", "A"))},
        r"`exclude_types` must be among the cell types 'A', 'B', 'C'; got 'D'\.",
    ),
    "exclude_types all": (
        {"settings": Settings(exclude_types=("A", "B", "C"))},
        r"`cell_types` must leave a type with at least 1 cell with counts; got none",
    ),
    "min_cells_per_type": (
        {"settings": Settings(min_cells_per_type=11)},
        r"must leave a type with at least 11 cells with counts; got none\. Lower min_cells_per_type",
    ),
    "reference without counts": ({"reference": REFERENCE * 0}, r"must leave a type with at least 1 cell with counts"),
    # sections and tissue
    "section missing": (
        {"sections": [None, *"aaaaaaaabbbbbbb"]},
        r"`sections` must name a section for every spot; got none for 1 spot: 'spot-0'\.",
    ),
    "section not in the index": (
        {"sections": pd.Series("a", SPOTS[:14])},
        r"got none for 2 spots: 'spot-14', 'spot-15'",
    ),
    "sections, short": ({"sections": ["a"] * 3}, r"`sections` must have one row per spot .* got 3 for 16 spots"),
    "sections, duplicates": ({"sections": pd.Series("a", [*SPOTS, "spot-0"])}, r"`sections` must .* names 'spot-0'"),
    "sections, column missing": (
        {"spatial": adata_of(SPATIAL, sample="a"), "sections": "library"},
        r"spatial\.obs must have the column 'library'; got 'sample'\. Pass sections='sample'\.",
    ),
    "in_tissue value": (
        {"spatial": in_tissue(1, 0, "maybe")},
        r"spatial\.obs\['in_tissue'\] must be 0 or 1; got 'maybe' at spot 'spot-2'",
    ),
    "in_tissue missing": ({"spatial": in_tissue(1, None)}, r"must be 0 or 1; got None at spot 'spot-1'"),
    "all out of the tissue": ({"spatial": in_tissue("0")}, r"must be 1 for a spot at least; got 0 for all"),
    "no counts in the tissue": (
        {"spatial": adata_of(masked(SPATIAL, SPOTS[8:], 0), in_tissue=np.arange(N_SPOTS) >= 8)},
        r"spatial\.X must hold counts for a spot in the tissue; got counts outside of it alone",
    ),
}


@pytest.mark.parametrize("case", KIND_MESSAGES)
def test_wrong_kind(case):
    changes, words = KIND_MESSAGES[case]
    with pytest.raises(DataTypeError, match=words):
        read(**changes)


@pytest.mark.parametrize("case", MESSAGES)
def test_wrong_value(case):
    changes, words = MESSAGES[case]
    with pytest.raises(DataError, match=words) as caught:
        read(**changes)
    assert not isinstance(caught.value, TypeError)
    assert "faults" not in str(caught.value)  # one cause, one fault


def test_duplicate_names_in_anndata():
    with pytest.warns(UserWarning, match="not unique"):
        spatial = adata_of(SPATIAL.rename({"spot-1": "spot-0"}))
    words = r"got 1 duplicate: 'spot-0'\. Make them unique: spatial\.obs_names_make_unique\(\)\."
    with pytest.raises(DataError, match=words):
        read(spatial=spatial)


def test_layer_of_text_is_no_remedy():
    spatial = adata_of(np.log1p(SPATIAL))
    spatial.layers["text"] = SPATIAL.to_numpy().astype(str)
    with pytest.raises(DataError, match=r"of raw counts .*\. Pass raw counts; check_counts=False"):
        read(spatial=spatial)


def test_matrix_of_another_library():
    with pytest.raises(
        DataTypeError, match=r"`spatial\.X` must be a NumPy array or a SciPy sparse matrix; got object\."
    ):
        to_csr(object(), "spatial.X")


def test_obsm_keys_are_listed():
    spatial = adata_of(SPATIAL)
    spatial.obsm["X_pca"] = spatial.obsm["X_spatial"] = PLACES.to_numpy()
    with pytest.raises(DataError, match=r"got 'X_pca', 'X_spatial'\. Pass spatial_key='X_spatial'\."):
        read(spatial=spatial, coordinates=None)
    spatial.obsm["spatial"] = np.ones((N_SPOTS, 5))
    with pytest.raises(
        DataError, match=r"`spatial\.obsm\['spatial'\]` must have the shape \(n_spots, 2 or 3\); got \(16, 5\)"
    ):
        read(spatial=spatial, coordinates=None)


def test_all_faults_at_once():
    reference = REFERENCE.astype(float)
    reference.iloc[2, 3] = np.nan
    with pytest.raises(DataError) as caught:
        read(
            spatial=SPATIAL - 5, reference=reference.rename({"cell-1": "cell-0"}), coordinates=np.zeros((3, 2)),
            cell_types=TYPES[1:], sections=["a"], settings=Settings(min_shared_genes=30),
        )  # fmt: skip
    first, *faults = str(caught.value).splitlines()
    assert first == "7 faults in the input:"
    starts = [
        "spatial must be finite",
        "`reference` must have unique",
        "reference must be finite",
        "spatial and reference ",
    ]
    starts += ["`coordinates` must", "`cell_types` must", "`sections` must"]
    assert [fault[2:].startswith(start) for fault, start in zip(faults, starts, strict=True)] == [True] * 7


def test_all_faults_of_kind_are_a_type_error():
    with pytest.raises(DataTypeError, match="4 faults in the input"):
        read(spatial="a", reference=None, coordinates=3, cell_types=3)
