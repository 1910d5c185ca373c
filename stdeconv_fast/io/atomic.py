"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError


def check_writable(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Make sure, before long work, that a file can be written.

    Parameters
    ----------
    path : str or path
        The file; it need not exist.
    name : str
        What the caller calls it, for the message.

    Returns
    -------
    Path
        The file itself, absolute, where `path` is a link to it.

    Raises
    ------
    DataError
        `path` is a folder; its folder does not exist or cannot be written; or the file exists and is read-only.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    if target.is_dir():
        raise DataError(f"`{name}` must name a file; got the folder '{target}'. Add a file name.")
    if target.exists() and not target.is_file():
        raise DataError(f"`{name}` must name a plain file; got '{target}', which is a device or a pipe.")
    if not folder.is_dir():
        raise DataError(f"`{name}` must lie in a folder that exists; got '{path}', and there is no folder '{folder}'.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"`{name}` must lie in a folder that can be written; got '{path}', and '{folder}' cannot.")
    if target.exists() and not os.access(target, os.W_OK):
        raise DataError(f"`{name}` must name a file that can be written; got '{target}', which is read-only.")
    return target


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all.

    Inside the ``with`` block, write to the path that it gives. It is a hidden name in the same folder with the same
    ending. When the block ends well, the new file takes the place of `path` in one step; when it ends with any
    exception, an interrupt included, the new file is removed and `path` stays as it was.

    Parameters
    ----------
    path : str or path
        The file to write or to replace; a link is followed.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    DataError
        The file cannot be written (see `check_writable`); raised before the block starts.
    FileNotFoundError
        The block wrote nothing.

    Notes
    -----
    The contents reach the disk before the name changes, so that a crash leaves the old file or the new one.
    """
    target = check_writable(path)
    part = target.with_name(f".{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        yield part
        with open(part, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
