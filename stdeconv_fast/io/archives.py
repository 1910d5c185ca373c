"""Parcels in one file: a zip archive of plain .npy arrays and one JSON header. Nothing in it is ever executed.

The header tells the format, the version of its schema and the tree of values; a leaf of the tree is a plain value or
the name of an array. What is saved of a parcel are its fields, as `dataclasses.fields` lists them: a new field needs no
line here, as long as its values are of the kinds below, and files without it get its default. The schema number changes
when old files can no longer be read as they are.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from ..built import BuiltReference
from ..errors import DataError, DataTypeError
from ..parcels import CellWeights, Graph, Result, Strengths
from ..settings import Settings
from .atomic import atomic_path

SCHEMA = 1
FORMAT, HEADER = "stdeconv_fast", "header.json"
PARCELS = {kind.__name__: kind for kind in (BuiltReference, CellWeights, Graph, Result, Settings, Strengths)}
PLAIN = "biuf"  # kinds of dtypes that files hold, beside text
DAMAGE = (
    zipfile.BadZipFile, struct.error, EOFError, OSError, KeyError, IndexError, TypeError, ValueError, AttributeError,
    OverflowError, RuntimeError,
)  # fmt: skip


def save_parcel(parcel: Any, path: str | os.PathLike[str]) -> None:
    """Write a parcel to one file, whole or not at all.

    Parameters
    ----------
    parcel : Result or BuiltReference
    path : str or path
        The file to write or to replace.

    Raises
    ------
    DataError
        The file cannot be written.
    DataTypeError
        A field holds something that files do not hold.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _encode(parcel, type(parcel).__name__, arrays)
    header = {"format": FORMAT, "schema": SCHEMA, "parcel": type(parcel).__name__, "version": _version(), "tree": tree}
    text = json.dumps(header, allow_nan=False, indent=1)
    with atomic_path(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(HEADER, text)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_parcel(path: str | os.PathLike[str], kind: type) -> Any:
    """Read what `save_parcel` wrote.

    Parameters
    ----------
    path : str or path
    kind : type
        The parcel that the file must hold.

    Raises
    ------
    DataError
        There is no such file, it is no such parcel, its schema is unknown, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"`path` must name a file; got '{path}': there is no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(_read(archive, HEADER))
            if header["format"] != FORMAT:
                raise ValueError("it is of another program")
            refusal = _refuse(header, path, kind)
            parcel = None if refusal else _decode(header["tree"], _Arrays(archive))
            if not isinstance(parcel, kind) and not refusal:
                raise ValueError(f"it is no {kind.__name__}")
    except DAMAGE as fault:
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise DataError(
            f"`path` must be a whole file written by {kind.__name__}.save; got '{path}': {reason}. Save it anew."
        ) from fault
    if refusal:
        raise DataError(refusal)
    return parcel


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like those of `save_parcel`, whole or not."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError:
        return False
    return start.startswith(b"PK") and HEADER.encode() in start


def _refuse(header: dict[str, Any], path: Path, kind: type) -> str:
    """Why a sound file is not the one that is wanted; '' if it is."""
    if header["schema"] != SCHEMA:
        return (
            f"`path` must be a file of schema {SCHEMA}; got schema {header['schema']!r} in '{path}', written by "
            f"stdeconv_fast {header['version']}. Read it with that version, or save it anew with this one."
        )
    if header["parcel"] != kind.__name__:
        return (
            f"`path` must hold a {kind.__name__}; got a {header['parcel']} in '{path}'. Use {header['parcel']}.load."
        )
    return ""


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry with its checksum compared; none is compressed, so that none is longer than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stdeconv-fast")
    except PackageNotFoundError:
        return "0+uninstalled"


# -- values to a tree ------------------------------------------------------------------------------------------------


def _encode(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree of a value; its arrays go to `arrays` under names made of `place`."""

    def inner(part: Any, name: object) -> Any:
        return _encode(part, f"{place}.{name}", arrays)

    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"kind": "float", "value": repr(value)}
    if isinstance(value, list | tuple):
        return {"kind": type(value).__name__, "values": [inner(part, k) for k, part in enumerate(value)]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"kind": "dict", "values": [[key, inner(part, k)] for k, (key, part) in enumerate(value.items())]}
    if type(value).__name__ in PARCELS and isinstance(value, PARCELS[type(value).__name__]):
        parts = {field.name: inner(getattr(value, field.name), field.name) for field in fields(value)}
        return {"kind": "parcel", "type": type(value).__name__, "fields": parts}
    if isinstance(value, np.generic) and value.dtype.kind in PLAIN:
        return {"kind": "scalar", "values": inner(np.asarray(value), "values")}
    if isinstance(value, np.ndarray):
        return _encode_array(value, place, arrays)
    if isinstance(value, csr_matrix):
        parts = {name: inner(getattr(value, name), name) for name in ("indptr", "indices", "data")}
        return {"kind": "csr", "shape": [int(n) for n in value.shape], **parts}
    if isinstance(value, pd.Index) and not isinstance(value, pd.MultiIndex):
        return {"kind": "index", "name": inner(value.name, "name"), "values": inner(value.to_numpy(), "values")}
    if isinstance(value, pd.Series):
        values = value.array if isinstance(value.dtype, pd.CategoricalDtype) else value.to_numpy()
        parts = {"index": value.index, "name": value.name, "values": values}
        return {"kind": "series", **{name: inner(part, name) for name, part in parts.items()}}
    if isinstance(value, pd.Categorical):
        parts = {"codes": np.asarray(value.codes), "categories": value.categories, "ordered": bool(value.ordered)}
        return {"kind": "categorical", **{name: inner(part, name) for name, part in parts.items()}}
    if isinstance(value, pd.DataFrame):
        kinds = set(value.dtypes)
        whole = len(kinds) == 1 and isinstance(kind := kinds.pop(), np.dtype) and kind.kind in PLAIN
        columns = value.to_numpy() if whole else [value.iloc[:, j].array for j in range(value.shape[1])]
        columns = columns if whole else [
            part if isinstance(part, pd.Categorical) else part.to_numpy() for part in columns
        ]  # fmt: skip
        parts = {"index": value.index, "columns": value.columns, "values": columns}
        return {"kind": "frame", **{name: inner(part, name) for name, part in parts.items()}}
    raise DataTypeError(f"`{place}` must be of a kind that files hold; got {type(value).__name__}.")


