"""Folders that are filled part by part."""

import json

import pytest

from t2i.core.io.parts import PartFolder, ranges
from t2i.core.io.sealed import intact, sealed


@pytest.fixture
def parts(tmp_path):
    return PartFolder(tmp_path, count=7, step=3, suffix=".raw")


def make(parts, *numbers):
    for number in numbers:
        parts.file(number).write_bytes(bytes(parts.items(number)))
        parts.complete(number, {"number": number})


@pytest.mark.parametrize(("count", "step"), [(0, 3), (1, 3), (3, 3), (7, 3), (9, 1)])
def test_ranges_cover_every_number_once_in_order(count, step):
    found = ranges(count, step)
    assert [number for part in found for number in part] == list(range(count))
    assert all(len(part) == step for part in found[:-1])
    assert all(found)


def test_a_part_counts_once_its_note_is_written(parts):
    assert parts.missing() == [0, 1, 2]
    parts.file(1).write_bytes(b"half")  # killed before the note
    assert parts.missing() == [0, 1, 2]
    make(parts, 1)
    assert parts.missing() == [0, 2]
    assert json.loads((parts.folder / "part-00001.json").read_text()) == {"number": 1}
    assert [len(parts.items(number)) for number in range(3)] == [3, 3, 1]


def test_sealing_removes_litter_and_accounts_for_the_rest(parts):
    make(parts, 0, 1, 2)
    (parts.folder / ".part-00000.raw.7.tmp").write_bytes(b"litter")
    (parts.folder / "part-00001.7.tmp").write_bytes(b"litter")
    assert not parts.is_sealed
    parts.seal()
    assert parts.is_sealed
    assert intact(parts.folder)
    assert not [path for path in parts.folder.iterdir() if path.suffix == ".tmp"]


def test_a_sealed_folder_is_emptied_only_if_it_is_damaged(parts):
    said = []
    make(parts, 0)
    parts.discard_if_damaged("things", said.append)  # not sealed: parts are kept
    assert parts.missing() == [1, 2]
    make(parts, 1, 2)
    parts.seal()
    parts.discard_if_damaged("things", said.append)
    assert (parts.missing(), said) == ([], [])
    parts.file(2).write_bytes(b"?")
    parts.discard_if_damaged("things", said.append)
    assert parts.missing() == [0, 1, 2]
    assert not parts.is_sealed
    (warning,) = said
    assert "things" in warning
    assert "part-00002.raw" in warning


def test_intact_tells_whole_folders_from_damaged_and_missing_ones(tmp_path):
    folder = tmp_path / "folder"
    assert not intact(folder)
    with sealed(folder) as place:
        (place / "a").write_bytes(b"1")
    assert intact(folder)
    folder.rename(tmp_path / ".folder.old")  # died between the two moves of a replacement
    assert intact(folder)
    (folder / "a").write_bytes(b"2")
    assert not intact(folder)
