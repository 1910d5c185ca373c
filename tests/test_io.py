"""Files are written whole or not at all."""

from __future__ import annotations

import os
import re

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast import DataError, simulate
from stdeconv_fast.io.atomic import atomic_path, check_writable


def test_a_finished_file_takes_its_place(tmp_path):
    target = tmp_path / "out.csv"
    with atomic_path(target) as part:
        part.write_text("a,b\n")
        assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == ".csv"
        assert not target.exists()
    assert target.read_text() == "a,b\n"
    assert os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_broken_write_leaves_the_old_file(tmp_path, exception):
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(exception), atomic_path(target) as part:
        part.write_text("half")
        raise exception
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.csv"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_old_file_is_replaced_and_its_link_kept(tmp_path):
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_path(link) as part:
        part.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"


def test_new_files_have_the_usual_permissions(tmp_path):
    with atomic_path(tmp_path / "atomic.txt") as part:
        part.write_text("x")
    (tmp_path / "plain.txt").write_text("x")
    assert (tmp_path / "atomic.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_a_relative_path_survives_a_change_of_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with atomic_path("out.txt") as part:
        os.chdir("elsewhere")
        part.write_text("x")
    assert (tmp_path / "out.txt").exists()


def test_endings_reach_the_writers(tmp_path):
    frame = pd.DataFrame({"a": [1, 2]})
    with atomic_path(tmp_path / "table.csv.gz") as part:
        frame.to_csv(part, index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv.gz", compression="gzip"), frame)
    spots = simulate(5, 4, 2, cells_per_type=3).to_anndata()[0]
    with atomic_path(tmp_path / "spots.h5ad") as part:
        spots.write_h5ad(part)
    import anndata

    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "spots.h5ad").X.toarray(), spots.X.toarray())


def test_missing_folder_is_named_before_any_work(tmp_path):
    missing = tmp_path / "no" / "such"
    with pytest.raises(DataError, match=re.escape(f"there is no folder '{missing}'")), atomic_path(missing / "a.csv"):
        pytest.fail("the block ran")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="must name a file; got the folder"):
        check_writable(tmp_path)


@pytest.mark.parametrize("locked", ["folder", "file"])
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, locked):
    target = tmp_path / "out.csv"
    target.write_text("old")
    blocked = tmp_path if locked == "folder" else target
    # the superuser may write anywhere, so the answer of the system is replaced
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != os.fspath(blocked))
    with pytest.raises(DataError, match=re.escape(f"'{blocked}'")):
        check_writable(target)


def test_check_writable_leaves_no_trace(tmp_path):
    assert check_writable(tmp_path / "out.csv") == tmp_path.resolve() / "out.csv"
    assert os.listdir(tmp_path) == []
