"""Locks: one holder at a time, and one line for whoever comes second."""

import pytest
from filelock import FileLock

from t2i.core.errors import UserError
from t2i.core.io.locks import LOCK, folder_lock, take_folder, take_or_refuse, take_or_wait


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
