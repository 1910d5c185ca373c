"""Messages in the words of the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from stdeconv_fast import Settings, cli
from stdeconv_fast.cli import words
from stdeconv_fast.cli.words import to_options

PACKAGE = Path(cli.__file__).parent.parent


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "adata_sc.obs must have the column 'type'; got 'celltype'. Pass cell_type_key='celltype'.",
            "REFERENCE.obs must have the column 'type'; got 'celltype'. Pass --cell-type-key 'celltype'.",
        ),
        ("`layer_st` must be the name of a layer; got 3.", "--layer-st must be the name of a layer; got 3."),
        ("Leave out layer_sc to use X.", "Leave out --layer-sc to use X."),
        (
            "spatial.obsm must have the key 'cell_type_key'; got 'spatial.X'. Pass spatial_key='spatial.X'.",
            "SPATIAL.obsm must have the key 'cell_type_key'; got 'spatial.X'. Pass --spatial-key 'spatial.X'.",
        ),
        (
            "got none of 'T cell', 'B' in 12 genes. Pass exclude_types=['T cell', 'B'].",
            "got none of 'T cell', 'B' in 12 genes. Pass --set \"exclude_types=T cell,B\".",
        ),
        ("Add it, or set unknown=True.", "Add it, or set --unknown."),
        ("allow: max_memory=3 runs it all the same.", "allow: --set max_memory=3 runs it all the same."),
        ("k_neighbors=60 is more than there are spots", "k_neighbors=60 is more than there are spots"),
        ("`phi` must be a number from 0 to 1; got 7", "`phi` must be a number from 0 to 1; got 7"),
        ("`spatial.X` must hold numbers; `reference` too", "SPATIAL.X must hold numbers; REFERENCE too"),
        ("spatial and reference must share 10 genes", "SPATIAL and REFERENCE must share 10 genes"),
        ("'a.toml' must hold in [run] the keys cell_type_key", "'a.toml' must hold in [run] the keys cell_type_key"),
        ("OUT lies in 'out/spatial.obs/x'; reference.h5ad", "OUT lies in 'out/spatial.obs/x'; reference.h5ad"),
    ],
)
def test_messages(message, said):
    assert to_options(message) == said


def test_every_option_that_is_named_is_there():
    there = {option for command in cli.main.commands.values() for p in command.params for option in p.opts}
    assert set(words.OPTIONS.values()) <= there
    switches = {name for name in words.SWITCHES if name != "resume"}
    assert switches <= {field.name for field in fields(Settings)}


def test_every_command_tells_its_exit_codes_and_how_to_complete():
    assert "Shell completion" in CliRunner().invoke(cli.main, ["--help"]).output
    for name in cli.main.commands:
        shown = " ".join(CliRunner().invoke(cli.main, [name, "--help"]).output.split())
        assert "Exit codes: 0 done" in shown, name


def test_the_shell_gets_its_completions():
    code = "from stdeconv_fast.cli import main; main(prog_name='stdeconv-fast')"
    asked = {"_STDECONV_FAST_COMPLETE": "bash_complete", "COMP_WORDS": "stdeconv-fast re", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE.parent), **asked}, capture_output=True, text=True
    )
    assert re.findall(r"plain,(\S+)", done.stdout) == ["report"]
