"""What the trainings of the networks that the data set ships share."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from t2i.core.io.images import to_bytes, to_tensor
from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.metric import caption_accuracy

SIDE = 32
BATCH = 8
FIRST = 10**6  # index of the first scene: the models' own trainings begin at 0
SETS = {
    "one object": ("val", {"two_objects": 0, "three_objects": 0, "counts": 0}),
    "unseen": ("compositions", {"two_objects": 0, "three_objects": 0, "counts": 0}),
    "all kinds": ("val", {}),
}  # fmt: skip


class Images(IterableDataset[Tensor]):
    """An endless stream of batches of training images, (BATCH, 3, SIDE, SIDE)."""

    def __iter__(self) -> Iterator[Tensor]:
        data, at = Shapes(ShapesConfig(), "train"), FIRST
        while True:
            yield to_tensor(np.stack([data[at + n].image for n in range(BATCH)]))
            at += BATCH


def sets_to_read(count: int) -> Iterator[tuple[str, Tensor, list[str]]]:
    """Render the test sets whose reconstructions are read.

    Args:
        count: Images of each set.

    Yields:
        The name of the set, its images, float (count, 3, SIDE, SIDE), and their captions.
    """
    for name, (split, settings) in SETS.items():
        data = Shapes(ShapesConfig(**settings), split)
        examples = [data[n] for n in range(count)]
        images = to_tensor(np.stack([example.image for example in examples]))
        yield name, images, [example.captions[0] for example in examples]


def read_right(images: Tensor, captions: list[str]) -> float:
    """Measure how many images show what their caption says.

    Args:
        images: Images, float (B, 3, SIDE, SIDE).
        captions: B captions.

    Returns:
        The percentage that is all right.
    """
    return round(caption_accuracy(to_bytes(images), captions)["all"], 1)


def steps_of(
    minutes: float, optimizer: torch.optim.Optimizer, lr: float, warmup: int
) -> Iterator[tuple[int, float]]:
    """Count training steps until the time is over, and set the learning rate of each.

    It rises over the first steps, and falls to 0 as a cosine of the time.

    Args:
        minutes: Minutes of training.
        optimizer: The optimizer, with one group of parameters.
        lr: Largest learning rate.
        warmup: Steps until it is reached.

    Yields:
        The number of the step, from 0, and the seconds that have passed.
    """
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        factor = min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * progress)) / 2
        optimizer.param_groups[0]["lr"] = lr * factor
        yield step, 60 * minutes * progress
        step += 1


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step down the gradient, whose norm is clipped at 1.

    Args:
        optimizer: The optimizer, with one group of parameters.
        loss: The loss, a scalar.
    """
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def arguments(description: str | None, minutes: float, folder: Path) -> tuple[float, Path]:
    """Read the command line of a training.

    Args:
        description: What the training's help says.
        minutes: Minutes of training, by default.
        folder: Where the network is written, by default.

    Returns:
        The minutes and the folder that are asked for.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--out", type=Path, default=folder)
    given = parser.parse_args()
    return given.minutes, given.out
