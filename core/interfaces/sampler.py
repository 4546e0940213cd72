"""Samplers: ways to draw images from a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.settings import Config

Guide = Callable[[Tensor, Tensor, TextFeatures], Tensor]
"""`guide(x_t, t, text) -> gradient of log p(y | x_t) with respect to x_t` (classifier guidance)."""

Progress = Callable[[int, int], None]
"""`progress(done, total)`, called after each step."""


class SamplerConfig(Config):
    """Settings that every sampler has.

    steps: number of network evaluations along the chain (None: the sampler's own default; one-shot samplers ignore it).
    guidance: scale s of classifier-free guidance (1: none). seed and noise are no settings: they come with the call.
    """

    steps: int | None = None
    guidance: float = 1.0


class Sampler(ABC):
    """Draws images. `families` names the generator families it draws from; "*" fits all."""

    families: tuple[str, ...]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def sample(
        self,
        generator: Generator,
        text: TextFeatures,
        noise: PromptNoise,
        null: TextFeatures | None = None,
        *,
        guide: Guide | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Images (B, 3, H, W), float in [-1, 1], one for each row of `text` and `noise`.

        null: features of "no caption" (B rows), needed where guidance is not 1.
        Called without gradients; a sampler that optimises enables them itself.
        """

    def invert(
        self, generator: Generator, images: Tensor, text: TextFeatures, null: TextFeatures | None = None
    ) -> Tensor:
        """The noise (B, *noise_shape) from which `sample` would draw these images (B, 3, H, W), in [-1, 1].

        For deterministic samplers that can go backwards, whose specification says `inverts`.
        """
        raise NotImplementedError(f"{type(self).__name__} turns no images into noise")


def check_fit(sampler: str, families: tuple[str, ...], model: str, family: str, fitting: list[str]) -> None:
    """Raises UserError, naming the samplers that fit, if `sampler` does not draw from `family`."""
    if family not in families and "*" not in families:
        raise UserError(
            f"sampler '{sampler}' draws from {' and '.join(families)} models, but '{model}' is {family}: "
            f"use --sampler {' or '.join(fitting) if fitting else '(none is installed for this family)'}"
        )
