"""Samplers: ways to draw images from a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import field_validator
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.settings import Config


class SamplerConfig(Config):
    """Settings that every sampler has.

    steps: number of network evaluations along the chain (None: the sampler's own default; one-shot samplers ignore it).
    guidance: scale s of classifier-free guidance (1: none). seed and noise are no settings: they come with the call.
    """

    steps: int | None = None
    guidance: float = 1.0


class UnguidedConfig(SamplerConfig):
    """Settings of a sampler that has no guidance: any scale but 1 is refused."""

    @field_validator("guidance")
    @classmethod
    def _unguided(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError("this sampler has no guidance: leave it out, or at 1")
        return guidance


class Sampler(ABC):
    """Draws images from the families that its specification names."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def sample(self, generator: Generator, request: Request) -> Tensor:
        """Draws one image for each row of the request.

        Called without gradients; a sampler that optimises enables them itself.

        Args:
            generator: in evaluation mode, of a family that the specification names.
            request: text and null are conditioned already (`Generator.condition`).

        Returns:
            (B, 3, H, W) float in [-1, 1].

        Raises:
            UserError: the generator or the request asks for something that this sampler cannot do.
        """

    @property
    def needs_null(self) -> bool:
        """Whether a request must carry the features of no caption. Default: where guidance is not 1."""
        return bool(self.config.guidance != 1)

    def check(self, generator: Generator) -> None:  # noqa: B027 (most samplers draw from all of their families)
        """Raises UserError if this sampler, as it is set, cannot draw from this generator. Nothing is drawn."""

    def inverts(self, generator: Generator) -> bool:
        """Whether `invert` works for this generator. Default: no."""
        return False

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """The noise from which `sample` would draw these images.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            request: its text and null belong to the images; its noise is not read.

        Returns:
            What `PromptNoise.given` takes, (B, *noise_shape).
        """
        raise NotImplementedError(f"{type(self).__name__} turns no images into noise")


def check_fit(
    sampler: str,
    families: tuple[str, ...],
    model: str,
    family: str,
    fitting: list[str],
    option: str = "--sampler ",
) -> None:
    """Raises UserError, naming the samplers that fit, if `sampler` does not draw from `family`.

    option: how the user names another sampler.
    """
    if family not in families and "*" not in families:
        remedy = (
            f"use {option}{' or '.join(fitting)}"
            if fitting
            else "no sampler for this family is installed"
        )
        raise UserError(
            f"sampler '{sampler}' draws from {' and '.join(families)} models, but '{model}' is {family}: {remedy}"
        )
