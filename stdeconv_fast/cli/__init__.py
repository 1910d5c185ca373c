"""The command line: ``stdeconv-fast run`` and what stands around it."""

from __future__ import annotations

import click

from .console import EXIT_CODES
from .demo import demo
from .info import info
from .pages import write_report
from .run import run
from .scores import evaluate
from .searches import tune
from .tissues import simulate
from .validate import validate
from .warmup import warmup

COMPLETION = """\b
Shell completion, for ~/.bashrc (zsh_source for zsh, fish_source for fish):
  eval "$(_STDECONV_FAST_COMPLETE=bash_source stdeconv-fast)"
"""


def _show_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from .. import __version__

        click.echo(f"stdeconv-fast {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"{EXIT_CODES}\n\n{COMPLETION}")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Cell-type proportions of spatial transcriptomics spots from a single-cell reference."""


for command in (run, validate, tune, evaluate, write_report, simulate, demo, info, warmup):
    main.add_command(command)
