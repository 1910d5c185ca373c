"""Symbols against Ensembl ids: matched through var where the plain names share too few genes, and told."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import stdeconv_fast as sd
from tests.small_inputs import GENES, N_GENES, problem, read, same

GIVEN = problem()
SPATIAL, REFERENCE, PLACES = (GIVEN[key] for key in ("spatial", "reference", "coordinates"))
IDS = [f"ENSMUSG{i:011d}" for i in range(N_GENES)]


def named(frame, names, **var):
    return anndata.AnnData(
        frame.to_numpy(np.float32), obs=pd.DataFrame(index=frame.index), var=pd.DataFrame(var, index=list(names))
    )


def turned(values):
    """In another order: the reference's genes need not lie as those of the spots."""
    return list(values)[::-1]


BACK = REFERENCE.iloc[:, ::-1]
CASES = {
    "ids in the spots, symbols in their var": (
        named(SPATIAL, IDS, gene_name=GENES), named(BACK, turned(GENES)),
        r"share 0 genes by name, fewer than 10: 20 are matched by spatial\.var\['gene_name'\] and the names of ref",
    ),
    "symbols in the spots, ids in their var": (
        named(SPATIAL, GENES, gene_ids=IDS), named(BACK, turned(IDS)),
        r"20 are matched by spatial\.var\['gene_ids'\] and the names of reference\.",
    ),
    "symbols in the var of the reference": (
        named(SPATIAL, GENES), named(BACK, turned(IDS), n=range(N_GENES), feature_name=pd.Categorical(turned(GENES))),
        r"20 are matched by the names of spatial and reference\.var\['feature_name'\]\.",
    ),
    "versions": (
        named(SPATIAL, [f"{name}.{i}" for i, name in enumerate(IDS)]), named(BACK, turned(IDS)),
        r"20 are matched by the names of spatial without version suffixes and the names of reference\.",
    ),
    "versions on both sides, in a column": (
        named(SPATIAL, GENES, gene_ids=[f"{name}.3" for name in IDS]), named(BACK, turned([f"{n}.12" for n in IDS])),
        r"by spatial\.var\['gene_ids'\] without version suffixes and the names of reference without version suffixes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_other_names_give_the_same_input(case):
    spatial, reference, words = CASES[case]
    with pytest.warns(sd.DataWarning, match=words) as caught:
        inputs = read(spatial=spatial, reference=reference)
    assert inputs.notes == (str(caught[0].message),) and len(caught) == 1
    np.testing.assert_array_equal(inputs.genes, spatial.var_names)
    plain = read(spatial=named(SPATIAL, GENES), reference=named(BACK, turned(GENES)))
    plain.genes[:] = inputs.genes
    same(inputs, plain)


def test_plain_names_that_suffice_are_left_alone():
    wrong = turned(GENES)
    inputs = read(spatial=named(SPATIAL, GENES, gene_ids=wrong), reference=named(REFERENCE, GENES, gene_ids=GENES))
    assert inputs.notes == ()
    np.testing.assert_array_equal(inputs.spot_genes, inputs.reference_genes)


def test_names_that_occur_twice_are_left_out_and_told():
    symbols = ["Gene3", *GENES[1:]]
    with pytest.warns(sd.DataWarning, match=r"18 are matched .*; 2 genes whose names occur twice there are left out"):
        inputs = read(spatial=named(SPATIAL, IDS, symbol=symbols), reference=named(REFERENCE, GENES))
    np.testing.assert_array_equal(inputs.spot_genes, [i for i in range(N_GENES) if i not in (0, 3)])


def test_missing_names_match_nothing():
    symbols = [None, np.nan, "", *GENES[3:]]
    other = named(REFERENCE, [f"x{i}" for i in range(N_GENES)], symbol=symbols)
    with pytest.warns(sd.DataWarning, match=r"17 are matched by spatial\.var\['symbol'\] and reference\.var\['symbol"):
        inputs = read(spatial=named(SPATIAL, IDS, symbol=symbols), reference=other)
    np.testing.assert_array_equal(inputs.spot_genes, inputs.reference_genes)


def test_too_few_by_any_name_is_a_fault():
    symbols = [*GENES[:9], *(f"other{i}" for i in range(11))]
    with pytest.raises(sd.DataError, match=r"must share at least 10 genes; got 0 of 20 and 20\."):
        read(spatial=named(SPATIAL, IDS, symbol=symbols), reference=named(REFERENCE, GENES))


def test_spots_on_disk_are_matched_through_var_too(tmp_path):
    path = tmp_path / "a.h5ad"
    adata = named(SPATIAL, IDS, gene_name=GENES)
    adata.obsm["spatial"] = PLACES.to_numpy()
    adata.write_h5ad(path)
    with sd.open_spots(path) as spots, pytest.warns(sd.DataWarning, match=r"20 are matched by spatial\.var"):
        inputs = read(spatial=spots.without_counts("spatial"), coordinates=None, spots=spots)
    np.testing.assert_array_equal(inputs.reference_genes, np.arange(N_GENES))
