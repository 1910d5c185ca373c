"""Streams, events and pinned memory of the stand-in: a copy on a stream of its own is done as late as it may be.

Kernels and operations on arrays run at once, on the null stream. A copy from pinned memory on another stream waits in
the queue of that stream until the null stream or the host waits for an event after it (or earlier, by lot, where
`Traffic.lots` is set); till then its destination is poisoned. So whoever does not wait reads rubbish. What CUDA leaves
undefined is told where it is certain: a buffer that is filled again or given back before the host can know that its
copy was done, memory that is given back or taken from the null stream's pool while a copy into it is under way, an
event that nothing recorded.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
import zlib
from dataclasses import dataclass

import numpy as np


class Traffic:
    """All that is under way on the stand-in device."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget all that was."""
        self.log: list[tuple] = []  # ("sent", number), ("done", number), ("launch", kernel), ("waits for", number)
        self.faults: list[str] = []
        self.lots: random.Random | None = None  # None: every copy as late as it may be
        self.clock = 0  # of the null stream: allocations and launches
        self.copies = 0
        self.streams: list[Stream] = []
        self.pinned: weakref.WeakSet[Pinned] = weakref.WeakSet()

    def tick(self) -> int:
        """Something happens on the null stream; other streams may get on by lot."""
        with self.lock:
            self.clock += 1
            if self.lots is not None:
                for stream in self.streams:
                    stream.run(stream.done + self.lots.randrange(3))
            self.check()
            return self.clock

    def fault(self, text: str) -> None:
        """Note what went wrong where nothing can be raised."""
        self.faults.append(text)

    def check(self) -> None:
        if self.faults:
            raise RuntimeError("; ".join(self.faults))

    def pending(self) -> int:
        """Copies that are under way."""
        return sum(len(stream.queue) for stream in self.streams)


TRAFFIC = Traffic()


def poison(host: np.ndarray) -> None:
    """Fill with what is no count: NaN, or 1 (as a gene number it exists, so that a kernel does not crash)."""
    host.fill(np.nan if host.dtype.kind == "f" else 1)


@dataclass
class Copy:
    """One copy from pinned memory that is not done."""

    number: int
    point: int  # of its stream
    pinned: weakref.ref
    start: int
    there: np.ndarray
    room: np.ndarray
    sum: int

    def run(self) -> None:
        pinned = self.pinned()
        if pinned is None:
            raise RuntimeError(f"pinned memory was given back before copy {self.number} out of it was done")
        bits = bytes(memoryview(pinned)[self.start : self.start + self.there.nbytes])
        if zlib.crc32(bits) != self.sum:
            raise RuntimeError(f"a pinned buffer was filled again before copy {self.number} out of it was done")
        self.there[...] = np.frombuffer(bits, self.there.dtype).reshape(self.there.shape)
        TRAFFIC.log.append(("done", self.number))


