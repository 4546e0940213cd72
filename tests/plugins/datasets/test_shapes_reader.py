"""The exact reader and the score of captions."""

import io
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch
from t2i.plugins.datasets.shapes import render
from t2i.plugins.datasets.shapes.config import CaptionAccuracyConfig, ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.grammar import Scene
from t2i.plugins.datasets.shapes.metric import build, caption_accuracy
from t2i.plugins.datasets.shapes.reader import SeenScene, read_scenes
from t2i.plugins.datasets.shapes.scoring import SCORES, score

COUNT = {32: 300, 64: 120}


@lru_cache(maxsize=2)
def val(size: int) -> tuple[np.ndarray, tuple[Scene, ...], tuple[str, ...]]:
    data = Shapes(ShapesConfig(image_size=size), "val")
    examples = [data[index] for index in range(COUNT[size])]
    scenes = tuple(data.scene(index) for index in range(COUNT[size]))
    return np.stack([e.image for e in examples]), scenes, tuple(e.captions[0] for e in examples)


def png(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


def noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 255 * sigma, images.shape)
    return (images + noise).clip(0, 255).round().astype(np.uint8)


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return (
        ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))
        .round()
        .astype(np.uint8)
    )


def fully_right(scene: Scene, seen: SeenScene) -> bool:
    shown = sorted((o.shape, o.colour, o.size, o.position) for o in scene.objects)
    found = sorted(
        (str(o.shape), str(o.colour), str(o.size), str(o.position)) for o in seen.objects
    )
    return shown == found and seen.background == scene.background


def share_read(size: int, images: np.ndarray) -> float:
    scenes = val(size)[1]
    return float(
        np.mean([fully_right(*pair) for pair in zip(scenes, read_scenes(images), strict=True)])
    )


@pytest.mark.parametrize("size", [32, 64])
def test_renders_are_read_fully_after_png_and_noise(size: int) -> None:
    images = np.stack([png(image) for image in noisy(val(size)[0], 0.02)])
    assert share_read(size, images) >= 0.995


@pytest.mark.parametrize("size", [32, 64])
def test_slight_softness_noise_and_colour_shift_are_forgiven(size: int) -> None:
    images = val(size)[0]
    assert share_read(size, noisy(blurred(images, 0.6), 0.05)) >= 0.98
    shift = np.array([0.9, 0.95, 0.9]) * images + np.array([10, 0, 14])
    assert share_read(size, shift.astype(np.uint8)) >= 0.98


@pytest.mark.parametrize("size", [24, 48, 100, 128])
def test_other_sizes_are_read(size: int) -> None:
    data = Shapes(ShapesConfig(image_size=size), "val")
    images = np.stack([data[n].image for n in range(20)])
    assert all(fully_right(data.scene(n), seen) for n, seen in enumerate(read_scenes(images)))


