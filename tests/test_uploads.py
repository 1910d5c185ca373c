"""Large arrays on their way to the device: what waits for them, and that a wait that is missing is told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from stdeconv_fast import backend, uploads
from stdeconv_fast.kernels.cpu.counts import sum_genes
from stdeconv_fast.parallel import hold_workers
from tests.cuda_shim.child import ROOT
from tests.cuda_shim.first_solve import BLOCK, UPLOAD, find, make_counts
from tests.cuda_shim.stand_in import DeviceArray, StandIn
from tests.cuda_shim.streams import TRAFFIC, Event, Stream, alloc_pinned_memory
from tests.test_cuda_kernels import SHIM

LAND = "self.block(self.n_blocks - 1)[1].synchronize()"
# what is changed in uploads.py, into what, how it is told
FAULTS = {
    "a range of rows waits for nothing": ("            stream.wait_event(event)\n", "", "differs"),
    "a range of rows waits for the block before": (
        "stream.wait_event(event)", "stream.wait_event(self.block(max(number - 1, 0))[1])", "differs",
    ),
    "a row is solved before its last counts are up": (
        'int(np.searchsorted(self._indptr, entries, side="right")) - 1',
        'min(int(np.searchsorted(self._indptr, entries, side="right")), len(self._indptr) - 1)', "differs",
    ),
    "a buffer is filled before it was copied": (
        "                self._emptied[turn].synchronize()\n", "                pass\n", "filled again before the copy",
    ),
    "a buffer is given back before it was copied": (
        "            return self._emptied[turn]",
        "            self._buffers[turn] = np.frombuffer(self.xp.cuda.alloc_pinned_memory(BLOCK), np.uint8, BLOCK)\n"
        "            return self._emptied[turn]", "given back before",
    ),
    "other kernels wait for nothing": (LAND, LAND.replace("[1].synchronize()", ""), "differs|was given back while"),
    "other kernels do without the last block": (LAND, LAND.replace("- 1)", "- 2)"), "differs"),
    "an operation gets the bare array": (
        "return self.upload.land()[self.number]", "return self.upload._there[self.number]", "differs",
    ),
    "copies do not wait for the memory they go to": (
        "self._stream.wait_event(self._record(self.xp.cuda.get_current_stream()))", "pass", "may still use",
    ),
    "memory is given back while it is copied to": (
        "self._last.land()  # one at a time", "self._last.drop()  # one at a time", "was given back while",
    ),
    "the end waits for nothing": (
        "                self._stream.synchronize()\n", "                pass\n", "given back",
    ),
}  # fmt: skip


@cache
def found():
    """What `first_solve` says: of the sources as they are (None), and of each fault."""
    changes = [None, *((old, new) for old, new, _ in FAULTS.values())]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.cuda_shim.first_solve"], input=json.dumps(changes),
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip([None, *FAULTS], json.loads(done.stdout), strict=True))


@SHIM
def test_uploads_by_blocks_give_the_bits_of_plain_ones():
    assert found()[None]["told"] == [None, None]


@pytest.mark.gpu
def test_uploads_by_blocks_give_the_bits_of_plain_ones_on_a_gpu(monkeypatch):
    plain = find(make_counts())
    monkeypatch.setattr(uploads, "BLOCK", BLOCK)
    monkeypatch.setattr(backend, "UPLOAD", UPLOAD)
    for one, other in zip(find(make_counts()), plain, strict=True):
        np.testing.assert_array_equal(one, other)


@SHIM
def test_the_first_solve_begins_before_the_counts_are_up():
    log = [tuple(entry) for entry in found()[None]["log"]]
    counts = make_counts()
    n_blocks = -(-len(counts.data) // ((BLOCK - 2 * uploads.ALIGN) // 4))
    assert n_blocks > 5
    solve = [at for at, entry in enumerate(log) if entry == ("launch", "solve_spots")]
    assert len(solve) == n_blocks  # here each block ends another row
    first = log[: solve[0]]
    assert [entry for entry in first if entry[0] == "sent"] == [("sent", number) for number in (1, 2, 3, 4)]
    assert [entry for entry in first if entry[0] == "done"] == [("done", 1), ("done", 2)]  # genes and counts of a block
    for number, at in enumerate(solve):  # a range waits for its own block, and not for the next one
        assert ("done", 2 * number + 2) in log[:at]
        assert ("done", 2 * number + 3) not in log[:at]


@SHIM
def test_one_buffer_is_filled_while_the_other_is_copied():
    log = [tuple(entry) for entry in found()[None]["log"]]
    n_blocks = log.count(("launch", "solve_spots"))
    for number in range(n_blocks, 2 * n_blocks):  # of the next upload, which all of is waited for
        sent = log.index(("sent", 2 * number + 1))
        if number >= n_blocks + 2:
            assert log.index(("done", 2 * number - 2)) < sent
        assert number == n_blocks or sent < log.index(("done", 2 * number - 1))


@SHIM
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_told(name):
    for said in found()[name]["told"]:
        assert said is not None, f"{name}: nothing noticed"
        assert any(part in said for part in FAULTS[name][2].split("|")), said
    print(f"{name}: {said}")


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a few numbers go up by several; copies as late as they may be."""
    monkeypatch.setattr(uploads, "BLOCK", BLOCK)
    monkeypatch.setattr(backend, "UPLOAD", UPLOAD)
    TRAFFIC.reset()
    yield
    TRAFFIC.reset()


