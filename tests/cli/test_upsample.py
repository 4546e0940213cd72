"""`t2i sample --upsample`: a model's images, enlarged by another; and a picture of one's own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.core.models.best import Judge
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config

PROMPT = ("-p", "a red circle")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small):
    """Runs of a GAN at 32 pixels, and of upsamplers from 32 to 64 and from 64 to 128; untrained."""
    folder = tmp_path_factory.mktemp("runs")
    larger = ("image_size=64", "low_size=32", "patch=4")
    largest = ("image_size=128", "low_size=64", "patch=8")
    words = "encoder.vocabulary=[a, red, blue, circle, square, of]"
    for name, model, sets in (
        ("dfgan", "dfgan", ()),
        ("up", "upsampler", larger),
        ("up2", "upsampler", largest),
    ):
        torch.manual_seed(0)
        built = build(resolve_config(model, sets=[*small(model), words, *sets]))
        if model == "upsampler":
            for parameter in built.generator.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        built.save(folder / name / "model")
    return folder


@pytest.fixture
def draw(here, runs):
    def command(*arguments, out="first", model="dfgan"):
        code, _, err = here("sample", "--run", runs / model, *PROMPT, *arguments, "--out", out)
        assert code == 0, err

    return command


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_images_are_enlarged_by_one_upsampler_after_the_other(draw, runs, tmp_path):
    draw("-n", "2")
    draw("-n", "2", "--upsample", runs / "up", out="larger")
    draw(
        "-n", "2", "--upsample", runs / "up", "--upsample", runs / "up2",
        "--set", "upsample2.steps=1", "--set", "upsample.augmentation=0.3", out="largest",
    )  # fmt: skip
    sizes = {
        out: pixels(tmp_path / out / "0000-001.png").shape for out in ("first", "larger", "largest")
    }
    assert sizes == {"first": (32, 32, 3), "larger": (64, 64, 3), "largest": (128, 128, 3)}
    line = json.loads((tmp_path / "largest" / "samples.jsonl").read_text().splitlines()[0])
    first, second = line["settings"]["upsample"]
    assert (first["augmentation"], second["augmentation"]) == (0.3, None)
    assert (first["sampler"]["steps"], second["sampler"]["steps"]) == (2, 1)


def test_an_enlarged_image_is_sampled_again(draw, here, runs, tmp_path):
    draw("--upsample", runs / "up", "-n", "2")
    code, out, err = here("sample", "--again", "first/0000-001.png", "--out", "again")
    assert code == 0, err
    assert "the same bytes" in out


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own_draws_the_same(draw, t2i, runs, tmp_path):
    draw("--upsample", runs / "up")
    done = t2i(
        "sample", "--run", runs / "dfgan", "--upsample", runs / "up", *PROMPT, "--out", "out"
    )
    assert done.returncode == 0, done.stderr
    ours = (tmp_path / "first" / "0000-000.png").read_bytes()
    assert ours == (t2i.work / "out" / "0000-000.png").read_bytes()


def test_what_does_not_fit_is_refused_before_anything_is_drawn(here, runs, tmp_path):
    for arguments, message in (
        (("--upsample", runs / "dfgan"), "enlarges no images"),
        (("--upsample", runs / "up2"), "enlarges images of 64 x 64 pixels, not of 32 x 32"),
        (("--upsample", runs / "up", "--set", "upsample.stepz=2"), "did you mean 'steps'"),
        (("--upsample", runs / "up", "--set", "upsample.augmentation=2"), "between 0 and 1"),
    ):
        code, _, err = here("sample", "--run", runs / "dfgan", *PROMPT, *arguments, "--out", "no")
        assert (code, message in err) == (2, True), err
    assert not (tmp_path / "no").exists()


def test_a_picture_of_ones_own_is_enlarged(draw, here, runs, tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    picture.save(tmp_path / "own.png")
    draw("--image", "own.png", model="up")
    enlarged = pixels(tmp_path / "first" / "0000-000.png")
    assert enlarged.shape == (64, 64, 3)
    code, out, err = here("sample", "--again", "first/0000-000.png", "--out", "again")
    assert "the same bytes" in out, err
    model = load(runs / "up", "cpu")
    (same,) = model.sample("a red circle", image=picture)
    assert np.array_equal(np.asarray(same), enlarged)
    (wide,) = model.sample("a red circle", image=picture.resize((64, 32)), size=(64, 128))
    assert wide.size == (128, 64)
    draw("--image", "own.png", "--set", "augmentation=0.9", model="up", out="noised")
    noised = pixels(tmp_path / "noised" / "0000-000.png")
    assert not np.array_equal(noised, enlarged)
    (same,) = model.sample("a red circle", image=picture, augmentation=0.9)
    assert np.array_equal(np.asarray(same), noised)
    code, out, err = here("sample", "--again", "noised/0000-000.png", "--out", "again2")
    assert "the same bytes" in out, err
    (other,) = model.sample("a red circle", image=picture.transpose(Image.Transpose.ROTATE_180))
    assert not np.array_equal(np.asarray(other), enlarged)
    code, _, err = here(
        "sample", "--run", runs / "up", *PROMPT, "--image", "own.png", "--strength", "0.5"
    )
    assert (code, "leave out --mask and --strength" in err) == (2, True), err
    for level, message in ((2, "augmentation = 2: a number between 0 and 1"), (0.1, "belongs to")):
        image = () if level == 0.1 else ("--image", "own.png")
        wanted = (*image, "--set", f"augmentation={level}", "--out", "no")
        code, _, err = here("sample", "--run", runs / "up", *PROMPT, *wanted)
        assert (code, message in err) == (2, True), err


def test_the_best_of_several_is_chosen_among_the_enlarged_images(draw, here, runs, tmp_path):
    same = ("--upsample", runs / "up", "--batch-size", "3")
    draw(*same, "-n", "3", out="every")
    draw(*same, "--best-of", "3", "--judge", "shapes-clip", out="best")
    every = [pixels(tmp_path / "every" / f"0000-{number:03d}.png") for number in range(3)]
    scores = Judge.named("shapes-clip", "shapes").scores(every, ["a red circle"] * 3)
    line = json.loads((tmp_path / "best" / "samples.jsonl").read_text())
    assert line["best"]["scores"] == pytest.approx(scores, abs=1e-5)
    assert line["best"]["candidate"] == np.argmax(scores)
    assert np.array_equal(pixels(tmp_path / "best" / "0000-000.png"), every[np.argmax(scores)])
    code, out, err = here("sample", "--again", "best/0000-000.png", "--out", "again")
    assert (code, "the same bytes" in out) == (0, True), err
