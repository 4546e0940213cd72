"""Groups of scenes that differ in one attribute, which CLIP learns to tell apart."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from t2i.core.io.images import to_tensor
from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    FULL,
    SHAPES,
    SIZES,
    Obj,
    Scene,
    captions_of,
    draw_scene,
)
from t2i.plugins.datasets.shapes.render import render

SEED = 1  # the data set's default is 0: these scenes are drawn anew
STREAM = 1001  # a random stream that no split of the data set uses
KINDS = ("one",) * 5 + ("two",) * 3 + ("three", "count")
PARTIAL = 0.1  # share of captions that leave something out, as in the split train
TRIES = 50
CHANGES = ("shape", "shape", "colour", "size", "position", "background", "swap")
"""What one scene of a group changes. Shapes are the hardest to see, so they change most often."""

VALUES = {"shape": SHAPES, "colour": COLOURS, "size": SIZES}


@dataclass(frozen=True)
class ContrastBatch:
    """Groups of scenes, as images with their captions.

    Args:
        images: Images of the first scenes of each group, float (G * seen, 3, S, S) in [-1, 1],
            group by group.
        captions: Captions of all scenes, G * size of them, group by group.
        place: Index of each image's caption, int64 (G * seen,).
    """

    images: Tensor
    captions: list[str]
    place: Tensor


def altered(scene: Scene, draws: Draws) -> Scene:
    """Change one attribute of a scene.

    Args:
        scene: The scene.
        draws: Random numbers.

    Returns:
        Another scene of the same kind, without held-out combinations. The same scene if none was
        found in `TRIES` attempts.
    """
    for _ in range(TRIES):
        changed = _changed(scene, draws.choice(CHANGES), draws)
        looks = {(obj.shape, obj.colour) for obj in changed.objects}
        distinct = scene.kind == "count" or len(looks) == len(changed.objects)
        if changed != scene and distinct and not changed.held_out:
            return changed
    return scene


def _changed(scene: Scene, what: str, draws: Draws) -> Scene:
    """Change an attribute, or exchange one between two objects ("swap"). It may stay as it is."""
    objects, number = list(scene.objects), draws.below(len(scene.objects))
    if what == "background":
        return replace(scene, background=draws.choice(BACKGROUNDS))
    if what == "position":
        cells = draws.choice(FULL.arrangements(len(objects)))
        objects = [replace(obj, position=cell) for obj, cell in zip(objects, cells, strict=True)]
    elif what == "swap":
        objects = _swapped(objects, number, draws.choice((*VALUES, "position")))
    else:
        value = draws.choice(VALUES[what])
        every = scene.kind == "count"  # equal objects stay equal
        objects = [
            replace(obj, **{what: value}) if every or at == number else obj
            for at, obj in enumerate(objects)
        ]
    return replace(scene, objects=tuple(objects))


def _swapped(objects: list[Obj], number: int, what: str) -> list[Obj]:
    """Exchange an attribute of an object with the next object's."""
    other = (number + 1) % len(objects)
    a, b = objects[number], objects[other]
    changed = list(objects)
    changed[number] = replace(a, **{what: getattr(b, what)})
    changed[other] = replace(b, **{what: getattr(a, what)})
    return changed


class Contrasts(IterableDataset[ContrastBatch]):
    """An endless stream of batches; the same numbers give the same batches.

    Args:
        groups: Groups in a batch, G.
        size: Scenes in a group: one, and others that differ from it in one attribute.
        seen: Scenes of each group whose images are rendered. The others are captions only.
        image_size: Side of the images in pixels, S.
        first: Number of the first batch.
    """

    def __init__(
        self, groups: int, size: int, seen: int, image_size: int = 32, first: int = 0
    ) -> None:
        self.groups, self.size, self.seen = groups, size, seen
        self.image_size, self.first = image_size, first

    def __iter__(self) -> Iterator[ContrastBatch]:
        number = self.first
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> ContrastBatch:
        """Make one batch.

        Args:
            number: Number of the batch, >= 0.

        Returns:
            The batch.
        """
        images: list[np.ndarray] = []
        captions: list[str] = []
        for group in range(self.groups):
            draws = Draws(SEED, STREAM, number * self.groups + group)
            first = draw_scene(draws, FULL, draws.choice(KINDS))
            for at in range(self.size):
                scene = altered(first, draws) if at else first
                captions += captions_of(scene, draws, 1, PARTIAL)
                if at < self.seen:
                    images.append(render(scene, draws, self.image_size))
        place = torch.arange(len(captions)).view(self.groups, self.size)[:, : self.seen]
        return ContrastBatch(to_tensor(np.stack(images)), captions, place.flatten())
