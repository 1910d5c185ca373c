"""The scripts in examples/ have the form that the gallery of the documentation, which runs them all, asks for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
SWITCH = 'QUICK = "--quick" in sys.argv or os.environ.get("STDECONV_QUICK") == "1"'
WANTED = {
    "quick_start", "running_example", "filter_a_reference", "tune_settings", "robust_to_noise", "robust_to_lost_genes",
    "visium_quick_start", "visium_hd", "several_sections", "own_arrays", "on_a_gpu",
}  # fmt: skip


def test_every_study_has_its_script():
    assert {script.stem for script in SCRIPTS} == WANTED


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_form(script):
    text = script.read_text(encoding="utf-8")
    tree = ast.parse(text)
    _, title, rule, *told = ast.get_docstring(tree, clean=False).splitlines()
    assert title and set(rule) == {"="} and len(rule) >= len(title)
    assert any(line.startswith("Your own data: ") for line in told)
    assert len(text.splitlines()) <= 100
    assert len(re.findall(r"^# %%", text, re.MULTILINE)) >= 3
    for heading, rule in re.findall(r"^# (.+)\n# (-{3,})$", text, re.MULTILINE):
        assert len(rule) >= len(heading), heading
    assert f'savefig("{script.stem}.png"' in text
    assert script.stem == "quick_start" or "# What it shows\n" in text
    imported = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    assert not {"benchmarks", "tests"} & imported


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_quick_mode_is_asked_for_and_used(script):
    text = script.read_text(encoding="utf-8")
    assert SWITCH in text and text.count("QUICK") >= 3  # the line itself names it twice
    assert "argv" not in text.replace(SWITCH, "")
