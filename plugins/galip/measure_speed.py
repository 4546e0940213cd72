"""Seconds a training step of GALIP at the authors' geometry, on random weights: nothing is downloaded.

    python -m t2i.plugins.galip.measure_speed --image-size 128 --batch-size 4 --steps 5

`training_step` gives the step alone, for who wants to time it in turns with another implementation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from t2i.core.noise import StepNoise
from t2i.core.text import TextEncoder, TextFeatures, TextShape
from t2i.core.trainer import Batch
from t2i.plugins.galip.config import GALIPConfig
from t2i.plugins.galip.networks import build
from t2i.plugins.galip.training import GANTrainer

TEXT = 512  # width of ViT-B/32's sentences


class Vectors(TextEncoder):
    """Random sentence vectors: what a step costs does not depend on what they say."""

    shape = TextShape(TEXT, TEXT)

    def encode(self, captions: list[str]) -> TextFeatures:  # type: ignore[override]
        return TextFeatures.of(sentence=torch.randn(len(captions), TEXT))


class BareEngine:
    """The engine's part in a step, and nothing else: backward into the parameters of one optimizer, and its step."""

    progress = 0.5

    def __init__(self, trainer: GANTrainer) -> None:
        self.optimizers = trainer.optimizers

    def update(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        torch.autograd.backward(loss, inputs=[p for group in optimizer.param_groups for p in group["params"]])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def shifted(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, 0)


def training_step(config: GALIPConfig, *, channels_last: bool = True) -> Callable[[], None]:
    """A whole training step (D, then G) on a batch in memory, captions encoded beforehand. config.clip.weights None
    gives a CLIP of random weights and of the sizes set there."""
    encoder = Vectors()
    trainer = GANTrainer(config, build(config, encoder.shape, None), encoder)
    for module in trainer.modules.values():
        module.train()
        if channels_last:
            module.to(memory_format=torch.channels_last)
    engine, size, count = BareEngine(trainer), config.image_size, config.batch_size
    captions = ("",) * count
    text, images = encoder.encode(list(captions)), torch.rand(count, 3, size, size) * 2 - 1
    noise = StepNoise(0, 0, 0, count, count)

    def step() -> None:
        trainer.step(Batch(images, captions, captions, noise, lambda _: text), engine)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="timed, after one to warm up")
    given = parser.parse_args()
    settings = {"clip": {"weights": None}, "image_size": given.image_size, "batch_size": given.batch_size}
    step = training_step(GALIPConfig.of(settings, "command line"))
    step()
    seconds = []
    for _ in range(given.steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    print(f"{median(seconds):.2f} s a step (median of {given.steps}; {torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
