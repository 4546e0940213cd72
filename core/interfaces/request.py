"""The request that a sampler receives: which images are to be sampled, and from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures

Guide = Callable[[Tensor, Tensor, TextFeatures], Tensor]
"""`guide(x_t, t, text)` returns the gradient (B, ...) of log p(y | x_t) with respect to x_t.

It serves classifier guidance.
"""

Progress = Callable[[int, int], None]
"""`progress(done, total)` is called after each sampling step."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a sampler is to sample: B captions with their noise, and options.

    Later versions may add fields. A sampler reads the fields that it supports and rejects others
    with `refuse`.

    Args:
        text: Features of the B captions, as `Generator.condition` returned them.
        noise: Source of every random number, one row for each image.
        null: Features of "no caption" or of the negative prompts (B rows), passed through
            `Generator.condition` too. None: no guidance needs them.
        guide: Gradient of a classifier's log-likelihood. None: no classifier guidance.
        progress: Function that is called after each step. None: progress is not reported.
        image: Images to start from, (B, 3, H, W) in [-1, 1]: image-to-image, upsampling,
            inpainting. None: noise only.
        mask: Where `image` may change, (B, 1, H, W) of 0 and 1; 1 may change. None: everywhere.
        strength: Share of the chain that `image` goes through, from 0 (unchanged) to 1 (sampled
            anew, from noise alone).
        size: Height and width of the images in pixels, which the generator allows
            (`Generator.size_step`). None: the generator's own.

    Raises:
        ValueError: `strength` is outside [0, 1], or there is a mask without an image.
    """

    text: TextFeatures
    noise: PromptNoise
    null: TextFeatures | None = None
    guide: Guide | None = None
    progress: Progress | None = None
    image: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}: it must lie between 0 and 1")
        if self.image is None and self.mask is not None:
            raise ValueError("a mask needs an image")

    def __len__(self) -> int:
        return len(self.noise)

    def refuse(self, sampler: str, **reasons: str) -> None:
        """Raise an error if the request has a field that a sampler does not support.

        Args:
            sampler: Registry name of the sampler.
            **reasons: For each unsupported field, the rest of the message after the sampler's name,
                such as image="starts from noise, not from an image".

        Raises:
            UserError: One of the fields is not None.
        """
        for field, reason in reasons.items():
            if getattr(self, field) is not None:
                remedy = ": leave out the image" if field == "image" else ""
                raise UserError(f"sampler '{sampler}' {reason}{remedy}")

    def step_done(self, done: int, total: int) -> None:
        """Report progress, if the request has a function for it.

        Args:
            done: Number of steps that are done.
            total: Number of all steps.
        """
        if self.progress:
            self.progress(done, total)
