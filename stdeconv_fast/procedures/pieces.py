"""What needs the counts of the spots, behind one face: all of them in memory, or (`tiles`) a tile at a time."""

from __future__ import annotations

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

    def take(self, rows: np.ndarray | None) -> Counts:
        """Counts of some spots, in the order of `rows`; None: all."""
        return self.counts if rows is None else graph.take_spots(self.counts, rows)

    def pose(self, known: Reference, loss: str) -> None:
        """Solve against this reference from now on."""
        self.problem = solve_types.pose(self.counts, known, loss)

    def link(self, places: Graph) -> None:
        """Take note of who is whose neighbour."""

    def solve_alone(self, lambda_ridge: float, tolerance: float) -> np.ndarray:
        """Abundances, (n_spots, n_types), of each spot without its neighbours, from an even start."""
        abundances = solve_types.start_evenly(self.problem)
        alone = graph.no_neighbours(self.n_spots)
        solve_types.solve_alone(self.problem, abundances, alone, lambda_ridge, self._workers, tolerance=tolerance)
        return abundances

    def finish_alone(self, abundances: np.ndarray, lambda_ridge: float) -> None:
        """Solve every spot alone to the end, from a start near it; updates `abundances` in place."""
        alone = graph.no_neighbours(self.n_spots)
        solve_types.solve_alone(self.problem, abundances, alone, lambda_ridge, self._workers, cold=False)

    def settle(
        self, abundances: np.ndarray, links: Graph, lambda_spatial: float, phi: float, lambda_ridge: float,
        owed: np.ndarray, relax: float, limit: float, few: float = 0.0, most: int = passes.MOST_SWEEPS,
    ) -> float:  # fmt: skip
        """Sweep over the spots until none is far from its answer; see `passes.settle`."""
        return passes.settle(
            self.problem, abundances, links, lambda_spatial, phi, lambda_ridge, owed, self._workers, relax, limit, most,
            few,
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
        pulls = uncertainty.pull(abundances, links, lambda_spatial, phi)
        return uncertainty.weigh_absence(
            self.problem, dispersion, abundances, links.degrees, pulls, lambda_spatial, lambda_ridge, self._workers
        )
