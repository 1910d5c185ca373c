"""Counts as 10x Genomics writes them: h5 files and mtx folders, of Cell Ranger, Space Ranger and Xenium."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse as sp

from ..errors import DataError
from .disk import reading
from .probe import probe

if TYPE_CHECKING:
    from anndata import AnnData

EXPRESSION = "Gene Expression"
MATRICES = ("matrix.mtx.gz", "matrix.mtx", "MoleculesPerMatchedBead.mtx.gz", "MoleculesPerMatchedBead.mtx")
BARCODES = ("barcodes.tsv.gz", "barcodes.tsv")
FEATURES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")


def is_10x_h5(path: Path) -> bool:
    """Whether an HDF5 file has the layout of 10x: one group "matrix" (version 3), or one a genome (version 2)."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    probe(path, "`path`")
    with h5py.File(path, "r") as root:
        return "matrix" in root or bool(_genomes(root))


def _genomes(root: Any) -> list[str]:
    """Groups of a version 2 file."""
    return [name for name in root if hasattr(root[name], "keys") and {"gene_names", "barcodes"} <= set(root[name])]


def read_10x_h5(path: Path) -> tuple[AnnData, list[str]]:
    """Read an h5 file of 10x, of version 2 or 3.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (AnnData, list of str)
        Counts of barcodes x genes (var: "gene_ids", "feature_types", "genome" where the file has them), and what the
        user should know: features left out, names made unique.

    Raises
    ------
    DataError
        A file that is damaged, has another layout, or holds several genomes.
    """
    import h5py

    probe(path, "`path`")
    with reading("path", path), h5py.File(path, "r") as root:
        genomes = _genomes(root)
        if "matrix" in root:
            group = root["matrix"]
            there = group["features"]
            names = _texts(there["name"])
            columns = {
                "gene_ids": _texts(there["id"]),
                "feature_types": _texts(there["feature_type"]) if "feature_type" in there else None,
                "genome": _texts(there["genome"]) if "genome" in there else None,
            }
        elif len(genomes) == 1:
            group = root[genomes[0]]
            names, columns = _texts(group["gene_names"]), {"gene_ids": _texts(group["genes"])}
        else:
            got = ", ".join(map(repr, genomes or list(root)[:6])) or "nothing"
            raise DataError(
                f"`path` must hold the counts of one genome in the layout of 10x; got {got} in '{path}'. "
                "Write the genome to use to a file of its own."
            )
        n_genes, n_spots = (int(size) for size in group["shape"][:])
        parts = group["data"][:], group["indices"][:], group["indptr"][:]
        matrix = sp.csr_matrix(parts, shape=(n_spots, n_genes))
        matrix.check_format(full_check=True)
        barcodes = _texts(group["barcodes"])
    return _assembled(matrix, barcodes, names, columns, path)


def find_mtx(folder: Path) -> tuple[Path, Path, Path] | None:
    """Matrix, barcodes and features in a folder, their names with or without a prefix (GSM123_matrix.mtx.gz).

    Raises
    ------
    DataError
        There are several matrices.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = []
    for file in files:
        ending = next((name for name in MATRICES if file.name.endswith(name)), None)
        if ending is None:
            continue
        prefix = file.name.removesuffix(ending)
        others = [_first(folder, prefix, endings) for endings in (BARCODES, FEATURES)]
        if None not in others:
            found.append((file, *others))
    if len({file.name.removesuffix(".gz") for file, _, _ in found}) > 1:
        raise DataError(
            f"`path` must hold one matrix; got '{found[0][0].name}' and '{found[1][0].name}' in '{folder}'. "
            "Put each sample in a folder of its own."
        )
    return found[0] if found else None


def _first(folder: Path, prefix: str, endings: tuple[str, ...]) -> Path | None:
    return next((folder / (prefix + ending) for ending in endings if (folder / (prefix + ending)).is_file()), None)


def read_mtx(files: tuple[Path, Path, Path]) -> tuple[AnnData, list[str]]:
    """Read a matrix, its barcodes and features: genes.tsv (version 2), features.tsv.gz (version 3), or names alone.

    Parameters
    ----------
    files : (matrix, barcodes, features)
        As `find_mtx` gives them.

    Returns
    -------
    (AnnData, list of str)
        As `read_10x_h5`.

    Raises
    ------
    DataError
        A file that is damaged, or lists that do not fit the matrix.
    """
    from scipy.io import mmread

    path, barcode_file, feature_file = files
    with reading("path", path):
        matrix = sp.csr_matrix(mmread(path).T)
    with reading("path", barcode_file):
        barcodes = _lines(barcode_file)[0].to_numpy()
    with reading("path", feature_file):
        table = _lines(feature_file)
    two = table.shape[1] > 1
    columns = {
        "gene_ids": table[0].to_numpy() if two else None,
        "feature_types": table[2].to_numpy() if table.shape[1] > 2 else None,
    }
    return _assembled(matrix, barcodes, table[1 if two else 0].to_numpy(), columns, path)


def _lines(path: Path) -> pd.DataFrame:
    """A table without header, all text."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)


def _texts(data: Any) -> np.ndarray:
    return np.array([item.decode() if isinstance(item, bytes) else str(item) for item in data[:]], dtype=object)


def _assembled(
    matrix: sp.csr_matrix, barcodes: np.ndarray, names: np.ndarray, columns: dict[str, Any], path: Path
) -> tuple[AnnData, list[str]]:
    """An AnnData of the genes; features of other kinds (antibodies, control probes) are left out."""
    if matrix.shape != (len(barcodes), len(names)):
        raise DataError(
            f"`path` must hold as many barcodes and features as its matrix; got {len(barcodes):,} and {len(names):,} "
            f"for {matrix.shape[0]:,} x {matrix.shape[1]:,} in '{path}'. Copy the folder anew."
        )
    var = pd.DataFrame({name: values for name, values in columns.items() if values is not None}, index=names)
    told = []
    if "feature_types" in var:
        is_gene = (var["feature_types"] == EXPRESSION).to_numpy()
        if not is_gene.any():
            kinds = ", ".join(map(repr, sorted(set(var["feature_types"]))[:5]))
            raise DataError(f"`path` must hold features of the type '{EXPRESSION}'; got {kinds} in '{path}'.")
        if not is_gene.all():
            kinds = ", ".join(sorted(set(var["feature_types"][~is_gene])))
            told.append(f"left out {(~is_gene).sum():,} features that are no genes ({kinds})")
            matrix, var = sp.csr_matrix(matrix[:, is_gene]), var[is_gene]
    return with_unique_genes(matrix, pd.DataFrame(index=barcodes), var, told), told


def with_unique_genes(matrix: Any, obs: pd.DataFrame, var: pd.DataFrame, told: list[str]) -> AnnData:
    """An AnnData whose genes have unique names, with a word in `told` where that took a change."""
    from anndata import AnnData
    from anndata.utils import make_index_unique

    index = pd.Index(np.asarray(var.index, dtype=object))
    if not index.is_unique:
        told.append(f"made {index.duplicated().sum():,} gene names that occur twice unique ('-1', '-2', ... added)")
        index = make_index_unique(index)
    obs = obs.set_axis(pd.Index(np.asarray(obs.index, dtype=object)), axis=0)
    return AnnData(matrix, obs=obs, var=var.set_axis(index, axis=0))
