"""What a run is asked for: the command line, over the file of --config, over the defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .recipes import KINDS, read_recipe

OWN_OPTIONS = {
    "device": "--device", "n_jobs": "--n-jobs", "seed": "--seed", "cell_level": "--cell-level", "progress": "--quiet",
}  # fmt: skip
FLAGS = ("device", "n_jobs", "seed", "cell_level", "standard_errors", "detection", "unknown")  # that are settings


@dataclass(frozen=True)
class Request:
    """One run, or a batch of them.

    Attributes
    ----------
    spatial : tuple of str
    reference : str
    out, out_dir : str or None
        One of the two is given.
    run : dict
        The other keys of the table [run] (`recipes.KINDS`), None where not given.
    settings : dict
        Fields of `Settings` that were given.
    known_inputs : dict
        Fingerprints of the input, where the file of --config names both; else empty.
    """

    spatial: tuple[str, ...]
    reference: str
    out: str | None
    out_dir: str | None
    run: dict[str, Any]
    settings: dict[str, Any]
    known_inputs: dict[str, str]


def gather(options: dict[str, Any]) -> Request:
    """The request in the options of the current command.

    Raises
    ------
    UsageError
        Something that a run needs is given nowhere.
    DataError
        Settings or keys that are not known.
    """
    given = given_options(options)
    config = options["config"]
    recipe = read_recipe(config) if config else {"run": {}, "settings": {}, "made": {}}
    asked = recipe["run"]
    from_recipe = not options["files"] and "spatial" in asked and "reference" in asked
    if options["files"]:
        *spatial, reference = options["files"]
        if not spatial:
            raise click.UsageError("Missing argument 'REFERENCE'.")
        asked |= {"spatial": spatial, "reference": reference}
    if "out" in given or "out_dir" in given:  # then the file's places do not count, the table's neither
        for name in ("out", "out_dir", "csv"):
            asked.pop(name, None)
    asked |= {name: given[name] for name in KINDS if name in given}
    asked = {"spatial_key": "spatial", "no_counts": False, **asked}
    for name in ("spatial", "reference"):
        if name not in asked:
            raise click.UsageError(f"Missing argument '{name.upper()}'.")
    spatial = [asked["spatial"]] if isinstance(asked["spatial"], str) else list(asked["spatial"])
    out, out_dir = asked.get("out"), asked.get("out_dir")
    if out is None and out_dir is None:
        raise click.UsageError("Missing option '-o' / '--out', or '--out-dir' for a batch.")
    if out is not None and out_dir is not None:
        raise click.UsageError("'--out' and '--out-dir' exclude each other.")
    if len(spatial) > 1 and out_dir is None:
        raise click.UsageError("Several SPATIAL need '--out-dir' in the place of '--out'.")
    made = recipe["made"].get("inputs", {}) if from_recipe else {}
    return Request(
        tuple(spatial), asked["reference"], out, out_dir,
        {name: asked.get(name) for name in KINDS if name not in ("spatial", "reference", "out", "out_dir")},
        recipe["settings"] | gather_settings(options["values"], given),
        made if isinstance(made, dict) else {},
    )  # fmt: skip


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line."""
    from click.core import ParameterSource

    context = click.get_current_context()
    typed = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return {name: value for name, value in options.items() if context.get_parameter_source(name) in typed}


def gather_settings(values: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Settings from --set and from options of their own, which must not contradict each other."""
    from ..errors import DataError

    settings = parse_settings(values)
    for name in FLAGS:
        if name in given:
            if settings.get(name, given[name]) != given[name]:
                raise DataError(f"--set {name} must not contradict --{name.replace('_', '-')}; got both.")
            settings[name] = given[name]
    return settings


def parse_settings(values: tuple[str, ...], option: str = "--set", own: bool = True) -> dict[str, Any]:
    """Settings from NAME=VALUE, each read as what its default is; with `own` not those that have options."""
    from dataclasses import fields

    from ..errors import DataError
    from ..settings import Settings

    taken = OWN_OPTIONS if own else {}
    usual = {field.name: field.default for field in fields(Settings) if field.name not in taken}
    parsed: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name, text = name.strip(), text.strip()
        if not equals:
            raise DataError(f"{option} must be NAME=VALUE; got {value!r}.")
        if name in taken:
            raise DataError(f"{option} must name another setting; got {name!r}. Use {OWN_OPTIONS[name]}.")
        if name not in usual:
            raise DataError(f"{option} must name one of {', '.join(usual)}; got {name!r}.")
        parsed[name] = parse_value(name, text, usual[name], option)
    return parsed


def parse_value(name: str, text: str, usual: Any, option: str = "--set") -> Any:
    """A text as a value of the kind of `usual`."""
    from ..errors import DataError

    if isinstance(usual, bool):
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in known:
            raise DataError(f"{option} {name} must be true or false; got {text!r}.")
        return known[text.lower()]
    if isinstance(usual, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(usual, int | float) or name == "max_memory":
        kind = float if usual is None else type(usual)
        try:
            return kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise DataError(f"{option} {name} must be {word}; got {text!r}.") from None
    return text


def check_files(inputs: dict[str, str], outputs: dict[str, str | None]) -> None:
    """Inputs that are not there, outputs that would take the place of an input or of each other."""
    from ..errors import DataError
    from ..io.atomic import check_writable

    for name, file in inputs.items():
        demand_there(name, file)
    taken = {name: Path(file) for name, file in inputs.items()}
    for name, file in outputs.items():
        if file is None:
            continue
        demand_text(name, file)
        target = Path(file).resolve() if name == "--out" else check_writable(file, name)
        for other, path in taken.items():
            same = path.samefile(target) if path.exists() and target.exists() else path.resolve() == target
            if same:
                raise DataError(f"{name} must not be the same file as {other}; got '{file}'.")
        taken[name] = target


def demand_there(name: str, file: str) -> None:
    """A clear error where a file is missing."""
    from ..errors import DataError

    if not Path(file).exists():
        raise DataError(f"{name} must be a file or a folder; got '{file}': there is no such file.")
    demand_text(name, file)


def demand_text(name: str, file: str) -> None:
    """A clear error for a name that the file of the settings could not hold."""
    from ..errors import DataError

    try:
        os.path.abspath(file).encode()
    except UnicodeEncodeError:
        raise DataError(f"{name} must have a name in UTF-8; got {file!r}.") from None
