"""What a result was made from and by: fingerprints of the input, versions of the packages."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ..parcels import Inputs
from ..stages.reference import Profiles
from ..work_folder import digest

PACKAGES = ("stdeconv-fast", "numpy", "scipy", "pandas", "numba", "anndata")


def trace(inputs: Inputs, profiles: Profiles, totals: np.ndarray, gene_totals: np.ndarray) -> dict[str, dict[str, str]]:
    """Where a result comes from, as `Result.provenance` holds it.

    Parameters
    ----------
    inputs : Inputs
    profiles : Profiles
    totals : (n_used,) float
        Counts of the usable spots over the genes used.
    gene_totals : (n_shared,) float64
        Counts of the shared genes over the usable spots.

    Notes
    -----
    Counts are told by their sums over rows and columns, which are at hand: a fingerprint costs no pass over the data.
    It is the same for a reference in any form and for counts in memory or on disk.
    """
    found = {
        "spots": digest(totals.astype(np.float64), gene_totals, _joined(inputs.spot_names), _joined(inputs.genes)),
        "coordinates": digest(np.asarray(inputs.coordinates, dtype=np.float64)),
        "sections": digest(inputs.sections, *inputs.section_names),
        "reference": digest(
            profiles.means, profiles.gene_totals, profiles.cell_totals, inputs.cell_types, *inputs.types
        ),
    }
    if inputs.links is not None:
        found["neighbors"] = digest(inputs.links.indptr.astype(np.int64), inputs.links.indices.astype(np.int64))
    return {"inputs": found, "versions": {"python": platform.python_version()} | {n: _version(n) for n in PACKAGES}}


def _joined(names: np.ndarray) -> str:
    return "\n".join(names.tolist())


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
