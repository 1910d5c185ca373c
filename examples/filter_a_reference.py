"""
Filtering the reference
=======================

The original program filters its reference: `auto_filter_genes` drops the genes with the highest variance,
`var_threshold` says how many; `auto_filter_cells` drops cells of unusual dispersion, `disp_threshold` says from how
many standard deviations on. `stdeconv_fast.filter_reference` is that filter. Does it help here? The tissue is
simulated, with doublets among the reference cells, so that the answer can be compared with a truth.

Your own data: any table of raw counts takes the place of `cells`; without a truth, compare held-out scores
(`sd.tune`).
"""

import os
import sys

import matplotlib.pyplot as plt
import pandas as pd

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# One tissue; every tenth cell of its reference is a doublet that is labelled as one of its two cells.

tissue = sd.simulate(n_spots=150 if QUICK else 1000, n_genes=300 if QUICK else 800, doublets=0.1, seed=4)
spots, cells = tissue.to_anndata()


def score(**filters):
    """Filter the reference, deconvolve, compare."""
    kept = sd.filter_reference(cells, "celltype", **filters)
    result = sd.deconvolve(spots, kept, None, "celltype", progress=False)
    pearson = sd.evaluate(result.proportions, tissue.truth)["pearson"]
    return {"genes": kept.n_vars, "cells": kept.n_obs, "pearson": pearson}


# %%
# Genes alone, by `var_threshold`, the share of the genes that goes; cells alone, by `disp_threshold`.

shares = (0.0, 0.1, 0.3) if QUICK else (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
genes = pd.DataFrame(
    [{"var_threshold": share, **score(var_threshold=share, auto_filter_cells=False)} for share in shares]
)
limits = (1.0, 3.0) if QUICK else (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
deviating = pd.DataFrame(
    [{"disp_threshold": limit, **score(disp_threshold=limit, auto_filter_genes=False)} for limit in limits]
)
both = score()  # the defaults: var_threshold=0.1, disp_threshold=3
print(genes.round(4).to_string(index=False))
print(deviating.round(4).to_string(index=False))
print("both, with the defaults:", {name: round(value, 4) for name, value in both.items()})

# %%
# The figure
# ----------

whole = genes["pearson"][0]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, table, name, label in (
    (axes[0], genes, "var_threshold", "var_threshold (share of genes left out)"),
    (axes[1], deviating, "disp_threshold", "disp_threshold (standard deviations)"),
):
    ax.axhline(whole, color="0.4", linestyle="--", label="whole reference")
    ax.plot(table[name], table["pearson"], color="#0072B2", marker="o", label="filtered")
    ax.set_xlabel(label)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("Pearson correlation with the truth")
axes[0].set_title("most variable genes left out", fontsize=10)
axes[1].set_title("cells of unusual dispersion left out", fontsize=10)
axes[1].legend(frameon=False)
figure.savefig("filter_a_reference.png", dpi=120)

# %%
# What it shows
# -------------
# Marker genes are variable: a gene that one type alone expresses has a high variance over all cells. A filter that
# drops the most variable genes drops markers.

last, strict, n_cells = genes.iloc[-1], deviating.iloc[0], len(tissue.cell_types)
print(
    f"Without the {last['var_threshold']:.0%} most variable genes the correlation goes from {whole:.3f} to "
    f"{last['pearson']:.3f}; with the defaults of both filters it is {both['pearson']:.3f}. The strictest "
    f"filter of cells drops {n_cells - int(strict['cells'])} of {n_cells}, for {strict['pearson'] - whole:+.3f}."
)