def test_floats_are_read_like_bytes() -> None:
    images, scenes, _ = val(32)
    floats = images[:20].astype(np.float32) / 127.5 - 1
    assert all(fully_right(*pair) for pair in zip(scenes[:20], read_scenes(floats), strict=True))


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        read_scenes(np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        read_scenes(np.zeros((2, 32, 32, 3), np.int64))


def bad_images(size: int) -> dict[str, np.ndarray]:
    images = val(size)[0]
    random = np.random.default_rng(1)
    flat = np.ones_like(images)
    return {
        "black": 0 * flat,
        "white": 255 * flat,
        "mean": np.broadcast_to(images.mean(0).round().astype(np.uint8), images.shape),
        "uniform noise": random.integers(0, 256, images.shape).astype(np.uint8),
        "grey noise": noisy(128 * flat, 0.15),
        "blurred": blurred(images, 2.0),
        "blurred more": blurred(images, 4.0),
        "shuffled pixels": random.permuted(images.reshape(len(images), -1, 3), axis=1).reshape(
            images.shape
        ),
    }


@pytest.mark.parametrize("size", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_bad_images_score_at_chance_or_below(size: int) -> None:
    images, _, captions = val(size)
    chance = caption_accuracy(np.roll(images, 1, axis=0), captions)
    assert chance["all"] < 2
    for name, bad in bad_images(size).items():
        scores = caption_accuracy(bad, captions)
        assert scores["all"] == 0, name
        for attribute in ("shape", "colour", "size", "position", "relation", "count"):
            assert scores[attribute] <= chance[attribute], (name, attribute)


def test_wrong_colours_are_seen() -> None:
    images, _, captions = val(32)
    scores = caption_accuracy(images[..., [1, 2, 0]], captions)
    assert scores["colour"] == 0
    assert scores["all"] == 0
    assert scores["shape"] == 100


@pytest.mark.parametrize("size", [32, 64])
def test_real_images_score_everything(size: int) -> None:
    images, _, captions = val(size)
    assert set(caption_accuracy(images, captions).values()) == {100.0}


def make_image(
    *objects: tuple[str, str, float, float, float], background: str = "black"
) -> np.ndarray:
    placed = [
        render.Placed(shape, x, y, radius, render.PALETTE[colour])
        for shape, colour, x, y, radius in objects
    ]
    return render.draw(placed, render.BACKGROUND_PALETTE[background], 32)


STAR = ("star", "red", 7.5, 7.5, 5.7)
SQUARE = ("square", "blue", 24.5, 24.5, 3.5)


def test_each_claim_is_judged_by_itself() -> None:
    assert all(score(make_image(STAR), "a large red star in the top left corner on black").values())
    wrong = score(make_image(STAR), "a small blue star on the right on white")
    assert [name for name, held in wrong.items() if held] == ["shape", "count"]
    assert set(wrong) == {"shape", "colour", "size", "position", "count", "background", "all"}


def test_a_missing_or_extra_object_is_seen() -> None:
    one, both = make_image(STAR), make_image(STAR, SQUARE)
    assert score(both, "a large red star") == {
        "shape": True, "colour": True, "size": True, "count": False, "all": False
    }  # fmt: skip
    assert score(one, "a large red star and a small blue square")["all"] is False
    assert score(both, "a small blue square and a large red star")["all"] is True


def test_relations_have_a_direction() -> None:
    level = make_image(("star", "red", 7.5, 16, 5.7), ("square", "blue", 24.5, 16, 3.5))
    assert score(level, "a large red star left of a small blue square")["relation"] is True
    assert score(level, "a large red star right of a small blue square")["relation"] is False
    assert score(level, "a large red star above a small blue square")["relation"] is False


def test_attributes_of_two_objects_are_not_swapped() -> None:
    swapped = score(make_image(STAR, SQUARE), "a large blue star and a small red square")
    assert swapped["colour"] is False or swapped["shape"] is False
    assert swapped["all"] is False


def test_foreign_shapes_are_not_read() -> None:
    at = (np.arange(32 * 8) + 0.5) / 8 - 16
    x, y = at[None, :], at[:, None]
    distance = np.hypot(x, y)
    foreign = {
        "ring": (distance < 5.7) & (distance > 3),
        "half": (distance < 5.7) & (y > 0),
        "cross": (np.minimum(abs(x), abs(y)) < 1.6) & (np.maximum(abs(x), abs(y)) < 5.7),
        "triangle on its tip": render.signed_distance("triangle", x, -y, 5.7) < 0,
        "triangle on its side": render.signed_distance("triangle", y, x, 5.7) < 0,
        "dot": distance < 2,
        "disc": distance < 9,
    }
    for name, mask in foreign.items():
        alpha = mask.reshape(32, 8, 32, 8).mean((1, 3))[:, :, None]
        image = (255 * alpha * np.array(render.PALETTE["yellow"])).round().astype(np.uint8)
        (seen,) = read_scenes(image[None])
        assert all(obj.shape is None for obj in seen.objects), name


def test_the_metric_adds_up_over_batches() -> None:
    images, _, captions = val(32)
    metric = build(CaptionAccuracyConfig())
    rolled = np.roll(images, 1, axis=0)
    for start in range(0, 90, 30):
        part = slice(start, start + 30)
        metric.update(ImageBatch(rolled[part], captions[part], tuple(range(30))))
    assert metric.compute() == caption_accuracy(rolled[:90], captions[:90])
    assert set(metric.compute()) <= set(metric.better) == set(SCORES)


def test_foreign_captions_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="a photo of a cat"):
        caption_accuracy(val(32)[0][:1], ["a photo of a cat"])
    with pytest.raises(ValueError, match="one for each"):
        caption_accuracy(val(32)[0][:2], ["a red star"])
