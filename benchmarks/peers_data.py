"""Tissues that both tools are timed on, and how good the answers are: what peers.py has done in processes of its own.

python benchmarks/peers_data.py make FOLDER --n N --kind hd|visium     our own simulated tissue
python benchmarks/peers_data.py score OUT.h5ad FOLDER                  prints Pearson and RMSE as JSON
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FILES = ("st.h5ad", "sc.h5ad")
TRUTHS = ("truth.csv", "truth.npz")
LARGE = 150_000  # spots from which on the truth is no csv


def usual_simulator() -> Path | None:
    """simulate.py beside the checkout, where it is there."""
    path = ROOT.parent / "shared" / "tools" / "simulate.py"
    return path if path.exists() else None


def find_tissue(folder: Path, kind: str, n: int, simulator: Path | None) -> tuple[Path, str]:
    """The folder of a tissue, made where it is not there yet, and who made it.

    Parameters
    ----------
    folder : Path
        Tissues are kept here, each in KIND-N: st.h5ad, sc.h5ad (obs column "celltype"), truth.csv or truth.npz.
    kind : {"hd", "visium"}
    n : int
        Spots.
    simulator : Path, optional
        A script that is run as PATH OUT --n N --kind KIND; by default stdeconv_fast.simulate makes the tissue.
    """
    home = folder / f"{kind}-{n}"
    note = home / "made_by.txt"
    if all((home / name).exists() for name in FILES) and any((home / name).exists() for name in TRUTHS):
        return home, note.read_text().strip() if note.exists() else f"found as {home.name}, maker not noted"
    part = folder / f"{home.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    command = [sys.executable, str(simulator)] if simulator else [sys.executable, __file__, "make"]
    done = subprocess.run([*command, str(part), "--n", str(n), "--kind", kind], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the tissue could not be made: {' '.join(command)}\n{done.stderr}")
    maker = f"{simulator.name} --n {n} --kind {kind}" if simulator else f"stdeconv_fast.simulate, kind {kind}"
    (part / note.name).write_text(maker + "\n")
    shutil.rmtree(home, ignore_errors=True)
    part.rename(home)
    return home, maker


def make(folder: Path, n: int, kind: str) -> None:
    """Write a tissue of our own simulation in the same files as the simulator's."""
    import numpy as np

    from stdeconv_fast import simulate, tissue

    options = {"kind": "bins"}
    if kind == "visium":
        options = {"kind": "spots"} if "spots" in tissue.KINDS else {"kind": "gradients", "counts_per_spot": 5000}
    made = simulate(n, 3000, 20, **options)
    spots, reference = made.to_anndata()
    for table, name in ((spots, "st.h5ad"), (reference, "sc.h5ad")):
        table.X = table.X.astype(np.float32)
        table.write_h5ad(folder / name)
    truth = made.truth.astype(np.float32)
    if n > LARGE:
        index, columns = (np.array(list(labels)) for labels in (truth.index, truth.columns))
        np.savez(folder / "truth.npz", values=truth.to_numpy(), index=index, columns=columns)
    else:
        truth.round(5).to_csv(folder / "truth.csv")


def read_truth(folder: Path):
    """The true proportions of a tissue, spots by types."""
    import numpy as np
    import pandas as pd

    if (folder / "truth.npz").exists():
        with np.load(folder / "truth.npz", allow_pickle=False) as file:
            return pd.DataFrame(file["values"], file["index"].astype(str), file["columns"].astype(str))
    return pd.read_csv(folder / "truth.csv", index_col=0)


def score(out: Path, folder: Path) -> dict[str, float]:
    """Pearson and RMSE of the one table in obsm of a file against the truth."""
    import anndata as ad

    from stdeconv_fast import evaluate

    answer = ad.read_h5ad(out)
    (key,) = answer.obsm
    scores = evaluate(answer.obsm[key], read_truth(folder))
    return {name: float(scores[name]) for name in ("pearson", "rmse", "n_spots", "n_spots_left_out")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    making = tasks.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--n", type=int, required=True)
    making.add_argument("--kind", choices=["hd", "visium"], required=True)
    scoring = tasks.add_parser("score")
    scoring.add_argument("out", type=Path)
    scoring.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.task == "make":
        make(options.folder, options.n, options.kind)
    else:
        print(json.dumps(score(options.out, options.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
