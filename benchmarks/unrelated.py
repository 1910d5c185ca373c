"""How well a reference foretells the counts of the spots, gene by gene: of its own tissue, and of none.

python benchmarks/unrelated.py --data FOLDER [--json FILE]

Every set of FOLDER (sc.h5ad, st.h5ad; labels in obs["celltype"], else in the first column of obs) as it is, and with
the names of the reference's genes permuted. Printed are the correlation of observed and expected counts over genes,
the platform log2 sd, and whether the warning of an unrelated reference came. The promises: it comes with no reference
of the spots' own tissue, and with every permuted one. The exit code is 1 where one is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import sets  # noqa: E402

SAID = "does not foretell the counts"


def look(spots, reference) -> dict:
    """The figures of one run without tuning."""
    import stdeconv_fast as sd

    labels = "celltype" if "celltype" in reference.obs else reference.obs.columns[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = sd.deconvolve(
            spots, reference, cell_types=labels, sections=sets.sections_of(spots), tune=False, lambda_spatial=0,
            progress=False,
        ).diagnostics  # fmt: skip
    return {
        "correlation": told["gene_correlation"], "platform_log2_sd": told["platform_log2_sd"],
        "warned": any(SAID in note for note in told["notes"]),
    }  # fmt: skip


def main() -> int:
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the sets; by default STDECONV_DATA")
    parser.add_argument("--json", help="write the figures")
    options = parser.parse_args()
    folder = sets.find_data(options.data)
    rows = []
    for home in sorted(path for path in folder.iterdir() if (path / "st.h5ad").exists()):
        spots, reference, _ = sets.load(folder, home.name)
        shared = spots.var_names.intersection(reference.var_names)
        permuted = reference[:, shared].copy()
        permuted.var_names = np.random.default_rng(0).permutation(shared)
        for kind, cells in (("own", reference), ("permuted", permuted)):
            rows.append({"set": home.name, "reference": kind, **look(spots, cells)})
            print("{set:22}{reference:10}{correlation:6.2f}{platform_log2_sd:6.2f}  {warned}".format(**rows[-1]))
    kinds = {kind: [row["warned"] for row in rows if row["reference"] == kind] for kind in ("own", "permuted")}
    promises = {
        f"no warning with a reference of the same tissue ({sum(kinds['own'])} of {len(kinds['own'])})":
            not any(kinds["own"]),
        f"a warning with every permuted one ({sum(kinds['permuted'])} of {len(kinds['permuted'])})":
            all(kinds["permuted"]),
    }  # fmt: skip
    for text, holds in promises.items():
        print(("ok     " if holds else "FAILED ") + text)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
