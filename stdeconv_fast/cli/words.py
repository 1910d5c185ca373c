"""Says in the words of the command line what the package says in those of Python."""

from __future__ import annotations

import re

OPTIONS = {
    "cell_type_key": "--cell-type-key", "sample_key": "--sample-key", "spatial_key": "--spatial-key",
    "layer_st": "--layer-st", "layer_sc": "--layer-sc", "neighbors_key": "--neighbors-key",
    "neighbors": "--neighbors-key", "cell_types": "--cell-type-key", "sections": "--sample-key", "tiles": "--tiles",
    "work_folder": "--work", "resume": "--resume", "n_jobs": "--n-jobs", "device": "--device", "seed": "--seed",
    "cell_level": "--cell-level", "standard_errors": "--standard-errors", "detection": "--detection",
    "unknown": "--unknown", "n_trials": "--n-trials", "jobs": "--jobs", "score": "--score", "grid": "--grid",
    "out": "--out",
}  # fmt: skip
SWITCHES = ("cell_level", "standard_errors", "detection", "unknown", "resume")
WORDS = ("cell_type_key", "sample_key", "spatial_key", "layer_st", "layer_sc", "neighbors_key", "work_folder")
TABLES = {
    "spatial": "SPATIAL", "reference": "REFERENCE", "adata_st": "SPATIAL", "adata_sc": "REFERENCE", "answer": "OUT",
    "adata": "OUT",
}  # fmt: skip
OF_A_CONFIG = ("[run]", "[settings]", "--config")
QUOTED = re.compile(r"('(?:[^'\\\n]|\\.)*')")
NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
PLACES = r"(?=\.(?:X|obs|obsm|obsp|layers|var|uns)\b)"


def to_options(message: str) -> str:
    """A message with options for keywords, and SPATIAL and REFERENCE for the tables.

    Parameters
    ----------
    message : str
        Of the package: "`cell_type_key` must be ...", "Pass sample_key='section'.", "spatial.X must be ...".

    Returns
    -------
    str
        What stands in quotes is as it was: it is the user's. Messages about a file of settings are as they were, too:
        there the keywords are its keys.
    """
    if any(word in message for word in OF_A_CONFIG):
        return message
    message = re.sub(
        r"\bexclude_types=\[([^\]\n]*)\]", lambda found: f'--set "exclude_types={_bare(found[1])}"', message
    )
    parts = QUOTED.split(message)
    return "".join(part if number % 2 else _translate(part) for number, part in enumerate(parts))


def _bare(names: str) -> str:
    return ",".join(part.strip().strip("'\"") for part in names.split(","))


def _translate(text: str) -> str:
    """A part without quotes."""
    text = text.replace("-1 for all cores or None for one", "-1 for all cores")
    for name in SWITCHES:
        text = re.sub(rf"\b{name}=True\b", f"--{name.replace('_', '-')}", text)
    text = re.sub(rf"\b({NAMES})=", lambda found: f"{OPTIONS[found[1]]} ", text)
    text = re.sub(r"\b(Pass|pass|Set|set|or) ([a-z_]+)=(?=\w)", r"\1 --set \2=", text)
    text = re.sub(r"(?<!--set )\bmax_memory=", "--set max_memory=", text)
    text = re.sub(rf"`({NAMES})`", lambda found: OPTIONS[found[1]], text)
    text = re.sub(rf"(?<![-\w`])({'|'.join(WORDS)})\b", lambda found: OPTIONS[found[1]], text)
    tables = "|".join(TABLES)
    text = re.sub(rf"`({tables})`", lambda found: TABLES[found[1]], text)
    text = re.sub(r"`((?:spatial|reference)\.[^`]*)`", lambda found: found[1], text)
    text = re.sub(rf"(?<![-\w./])({tables}){PLACES}", lambda found: TABLES[found[1]], text)
    text = re.sub(r"(?<![-\w./])(adata_st|adata_sc)\b", lambda found: TABLES[found[1]], text)
    return re.sub(r"(?<![-\w./])(spatial|reference)(?= (?:must|and reference)\b)", lambda f: TABLES[f[1]], text)
