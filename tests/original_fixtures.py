"""Runs of the original program: inputs, every stage output and the random parts (tests/fixtures/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from stdeconv_fast import OriginalDraws
from stdeconv_fast.original_draws import count_sweeps
from stdeconv_fast.parallel import hold_workers
from stdeconv_fast.stages.original import attention, cell_level, places, tables, type_level

FOLDER = Path(__file__).resolve().parent / "fixtures"
NAMES = ("small_hex", "subsample_square", "strong_spatial")
DEFAULTS = {
    "phi": 0.8, "lambda_cell": 1.0, "lambda_spatial": 1.0, "lambda_ridge": 1.0, "max_cells_per_type": 1000,
    "n_iter": 5, "k_neighbors": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Fixture:
    """One run, with its input as tables with names."""

    said: dict[str, np.ndarray]  # all arrays of the file
    settings: dict[str, Any]

    @classmethod
    def load(cls, name: str) -> Fixture:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            said = dict(file)
        return cls(said, {**DEFAULTS, **json.loads(str(said["hyperparameters"]))})

    @property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.Series]:
        """Spots, reference, coordinates and labels, as a user would hand them to `deconvolve`."""
        said = self.said
        return (
            pd.DataFrame(said["st_data"], said["st_spots"], said["st_genes"]),
            pd.DataFrame(said["sc_data"], said["sc_cells"], said["sc_genes"]),
            pd.DataFrame(said["coords"], said["coords_spots"], ["x", "y"]),
            pd.Series(said["labels"], said["label_cells"]),
        )

    def draws(self, noise: bool = True, index: bool = True) -> OriginalDraws:
        """What the original drew."""
        said = self.said
        return OriginalDraws(
            said["torch_proj_weight"], said["torch_in_proj_weight"], said["torch_in_proj_bias"],
            said["noise"] if noise else None, said["knn_index"] if index else None,
        )  # fmt: skip

    def strengths(self, *names: str) -> dict[str, Any]:
        """Some of the settings."""
        return {name: self.settings[name] for name in names}


@dataclass(frozen=True)
class Stages:
    """Input of the stages, aligned by name."""

    cells: csr_matrix
    spots: csr_matrix
    kept: np.ndarray
    cell_types: np.ndarray
    n_types: int
    near: csr_matrix
    means: np.ndarray
    squares: np.ndarray


def first_stages(fixture: Fixture) -> Stages:
    """Tables, neighbours and means of a fixture by our stages."""
    spots, reference, coordinates, labels = fixture.tables
    types, codes = np.unique(labels.loc[reference.index], return_inverse=True)
    shared = [gene for gene in spots.columns if gene in set(reference.columns)]
    kept = tables.draw_cells(codes, len(types), fixture.settings["max_cells_per_type"])
    cells = tables.normalise(csr_matrix(reference), reference.columns.get_indexer(shared))[kept]
    means, squares = tables.average_types(cells, codes[kept], len(types))
    near = places.read_index(fixture.said["knn_index"], coordinates.loc[spots.index].to_numpy())
    return Stages(
        cells, tables.normalise(csr_matrix(spots), spots.columns.get_indexer(shared)), kept, codes[kept], len(types),
        places.weigh_places(*near), means, squares,
    )  # fmt: skip


def fit_types(fixture: Fixture, stages: Stages, n_iter: int, workers: Any) -> np.ndarray:
    """The type level of a fixture after some repeats."""
    return type_level.fit_types(
        stages.spots, stages.means, stages.squares, stages.near, n_iter=n_iter, workers=workers,
        **fixture.strengths("phi", "lambda_spatial", "lambda_ridge"),
    )  # fmt: skip


def refine(
    fixture: Fixture, stages: Stages, laplacian: np.ndarray, noise: np.ndarray | None, n_sweeps: int | None = None
) -> np.ndarray:
    """The cell level of a fixture, (n_spots, n_cells), from the start that the original had."""
    weights = fixture.said["prop0"].copy()
    with hold_workers(1) as workers:
        cell_level.refine(
            weights, stages.spots, cell_level.factorise(stages.cells), laplacian, stages.near,
            cell_level.order_visits(stages.near, np.arange(len(weights))),
            n_sweeps=n_sweeps or count_sweeps(fixture.settings["n_iter"]), noise=noise, workers=workers,
            tick=lambda number: None, **fixture.strengths("lambda_spatial", "lambda_ridge"),
        )  # fmt: skip
    return weights


def stage_errors(fixture: Fixture) -> dict[str, float]:
    """Largest absolute error of each stage of ours."""
    said, stages = fixture.said, first_stages(fixture)

    def off(found: np.ndarray, expected: str) -> float:
        return float(np.abs(found - said[expected]).max())

    with hold_workers(1) as workers:
        repeats = [fit_types(fixture, stages, n, workers) for n in range(fixture.settings["n_iter"] + 1)]
        found = attention.attend_cells(stages.cells, fixture.draws(), workers)
    root = attention.root_laplacian(said["attention"], fixture.settings["lambda_cell"])
    return {
        "C, S": max(off(stages.cells.toarray(), "C"), off(stages.spots.toarray(), "S")),
        "W": off(stages.near.toarray(), "W_spot"),
        "B": off(stages.means, "B"),
        "V": off(np.array(repeats), "V_iters"),
        "spread": off(cell_level.spread(said["V"], stages.cells, stages.cell_types, stages.means), "prop0"),
        "attention": off(found, "attention"),
        "root of the Laplacian": off(root, "scaled_L_cell"),
        "cells, given its Laplacian": off(
            refine(fixture, stages, said["scaled_L_cell"], None), "refined_cells_noise0"
        ),
        "cells, given it and the noise": off(
            refine(fixture, stages, said["scaled_L_cell"], said["noise"]), "refined_cells_noise"
        ),
    }
