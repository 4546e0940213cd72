"""Atomic files and sealed folders: whole or absent, and every byte accounted for."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from t2i.core.errors import UserError
from t2i.core.io import files
from t2i.core.io.clutter import CLUTTER


@pytest.fixture
def folder(tmp_path):
    with files.sealed(tmp_path / "model") as place:
        files.save_tensors(place / "w.safetensors", {"a": torch.arange(6.0)})
        files.write_json(place / "config.json", {"x": 1})
    return tmp_path / "model"


def test_a_sealed_folder_verifies_and_leaves_no_litter(folder):
    files.verify(folder, "model")
    assert files.load_tensors(folder / "w.safetensors", "model")["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@settings(max_examples=60)
@given(data=st.data())
def test_every_flipped_byte_and_truncation_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("s") / "model"
    with files.sealed(folder) as place:
        files.write_bytes(place / "w.bin", bytes(range(64)))
        files.write_json(place / "config.json", {"x": 1})
    path = folder / data.draw(st.sampled_from(["w.bin", "config.json"]))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(content[:at])
    else:
        path.write_bytes(
            content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
        )
    with pytest.raises(UserError, match=path.name):
        files.verify(folder, "model")


def test_missing_and_surplus_files_are_noticed(folder):
    (folder / "w.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors does not belong there"):
        files.verify(folder, "model")
    (folder / "other.safetensors").unlink()
    with pytest.raises(UserError, match=r"w\.safetensors is missing"):
        files.verify(folder, "model")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": 1}}', "{" * 100_000, "\udcff"]
)
def test_a_manifest_that_is_none_is_refused_in_one_line(folder, text):
    (folder / files.MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        files.verify(folder, "model")
    assert "\n" not in str(caught.value)


def test_a_block_that_fails_leaves_the_old_folder_whole(folder):
    def fail():
        with files.sealed(folder) as place:
            (place / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    files.verify(folder, "model")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_replacing_and_recovering_from_half_a_replacement(folder):
    with files.sealed(folder) as place:
        files.write_json(place / "config.json", {"x": 2})
    assert json.loads((folder / "config.json").read_text()) == {"x": 2}
    folder.rename(folder.with_name(".model.old"))  # a crash between the two moves
    files.settle(folder)
    files.verify(folder, "model")


@settings(max_examples=80)
@given(junk=st.binary(max_size=200))
def test_foreign_bytes_are_no_safetensors(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("s") / "w.safetensors"
    path.write_bytes(junk)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        files.load_tensors(path, "model")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_of_tensors_keep_the_umask(tmp_path, umask, mode):
    """safetensors writes for the owner only: colleagues on a shared disk could not read a model."""
    before = os.umask(umask)
    try:
        with files.sealed(tmp_path / "model") as place:
            files.save_tensors(place / "w.safetensors", {"a": torch.ones(2)})
        with files.arriving(tmp_path / "export") as place:  # as another library writes it
            save_file({"a": torch.ones(2)}, place / "w.safetensors")
    finally:
        os.umask(before)
    for folder in ("model", "export"):
        assert (tmp_path / folder / "w.safetensors").stat().st_mode & 0o777 == mode, folder
        assert [path.name for path in (tmp_path / folder).iterdir() if "tmp" in path.name] == []


def test_what_the_hub_adds_to_a_folder_is_no_damage(folder):
    (folder / "README.md").write_text("a card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    files.verify(folder, "folder")


@pytest.mark.parametrize("write", [files.place_bytes, files.write_bytes])
def test_nothing_is_written_through_links(tmp_path, write):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    names = (".a.tmp", f".a.{os.getpid()}.tmp", "a")
    for name in names:
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / name).symlink_to(mine)
        write(tmp_path / "a", b"new")
        assert mine.read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_of_two_commands_that_make_one_folder_the_second_says_so(tmp_path):
    out = tmp_path / "out"

    def two():
        with files.arriving(out) as place:
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
    with files.arriving(tmp_path / "out") as place:
        (place / "x").touch()
    assert (tmp_path / "disk" / "x").exists()
    assert (tmp_path / "out").is_symlink()


def test_pipes_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (
            lambda p: files.read_file(p, "what"),
            lambda p: files.read_json(p, "what"),
            lambda p: files.load_tensors(p, "what"),
        ):
            with pytest.raises(UserError, match=rf"what: {path} is no regular file"):
                read(path)
    files.check_regular(tmp_path, "a folder is another matter")
    files.check_regular(tmp_path / "missing", "so is what is not there")


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    """Libraries that write safetensors give the system's error as text."""
    with pytest.raises(OSError, match="No space left") as caught, files.arriving(tmp_path / "out"):
        raise SafetensorError("Error while serializing: I/O error: File (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".out.{process}.tmp").mkdir()
        (tmp_path / f".file.{process}.tmp").touch()
    with files.arriving(tmp_path / "out"):
        pass
    files.write_bytes(tmp_path / "file", b"")
    with files.sealed(tmp_path / "sealed"):
        (tmp_path / ".sealed.old").mkdir()  # of a replacement that was cut off at its end
    assert files.intact(tmp_path / "sealed")
    alive = [f".file.{os.getppid()}.tmp", f".out.{os.getppid()}.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*alive, "file", "out", "sealed"]


def test_folders_without_a_name_of_their_own_take_the_first_that_is_free(tmp_path):
    found = []
    for _ in range(3):
        with files.filling(tmp_path / "a" / "it") as place:
            (place / "x").touch()
            found.append(files.arrive_numbered(place, tmp_path / "a" / "it").name)
    assert found == ["it", "it-2", "it-3"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == found


def test_lines_are_read_one_by_one_and_too_long_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 8)
    (tmp_path / "x").write_bytes(b"one\r\n" + b"y" * 30 + b"\n\n1234567\n12345678\nlast")
    assert list(files.read_lines(tmp_path / "x", "")) == [b"one", b"", b"1234567", b"last"]
    files.write_parts(tmp_path / "x", (line[:1] for line in files.read_lines(tmp_path / "x", "")))
    assert (tmp_path / "x").read_bytes() == b"o1l"


@pytest.mark.parametrize("name", sorted(CLUTTER - {"lost+found"}))
def test_clutter_is_no_content(folder, tmp_path, name):
    (folder / name).write_bytes(b"x")
    files.verify(folder, "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    files.check_free(tmp_path / "out")
    with files.arriving(tmp_path / "out") as place:
        (place / "a").write_bytes(b"a")
    assert (tmp_path / "out" / name).read_bytes() == b"mine"
    with pytest.raises(UserError, match="not empty"):
        files.check_free(tmp_path / "out")


def test_what_is_changed_in_place_is_no_other_file_too(tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    os.link(mine, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(mine)
    for name, kept in (("hard", b"precious"), ("soft", b""), ("new", b"")):
        files.detach(tmp_path / name)
        with open(tmp_path / name, "ab") as file:
            file.write(b"!")
        assert (tmp_path / name).read_bytes() == kept + b"!"
    assert mine.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard", "mine", "new", "soft"]
