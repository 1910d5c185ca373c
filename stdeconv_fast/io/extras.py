"""Packages that are no dependencies of the core."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import DataError


def import_extra(module: str, need: str, remedy: str) -> Any:
    """A module of a package that may not be installed.

    Parameters
    ----------
    module : str
        Its whole name.
    need : str
        What needs it: the start of the message.
    remedy : str
        The command that installs it.

    Raises
    ------
    DataError
        It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as fault:
        package = module.partition(".")[0]
        raise DataError(f"{need} needs the package {package}; got: {fault}. Run: {remedy}") from fault
