"""Tables of the benchmark pages, from the raw numbers in benchmarks/results/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import readme
from benchmarks.readme_trust import RESULTS


def _maker(name: str, make: Callable[[], str]) -> Callable[[], tuple[str, list[Path]]]:
    def made() -> tuple[str, list[Path]]:
        try:
            return make(), sorted(RESULTS.glob("*.json"))
        except FileNotFoundError as fault:
            return f"*Not measured yet: `benchmarks/results/{Path(fault.filename).name}` is missing.*", []

    return made


MAKERS = {f"measured_{name}": _maker(name, make) for name, make in readme.BLOCKS.items()}
