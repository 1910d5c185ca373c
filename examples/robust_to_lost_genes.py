"""
Robustness to lost genes
========================

How few genes are enough? A share of the genes is left out at random, from none to 90 %, as in the original's study;
what is lost at one level is lost at every higher one.

Your own data: the same call with your tables. Without `truth` it tells how far the answer moves from that with all
genes.
"""

import os
import sys

import matplotlib.pyplot as plt

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# The study, for usual spots and for shallow ones, whose few molecules get fewer with every gene.

levels = (0, 0.3, 0.6, 0.9) if QUICK else (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
tables = {}
for depth in (2000, 200):
    tissue = sd.simulate(
        n_spots=200 if QUICK else 800, n_genes=400 if QUICK else 600, n_types=8, counts_per_spot=depth, seed=6
    )
    tables[depth] = sd.robustness(
        tissue.spatial_frame(), tissue.reference_frame(), tissue.coordinate_frame(), tissue.label_series(),
        kind="gene_drop", levels=levels, repeats=1 if QUICK else 3, truth=tissue.truth,
        methods={"without smoothing": lambda spots, cells: sd.deconvolve(
            spots, cells, None, "cell_type", lambda_spatial=0, progress=False
        ).proportions},
    )  # fmt: skip

# %%
# The figure
# ----------
# Lines are means, bands go from the lowest to the highest of the draws of a level.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, (depth, table) in zip(axes, tables.items(), strict=True):
    sd.pl.robustness(table, ax=ax)
    ax.set_title(f"{depth:,} counts a spot", fontsize=10)
axes[0].set_ylabel("Pearson correlation with the truth")
axes[1].set_ylabel("")
figure.savefig("robust_to_lost_genes.png", dpi=120)

# %%
# What it shows
# -------------
# Types are told apart by their markers; which of them go is chance, and the band says how much hangs on it. The
# distance of the lines is what the neighbours of a spot add: they say of its composition what its own genes no longer
# do.

for depth, table in tables.items():
    means = table.pivot_table(index="level", columns="method", values="pearson")
    print(f"{depth:,} counts a spot\n{means.round(3).to_string()}")
    ours = means["stdeconv_fast"]
    print(
        f"With all genes the correlation is {ours.iloc[0]:.3f}; without {ours.index[-1]:.0%} of them it is "
        f"{ours.iloc[-1]:.3f}, and {means['without smoothing'].iloc[-1]:.3f} where nothing is smoothed.\n"
    )
