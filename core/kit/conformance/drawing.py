"""Checks of a trained model's images."""

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
"""Images of each caption."""

COMPARED = 4
"""Images of each caption, where they are compared with each other."""

NEAR = 0.25
"""Of a statistical tolerance: how far an image drawn apart may be from the one drawn together, as a share of the usual
distance between two images of one caption."""

BATCHES = (1, 4)
"""Sizes of the batches that are compared with all images at once."""

FAR_OUT = 20.0
"""Beyond this an image is not in [-1, 1] in any sense: the samplers of an iterative family may overshoot while the
network knows little, and are clamped when they become bytes."""


def images(subject: ModelSubject) -> None:
    """Its sampler gives finite float images (B, 3, H, W) of its size; a one-shot generator's lie in [-1, 1]. Any
    caption will do: the empty one, unknown words, two hundred of them."""
    subject.must_draw()
    model, one_shot = subject.model, subject.spec.family == "one-shot"
    size = model.generator.image_size
    sampler: Sampler = registry().samplers.build(model.sampler())
    for captions in (subject.captions, ["", "xyzzy \N{ARTIST PALETTE}", "many words " * 100]):
        images = _images(model, sampler, captions)
        said = f"{images.dtype} {tuple(images.shape)}"
        need(
            images.shape == (len(captions), 3, size, size),
            f"images are {said}, not {(len(captions), 3, size, size)}",
        )
        need(images.is_floating_point(), f"images are {said}, not float")
        need(bool(images.isfinite().all()), "there are values in the images that are not finite")
        most = float(images.abs().max())
        need(
            most <= (1.0001 if one_shot else FAR_OUT),
            f"images reach {most:.3g}, which is not in [-1, 1]",
        )


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
    """Drawn one by one, images are those drawn together: to the bit, to one 8-bit level, or, where a family's
    tolerance is statistical, for half of them at least nearly so."""
    subject.must_draw()
    agrees(subject.model, subject.captions)


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
        "loaded from its run it draws other images: what is needed to draw must be a parameter, a buffer, a setting "
        "or one of `save_assets`",
    )


def drawn(
    model: Model,
    captions: Sequence[str],
    *,
    each: int = EACH,
    size: int | None = None,
    disturb: int = 0,
) -> np.ndarray:
    """Images uint8 (N, H, W, 3), `each` of each caption. disturb: seeds the generators that must not matter."""
    torch.manual_seed(disturb)
    np.random.seed(disturb)
    random.seed(disturb)
    count = len(captions) * each
    batches = model.stream(captions, n=each, seed=3, batch_size=size or count)
    return np.stack([one.image for batch in batches for one in batch])


def same_bytes(model: Model, captions: Sequence[str]) -> bool:
    """Whether the same request gives the same bytes, in other states of the process's random generators."""
    return bool((drawn(model, captions, disturb=1) == drawn(model, captions, disturb=2)).all())


def agrees(model: Model, captions: Sequence[str]) -> None:
    """Raises Failed unless images drawn in smaller batches are those drawn together, as closely as the generator's
    `tolerance` asks.

    "exact" and "level" bound every image's difference, by 0 and by 1 levels. "statistical" bounds the middle one of
    all differences. Rounding may tip a draw between two tokens: that is rare, but makes another image of that one. Or
    it may grow from step to step, which moves all images a little. Either way most images stay far nearer to
    themselves than to another draw. So an image is the same if it is off by at most one level, or if its root mean
    square difference is at most NEAR times the median of those between the caption's images; half of them must be.
    An image that is drawn with another one's noise, or that depends on its batch, is as far off as another draw is.
    """
    tolerance = model.generator.tolerance
    together = drawn(model, captions, each=COMPARED if tolerance == "statistical" else EACH)
    for size in BATCHES:
        apart = drawn(model, captions, each=len(together) // len(captions), size=size)
        off = np.abs(together.astype(int) - apart).max((1, 2, 3))
        if tolerance == "statistical":
            same = (off <= 1) | (
                distances(together, apart) <= NEAR * variety(together, len(captions))
            )
            need(
                2 * int(same.sum()) >= len(same),
                f"in batches of {size}, {len(same) - int(same.sum())} of {len(same)} images are not those drawn "
                "together",
            )
        else:
            most, allowed = int(off.max()), 0 if tolerance == "exact" else 1
            need(
                most <= allowed,
                f"in batches of {size}, images differ by up to {most} levels from those drawn together",
            )


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Root mean square differences (N,) of images (N, H, W, 3), pair by pair."""
    roots: np.ndarray = np.sqrt(np.square(first.astype(float) - second).mean((1, 2, 3)))
    return roots


def variety(images: np.ndarray, captions: int) -> np.ndarray:
    """For each image (N,), the median distance between two images of its caption; they lie caption by caption."""
    medians = []
    for group in np.split(images, captions):
        first, second = np.triu_indices(len(group), 1)
        medians += [np.median(distances(group[first], group[second]))] * len(group)
    return np.array(medians)
