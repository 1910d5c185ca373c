"""Large arrays on their way to a device: by blocks, through two pinned buffers, on a stream of their own.

`Uploads.start` hands counts out before they are up, as `OnItsWay`. The bare array comes out of that in two ways alone:
whole, once the host has waited for every copy, or row by row to one kernel, once the stream that computes waits for the
copies of these rows. So nothing can read what is not there yet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .parcels import Counts

BLOCK = 1 << 25  # bytes of a pinned buffer
BUFFERS = 2  # one is filled while the other is copied
ALIGN = 256  # bytes: an array begins at a multiple of them in a buffer


class Uploads:
    """The pinned buffers and the stream of copies of one device; threads may share it.

    Parameters
    ----------
    xp : module
        CuPy or a stand-in.
    """

    def __init__(self, xp: Any) -> None:
        self.xp, self.lock = xp, threading.RLock()
        self._stream: Any = None
        self._buffers: list[np.ndarray] = []
        self._emptied: list[Any] = []  # of each buffer: the event after the last copy out of it
        self._turn = 0
        self._last: Upload | None = None

    def send(self, array: np.ndarray) -> Any:
        """The array on the device, all of it there."""
        (there,) = Upload(self, (array.reshape(-1),)).land()
        return there.reshape(array.shape)

    def start(self, counts: Counts, indptr: np.ndarray) -> Counts:
        """The counts with `indices` and `data` on their way; the arrays of the host must stay as they are till then.

        Parameters
        ----------
        counts : Counts
            With all but `indices` and `data` on the device.
        indptr : (n_spots + 1,) int64
            On the host.
        """
        with self.lock:
            if self._last is not None:
                self._last.land()  # one at a time: counts that were dropped give their memory back here
            self._last = upload = Upload(self, (counts.indices, counts.data), indptr)
            upload.counts = replace(counts, indices=OnItsWay(upload, 0), data=OnItsWay(upload, 1))
            for block in range(min(BUFFERS, upload.n_blocks)):
                upload.block(block)
            return upload.counts

    def follow(self) -> None:
        """Let the copies to come wait for what the current stream was given: it may still use the memory they go to."""
        with self.lock:
            if self._stream is None:
                buffers = [self.xp.cuda.alloc_pinned_memory(BLOCK) for _ in range(BUFFERS)]
                self._buffers = [np.frombuffer(buffer, np.uint8, BLOCK) for buffer in buffers]
                self._emptied = [None] * BUFFERS
                self._stream = self.xp.cuda.Stream(non_blocking=True)
            self._stream.wait_event(self._record(self.xp.cuda.get_current_stream()))

    def copy(self, pairs: list[tuple[np.ndarray, Any]]) -> Any:
        """Copy arrays of the host to arrays of the device, through the next buffer; the event after the copies."""
        with self.lock:
            turn = self._turn
            if self._emptied[turn] is not None:
                self._emptied[turn].synchronize()
            at = 0
            try:
                for host, there in pairs:
                    staged = self._buffers[turn][at : at + host.nbytes].view(host.dtype)
                    np.copyto(staged, host)
                    there.set(staged, stream=self._stream)
                    at += -(-host.nbytes // ALIGN) * ALIGN
            finally:  # after an error too: what was sent before it still reads the buffer
                self._emptied[turn] = self._record(self._stream)
                self._turn = (turn + 1) % BUFFERS
            return self._emptied[turn]

    def forget(self, upload: Upload) -> None:
        """Let go of an upload that is up."""
        if self._last is upload:
            self._last = None

    def close(self) -> None:
        """Wait for the copies under way and give the buffers back; what was not sent stays behind."""
        with self.lock:
            if self._stream is not None:
                self._stream.synchronize()
            if self._last is not None:
                self._last.drop()
            self._last, self._stream, self._buffers, self._emptied, self._turn = None, None, [], [], 0

    def _record(self, stream: Any) -> Any:
        return stream.record(self.xp.cuda.Event(disable_timing=True))


class Upload:
    """Arrays of one length that go up side by side.

    Parameters
    ----------
    uploads : Uploads
    hosts : tuple of (n,) arrays
    indptr : (n_rows + 1,) int64, optional
        Where the rows begin, for `by_rows`; on the host.
    """

    def __init__(self, uploads: Uploads, hosts: tuple[np.ndarray, ...], indptr: np.ndarray | None = None) -> None:
        self._uploads, self._hosts, self._indptr = uploads, hosts, indptr
        self._there = tuple(uploads.xp.empty(host.shape, dtype=host.dtype) for host in hosts)
        uploads.follow()
        self._step = max(1, (BLOCK - ALIGN * len(hosts)) // sum(host.itemsize for host in hosts))
        self._blocks: list[tuple[int, Any]] = []
        self.n_blocks = -(-len(hosts[0]) // self._step)
        self.counts: Counts | None = None  # that were handed out

    def block(self, number: int) -> tuple[int, Any]:
        """Entries that are up after a block, and the event of that; sends it and all before it where need be."""
        with self._uploads.lock:
            while len(self._blocks) <= number:
                if not self._hosts:
                    raise RuntimeError("the device was let go before these counts were up")
                start = self._blocks[-1][0] if self._blocks else 0
                stop = min(start + self._step, len(self._hosts[0]))
                pairs = zip(self._hosts, self._there, strict=True)
                event = self._uploads.copy([(host[start:stop], there[start:stop]) for host, there in pairs])
                self._blocks.append((stop, event))
            return self._blocks[number]

    def land(self) -> tuple[Any, ...]:
        """The arrays on the device, once the host has waited for every copy."""
        with self._uploads.lock:
            if self.n_blocks:
                self.block(self.n_blocks - 1)[1].synchronize()
            if self.counts is not None:
                for name, there in zip(("indices", "data"), self._there, strict=True):
                    object.__setattr__(self.counts, name, there)
            self.drop()
            self._uploads.forget(self)
            return self._there

    def drop(self) -> None:
        """Let go of the host's arrays."""
        self._hosts, self.counts = (), None

    def by_rows(self, values: tuple) -> Iterator[tuple[int, int, tuple]]:
        """Ranges of rows (start, stop), and the values with bare arrays in the place of those on their way.

        What the current stream is given once a range is out finds these rows up. At the end all is up.
        """
        stream, start = self._uploads.xp.cuda.get_current_stream(), 0
        for number in range(self.n_blocks):
            entries, event = self.block(number)
            stream.wait_event(event)
            stop = int(np.searchsorted(self._indptr, entries, side="right")) - 1
            if stop > start:
                yield start, stop, tuple(self._bare(value) for value in values)
                start = stop
        self.land()

    def _bare(self, value: Any) -> Any:
        if isinstance(value, OnItsWay) and value.upload is self:
            return self._there[value.number]
        return landed(value)


class OnItsWay:
    """An array that is not up yet. Its dtype and shape are known; whatever else is asked of it waits for all of it."""

    __array_ufunc__ = None  # beside other arrays NumPy and CuPy refuse it

    def __init__(self, upload: Upload, number: int) -> None:
        self.upload, self.number = upload, number
        there = upload._there[number]
        self.dtype, self.shape, self.ndim = there.dtype, there.shape, there.ndim
        self.size, self.nbytes = there.size, there.nbytes

    def land(self) -> Any:
        """The array on the device, all of it there."""
        return self.upload.land()[self.number]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Any) -> Any:
        return self.land()[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.land(), name)


def landed(value: Any) -> Any:
    """The value, all of it up where it was on its way."""
    return value.land() if isinstance(value, OnItsWay) else value
