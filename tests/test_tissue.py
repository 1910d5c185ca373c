"""simulate(): what it promises about counts, places and truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import pearsonr

from stdeconv_fast import DataError, DataTypeError, simulate

KINDS = ("gradients", "domains", "none", "bins")


def arrays(tissue):
    """Every number of a tissue, to compare two of them."""
    sparse = [part for m in (tissue.spots, tissue.reference) for part in (m.indptr, m.indices, m.data)]
    return [*sparse, tissue.coordinates, tissue.truth.to_numpy(), tissue.truth_mrna.to_numpy(), tissue.profiles]


def likeness(tissue):
    """Correlation of the truth of spots with that of their nearest neighbours."""
    near = cKDTree(tissue.coordinates).query(tissue.coordinates, 2)[1][:, 1]
    truth = tissue.truth.to_numpy()
    truth = truth - truth.mean(axis=0)
    return pearsonr(truth.ravel(), truth[near].ravel()).statistic


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_names_and_shares(kind):
    tissue = simulate(130, 70, 5, kind=kind, cells_per_type=12, n_sections=2, seed=4)
    assert tissue.spots.shape == (130, 70) and tissue.spots.dtype == np.int32 and tissue.spots.format == "csr"
    assert tissue.reference.shape == (len(tissue.cell_types), 70) and tissue.reference.dtype == np.int32
    assert tissue.spots.data.min() > 0 and tissue.reference.data.min() > 0
    assert tissue.spots.has_canonical_format
    for truth in (tissue.truth, tissue.truth_mrna):
        assert list(truth.index) == tissue.spot_names and list(truth.columns) == tissue.types
        np.testing.assert_allclose(truth.sum(axis=1), 1, rtol=1e-12)
        assert (truth >= 0).all(axis=None)
    np.testing.assert_allclose(tissue.profiles.sum(axis=1), 1)
    assert set(tissue.cell_types) == set(tissue.types) and sorted(tissue.types) == tissue.types
    assert [(tissue.sections == name).sum() for name in np.unique(tissue.sections)] == [65, 65]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bits(kind):
    first, again, other = (simulate(60, 40, 4, kind=kind, cells_per_type=8, seed=seed) for seed in (5, 5, 6))
    for left, right in zip(arrays(first), arrays(again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert (first.spots != other.spots).nnz > 0


@pytest.mark.parametrize(("kind", "expected"), [("gradients", 700), ("bins", 320)])
def test_mean_depth(kind, expected):
    tissue = simulate(4000, 60, 6, kind=kind, counts_per_spot=None if kind == "bins" else expected)
    assert tissue.spots.sum(axis=1).mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_follow_the_truth(kind):
    tissue = simulate(1500, 80, 6, kind=kind, counts_per_spot=2000, platform_sd=0, mrna_sd=0.5)
    pooled = np.asarray(tissue.spots.sum(axis=0)).ravel()
    totals = np.asarray(tissue.spots.sum(axis=1)).ravel()
    expected = totals @ tissue.truth_mrna.to_numpy() @ tissue.profiles
    surprise = (pooled - expected) / np.sqrt(expected)
    assert np.abs(surprise).max() < 5 and surprise.std() < 1.5


def test_platform_effect_is_seen_by_the_spots_alone():
    tissue = simulate(1500, 80, 6, counts_per_spot=2000, platform_sd=0.8, cells_per_type=400)
    pooled = np.asarray(tissue.spots.sum(axis=0)).ravel()
    totals = np.asarray(tissue.spots.sum(axis=1)).ravel()
    ratio = np.log(pooled / (totals @ tissue.truth_mrna.to_numpy() @ tissue.profiles))
    assert pearsonr(ratio, np.log(tissue.platform_effects)).statistic > 0.99
    of_type = [np.asarray(tissue.reference[tissue.cell_types == t].sum(axis=0)).ravel() for t in tissue.types]
    measured = np.array([row / row.sum() for row in of_type])
    assert pearsonr(np.sqrt(measured).ravel(), np.sqrt(tissue.profiles).ravel()).statistic > 0.995


def test_mrna_content_parts_cells_from_mrna():
    tissue = simulate(300, 40, 5, mrna_sd=0.6, cells_per_type=300)
    mrna = tissue.truth.to_numpy() * tissue.mrna_content
    np.testing.assert_allclose(tissue.truth_mrna, mrna / mrna.sum(axis=1, keepdims=True))
    sizes = np.asarray(tissue.reference.sum(axis=1)).ravel()
    means = [sizes[tissue.cell_types == name].mean() for name in tissue.types]
    np.testing.assert_allclose(means / np.mean(means), tissue.mrna_content / tissue.mrna_content.mean(), rtol=0.1)
    assert simulate(20, 40, 5, mrna_sd=0).truth.equals(simulate(20, 40, 5, mrna_sd=0).truth_mrna)


def test_reference_is_overdispersed_as_said():
    tissue = simulate(10, 30, 1, cells_per_type=4000, mrna_sd=0)
    counts = tissue.reference.toarray()
    share = counts / counts.sum(axis=1, keepdims=True)
    busy = np.argsort(-tissue.profiles[0])[3:8]  # many counts, yet a small share of the cell
    squared_cv = share[:, busy].var(axis=0) / share[:, busy].mean(axis=0) ** 2
    assert 0.2 < squared_cv.mean() < 0.4


def test_types_of_a_family_are_more_alike():
    profiles = np.log(simulate(5, 3000, 8, n_families=2).profiles)
    alike = np.corrcoef(profiles)
    inside = [alike[i, j] for i in range(8) for j in range(i) if i // 4 == j // 4]
    across = [alike[i, j] for i in range(8) for j in range(i) if i // 4 != j // 4]
    assert min(inside) > max(across)


def test_spots_hold_whole_cells():
    tissue = simulate(200, 20, 5, cells_per_spot=1e-9)
    assert set(np.unique(tissue.truth)) == {0.0, 1.0}
    many = simulate(200, 20, 5, kind="none", cells_per_spot=30)
    assert (many.truth > 0).sum(axis=1).mean() > 2.5


def test_kinds_differ_in_their_spatial_structure():
    like = {kind: likeness(simulate(1200, 10, 6, kind=kind, cells_per_spot=40)) for kind in KINDS}
    assert like["gradients"] > 0.8 and like["domains"] > 0.8 and like["bins"] > 0.3
    assert abs(like["none"]) < 0.1


def test_domains_have_few_sharp_compositions():
    tissue = simulate(900, 10, 6, kind="domains", n_domains=3, cells_per_spot=4000)
    groups = np.unique(tissue.truth.to_numpy().round(1), axis=0, return_counts=True)[1]
    assert np.sort(groups)[::-1][:12].sum() > 800
    assert (tissue.truth.max(axis=1) > 0.65).all()


def test_bins_hold_few_types():
    shares = simulate(2000, 10, 20, kind="bins").truth.to_numpy()
    assert 1.5 < (shares > 0).sum(axis=1).mean() < 4
    assert shares[shares > 0].min() >= 0.1


def test_hex_grid_has_six_neighbours_at_distance_one():
    tissue = simulate(400, 5, 2)
    tree = cKDTree(tissue.coordinates)
    numbers = np.array([len(found) - 1 for found in tree.query_ball_point(tissue.coordinates, 1.001)])
    assert numbers.max() == 6 and np.median(numbers) == 6
    assert tree.query(tissue.coordinates, 2)[0][:, 1] == pytest.approx(1)
    inner = np.ptp(tissue.coordinates, axis=0)
    assert 0.8 < inner[0] / inner[1] < 1.25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("grid", "most"), [("hex", {2: 6, 3: 8}), ("square", {2: 4, 3: 6}), ("random", None)])
def test_grids_in_plane_and_space(kind, grid, most, dimensions):
    tissue = simulate(125, 8, 3, kind=kind, grid=grid, dimensions=dimensions, cells_per_type=5)
    xy = tissue.coordinates
    assert xy.shape == (125, dimensions) and xy.dtype == np.float64
    assert len(np.unique(xy, axis=0)) == 125
    assert list(tissue.coordinate_frame().columns) == list("xyz")[:dimensions]
    if most:
        near = [len(found) - 1 for found in cKDTree(xy).query_ball_point(xy, 1.001)]
        assert max(near) == most[dimensions]


def test_sections_are_tissues_of_their_own():
    tissue = simulate(601, 10, 4, n_sections=2)
    first, second = (tissue.sections == name for name in ("section0", "section1"))
    assert (first.sum(), second.sum()) == (301, 300)
    np.testing.assert_array_equal(tissue.coordinates[first][:300, 0], tissue.coordinates[second][:, 0])
    truth = tissue.truth.to_numpy()
    assert abs(pearsonr(truth[first][:300].ravel(), truth[second].ravel()).statistic) < 0.8


def test_doublets_are_sums_of_two_types():
    plain, mixed = (simulate(5, 200, 4, doublets=share, cells_per_type=100, mrna_sd=0) for share in (0, 0.25))
    np.testing.assert_array_equal(plain.cell_types, mixed.cell_types)
    added = mixed.reference - plain.reference
    doubled = np.asarray(added.sum(axis=1)).ravel() > 0
    assert doubled.sum() == 100 and added.data.min() > 0
    cells = {row.tobytes(): name for row, name in zip(plain.reference.toarray(), plain.cell_types, strict=True)}
    for cell in np.flatnonzero(doubled):
        assert cells[added[cell].toarray()[0].tobytes()] != mixed.cell_types[cell]


def test_frames_and_anndata_hold_the_same():
    tissue = simulate(30, 12, 3, cells_per_type=6, n_sections=2)
    spots, reference = simulate(30, 12, 3, cells_per_type=6, n_sections=2, as_anndata=True)
    np.testing.assert_array_equal(tissue.spatial_frame(), spots.X.toarray())
    np.testing.assert_array_equal(tissue.reference_frame(), reference.X.toarray())
    np.testing.assert_array_equal(tissue.coordinate_frame(), spots.obsm["spatial"])
    assert list(spots.obs_names) == list(tissue.coordinate_frame().index) == tissue.spot_names
    assert list(reference.obs["celltype"]) == list(tissue.label_series())
    assert list(spots.obs["section"]) == list(tissue.sections)
    assert list(spots.var_names) == list(reference.var_names) == tissue.genes


def test_smallest_tissue():
    tissue = simulate(1, 1, 1, cells_per_type=1, grid="random", dimensions=3)
    assert tissue.truth.to_numpy().tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_spots": 0}, "`n_spots` must be a whole number >= 1; got 0."),
        ({"kind": "stripes"}, "`kind` must be 'gradients' or 'domains' or 'none' or 'bins'; got 'stripes'."),
        ({"grid": "hexagonal"}, "`grid` must be 'hex' or 'square' or 'random'; got 'hexagonal'."),
        ({"dimensions": 4}, "`dimensions` must be 2 or 3; got 4."),
        ({"counts_per_spot": 0}, "`counts_per_spot` must be a number > 0; got 0."),
        ({"platform_sd": -0.1}, "`platform_sd` must be a number >= 0; got -0.1."),
        ({"mrna_sd": float("nan")}, "`mrna_sd` must be a number >= 0; got nan."),
        ({"doublets": 1.5}, "`doublets` must be a number from 0 to 1; got 1.5."),
        ({"doublets": 0.1, "n_types": 1}, "`doublets` must be 0 with one type; got 0.1."),
        ({"n_families": 9}, "`n_families` must be a whole number from 1 to 8; got 9."),
        ({"n_sections": 2, "n_spots": 1}, "`n_sections` must be a whole number from 1 to 1; got 2."),
        ({"seed": -1}, "`seed` must be a whole number >= 0; got -1."),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(DataError) as caught:
        simulate(**arguments)
    assert str(caught.value) == message


def test_wrong_kinds_and_all_faults_at_once():
    with pytest.raises(DataTypeError, match="`n_genes` must be a whole number >= 1; got 2.5"):
        simulate(n_genes=2.5)
    with pytest.raises(DataTypeError, match="`as_anndata` must be True or False; got 'yes'"):
        simulate(as_anndata="yes")
    with pytest.raises(DataError, match="2 faults in the arguments:\n- `n_spots`.*\n- `kind`"):
        simulate(n_spots=-3, kind="x")
