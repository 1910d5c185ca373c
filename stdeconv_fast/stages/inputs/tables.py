"""Reads one table of counts, of whatever kind, into a canonical CSR matrix and its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ...errors import DataError, DataTypeError
from ...kernels.cpu.counts import count_disorder, count_zeros
from ...parallel import ALONE, LIGHT, Workers, cut
from ...parcels import SpotSource
from .findings import Report, count, kind_of, likeliest, some
from .names import Names, Rows, duplicates, named, read_names

BLOCK = 1 << 23  # entries of a dense table that are turned sparse at once
ENTRIES = 1 << 20  # of a sparse one that a thread looks at together
KINDS = "a pandas DataFrame, a NumPy array, a SciPy sparse matrix or an AnnData"
NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty")


@dataclass(frozen=True)
class Table:
    """One table: `counts` is None where its values cannot be read (the fault is reported), the names are there."""

    rows: Rows
    genes: Names | None
    n_genes: int
    where: str
    counts: sp.csr_matrix | None
    adata: Any = None

    @property
    def role(self) -> str:
        """Name in messages: spatial or reference."""
        return self.rows.table

    def gene_names(self) -> np.ndarray:
        """Names of all genes, ndarray of str objects."""
        return named(self.genes, self.n_genes, "gene")


def is_anndata(value: object) -> bool:
    """Whether an object is an AnnData, without importing anndata."""
    return any(kind.__name__ == "AnnData" and kind.__module__.startswith("anndata") for kind in type(value).__mro__)


def read_table(
    value: Any, role: str, layer: str | None, report: Report, source: SpotSource | None = None,
    workers: Workers = ALONE,
) -> Table | None:  # fmt: skip
    """Read one table.

    Parameters
    ----------
    value : DataFrame, ndarray, sparse matrix or AnnData, (n_rows, n_genes)
        Spots or cells by genes.
    role : {"spatial", "reference"}
    layer : str or None
        Layer of an AnnData to take instead of X.
    report : Report
        Takes the faults.
    source : SpotSource, optional
        Holds the counts of an AnnData without X; they are not read here.
    workers : Workers

    Returns
    -------
    Table or None
        None where the object is no table at all.
    """
    unit, option = ("spot", "layer_st") if role == "spatial" else ("cell", "layer_sc")
    adata = value if is_anndata(value) else None
    if layer is not None and adata is None:
        report.fault(f"`{option}` must be None where `{role}` is no AnnData; got {layer!r}.")
    elif not (layer is None or isinstance(layer, str)):
        report.wrong_kind(f"`{option}` must be the name of a layer or None; got {kind_of(layer)}.")
        layer = None
    if adata is None and not (isinstance(value, (pd.DataFrame, np.ndarray)) or sp.issparse(value)):
        report.wrong_kind(f"`{role}` must be {KINDS}, {unit}s x genes; got {kind_of(value)}.{_remedy(value)}")
        return None
    if adata is None and value.ndim != 2:
        report.fault(
            f"`{role}` must have two dimensions, {unit}s x genes; got {value.ndim}. "
            f"Pass one row per {unit} and one column per gene."
        )
        return None
    n_rows, n_genes = value.shape
    if n_rows == 0 or n_genes == 0:
        report.fault(f"`{role}` must have a {unit} and a gene at least; got {n_rows:,} x {n_genes:,}.")
        return None
    where, row_names, genes = role, None, None
    if adata is not None:
        where = f"{role}.X" if layer is None else f"{role}.layers[{layer!r}]"
        row_names, genes = read_names(adata.obs_names), read_names(adata.var_names)
    elif isinstance(value, pd.DataFrame):
        row_names, genes = read_names(value.index), read_names(value.columns)
    counts = None
    try:
        if source is None:
            counts = to_csr(value if adata is None else _anndata_matrix(adata, role, layer, option), where, workers)
    except DataError as fault:
        report.faults.append(fault)
    table = Table(Rows(role, unit, n_rows, row_names), genes, n_genes, where, counts, adata)
    _refuse_duplicates(table, report)
    return table


def _remedy(value: Any) -> str:
    if isinstance(value, str) or hasattr(value, "__fspath__"):
        return " Read the file first, for example with anndata.read_h5ad."
    if isinstance(value, (list, tuple)):
        return " Pass numpy.asarray of it."
    if type(value).__module__.partition(".")[0] in ("cupy", "cupyx", "torch", "jax", "dask"):
        return " Bring it into the memory of the host as a NumPy array or SciPy matrix first."
    return ""


def _anndata_matrix(adata: Any, role: str, layer: str | None, option: str) -> Any:
    if layer is None:
        matrix = adata.to_memory().X if adata.isbacked else adata.X
        there = _layers(adata)
        remedy = f" Pass {option} to use a layer ({some(there)})." if there else ""
        if matrix is None:
            raise DataError(f"`{role}` must hold counts in X; got None.{remedy}")
        return matrix
    there = _layers(adata)
    if layer not in there:
        likely = likeliest(str(layer), there, ("counts", "raw_counts", "raw"))
        raise DataError(
            f"{role}.layers must have {layer!r}; got {some(there, 10) or 'no layers'}. "
            + (f"Pass {option}={likely!r}." if likely else f"Leave out {option} to use X.")
        )
    return adata.layers[layer]


def _refuse_duplicates(table: Table, report: Report) -> None:
    role, unit = table.role, table.rows.unit
    for word, names, axis, rows in (
        (unit, table.rows.names, "obs", "index"), ("gene", table.genes, "var", "columns"),
    ):  # fmt: skip
        twice = duplicates(names)
        if not twice:
            continue
        remedy = (
            f"Make them unique: {role}.{axis}_names_make_unique()."
            if table.adata is not None
            else f"Make them unique, or drop the others: {role}.{rows}.duplicated() tells them."
        )
        got = f"{count(len(twice), 'duplicate')}: {some(twice)}"
        report.fault(f"`{role}` must have unique {word} names; got {got}. {remedy}")


def to_csr(matrix: Any, where: str, workers: Workers = ALONE) -> sp.csr_matrix:
    """A table of any kind as CSR: indices sorted, duplicates summed, no stored zeros; no copy where it is so already.

    Parameters
    ----------
    matrix : DataFrame, ndarray or sparse matrix, (n, m)
        Never changed.
    where : str
        Its name in messages.
    workers : Workers

    Returns
    -------
    csr_matrix, (n, m)
        In the dtype of `matrix`; bool becomes int32, float16 float32, objects int64 or float64.

    Raises
    ------
    DataTypeError
        It holds something else than numbers.
    """
    if isinstance(matrix, pd.DataFrame):
        return _frame_to_csr(matrix, where)
    if sp.issparse(matrix):
        return _sparse_to_csr(matrix, where, workers)
    if isinstance(matrix, np.ma.MaskedArray):
        raise DataTypeError(f"`{where}` must be an array without a mask; got MaskedArray. Pass array.filled(0).")
    if isinstance(matrix, np.ndarray):
        matrix = np.asarray(matrix)
        return _by_blocks(lambda rows: _numbers(matrix[rows], where), *matrix.shape)
    got = f"{kind_of(matrix)}.{_remedy(matrix)}"
    raise DataTypeError(f"`{where}` must be a NumPy array or a SciPy sparse matrix; got {got}")


def _layers(adata: Any) -> list[str]:
    """Names of the layers; since anndata 0.13 X is among them, by the name None."""
    return [name for name in adata.layers if name is not None]


def _by_blocks(read: Any, n_rows: int, n_columns: int) -> sp.csr_matrix:
    step = max(1, BLOCK // n_columns)
    blocks = [sp.csr_matrix(read(slice(start, start + step))) for start in range(0, n_rows, step)]
    return blocks[0] if len(blocks) == 1 else sp.vstack(blocks, format="csr")


def _numbers(values: np.ndarray, where: str) -> np.ndarray:
    """The same values in a dtype of numbers that SciPy and numba know."""
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.int32)
    if kind in "iuf":
        dtype = values.dtype.newbyteorder("=")
        if kind == "f" and dtype.itemsize not in (4, 8):
            dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
        return values.astype(dtype, copy=False)
    found = _kind_of_values(values.ravel(), values.dtype)
    if found not in NUMBERS:
        raise DataTypeError(f"`{where}` must hold numbers; got {found}. Pass raw counts without text or dates.")
    missing = pd.isna(values)
    if missing.any():
        values = np.where(missing, np.nan, values)
    try:
        return values.astype(np.int64 if found in ("integer", "boolean") and not missing.any() else np.float64)
    except OverflowError:
        raise DataTypeError(f"`{where}` must hold numbers below 2**63; got larger ones.") from None


def _demand_sound(matrix: Any, where: str, workers: Workers) -> bool:
    """Refuse compressed arrays that point outside the matrix: SciPy and the kernels would follow them.

    Tells whether the entries of each row (or column) ascend; False where that was not looked at.
    """
    if matrix.format not in ("csr", "csc"):
        return False
    n_lines, n_across = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    ends, inner = matrix.indptr, matrix.indices
    sound = all(isinstance(array, np.ndarray) and array.ndim == 1 for array in (ends, inner, matrix.data))
    sound = sound and ends.dtype.kind in "iu" and inner.dtype.kind in "iu"
    sound = sound and len(ends) == n_lines + 1 and ends[0] == 0 and (np.diff(ends) >= 0).all()
    sound = sound and ends[-1] <= min(len(inner), len(matrix.data))
    ascend = True
    if sound:
        jobs = [(ends, inner, n_across, *rows) for rows in cut(n_lines, LIGHT)]
        found = workers.each(count_disorder, jobs)
        ascend, sound = not any(mixed for mixed, _ in found), not any(outside for _, outside in found)
    if not sound:
        raise DataError(
            f"`{where}` must be a sound sparse matrix; got index arrays that point outside of it. The file or the "
            "object is damaged: make it anew."
        )
    return ascend


def _kind_of_values(values: Any, dtype: Any) -> str:
    """What objects are, else the dtype; pandas' names for text ("string", "str") are one."""
    found = pd.api.types.infer_dtype(values, skipna=True) if pd.api.types.is_object_dtype(dtype) else str(dtype)
    return "text" if found in ("string", "str") else found