class Stream:
    """cupy.cuda.Stream, as far as it is used."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        if not null and not non_blocking:
            raise TypeError("a stream that is not non_blocking waits for the null stream: nothing would overlap")
        self.is_null = null
        self.queue: list[Copy] = []
        self.sent = self.done = self.known = 0  # copies; known: to the host, by a wait
        self.waited = 0  # copies that the null stream waited for
        self.open: list[Copy] = []  # that the host does not know to be done
        self.seen = 0  # the null stream up to here is waited for
        if not null:
            TRAFFIC.streams.append(self)

    def __enter__(self) -> Stream:
        raise TypeError("kernels of the stand-in run on the null stream alone")

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        with TRAFFIC.lock:
            event.mark, event.at = (self, TRAFFIC.tick() if self.is_null else self.sent), time.perf_counter()
        return event

    def wait_event(self, event: Event) -> None:
        with TRAFFIC.lock:
            stream, point = event.recorded()
            if self.is_null:
                stream.run(point)
                stream.waited = max(stream.waited, point)
                TRAFFIC.log.append(("waits for", point))
            elif stream.is_null:
                self.seen = max(self.seen, point)
            else:
                raise TypeError("one stream of copies is all that is known")

    def synchronize(self) -> None:
        with TRAFFIC.lock:
            self.run(self.sent)
            self.tell(self.sent)
            TRAFFIC.check()

    def tell(self, point: int) -> None:
        """The host learns that the copies up to a point are done."""
        self.known = max(self.known, point)
        self.open = [copy for copy in self.open if copy.point > self.known]

    def lost(self, point: int) -> None:
        """Pinned memory of a copy is given back."""
        if point > self.known:
            TRAFFIC.fault("pinned memory was given back before the copy out of it was known to be done")

    def run(self, point: int) -> None:
        """Do the copies up to a point; on the null stream all is done at once."""
        while self.queue and self.done < point:
            self.done += 1
            self.queue.pop(0).run()

    def send(self, values: np.ndarray, there: np.ndarray, room: np.ndarray, born: int) -> None:
        """Queue a copy from pinned memory to a part of an array that was allocated at `born`."""
        with TRAFFIC.lock:
            pinned, start = find(values)
            if self.seen < born:
                raise RuntimeError("a copy goes to memory that the null stream may still use: wait for an event of it")
            for copy in self.open:
                apart = copy.start >= start + values.nbytes or start >= copy.start + copy.there.nbytes
                if copy.pinned() is pinned and not apart:
                    raise RuntimeError("a pinned buffer was filled again before the copy out of it was known as done")
            poison(there)
            TRAFFIC.copies += 1
            self.sent += 1
            held = weakref.ref(pinned, lambda _, point=self.sent: self.lost(point))
            copy = Copy(TRAFFIC.copies, self.sent, held, start, there, room, zlib.crc32(values.tobytes()))
            self.queue.append(copy)
            self.open.append(copy)
            TRAFFIC.log.append(("sent", TRAFFIC.copies))


Stream.null = Stream(null=True)


class Event:
    """cupy.cuda.Event, as far as it is used."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.mark: tuple[Stream, int] | None = None
        self.timed, self.at = not disable_timing, 0.0

    def record(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).record(self)

    def recorded(self) -> tuple[Stream, int]:
        if self.mark is None:
            raise RuntimeError("an event is waited for that nothing recorded")
        return self.mark

    def synchronize(self) -> None:
        with TRAFFIC.lock:
            stream, point = self.recorded()
            stream.run(point)
            stream.tell(point)
            TRAFFIC.check()


class Pinned(bytearray):
    """What alloc_pinned_memory gives: a buffer that knows its address."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @property
    def address(self) -> int:
        return np.frombuffer(self, np.uint8).ctypes.data


def alloc_pinned_memory(size: int) -> Pinned:
    pinned = Pinned(size)
    TRAFFIC.pinned.add(pinned)
    return pinned


def find(values: np.ndarray) -> tuple[Pinned, int]:
    """The pinned buffer that an array lies in, and where."""
    address = values.ctypes.data
    for pinned in TRAFFIC.pinned:
        if pinned.address <= address and address + values.nbytes <= pinned.address + len(pinned):
            return pinned, address - pinned.address
    raise TypeError("a copy on a stream of its own comes from pinned memory: from any other the host would wait")


def host_waits() -> None:
    """The host waits for the null stream, and so for what that waited for."""
    with TRAFFIC.lock:
        for stream in TRAFFIC.streams:
            stream.tell(stream.waited)


def freed(room: np.ndarray) -> None:
    """An array is given back to the pool."""
    for stream in TRAFFIC.streams:
        if any(copy.room is room for copy in stream.queue):
            TRAFFIC.fault("an array was given back while a copy into it was under way")


def get_current_stream() -> Stream:
    return Stream.null


def get_elapsed_time(start: Event, end: Event) -> float:
    """Milliseconds."""
    assert start.timed and end.timed and start.recorded() and end.recorded()
    return 1e3 * (end.at - start.at)
