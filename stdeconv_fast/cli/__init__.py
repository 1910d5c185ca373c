"""The command line: ``stdeconv-fast demo``, ``stdeconv-fast run`` and ``stdeconv-fast warmup``."""

from __future__ import annotations

import click

from .demo import demo
from .run import run
from .warmup import warmup


def _show_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from .. import __version__

        click.echo(f"stdeconv-fast {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Cell-type proportions of spatial transcriptomics spots from a single-cell reference."""


main.add_command(demo)
main.add_command(run)
main.add_command(warmup)
