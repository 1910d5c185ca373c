"""A folder that keeps what a long run has done so far, so that a run that was killed goes on where it stood."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import sys
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from .errors import DataError

MANIFEST, LOCK, STORE = "manifest.json", "lock", "store"
PART = ".part"  # ending of what is not yet whole
OWN = re.compile(r"(\.[0-9a-f]{12}\.part|[0-9A-Za-z_-]+\.np[yz])")  # names of the files in the store
_held: dict[Path, int] = {}  # locks of this process, and its id: a fork of it holds none


class WorkFolder:
    """Arrays by name in a folder that one run at a time may use.

    Names are "room/thing": a room is a folder in the store. A file is there whole or not at all, whenever the run
    ends, since each is written under a hidden name first. Close it, or use it in a ``with`` block.

    Parameters
    ----------
    path : str or path
        A folder that is not there yet or is empty; with `resume` one that holds the same run too. The folder around
        it must exist.
    fingerprint : mapping of str to str, int, float, bool or None
        What makes this run this run: data, settings, version.
    resume : bool
        Go on with what the folder holds; where it holds nothing, begin.

    Attributes
    ----------
    path, store : Path
        The folder, and the folder in it where the arrays lie; nothing else is in there.

    Raises
    ------
    DataError
        The folder is used by another run, holds another run or something else, or cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: Mapping[str, Any], resume: bool = False
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.store = self.path / STORE
        self._lock = self.path / LOCK
        _check_place(self.path, resume)
        try:
            self.path.mkdir(exist_ok=True)
            _take_lock(self._lock)
        except OSError as error:
            raise DataError(
                f"`work_folder` must be a folder that can be written; got '{self.path}' ({error.strerror})."
            ) from error
        try:
            self._begin(json.loads(json.dumps(dict(fingerprint))))
        except BaseException:
            self.close()
            raise

    def _begin(self, fingerprint: dict[str, Any]) -> None:
        """Compare the manifest, or write it; remove what a killed run left half-written."""
        manifest = self.path / MANIFEST
        if manifest.exists():
            _check_same(json.loads(manifest.read_text(encoding="utf-8")), fingerprint, self.path)
        else:
            text = json.dumps(fingerprint, indent=1).encode()
            _write(manifest, lambda file: file.write(text), sync=True)
        self.store.mkdir(exist_ok=True)
        for part in (*self.path.glob(f".*{PART}"), *self.store.glob(f"*/.*{PART}")):
            part.unlink(missing_ok=True)

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the folder; what it holds stays."""
        if _held.get(self._lock) == os.getpid():
            del _held[self._lock]
            self._lock.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name; `read` tells whether it is sound."""
        return self._file(name).exists()

    def write(self, name: str, *, sync: bool = False, **arrays: Any) -> None:
        """Keep some arrays under one name; `sync`: until they are on the disk, power cuts included."""
        file = self._file(name)
        file.parent.mkdir(exist_ok=True)
        write_arrays(file, arrays, sync)

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None where there are none, or not whole."""
        return read_arrays(self._file(name))

    def room(self, name: str) -> Path:
        """The folder of a room, made where it is not there."""
        folder = self.store / name
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self, room: str, which: Callable[[str], bool] = lambda name: True) -> None:
        """Remove the files of a room that `which` holds for, by their names without ending."""
        for file in (self.store / room).glob("*.np[yz]"):
            if which(file.stem):
                file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what this class wrote, and the folder if nothing else is in it; closes it."""
        self.close()
        clear_work(self.path)

    def _file(self, name: str) -> Path:
        return self.store / f"{name}.npz"


