"""Checks of the images that a trained model samples."""

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
"""Images sampled for each caption."""

COMPARED = 4
"""Images sampled for each caption where the tolerance is statistical."""

NEAR = 0.25
"""How much an image may change with its batch, if the tolerance is statistical.

It is a fraction of the median distance between two images of one caption.
"""

BATCHES = (1, 4)
"""Batch sizes whose images are compared with those of a single large batch."""

FAR_OUT = 20.0
"""Largest absolute value of an image from an iterative sampler.

Such samplers may leave [-1, 1] while the network is hardly trained, and their images are clamped
when they are converted to bytes.
"""


def images(subject: ModelSubject) -> None:
    """Its sampler returns finite float images (B, 3, H, W) of its size for any caption.

    Captions of the data set, an empty one, one of unknown words and one of two hundred words are
    tried. Images of a one-shot generator lie in [-1, 1].

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model samples no images.
    """
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
    """Sample one image for each caption, without conversion to bytes."""
    model.generator.eval()
    model.text_encoder.eval()
    noise = PromptNoise(0, tuple((i, 0) for i in range(len(captions))), model.device)
    return sampler.sample(model.generator, model.request(captions, noise, null=sampler.needs_null))


def same_seed(subject: ModelSubject) -> None:
    """The same request returns the same bytes, whatever the state of global random generators.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model samples no images.
    """
    subject.must_draw()
    same = same_bytes(subject.model, subject.captions)
    need(same, "two draws of one seed differ: draw random numbers from `noise` alone")


def batch_size(subject: ModelSubject) -> None:
    """Sampled in smaller batches, images agree as closely as the model's tolerance requires.

    They agree to the bit, or to one 8-bit level, or, if the tolerance is statistical, at least half
    of them nearly agree (`agrees`).

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model samples no images.
    """
    subject.must_draw()
    agrees(subject.model, subject.captions)


def saves(subject: ModelSubject) -> None:
    """Loaded from its run, it samples the same bytes as the model in memory when training ended.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model samples no images, or has nothing to train.
    """
    subject.must_draw()
    watcher = subject.trained.watcher
    if watcher.generator is None or watcher.text_encoder is None:
        raise Skipped("it has nothing to train: it is loaded as it was built")
    config = subject.trained.run.config()
    memory = Model(config, watcher.generator, watcher.text_encoder).to("cpu")
    # The memory layout that a model has when it is built: the last bits depend on it.
    layout = torch.channels_last if config.settings.channels_last else torch.contiguous_format
    memory.generator.to(memory_format=layout)
    memory.text_encoder.to(memory_format=torch.contiguous_format)
    same = drawn(memory, subject.captions) == drawn(subject.model, subject.captions)
    need(
        bool(same.all()),
        "loaded from its run it draws other images: what is needed to draw must be a parameter, a "
        "buffer, a setting or one of `save_assets`",
    )


def drawn(
    model: Model,
    captions: Sequence[str],
    *,
    each: int = EACH,
    size: int | None = None,
    disturb: int = 0,
) -> np.ndarray:
    """Sample images with a fixed seed.

    Args:
        model: The model.
        captions: The captions.
        each: Images for each caption.
        size: Batch size; None for all images in one batch.
        disturb: Seed of the global random generators, which must not matter.

    Returns:
        The images, uint8 (N, H, W, 3), caption by caption.
    """
    torch.manual_seed(disturb)
    np.random.seed(disturb)
    random.seed(disturb)
    count = len(captions) * each
    batches = model.stream(captions, n=each, seed=3, batch_size=size or count)
    return np.stack([one.image for batch in batches for one in batch])


def same_bytes(model: Model, captions: Sequence[str]) -> bool:
    """Return whether the same request returns the same bytes if global random generators differ.

    Args:
        model: The model.
        captions: The captions to sample for.

    Returns:
        True if every byte is the same.
    """
    return bool((drawn(model, captions, disturb=1) == drawn(model, captions, disturb=2)).all())


def agrees(model: Model, captions: Sequence[str]) -> None:
    """Check that images sampled in smaller batches agree with those sampled in one batch.

    The generator's `tolerance` says how closely. With "exact" and "level" no pixel of any image may
    differ by more than 0 or 1 levels.

    With "statistical" at least half of the images must agree. An image agrees if no pixel differs
    by more than one level, or if its root mean square difference is at most NEAR times the median
    of those between the images of its caption. Rounding has two effects: rarely, it changes which
    of two tokens is chosen, and then that image becomes another one; or it grows from step to step,
    which changes all images a little. Either way most images stay far closer to themselves than to
    another sample. An image that was sampled with another one's noise, or that depends on the rest
    of its batch, is as far off as another sample.

    Args:
        model: The model.
        captions: The captions to sample for.

    Raises:
        Failed: They do not agree.
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
                f"in batches of {size}, {len(same) - int(same.sum())} of {len(same)} images are "
                "not those drawn together",
            )
        else:
            most, allowed = int(off.max()), 0 if tolerance == "exact" else 1
            need(
                most <= allowed,
                f"in batches of {size}, images differ by up to {most} levels from those drawn "
                f"together",
            )


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the root mean square difference of each pair of images.

    Args:
        first: Images, uint8 (N, H, W, 3).
        second: As many images of the same size.

    Returns:
        The differences in 8-bit levels, float (N,).
    """
    roots: np.ndarray = np.sqrt(np.square(first.astype(float) - second).mean((1, 2, 3)))
    return roots


def variety(images: np.ndarray, captions: int) -> np.ndarray:
    """Return how much the images of each caption usually differ from each other.

    Args:
        images: Images, uint8 (N, H, W, 3), caption by caption, the same number of each.
        captions: Number of captions.

    Returns:
        For each image the median distance between two images of its caption, float (N,).
    """
    medians = []
    for group in np.split(images, captions):
        first, second = np.triu_indices(len(group), 1)
        medians += [np.median(distances(group[first], group[second]))] * len(group)
    return np.array(medians)
