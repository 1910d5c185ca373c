"""asv: whole runs and their stages, their memory, and the cost of a spot beside flashdeconv's."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path


class Deconvolve:
    """End to end from arrays in memory, defaults, one thread and all."""

    params = ([2000, 10000], [1, -1])
    param_names = ["n_spots", "n_jobs"]
    timeout = 300
    number = 1
    rounds = 2

    def setup_cache(self):
        from stdeconv_fast import simulate

        return {n: simulate(n, 3000, 20, kind="bins", seed=0) for n in self.params[0]}

    def setup(self, cache, n_spots, n_jobs):
        self.tissue = cache[n_spots]
        self.time_deconvolve(cache, n_spots, n_jobs)

    def time_deconvolve(self, cache, n_spots, n_jobs):
        from stdeconv_fast import deconvolve

        tissue = self.tissue
        deconvolve(
            tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, n_jobs=n_jobs, progress=False
        )

    def peakmem_deconvolve(self, cache, n_spots, n_jobs):
        self.time_deconvolve(cache, n_spots, n_jobs)


class Stages:
    """Seconds of each stage of one run, defaults, one thread, medians of three."""

    params = ["input", "reference", "counts", "graph", "first fit", "tuning", "passes", "fit", "standard errors"]
    param_names = ["stage"]
    timeout = 300

    def setup_cache(self):
        from stdeconv_fast import deconvolve, simulate

        tissue = simulate(20000, 3000, 20, kind="bins", seed=0)

        def once(n_spots):
            return deconvolve(
                tissue.spots[:n_spots], tissue.reference, tissue.coordinates[:n_spots], tissue.cell_types,
                n_jobs=1, standard_errors=True, progress=False,
            ).seconds  # fmt: skip

        once(1000)
        runs = [once(20000) for _ in range(3)]
        return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

    def track_seconds(self, cache, stage):
        if stage not in cache:
            raise NotImplementedError(f"a run has no stage {stage!r} now")  # asv's way to say: skipped
        return cache[stage]

    track_seconds.unit = "s"


class Memory:
    """Peak memory of a process, with numba and the input in it; what the input alone takes is told beside it."""

    params = [10000, 40000]
    param_names = ["n_spots"]
    timeout = 300

    def setup_cache(self):
        from stdeconv_fast import simulate

        return {n: simulate(n, 3000, 20, kind="bins", seed=0) for n in self.params}

    def setup(self, cache, n_spots):
        self.tissue = cache[n_spots]

    def run(self, n_spots, **settings):
        from stdeconv_fast import deconvolve

        tissue = self.tissue
        deconvolve(
            tissue.spots[:n_spots], tissue.reference, tissue.coordinates[:n_spots], tissue.cell_types, n_jobs=1,
            progress=False, **settings,
        )  # fmt: skip

    def peakmem_input_alone(self, cache, n_spots):
        """A run on few spots: the kernels are loaded, the whole input is held."""
        self.run(200)

    def peakmem_types(self, cache, n_spots):
        self.run(n_spots)

    def peakmem_standard_errors(self, cache, n_spots):
        self.run(n_spots, standard_errors=True)

    def peakmem_least_squares(self, cache, n_spots):
        self.run(n_spots, loss="gaussian")


class CellLevel:
    """4,000 spots on 5,000 reference cells, every cell of a type allowed."""

    timeout = 600
    number = 1
    rounds = 1
    repeat = 1

    def setup_cache(self):
        from stdeconv_fast import simulate

        return simulate(4000, 1000, 20, counts_per_spot=5000, cells_per_type=250, seed=0)

    def run(self, tissue, n_spots):
        from stdeconv_fast import deconvolve

        return deconvolve(
            tissue.spots[:n_spots], tissue.reference, tissue.coordinates[:n_spots], tissue.cell_types,
            cell_level=True, progress=False,
        )  # fmt: skip

    def track_cell_level_seconds(self, tissue):
        """Seconds of the cell level alone."""
        self.run(tissue, 200)
        return self.run(tissue, 4000).seconds["cells"]

    track_cell_level_seconds.unit = "s"

    def peakmem_cell_level(self, tissue):
        """On 500 of the spots."""
        self.run(tissue, 500)


class CostOfSpot:
    """CPU of our type-level solve with three attention passes beside flashdeconv 0.2.0's whole fit, bin by bin."""

    timeout = 900
    n_spots = 20000
    turns = 3

    def setup_cache(self):
        from benchmarks.peer_env import run_peer
        from benchmarks.stages import prepare, solve
        from stdeconv_fast import simulate
        from stdeconv_fast.parallel import hold_workers
        from stdeconv_fast.procedures import passes

        tissue = simulate(self.n_spots, 3000, 20, kind="bins", counts_per_spot=255, seed=0)  # 125 kept non-zeros
        ours, tight, theirs = [], [], []
        with tempfile.TemporaryDirectory() as folder, hold_workers(1) as workers:
            spots, reference = tissue.to_anndata()
            files = [str(Path(folder) / name) for name in ("st.h5ad", "sc.h5ad", "out.csv")]
            spots.write_h5ad(files[0])
            reference.write_h5ad(files[1])
            prepared = prepare(tissue, workers)
            solve(prepared, workers)
            for _ in range(self.turns):  # in turn, so that both see the same machine
                started = time.process_time()
                solve(prepared, workers)
                ours.append(time.process_time() - started)
                started = time.process_time()
                solve(prepared, workers, limit=passes.SETTLED / 10)
                tight.append(time.process_time() - started)
                job = (files[0], files[1], "celltype", files[2])
                theirs.append(run_peer([job, job])[1]["cpu"])  # the second call: its kernels are compiled
        nnz = prepared.counts.indptr[-1] / self.n_spots
        return statistics.median(ours), statistics.median(theirs), nnz, statistics.median(tight)

    def track_ours(self, cache):
        return 1e6 * cache[0] / self.n_spots

    track_ours.unit = "microseconds of CPU a bin"

    def track_flashdeconv(self, cache):
        return 1e6 * cache[1] / self.n_spots

    track_flashdeconv.unit = "microseconds of CPU a bin"

    def track_ratio(self, cache):
        return cache[0] / cache[1]

    track_ratio.unit = "ours / flashdeconv"

    def track_ratio_ten_times_as_settled(self, cache):
        """With the spots ten times nearer to their answers."""
        return cache[3] / cache[1]

    track_ratio_ten_times_as_settled.unit = "ours / flashdeconv"

    def track_non_zeros(self, cache):
        return cache[2]

    track_non_zeros.unit = "kept non-zeros a bin"
