"""Reading and writing files: `read` any platform's, `write` an answer, `add_aliases` under the names of other tools.

`write_visium` writes a folder of Space Ranger, for what reads such folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aliases import add_aliases
    from .outputs import write
    from .platforms import read
    from .space_ranger import write_visium

__all__ = ["add_aliases", "read", "write", "write_visium"]

_HOMES = {"add_aliases": "aliases", "read": "platforms", "write": "outputs", "write_visium": "space_ranger"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
