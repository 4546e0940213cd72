"""Zip archives from elsewhere: what is sound is unpacked, what would do harm is refused before
anything is written."""

import stat
import zipfile

import pytest

from t2i.core.errors import UserError
from t2i.core.fetch.archives import unpack


@pytest.fixture
def archive(tmp_path):
    def write(**members):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, body in members.items():
                file.writestr(name, body)
        return path

    return write


def test_a_sound_archive(archive, tmp_path):
    path = archive(**{"val/a.txt": "A", "b.txt": "B" * 5000, "val/": ""})
    assert unpack(path, tmp_path / "to") == [tmp_path / "to/val/a.txt", tmp_path / "to/b.txt"]
    assert (tmp_path / "to/val/a.txt").read_text() == "A"
    before = (tmp_path / "to/b.txt").stat().st_mtime_ns
    unpack(path, tmp_path / "to")
    assert (tmp_path / "to/b.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:/out.txt", "a\\..\\out.txt"]
)
def test_no_member_leaves_the_folder(archive, tmp_path, name):
    with pytest.raises(UserError, match="leads out of the folder"):
        unpack(archive(**{"good.txt": "x", name: "x"}), tmp_path / "to")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_links_and_bombs_are_refused(tmp_path, archive):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="no ordinary file"):
        unpack(tmp_path / "l.zip", tmp_path / "to")
    with pytest.raises(UserError, match="would swell"):
        unpack(archive(bomb=bytes(4 << 20)), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_size_that_lies_gives_no_more_than_it_says(archive, tmp_path):
    path = archive(**{"a.bin": b"\1\2" * 3000})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="no sound zip"):
        unpack(path, tmp_path / "to")
    assert [p.name for p in (tmp_path / "to").iterdir()] == []


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and nothing")
    with pytest.raises(UserError, match=r"no sound zip archive"):
        unpack(tmp_path / "a.zip", tmp_path)


def test_members_that_cannot_be_unpacked(archive, tmp_path):
    path = archive(a="B" * 5000)
    data = bytearray(path.read_bytes())
    data[31] = 0xFF  # the first byte of what is packed: there is no such kind of block
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="no sound zip archive"):
        unpack(path, tmp_path / "to")