def _encode_array(value: np.ndarray, place: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if value.dtype.kind in PLAIN:
        arrays[place] = value
        return {"kind": "array", "name": place}
    texts = value.ravel().tolist()
    if value.ndim != 1 or not all(text is None or isinstance(text, str) for text in texts):
        raise DataTypeError(f"`{place}` must hold numbers or a row of texts; got an array of {value.dtype}.")
    written = [b"" if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
    arrays[f"{place}.bytes"] = np.frombuffer(b"".join(written), dtype=np.uint8)
    arrays[f"{place}.ends"] = np.cumsum([len(text) for text in written], dtype=np.int64)
    arrays[f"{place}.none"] = np.flatnonzero([text is None for text in texts])
    return {"kind": "texts", "name": place, "as": "object" if value.dtype.kind == "O" else "str"}


# -- a tree to values ------------------------------------------------------------------------------------------------


class _Arrays:
    """The arrays of an archive by name; each is read with its checksum, and must be as long as it says."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def __getitem__(self, name: str) -> np.ndarray:
        content = _read(self._archive, f"{name}.npy")
        file = io.BytesIO(content)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]  # fmt: skip
        shape, by_columns, dtype = read(file)
        if dtype.kind not in PLAIN or dtype.hasobject:
            raise ValueError(f"{name} holds {dtype}")
        if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise ValueError(f"{name} has another length than it says")
        values = np.frombuffer(content, dtype, offset=file.tell()).copy()
        return values.reshape(shape, order="F" if by_columns else "C")


def _decode(tree: Any, arrays: _Arrays) -> Any:
    """The value of a tree."""
    if not isinstance(tree, dict):
        return tree
    kind = tree["kind"]
    if kind == "float":
        return float(tree["value"])
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(_decode(part, arrays) for part in tree["values"])
    if kind == "dict":
        return {key: _decode(part, arrays) for key, part in tree["values"]}
    if kind == "parcel":
        return _decode_parcel(tree, arrays)
    if kind == "array":
        return arrays[tree["name"]]
    if kind == "texts":
        return _decode_texts(tree, arrays)
    parts = {name: _decode(part, arrays) for name, part in tree.items() if name not in ("kind", "shape")}
    if kind == "scalar":
        return parts["values"][()]
    if kind == "csr":
        matrix = csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(tree["shape"]))
        matrix.check_format(full_check=True)
        matrix.indptr, matrix.indices = parts["indptr"], parts["indices"]  # in the dtype that they had
        return matrix
    if kind == "index":
        return pd.Index(parts["values"], name=parts["name"])
    if kind == "series":
        return pd.Series(parts["values"], index=parts["index"], name=parts["name"])
    if kind == "categorical":
        return pd.Categorical.from_codes(parts["codes"], parts["categories"], ordered=parts["ordered"])
    if kind == "frame":
        values = parts["values"]
        if isinstance(values, list):
            frame = pd.DataFrame(dict(enumerate(values)), index=parts["index"])
            return frame.set_axis(parts["columns"], axis=1)
        return pd.DataFrame(values, index=parts["index"], columns=parts["columns"])
    raise ValueError(f"there is no kind {kind!r}")


def _decode_parcel(tree: dict[str, Any], arrays: _Arrays) -> Any:
    kind, given = PARCELS[tree["type"]], tree["fields"]
    known = {field.name: field for field in fields(kind)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{tree['type']} has no field {', '.join(map(repr, unknown))} in this version")
    lacking = [
        name for name, field in known.items()
        if name not in given and field.default is MISSING and field.default_factory is MISSING
    ]  # fmt: skip
    if lacking:
        raise ValueError(f"{tree['type']} lacks {', '.join(map(repr, lacking))}")
    parcel = kind(**{name: _decode(part, arrays) for name, part in given.items()})
    if isinstance(parcel, BuiltReference):
        _check_built(parcel)
    return parcel


def _check_built(built: BuiltReference) -> None:
    """Refuse tables that do not fit together: kernels would follow their numbers out of the arrays."""
    n_types, n_cells, n_genes = len(built.types), len(built.cell_types), len(built.genes)
    codes, counts = built.cell_types, built.counts
    fits = (
        len(set(built.types)) == n_types and all(isinstance(name, str) for name in built.types)
        and codes.dtype == np.int32 and codes.shape == (n_cells,) and (codes < n_types).all() and (codes >= -1).all()
        and built.cell_names.shape == (n_cells,) and len(built.naming) == 2
        and set(built.naming) <= {"own", "numbered", "none"}
        and (counts is None or counts.shape == (n_cells, n_genes) and counts.has_canonical_format)
    )  # fmt: skip
    tables = {"sums": (n_types, n_genes), "gene_totals": (n_types, n_genes), "cell_totals": (n_cells,)}
    for name, shape in tables.items():
        values = getattr(built, name)
        fits = fits and values.dtype == np.float64 and values.shape == shape
        fits = fits and bool((values >= 0).all() and np.isfinite(values).all())
    if not fits:
        raise ValueError("its tables do not fit together")


def _decode_texts(tree: dict[str, Any], arrays: _Arrays) -> np.ndarray:
    written, ends, none = (arrays[f"{tree['name']}.{part}"] for part in ("bytes", "ends", "none"))
    whole, starts = written.tobytes(), np.concatenate([[0], ends])[:-1].astype(np.int64)
    if len(ends) and (ends[-1] != len(whole) or (starts > ends).any() or starts[0] < 0):
        raise ValueError(f"{tree['name']} has texts of another length than it says")
    texts = np.empty(len(ends), dtype=object)
    texts[:] = [whole[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
    texts[none] = None
    return texts.astype(str) if tree["as"] == "str" else texts
