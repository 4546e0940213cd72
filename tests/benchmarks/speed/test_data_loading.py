"""The script that measures loading says a rate and a cost for each way of reading."""

import re

import numpy as np
from PIL import Image

from t2i.benchmarks.speed.data_loading import main


def test_files_and_cache_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    for number in range(5):
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a square")
    main(
        [
            "--data",
            "imagefolder",
            "--data-dir",
            str(tmp_path),
            "--image-size",
            "8",
            "--images",
            "64",
            "--workers",
            "0",
        ]
    )
    files, cache = capsys.readouterr().out.splitlines()
    for line, where in ((files, "files"), (cache, "cache")):
        assert re.fullmatch(
            rf"from the {where}, 0 workers: [\d,]+ images/s, \d+\.\d\d ms of processor time an "
            rf"image",
            line,
        )


def test_a_set_without_a_cache_is_read_all_the_same(capsys):
    main(["--data", "shapes", "--image-size", "24", "--images", "64", "--workers", "0"])
    said = capsys.readouterr()
    assert said.out.startswith("from the files, 0 workers: ")
    assert "no cache: data set 'shapes': no setting is named 'cache'" in said.err
