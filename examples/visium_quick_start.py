"""
Visium: a quick start
=====================

From the folder of Space Ranger to maps of the cell types, in four calls. The folder here is written from a simulated
tissue, in the format of Space Ranger.

Your own data: ``outs`` is the folder of your section (or the one around it), `adata_sc` your reference, an AnnData
of raw counts with the types in a column of ``obs``.
"""

import os
import sys
import tempfile
from pathlib import Path

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

tissue = sd.simulate(n_spots=200 if QUICK else 2000, n_genes=300 if QUICK else 800, n_types=6, kind="domains", seed=3)
section, adata_sc = tissue.to_anndata()
section.obsm["spatial"] *= 137.0  # pixels from spot to spot
temporary = tempfile.TemporaryDirectory()
outs = sd.io.write_visium(section, Path(temporary.name) / "outs")
print("\n".join(sorted(str(file.relative_to(outs)) for file in outs.rglob("*") if file.is_file())))

# %%
# Read. Counts, places and scale factors come as scanpy has them; ``uns["stdeconv_source"]`` tells what was found.

adata_st = sd.io.read(outs)
print(adata_st)
print(adata_st.uns["stdeconv_source"])

# %%
# Deconvolve. No normalisation and no choice of genes before: both need the raw counts.

sd.tl.deconvolve(adata_st, adata_sc, cell_type_key="celltype", progress=False)
proportions = adata_st.obsm["stdeconv"]
print(proportions.head().round(3).to_string())

# %%
# Check. Every spot has a status; a spot that the types explain badly has a high misfit with a small q-value.

print(adata_st.obs["stdeconv_status"].value_counts().to_string())
odd = (adata_st.obs["stdeconv_misfit_q"] < 0.05).sum()
print(f"{odd} of {adata_st.n_obs:,} spots fit worse than spots of like depth (q < 0.05)")

# %%
# Draw: one map a type on one scale.

axes = sd.pl.proportions(adata_st, ncols=3)
axes[0].figure.savefig("visium_quick_start.png", dpi=120)

# %%
# Keep: the AnnData with all that was found, and the proportions as a table.

sd.io.write(adata_st, Path(temporary.name) / "section.h5ad")
sd.io.write(adata_st, Path(temporary.name) / "proportions.csv")
temporary.cleanup()

# %%
# What it shows
# -------------
# Domains with sharp borders, each with a type that dominates it:

share = proportions.max(axis=1).median()
print(adata_st.obs["stdeconv_dominant"].value_counts().to_string())
print(
    f"The median spot has a share of {share:.0%} of its dominant type. Against the simulated truth the correlation is "
    f"{sd.evaluate(proportions, tissue.truth)['pearson']:.3f}."
)
