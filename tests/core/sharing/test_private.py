"""Paths of a machine are taken out of texts; everything else stays."""

import pytest

from t2i.core.sharing.private import names_in, without_paths


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("/home/erika/my cats", "my cats"), ("/home/erika", "home"), ("~/cats", "cats"),
        ("~erika", "home"), (r"C:\Users\erika\cats", "cats"), (r"C:\Users\erika", "home"),
        ("/data", "data"), ("see /mnt/a/b.txt, and more", "see b.txt, and more"),
        ("runs/a", "runs/a"), ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("a / b", "a / b"), ("and/or", "and/or"), ("ddpm", "ddpm"),
    ],
)  # fmt: skip
def test_texts(text, plain):
    assert without_paths({"dir": text})[0] == {"dir": plain}


def test_words_of_a_vocabulary_stay():
    words = {"vocabulary": ["/", "/h", "a/b", "~", "</w>"], "n": [1, None, 2.5]}
    assert without_paths(words) == (words, [])


def test_commands_keep_their_options():
    command = "t2i bench --run 'm=/home/erika/x y' -p 'a red circle' --out=/tmp/erika/b"
    plain, where = without_paths({"a": {"command": command}})
    assert plain["a"]["command"] == "t2i bench --run 'm=x y' -p 'a red circle' --out=b"
    assert where == ["a.command"]


def test_names_of_account_and_machine_are_found_as_words(monkeypatch):
    monkeypatch.setenv("LOGNAME", "erika")
    monkeypatch.setattr("platform.node", lambda: "box-7")
    assert names_in(b"--out erika/box-7") == [
        ("erika", "the name of this account"), ("box-7", "the name of this machine")
    ]  # fmt: skip
    assert names_in(b"america, box-77, erikas") == []
    monkeypatch.setenv("LOGNAME", "root")
    assert names_in(b"root") == []
