"""Inputs of the library for fuzz.py: small sound tables, and what strangers make of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse as sp

from stdeconv_fast.tissue import simulate

ODD_VALUES = (
    np.nan,
    np.inf,
    -np.inf,
    -1,
    -1e-30,
    0.5,
    1e-300,
    1e12,
    1e13,
    1e30,
    1e38,
    1e39,
    1e300,
    2**53,
    2**63,
    65535,
    65536,
)
ODD_DTYPES = (
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int64",
    "uint64",
    "float16",
    "float32",
    "longdouble",
    "bool",
    "complex128",
    ">f8",
    ">i4",
    "object",
    "str",
    "S5",
    "datetime64[s]",
    "timedelta64[s]",
    "V8",
)
ODD_NAMES = (
    "",
    " ",
    "nan",
    "None",
    "a/b",
    "a|b",
    "..",
    "ä",
    "日本",
    "\x00",
    "a\nb",
    "\ud800",
    "x" * 5000,
    b"\xff\xfe",
    7,
    3.0,
    2.5,
    None,
    np.nan,
    np.inf,
    (1, 2),
    True,
)
ODD_SETTINGS: dict[str, tuple] = {
    "phi": (0, 1, 0.5, -0.1, 1.1, np.nan, "0.5", None),
    "lambda_cell": (0, 1e-30, 1e12, 1e13, -1, np.inf, True),
    "lambda_spatial": (0, 1e-30, 1e-3, 1e4, 1e12, 1e13, -1, np.nan),
    "lambda_ridge": (0, 1e-30, 1e12, 1e39, -1, None),
    "max_cells_per_type": (1, 2, 10**9, 2**62, 10**30, 0, 1.5),
    "n_iter": (1, 2, 7, 0, -1, 2.0),
    "k_neighbors": (0, 1, 2, 50, 10**6, 2**62, 10**30, -1),
    "attention": (True, False, 1, "no"),
    "loss": ("poisson", "gaussian", "huber", None, 3),
    "platform": ("auto", "pooled", "joint", "none", ""),
    "abundance": ("auto", "cells", "mrna", "x"),
    "tune": (True, False, np.True_, 0),
    "cell_level": (True, False),
    "max_cells_per_spot": (1, 3, 10**9, 2**62, 0),
    "standard_errors": (True, False),
    "min_shared_genes": (2, 10, 10**9, 1),
    "min_cells_per_type": (1, 3, 10**9, 0),
    "exclude_types": ((), "type0", ["type0", "type1"], ["nobody"], 3, None),
    "check_counts": (False, True),
    "dtype": ("float32", "float64", np.float32, "float16", int, object()),
    "seed": (0, 1, 2**62, 2**63, 10**400, -1, 1.5),
    "device": ("auto", "cpu", "cuda", "tpu", 0),
    "n_jobs": (1, 2, -1, -100, None, 0, 1.5),
    "tiles": (1, 2, 5, 10**6, 0, 1.5, "3"),
    "nonsense": (1,),
}


class Case:
    """A small sound problem as dense arrays and names; mutations change it, `given` packs it."""

    def __init__(self, rng: np.random.Generator) -> None:
        n_spots, n_genes, n_types = (int(rng.integers(*span)) for span in ((2, 40), (12, 60), (1, 6)))
        per_type = int(rng.integers(1, 9))
        tissue = simulate(
            n_spots,
            n_genes,
            n_types,
            cells_per_type=max(2, per_type),
            counts_per_spot=float(rng.choice([3, 50, 2000])),
            seed=int(rng.integers(1000)),
        )
        self.rng = rng
        self.spots, self.cells = tissue.spots.toarray(), tissue.reference.toarray()
        self.places: Any = tissue.coordinates.copy()
        self.labels: Any = np.array(tissue.cell_types, dtype=object)
        self.sections: Any = None
        self.spot_names = [f"spot-{i}" for i in range(len(self.spots))]
        self.cell_names = [f"cell-{i}" for i in range(len(self.cells))]
        self.spot_genes = [f"Gene{i}" for i in range(n_genes)]
        self.cell_genes = list(self.spot_genes)
        self.settings: dict[str, Any] = {"progress": False, "n_jobs": int(rng.choice([1, 2]))}
        self.told: list[str] = []
        self.damage: list[tuple[str, Callable]] = []  # to the packed table, last

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def table(self) -> str:
        return self.pick(("spots", "cells"))


def values(case: Case) -> None:
    """Odd numbers at some places."""
    name = case.table()
    table = getattr(case, name).astype(np.float64)
    value = case.pick(ODD_VALUES)
    how = case.pick(("one", "row", "column", "all", "some"))
    if how == "one":
        table.flat[int(case.rng.integers(table.size))] = value
    elif how == "row":
        table[int(case.rng.integers(len(table)))] = value
    elif how == "column":
        table[:, int(case.rng.integers(table.shape[1]))] = value
    elif how == "all":
        table[:] = value
    else:
        table[case.rng.random(table.shape) < 0.3] = value
    setattr(case, name, table)
    case.told.append(f"{name}: {value} at {how}")


def empty(case: Case) -> None:
    """Rows, columns or everything without counts."""
    name, how = case.table(), case.pick(("rows", "columns", "all", "all but one"))
    table = getattr(case, name)
    if how == "rows":
        table[case.rng.random(len(table)) < 0.5] = 0
    elif how == "columns":
        table[:, case.rng.random(table.shape[1]) < 0.8] = 0
    else:
        table[:] = 0
        if how == "all but one":
            table.flat[int(case.rng.integers(table.size))] = 3
    case.told.append(f"{name}: {how} without counts")


def equal(case: Case) -> None:
    """All rows of a table alike, or all types alike."""
    name = case.table()
    table = getattr(case, name)
    table[:] = table[0]
    case.told.append(f"{name}: all rows alike")


def large(case: Case) -> None:
    """Very many counts."""
    name, factor = case.table(), case.pick((1e3, 1e6, 1e9))
    setattr(case, name, np.minimum(getattr(case, name) * factor, 1e12))
    case.told.append(f"{name}: times {factor:g}")


def shape(case: Case) -> None:
    """One or no row or column, or a table turned on its side, names and all."""
    name, n = case.table(), int(case.pick((0, 1, 1, 2)))
    how = case.pick(("rows", "columns", "turned", "one type", "one spot", "lost row", "lost column"))
    table = getattr(case, name)
    genes = "spot_genes" if name == "spots" else "cell_genes"
    if how == "turned":
        setattr(case, name, table.T.copy())
        rows = "spot_names" if name == "spots" else "cell_names"
        one, other = getattr(case, rows), getattr(case, genes)
        setattr(case, rows, other), setattr(case, genes, one)
    elif how == "columns":
        case.spots, case.cells = case.spots[:, :n], case.cells[:, :n]
        case.spot_genes, case.cell_genes = case.spot_genes[:n], case.cell_genes[:n]
    elif how == "rows" and name == "cells":
        case.cells, case.cell_names, case.labels = table[:n], case.cell_names[:n], case.labels[:n]
    elif how in ("rows", "one spot"):
        n = n if how == "rows" else 1
        case.spots, case.spot_names, case.places = case.spots[:n], case.spot_names[:n], case.places[:n]
    elif how == "one type":
        case.labels = np.full(len(case.cells), "only", dtype=object)
    elif how == "lost row":
        setattr(case, name, table[:-1])
        short = "spot_names" if name == "spots" else "cell_names"
        setattr(case, short, getattr(case, short)[: max(0, len(table) - 1)])
    else:
        setattr(case, name, table[:, :-1])
        setattr(case, genes, getattr(case, genes)[:-1])
    case.told.append(f"shape: {name} {how} {n}")


def names(case: Case) -> None:
    """Duplicate, odd, missing, shuffled or foreign names."""
    which = case.pick(("spot_names", "cell_names", "spot_genes", "cell_genes"))
    given = list(getattr(case, which))
    how = case.pick(("duplicates", "all one", "odd", "all odd", "numbers", "shuffled", "foreign", "upper"))
    if not given:
        return
    if how == "duplicates":
        given[-1] = given[0]
    elif how == "all one":
        given = [given[0]] * len(given)
    elif how == "odd":
        given[int(case.rng.integers(len(given)))] = case.pick(ODD_NAMES)
    elif how == "all odd":
        given = [case.pick(ODD_NAMES) for _ in given]
    elif how == "numbers":
        given = list(range(len(given)))
    elif how == "shuffled":
        given = [given[i] for i in case.rng.permutation(len(given))]
    elif how == "foreign":
        given = [f"other{i}" for i in range(len(given))]
    else:
        given = [str(name).upper() for name in given]
    setattr(case, which, given)
    case.told.append(f"{which}: {how}")


def places(case: Case) -> None:
    """Coordinates that are odd, far apart, all equal, on a line, of a wrong kind or shape."""
    here = np.array(case.places, dtype=np.float64)
    n = len(here)
    t = np.arange(n, dtype=np.float64)
    options: dict[str, Callable[[], Any]] = {
        "equal": lambda: np.zeros((n, 2)),
        "line": lambda: np.column_stack([t, 2 * t]),
        "line of one axis": lambda: np.column_stack([t, 0 * t]),
        "far apart": lambda: here * 1e90,
        "too far": lambda: here * 1e200,
        "near": lambda: here * 1e-300,
        "far off": lambda: here + 1e15,
        "one far": lambda: np.vstack([here[:-1], np.full((min(n, 1), 2), 1e99)]),
        "growing": lambda: np.column_stack([10.0 ** (t * 99 / max(1, n)), 0 * t]),
        "nan": lambda: np.where(case.rng.random((n, 2)) < 0.2, np.nan, here),
        "inf": lambda: np.full((n, 2), np.inf),
        "three": lambda: np.column_stack([here, t]),
        "four": lambda: np.column_stack([here, here]),
        "one column": lambda: here[:, :1],
        "flat": lambda: here.ravel(),
        "turned": lambda: here.T,
        "short": lambda: here[:-1],
        "long": lambda: np.vstack([here, here]),
        "none": lambda: None,
        "text": lambda: here.astype(str),
        "objects": lambda: here.astype(object),
        "integers": lambda: here.astype(int),
        "lists": lambda: here.tolist(),
        "ragged": lambda: [[1, 2], [3]],
        "word": lambda: "spatial",
        "complex": lambda: here.astype(complex),
        "bool": lambda: here > 1,
        "sparse": lambda: sp.csr_matrix(here),
        "masked": lambda: np.ma.masked_array(here),
        "dict": lambda: {"x": t, "y": t},
        "frame": lambda: pd.DataFrame(here, case.spot_names[:n], ["x", "y"]),
        "frame of text": lambda: pd.DataFrame(here.astype(str), columns=["x", "y"]),
        "frame without numbers": lambda: pd.DataFrame({"x": ["a"] * n}),
        "frame, twice x": lambda: pd.DataFrame(np.column_stack([here, t]), columns=["x", "y", "x"]),
        "frame, shuffled": lambda: pd.DataFrame(here, case.spot_names[:n], ["x", "y"]).iloc[::-1],
        "frame, odd columns": lambda: pd.DataFrame(here, columns=[None, 3]),
        "frame, nullable": lambda: pd.DataFrame({"x": pd.array([None] + [1] * (n - 1), dtype="Int64"), "y": t}),
        "frame, dates": lambda: pd.DataFrame({"x": pd.to_datetime(t.astype(int)), "y": t}),
        "frame, two levels": lambda: pd.DataFrame(here, pd.MultiIndex.from_arrays([t, t]), ["x", "y"]),
    }
    how = case.pick(list(options))
    if n:
        case.places = options[how]()
    case.told.append(f"places: {how}")


def labels(case: Case) -> None:
    """Cell types that are missing, odd, one per cell, of a wrong kind or length."""
    given = np.array(case.labels, dtype=object)
    n = len(given)
    many = pd.Categorical.from_codes(np.zeros(n, dtype=int), categories=[f"t{i}" for i in range(10**5)])
    options: dict[str, Callable[[], Any]] = {
        "one per cell": lambda: np.array([f"t{i}" for i in range(n)], dtype=object),
        "none": lambda: None,
        "all missing": lambda: np.full(n, None, dtype=object),
        "nan": lambda: np.full(n, np.nan),
        "some missing": lambda: np.where(case.rng.random(n) < 0.5, None, given),
        "numbers": lambda: np.arange(n) % 3,
        "floats": lambda: (np.arange(n) % 3) + 0.5,
        "bools": lambda: np.arange(n) % 2 == 0,
        "bytes": lambda: np.array([b"\xff\xfe", b"b"] * n)[:n],
        "odd": lambda: [case.pick(ODD_NAMES) for _ in range(n)],
        "lists": lambda: [[1]] * n,
        "dict": lambda: dict.fromkeys(range(n), "a"),
        "short": lambda: given[:-1],
        "column": lambda: "cell_type",
        "no column": lambda: "typ",
        "frame": lambda: pd.DataFrame({"celltype": given}),
        "frame of two": lambda: pd.DataFrame({"a": given, "b": given}),
        "matrix": lambda: given[:, None],
        "empty frame": lambda: pd.DataFrame(index=range(n)),
        "dates": lambda: pd.to_datetime(np.arange(n)),
        "100,000 categories": lambda: many,
        "series": lambda: pd.Series(given, case.cell_names[:n]),
        "series, backwards": lambda: pd.Series(given, case.cell_names[:n])[::-1],
        "intervals": lambda: pd.cut(np.arange(n), 2),
        "foreign series": lambda: pd.Series(given, [f"o{i}" for i in range(n)]),
        "generator": lambda: iter(given),
        "complex": lambda: np.arange(n) * 1j,
        "slashes": lambda: np.array(["a/b", "a|b"] * n, dtype=object)[:n],
        "nullable": lambda: pd.array([None, "b"] * n, dtype="string")[:n],
        "void": lambda: np.zeros(n, "V4"),
        "records": lambda: np.zeros(n, [("a", "i4"), ("b", "f8")]),
        "nothing": lambda: [],
        "mixed": lambda: [1, "1", 1.0, None, b"1"] * n,
    }
    how = case.pick(list(options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if n:
            case.labels = options[how]()
    case.told.append(f"labels: {how}")


def sections(case: Case) -> None:
    """Sections of any kind."""
    n = len(case.spots)
    options: dict[str, Callable[[], Any]] = {
        "one each": lambda: [f"s{i}" for i in range(n)],
        "missing": lambda: [None] * n,
        "some": lambda: ["a", None] * n,
        "two": lambda: (["a", "b"] * n)[:n],
        "short": lambda: ["a"],
        "numbers": lambda: np.arange(n) % 2,
        "word": lambda: "section",
        "lists": lambda: [[1]] * n,
        "number": lambda: 3,
        "nan": lambda: np.full(n, np.nan),
    }
    how = case.pick(list(options))
    case.sections = options[how]()
    case.told.append(f"sections: {how}")


def settings(case: Case) -> None:
    """Some settings, sound or not."""
    for name in case.rng.choice(list(ODD_SETTINGS), size=int(case.rng.integers(1, 4)), replace=False):
        value = case.pick(ODD_SETTINGS[str(name)])
        case.settings[str(name)] = value
        case.told.append(f"{name}={str(value)[:30]}")


def dtypes(case: Case) -> None:
    """Counts in another dtype."""
    name, dtype = case.table(), case.pick(ODD_DTYPES)
    table = getattr(case, name)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            setattr(case, name, table.astype(dtype))
        except (TypeError, ValueError):
            return
    case.told.append(f"{name}: {dtype}")


def damaged(case: Case) -> None:
    """Sparse arrays that are not sound, or not tidy."""
    part = case.pick(("indices", "indptr", "data"))
    value = case.pick((-1, 0, 1, 10**6, 2**31 - 1, -(2**31)))

    def damage(matrix: Any) -> Any:
        if matrix.dtype.kind not in "iuf":
            return matrix
        matrix = sp.csr_matrix(matrix)
        array = getattr(matrix, part)
        if len(array):
            with np.errstate(all="ignore"):
                array[int(case.rng.integers(len(array)))] = np.array(value).astype(array.dtype)
        return matrix

    case.damage.append((case.table(), damage))
    case.told.append(f"damage: {part} {value}")


def untidy(case: Case) -> None:
    """Sparse arrays with duplicates, zeros, unsorted, wide indices, too long arrays, or read-only."""
    how = case.pick(("duplicates", "zeros", "unsorted", "wide", "long", "read-only"))

    def damage(matrix: Any) -> Any:
        if matrix.dtype.kind not in "iuf":
            return matrix
        matrix = sp.csr_matrix(matrix)
        if how == "duplicates":
            coo = matrix.tocoo()
            twice = [np.concatenate([a, a]) for a in (coo.data, coo.row, coo.col)]
            order = np.argsort(twice[1], kind="stable")
            ends = np.concatenate([[0], np.cumsum(np.bincount(twice[1], minlength=matrix.shape[0]))])
            return sp.csr_matrix((twice[0][order], twice[2][order], ends), shape=matrix.shape)
        if how == "zeros":
            matrix.data[::2] = 0
        elif how == "unsorted":
            for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
                matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
                matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
            matrix.has_sorted_indices = False
        elif how == "wide":
            matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
        elif how == "long":
            matrix.data = np.concatenate([matrix.data, matrix.data])
            matrix.indices = np.concatenate([matrix.indices, matrix.indices - 10**6])
        else:
            for array in (matrix.data, matrix.indices, matrix.indptr):
                array.flags.writeable = False
        return matrix

    case.damage.append((case.table(), damage))
    case.told.append(f"sparse: {how}")


MUTATIONS = (
    values,
    values,
    empty,
    equal,
    large,
    shape,
    names,
    names,
    places,
    places,
    labels,
    labels,
    sections,
    settings,
    settings,
    settings,
    dtypes,
    damaged,
    untidy,
)


def pack(case: Case, name: str) -> Any:
    """A table in a random container."""
    counts = getattr(case, name)
    rows, genes = (case.spot_names, case.spot_genes) if name == "spots" else (case.cell_names, case.cell_genes)
    for which, damage in case.damage:
        if which == name:
            if (
                counts.dtype.kind not in "biuf"
                or counts.dtype.itemsize not in (1, 2, 4, 8)
                or not counts.dtype.isnative
            ):
                return counts
            case.told.append(f"{name} as csr")
            return damage(sp.csr_matrix(counts))
    options: dict[str, Callable[[], Any]] = {
        "frame": lambda: pd.DataFrame(counts, rows, genes),
        "array": lambda: counts,
        "csr": lambda: sp.csr_matrix(counts),
        "csc": lambda: sp.csc_matrix(counts),
        "coo": lambda: sp.coo_matrix(counts),
        "csr array": lambda: sp.csr_array(counts),
        "lil": lambda: sp.lil_matrix(counts),
        "dia": lambda: sp.dia_matrix(counts),
        "fortran": lambda: np.asfortranarray(counts),
        "strided": lambda: np.repeat(counts, 2, axis=1)[:, ::2],
        "backwards": lambda: counts[::-1, ::-1],
        "anndata": lambda: _anndata(case, counts, rows, genes, name),
        "anndata csr": lambda: _anndata(case, sp.csr_matrix(counts), rows, genes, name),
        "anndata csc": lambda: _anndata(case, sp.csc_matrix(counts), rows, genes, name),
        "sparse frame": lambda: pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(counts), rows, genes),
        "masked": lambda: np.ma.masked_array(counts),
        "matrix": lambda: np.asmatrix(counts),
        "list": lambda: counts.tolist(),
        "objects": lambda: pd.DataFrame(counts, rows, genes).astype(object),
        "nullable": lambda: pd.DataFrame(counts, rows, genes).convert_dtypes(),
        "text": lambda: pd.DataFrame(counts, rows, genes).astype(str),
        "none": lambda: None,
        "word": lambda: "spots.h5ad",
        "cube": lambda: np.asarray(counts)[None],
        "line": lambda: np.asarray(counts).ravel(),
        "series": lambda: pd.Series([1, 2]),
        "two levels": lambda: pd.DataFrame(counts, pd.MultiIndex.from_product([rows, ["a"]]), genes),
        "column more": lambda: pd.DataFrame(counts, rows, genes).assign(barcode="x"),
        "big-endian": lambda: np.asarray(counts).astype(">f8"),
        "view": lambda: _anndata(case, counts, rows, genes, name)[:],
    }
    kinds = list(options)
    weights = np.array(
        [25 if kind in ("frame", "array", "csr", "anndata", "anndata csr") else 1 for kind in kinds], float
    )
    how = kinds[int(case.rng.choice(len(kinds), p=weights / weights.sum()))]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            packed = options[how]()
        except Exception:  # no such container of such values: not the product's business
            how, packed = "array", counts
    case.told.append(f"{name} as {how}")
    return packed


def _anndata(case: Case, counts: Any, rows: list, genes: list, name: str) -> anndata.AnnData:
    adata = anndata.AnnData(counts, obs=pd.DataFrame(index=rows), var=pd.DataFrame(index=genes))
    if name == "spots" and case.places is not None and len(np.shape(case.places)) == 2:
        adata.obsm["spatial"] = case.places
        if case.rng.random() < 0.5:
            case.places = None
    if name == "cells" and np.shape(case.labels) == (len(rows),):
        adata.obs["cell_type"] = np.asarray(case.labels)
        if case.rng.random() < 0.5:
            case.labels = "cell_type"
    return adata


def make(seed: int, number: int) -> tuple[dict[str, Any], list[str]]:
    """Keywords of `deconvolve` for one case, and what was done to it."""
    case = Case(np.random.default_rng([seed, number]))
    for _ in range(int(case.rng.choice([0, 1, 2, 3], p=[0.05, 0.5, 0.3, 0.15]))):
        mutation = case.pick(MUTATIONS)
        try:
            mutation(case)
        except (IndexError, ValueError, TypeError, AttributeError, OverflowError):
            case.told.append(f"{mutation.__name__} did not go")  # on what another mutation left
    given = {"spatial": pack(case, "spots"), "reference": pack(case, "cells")}
    return {
        **given,
        "coordinates": case.places,
        "cell_types": case.labels,
        "sections": case.sections,
        **case.settings,
    }, case.told
