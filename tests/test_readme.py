"""README.md is true: its commands stand as promised, its tables are the measured ones, its snippets run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

import stdeconv_fast as sd

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tissue():
    return sd.simulate(120, 150, 4, counts_per_spot=800, seed=3)


def snippet(word: str) -> str:
    """The one Python block of the README that holds a word."""
    found = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in block]
    assert len(found) == 1, f"{len(found)} blocks hold {word}"
    return found[0]


@pytest.mark.parametrize("command", ["pip install . && stdeconv-fast demo", "pip install -e '.[test]' && pytest"])
def test_the_two_commands_stand_as_they_are(command):
    assert command in README


def test_the_tables_are_the_measured_ones():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "readme.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["frames", "arrays"])
def test_the_snippet_of_the_original_runs(tissue, kind):
    """Word for word, but for the prefix of the import."""
    names = {
        "frames": {
            "sc_data": tissue.reference_frame(), "st_data": tissue.spatial_frame(),
            "st_coordinates": tissue.coordinate_frame(), "celltype": tissue.label_series(), "truth": tissue.truth,
        },
        "arrays": {
            "sc_data": tissue.reference.toarray(), "st_data": tissue.spots.toarray(),
            "st_coordinates": tissue.coordinates, "celltype": tissue.cell_types,
            "truth": tissue.truth.to_numpy(),
        },
    }[kind]  # fmt: skip
    if kind == "arrays":  # without names the spots are spot_0 ..., and so must the truth's be
        names["truth"] = pd.DataFrame(
            names["truth"], index=[f"spot_{i}" for i in range(len(names["truth"]))], columns=tissue.truth.columns
        )
    exec(snippet("AttentionRegressionDeconv("), names)
    assert isinstance(names["proportions"], pd.DataFrame)
    assert names["proportions"].shape == tissue.truth.shape
    assert names["elapsed"] > 0
    assert list(names["scores"])[:6] == ["mse", "mae", "r2", "pearson", "spearman", "cosine"]
    assert names["scores"]["pearson"] > 0.8
    assert names["cells"].shape[0] == len(tissue.truth)


def test_the_scanpy_snippet_runs(tissue):
    spots, reference = tissue.to_anndata()
    reference.obs["cell_type"] = reference.obs["celltype"]
    exec(snippet("sd.pl.proportions(adata_st)"), {"adata_st": spots, "adata_sc": reference})
    assert spots.obsm["stdeconv"].shape == tissue.truth.shape


def test_the_lines_from_folder_to_figure_run(tissue, tmp_path, monkeypatch):
    """For real, where scanpy and squidpy are: they are no dependencies."""
    pytest.importorskip("scanpy", reason="needs pip install scanpy squidpy")
    pytest.importorskip("squidpy", reason="needs pip install scanpy squidpy")
    monkeypatch.chdir(tmp_path)
    spots, reference = tissue.to_anndata()
    reference.obs["cell_type"] = reference.obs["celltype"]
    reference.write_h5ad("reference.h5ad")
    sd.io.write_visium(spots, "outs")
    for name in ("hires", "lowres"):  # squidpy draws upon a picture
        imsave(f"outs/spatial/tissue_{name}_image.png", np.full((60, 60, 3), 0.9))
    block = snippet("import squidpy as sq")
    assert len([line for line in block.splitlines() if line.strip()]) == 10
    exec(block, {})
    assert (tmp_path / "pies.png").stat().st_size and list(tmp_path.rglob("types.png"))


def test_the_array_snippet_runs():
    names: dict = {}
    exec(snippet("result.proportions").replace("n_spots=1500", "n_spots=150"), names)
    assert names["result"].proportions.shape == (150, 8)
    assert (names["result"].status == "ok").all()
