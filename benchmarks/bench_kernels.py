"""asv: the kernels, one thread, on low-count bins (20 types, about 150 kept non-zeros a bin).

Each kernel has a case here, most by way of the stage that calls it; tests/test_benchmarks.py looks that none is
missing.
"""

from __future__ import annotations

import numpy as np

N_SPOTS = 4000
CELL_SPOTS = 200  # the cell level costs a thousand times as much a spot


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
        from stdeconv_fast.procedures.pieces import Whole
        from stdeconv_fast.stages import attention, graph, solve_types

        self.prepared, self.abundances = cache
        self.workers = Workers(1, None)
        self.pieces = Whole(self.prepared.counts, self.workers)
        self.pieces.pose(self.prepared.known, "poisson")
        self.problem = self.pieces.problem
        self.gaussian = solve_types.pose(self.prepared.counts, self.prepared.known, "gaussian")
        self.links = attention.attend_by_place(self.prepared.places, np.dtype("float32"), self.workers)
        self.product = np.empty_like(self.abundances)
        self.alone = solve_types.start_evenly(self.problem)
        solve_types.solve_alone(self.problem, self.alone, graph.no_neighbours(N_SPOTS), 1.0, self.workers)
        self.cells, self.cell_level = self._prepare_cells()
        for name in dir(self):
            if name.startswith("time_"):
                getattr(self, name)(cache)

    def _prepare_cells(self):
        """The reference cells of the cell level, and what it reads of some spots: no smoothing, so one pass."""
        from stdeconv_fast.stages import graph, reference, refine_cells

        ready = self.prepared
        labelled = np.flatnonzero(ready.inputs.cell_types >= 0)
        counts = reference.gather_cells(
            ready.inputs, labelled, ready.known.kept_genes, np.dtype("float32"), self.workers
        )
        types, totals = ready.inputs.cell_types[labelled], ready.profiles.cell_totals[labelled]
        drawn = refine_cells.draw_cells(counts, types, totals, ready.gene_keys, 25, 0, self.workers)
        cells = refine_cells.Cells(labelled[drawn], types[drawn], graph.take_spots(counts, drawn), totals[drawn])
        rows = np.arange(min(CELL_SPOTS, N_SPOTS))
        fixed = {
            "counts": graph.take_spots(ready.counts, rows), "graph": graph.no_neighbours(len(rows)),
            "abundances": self.abundances[rows], "lambda_spatial": 0.0, "tick": lambda steps: None,
        }  # fmt: skip
        return cells, fixed

    def time_solve_spots_alone(self, cache):
        """First solve of every spot, Poisson."""
        from stdeconv_fast.stages import graph, solve_types

        start = solve_types.start_evenly(self.problem)
        solve_types.solve_alone(self.problem, start, graph.no_neighbours(N_SPOTS), 1.0, self.workers)

    def time_sweep_spots(self, cache):
        """One visit of every spot with neighbours, Poisson."""
        from stdeconv_fast.stages import solve_types

        solve_types.sweep(self.problem, self.abundances.copy(), self.links, 50.0, 1.0, 1.0, self.workers)

    def time_sweep_spots_gaussian(self, cache):
        """One visit of every spot with neighbours, least squares."""
        from stdeconv_fast.stages import solve_types

        solve_types.sweep(self.gaussian, self.abundances.copy(), self.links, 50.0, 1.0, 1.0, self.workers)

    def time_passes(self, cache):
        """Passes of attention and solve from the first fit to the end, Poisson."""
        from stdeconv_fast.procedures import passes

        passes.alternate(
            self.pieces, self.alone.copy(), self.prepared.places, 50.0, 1.0, 1.0, 5, True, self.workers
        )

    def time_measure_fit(self, cache):
        """Deviance and misfit of every spot, dispersion of every gene; the direction of the misfit is learnt."""
        from stdeconv_fast.draws import keys_of
        from stdeconv_fast.procedures import missing

        keys = keys_of(0, self.pieces.totals)
        missing.measure_fit(self.pieces, self.prepared.known, self.abundances, keys)

    def time_estimate_errors(self, cache):
        """Standard errors of every spot, with neighbours."""
        from stdeconv_fast.procedures import uncertainty

        dispersion = np.full(self.pieces.n_genes, 2.0)
        uncertainty.estimate_errors(
            self.problem, dispersion, self.abundances, self.links, 50.0, 1.0, None, self.workers
        )

    def time_weigh_absence(self, cache):
        """Likelihood ratios of every type against its absence, with neighbours."""
        dispersion = np.full(self.pieces.n_genes, 2.0)
        self.pieces.weigh_absence(dispersion, self.abundances, self.links, 50.0, 1.0, 1.0)

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

    def time_read_counts(self, cache):
        """One pass over all non-zeros: checks, totals, sums by gene, counts of the kept genes."""
        from benchmarks.stages import read_counts

        read_counts(self.prepared.inputs, self.prepared.profiles, self.workers)

    def time_thin_counts(self, cache):
        """Thin every molecule of the kept genes."""
        from stdeconv_fast.procedures import strengths

        strengths.thin(self.prepared.counts, self.prepared.keys, self.prepared.gene_keys, self.workers)

    def time_sum_segments(self, cache):
        """Mean profiles of the types."""
        from stdeconv_fast.stages import reference

        reference.average_types(self.prepared.inputs, self.workers)

    def time_sweep_cells(self, cache):
        """Cell level of 200 bins on 25 cells a type, without neighbours."""
        from stdeconv_fast.stages import refine_cells

        refine_cells.refine(
            self.cells, self.prepared.known, lambda_ridge=1.0, lambda_cell=1.0, max_cells_per_spot=200,
            workers=self.workers, **self.cell_level,
        )  # fmt: skip

    def time_score_spots(self, cache):
        """Held-out log-likelihood of every spot."""
        from stdeconv_fast.stages import solve_types

        solve_types.score(self.problem, self.problem.counts.data, 0.25, self.abundances, self.workers)

    def time_sum_excess(self, cache):
        """Dispersion of every gene."""
        from stdeconv_fast.stages import reference

        reference.compare_genes(self.prepared.known, self.prepared.counts, self.abundances, self.workers)

    def time_find_dominant(self, cache):
        """Type with the highest proportion of every spot."""
        from stdeconv_fast.stages import aggregate

        aggregate.dominant_types(self.abundances)

    def time_key_rows(self, cache):
        """Keys of spots that their counts alone tell apart."""
        from stdeconv_fast.stages import graph

        keys = np.repeat(self.prepared.keys[: N_SPOTS // 2], 2)
        places = self.prepared.inputs.coordinates[::-1]  # in no order that tells them apart
        graph.tell_apart(keys, self.pieces.take, self.prepared.gene_keys, self.workers, places)

    def time_link_spots(self, cache):
        """Nearest neighbours, spatial factors, reverse edges and colours."""
        from stdeconv_fast.stages import graph

        inputs = self.prepared.inputs
        graph.link_spots(inputs.coordinates, inputs.sections, 6, self.prepared.keys, self.workers)
