"""The page of the command line, from click."""

from __future__ import annotations

from pathlib import Path

import click

import stdeconv_fast.cli as cli

SOURCES = sorted(Path(cli.__file__).parent.glob("*.py"))


def command_line() -> tuple[str, list[Path]]:
    """What each command says with --help, at a width that fits the page."""
    group = cli.main
    context = click.Context(group, info_name="stdeconv-fast", max_content_width=96, terminal_width=96)
    parts = [_shown(group, context)]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inside = click.Context(command, info_name=name, parent=context, max_content_width=96, terminal_width=96)
        parts.append(f"## {name}\n\n{command.get_short_help_str(limit=200)}\n\n{_shown(command, inside)}")
    return "\n\n".join(parts), SOURCES


def _shown(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```"


MAKERS = {"commands": command_line}
