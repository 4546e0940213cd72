"""Checks of families, and how closely images must agree across batch sizes, by the family's
tolerance."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from t2i.core.interfaces.generator import Generator
from t2i.core.kit.conformance.catalogue import of_kind
from t2i.core.kit.conformance.drawing import agrees, distances, variety
from t2i.core.kit.conformance.outcome import Failed
from t2i.core.kit.conformance.runner import run_checks
from t2i.core.models.wanted import Sample
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FamilySpec, SamplerSpec
from t2i.core.registry.tables import registry


@pytest.fixture
def told(plug, monkeypatch, tmp_path):
    """`told(kind, sampler=False, draws=True)`: what the kit says of a family "collage" of class
    `kind`, by check."""

    def check(kind, sampler=False, draws=True):
        module = ModuleType("t2i_collage")
        module.Collage = kind
        monkeypatch.setitem(sys.modules, "t2i_collage", module)

        class Plugin:
            @hookimpl
            def t2i_families(self):
                return [
                    FamilySpec(
                        name="collage",
                        summary="Cut and paste",
                        generator="t2i_collage:Collage",
                        draws=draws,
                    )
                ]

            @hookimpl
            def t2i_samplers(self):
                path = "t2i_collage:Absent"
                spec = SamplerSpec(
                    name="paste", summary="", config=path, build=path, families=("collage",)
                )
                return [spec] if sampler else []

        plug(Plugin(), "collage")
        found = run_checks(of_kind("families", "collage"), tmp_path)
        return {outcome.check: (outcome.state, outcome.detail) for outcome in found}

    return check


def test_a_strangers_family_passes(told):
    class Collage(Generator):
        family = "collage"

    assert told(Collage, sampler=True) == {"class": ("ok", ""), "samplers": ("ok", "")}


def test_a_family_that_nothing_draws_from(told):
    class Collage(Generator):
        family = "collage"

    assert told(Collage)["samplers"] == (
        "FAILED",
        "no sampler draws from it: register one, or say draws=False",
    )


def test_a_family_that_is_not_to_be_drawn_from(told):
    class Collage(Generator):
        family = "collage"

    assert told(Collage, draws=False) == {
        "class": ("ok", ""),
        "samplers": ("skipped", "its specification says that its models draw no images"),
    }


def test_a_class_of_another_name_or_none(told):
    class Collage(Generator):
        family = "montage"

    said = "t2i_collage:Collage says that its family is 'montage', it is registered as 'collage'"
    assert told(Collage)["class"] == ("FAILED", said)


def test_a_class_that_is_no_generator(told):
    assert told(object)["class"] == (
        "FAILED",
        "t2i_collage:Collage does not extend t2i.core.Generator",
    )


def test_a_tolerance_that_there_is_not(told):
    class Collage(Generator):
        family, tolerance = "collage", "rough"

    assert (
        "has the tolerance 'rough'; known: exact, level, statistical" in told(Collage)["class"][1]
    )


@pytest.mark.parametrize("name", [spec.name for spec in registry().families])
def test_every_family_of_ours_keeps_its_promises(name, tmp_path):
    states = {
        outcome.check: outcome.state for outcome in run_checks(of_kind("families", name), tmp_path)
    }
    assert states == {"class": "ok", "samplers": "skipped" if name == "guide" else "ok"}


CAPTIONS = ["a", "b", "c"]


def painted(key):
    """An image of noise (8, 8, 3) that depends on its key alone."""
    return np.random.default_rng([*key, 1]).integers(40, 210, (8, 8, 3))


class Painter:
    """Draws `painted` images; apart, as `change(image, key, batch)` says, `batch` being all keys of
    the batch."""

    def __init__(self, tolerance, change, paint=painted):
        self.generator, self.change, self.paint = (
            SimpleNamespace(tolerance=tolerance),
            change,
            paint,
        )

    def stream(self, captions, *, n, seed, batch_size):
        keys = [(p, s) for p in range(len(captions)) for s in range(n)]
        for start in range(0, len(keys), batch_size):
            batch = keys[start : start + batch_size]
            whole = len(batch) == len(keys)
            images = [
                self.paint(key) if whole else self.change(self.paint(key), key, batch)
                for key in batch
            ]
            yield [
                Sample(*key, image.clip(0, 255).astype(np.uint8))
                for key, image in zip(batch, images, strict=True)
            ]


def apart(images, key, batch):
    return images


def level(images, key, batch):
    """One number of one image in four is off by a level."""
    return images + (np.indices(images.shape).sum(0) == 0) * (key[1] == 0)


def flipped(images, key, batch):
    """One image is another one: a token was drawn otherwise."""
    return painted((9, *key)) if key == (0, 1) else images


def grown(images, key, batch):
    """Rounding has grown to a few levels everywhere."""
    return images + np.random.default_rng(key).integers(-4, 5, images.shape)


def by_place(images, key, batch):
    """The noise is that of the place in the batch."""
    return painted((0, batch.index(key)))


def sociable(images, key, batch):
    """What the batch has in common is taken out, as batch statistics do."""
    return images - np.mean([painted(other) for other in batch], 0).astype(int) + 125


@pytest.mark.parametrize(
    ("tolerance", "passing", "failing"),
    [
        ("exact", [apart], [level, flipped, grown, by_place, sociable]),
        ("level", [apart, level], [flipped, grown, by_place, sociable]),
        ("statistical", [apart, level, flipped, grown], [by_place, sociable]),
    ],
)
def test_tolerances(tolerance, passing, failing):
    for change in passing:
        agrees(Painter(tolerance, change), CAPTIONS)
    for change in failing:
        with pytest.raises(Failed, match=r"in batches of 1, .* drawn together"):
            agrees(Painter(tolerance, change), CAPTIONS)


def test_images_that_are_all_the_same_agree_with_themselves_only():
    def model(difference):
        return Painter(
            "statistical",
            lambda images, *_: images + difference,
            lambda key: np.full((8, 8, 3), 90),
        )

    agrees(model(0), CAPTIONS)
    agrees(model(1), CAPTIONS)
    with pytest.raises(Failed, match="12 of 12 images are not those drawn together"):
        agrees(model(2), CAPTIONS)


def test_distances_and_variety_worked_out_by_hand():
    levels = [0, 10, 40, 100, 100, 100]
    images = np.stack([np.full((2, 2, 3), level, np.uint8) for level in levels])
    assert distances(images[:3], images[3:]).tolist() == [100, 90, 60]
    assert variety(images, 2).tolist() == [30, 30, 30, 0, 0, 0]
