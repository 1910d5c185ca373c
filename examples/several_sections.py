"""
Several sections
================

Sections of one study share their cell types, the technology and often how smooth the tissue is. Solved together they
share what is estimated of these; spots of different sections are never neighbours, whatever their coordinates.

Your own data: ``anndata.concat({"A": a, "B": b}, label="section")`` makes one table of several, names included.
"""

import os
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# Three sections with the same types. Each has its own origin, as files of different slides have: the coordinates of
# the three lie on top of each other.

tissue = sd.simulate(
    n_spots=300 if QUICK else 2400, n_genes=300, n_types=6, kind="domains", n_sections=3, counts_per_spot=300, seed=8
)
adata, cells = tissue.to_anndata()
print(adata.obs["section"].value_counts().to_string())

# %%
# Together, with the column that tells the sections apart.

sd.tl.deconvolve(adata, cells, cell_type_key="celltype", sample_key="section", progress=False)
together = adata.obsm["stdeconv"]

# %%
# One after the other, the reference read and summed once.

built = sd.build_reference(cells, "celltype")
parts = []
for section in adata.obs["section"].cat.categories:
    one = adata[adata.obs["section"] == section].copy()
    sd.tl.deconvolve(one, built, progress=False)
    parts.append(one.obsm["stdeconv"])
alone = pd.concat(parts)

# %%
# And the mistake: all spots as one section. Spots of different sections become neighbours and are smoothed together;
# a warning says so where coordinates occur twice.

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    mixed = sd.tl.deconvolve(adata, built, copy=True, progress=False).obsm["stdeconv"]
print("warning:", told[0].message)

# %%
# The figure
# ----------

ways = {"together": together, "one by one": alone, "sections not told": mixed}
scores = pd.DataFrame({
    way: {
        section: sd.evaluate(found.loc[rows], tissue.truth.loc[rows])["pearson"]
        for section, rows in adata.obs.groupby("section", observed=True).groups.items()
    }
    for way, found in ways.items()
})  # fmt: skip
figure, (maps, dots) = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained", width_ratios=[2.2, 1])
sd.pl.dominant(adata, sections="section", ax=maps)
for k, (way, colour, mark) in enumerate(zip(scores, ("#0072B2", "#E69F00", "#D55E00"), "os^", strict=True)):
    at = np.arange(len(scores)) + 0.15 * (k - 1)
    dots.plot(at, scores[way], color=colour, marker=mark, linestyle="", markersize=8, label=way)
dots.set_xticks(np.arange(len(scores)), scores.index)
dots.margins(x=0.2)
dots.set_ylabel("Pearson correlation with the truth")
dots.spines[["top", "right"]].set_visible(False)
dots.legend(frameon=False)
figure.savefig("several_sections.png", dpi=120)

# %%
# What it shows
# -------------

print(scores.round(3).to_string())
mean = scores.mean()
print(
    f"Mean correlation: {mean['together']:.3f} together, {mean['one by one']:.3f} one by one, "
    f"{mean['sections not told']:.3f} where the sections were not told apart. The largest difference of a proportion "
    f"between the first two is {(together - alone.loc[together.index]).abs().max(axis=None):.2f}."
)
