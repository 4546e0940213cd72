"""The choices of preset `auto` that follow from images and machine."""

from types import SimpleNamespace

import pytest

from t2i.core.registry.choice import Choice
from t2i.core.runs.automatic import Machine, automatic_preset
from t2i.core.settings import DataConfig

CPU = Machine("cpu", None, "no", 0)
GPU = Machine("cuda", 24 * 10**9, "bf16", 4)


class Images(list):
    """A data set of images with these shorter sides."""

    def original(self, index):
        return SimpleNamespace(width=self[index], height=self[index] + 5)


def chosen(machine, sides, **given):
    said = []
    data = Choice("files", DataConfig())
    preset = automatic_preset("ddpm", given, data, lambda: Images(sides), machine, said.append)
    return preset.settings, said


@pytest.mark.parametrize(
    ("machine", "side", "size"),
    [
        (CPU, 20, 32), (CPU, 50, 32), (CPU, 72, 32), (CPU, 2000, 32),
        (GPU, 20, 32), (GPU, 72, 64), (GPU, 300, 256), (GPU, 2000, 256),
    ],
)  # fmt: skip
def test_the_size_follows_from_the_images_and_is_small_on_a_cpu(machine, side, size):
    settings, said = chosen(machine, [side] * 3)
    assert settings["image_size"] == size
    assert f"{size} px, because the shorter sides of the images are {side} px" in said[0]
    assert ("is the most unless you choose" in said[0]) == (side >= 2 * size)
    assert ("a CPU learns little" in said[0]) == (machine is CPU and side >= 64)


def test_a_size_that_is_asked_for_is_taken_on_a_cpu_too():
    settings, said = chosen(CPU, [], image_size=64)
    assert settings["image_size"] == 64
    assert said[0] == "preset auto: 64 px, as you chose"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "batches of 24, float32, 0 loader processes, 10 minutes;"),
        ({"minutes": 3.0}, "processes, 3 minutes;"),
        ({"steps": 40, "minutes": None}, "processes, 40 steps;"),
        ({"batch_size": 7, "precision": "bf16"}, "batches of 7, bf16, "),
    ],
)
def test_what_is_told_is_what_will_be_used(given, told):
    _, said = chosen(CPU, [72], **given)
    assert told in said[1]
