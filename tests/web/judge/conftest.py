"""Studies with tiny images, made without a model."""

import json

import pytest
from PIL import Image

from t2i.web.judge.making import Order, make_study

CAPTIONS = ("a red circle", "a blue star", "two <b>green</b> squares")


@pytest.fixture
def folder(tmp_path):
    """`folder(name, captions)`: a folder of images of another program, with metadata.jsonl."""

    def make(name, captions=CAPTIONS, shade=0):
        place = tmp_path / "pics" / name
        place.mkdir(parents=True)
        rows = []
        for number, caption in enumerate(captions):
            image = Image.new("RGB", (8, 8), (shade, 40 * number, 90))
            image.save(place / f"{number}.png")
            rows.append(json.dumps({"file_name": f"{number}.png", "text": caption}))
        (place / "metadata.jsonl").write_text("\n".join(rows))
        return place

    return make


@pytest.fixture
def make(tmp_path, folder):
    """`make(names, **order)`: a study of folders of these names, in TMP/studies."""

    def made(names=("alpha", "beta"), **order):
        folders = {name: folder(name, shade=20 * n) for n, name in enumerate(names)}
        wanted = Order(**{"name": "study", "models": {}, "folders": folders, **order})
        return make_study(wanted, tmp_path / "studies", lambda *_: None)

    return made
