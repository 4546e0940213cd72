"""Sealed folders: whole or absent, and every byte accounted for."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i.core.errors import UserError
from t2i.core.io.clutter import CLUTTER
from t2i.core.io.files import write_bytes
from t2i.core.io.folders import arriving, check_free
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import MANIFEST, sealed, settle, verify
from t2i.core.io.tensors import load_tensors, save_tensors


@pytest.fixture
def folder(tmp_path):
    with sealed(tmp_path / "model") as place:
        save_tensors(place / "w.safetensors", {"a": torch.arange(6.0)})
        write_json(place / "config.json", {"x": 1})
    return tmp_path / "model"


def test_a_sealed_folder_verifies_and_leaves_no_litter(folder):
    verify(folder, "model")
    assert load_tensors(folder / "w.safetensors", "model")["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@settings(max_examples=60)
@given(data=st.data())
def test_every_flipped_byte_and_truncation_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("s") / "model"
    with sealed(folder) as place:
        write_bytes(place / "w.bin", bytes(range(64)))
        write_json(place / "config.json", {"x": 1})
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
        verify(folder, "model")


def test_missing_and_surplus_files_are_noticed(folder):
    (folder / "w.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors does not belong there"):
        verify(folder, "model")
    (folder / "other.safetensors").unlink()
    with pytest.raises(UserError, match=r"w\.safetensors is missing"):
        verify(folder, "model")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": 1}}', "{" * 100_000, "\udcff"]
)
def test_a_manifest_that_is_none_is_refused_in_one_line(folder, text):
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        verify(folder, "model")
    assert "\n" not in str(caught.value)


def test_a_block_that_fails_leaves_the_old_folder_whole(folder):
    def fail():
        with sealed(folder) as place:
            (place / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    verify(folder, "model")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_replacing_and_recovering_from_half_a_replacement(folder):
    with sealed(folder) as place:
        write_json(place / "config.json", {"x": 2})
    assert json.loads((folder / "config.json").read_text()) == {"x": 2}
    folder.rename(folder.with_name(".model.old"))  # a crash between the two moves
    settle(folder)
    verify(folder, "model")


def test_what_the_hub_adds_to_a_folder_is_no_damage(folder):
    (folder / "README.md").write_text("a card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    verify(folder, "folder")


@pytest.mark.parametrize("name", sorted(CLUTTER - {"lost+found"}))
def test_clutter_is_no_content(folder, tmp_path, name):
    (folder / name).write_bytes(b"x")
    verify(folder, "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    check_free(tmp_path / "out")
    with arriving(tmp_path / "out") as place:
        (place / "a").write_bytes(b"a")
    assert (tmp_path / "out" / name).read_bytes() == b"mine"
    with pytest.raises(UserError, match="not empty"):
        check_free(tmp_path / "out")
