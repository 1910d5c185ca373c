"""
On a GPU
========

``device="cuda"`` runs on the first NVIDIA GPU or says what is missing; it never falls back in silence.
``device="auto"``, the default, takes the GPU where there is one and the CPU otherwise, and tells which.

``pip install 'stdeconv-fast[cuda12]'`` (or ``[cuda13]``) brings what a GPU needs.

Your own data: any call of `stdeconv_fast` with ``device="cuda"``; on the command line ``--device cuda``.
"""

import os
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

tissue = sd.simulate(n_spots=500 if QUICK else 20_000, n_genes=200 if QUICK else 500, n_types=10, kind="bins", seed=7)
data = (tissue.spots, tissue.reference, tissue.coordinates, tissue.cell_types)

# %%
# On the CPU: with one thread and with all of them. The answer is the same to the last bit. A small run first compiles
# the kernels, so that what follows measures the work alone.

cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
sd.deconvolve(*sd.simulate(n_spots=100, kind="bins").to_anndata(), None, "celltype", device="cpu", progress=False)
runs = {}
for n_jobs in sorted({1, cores}):
    name = f"CPU, {n_jobs} thread{'s' * (n_jobs > 1)}"
    runs[name] = sd.deconvolve(*data, device="cpu", n_jobs=n_jobs, progress=False)
one, *others = runs.values()
print("equal bits with any number of threads:", all(run.proportions.equals(one.proportions) for run in others))

# %%
# On the GPU, where there is one. Where there is none, the message is all that there is to show.

try:
    sd.deconvolve(*data, device="cuda", progress=False)  # the first run on a device compiles
    runs["GPU"] = on_gpu = sd.deconvolve(*data, device="cuda", progress=False)
    difference = np.abs(on_gpu.proportions - one.proportions).max(axis=None)
    print(f"{on_gpu.diagnostics['device']}: proportions differ from those of the CPU by {difference:.1e} at most")
except sd.DeviceError as error:
    print(f"No run on a GPU here. DeviceError: {error}")

# %%
# What the default does:

chosen = sd.deconvolve(*data, progress=False)
print("device='auto' took:", chosen.diagnostics["device"])

# %%
# The figure
# ----------
# Seconds by stage, on this machine.

seconds = pd.DataFrame({name: run.seconds for name, run in runs.items()}).T.drop(columns="total")
stages = seconds.columns[(seconds > 0.01 * seconds.sum(axis=1).max()).any()]
seconds = seconds[stages].assign(rest=seconds.drop(columns=stages).sum(axis=1))
figure, ax = plt.subplots(figsize=(8, 1.6 + 0.5 * len(seconds)), layout="constrained")
left = np.zeros(len(seconds))
for stage, colour in zip(seconds, plt.get_cmap("cividis")(np.linspace(0, 1, seconds.shape[1])), strict=True):
    ax.barh(seconds.index, seconds[stage], left=left, color=colour, edgecolor="white", linewidth=0.5, label=stage)
    left += seconds[stage].to_numpy()
ax.invert_yaxis()
ax.set_xlabel("seconds")
ax.set_title(f"{len(tissue.truth):,} bins, {len(tissue.types)} types", fontsize=10)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig("on_a_gpu.png", dpi=120)

# %%
# What it shows
# -------------

for name, run in runs.items():
    print(f"{name}: {run.seconds['total']:.2f} s, {len(tissue.truth) / run.seconds['total']:,.0f} bins a second")
