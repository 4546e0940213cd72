"""A request: all that a sampler is told of the images that are wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures

Guide = Callable[[Tensor, Tensor, TextFeatures], Tensor]
"""`guide(x_t, t, text)` -> the gradient (B, ...) of log p(y | x_t) with respect to x_t: classifier guidance."""

Progress = Callable[[int, int], None]
"""`progress(done, total)`, called after each step."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a sampler is asked for. It may grow: a sampler reads what it knows, and refuses by name what it cannot do.

    Args:
        text: features of the B captions, as `Generator.condition` returned them.
        noise: the keyed source of every random number, one row an image.
        null: features of "no caption", conditioned alike (B rows); None where no guidance asks for them.
        guide: gradient of a classifier's log-likelihood; None for no classifier guidance.
        progress: called after each step; None for silence.
        image: (B, 3, H, W) in [-1, 1], to start from: image-to-image, upsampling, inpainting.
        mask: (B, 1, H, W) of 0 and 1; 1 marks what may change. None: everything may.
        strength: share of the chain that `image` is put through, 0 (unchanged) to 1 (drawn afresh).
    """

    text: TextFeatures
    noise: PromptNoise
    null: TextFeatures | None = None
    guide: Guide | None = None
    progress: Progress | None = None
    image: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}: it must lie between 0 and 1")
        if self.image is None and self.mask is not None:
            raise ValueError("a mask needs an image")

    def __len__(self) -> int:
        return len(self.noise)

    def refuse(self, sampler: str, **reasons: str) -> None:
        """Refuses what a sampler cannot do: a field of that name that is given.

        Args:
            sampler: its registry name.
            reasons: field -> why it is refused, as what follows the sampler's name.

        Raises:
            UserError: one of the fields is not None.
        """
        for field, reason in reasons.items():
            if getattr(self, field) is not None:
                raise UserError(f"sampler '{sampler}' {reason}")

    def step_done(self, done: int, total: int) -> None:
        """Reports progress, if anyone asked for it."""
        if self.progress:
            self.progress(done, total)
