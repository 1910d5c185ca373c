"""asv: how runs grow with types, genes and threads, at few bins."""

from __future__ import annotations

import statistics
import time

N_SPOTS = 2000


class Width:
    """A run on 2,000 bins, defaults, one thread; up to 1,500 genes all are kept, of more the markers."""

    timeout = 300
    number = 1
    rounds = 2

    def prepare(self, n_types, n_genes):
        from stdeconv_fast import simulate

        self.tissue = simulate(N_SPOTS, n_genes, n_types, kind="bins", seed=0)
        self.run()

    def run(self):
        from stdeconv_fast import deconvolve

        tissue = self.tissue
        return deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, n_jobs=1, progress=False
        )


class Types(Width):
    """By the number of types, 1,000 genes."""

    params = [10, 20, 50, 100]
    param_names = ["n_types"]

    def setup(self, n_types):
        self.prepare(n_types, 1000)

    def time_deconvolve(self, n_types):
        self.run()

    def track_first_fit(self, n_types):
        """Microseconds a bin of the first solve, which is the same work whatever the tuning chooses."""
        return 1e6 * statistics.median(self.run().seconds["first fit"] for _ in range(3)) / N_SPOTS

    track_first_fit.unit = "microseconds a bin"


class Genes(Width):
    """By the number of genes, 20 types."""

    params = [500, 1500, 3000, 5000]
    param_names = ["n_genes"]

    def setup(self, n_genes):
        self.prepare(20, n_genes)

    def time_deconvolve(self, n_genes):
        self.run()

    def track_genes_used(self, n_genes):
        return self.run().diagnostics["n_genes_used"]

    track_genes_used.unit = "genes"


class Threads:
    """One thread beside two, in turn within one call, so that both see the same machine."""

    timeout = 300
    turns = 3
    params = ["types", "cell level"]
    param_names = ["level"]

    def setup(self, level):
        from stdeconv_fast import simulate
        from stdeconv_fast.parallel import count_workers

        if count_workers(-1) < 2:
            raise NotImplementedError("this process may use one core alone")  # asv's way to say: skipped
        self.tissue = simulate(20000 if level == "types" else 1000, 3000, 20, kind="bins", seed=0)

    def track_speed_up(self, level):
        """Seconds with one thread over seconds with two, medians of three."""
        from stdeconv_fast import deconvolve

        tissue = self.tissue
        settings = {"cell_level": True, "max_cells_per_type": 25} if level == "cell level" else {}

        def once(n_jobs):
            started = time.perf_counter()
            deconvolve(
                tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, n_jobs=n_jobs, progress=False,
                **settings,
            )  # fmt: skip
            return time.perf_counter() - started

        once(2)
        pairs = [(once(1), once(2)) for _ in range(self.turns)]
        return statistics.median(one for one, _ in pairs) / statistics.median(two for _, two in pairs)

    track_speed_up.unit = "one thread / two"
