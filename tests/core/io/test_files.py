"""Files: nothing is written through links, and nothing is waited for."""

import os
from pathlib import Path

import pytest

from t2i.core.errors import UserError
from t2i.core.io import files
from t2i.core.io.files import (
    check_regular,
    detach,
    place_bytes,
    read_file,
    read_lines,
    write_bytes,
    write_parts,
)
from t2i.core.io.json_files import read_json
from t2i.core.io.tensors import load_tensors


@pytest.mark.parametrize("write", [place_bytes, write_bytes])
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


def test_pipes_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (
            lambda p: read_file(p, "what"),
            lambda p: read_json(p, "what"),
            lambda p: load_tensors(p, "what"),
        ):
            with pytest.raises(UserError, match=rf"what: {path} is no regular file"):
                read(path)
    check_regular(tmp_path, "a folder is another matter")
    check_regular(tmp_path / "missing", "so is what is not there")


def test_lines_are_read_one_by_one_and_too_long_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 8)
    (tmp_path / "x").write_bytes(b"one\r\n" + b"y" * 30 + b"\n\n1234567\n12345678\nlast")
    assert list(read_lines(tmp_path / "x", "")) == [b"one", b"", b"1234567", b"last"]
    write_parts(tmp_path / "x", (line[:1] for line in read_lines(tmp_path / "x", "")))
    assert (tmp_path / "x").read_bytes() == b"o1l"


def test_what_is_changed_in_place_is_no_other_file_too(tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    os.link(mine, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(mine)
    for name, kept in (("hard", b"precious"), ("soft", b""), ("new", b"")):
        detach(tmp_path / name)
        with open(tmp_path / name, "ab") as file:
            file.write(b"!")
        assert (tmp_path / name).read_bytes() == kept + b"!"
    assert mine.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard", "mine", "new", "soft"]
