"""Scores of folders of images."""

import numpy as np
import pytest
from PIL import Image

from t2i.benchmarks.score.image_folders import score_folders
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Measure

FID = Measure("fid", {"features": "pixels"})


def write(folder, seed, count, side=16, top=200):
    folder.mkdir()
    stream = np.random.default_rng(seed)
    for number in range(count):
        colours = stream.integers(0, top, (2, 2, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((side, side)).save(folder / f"{number:03}.png")
    return folder


def test_a_folder_is_nearer_to_one_like_it(tmp_path):
    ours, alike, other = (
        write(tmp_path / name, seed, 70, top=top)
        for name, seed, top in [("a", 1, 200), ("b", 2, 200), ("c", 3, 120)]
    )
    measures = (FID, Measure("kid", {"features": "pixels"}), Measure("prc", {"features": "pixels"}))
    near, intervals = score_folders(ours, alike, measures)
    far, _ = score_folders(ours, other, measures)
    assert 0 < near["fid"]["fid"] < 0.5 * far["fid"]["fid"]
    assert near["kid"]["kid"] < far["kid"]["kid"]
    assert near["prc"]["precision"] > far["prc"]["precision"]
    assert intervals["fid"]["fid"][0] < near["fid"]["fid"] < intervals["fid"]["fid"][1]
    assert score_folders(ours, ours, (FID,))[0]["fid"]["fid"] == pytest.approx(0, abs=1e-6)


def test_what_is_no_set_of_images_is_refused(tmp_path):
    ours = write(tmp_path / "ours", 1, 3)
    with pytest.raises(UserError, match="there are no images in it"):
        score_folders(ours, tmp_path, (FID,))
    with pytest.raises(UserError, match="captions: there are 2 for 3 images"):
        score_folders(ours, ours, (FID,), captions=["a", "b"])
    Image.new("RGB", (8, 8)).save(ours / "odd.png")
    (ours / "odd.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"odd\.png: cannot be read as an image"):
        score_folders(ours, ours, (FID,))
