"""The page of the command line, from click."""

from __future__ import annotations

from pathlib import Path

import click

import stdeconv_fast.cli as cli

WIDTH = 96
SOURCES = sorted(Path(cli.__file__).parent.glob("*.py"))


def whole_group() -> tuple[str, list[Path]]:
    """What ``stdeconv-fast --help`` says."""
    return _shown(cli.main, _context(cli.main, "stdeconv-fast")), SOURCES


def each_command() -> tuple[str, list[Path]]:
    """What each command says with --help, under a heading of its own."""
    group = _context(cli.main, "stdeconv-fast")
    parts = []
    for name in cli.main.list_commands(group):
        command = cli.main.get_command(group, name)
        parts.append(f"## {name}\n\n{_shown(command, _context(command, name, group))}")
    return "\n\n".join(parts), SOURCES


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH)


def _shown(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```"


MAKERS = {"command_group": whole_group, "commands": each_command}
