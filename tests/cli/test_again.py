"""The text chunks of a PNG file, and `t2i sample --again`, which samples the image from them."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from t2i.core.models.building import build
from t2i.core.runs.configure import resolve_config

PROMPTS = (
    "-p",
    "a red circle",
    "-p",
    "a much longer caption of a blue square",
    "-p",
    "a red circle",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small):
    """A run of a GAN and one of a diffusion model, untrained."""
    folder = tmp_path_factory.mktemp("runs")
    for name, sets in (("dfgan", ()), ("ddpm", ("sampler.guidance=2", "sampler.clip=1"))):
        words = "encoder.vocabulary=[a, red, blue, circle, square, of]"
        torch.manual_seed(0)
        build(resolve_config(name, sets=[*small(name), words, *sets])).save(folder / name / "model")
    return folder


@pytest.fixture
def draw(here, runs):
    def command(*arguments, model="dfgan", out="first"):
        code, _, err = here("sample", "--run", runs / model, *arguments, "--out", out)
        assert code == 0, err

    return command


def chunks(path):
    with Image.open(path) as image:
        image.load()
        return dict(image.text)


def same(tmp_path, name, first="first", again="again"):
    return (tmp_path / first / name).read_bytes() == (tmp_path / again / name).read_bytes()


def test_other_programs_read_how_an_image_was_sampled(draw, runs, tmp_path):
    draw(*PROMPTS, "-n", "2", "--seed", "7", "--negative", "text, blurry", model="ddpm")
    texts = chunks(tmp_path / "first" / "0001-001.png")
    prompt, negative, settings = texts["parameters"].split("\n")
    assert prompt == "a much longer caption of a blue square"
    assert negative == "Negative prompt: text, blurry"
    # As the WebUI itself parses the line.
    fields = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', settings))
    document = json.loads(texts["t2i"])
    assert fields == {
        "Steps": "2", "Sampler": "ddpm", "CFG scale": "2", "Seed": "7", "Size": "32x32",
        "Model hash": document["settings"]["hash"], "Model": "ddpm", "Sample": "1",
        "Version": f"t2i {document['version']}",
    }  # fmt: skip
    line = json.loads((tmp_path / "first" / "samples.jsonl").read_text().splitlines()[3])
    assert line.pop("seconds") > 0
    assert {name: document[name] for name in line} == line
    assert document["settings"]["sampler"]["clip"] == 1
    listed = json.loads(chunks(tmp_path / "first" / "grid.png")["t2i"])
    assert [(i["file"], i["prompt"]) for i in listed["grid"]][2:4] == [
        ("0001-000.png", prompt), ("0001-001.png", prompt)
    ]  # fmt: skip
    assert listed["settings"] == document["settings"]


def test_again_in_a_process_of_its_own_gives_the_same_bytes(draw, tmp_path):
    draw(*PROMPTS, "-n", "3", "--seed", "5")
    found = subprocess.run(
        [sys.executable, "-m", "t2i.cli", "sample", "--again", "first/0002-001.png",
         "--out", "new"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "new/0002-001.png: the same bytes as first/0002-001.png" in found.stdout
    assert same(tmp_path, "0002-001.png", again="new")


def test_again_knows_batch_sampler_image_mask_size_and_negative_prompts(draw, here, runs, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(np.tri(40, 60, dtype=bool).astype(np.uint8) * 255).save(tmp_path / "m.png")
    draw(
        *PROMPTS, "--negative", "x", "--negative", "", "--negative", "z", "--image", "i.png",
        "--mask", "m.png", "--strength", "0.7", "--width", "64", "--steps", "5", "--batch-size",
        "2", "--sampler", "euler-a", "--guidance", "3", model="ddpm",
    )  # fmt: skip
    for name in ("0001-000.png", "0002-000.png"):
        code, out, err = here("sample", "--again", f"first/{name}", "--out", "again", "--json")
        assert code == 0, err
        document = json.loads(out)
        assert (document["same"], document["difference"]) == (True, "")
        assert same(tmp_path, name)
    assert Image.open(tmp_path / "again" / "0001-000.png").size == (64, 32)
    shutil.move(tmp_path / "i.png", tmp_path / "j.png")
    first = ("sample", "--again", "first/0000-000.png", "--out", "again")
    code, _, err = here(*first)
    assert code == 2
    assert "the image that it started from, i.png, is not here: name it with --image FILE" in err
    code, _, err = here(*first, "--image", "m.png")
    assert code == 2
    assert "is not the image that it started from" in err
    assert here(*first, "--image", "j.png")[0] == 0
    assert same(tmp_path, "0000-000.png")


def test_a_moved_run_is_named_and_another_is_refused(draw, here, runs, tmp_path, small):
    shutil.copytree(runs / "dfgan", tmp_path / "here")
    code, _, err = here("sample", "--run", "here", "-p", "a red circle", "--out", "first")
    assert code == 0, err
    shutil.move(tmp_path / "here", tmp_path / "there")
    first = ("sample", "--again", "first/0000-000.png", "--out", "again")
    code, _, err = here(*first)
    assert code == 2
    assert "its run here is not here: name it with --run RUN" in err
    torch.manual_seed(1)
    words = "encoder.vocabulary=[a, red]"
    build(resolve_config("dfgan", sets=[*small("dfgan"), words])).save(tmp_path / "other" / "model")
    code, _, err = here(*first, "--run", "other")
    assert code == 2
    assert "other is not the run that sampled first/0000-000.png: that was dfgan 'here'" in err
    assert err.count("error: ") == 1
    assert here(*first, "--run", "there")[0] == 0
    assert same(tmp_path, "0000-000.png")
    code, _, err = here(*first, "--run", "there")
    assert code == 2
    assert "again/0000-000.png is there already" in err


def test_what_is_no_image_of_ours_is_said_in_a_line(draw, here, runs, tmp_path):
    draw("-p", "a red circle")
    first = tmp_path / "first" / "0000-000.png"
    image = Image.open(first)
    image.load()
    own = image.text["t2i"]
    document = json.loads(own)

    def written(name, **texts):
        info = PngInfo()
        for keyword, text in texts.items():
            info.add_text(keyword, text)
        image.save(tmp_path / name, pnginfo=info)
        return name

    image.save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"no image")
    huge = {**document["batch"], "images": [[0, 0]] * 20000}
    cases = {
        "none.png": "No such file",
        "a.jpg": "not a PNG file",
        "b.png": "not a PNG file",
        "first/grid.png": "is a grid of 1 images",
        written("c.png"): "has no text chunk 't2i'",
        written(
            "d.png", parameters="a cat\nSteps: 20, Sampler: Euler a"
        ): "Steps: 20, Sampler: Eul",
        written("e.png", t2i="{"): "is damaged",
        written("f.png", t2i="[1]"): "is damaged",
        written("g.png", t2i=own.replace('"position": 0', '"position": 9')): "is damaged",
        written("h.png", t2i=json.dumps({**document, "seed": -1})): "is damaged",
        written("k.png", t2i=json.dumps({**document, "batch": huge})): "at most 16384 items",
        written(
            "i.png", t2i=json.dumps({**document, "batch": None})
        ): "run the first command again",
        written("j.png", t2i=own.replace('"name": "direct"', '"name": "none"')): "no sampler",
    }
    for name, message in cases.items():
        code, _, err = here("sample", "--again", name, "--out", "again")
        assert (code, message in err, err.count("error: ")) == (2, True, 1), (name, err)
    for option in (("-p", "x"), ("--seed", "1"), ("-n", "2"), ("--steps", "3")):
        code, _, err = here("sample", "--again", "first/0000-000.png", *option)
        assert code == 2
        assert f"leave out {option[0]}" in err
    for name in ("guide", "image", "mask"):
        code, _, err = here("sample", "--again", "first/0000-000.png", f"--{name}", "a.jpg")
        assert (code, f"sampled with no {name}: leave out --{name}" in err) == (2, True), err
    assert not (tmp_path / "again").exists()


def test_an_edited_image_is_sampled_again_and_the_difference_told(draw, here, tmp_path):
    draw("-p", "a red circle")
    first = tmp_path / "first" / "0000-000.png"
    pixels, texts = np.array(Image.open(first)), chunks(first)
    pixels[0, 0] ^= 255
    info = PngInfo()
    info.add_text("t2i", texts["t2i"])
    Image.fromarray(pixels).save(first, pnginfo=info)
    code, out, err = here("sample", "--again", "first/0000-000.png", "--out", "again")
    assert code == 0
    assert "same bytes" not in out
    assert "0.1% of the pixels differ, by up to" in err


def test_words_that_a_model_does_not_know_are_told_once(here, runs):
    code, _, err = here(
        "sample", "--run", runs / "dfgan", "-p", "a photo of a cat", "-n", "3", "--out", "o"
    )
    assert code == 0
    assert err.count("warning:") == 1
    assert "2 of 5 words of 'a photo of a cat' are unknown to this model: photo, cat" in err


def test_a_folder_with_keys_by_place_is_refused(draw, here, runs, tmp_path):
    draw("-p", "a red circle")
    records = tmp_path / "first" / "samples.jsonl"
    line = json.loads(records.read_text())
    for name in ("noise", "hash"):
        del line["settings"][name]
    del line["noise_number"]
    records.write_text(json.dumps(line) + "\n")
    code, _, err = here(
        "sample", "--run", runs / "dfgan", "-p", "a red circle", "-n", "2", "--out", "first"
    )
    assert code == 2
    assert "an older t2i began it, which keyed the noise of 0000-000.png by its place" in err
