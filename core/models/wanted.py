"""What is to be sampled: prompts, which images of them, and what keys their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import NoiseKey, text_keys
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.terminal import note

Key = tuple[int, int]
"""An image of a request: the index of its prompt, and its index among the samples of that prompt.
"""

MOST_IMAGES = 1_000_000
"""Most images of one request; each is known by number before the first is sampled."""

Prompts = str | Sequence[str] | TextFeatures
"""What to sample: one caption, several captions, or the text features of captions."""

Several = Sequence[str] | TextFeatures
"""Prompts that have a length: one caption alone has become a sequence of one."""


@dataclass(frozen=True)
class Chosen:
    """Which of several candidates an image is.

    Args:
        candidate: Number of the candidate that was kept, from 0.
        scores: How well each candidate fits its caption: the cosine of their features.
        batch: The batch that the candidate was sampled in, as (index of the prompt, number among
            all candidates of the prompt).
    """

    candidate: int
    scores: tuple[float, ...]
    batch: tuple[Key, ...]

    @property
    def score(self) -> float:
        """The score of the candidate that was kept."""
        return self.scores[self.candidate]


@dataclass(frozen=True)
class Sample:
    """One sampled image.

    Args:
        prompt: Index of its prompt.
        sample: Index of the image among those of its prompt.
        image: The image, uint8 (H, W, 3).
        chosen: Which of several candidates it is. None: it is the only one.
    """

    prompt: int
    sample: int
    image: np.ndarray
    chosen: Chosen | None = None


def several(prompts: Prompts) -> Several:
    """Turn one caption into a sequence of one.

    Args:
        prompts: A str, which is one caption, or what already is several.

    Returns:
        A sequence of captions, or the text features unchanged.
    """
    return [prompts] if isinstance(prompts, str) else prompts


def noise_keys(prompts: Several, n: int) -> dict[Key, NoiseKey]:
    """Choose what the noise of each image depends on.

    It is the prompt's text (`text_keys`), so that a prompt gives the same images wherever it stands
    in the list. Features without captions have no text: there it is the row.

    Args:
        prompts: The prompts.
        n: Images of each prompt.

    Returns:
        The key of each image's noise, by (prompt index, sample index), prompt by prompt.

    Raises:
        UserError: These are more than MOST_IMAGES images.
    """
    check_count(len(prompts), n)
    captions = prompts.captions if isinstance(prompts, TextFeatures) else prompts
    if len(captions) < len(prompts):
        return {(p, s): (p, s) for p in range(len(prompts)) for s in range(n)}
    keys = text_keys(captions, n)
    return {(p, s): key for p, own in enumerate(keys) for s, key in enumerate(own)}


def check_count(prompts: int, n: int) -> None:
    """Check that a request is for no more than MOST_IMAGES images.

    Args:
        prompts: Number of prompts.
        n: Images of each prompt.

    Raises:
        UserError: It is.
    """
    if prompts * n > MOST_IMAGES:
        raise UserError(
            f"{prompts} captions with {n} images each (-n) are {prompts * n} images, more than one "
            f"command samples ({MOST_IMAGES}): use a smaller -n, or several commands with another "
            "--seed each"
        )


def rows_of(prompts: Several, rows: Sequence[int]) -> Several:
    """Choose rows of some prompts.

    Args:
        prompts: The prompts.
        rows: Indexes of the rows.

    Returns:
        The prompts of these rows, in their order.
    """
    return prompts[rows] if isinstance(prompts, TextFeatures) else [prompts[row] for row in rows]


def default_batch(image_size: int) -> int:
    """Choose how many images to sample at once.

    Throughput hardly grows beyond 64 images of 64 pixels.

    Args:
        image_size: Side of an image in pixels.

    Returns:
        The batch size, from 1 to 64.
    """
    return max(1, min(64, 64 * 64**2 // image_size**2))


def are_lost(images: Tensor) -> bool:
    """Tell whether images have values that are no numbers. If so, a line says it.

    Args:
        images: The images, float (B, 3, H, W).

    Returns:
        True if at least one is spoilt.
    """
    count = int((~images.isfinite()).flatten(1).any(1).sum())
    if count:
        note(
            f"warning: {count} of {len(images)} images have values that are no numbers (NaN), and "
            "are spoilt: choose another --sampler or --steps; if that does not help, the weights "
            "are damaged"
        )
    return count > 0
