"""Folders that are whole or absent."""

import errno
import os
import subprocess

import pytest
from safetensors import SafetensorError

from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes
from t2i.core.io.folders import arrive_numbered, arriving, filling
from t2i.core.io.sealed import intact, sealed


def test_of_two_commands_that_make_one_folder_the_second_says_so(tmp_path):
    out = tmp_path / "out"

    def two():
        with arriving(out) as place:
            (place / "x").write_text("second")
            out.mkdir()
            (out / "x").write_text("first")

    with pytest.raises(UserError, match="out is there already, and not empty"):
        two()
    assert (out / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_arrives_where_a_link_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with arriving(tmp_path / "out") as place:
        (place / "x").touch()
    assert (tmp_path / "disk" / "x").exists()
    assert (tmp_path / "out").is_symlink()


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    """Libraries that write safetensors give the system's error as text."""
    with pytest.raises(OSError, match="No space left") as caught, arriving(tmp_path / "out"):
        raise SafetensorError("Error while serializing: I/O error: File (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".out.{process}.tmp").mkdir()
        (tmp_path / f".file.{process}.tmp").touch()
    with arriving(tmp_path / "out"):
        pass
    write_bytes(tmp_path / "file", b"")
    with sealed(tmp_path / "sealed"):
        (tmp_path / ".sealed.old").mkdir()  # of a replacement that was cut off at its end
    assert intact(tmp_path / "sealed")
    alive = [f".file.{os.getppid()}.tmp", f".out.{os.getppid()}.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*alive, "file", "out", "sealed"]


def test_folders_without_a_name_of_their_own_take_the_first_that_is_free(tmp_path):
    found = []
    for _ in range(3):
        with filling(tmp_path / "a" / "it") as place:
            (place / "x").touch()
            found.append(arrive_numbered(place, tmp_path / "a" / "it").name)
    assert found == ["it", "it-2", "it-3"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == found
