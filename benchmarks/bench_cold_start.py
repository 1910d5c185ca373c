"""asv: how soon a new process answers, with and without compiled kernels on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path


class ColdStart:
    """A new process each time, timed from within, so without the start of Python itself."""

    timeout = 120

    def timeraw_import(self):
        return "import stdeconv_fast"

    def timeraw_import_pipeline(self):
        return "from stdeconv_fast import deconvolve"

    def timeraw_help(self):
        return """
        import contextlib, io
        from stdeconv_fast.cli import main
        with contextlib.redirect_stdout(io.StringIO()):
            main(["run", "--help"], standalone_mode=False)
        """

    def timeraw_second_run(self):
        """A small run: asv calls it several times, so that the kernels of all but the first are on disk."""
        return """
        from stdeconv_fast import deconvolve, simulate
        tissue = simulate(1000, 500, 8, seed=0)
        deconvolve(tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types, n_jobs=1, progress=False)
        """


class Compiling:
    """Seconds of whole processes on 1,000 bins with a fresh folder for the kernels; see benchmarks/cold_start.py."""

    params = [
        "stdeconv-fast --help", "import", "first run, nothing compiled", "second run", "stdeconv-fast warmup",
        "warmup again", "first run after warmup",
    ]  # fmt: skip
    param_names = ["process"]
    timeout = 600

    def setup_cache(self):
        from benchmarks.cold_start import measure
        from benchmarks.growth import make_size

        with tempfile.TemporaryDirectory() as folder:
            make_size(1000, folder)
            return {row["what"]: row["seconds"] for row in measure(Path(folder), 1, everything=False)}

    def track_seconds(self, cache, process):
        return cache[process]

    track_seconds.unit = "s"
