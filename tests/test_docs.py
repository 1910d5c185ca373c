"""The pages in docs/ are true: their code runs, their numbers are those of the code, every warning is explained.

That they build without a warning is held by .ci/run, which has what the build needs.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import stdeconv_fast as sd

ROOT = Path(__file__).resolve().parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "stdeconv_fast"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("coming/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]
WORDS = 3  # pieces of a message with fewer words tell nothing


@pytest.fixture(scope="module")
def faces():
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield importlib.import_module("faces")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_runs(page, tmp_path, monkeypatch):
    """Block after block as one script; the names of a page are its own."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), names)
    assert names.keys() & {"sd", "model"}, "no block of the page uses the package"


# -- warnings --------------------------------------------------------------------------------------------------------


def pieces(node: ast.AST) -> list[str]:
    """What is fixed in a message: the text between the values that are filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [value.value for value in node.values if isinstance(value, ast.Constant)]
    return []


def messages(path: Path) -> list[tuple[int, str]]:
    """(line, piece) of every warning and note that a module gives."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    given = [n for n in ast.walk(tree) if isinstance(n, ast.Assign | ast.AugAssign)]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        texts: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            called, of = node.func.attr, ast.unparse(node.func.value)
            ours = called == "warn" and len(node.args) > 1 and ast.unparse(node.args[1]) == "DataWarning"
            if ours or called == "note" or (called == "append" and of == "notes"):
                texts = [node.args[0]]
                if isinstance(node.args[0], ast.Name):  # made above
                    name = node.args[0].id
                    texts = [one.value for one in given if name in (ast.unparse(t) for t in targets(one))]
        elif isinstance(node, ast.FunctionDef) and node.name == "warn_of":  # gives the text to who warns
            texts = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value]
        found += [(node.lineno, piece) for text in texts for piece in pieces(text)]
    return found


def targets(node: ast.Assign | ast.AugAssign) -> list[ast.AST]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def test_every_warning_is_explained():
    page = " ".join((DOCS / "diagnostics.md").read_text(encoding="utf-8").split())
    missing, seen = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, piece in messages(path) if "kernels" not in path.parts else ():
            words = " ".join(piece.split())
            if len(words.split()) >= WORDS:
                seen += 1
                if words not in page:
                    missing.append(f"{path.relative_to(ROOT)}:{line}: {words!r}")
    assert seen > 15, "the search for warnings finds too few: mend it"
    assert not missing, "docs/diagnostics.md must explain every warning; it lacks\n" + "\n".join(missing)


# -- numbers ---------------------------------------------------------------------------------------------------------

NUMBERS = {
    "stages.reference": {
        "PANEL": "at most {} shared genes", "MARKER_LN_FOLD": "> {} \\quad", "FLOOR": "{}\\, \\frac1K",
        "GENES_PER_TYPE": "Where fewer than {} genes a type pass", "SEEN": "with }} Y_g > {}\n",
        "STRONG_PLATFORM": "is at least {} and",
    },
    "procedures.passes": {
        "SETTLED": "by more\nthan {}", "BLOCK_COUNTS": "blocks of neighbouring spots of about {} counts",
        "JOINT_SPOTS": "patches of {} spots",
    },
    "procedures.strengths": {"FIXED": "$\\lambda_s$ is {} counts times", "PHIS": "through {} until"},
    "procedures.missing": {"MODEL_ERROR": "(1 + {}\\, n \\bar m_g)", "LEARNT_SPOTS": "over at most {} spots"},
    "stages.refine_cells": {
        "LINKS": "({} nearest by square roots", "SOFT": "\\rho = {} \\kappa$", "LEAST_SHARE": "less than {} of a spot",
        "LEAST_WEIGHT": "weights below {} are dropped", "FIRST_SWEEPS": "{} sweeps without neighbours",
        "SWEEPS": "then {} with them", "LEAST_GENE": "least {} of the mean over genes",
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_numbers_of_the_model_page_are_those_of_the_code(module):
    page = (DOCS / "model.md").read_text(encoding="utf-8")
    code = importlib.import_module(f"stdeconv_fast.{module}")
    for name, text in NUMBERS[module].items():
        value = getattr(code, name)
        number = f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        if isinstance(value, tuple):
            number = ", ".join(f"{one:g}" for one in sorted(value, reverse=True))
        assert text.format(number) in page, f"{name} is {value}: mend docs/model.md"


def test_the_ladder_and_the_share_are_those_of_the_code():
    page = (DOCS / "model.md").read_text(encoding="utf-8")
    code = importlib.import_module("stdeconv_fast.procedures.strengths")
    assert f"the ladder {', '.join(f'{step:g}' for step in code.PATH)}, then" in page
    assert f"fitting part ({code.SHARE:.0%}".replace("%", " %") in page


def test_ranges_of_the_settings_are_those_that_are_checked():
    """The table of the settings shows the docstring's ranges: a value just outside is refused, the bound is taken."""
    told = dict(re.findall(r"^    ([a-z_, ]+) : (.*)$", sd.Settings.__doc__, re.MULTILINE))
    assert set(told) == {field.name for field in fields(sd.Settings)}
    for name, kind in told.items():
        if found := re.fullmatch(r"(?:int|float) >= (\d+)", kind):
            low = int(found[1])
            outside = [low - 1] if kind.startswith("int") else [low - 0.001]
        elif found := re.fullmatch(r"float in \[(\d+), (\d+)\]", kind):
            low, outside = float(found[1]), [float(found[1]) - 0.001, float(found[2]) + 0.001]
            sd.Settings(**{name: float(found[2])})
        else:
            continue
        sd.Settings(**{name: low})
        for value in outside:
            with pytest.raises(sd.DataError, match=f"`{name}` must"):
                sd.Settings(**{name: value})
    for name, kind in told.items():
        for option in re.findall(r'"([a-z0-9]+)"', kind):
            sd.Settings(**{name: option})


def test_every_table_of_the_readme_is_on_a_page():
    readme = importlib.import_module("benchmarks.readme")
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [name for name in readme.BLOCKS if f"{{made}} measured_{name}\n" not in text]


def test_every_public_name_has_a_page(faces):
    listed = {name for *_, names in faces.groups().values() for name in names}
    for name in sd.__all__:
        value = getattr(sd, name)
        if isinstance(value, ModuleType):
            assert {f"stdeconv_fast.{name}.{one}" for one in faces.functions_of(value)} <= listed
        elif not name.startswith("_"):
            assert f"stdeconv_fast.{name}" in listed
    assert {"stdeconv_fast.tl.deconvolve", "stdeconv_fast.pl.proportions", "stdeconv_fast.io.read"} <= listed
    assert all(name.rpartition(".")[2][0] != "_" for name in listed)
