"""Writes the page: a template, its style and script, and the answer within it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ..errors import DataError, DataTypeError

if TYPE_CHECKING:
    from anndata import AnnData

SCRIPTS = ("maps.js", "tables.js", "page.js")
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
TWELVE = (
    "#9F0162", "#009F81", "#FF5AAF", "#00FCCF", "#8400CD", "#008DF9", "#00C2F9", "#FFB2FD", "#A40122", "#E20134",
    "#FF6E3A", "#FFC33B",
)  # fmt: skip


def report(
    answer: AnnData | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    key: str = "stdeconv",
    spatial_key: str | None = None,
    sample_key: str | None = None,
    title: str | None = None,
) -> Path:
    """Write one html page that shows an answer: maps, types, checks of the input, fit, tuning, settings, time, memory.

    Parameters
    ----------
    answer : AnnData or path
        What `tl.deconvolve` or ``stdeconv-fast run`` wrote: an AnnData, an h5ad file or a zarr folder, of which no
        counts are read.
    path : str or path
        The page, ``.html``; one that is there is replaced, whole or not at all.
    key : str
        Under which name the answer was written.
    spatial_key : str, optional
        Key of ``obsm`` with the places; by default that of the run.
    sample_key : str, optional
        Column of ``obs`` with the section of each spot; by default that of the run.
    title : str, optional
        By default the name of the file.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        There is no answer, or the page cannot be written.
    DataTypeError
        `answer` or a key is of another kind.

    Notes
    -----
    The page needs nothing beside it and no network. Proportions are kept in 255 steps of the highest of their type;
    where there are more than about ten million (500,000 spots of 20 types), the maps show means over squares, and say
    so. Tables are of all spots. The same answer gives the same page.

    Examples
    --------
    >>> sd.report("out.h5ad", "report.html")  # doctest: +SKIP
    """
    return make_page(answer, path, key, spatial_key, sample_key, title)[0]


def make_page(
    answer: Any, path: str | os.PathLike[str], key: str, spatial_key: str | None, sample_key: str | None,
    title: str | None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """`report`, and what the page holds."""
    from ..io.atomic import atomic_path, check_writable
    from .facts import tell_facts
    from .packing import pack_maps
    from .sources import read_answer

    for name, value in (("key", key), ("spatial_key", spatial_key), ("sample_key", sample_key), ("title", title)):
        if not isinstance(value, str) and (name == "key" or value is not None):
            raise DataTypeError(f"`{name}` must be a text; got {type(value).__name__}.")
    if not isinstance(path, str | os.PathLike):
        raise DataTypeError(f"`path` must be a path; got {type(path).__name__}.")
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise DataError(f"`path` must end in .html; got '{path}'.")
    target = check_writable(path, "path")
    found = read_answer(answer, key, spatial_key, sample_key)
    held = tell_facts(found) | {"maps": pack_maps(found), "colours": _colours()}
    text = _fill(title or found.name or "Cell types of spots", held)
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")
    return target, held


def _fill(title: str, held: dict[str, Any]) -> str:
    """The text of the page. What is in it from outside is escaped; only its own script and style may run."""
    script, style = "".join(_read(name) for name in SCRIPTS), _read("page.css")
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_read("page.html")).substitute(
        title=html.escape(title), policy=policy, style=style, script=script, data=_embed(held)
    )


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embed(value: Any) -> str:
    """JSON that cannot end the element it stands in, nor begin another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _colours() -> dict[str, Any]:
    """Viridis as 256 x (red, green, blue) bytes, and colours of types that colour-blind people can tell apart."""
    import numpy as np
    from matplotlib import colormaps

    steps = np.rint(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    return {"scale": base64.b64encode(steps.tobytes()).decode(), "few": OKABE_ITO, "many": TWELVE}