def clear_work(path: str | os.PathLike[str]) -> None:
    """Remove what a run that has ended left in its work folder, and the folder if nothing else is in it."""
    path = Path(os.path.realpath(path))
    for file in (path / STORE).glob("*/*"):
        if OWN.fullmatch(file.name):
            file.unlink(missing_ok=True)
    (path / MANIFEST).unlink(missing_ok=True)
    for folder in (*(path / STORE).glob("*"), path / STORE, path):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def digest(*parts: Any) -> str:
    """Short name of some arrays, numbers and words by their content, 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.shape} {part.dtype.str}".encode())
            found.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data)
        else:
            found.update(f"{part!r};".encode())
    return found.hexdigest()


def write_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write one array to a .npy file, whole or not at all, until it is on the disk; for jobs in other processes."""
    _write(Path(path), lambda file: np.save(file, array, allow_pickle=False), sync=True)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any], sync: bool) -> None:
    """Write some arrays to a .npz file, whole or not at all; it carries checksums."""
    _write(Path(path), lambda file: np.savez(file, **arrays), sync)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray] | None:
    """The arrays of a .npz file; None where it is not there or its checksums do not fit."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write(target: Path, fill: Callable[[BinaryIO], Any], sync: bool) -> None:
    part = target.with_name(f".{uuid.uuid4().hex[:12]}{PART}")
    try:
        with open(part, "wb") as file:
            fill(file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as fault:
        if fault.errno is None:  # NumPy wrote less than it was to, and does not say why
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from fault
        raise
    finally:
        part.unlink(missing_ok=True)


def _check_place(path: Path, resume: bool) -> None:
    """A clear error where the folder cannot be this run's own."""
    if path.exists() and not path.is_dir():
        raise DataError(f"`work_folder` must name a folder; got the file '{path}'. Name another place.")
    if not path.parent.is_dir():
        raise DataError(
            f"`work_folder` must lie in a folder that exists; got '{path}', and there is no folder '{path.parent}'."
        )
    if not path.is_dir():
        return
    runs = (path / MANIFEST).exists()
    others = [file.name for file in path.iterdir() if file.name != LOCK and not file.name.endswith(PART)]
    if runs and not resume:
        raise DataError(
            f"`work_folder` must be new or empty; got '{path}', which holds a run. "
            "Pass resume=True (--resume) to go on with it, or name another folder."
        )
    if others and not runs:
        raise DataError(
            f"`work_folder` must be new or empty{' or hold a run' if resume else ''}; got '{path}', which holds "
            f"{sorted(others)[0]!r}. Name another folder."
        )


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """A clear error where the folder holds another run than this one."""
    missing = object()
    told = [
        f"{name} {'not there' if now is missing else now} for {'none' if then is missing else then}"
        for name in sorted({*old, *new})
        if (now := new.get(name, missing)) != (then := old.get(name, missing)) or (now is missing) != (then is missing)
    ]
    if told:
        raise DataError(
            f"`work_folder` must be of the same run; got {', '.join(told)} in '{path}'. "
            "Pass the same data and settings, or name another folder."
        )


def _take_lock(lock: Path) -> None:
    """Make the lock ours; a lock of a process that is no more is taken over."""
    own = json.dumps({"pid": os.getpid(), "host": platform.node(), "started": _start_of(os.getpid())})
    while True:
        try:
            with open(lock, "x", encoding="utf-8") as file:
                file.write(own)
        except FileExistsError:
            _lift_stale(lock)
        else:
            _held[lock] = os.getpid()
            return


def _lift_stale(lock: Path) -> None:
    """Remove the lock of a process that is no more; a clear error where it may still run."""
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    try:
        holder = json.loads(text)
        running = _is_running(lock, **holder)
    except (TypeError, ValueError):
        holder, running = {"pid": "unknown", "host": "unknown"}, True
    if running:
        raise DataError(
            f"`work_folder` must be used by one run at a time; got '{lock.parent}', in use by process "
            f"{holder['pid']} on {holder['host']}. Wait for it; if it is no more, remove '{lock}'."
        )
    aside = lock.with_name(f".{uuid.uuid4().hex[:12]}{PART}")
    try:
        os.rename(lock, aside)  # of two that come at once, one alone moves it
    except FileNotFoundError:
        return
    if aside.read_text(encoding="utf-8") != text:  # another was faster, and this is its own
        os.rename(aside, lock)
    aside.unlink(missing_ok=True)


def _is_running(lock: Path, pid: int, host: str, started: str) -> bool:
    if host != platform.node() or sys.platform == "win32":  # cannot be told from here
        return True
    if pid == os.getpid():
        return _held.get(lock) == pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started == _start_of(pid)  # else another process has the number by now


def _start_of(pid: int) -> str:
    """When a process began, in the kernel's own unit; "ended" or, where the system does not tell, ""."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] == "Z" else fields[19]
