"""
Tuning the settings
===================

`sd.tune` tries settings and scores each without a truth: a fifth of the molecules of every spot is held out, the
rest is deconvolved, and the settings that predict the held-out molecules best are best. The five settings of the
original study are searched at random, the trials side by side by joblib.

Your own data: ``sd.tl.tune(adata_st, adata_sc, grid, cell_type_key="cell_type")``, or arrays as in `sd.deconvolve`.
"""

import os
import sys

import joblib
import matplotlib.pyplot as plt
from scipy.stats import loguniform, uniform

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# Shallow counts, where settings matter most.

tissue = sd.simulate(
    n_spots=150 if QUICK else 600, n_genes=200 if QUICK else 400, n_types=6, counts_per_spot=200, seed=2
)
data = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)

# %%
# The search. A list is drawn from evenly, whatever has a ``ppf`` by its distribution. With ``tune=False`` the values
# are used as given; `lambda_spatial` multiplies a strength of 20 counts then. ``cell_level=True``, as `lambda_cell`
# acts there. Trials run in the threads, processes or cluster that `joblib.parallel_config` names.

grid = {
    "phi": uniform(0.5, 0.5),
    "lambda_cell": loguniform(0.01, 100),
    "lambda_spatial": loguniform(0.01, 100),
    "lambda_ridge": loguniform(0.01, 100),
    "k_neighbors": [4, 6, 8, 12],
}
with joblib.parallel_config(backend="threading", n_jobs=-1):
    tuning = sd.tune(
        *data, grid=grid, n_trials=8 if QUICK else 60, tune=False, cell_level=True, max_cells_per_type=30, seed=0
    )
print(tuning)
print(tuning.table.nlargest(5, "score").round(4).drop(columns="note").to_string(index=False))

# %%
# Was the choice right? The truth is known here, so the best settings are compared with the worst of the search and
# with the defaults, which choose their own smoothing.


def pearson(**settings):
    result = sd.deconvolve(*data, cell_level=True, max_cells_per_type=30, progress=False, **settings)
    return sd.evaluate(result.proportions.to_numpy(), tissue.truth.to_numpy())["pearson"]


bad = tuning.table.loc[tuning.table["score"].idxmin(), list(grid)].to_dict()
bad["k_neighbors"] = int(bad["k_neighbors"])
found = {"worst": pearson(tune=False, **bad), "defaults": pearson(), "best": pearson(tune=False, **tuning.best)}
print({name: round(value, 3) for name, value in found.items()})

# %%
# The figure
# ----------
# The score of every trial against each setting.

figure, axes = plt.subplots(1, 5, figsize=(13, 3.2), layout="constrained", sharey=True)
for ax, name in zip(axes, grid, strict=True):
    ax.scatter(tuning.table[name], tuning.table["score"], s=18, color="#0072B2")
    ax.scatter(tuning.best[name], tuning.table["score"].max(), s=70, marker="*", color="#D55E00", label="best")
    ax.set_xscale("log" if name.startswith("lambda") else "linear")
    ax.set_xlabel(name)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("held-out score (nats a count)")
axes[0].legend(frameon=False)
figure.suptitle(f"{len(tuning.table)} random trials")
figure.savefig("tune_settings.png", dpi=120)

# %%
# What it shows
# -------------
# A setting matters where its cloud has a slope. The rank correlation of each setting with the score says so in a
# number (a strength that is best in the middle has a low one, although it matters).

ranks = tuning.table[[*grid, "score"]].astype(float).rank().corr()["score"].drop("score")
most = ranks.abs().idxmax()
print(ranks.round(2).to_string())
print(
    f"{most} goes with the score most ({ranks[most]:+.2f}). The best settings reach a correlation with the truth of "
    f"{found['best']:.3f}, the worst of the search {found['worst']:.3f}, the defaults {found['defaults']:.3f}."
)
