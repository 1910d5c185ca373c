"""The class of the original program: the same arguments, the same two answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from .original_draws import OriginalDraws
    from .parcels import Result


class AttentionRegressionDeconv:
    """Cell-type proportions of spots by attention over neighbours and regression on single cells.

    The input is read and checked here; `run` does the work.

    Parameters
    ----------
    sc_data : DataFrame, ndarray, sparse matrix or AnnData, (n_cells, n_genes)
        Raw counts of the reference cells.
    st_data : DataFrame, ndarray, sparse matrix or AnnData, (n_spots, n_genes)
        Raw counts of the spots.
    st_coordinates : DataFrame or array, (n_spots, 2 or 3), or None
        Place of each spot, in any unit: columns x, y (and z), or the first columns of numbers. None takes
        ``st_data.obsm[spatial_key]``.
    celltype : Series, DataFrame, list, array, categorical or str
        Type of each reference cell; a str names a column of ``sc_data.obs``.
    phi : float in [0, 1]
        Share of the neighbours' mean that a spot is drawn to; with `tune` one candidate of several.
    lambda_cell, lambda_spatial, lambda_ridge : float >= 0
        Strength of the graph among reference cells, of the spatial smoothing and of the ridge (0: off).
    max_cells_per_type : int >= 1
        Reference cells of a type that the cell level uses.
    n_iter : int >= 1
        Passes of attention and solve; the first uses place alone.
    n_jobs : int or None
        Threads; -1: all that the process may use.
    k_neighbors : int >= 0
        Neighbours of a spot (0: no smoothing).
    sections : Series, list, array or str, optional
        Section of each spot; a str names a column of ``st_data.obs``. Spots of different sections are never
        neighbours.
    layer_st, layer_sc : str, optional
        Layers of AnnData objects that hold the counts.
    spatial_key : str
        Key of ``st_data.obsm`` for the coordinates, where `st_coordinates` is None.
    attention, loss, platform, abundance, tune, cell_level, max_cells_per_spot, standard_errors, detection, unknown, \
min_shared_genes, min_cells_per_type, exclude_types, check_counts, dtype, seed, device, max_memory, progress, objective
        See `Settings`.
    original_draws : OriginalDraws, optional
        What the original program drew at random in a run that is to be repeated with ``objective="original"``.

    Attributes
    ----------
    settings : Settings
    result : Result
        Of the last run.
    proportions : DataFrame, (n_spots, n_types)
        Rows sum to 1; NaN where nothing can be said (`result.status` says why).
    cell_weights : csr_matrix, (n_spots, n_cells used), or None
        Share of each reference cell in each spot; `result.cells` and `result.cell_types` tell the columns. None with
        ``cell_level=False``.

    Raises
    ------
    DataError
        Input or settings that cannot be used; all faults of the input are in one message.
    MemoryLimitError
        The run would need more memory than there is, or than `max_memory`.
    DeviceError
        The device asked for cannot be used.

    Examples
    --------
    >>> model = AttentionRegressionDeconv(sc_data, st_data, st_coordinates, celltype)  # doctest: +SKIP
    >>> proportions, seconds = model.run()  # doctest: +SKIP
    >>> model.evaluate(proportions, truth)["pearson"]  # doctest: +SKIP
    """

    def __init__(
        self,
        sc_data: Any,
        st_data: Any,
        st_coordinates: Any,
        celltype: Any,
        phi: float = 0.8,
        lambda_cell: float = 1.0,
        lambda_spatial: float = 1.0,
        lambda_ridge: float = 1.0,
        max_cells_per_type: int = 1000,
        n_iter: int = 5,
        n_jobs: int | None = -1,
        k_neighbors: int = 6,
        *,
        sections: Any = None,
        layer_st: str | None = None,
        layer_sc: str | None = None,
        spatial_key: str = "spatial",
        attention: bool = True,
        loss: str = "poisson",
        platform: str = "auto",
        abundance: str = "auto",
        tune: bool = True,
        cell_level: bool = True,
        max_cells_per_spot: int = 200,
        standard_errors: bool = False,
        detection: bool = False,
        unknown: bool = False,
        min_shared_genes: int = 10,
        min_cells_per_type: int = 1,
        exclude_types: Sequence[str] = (),
        check_counts: bool = True,
        dtype: str = "float32",
        seed: int = 0,
        device: str = "auto",
        max_memory: float | None = None,
        progress: bool = True,
        objective: str = "model",
        original_draws: OriginalDraws | None = None,
    ) -> None:
        given = locals()
        self.settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})

        from .backend import choose_device
        from .memory import demand_room, estimate_bytes
        from .original_draws import check_draws
        from .stages.inputs import read_inputs

        started = time.perf_counter()
        self._device = choose_device(self.settings.device)
        self._inputs = read_inputs(
            st_data, sc_data, st_coordinates, celltype,
            sections=sections, layer_st=layer_st, layer_sc=layer_sc, spatial_key=spatial_key, settings=self.settings,
        )  # fmt: skip
        check_draws(original_draws, self.settings, len(self._inputs.spot_names), len(self._inputs.genes))
        self._draws = original_draws
        demand_room(estimate_bytes(self._inputs, self.settings), self.settings.max_memory)
        self._reading = time.perf_counter() - started
        self._result: Result | None = None

    def run(self) -> tuple[pd.DataFrame, float]:
        """Estimate the proportions.

        Returns
        -------
        proportions : DataFrame, (n_spots, n_types)
            Rows sum to 1; NaN where nothing can be said. Spots without names are called spot_0, spot_1, ...
        seconds : float
            Wall time of this call.

        Notes
        -----
        A second run gives the same bits.
        """
        from . import pipeline

        started = time.perf_counter()
        self._result = pipeline.run(
            self._inputs, self.settings, device=self._device, reading=self._reading, draws=self._draws
        )
        return self._result.proportions, time.perf_counter() - started

    @property
    def result(self) -> Result:
        """All that the last run found."""
        if self._result is None:
            raise AttributeError("the model has no result yet: call run() first")
        return self._result

    @property
    def proportions(self) -> pd.DataFrame:
        """Proportions of the last run."""
        return self.result.proportions

    @property
    def cell_weights(self) -> csr_matrix | None:
        """Cell weights of the last run."""
        return self.result.cell_weights

    @staticmethod
    def evaluate(proportions: Any, truth: Any | None) -> dict[str, Any] | None:
        """Compare proportions with a truth; see `stdeconv_fast.evaluate`.

        Parameters
        ----------
        proportions : DataFrame or array, (n_spots, n_types)
            What `run` gave, or another table.
        truth : DataFrame or array, (n_spots, n_types), or None
            The true shares; two DataFrames are matched by label.

        Returns
        -------
        dict or None
            ``mse``, ``mae``, ``r2``, ``pearson``, ``spearman``, ``cosine`` and more; None where `truth` is None.

        Raises
        ------
        DataError
            The two cannot be matched.
        """
        from .scoring import evaluate

        return evaluate(proportions, truth)

    def __repr__(self) -> str:
        usual = Settings(cell_level=True)
        values = ((field.name, getattr(self.settings, field.name)) for field in fields(Settings))
        changed = (f"{name}={value!r}" for name, value in values if value != getattr(usual, name))
        return f"{type(self).__name__}({', '.join(changed)})"
