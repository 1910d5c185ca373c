"""Small folders as the platforms write them, of one made-up section: 12 spots, 15 genes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse as sp
from scipy.io import mmwrite

N_SPOTS, N_GENES = 12, 15
BARCODES = [f"ACGT{i:02d}-1" for i in range(N_SPOTS)]
SYMBOLS = [f"Gene{i}" for i in range(N_GENES)]
IDS = [f"ENSMUSG{i:011d}" for i in range(N_GENES)]
COUNTS = np.random.default_rng(0).poisson(1.5, (N_SPOTS, N_GENES))
ROWS, COLS = np.divmod(np.arange(N_SPOTS), 4)
XY = np.column_stack([100.0 + 10 * COLS, 500.0 + 20 * ROWS])  # x: column, y: row
POSITION_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


def positions() -> pd.DataFrame:
    """Places of the spots in another order, and of one spot more that has no counts."""
    table = pd.DataFrame(
        dict(zip(POSITION_COLUMNS, [BARCODES, np.arange(N_SPOTS) % 5 > 0, ROWS, COLS, XY[:, 1], XY[:, 0]], strict=True))
    )
    table["in_tissue"] = table["in_tissue"].astype(int)
    table.loc[N_SPOTS] = ["TTTT-1", 0, 9, 9, 900.0, 900.0]
    return table.iloc[::-1].reset_index(drop=True)


def write_h5(path: Path, version: int = 3, barcodes=BARCODES, names=SYMBOLS, types=None, counts=COUNTS) -> Path:
    matrix = sp.csr_matrix(counts)
    text = h5py.special_dtype(vlen=bytes)
    with h5py.File(path, "w") as root:
        group = root.create_group("matrix" if version == 3 else "mm10")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        group["barcodes"] = np.array(barcodes, dtype="S")
        if version == 3:
            features = group.create_group("features")
            features["id"] = np.array(IDS[: len(names)], dtype="S")
            features.create_dataset("name", data=np.array(names, dtype=object), dtype=text)
            features["feature_type"] = np.array(types or ["Gene Expression"] * len(names), dtype="S")
            features["genome"] = np.array(["mm10"] * len(names), dtype="S")
        else:
            group["genes"] = np.array(IDS[: len(names)], dtype="S")
            group["gene_names"] = np.array(names, dtype="S")
    return path


def write_mtx(folder: Path, version: int = 3, prefix: str = "", types=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    kinds = types or ["Gene Expression"] * N_GENES
    third = (lambda i: f"\t{kinds[i]}") if version == 3 else (lambda i: "")
    texts = {
        "barcodes.tsv": "".join(f"{name}\n" for name in BARCODES),
        "features.tsv" if version == 3 else "genes.tsv": "".join(
            f"{IDS[i]}\t{SYMBOLS[i]}{third(i)}\n" for i in range(N_GENES)
        ),
    }
    mmwrite(folder / "plain.mtx", sp.coo_matrix(COUNTS.T))
    texts["matrix.mtx"] = (folder / "plain.mtx").read_text()
    (folder / "plain.mtx").unlink()
    for name, text in texts.items():
        if version == 3:
            with gzip.open(folder / f"{prefix}{name}.gz", "wt") as file:
                file.write(text)
        else:
            (folder / (prefix + name)).write_text(text)
    return folder


def write_spatial(folder: Path, name: str = "tissue_positions.csv", header: bool = True) -> Path:
    """The subfolder "spatial"."""
    from matplotlib.image import imsave

    around = folder / "spatial"
    around.mkdir(parents=True)
    if name.endswith(".parquet"):
        positions().to_parquet(around / name)
    else:
        positions().to_csv(around / name, index=False, header=header)
    factors = {"spot_diameter_fullres": 8.5, "tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.06}
    (around / "scalefactors_json.json").write_text(json.dumps(factors))
    imsave(around / "tissue_lowres_image.png", np.linspace(0, 1, 48).reshape(4, 4, 3))
    return folder


def visium(folder: Path, positions: str = "tissue_positions.csv", header: bool = True, mtx: bool = False) -> Path:
    write_spatial(folder, positions, header)
    if mtx:
        write_mtx(folder / "filtered_feature_bc_matrix")
    else:
        write_h5(folder / "filtered_feature_bc_matrix.h5")
    return folder


def visium_hd(folder: Path, sizes=(2, 8, 16)) -> Path:
    for size in sizes:
        part = folder / "binned_outputs" / f"square_{size:03d}um"
        write_spatial(part, "tissue_positions.parquet")
        write_h5(part / "filtered_feature_bc_matrix.h5")
    return folder


def slide_seq(folder: Path) -> Path:
    """A puck of the Broad: a text table of genes x beads, one of its beads without a place."""
    folder.mkdir()
    table = pd.DataFrame(COUNTS.T, index=pd.Index(SYMBOLS, name="GENE"), columns=BARCODES)
    table.to_csv(folder / "Puck_1.digital_expression.txt.gz", sep="\t")
    places = pd.DataFrame(XY, index=pd.Index(BARCODES, name="barcodes"), columns=["xcoord", "ycoord"])
    places.iloc[:0:-1].to_csv(folder / "Puck_1_bead_locations.csv")
    return folder


def curio(folder: Path) -> Path:
    write_mtx(folder, version=2, prefix="S1_")
    (folder / "S1_matrix.mtx").rename(folder / "S1_MoleculesPerMatchedBead.mtx")
    places = pd.DataFrame(XY, index=pd.Index(BARCODES, name="barcodes"), columns=["xcoord", "ycoord"])
    places.to_csv(folder / "S1_MatchedBeadLocation.csv")
    return folder


def xenium(folder: Path, parquet: bool = False) -> Path:
    folder.mkdir()
    types = ["Gene Expression"] * (N_GENES - 2) + ["Negative Control Probe"] * 2
    write_h5(folder / "cell_feature_matrix.h5", types=types)
    table = pd.DataFrame({"cell_id": BARCODES, "x_centroid": XY[:, 0], "y_centroid": XY[:, 1], "cell_area": 20.0})
    table = table.iloc[::-1]
    if parquet:
        table.to_parquet(folder / "cells.parquet")
    else:
        table.to_csv(folder / "cells.csv.gz", index=False)
    return folder
