"""The TOML files of ``run``: what a run is asked for, read from a file and written beside its answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KINDS: dict[str, type] = {  # of the table [run]; spatial may be a list
    "spatial": str, "reference": str, "out": str, "out_dir": str, "csv": str, "cell_type_key": str, "no_counts": bool,
    "tiles": int, "spatial_key": str, "sample_key": str, "neighbors_key": str, "layer_st": str, "layer_sc": str,
}  # fmt: skip
PATHS = ("spatial", "reference", "out", "out_dir", "csv")
ON_THE_LINE = {"work": "--work", "resume": "--resume", "json": "--json", "quiet": "--quiet", "progress": "--quiet"}
WORDS = {str: "a text", bool: "true or false", int: "a whole number >= 1"}
ENDING = ".toml"


def read_recipe(path: str) -> dict[str, dict[str, Any]]:
    """The tables [run], [settings] and [made] of a file.

    Paths are taken from the folder of the file. The values of [settings] are left to `Settings`.

    Raises
    ------
    DataError
        No TOML, or keys or values of [run] that are not known; all faults in one message.
    """
    import tomllib
    from dataclasses import fields

    from ..errors import DataError
    from ..settings import Settings, raise_faults

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        raise DataError(f"--config must be a TOML file; got '{path}': there is no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"--config must be a TOML file; got '{path}': {fault}") from None

    known = {"run": list(KINDS), "settings": [f.name for f in fields(Settings) if f.name != "progress"], "made": None}
    faults: list[DataError] = []
    for table, values in found.items():
        if table not in known:
            faults.append(_unknown(path, "the file", "the tables", table, list(known)))
        elif not isinstance(values, dict):
            faults.append(DataError(f"'{path}' must hold the table [{table}]; got the value {values!r}."))
        elif known[table] is not None:
            there = known[table]
            faults += [_unknown(path, f"[{table}]", "the keys", n, there) for n in values if n not in there]
    run = found.get("run", {})
    if isinstance(run, dict):
        for name, value in run.items():
            if name in KINDS and not _fits(name, value):
                word = WORDS[KINDS[name]] + (" or a list of texts" if name == "spatial" else "")
                faults.append(DataError(f"'{path}' must hold {word} as {name} in [run]; got {value!r}."))
    raise_faults(faults, "config file")
    folder = Path(path).resolve().parent

    def place(text: str) -> str:
        return str(folder / text)

    for name in PATHS:
        if name in run:
            run[name] = [place(text) for text in run[name]] if isinstance(run[name], list) else place(run[name])
    return {table: dict(found.get(table, {})) for table in known}


def _fits(name: str, value: Any) -> bool:
    kind = KINDS[name]
    if name == "spatial" and isinstance(value, list):
        return bool(value) and all(isinstance(text, str) and text for text in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return isinstance(value, kind) and value != ""


def _unknown(path: str, where: str, what: str, name: str, known: list[str]) -> Exception:
    from difflib import get_close_matches

    from ..errors import DataError

    if name in ON_THE_LINE:
        remedy = f"Pass {ON_THE_LINE[name]} on the command line."
    else:
        close = get_close_matches(name, known, n=1, cutoff=0.6)
        remedy = f"Did you mean {close[0]!r}?" if close else "Leave it out."
    return DataError(f"'{path}' must hold in {where} {what} {', '.join(known)}; got {name!r}. {remedy}")


def recipe_path(out: str) -> str:
    """Where the settings of a run are written: beside its answer."""
    return f"{out.rstrip('/' + os.sep)}{ENDING}"


def write_recipe(path: Path, title: str, tables: dict[str, dict[str, Any]]) -> None:
    """Write tables as TOML; None is left out."""
    lines = [f"# {line}" for line in title.splitlines()]
    for table, values in tables.items():
        lines += ["", f"[{table}]"]
        lines += [f"{_key(name)} = {to_toml(value)}" for name, value in values.items() if value is not None]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key(name: str) -> str:
    return name if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) else to_toml(name)


def to_toml(value: Any) -> str:
    """A text, number, switch, list or mapping of such as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(str(name))} = {to_toml(v)}" for name, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
