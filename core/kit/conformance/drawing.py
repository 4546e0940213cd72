"""Checks of a trained model's pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.sampler import Sampler
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import ModelSubject
from t2i.core.models.model import Model
from t2i.core.registry.tables import registry

EACH = 2
"""Pictures of each caption."""

BATCHES = (1, 4)
"""Sizes of the batches that are compared with all pictures at once."""

FAR_OUT = 20.0
"""Beyond this a picture is not in [-1, 1] in any sense: the samplers of an iterative family may overshoot while the
network knows little, and are clamped when they become bytes."""


def pictures(subject: ModelSubject) -> None:
    """Its sampler gives finite float pictures (B, 3, H, W) of its size; a one-shot generator's lie in [-1, 1]. Any
    caption will do: the empty one, unknown words, two hundred of them."""
    subject.must_draw()
    model, one_shot = subject.model, subject.spec.family == "one-shot"
    size = model.generator.image_size
    sampler: Sampler = registry().samplers.build(model.sampler())
    for captions in (subject.captions, ["", "xyzzy \N{ARTIST PALETTE}", "many words " * 100]):
        images = _images(model, sampler, captions)
        said = f"{images.dtype} {tuple(images.shape)}"
        need(
            images.shape == (len(captions), 3, size, size), f"pictures are {said}, not {(len(captions), 3, size, size)}"
        )
        need(images.is_floating_point(), f"pictures are {said}, not float")
        need(bool(images.isfinite().all()), "there are values in the pictures that are not finite")
        most = float(images.abs().max())
        need(most <= (1.0001 if one_shot else FAR_OUT), f"pictures reach {most:.3g}, which is not in [-1, 1]")


@torch.no_grad()
def _images(model: Model, sampler: Sampler, captions: Sequence[str]) -> torch.Tensor:
    model.generator.eval()
    model.text_encoder.eval()
    noise = PromptNoise(0, tuple((i, 0) for i in range(len(captions))), model.device)
    return sampler.sample(model.generator, model.request(captions, noise, null=sampler.needs_null))


def same_seed(subject: ModelSubject) -> None:
    """The same request gives the same bytes, whatever the state of the process's random generators."""
    subject.must_draw()
    same = same_bytes(subject.model, subject.captions)
    need(same, "two draws of one seed differ: draw random numbers from `noise` alone")


def batch_size(subject: ModelSubject) -> None:
    """Drawn one by one, pictures are those drawn together, to one 8-bit level."""
    subject.must_draw()
    for size in BATCHES:
        off = off_by(subject.model, subject.captions, size)
        need(off <= 1, f"in batches of {size}, pictures differ by up to {off} levels from those drawn together")


def saves(subject: ModelSubject) -> None:
    """Loaded from its run, it draws the same bytes as the model in memory when training ended."""
    subject.must_draw()
    watcher = subject.trained.watcher
    if watcher.generator is None or watcher.text_encoder is None:
        raise Skipped("it has nothing to train: it is loaded as it was built")
    config = subject.trained.run.config()
    memory = Model(config, watcher.generator, watcher.text_encoder).to("cpu")
    # As a model that is built is laid out in memory: the last bits depend on that.
    layout = torch.channels_last if config.settings.channels_last else torch.contiguous_format
    memory.generator.to(memory_format=layout)
    memory.text_encoder.to(memory_format=torch.contiguous_format)
    same = drawn(memory, subject.captions) == drawn(subject.model, subject.captions)
    need(
        bool(same.all()),
        "loaded from its run it draws other pictures: what is needed to draw must be a parameter, a buffer, a setting "
        "or one of `save_assets`",
    )


def drawn(model: Model, captions: Sequence[str], *, size: int | None = None, disturb: int = 0) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3), EACH of each caption. disturb: seeds the generators that must not matter."""
    torch.manual_seed(disturb)
    np.random.seed(disturb)
    random.seed(disturb)
    count = len(captions) * EACH
    batches = model.draw(captions, n=EACH, seed=3, batch_size=size or count)
    return np.stack([one.image for batch in batches for one in batch])


def same_bytes(model: Model, captions: Sequence[str]) -> bool:
    """Whether the same request gives the same bytes, in other states of the process's random generators."""
    return bool((drawn(model, captions, disturb=1) == drawn(model, captions, disturb=2)).all())


def off_by(model: Model, captions: Sequence[str], size: int) -> int:
    """By how many 8-bit levels pictures drawn in batches of `size` differ from those drawn all at once, at most."""
    together, apart = drawn(model, captions), drawn(model, captions, size=size)
    return int(np.abs(together.astype(int) - apart).max())
