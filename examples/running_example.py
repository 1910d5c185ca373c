"""
The running example
===================

The class of the original program, with the words of its README: single cells with labels and spots with places go
in, a table of cell-type proportions and the seconds come out, and `evaluate` compares with a truth. Here the tissue
is simulated, so that the truth is known. ``python running_example.py --quick`` takes a smaller one.

Your own data: replace `sc_data`, `st_data`, `st_coordinates` and `celltype` by tables, arrays or AnnData of raw
counts.
"""

import os
import sys

import matplotlib.pyplot as plt

import stdeconv_fast as sd
from stdeconv_fast.attention_regression_deconv import AttentionRegressionDeconv

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# The data
# --------
# Cells x genes and spots x genes are raw counts; the coordinates may have any unit.

tissue = sd.simulate(n_spots=200 if QUICK else 1500, n_genes=300 if QUICK else 600, n_types=8, seed=1)
sc_data, celltype = tissue.reference_frame(), tissue.label_series()
st_data, st_coordinates = tissue.spatial_frame(), tissue.coordinate_frame()
print(f"{st_data.shape[0]:,} spots, {sc_data.shape[0]:,} cells of {celltype.nunique()} types, {st_data.shape[1]} genes")

# %%
# The model
# ---------
# The arguments are those of the original program. `phi` and the strength of the smoothing are tuned on the counts
# unless ``tune=False`` is given. The cell level is on: every spot also gets weights of single reference cells.

model = AttentionRegressionDeconv(
    sc_data, st_data, st_coordinates, celltype,
    phi=0.8, lambda_cell=1.0, lambda_spatial=1.0, lambda_ridge=1.0,
    max_cells_per_type=1000, n_iter=5, n_jobs=-1, k_neighbors=6, progress=False,
)  # fmt: skip
proportions, elapsed = model.run()
print(f"{elapsed:.1f} s (the first run after an installation compiles as well); {model.result!r}")

# %%
# The scores
# ----------

scores = model.evaluate(proportions, tissue.truth)
for name in ("mse", "mae", "r2", "pearson", "spearman", "cosine"):
    print(f"{name:<9} {scores[name]:.4f}")
print(scores["per_type"].round(3).to_string())

# %%
# The figure
# ----------
# Maps of the four most common types, true above estimated, on one scale.

shown = list(tissue.truth.mean().nlargest(4).index)
top = max(tissue.truth[shown].max(axis=None), proportions[shown].max(axis=None))
figure, axes = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
for row, table in zip(axes, (tissue.truth, proportions), strict=True):
    sd.pl.proportions(table, types=shown, coordinates=st_coordinates, ax=row, vmax=top, colorbar=False)
axes[0, 0].set_ylabel("true")
axes[1, 0].set_ylabel("estimated")
figure.colorbar(axes[1, 0].collections[-1], ax=axes, shrink=0.6, label="proportion")
figure.suptitle("Cell-type proportions of each spot")
figure.savefig("running_example.png", dpi=120)

# %%
# What it shows
# -------------
# The rows look alike where the estimate is right. How alike, which type is found worst, and which is found too much
# or too little of:

per_type = scores["per_type"]
worst = per_type["pearson"].idxmin()
off = (per_type["mean_predicted"] - per_type["mean_truth"]).abs().idxmax()
cells = model.cell_weights
print(
    f"Over all spots and types estimate and truth correlate with {scores['pearson']:.3f}; a proportion is off by "
    f"{scores['rmse']:.3f} (root mean square). {worst} is found worst ({per_type['pearson'][worst]:.3f}). The mean of "
    f"{off} is off most: {per_type['mean_truth'][off]:.3f} in truth, {per_type['mean_predicted'][off]:.3f} found. "
    f"A spot keeps {cells.nnz / cells.shape[0]:.0f} of {cells.shape[1]} reference cells on average."
)
