"""The examples as pages: which scripts, in which order, run where."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

ORDER = (
    "quick_start", "running_example", "visium_quick_start", "visium_hd", "several_sections", "own_arrays",
    "filter_a_reference", "tune_settings", "robust_to_noise", "robust_to_lost_genes", "on_a_gpu",
)  # fmt: skip
TITLE = re.compile(r'\s*(?:#.*\n)*r?"""\s*\S.*\n([=~#*-])\1{2,}\n')

_copies = tempfile.TemporaryDirectory(prefix="stdeconv_fast-examples-")  # goes with the process


def has_title(path: Path) -> bool:
    """Whether a script begins with a docstring whose first line is a title in reST."""
    return TITLE.match(path.read_text(encoding="utf-8")) is not None


class InOrder:
    """Sort key: the place in ORDER, then the name."""

    def __init__(self, source_folder: str) -> None:
        self.source_folder = source_folder

    def __call__(self, name: str) -> tuple[int, str]:
        stem = Path(name).stem
        return ORDER.index(stem) if stem in ORDER else len(ORDER), stem

    def __repr__(self) -> str:  # part of the configuration: no address in it
        return "InOrder"


def settings(examples: Path, docs: Path) -> dict[str, Any]:
    """The settings of sphinx-gallery; the scripts are copied, so that what they write stays out of the repository."""
    folder = Path(_copies.name) / "examples"
    folder.mkdir()
    for path in sorted(examples.glob("*.py")):
        if has_title(path):
            shutil.copy(path, folder)
    shutil.copy(docs / "gallery_header.rst", folder / "GALLERY_HEADER.rst")
    return {
        "examples_dirs": str(folder),
        "gallery_dirs": "gallery",
        "filename_pattern": r"\.py$",
        "within_subsection_order": InOrder,
        "abort_on_example_error": True,
        "capture_repr": ("_repr_html_", "__repr__"),
        "matplotlib_animations": False,
        "download_all_examples": False,
        "remove_config_comments": True,
        "show_memory": False,
        "show_signature": False,
        "reset_modules": ("matplotlib",),
        "min_reported_time": 1,
        "write_computation_times": False,
    }
