"""Locks: one holder at a time, and one line for whoever comes second."""

import os

import pytest
from filelock import FileLock

from t2i.core.errors import UserError
from t2i.core.io.locks import (
    LOCK,
    folder_lock,
    is_held,
    take_folder,
    take_or_refuse,
    take_or_wait,
)


def test_a_folder_is_made_and_held_by_one(tmp_path):
    first, second = folder_lock(tmp_path / "a" / "run"), FileLock(tmp_path / "a" / "run" / LOCK)
    take_folder(first, "taken")
    with pytest.raises(UserError, match=r"^taken$"):
        take_folder(second, "taken")
    first.release()
    take_folder(second, "taken")
    second.release()


def test_what_is_no_folder_or_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        UserError, match=r"file is there already, and is no folder: choose another --out"
    ):
        take_folder(folder_lock(tmp_path / "file"), "taken")
    with pytest.raises(
        UserError, match=r"cannot write to .*run: Not a directory; choose another --out"
    ):
        take_folder(folder_lock(tmp_path / "file" / "run"), "taken")


def test_whoever_waits_says_so_and_takes_it_then(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    take_or_refuse(first, "taken")
    said = []

    def waits():
        said.append("waiting")
        first.release()

    take_or_wait(second, waits)
    assert (said, second.is_locked) == (["waiting"], True)
    second.release()
    take_or_wait(first, waits)
    assert said == ["waiting"]
    first.release()


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "folder", "pipe"])
def test_a_lock_file_that_is_something_else_is_refused_and_left_alone(tmp_path, kind):
    mine, file = tmp_path / "mine", tmp_path / "run" / LOCK
    mine.write_text("precious")
    file.parent.mkdir()
    {
        "link": lambda: file.symlink_to(mine),
        "dangling": lambda: file.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(mine, file),
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
    }[kind]()
    with pytest.raises(UserError, match=r"\.lock is no lock file, but a link .*: remove it"):
        take_folder(folder_lock(file.parent), "taken")
    with pytest.raises(UserError, match="remove it"):
        take_or_wait(folder_lock(file.parent), lambda: None)
    assert not is_held(folder_lock(file.parent))
    assert mine.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_looking_at_a_lock_tells_who_holds_it(tmp_path):
    first = folder_lock(tmp_path)
    assert not is_held(folder_lock(tmp_path))
    take_or_refuse(first, "taken")
    assert is_held(folder_lock(tmp_path))
    first.release()
    assert not is_held(folder_lock(tmp_path))
