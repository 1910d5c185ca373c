"""The device seam: where the kernels run. Only this file may import CuPy.

`Device` takes the place of `parallel.Workers`: it runs the CUDA twin of a kernel where the arrays lie on the device,
and the CPU kernel where they do not. So the stages are written once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from .errors import DeviceError
from .kernels.cuda import loader
from .parallel import LIGHT, Workers, hold_workers
from .parcels import Counts
from .uploads import OnItsWay, Uploads, landed

log = logging.getLogger("stdeconv_fast")

INSTALL = "Run pip install 'stdeconv-fast[cuda12]' (or [cuda13])"
UPLOAD = 1 << 26  # bytes: larger arrays go up by blocks
OVERLAP = True  # whether work on counts begins before they are up; benchmarks measure what that gains
IN_FLOAT64 = {"standard_errors": "measure_errors", "detection": "weigh_presence"}
SPARE = 0.9  # of the free memory that a run may plan with


@dataclass(frozen=True)
class Card:
    """A device: its array module, its name, bytes of free memory, bytes of shared memory that a block may ask for."""

    xp: Any
    name: str
    free: int
    shared: int


def find_card() -> Card:
    """The current CUDA device.

    Raises
    ------
    DeviceError
        CuPy or a GPU is missing; the message names the remedy.
    """
    from importlib.util import find_spec

    if find_spec("cupy") is None:
        raise DeviceError(f"`device`='cuda' must find CuPy; got none. {INSTALL}.")
    import cupy

    try:
        there = cupy.cuda.is_available()
        count = cupy.cuda.runtime.getDeviceCount() if there else 0
    except Exception as error:  # the driver's errors are of many classes
        raise DeviceError(f"`device`='cuda' must find an NVIDIA GPU; got {error}. Check nvidia-smi.") from error
    if not count:
        raise DeviceError(
            "`device`='cuda' must find an NVIDIA GPU; got none. Check nvidia-smi and CUDA_VISIBLE_DEVICES, or pass "
            "device='cpu'."
        )
    device = cupy.cuda.Device(number_for(count))
    device.use()
    name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    return Card(cupy, name, int(device.mem_info[0]), int(device.attributes["MaxSharedMemoryPerBlockOptin"]))


def number_for(count: int) -> int:
    """Number of the device that this process uses: workers of joblib take them in turn, all else takes the first."""
    from multiprocessing import current_process

    number = current_process().name.rpartition("-")[2]
    return (int(number) - 1) % count if number.isdigit() else 0


def choose_device(device: str) -> str:
    """The device that a run uses, "cpu" or "cuda"; says it in the log.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        "auto": CUDA where CuPy and a GPU are there.

    Raises
    ------
    DeviceError
        "cuda" was asked for, and CuPy or a GPU is missing.
    """
    if device == "cpu":
        log.info("device: cpu")
        return "cpu"
    try:
        card = find_card()
    except DeviceError as error:
        if device == "cuda":
            raise
        log.info("device: cpu (%s)", str(error).removeprefix("`device`='cuda' "))
        return "cpu"
    log.info("device: cuda (%s)", card.name)
    return "cuda"


def agree(device: str, asked: str, n_types: int, dtype: Any, notes: list[str], more: tuple[str, ...] = ()) -> str:
    """The device of a run whose data is known: "cpu" where CUDA cannot run it and `asked` is "auto", with a note.

    `more`: see `refusal`.

    Raises
    ------
    DeviceError
        CUDA was asked for and cannot run it.
    """
    if device == "cpu":
        return "cpu"
    reason = refusal(find_card(), n_types, dtype, more)
    if reason is None:
        return device
    if asked == "cuda":
        raise DeviceError(reason)
    log.info("device: cpu (%s)", reason)
    notes.append(f"device='auto' runs on the CPU. {reason}")
    return "cpu"


@contextmanager
def hold_device(device: str, n_jobs: int | None) -> Iterator[Workers]:
    """Hold threads open and, where `device` is "cuda", the device with them.

    Raises
    ------
    DeviceError
        The device ran out of memory inside the block.
    """
    with hold_workers(n_jobs) as workers:
        if device == "cpu":
            yield workers
            return
        card = find_card()
        held = Device(card, workers)
        try:
            yield held
        except MemoryError as error:
            if not type(error).__module__.startswith("cupy"):
                raise
            raise DeviceError(
                f"device='cuda' must have enough free memory; {card.name} ran out of it ({error}). "
                "Pass more `tiles` or device='cpu'."
            ) from error
        finally:
            held.close()


@cache
def _twins(xp: Any, shared: int) -> loader.Twins:
    """The twins, built once for all runs and tiles of a process."""
    return loader.Twins(xp, shared)


class Device(Workers):
    """A device, and the threads of the host beside it; see `hold_device`.

    Parameters
    ----------
    card : Card
    workers : Workers
        What runs where the arrays are the host's.
    """

    width = 64

    def __init__(self, card: Card, workers: Workers) -> None:
        super().__init__(workers.n, workers._pool)
        self.card, self.host = card, workers
        self.device = f"cuda ({card.name})"
        self._twins = _twins(card.xp, card.shared)
        self._uploads = Uploads(card.xp)

    def close(self) -> None:
        """Wait for copies under way; what is still on its way cannot be used any more."""
        self._uploads.close()

    def _here(self, values: tuple) -> bool:
        """Whether arrays lie on the device: all of them or none."""
        arrays = [value for value in values if hasattr(value, "dtype") and getattr(value, "ndim", 0)]
        ours = [isinstance(value, (self.card.xp.ndarray, OnItsWay)) for value in arrays]
        if any(ours) and not all(ours):
            raise TypeError("a kernel takes arrays of the device or of the host, not both")
        return any(ours)

    def over(self, kernel: Callable[..., None], n: int, before: tuple, after: tuple, size: int = LIGHT) -> None:
        if not self._here((*before, *after)):
            super().over(kernel, n, before, after, size)
            return
        coming = next((value for value in before if isinstance(value, OnItsWay)), None)
        if coming is not None and self._twins.goes_by_rows(kernel, n, before):
            for start, stop, bare in coming.upload.by_rows(before):
                self._twins.launch(kernel, (*bare, start, stop, *after), stop - start)
        else:
            self._twins.over(kernel, n, _all_up(before), _all_up(after))

    def span(self, kernel: Callable[..., None], start: int, stop: int, before: tuple, after: tuple) -> None:
        if self._here((*before, *after)):
            self._twins.launch(kernel, (*_all_up(before), start, stop, *_all_up(after)), stop - start)
        else:
            super().span(kernel, start, stop, before, after)

    def sums(
        self, kernel: Callable[..., None], n: int, before: tuple, shape: tuple[int, ...], parts: int = 16,
        after: tuple = (),
    ) -> np.ndarray:  # fmt: skip
        if self._here((*before, *after)):
            return self._twins.sums(kernel, n, _all_up(before), shape, _all_up(after)).get()
        return super().sums(kernel, n, before, shape, parts, after)

    def place(self, parcel: Any) -> Any:
        """The same parcel, array or tuple with its arrays on the device.

        Large counts may still be on their way: what needs them waits.
        """
        if isinstance(parcel, np.ndarray):
            return self._upload(np.ascontiguousarray(parcel)) if parcel.ndim else parcel
        if OVERLAP and isinstance(parcel, Counts) and _is_large(parcel):
            indptr, totals = self.place((parcel.indptr, parcel.totals))
            return self._uploads.start(replace(parcel, indptr=indptr, totals=totals), parcel.indptr)
        return _rebuild(parcel, self.place)

    def fetch(self, parcel: Any) -> Any:
        """The same parcel, array or tuple with its arrays on the host."""
        parcel = landed(parcel)
        return parcel.get() if isinstance(parcel, self.card.xp.ndarray) else _rebuild(parcel, self.fetch)

    def _upload(self, array: np.ndarray) -> Any:
        return self.card.xp.asarray(array) if array.nbytes <= UPLOAD else self._uploads.send(array)


def _is_large(counts: Counts) -> bool:
    """Whether counts of the host go up by blocks."""
    return isinstance(counts.data, np.ndarray) and counts.indices.nbytes + counts.data.nbytes > UPLOAD


def _all_up(values: tuple) -> tuple:
    return tuple(map(landed, values))


def _rebuild(parcel: Any, call: Callable[[Any], Any]) -> Any:
    """A tuple or parcel with `call` on all that it holds; a parcel that this does not change stays the same object."""
    if isinstance(parcel, tuple):
        return tuple(map(call, parcel))
    if not is_dataclass(parcel):
        return parcel
    old = {field.name: getattr(parcel, field.name) for field in fields(parcel)}
    fresh = {name: call(value) for name, value in old.items()}
    fresh = {name: value for name, value in fresh.items() if value is not old[name]}
    return replace(parcel, **fresh) if fresh else parcel


def refusal(card: Card, n_types: int, dtype: Any, more: tuple[str, ...] = ()) -> str | None:
    """Why a run cannot use the device, whatever its memory; None where it can.

    `more`: settings that need shared memory of their own, of "standard_errors" and "detection".
    """
    if n_types > loader.MOST_TYPES:
        return (
            f"device='cuda' must have at most {loader.MOST_TYPES} cell types; got {n_types}. Pass device='cpu' or "
            "exclude_types."
        )
    needed = loader.shared_bytes("solve_spots", n_types, dtype)
    if needed > card.shared:
        return (
            f"device='cuda' must have {needed:,} bytes of shared memory a block for {n_types} types in "
            f"{np.dtype(dtype).name}; got {card.shared:,} on {card.name}. Pass dtype='float32' or device='cpu'."
        )
    for setting in more:  # float64, whatever the dtype
        needed = loader.shared_bytes(IN_FLOAT64[setting], n_types, dtype)
        if needed > card.shared:
            return (
                f"device='cuda' with {setting}=True must have {needed:,} bytes of shared memory a block for {n_types} "
                f"types; got {card.shared:,} on {card.name}. Pass {setting}=False, exclude_types or device='cpu'."
            )
    return None


def plan_bytes(n_spots: int, nnz: int, n_edges: int, n_types: int, n_genes: int, entry: int, dtype: Any) -> int:
    """Bytes of device memory that a run takes at its peak.

    Parameters
    ----------
    n_spots, nnz, n_edges, n_types, n_genes : int
    entry : int
        Bytes of one kept count and its gene.
    dtype : dtype
        Working dtype.

    Notes
    -----
    The counts; the abundances, their roots, shares and Laplacian, two float64 copies for sums over spots; the graph
    with the weights by place, old and fresh; a few numbers a spot; the parts of the sums over genes.
    Standard errors and detection come after these are gone and take less: abundances, pulls and answers in float64.
    The buffers that large arrays go up through lie in the host's memory.
    """
    real = np.dtype(dtype).itemsize
    counts = nnz * entry + 8 * n_spots
    abundances = n_spots * n_types * (4 * real + 16)
    edges = n_edges * (4 + 8 + 8 + 3 * real)
    spots = n_spots * (11 * real + 40)
    return counts + abundances + edges + spots + loader.PART_BYTES + 4 * n_types * n_genes * real


def check_memory(card: Card, needed: int, n_spots: int) -> None:
    """A clear error where the device is too small.

    Raises
    ------
    DeviceError
    """
    room = int(SPARE * card.free)
    if needed > room:
        tiles = -(-needed // max(room, 1))
        raise DeviceError(
            f"device='cuda' must have {needed / 1e9:,.1f} GB of free memory for {n_spots:,} spots; got "
            f"{room / 1e9:,.1f} GB on {card.name}. Pass tiles={tiles} or device='cpu'."
        )