def _sparse_to_csr(matrix: Any, where: str, workers: Workers) -> sp.csr_matrix:
    ascend = _demand_sound(matrix, where, workers) and matrix.format == "csr"
    if matrix.dtype.kind in "iuf" and not matrix.dtype.isnative:
        matrix = matrix.astype(matrix.dtype.newbyteorder("="))
    if matrix.dtype.kind == "O":
        matrix = matrix.tocoo()
        matrix = sp.coo_matrix((_numbers(matrix.data, where), (matrix.row, matrix.col)), shape=matrix.shape)
    csr = sp.csr_matrix(matrix.tocsr())
    data = _numbers(csr.data[: csr.nnz], where)
    if data.dtype != csr.dtype or data.size < csr.data.size:
        csr = sp.csr_matrix((data, csr.indices[: csr.nnz], csr.indptr), shape=csr.shape)
    if ascend:
        csr.has_canonical_format = True  # SciPy need not look once more
    has_zeros = any(workers.each(count_zeros, [(csr.data[slice(*part)],) for part in cut(len(csr.data), ENTRIES)]))
    if has_zeros or not csr.has_canonical_format:
        csr = csr.copy()  # the caller's arrays stay as they are
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _frame_to_csr(frame: pd.DataFrame, where: str) -> sp.csr_matrix:
    dtypes = list(frame.dtypes)
    if all(isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in dtypes):
        return _sparse_to_csr(frame.sparse.to_coo(), where, ALONE)
    kinds: dict[Any, np.dtype] = {}
    is_object = pd.api.types.is_object_dtype
    for dtype in set(dtypes):
        if is_object(dtype):
            kinds[dtype] = np.dtype(np.float64)
        elif pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
            kinds[dtype] = np.dtype(getattr(dtype, "subtype", getattr(dtype, "numpy_dtype", dtype)))
    for j, dtype in enumerate(dtypes):
        found = _kind_of_values(frame.iloc[:, j], dtype)
        if dtype not in kinds or (is_object(dtype) and found not in NUMBERS):
            raise DataTypeError(
                f"`{where}` must hold numbers; got {found} in column {str(frame.columns[j])!r}. "
                "Drop this column, or make it the index if it holds names (set_index)."
            )
    target = np.result_type(*kinds.values())
    nullable = any(not isinstance(dtype, np.dtype) for dtype in kinds)
    if nullable and frame.isna().to_numpy().any():
        target = np.dtype(np.float64)
    fill = {"na_value": np.nan} if nullable and target.kind == "f" else {}
    return _by_blocks(lambda rows: _numbers(frame.iloc[rows].to_numpy(dtype=target, **fill), where), *frame.shape)