@pytest.fixture
def device(small, monkeypatch):
    monkeypatch.setattr(backend, "find_card", lambda: backend.Card(StandIn, "stand-in", 1 << 30, 64 << 10))
    with backend.hold_device("cuda", 1) as held:
        yield held
    assert not TRAFFIC.pending()
    TRAFFIC.check()


def test_what_is_on_its_way_is_known_but_not_there(device):
    counts = make_counts()
    there = device.place(counts)
    assert isinstance(there.data, uploads.OnItsWay) and isinstance(there.totals, DeviceArray)
    assert (there.data.dtype, there.data.shape, len(there.data)) == (np.uint16, counts.data.shape, len(counts.data))
    assert (there.data.nbytes, there.indices.ndim, there.n_spots) == (counts.data.nbytes, 1, counts.n_spots)
    assert TRAFFIC.pending() == 4  # both buffers, nothing waited
    assert device.place((there,))[0] is there and TRAFFIC.pending() == 4
    for refused in (lambda: np.add(there.data, 1), lambda: there.totals + there.data, lambda: there.data + 1):
        with pytest.raises(TypeError):
            refused()
    np.testing.assert_array_equal(there.data[5:90].get(), counts.data[5:90])
    assert isinstance(there.data, DeviceArray) and isinstance(there.indices, DeviceArray) and not TRAFFIC.pending()
    assert there.data.size == len(counts.data)


def test_an_attribute_waits(device):
    counts = make_counts()
    coming = device.place(counts).data
    np.testing.assert_array_equal(coming.astype(np.float32).get(), counts.data)
    assert not TRAFFIC.pending()
    assert float(coming.sum()) == counts.data.sum()  # that was handed out before stays good


def test_parcels_come_back_as_they_went(device):
    counts = make_counts()
    back = device.fetch(device.place((counts, 3)))
    assert back[1] == 3 and type(back[0]) is type(counts)
    for name in ("indptr", "indices", "data", "totals"):
        np.testing.assert_array_equal(getattr(back[0], name), getattr(counts, name))
    matrix = np.arange(3000.0).reshape(30, 100)
    sent = device.place(matrix)
    matrix[:] = -1  # what is no count is up at once
    np.testing.assert_array_equal(sent.get(), np.arange(3000.0).reshape(30, 100))
    device.place(counts)  # never used: the end waits for what is under way, and leaves the rest


def test_without_overlap_counts_are_up_at_once(device, monkeypatch):
    monkeypatch.setattr(backend, "OVERLAP", False)
    counts = make_counts(np.float64, np.float64)
    there = device.place(counts)
    assert isinstance(there.data, DeviceArray) and not TRAFFIC.pending()
    np.testing.assert_array_equal(there.data.get(), counts.data)


