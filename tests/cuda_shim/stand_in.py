"""A strict stand-in for CuPy: arrays that mix with no NumPy array, kept between guards, and sources run on the CPU.

What CuPy would refuse is refused here too: implicit conversions to NumPy, NumPy arrays beside device arrays, `where=`,
and every NumPy function that is not on the list of those known to work on CuPy arrays.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from stdeconv_fast.kernels.cuda import loader

from . import build, streams

GUARD, FILL = 256, 0xFE  # bytes on either side of an array, and what is in them: huge as a float, negative as an int
FUNCTIONS = {"median", "cumsum", "einsum", "where", "diff", "count_nonzero"}
METHODS = {"sum", "mean", "max", "any", "all", "astype", "copy", "ravel", "reshape", "view"}
UFUNCS = {
    "add", "subtract", "multiply", "divide", "power", "maximum", "greater", "greater_equal", "less", "less_equal",
    "equal", "not_equal", "absolute", "negative", "matmul", "bitwise_and", "bitwise_or", "invert", "isnan",
}  # fmt: skip


class Memory:
    """What the stand-in card holds: bytes in use, the most so far, and faults that guards have told of."""

    def __init__(self) -> None:
        self.used = self.peak = 0
        self.launches: dict[str, int] = {}


MEMORY = Memory()


def allocate(shape: Any, dtype: Any, fill: Any = None) -> DeviceArray:
    """A fresh array between guards; poisoned where `fill` is None."""
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.full(size + 2 * GUARD, FILL, np.uint8)
    host = room[GUARD : GUARD + size].view(dtype).reshape(shape)
    if fill is not None:
        host[...] = fill
    return DeviceArray(host, room)


class DeviceArray(NDArrayOperatorsMixin):
    """An array on the stand-in device."""

    __array_priority__ = 1000

    def __init__(self, host: np.ndarray, room: np.ndarray | None = None, whole: DeviceArray | None = None) -> None:
        self.host, self.room, self.whole = host, room, whole  # a view has no room: it keeps the whole
        if room is not None:
            self.born = streams.TRAFFIC.tick()
            MEMORY.used += room.nbytes
            MEMORY.peak = max(MEMORY.peak, MEMORY.used)

    def __del__(self) -> None:
        if self.room is not None:
            MEMORY.used -= self.room.nbytes
            streams.freed(self.room)

    dtype = property(lambda self: self.host.dtype)
    shape = property(lambda self: self.host.shape)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)

    def __len__(self) -> int:
        return len(self.host)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __bool__(self) -> bool:
        streams.host_waits()
        return bool(self.host)

    def __float__(self) -> float:
        streams.host_waits()
        return float(self.host)

    def __int__(self) -> int:
        streams.host_waits()
        return int(self.host)

    def get(self) -> np.ndarray:
        streams.host_waits()
        return self.host.copy()

    def set(self, values: np.ndarray, stream: streams.Stream | None = None) -> None:
        if not isinstance(values, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if values.dtype != self.dtype:
            raise TypeError(f"{values.dtype} array cannot be set to {self.dtype} array")
        if values.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {values.shape}")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        if stream is None or stream.is_null:
            self.host[...] = values
        else:
            assert values.flags.c_contiguous and values.flags.aligned, "CuPy would copy it to memory that is not pinned"
            whole = self._whole()
            stream.send(values, self.host, whole.room, whole.born)

    def __getitem__(self, key: Any) -> DeviceArray:
        return self._part(self.host[unwrap(key)])

    def _whole(self) -> DeviceArray:
        return self if self.whole is None else self.whole

    def _part(self, found: Any) -> DeviceArray:
        """A view stays one, within the guards of the whole."""
        shared = isinstance(found, np.ndarray) and np.shares_memory(found, self.host)
        return DeviceArray(found, whole=self._whole()) if shared else wrap(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[unwrap(key)] = unwrap(value)

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(f"the stand-in has no method {name!r}: is it known to work on CuPy arrays?")
        return lambda *args, **kwargs: self._part(getattr(self.host, name)(*map(unwrap, args), **unwrap(kwargs)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS or "where" in kwargs:
            raise TypeError(f"{ufunc.__name__}.{method} with {sorted(kwargs)} is not known to work on CuPy arrays")
        return self._call(ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        name = function.__name__
        if name in ("empty_like", "zeros_like", "full_like"):
            fill = {"empty_like": None, "zeros_like": 0}.get(name, args[1] if len(args) > 1 else None)
            return allocate(kwargs.pop("shape", self.shape), kwargs.pop("dtype", None) or self.dtype, fill)
        if name not in FUNCTIONS:
            raise TypeError(f"numpy.{name} is not known to work on CuPy arrays")
        return self._call(function, args, kwargs)

    @staticmethod
    def _call(function: Any, args: tuple, kwargs: dict) -> Any:
        out = kwargs.get("out")
        found = function(*map(unwrap, args), **unwrap(kwargs))
        if out is not None:
            return out[0] if isinstance(out, tuple) else out
        return wrap(found)


def wrap(found: Any) -> DeviceArray:
    host = np.asarray(found)
    out = allocate(host.shape, host.dtype)
    out.host[...] = host
    return out


def unwrap(value: Any) -> Any:
    """What is inside; a NumPy array beside device arrays is refused, as CuPy would."""
    if isinstance(value, DeviceArray):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, dict):
        return {key: unwrap(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(unwrap, value))
    return value


class RawFunction:
    """One kernel of a module."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.name, self.parts = name, loader.parse(module.code)[name]
        self.call = getattr(build.load(module.library), f"run_{name}")
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(self, grid: tuple[int], block: tuple[int], args: tuple, shared_mem: int = 0) -> None:
        with streams.TRAFFIC.lock:  # one kernel at a time; no copy gets on meanwhile
            self._run(grid, block, args, shared_mem)

    def _run(self, grid: tuple[int], block: tuple[int], args: tuple, shared_mem: int) -> None:
        assert len(args) == len(self.parts) and grid[0] > 0 and shared_mem <= self.max_dynamic_shared_size_bytes
        plain, before = [], []
        for part, value in zip(self.parts, args, strict=True):
            if part.pointer:
                plain.append(ctypes.c_void_p(value.host.ctypes.data))
                if part.constant:
                    before.append((part.name, value, value.host.tobytes()))
            else:
                plain.append(np.ctypeslib.as_ctypes_type(value.dtype)(value.item()))
        if StandIn.seed is not None:
            StandIn.seed += 1
        streams.TRAFFIC.tick()
        streams.TRAFFIC.log.append(("launch", self.name))
        MEMORY.launches[self.name] = MEMORY.launches.get(self.name, 0) + 1
        numbers = (ctypes.c_ulonglong(shared_mem), ctypes.c_ulonglong(StandIn.seed or 0))
        code = self.call(grid[0], block[0], *numbers, *plain)
        if code:
            raise RuntimeError(f"{self.name}: {('', 'diverged', 'part of a warp', 'past the shared memory')[code]}")
        for name, value, bits in before:
            if value.host.tobytes() != bits:
                raise RuntimeError(f"{self.name}: wrote into {name}")
        for part, value in zip(self.parts, args, strict=True):
            if part.pointer and value.room is not None:
                ends = np.concatenate([value.room[:GUARD], value.room[len(value.room) - GUARD :]])
                if (ends != FILL).any():
                    raise RuntimeError(f"{self.name}: wrote outside {part.name}")


class RawModule:
    """A source, built."""

    def __init__(self, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        self.code, self.library = code, build.build(code, options)

    def get_function(self, name: str) -> RawFunction:
        return RawFunction(self, name)


class StandIn:
    """The array module."""

    ndarray = DeviceArray
    RawModule = RawModule
    cuda = SimpleNamespace(
        Stream=streams.Stream, Event=streams.Event, alloc_pinned_memory=streams.alloc_pinned_memory,
        get_current_stream=streams.get_current_stream, get_elapsed_time=streams.get_elapsed_time,
    )  # fmt: skip
    seed: int | None = 0  # of the order of blocks and lanes; counts up with each launch

    @staticmethod
    def asarray(values: Any) -> DeviceArray:
        assert isinstance(values, np.ndarray)
        return wrap(values)

    @staticmethod
    def empty(shape: Any, dtype: Any = float) -> DeviceArray:
        return allocate(shape, dtype)

    @staticmethod
    def arange(stop: int, dtype: Any = None) -> DeviceArray:
        return wrap(np.arange(stop, dtype=dtype))

    @staticmethod
    def zeros(shape: Any, dtype: Any = float) -> DeviceArray:
        return allocate(shape, dtype, 0)
