"""Counts that go up by blocks while the first solve runs, on the stand-in, in a process of its own.

python -m tests.cuda_shim.first_solve: reads a JSON list of (old, new) from its input, or null in the place of one, and
prints for each what was found with `uploads.py` so changed: what raised or differs for any order of the copies
("told"), and what happened in what order where every copy was as late as it may be ("log").
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from stdeconv_fast import backend, uploads
from stdeconv_fast.parcels import Counts, Reference
from stdeconv_fast.procedures.pieces import Whole
from stdeconv_fast.stages import reference, solve_types

from . import stand_in
from .stand_in import StandIn
from .streams import TRAFFIC
from .whole_run import stand_in_card

BLOCK, UPLOAD = 1024, 4096  # bytes: 128 entries a block; what is larger than UPLOAD goes by blocks
ORDERS = (None, 1, 2, 3)  # seeds of what copies are done early
N_SPOTS, N_GENES, N_TYPES = 120, 60, 4


def make_counts(data: type = np.uint16, dtype: type = np.float32) -> Counts:
    """Counts with empty spots at both ends and in the middle."""
    rng = np.random.default_rng(5)
    dense = rng.poisson(rng.gamma(0.6, 2.0, N_GENES), (N_SPOTS, N_GENES))
    dense[[0, 1, 40, 41, N_SPOTS - 2, N_SPOTS - 1]] = 0
    rows, genes = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N_SPOTS))]).astype(np.int64)
    return Counts(indptr, genes.astype(np.uint16), dense[rows, genes].astype(data), dense.sum(1).astype(dtype), N_GENES)


def make_reference() -> Reference:
    rng = np.random.default_rng(6)
    profiles = rng.gamma(0.5, 1.0, (N_TYPES, N_GENES)) + 1e-3
    profiles /= profiles.sum(axis=1, keepdims=True)
    ones = np.ones(N_GENES)
    return Reference(profiles, ones, ones, np.arange(N_GENES), np.ones(N_TYPES), 0.0, "none")


def find(counts: Counts) -> list[np.ndarray]:
    """What a device makes of counts: of each a first use, just after they were placed, and a second one."""
    known, found = make_reference(), []
    with backend.hold_device("cuda", 1) as device:
        pieces = Whole(counts, device)
        pieces.pose(known, "poisson")
        abundances = pieces.solve_alone(1.0, 0.2)
        found += device.fetch((abundances, pieces.held(None).indices, pieces.held(None).data))
    with backend.hold_device("cuda", 1) as device:  # a kernel that needs all of them
        start = device.place(found[0] + np.float32(0.01))
        for _ in range(2):
            found.append(reference.weigh_genes(known, device.place(counts), start, device).gene_weights)
    with backend.hold_device("cuda", 1) as device:  # operations and plain copies
        held = device.place(counts)
        found += [device.fetch(held.data[3:70]), device.fetch(held).indices, device.fetch(device.place(counts.data))]
    with backend.hold_device("cuda", 1) as device:  # counts that nothing uses
        for _ in range(3):
            device.place(solve_types.pose(counts, known, "poisson"))
    return found


def told(right: list[np.ndarray], counts: Counts) -> tuple[str | None, list[tuple]]:
    """What raises or differs for any order of the copies, and the log of the latest order."""
    first: list[tuple] = []
    for seed in ORDERS:
        TRAFFIC.reset()
        TRAFFIC.lots = None if seed is None else random.Random(seed)
        said = None
        try:
            for number, (one, other) in enumerate(zip(find(counts), right, strict=True)):
                if one.dtype != other.dtype or one.tobytes() != other.tobytes():
                    said = said or f"result {number} differs"
            TRAFFIC.check()
            if TRAFFIC.pending():
                said = said or "copies are under way at the end"
        except Exception as error:  # whatever a fault brings about
            said = f"{type(error).__name__}: {error}"
        first = first or list(TRAFFIC.log)
        if said is not None:
            return said, first
    return None, first


def change_uploads(change: tuple[str, str] | None) -> None:
    """Let the device use `uploads.py`, changed."""
    text = Path(uploads.__file__).read_text(encoding="utf-8")
    if change is not None:
        assert text.count(change[0]) == 1, f"{change[0]!r} is {text.count(change[0])} times in uploads.py"
        text = text.replace(*change)
    module = ModuleType("stdeconv_fast.uploads")
    sys.modules[module.__name__] = module
    exec(compile(text, uploads.__file__, "exec"), module.__dict__)
    module.BLOCK = BLOCK
    backend.Uploads, backend.OnItsWay, backend.landed = module.Uploads, module.OnItsWay, module.landed


def main() -> None:
    backend.find_card = stand_in_card
    StandIn.seed = 0
    stand_in.FILL = 0  # what was not even sent is read as gene 0: a fault ends in wrong numbers, not in a crash
    answers = []
    changes = json.load(sys.stdin)
    kinds = [(np.uint16, np.float32), (np.float64, np.float64)]
    backend.UPLOAD = 1 << 40
    whole = [(make_counts(*kind), find(make_counts(*kind))) for kind in kinds]
    backend.UPLOAD = UPLOAD
    for change in changes:
        change_uploads(change)
        found = [told(right, counts) for counts, right in whole]
        answers.append({"told": [said for said, _ in found], "log": found[0][1]})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
