"""What needs the counts of the spots, behind one face: all of them in memory, or (`tiles`) a tile at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..parallel import Workers
from ..parcels import Counts, Graph, Reference
from ..stages import graph, solve_types
from . import passes, uncertainty


class Whole:
    """The counts of all spots in memory, solved by threads.

    Parameters
    ----------
    counts : Counts
    workers : Workers

    Attributes
    ----------
    n_spots, n_genes : int
    totals : (n_spots,) float
        Counts of each spot over the kept genes.
    dtype : dtype
        Working dtype.
    problem : Problem or None
        What `pose` posed last.
    """

    def __init__(self, counts: Counts, workers: Workers) -> None:
        self.counts = counts
        self.n_spots, self.n_genes = counts.n_spots, counts.n_genes
        self.totals, self.dtype = counts.totals, counts.dtype
        self.problem: solve_types.Problem | None = None
        self._workers = workers
        self._held: Counts | None = None

    def take(self, rows: np.ndarray | None) -> Counts:
        """Counts of some spots, in the order of `rows`; None: all."""
        return self.counts if rows is None else graph.take_spots(self.counts, rows)

    def held(self, rows: np.ndarray | None) -> Counts:
        """Counts of some spots where the kernels run; all of them go there once."""
        if rows is not None:
            return self._workers.place(self.take(rows))
        if self._held is None:
            self._held = self._workers.place(self.counts)
        return self._held

    def pose(self, known: Reference, loss: str) -> None:
        """Solve against this reference from now on."""
        counts = self.held(None) if loss == "poisson" else self.counts  # least squares are posed on the host
        problem = solve_types.pose(counts, known, loss)
        self.problem = self._workers.place(replace(problem, counts=self.held(None)))

    def link(self, places: Graph) -> Graph:
        """Take note of who is whose neighbour; the graph as the passes take it."""
        return self._workers.place(places)

    def solve_alone(self, lambda_ridge: float, tolerance: float) -> np.ndarray:
        """Abundances, (n_spots, n_types), of each spot without its neighbours, from an even start."""
        abundances = solve_types.start_evenly(self.problem)
        alone = self._workers.place(graph.no_neighbours(self.n_spots))
        solve_types.solve_alone(self.problem, abundances, alone, lambda_ridge, self._workers, tolerance=tolerance)
        return abundances

    def finish_alone(self, abundances: np.ndarray, lambda_ridge: float) -> None:
        """Solve every spot alone to the end, from a start near it; updates `abundances` in place."""
        alone = self._workers.place(graph.no_neighbours(self.n_spots))
        solve_types.solve_alone(self.problem, abundances, alone, lambda_ridge, self._workers, cold=False)

    def settle(
        self, abundances: np.ndarray, links: Graph, lambda_spatial: float, phi: float, lambda_ridge: float,
        owed: np.ndarray, relax: float, limit: float, few: float = 0.0, early: float = 1.0,
        most: int = passes.MOST_SWEEPS,
    ) -> float:  # fmt: skip
        """Sweep over the spots until none is far from its answer; see `passes.settle`."""
        return passes.settle(
            self.problem, abundances, links, lambda_spatial, phi, lambda_ridge, owed, self._workers, relax, limit, most,
            few, early,
        )

    def measure_fit(
        self, known: Reference, abundances: np.ndarray, direction: uncertainty.Direction
    ) -> uncertainty.Fit:
        """See `uncertainty.measure_fit`."""
        return uncertainty.measure_fit(self.problem, known, abundances, direction, self._workers)

    def estimate_errors(
        self, dispersion: np.ndarray, abundances: np.ndarray, links: Graph, lambda_spatial: float,
        lambda_ridge: float, mrna_content: np.ndarray | None,
    ) -> np.ndarray:  # fmt: skip
        """See `uncertainty.estimate_errors`."""
        return uncertainty.estimate_errors(
            self.problem, dispersion, abundances, links, lambda_spatial, lambda_ridge, mrna_content, self._workers
        )

    def weigh_absence(
        self, dispersion: np.ndarray, abundances: np.ndarray, links: Graph, lambda_spatial: float, phi: float,
        lambda_ridge: float,
    ) -> np.ndarray:  # fmt: skip
        """See `uncertainty.weigh_absence`."""
        pulls = uncertainty.pull(abundances, links, lambda_spatial, phi, self._workers)
        return uncertainty.weigh_absence(
            self.problem, dispersion, abundances, links.degrees, pulls, lambda_spatial, lambda_ridge, self._workers
        )