def test_an_error_leaves_no_copy_under_way(small, monkeypatch):
    monkeypatch.setattr(backend, "find_card", lambda: backend.Card(StandIn, "stand-in", 1 << 30, 64 << 10))
    with pytest.raises(ZeroDivisionError), backend.hold_device("cuda", 1) as device:
        there = device.place(make_counts())
        assert TRAFFIC.pending()
        raise ZeroDivisionError
    assert not TRAFFIC.pending()
    TRAFFIC.check()
    with pytest.raises(RuntimeError, match="let go before these counts were up"):
        there.data.sum()


def test_an_error_within_a_copy_leaves_the_buffer_guarded(device, monkeypatch):
    """One part of a block was sent, the next one fails: the buffer waits for the first."""
    held, coming, copyto = make_counts(), None, np.copyto
    coming = device.place(held).data

    def fail(there, host):
        if host.dtype == np.uint16 and host.base is held.data:
            raise OSError("the file of the counts is gone")
        copyto(there, host)

    with monkeypatch.context() as patched:
        patched.setattr(np, "copyto", fail)
        with pytest.raises(OSError, match="is gone"):
            coming.sum()
    assert float(coming.sum()) == held.data.sum()


def test_rows_go_only_where_no_row_reads_another(device):
    from stdeconv_fast.kernels.cpu import spots
    from stdeconv_fast.kernels.cuda.loader import parameters

    names = [part.name for part in parameters("spots")["solve_spots"]]
    names = names[: names.index("spots") + 1]

    def goes(n=4, edges=0, order=(0, 1, 2, 3), kernel=spots.solve_spots):
        given = dict.fromkeys(names) | {
            "indptr": np.zeros(5, np.int64), "graph_indices": np.zeros(edges, np.int32),
            "spots": np.array(order, np.int32),
        }  # fmt: skip
        return device._twins.goes_by_rows(kernel, n, device.place(tuple(given.values())))

    assert goes()
    assert not goes(edges=2) and not goes(order=(1, 0, 2, 3)) and not goes(n=3, order=(0, 1, 2))
    assert not goes(kernel=spots.visit_spots) and not goes(kernel=sum_genes)


def test_threads_share_the_buffers(small):
    TRAFFIC.lots = random.Random(4)
    arrays = [np.random.default_rng(seed).random(3000) for seed in range(12)]
    with hold_workers(4) as workers, ThreadPoolExecutor(4) as pool:
        device = backend.Device(backend.Card(StandIn, "stand-in", 1 << 30, 64 << 10), workers)
        coming = device.place(make_counts()).data
        totals = pool.map(lambda _: float(coming.sum()), range(4))
        for array, there in zip(arrays, pool.map(device.place, arrays), strict=True):
            np.testing.assert_array_equal(there.get(), array)
        assert set(totals) == {make_counts().data.sum()}
        device.close()
    TRAFFIC.check()
    assert not TRAFFIC.pending()


def test_the_stand_in_refuses_copies_that_cuda_leaves_open(small):
    with pytest.raises(TypeError, match="non_blocking"):
        Stream()
    with pytest.raises(RuntimeError, match="nothing recorded"):
        Stream.null.wait_event(Event())
    stream, there = Stream(non_blocking=True), StandIn.empty(4, dtype=np.float64)
    with pytest.raises(TypeError, match="pinned memory"):
        stream.wait_event(Stream.null.record())
        there.set(np.zeros(4), stream=stream)
    pinned = np.frombuffer(alloc_pinned_memory(64), np.float64)
    with pytest.raises(TypeError, match="cannot be set"):
        there.set(pinned[:4].astype(np.float32), stream=stream)
    with pytest.raises(ValueError, match="Shape mismatch"):
        there.set(pinned, stream=stream)
    pinned[:4] = 7
    there.set(pinned[:4], stream=stream)
    assert np.isnan(there.get()).all()
    pinned[0] = 8
    with pytest.raises(RuntimeError, match="filled again"):
        stream.synchronize()
    later = StandIn.empty(4, dtype=np.float64)
    with pytest.raises(RuntimeError, match="may still use"):
        later.set(pinned[:4], stream=stream)
