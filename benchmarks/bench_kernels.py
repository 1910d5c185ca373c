"""asv: the kernels, one thread, on low-count bins (20 types, about 150 kept non-zeros a bin)."""

from __future__ import annotations

import numpy as np

N_SPOTS = 4000


class Kernels:
    """Each kernel over all spots; numba compiles in setup, never in the timed part."""

    timeout = 300
    number = 1
    rounds = 2

    def setup_cache(self):
        from benchmarks.stages import prepare, solve
        from stdeconv_fast import simulate
        from stdeconv_fast.parallel import hold_workers

        tissue = simulate(N_SPOTS, 3000, 20, kind="bins", seed=0)
        with hold_workers(1) as workers:
            prepared = prepare(tissue, workers)
            return prepared, solve(prepared, workers)

    def setup(self, cache):
        from stdeconv_fast.parallel import Workers
        from stdeconv_fast.stages import attention, solve_types

        self.prepared, self.abundances = cache
        self.workers = Workers(1, None)
        self.problem = solve_types.pose(self.prepared.counts, self.prepared.known, "poisson")
        self.gaussian = solve_types.pose(self.prepared.counts, self.prepared.known, "gaussian")
        self.links = attention.attend_by_place(self.prepared.places, np.dtype("float32"), self.workers)
        self.product = np.empty_like(self.abundances)
        for name in dir(self):
            if name.startswith("time_"):
                getattr(self, name)(cache)

    def time_solve_spots_alone(self, cache):
        """First solve of every spot, Poisson."""
        from stdeconv_fast.stages import graph, solve_types

        start = solve_types.start_evenly(self.problem)
        solve_types.solve_alone(self.problem, start, graph.no_neighbours(N_SPOTS), 1.0, self.workers)

    def time_sweep_spots(self, cache):
        """One visit of every spot with neighbours, Poisson."""
        from stdeconv_fast.stages import solve_types

        solve_types.sweep(self.problem, self.abundances.copy(), self.links, 50.0, 1.0, 1.0, 1, self.workers)

    def time_sweep_spots_gaussian(self, cache):
        """One visit of every spot with neighbours, least squares."""
        from stdeconv_fast.stages import solve_types

        solve_types.sweep(self.gaussian, self.abundances.copy(), self.links, 50.0, 1.0, 1.0, 1, self.workers)

    def time_measure_fit(self, cache):
        """Deviance of every spot, dispersion of every gene."""
        from stdeconv_fast.procedures import uncertainty

        uncertainty.measure_fit(self.problem, self.prepared.known, self.abundances, self.workers)

    def time_estimate_errors(self, cache):
        """Standard errors of every spot, with neighbours."""
        from stdeconv_fast.procedures import uncertainty

        uncertainty.estimate_errors(self.problem, self.abundances, self.links, 50.0, 1.0, None, self.workers)

    def time_attend(self, cache):
        """Attention weights on every edge."""
        from stdeconv_fast.stages import attention

        attention.attend(self.prepared.places, self.abundances, self.workers)

    def time_apply_laplacian(self, cache):
        """Sparse Laplacian product with 20 columns."""
        from stdeconv_fast.kernels.cpu.laplacian import apply_laplacian

        links = self.links
        apply_laplacian(
            links.indptr, links.indices, links.weights, links.degrees, self.abundances, 1.0, 0, N_SPOTS, self.product
        )

    def time_gather_counts(self, cache):
        """Pick the kept genes of every spot."""
        from stdeconv_fast.stages import reference

        rows = np.arange(N_SPOTS)
        kept = self.prepared.known.kept_genes
        reference.gather_counts(self.prepared.inputs, rows, kept, np.dtype("float32"), self.workers)

    def time_thin_counts(self, cache):
        """Thin every molecule of the kept genes."""
        from stdeconv_fast.procedures import strengths

        strengths.thin(self.prepared.counts, self.prepared.keys, self.prepared.gene_keys, self.workers)

    def time_sum_segments(self, cache):
        """Mean profiles of the types."""
        from stdeconv_fast.stages import reference

        reference.average_types(self.prepared.inputs, self.workers)
