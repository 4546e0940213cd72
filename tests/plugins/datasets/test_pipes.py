"""Pipes among the files of a data set: they are not waited for."""

import os

import pytest

from t2i.cli.main import main

NAMES = (
    "metadata.jsonl", "metadata.csv", "a.txt", "images.zip", "captions.txt", "b.png", "x.parquet",
    "captions.json",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_pipes_in_a_folder_of_images_are_not_waited_for(name, photo, tmp_path, monkeypatch, capfd):
    for number in range(4):
        photo(tmp_path / "data" / f"{number}.png", number)
        (tmp_path / "data" / f"{number}.txt").write_text("a photo")
    if name == "a.txt":
        photo(tmp_path / "data" / "a.png", 9)
    os.mkfifo(tmp_path / "data" / name)
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    code = main(["datasets", "check", "imagefolder", "--data-dir", str(tmp_path / "data")])
    assert code in (0, 2)
    assert "unexpected" not in capfd.readouterr().err
