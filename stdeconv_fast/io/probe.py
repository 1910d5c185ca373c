"""Looks through an HDF5 file in a process of its own first: on damaged files HDF5 may crash or never come back."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import warnings
from pathlib import Path

from ..errors import DataError
from .disk import Node, is_group

LIMIT = 30.0  # seconds to look through the structure of one file
STEP = 0.002


def probe_all(path: Path, name: str) -> None:
    """`probe` a file, or the files in a folder of tiles."""
    for file in sorted(path.glob("*.h5ad")) if path.is_dir() else [path]:
        probe(file, name)


def probe(path: Path, name: str) -> None:
    """Make sure that the structure of an HDF5 file can be read at all: groups, attributes, shapes, some texts.

    Parameters
    ----------
    path : Path
        Folders and what is no HDF5 file are passed over: whoever opens them says what is wrong.
    name : str
        What the caller calls it, for the message.

    Raises
    ------
    DataError
        HDF5 crashed or did not come back.

    Notes
    -----
    HDF5 trusts what it reads: a single wrong bit can send it into an endless loop, which no signal ends as it holds
    Python's lock, or out of its memory. Systems without fork do without the look.
    """
    if not hasattr(os, "fork") or not path.is_file():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside other threads: the child runs HDF5 and nothing else
        child = os.fork()
    if child == 0:
        code = 0  # an error is one that the parent meets, too
        try:
            faulthandler.disable()
            _look(path)
        except _LoopError:
            code = 1
        finally:
            os._exit(code)
    status, deadline = None, time.monotonic() + LIMIT
    try:
        while status is None and time.monotonic() < deadline:
            done, code = os.waitpid(child, os.WNOHANG)
            status = code if done else None
            time.sleep(0 if done else STEP)
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise DataError(
            f"{name} must hold no links that lead back to where they come from; got one in '{path}'. Make it anew."
        )
    if status is None or os.WIFSIGNALED(status):
        what = f"no end after {LIMIT:g} s" if status is None else "a crash"
        raise DataError(
            f"{name} must be a sound h5ad file; got {what} in HDF5 with '{path}'. The file is damaged: make it anew."
        )


class _LoopError(Exception):
    """A link leads back to where it comes from."""


def _look(path: Path) -> None:
    import h5py

    def look_at(node: Node, above: tuple) -> None:
        for value in node.attrs.values():
            str(value)
        place = h5py.h5o.get_info(node.id)
        key = (place.fileno, place.addr)
        if key in above:
            raise _LoopError
        if is_group(node):
            for name in node:
                try:
                    child = node[name]
                except Exception:  # a link to nowhere, a damaged node: not met by those who do not ask for it
                    continue
                look_at(child, (*above, key))
        elif node.dtype.kind == "O" and node.size:
            node[tuple(0 for _ in node.shape)], node[tuple(-1 for _ in node.shape)]

    with h5py.File(path, "r") as root:
        look_at(root, ())
