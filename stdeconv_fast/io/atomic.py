"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError

ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")  # files that a zarr folder has at its top


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


def check_folder(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Make sure, before long work, that a zarr folder can be written.

    Parameters
    ----------
    path : str or path
        The folder; it need not exist. Nothing but a zarr folder or an empty one is replaced.
    name : str
        What the caller calls it, for the message.

    Returns
    -------
    Path
        The folder itself, absolute, where `path` is a link to it.

    Raises
    ------
    DataError
        `path` is a file, or a folder that holds something else; the folder around it does not exist or cannot be
        written.
    """
    target = Path(os.path.realpath(path))
    around = target.parent
    if target.exists() and not target.is_dir():
        raise DataError(f"`{name}` must name a folder; got the file '{target}'. Remove it or choose another name.")
    if target.is_dir() and any(target.iterdir()) and not any((target / mark).exists() for mark in ZARR_MARKS):
        raise DataError(f"`{name}` must name a zarr folder or a new one; got '{target}', which holds something else.")
    if not around.is_dir():
        raise DataError(f"`{name}` must lie in a folder that exists; got '{path}', and there is no folder '{around}'.")
    if not os.access(around, os.W_OK | os.X_OK):
        raise DataError(f"`{name}` must lie in a folder that can be written; got '{path}', and '{around}' cannot.")
    return target


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a zarr folder whole or not at all.

    Inside the ``with`` block, make the folder that it gives: a hidden name beside `path` with the same ending. When
    the block ends well, the new folder takes the place of `path`; when it ends with any exception, an interrupt
    included, the new folder is removed and `path` stays as it was.

    Parameters
    ----------
    path : str or path
        The folder to write or to replace; a link is followed.

    Yields
    ------
    Path
        Where to write; there is no such folder yet.

    Raises
    ------
    DataError
        The folder cannot be written (see `check_folder`); raised before the block starts.
    FileNotFoundError
        The block wrote nothing.

    Notes
    -----
    The contents reach the disk before the name changes. Linux changes an old folder for a new one in one step. Where
    the system cannot do that, the old one is first renamed to a hidden name, ``.NAME.old-...``, and a crash in that
    instant leaves it there, whole.
    """
    target = check_folder(path)
    key = uuid.uuid4().hex[:12]
    part, old = target.with_name(f".{key}{target.suffix}"), target.with_name(f".{target.name}.old-{key}")
    try:
        yield part
        _reach_disk(part)
        if not target.exists():
            os.rename(part, target)
        elif not _exchange(part, target):
            os.rename(target, old)
            try:
                os.rename(part, target)
            except BaseException:
                os.rename(old, target)
                raise
        _sync(target.parent)
    except BaseException:
        _remove(part)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():  # never the last whole one
            shutil.rmtree(old, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder that threads of zarr may still be writing to: what they began before a fault goes on after it."""
    gone = 0
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        gone = 0 if folder.exists() else gone + 1
        if gone == 3:
            return
        time.sleep(0.02)


def _reach_disk(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for around, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            _sync(Path(around, name))
        _sync(Path(around))


def _raise(fault: OSError) -> None:
    raise fault


def _sync(path: Path) -> None:
    if os.name == "nt":  # Windows syncs no folders, and no files that are open for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, where the system can; whether it did."""
    if not sys.platform.startswith("linux"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0
