"""
Quick start
===========

Cell-type proportions of a simulated tissue, by the class and by scanpy-like tools.

Your own data: tables, arrays, sparse matrices or AnnData of raw counts take the place of those of `tissue`.
"""

import os
import sys

import stdeconv_fast as sd

QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"

# %%
# A tissue whose composition is known: counts of spots and of reference cells, coordinates, labels.

tissue = sd.simulate(n_spots=300 if QUICK else 800, n_genes=400, n_types=8, seed=1)

# %%
# Tables in, table out.

model = sd.AttentionRegressionDeconv(
    tissue.reference_frame(), tissue.spatial_frame(), tissue.coordinate_frame(), tissue.label_series(),
    cell_level=False, progress=False,
)  # fmt: skip
proportions, seconds = model.run()
scores = model.evaluate(proportions, tissue.truth)
print(f"class: {seconds:.1f} s, Pearson {scores['pearson']:.3f}, RMSE {scores['rmse']:.3f}, JSD {scores['jsd']:.3f}")

# %%
# AnnData in, AnnData out.

adata_st, adata_sc = tissue.to_anndata()
sd.tl.deconvolve(adata_st, adata_sc, cell_type_key="celltype", progress=False)
print(f"tl:    largest difference to the class {abs(adata_st.obsm['stdeconv'] - proportions).max(axis=None):.1e}")
print(adata_st.obs["stdeconv_dominant"].value_counts().to_string())

# %%
# A map of each type.

axes = sd.pl.proportions(adata_st)
axes[0].figure.savefig("quick_start.png", dpi=120)
print("wrote quick_start.png")
