"""
Robustness to noise in the reference
====================================

Counts of the reference are disturbed upwards: to every count the number ``level * s * |z|`` is added, with s the
standard deviation of the gene over the cells and z drawn from the standard normal, as in the original's study, at
levels from 0 to 0.9. `stdeconv_fast.robustness` does it, here for this package and for what the original program
computes.

Your own data: the same call with your tables. Without `truth` it tells how far the answer moves from the
undisturbed one.
"""

import os
import sys

import matplotlib.pyplot as plt

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# The study. Another method is a function of two AnnData objects; `objective="original"` is the original's equations.

tissue = sd.simulate(n_spots=200 if QUICK else 800, n_genes=300 if QUICK else 600, n_types=8, seed=5)
spots, cells = tissue.to_anndata()


def original(spots, cells):
    return sd.deconvolve(spots, cells, None, "cell_type", objective="original", progress=False).proportions


levels = (0, 0.3, 0.6, 0.9) if QUICK else (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
table = sd.robustness(
    spots, cells, None, "celltype", kind="noise", levels=levels, repeats=1 if QUICK else 3, truth=tissue.truth,
    methods={"original's equations": original},
)  # fmt: skip

# %%
# The figure
# ----------
# Lines are means, bands go from the lowest to the highest of the draws of a level.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
sd.pl.robustness(table, metric="pearson", ax=axes[0])
sd.pl.robustness(table, metric="rmse", ax=axes[1])
axes[0].set_title("correlation with the truth (1 is perfect)", fontsize=10)
axes[1].set_title("error of a proportion (0 is perfect)", fontsize=10)
k = tissue.truth.shape[1]
constant = ((tissue.truth - 1 / k) ** 2).to_numpy().mean() ** 0.5
axes[1].axhline(constant, color="0.4", linestyle="--", label=f"1/{k} everywhere")
axes[1].set_ylim(bottom=0)
axes[1].legend(frameon=False, fontsize="small")
figure.savefig("robust_to_noise.png", dpi=120)

# %%
# What it shows
# -------------
# The noise of a gene is the same for all types: it puts one background under every profile. What a spot has more of
# stays visible (the correlation), how much more is told less and less well (the error). The dashed line is the error
# of an answer that says the same of every spot.

means = table.pivot_table(index="level", columns="method", values=["pearson", "rmse"])
print(means.round(3).to_string())
for method in table["method"].unique():
    first, last = means.xs(method, axis=1, level="method").iloc[[0, -1]].itertuples(index=False)
    print(
        f"{method}: correlation {first.pearson:.3f} without noise, {last.pearson:.3f} at level {levels[-1]:g}; error "
        f"{first.rmse:.3f} and {last.rmse:.3f} (the same of every spot: {constant:.3f})."
    )
