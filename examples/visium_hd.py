"""
Visium HD at scale
==================

A hundred thousand bins, solved in tiles whose counts stay on disk, and a run that is killed and goes on where it
stood: the way for millions of bins, on a machine that cannot hold their counts. The folder here is written from a
simulated tissue, in the format of Space Ranger (``pip install 'stdeconv-fast[readers]'`` for its parquet tables).

Your own data: `outs` is the folder that holds ``binned_outputs``, `cells` an AnnData of raw counts with the types
in obs.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

n_bins, tiles = (3_000, 3) if QUICK else (100_000, 20)
tissue = sd.simulate(n_spots=n_bins, n_genes=200 if QUICK else 500, n_types=10, kind="bins", seed=11)
section, cells = tissue.to_anndata()
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
outs = sd.io.write_visium(section, folder / "outs", bin_size=8)
reference = sd.build_reference(cells, "celltype", keep_cells=False)
reference.save(folder / "reference.npz")

# %%
# Once: the bins of 8 micrometres as a zarr folder, which is read by blocks from then on.

sd.io.write(sd.io.read(outs, bin_size=8), folder / "bins.zarr")

# %%
# The run, by the command line, in a process of its own. It is killed in the middle, as a full queue of a cluster or a
# power cut would do it.

command = [
    sys.executable, "-m", "stdeconv_fast.cli", "run", "bins.zarr", "reference.npz", "-o", "out.h5ad",
    "--no-counts", "--quiet", "--tiles", str(tiles), "--work", "work",
]  # fmt: skip
run = subprocess.Popen(command, cwd=folder)
while run.poll() is None and len(list(folder.glob("work/store/*/*.npz"))) < tiles + 2:
    time.sleep(0.01)
run.kill()
run.wait()
kept = len(list(folder.glob("work/store/*/*")))
print(f"exit code {run.returncode} (-9: killed); the work folder holds {kept} files")

# %%
# The same line with ``--resume`` goes on, to the same bits as without the kill. The peak of its memory is what the
# system has counted for the process (on Linux and macOS).

run = subprocess.Popen([*command, "--resume"], cwd=folder)
peak = os.wait4(run.pid, 0)[2].ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
found = sd.io.read(folder / "out.h5ad")
seconds = found.uns["stdeconv_params"]["seconds"]
print("seconds of what was left:", {stage: round(float(spent), 2) for stage, spent in seconds.items()})

# %%
# The same bins in one piece, for comparison: all counts are in memory at once.

whole = sd.deconvolve(section, reference, progress=False)
temporary.cleanup()

# %%
# The figure
# ----------

ax = sd.pl.dominant(found)
ax.set_title(f"dominant type of {found.n_obs:,} bins", fontsize=10)
ax.figure.savefig("visium_hd.png", dpi=120)

# %%
# What it shows
# -------------
# Peak memory is Python with its packages (about 0.3 GB), blocks of counts, and what grows with spots x types. What
# tiles leave on disk is three bytes or four for each count above 0 in the genes used: they pay where that is large, and
# wherever a run must survive a kill.

shares = found.obsm["stdeconv"]
print(
    f"Peak of memory in tiles: {peak:.2f} GB; the counts of these bins would take {4 * tissue.spots.nnz / 1e9:.3f} GB."
    f"\nLargest difference to the run in one piece: {abs(shares - whole.proportions).max(axis=None):.1e}."
    f"\nCorrelation with the truth: {sd.evaluate(shares, tissue.truth)['pearson']:.3f}."
)
