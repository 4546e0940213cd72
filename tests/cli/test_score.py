"""`t2i score` from end to end."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folders(tmp_path):
    stream = np.random.default_rng(0)
    for name in ("ours", "real"):
        (tmp_path / name).mkdir()
        for number in range(12):
            image = stream.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")


FID = ("--measures", "fid", "--features", "pixels", "--device", "cpu")


@pytest.mark.usefixtures("folders")
def test_a_table_and_a_document(here):
    code, out, _ = here("score", "ours", "--reference", "real", *FID)
    assert code == 0
    assert out.splitlines()[:3] == [
        "images: ours: 12 images, 16x16",
        "reference: real: 12 images, 16x16",
        "protocol: torch-fidelity (each network's own resizing)",
    ]
    assert "FD, pixels" in out
    assert "! FD, pixels of 12 images, fewer than its 768 features" in out
    code, out, _ = here("score", "ours", "--reference", "real", *FID, "--json")
    document = json.loads(out)
    assert document["scores"][0]["name"] == "fid"
    assert document["scores"][0]["images"] == 12


@pytest.mark.usefixtures("folders")
def test_statistics_replace_the_reference(here):
    code, out, _ = here(
        "score", "real", "--save-statistics", "real.npz", "--reference", "ours",
        "--features", "pixels", "--measures", "fid",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[-1] == "statistics: real.npz"
    # Without a reference nothing is to be scored, so nothing is missing.
    out = here("score", "real", "--save-statistics", "x.npz", "--features", "pixels")[1]
    assert "left out" not in out
    first = here("score", "ours", "--reference", "real", *FID, "--json")[1]
    second = here("score", "ours", "--reference", "real.npz", *FID, "--json")[1]
    values = [json.loads(text)["scores"][0]["value"] for text in (first, second)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "nowhere: there is no such folder or file"),
        (["ours", "--measures", " , "], "--measures: name at least one measure"),
        (["ours", "--reference", "real", "--set", "weights=x"], "name the features too"),
        (["ours", "--reference", "real", "--device", "cuda:77", *FID[:4]], "device 'cuda:77'"),
        (["ours", "--save-statistics", "x.pt"], "give a name that ends in .npz"),
        (["ours", "--reference", "real"], "'t2i fetch inception' gets its weights"),
        (["ours", *FID], "name them with --reference"),
    ],
)
def test_mistakes_get_one_line(refused, arguments, line):
    assert line in refused("score", *arguments)
