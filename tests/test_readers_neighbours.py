"""A neighbour graph that the caller brings: used as it is, refused where it is not right."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp
from scipy.spatial import cKDTree

import stdeconv_fast as sd
from stdeconv_fast.errors import DataError, DataTypeError
from stdeconv_fast.settings import Settings
from stdeconv_fast.stages.inputs.links import take_edges
from tests.small_inputs import N_SPOTS, problem, read

N = 300
FAST = {"tune": False, "n_iter": 2, "n_jobs": 1}


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(n_spots=N, n_types=4, n_genes=120, seed=3)


def places_of(tissue):
    return np.random.default_rng(1).random((len(tissue.coordinates), 2))  # no ties, even to 1e-6


def nearest(places, k=6):
    """The k nearest of each, not symmetric."""
    others = cKDTree(places).query(places, k=k + 1)[1][:, 1:]
    n = len(places)
    return sp.csr_matrix((np.full(n * k, 0.5), (np.repeat(np.arange(n), k), others.ravel())), shape=(n, n))


def run(tissue, places, **options):
    return sd.deconvolve(tissue.spots, tissue.reference, places, tissue.cell_types, **FAST, **options)


def test_the_graph_that_we_would_make_gives_the_same_bits(tissue):
    places = places_of(tissue)
    own, given = run(tissue, places), run(tissue, places, neighbors=nearest(places))
    np.testing.assert_array_equal(given.proportions, own.proportions)
    assert "neighbors" in given.provenance["inputs"] and "neighbors" not in own.provenance["inputs"]


def test_another_graph_gives_another_answer_whatever_the_order_of_the_spots(tissue):
    places = places_of(tissue)
    links = nearest(places, k=3)
    one = run(tissue, places, neighbors=links)
    assert not one.proportions.equals(run(tissue, places).proportions)
    np.testing.assert_array_equal(np.diff(one.graph.indptr), np.diff((links + links.T).tocsr().indptr))
    order = np.random.default_rng(1).permutation(len(places))
    other = sd.deconvolve(
        tissue.spots[order], tissue.reference, places[order], tissue.cell_types,
        neighbors=links[order][:, order], **FAST,
    )  # fmt: skip
    np.testing.assert_allclose(other.proportions, one.proportions.to_numpy()[order], atol=1e-5)


def test_tl_takes_a_key_and_records_it(tissue):
    def pair():
        genes = pd.DataFrame(index=[f"gene{i}" for i in range(tissue.spots.shape[1])])
        types = pd.DataFrame({"cell_type": np.asarray(tissue.cell_types)}).set_axis(
            [f"cell{i}" for i in range(tissue.reference.shape[0])], axis=0
        )
        st = anndata.AnnData(tissue.spots.astype(np.float32), var=genes)
        sc = anndata.AnnData(tissue.reference.astype(np.float32), obs=types, var=genes)
        st.obsm["spatial"] = places_of(tissue)
        st.obsp["spatial_connectivities"] = nearest(places_of(tissue), k=3)
        return st, sc

    st, sc = pair()
    sd.tl.deconvolve(st, sc, neighbors_key="spatial_connectivities", **FAST)
    params = st.uns["stdeconv_params"]
    assert params["call"]["neighbors_key"] == "spatial_connectivities"
    again = sd.tl.deconvolve(*pair(), copy=True, **params["call"], **params["settings"])
    np.testing.assert_array_equal(again.obsm["stdeconv"], st.obsm["stdeconv"])
    plain = sd.tl.deconvolve(*pair(), copy=True, **FAST)
    assert not plain.obsm["stdeconv"].equals(st.obsm["stdeconv"])
    with pytest.raises(DataError, match=r"spatial\.obsp must have 'x'; got 'spatial_connectivities'\. Run squidpy"):
        sd.tl.deconvolve(st, sc, neighbors_key="x", **FAST)
    with pytest.raises(DataTypeError, match="`neighbors_key` must be a str or None; got int"):
        sd.tl.deconvolve(st, sc, neighbors_key=3, **FAST)


def test_in_tiles_the_graph_is_used_and_told_apart(tissue, tmp_path):
    places = places_of(tissue)
    links = nearest(places, k=3)
    whole = run(tissue, places, neighbors=links)
    work = {"tiles": 2, "work_folder": tmp_path / "work", "keep_work": True}
    tiled = run(tissue, places, neighbors=links, **work)
    np.testing.assert_allclose(tiled.proportions, whole.proportions, atol=1e-3)
    with pytest.raises(DataError, match="must be of the same run; got neighbors"):
        run(tissue, places, resume=True, **work)


def grid(n_side=4):
    """Neighbours on the 4 x 4 grid of the small problem."""
    n = n_side**2
    x, y = np.divmod(np.arange(n), n_side)
    step = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
    return sp.csr_matrix((step == 1).astype(float))


def test_pattern_is_kept_and_edges_to_unused_spots_go():
    links = grid() + sp.eye(N_SPOTS)
    links.data[3] = 0.0  # stored, but no edge
    inputs = read(neighbors=links)
    wanted = links.toarray() > 0
    np.fill_diagonal(wanted, False)
    np.testing.assert_array_equal(inputs.links.toarray(), wanted)
    rows = np.arange(2, N_SPOTS)
    ends, others = take_edges(inputs.links, rows)
    assert ends.dtype == np.int64 and others.dtype == np.int32
    i = np.repeat(np.arange(len(rows)), np.diff(ends))
    np.testing.assert_array_equal(np.column_stack([i, others]), np.argwhere(wanted[2:, 2:]))
    assert take_edges(None, rows) is None


def test_sections_that_lie_on_each_other_do_not_matter():
    places = np.tile(problem()["coordinates"].to_numpy()[:8], (2, 1))
    places[8:] += 0.01
    half = grid()[:8][:, :8]
    links = sp.block_diag([half, half], format="csr")
    inputs = read(coordinates=places, neighbors=links, sections=["a"] * 8 + ["b"] * 8)
    assert inputs.links.nnz == links.nnz and inputs.notes == ()


def with_value(value):
    links = grid()
    links.data[0] = value
    return links


LINK_FAULTS = {
    "kind": ({"neighbors": [[0, 1]]}, r"`neighbors` must be a sparse matrix or an array of numbers.*got list\."),
    "no AnnData": ({"neighbors": "spatial_connectivities"}, r"spatial\.obsp must have .*; got no graph\."),
    "shape": ({"neighbors": sp.eye(3, format="csr")}, r"must be 16 x 16, spots x spots; got 3 x 3\."),
    "NaN": ({"neighbors": with_value(np.nan)}, "`neighbors` must be finite and >= 0"),
    "negative": ({"neighbors": with_value(-1.0)}, "`neighbors` must be finite and >= 0"),
    "no edge": ({"neighbors": sp.eye(N_SPOTS, format="csr")}, "must link spots; got no edge"),
    "sections": (
        {"neighbors": grid(), "sections": ["a"] * 8 + ["b"] * 8, "settings": Settings(k_neighbors=4)},
        r"of one section only; got 8 edges between sections, the first from 'spot-4' to 'spot-8'",
    ),
    "dense": (
        {"neighbors": np.ones((N_SPOTS, N_SPOTS)), "settings": Settings(k_neighbors=3)},
        r"must give a spot 4 k_neighbors neighbours at most in the mean; got 15\.0 with k_neighbors=3",
    ),
    "original": (
        {"neighbors": grid(), "settings": Settings(objective="original")},
        r"must be None with objective='original'",
    ),
}


@pytest.mark.parametrize("case", LINK_FAULTS)
def test_faults(case):
    changes, message = LINK_FAULTS[case]
    with pytest.raises(DataError, match=message):
        read(**changes)


def test_a_graph_of_expression_is_refused(tissue):
    links = nearest(np.random.default_rng(5).random((N, 2)))  # near in some other space
    with pytest.raises(DataError, match=r"must link spots that are near each other; got edges whose median length is"):
        run(tissue, places_of(tissue), neighbors=links)


@pytest.mark.parametrize("coord_type", ["generic", "grid"])
def test_the_graph_of_squidpy(coord_type, tissue):
    squidpy = pytest.importorskip("squidpy", reason="pip install squidpy")
    x, y = np.divmod(np.arange(N), 20)
    places = places_of(tissue) if coord_type == "generic" else np.column_stack([x, y]).astype(float)
    adata = anndata.AnnData(tissue.spots.astype(np.float32), obsm={"spatial": places})
    squidpy.gr.spatial_neighbors(adata, coord_type=coord_type, n_neighs=4)
    result = run(tissue, places, neighbors=adata.obsp["spatial_connectivities"])
    assert (result.status == "ok").all()
