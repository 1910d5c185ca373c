"""
Your own arrays
===============

No AnnData and no names are needed: a matrix of spots x genes, one of cells x genes with the same columns, a label for
each cell, a place for each spot. Everything found comes back in one `Result`, which can be kept in a file.

Your own data: `counts` and `cells` are NumPy arrays or SciPy sparse matrices of raw counts with the same genes in
the same order.
"""

import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

tissue = sd.simulate(n_spots=200 if QUICK else 1500, n_genes=300 if QUICK else 600, n_types=5, platform_sd=0, seed=9)
counts = tissue.spots  # a sparse matrix, spots x genes
cells = tissue.reference.toarray()  # a dense array, cells x genes
labels = list(tissue.cell_types)
places = tissue.coordinates  # an array, spots x 2

# %%
# The run. Standard errors and q-values of presence are there where they are asked for.

result = sd.deconvolve(counts, cells, places, labels, standard_errors=True, detection=True, progress=False)
print(result)
print("status:", result.status.value_counts().to_dict())
print("seconds:", {stage: round(seconds, 2) for stage, seconds in result.seconds.items()})

# %%
# Arrays again. Rows are in the order of the input; the columns are the labels in sorted order.

shares = result.proportions.to_numpy()
errors = result.standard_errors.to_numpy()
present = result.q_values.to_numpy() < 0.05
print(list(result.proportions.columns), shares.shape, shares.dtype)

# %%
# Kept in a file, read back: every field as it was.

with tempfile.TemporaryDirectory() as folder:
    result.save(Path(folder) / "result.npz")
    again = sd.Result.load(Path(folder) / "result.npz")
print("read back the same bits:", again.proportions.equals(result.proportions))

# %%
# The figure
# ----------
# One type: estimate against truth, with 90 % intervals. The simulation tells the truth here.

truth = tissue.truth[result.proportions.columns].to_numpy()
k = int(np.argmax(truth.mean(axis=0)))
some = np.linspace(0, len(truth) - 1, min(len(truth), 150)).astype(int)
figure, ax = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
ax.errorbar(
    truth[some, k], shares[some, k], yerr=1.645 * errors[some, k], fmt="o", markersize=3, linewidth=0.8, color="#0072B2"
)
ax.set_xlabel("true proportion")
ax.set_ylabel("estimated proportion, 90 % interval")
ax.set_title(f"{result.proportions.columns[k]}, {len(some)} spots", fontsize=10)
ax.spines[["top", "right"]].set_visible(False)
figure.savefig("own_arrays.png", dpi=120)

# %%
# What it shows
# -------------
# Dots on the grey line are right. An interval is of the counts of its spot. Here spots and cells were seen by the
# same technology (``platform_sd=0``); where the reference or the neighbours are wrong, intervals are too narrow.

there = truth > 0.05
covered = (np.abs(shares - truth) <= 1.645 * errors)[there].mean()
print(
    f"Of the proportions that are above 5 %, {covered:.0%} lie in their 90 % interval. {present.sum():,} times a type "
    f"is called present (q < 0.05); {(truth[present] == 0).mean():.1%} of these calls are false."
)
