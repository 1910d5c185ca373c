"""The folder of a long run: whole files or none, one run at a time, and the same run alone goes on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys

import numpy as np
import pytest

from stdeconv_fast import work_folder
from stdeconv_fast.errors import DataError
from stdeconv_fast.work_folder import WorkFolder, digest, read_arrays, write_array

RUN = {"lambda_ridge": 1.0, "data": "9f3a", "tuned": True, "most": None}


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run"


def files_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def lock_of(place, **changes):
    """A lock as another process leaves it."""
    place.mkdir(exist_ok=True)
    holder = {"pid": os.getpid(), "host": platform.node(), "started": work_folder._start_of(os.getpid()), **changes}
    (place / "lock").write_text(json.dumps(holder))


def ended_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


# -- what is written -------------------------------------------------------------------------------------------------


def test_arrays_come_back(place):
    with WorkFolder(place, RUN) as folder:
        assert folder.read("alone/000001") is None and not folder.has("alone/000001")
        folder.write("alone/000001", values=np.arange(6, dtype=np.float32).reshape(2, 3), turn=3, word="joint")
        folder.write("alone/000002", sync=True, empty=np.zeros((0, 2), np.uint16))
        found = folder.read("alone/000001")
        assert folder.has("alone/000001")
        np.testing.assert_array_equal(found["values"], [[0, 1, 2], [3, 4, 5]])
        assert found["values"].dtype == np.float32 and found["turn"] == 3 and found["word"] == "joint"
        assert folder.read("alone/000002")["empty"].shape == (0, 2)
        folder.write("alone/000001", values=np.ones(1))
        assert list(folder.read("alone/000001")) == ["values"]


def test_a_single_array_comes_back_from_its_pages(place):
    with WorkFolder(place, RUN) as folder:
        write_array(folder.room("tiles") / "000000-data.npy", np.arange(5, dtype=np.uint8))
        found = np.load(place / "store/tiles/000000-data.npy", mmap_mode="r")
        np.testing.assert_array_equal(found, np.arange(5))


@pytest.mark.parametrize("harm", ["cut short", "another byte", "empty"])
def test_a_damaged_file_is_as_good_as_none(place, harm):
    with WorkFolder(place, RUN) as folder:
        folder.write("alone/000001", values=np.arange(1000.0))
        file = place / "store/alone/000001.npz"
        content = bytearray(file.read_bytes())
        content[3000] ^= 1
        file.write_bytes({"cut short": content[:5000], "another byte": content, "empty": b""}[harm])
        assert folder.read("alone/000001") is None
        assert read_arrays(file) is None


def test_what_fails_leaves_the_old_file(place):
    class Unwritable:
        def __array__(self, *_, **__):
            raise RuntimeError("no room")

    with WorkFolder(place, RUN) as folder:
        folder.write("alone/000001", values=np.ones(3))
        with pytest.raises(RuntimeError, match="no room"):
            folder.write("alone/000001", values=np.zeros(3), other=Unwritable())
        np.testing.assert_array_equal(folder.read("alone/000001")["values"], np.ones(3))
        assert files_in(place / "store") == ["alone/000001.npz"]


def test_remove_takes_what_it_is_told(place):
    with WorkFolder(place, RUN) as folder:
        for name in ("settle/state", "settle/0001-000002", "settle/0002-000002", "alone/000001"):
            folder.write(name, values=np.ones(1))
        folder.remove("settle", lambda stem: stem.startswith("0001"))
        assert files_in(place / "store") == ["alone/000001.npz", "settle/0002-000002.npz", "settle/state.npz"]
        folder.remove("settle")
        folder.remove("not there")
        assert files_in(place / "store") == ["alone/000001.npz"]


def test_digest_tells_content_shape_and_dtype_apart():
    values = np.arange(6.0)
    different = [values, values.reshape(2, 3), values.astype(np.float32), values + 1, 6.0, 6, "6", None, (values, 1)]
    names = [digest(part) if not isinstance(part, tuple) else digest(*part) for part in different]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names)
    assert digest(values.reshape(2, 3).T.copy()) == digest(values.reshape(2, 3).T)
    assert digest(np.zeros(0)) == digest(np.zeros(0)) != digest()


# -- whose folder it is ----------------------------------------------------------------------------------------------


def test_a_new_or_empty_folder_is_taken(place):
    WorkFolder(place, RUN).close()
    assert json.loads((place / "manifest.json").read_text()) == RUN
    assert files_in(place) == ["manifest.json"]
    (place / "manifest.json").unlink()
    (place / "store").rmdir()
    WorkFolder(place, RUN, resume=True).close()


def test_a_run_goes_on_with_resume_alone(place):
    with WorkFolder(place, RUN) as folder:
        folder.write("alone/000001", values=np.ones(1))
    message = (
        f"`work_folder` must be new or empty; got '{place}', which holds a run. "
        "Pass resume=True (--resume) to go on with it, or name another folder."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        WorkFolder(place, RUN)
    with WorkFolder(place, RUN, resume=True) as folder:
        assert folder.has("alone/000001")


def test_another_run_is_told_by_what_differs(place):
    WorkFolder(place, RUN).close()
    other = {"lambda_ridge": 2.0, "data": "9f3a", "tuned": True, "n_tiles": 4}
    message = (
        "`work_folder` must be of the same run; got lambda_ridge 2.0 for 1.0, most not there for None, n_tiles 4 for "
        f"none in '{place}'. Pass the same data and settings, or name another folder."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        WorkFolder(place, other, resume=True)
    WorkFolder(place, RUN, resume=True).close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_something_else_is_refused(place, resume):
    place.mkdir()
    (place / "thesis.tex").write_text("")
    rule = "new or empty or hold a run" if resume else "new or empty"
    with pytest.raises(DataError, match=rf"`work_folder` must be {rule}; got '.*', which holds 'thesis.tex'"):
        WorkFolder(place, RUN, resume)
    assert files_in(place) == ["thesis.tex"]


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"`work_folder` must name a folder; got the file '.*file'\. Name another"):
        WorkFolder(tmp_path / "file", RUN)
    with pytest.raises(DataError, match=r"`work_folder` must lie in a folder that exists; got '.*', and there is no"):
        WorkFolder(tmp_path / "none" / "run", RUN)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match=r"`work_folder` must be a folder that can be written; got '.*' \(Perm"):
            WorkFolder(tmp_path / "run", RUN)
    finally:
        tmp_path.chmod(0o700)


# -- one run at a time -----------------------------------------------------------------------------------------------


def test_two_runs_at_once_are_refused(place):
    with WorkFolder(place, RUN):
        with pytest.raises(DataError, match=rf"one run at a time; got '.*', in use by process {os.getpid()} on "):
            WorkFolder(place, RUN, resume=True)
        assert (place / "lock").exists()
    assert not (place / "lock").exists()
    WorkFolder(place, RUN, resume=True).close()


def test_a_failed_start_gives_the_folder_back(place):
    WorkFolder(place, RUN).close()
    with pytest.raises(DataError, match="same run"):
        WorkFolder(place, {}, resume=True)
    assert not (place / "lock").exists()


@pytest.mark.parametrize("who", ["ended", "number used again", "this number before", "half-dead"])
def test_the_lock_of_a_process_that_is_no_more_is_taken_over(place, who):
    lock_of(place, **{
        "ended": {"pid": ended_process()}, "number used again": {"pid": os.getppid(), "started": "7"},
        "this number before": {}, "half-dead": {},
    }[who])  # fmt: skip
    zombie = None
    if who == "half-dead":
        zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        zombie.stdout.read()
        while work_folder._start_of(zombie.pid) not in ("ended", ""):
            pass
        lock_of(place, pid=zombie.pid, started="8")
    with WorkFolder(place, RUN):
        assert json.loads((place / "lock").read_text())["pid"] == os.getpid()
    if zombie:
        zombie.communicate()
    assert files_in(place) == ["manifest.json"]


@pytest.mark.parametrize("who", ["another process", "another machine", "unreadable"])
def test_the_lock_of_a_process_that_may_run_is_kept(place, who):
    parent = os.getppid()
    lock_of(place, **{
        "another process": {"pid": parent, "started": work_folder._start_of(parent)},
        "another machine": {"host": "elsewhere", "pid": 1}, "unreadable": {},
    }[who])  # fmt: skip
    if who == "unreadable":
        (place / "lock").write_text("")
    before = (place / "lock").read_text()
    with pytest.raises(DataError, match=r"Wait for it; if it is no more, remove '.*lock'\."):
        WorkFolder(place, RUN, resume=True)
    assert (place / "lock").read_text() == before


# -- leftovers -------------------------------------------------------------------------------------------------------


def test_half_written_files_of_a_killed_run_go(place):
    with WorkFolder(place, RUN) as folder:
        folder.write("alone/000001", values=np.ones(1))
    for part in (place / "store/alone/.0123456789ab.part", place / ".0123456789ab.part"):
        part.write_text("half")
    with WorkFolder(place, RUN, resume=True):
        assert files_in(place / "store") == ["alone/000001.npz"]
    assert files_in(place) == ["manifest.json", "store/alone/000001.npz"]


def test_a_run_killed_before_its_manifest_begins_anew(place):
    lock_of(place, pid=ended_process())
    (place / ".0123456789ab.part").write_text("half")
    WorkFolder(place, RUN).close()
    assert files_in(place) == ["manifest.json"]


def test_clear_leaves_nothing(place):
    folder = WorkFolder(place, RUN)
    folder.write("alone/000001", values=np.ones(1))
    write_array(folder.room("tiles") / "000000-data.npy", np.ones(1))
    folder.clear()
    assert not place.exists()


def test_clear_leaves_what_others_wrote(place):
    folder = WorkFolder(place, RUN)
    folder.write("alone/000001", values=np.ones(1))
    (place / "notes.txt").write_text("mine")
    (place / "store/alone/notes.txt").write_text("mine")
    folder.clear()
    assert files_in(place) == ["notes.txt", "store/alone/notes.txt"]
