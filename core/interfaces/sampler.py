"""The base classes of samplers: algorithms that sample images from a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import field_validator
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.settings import Config

MOST_STEPS = 1_000_000
"""Largest number of sampling steps, whose timesteps are listed."""


class SamplerConfig(Config):
    """Settings that every sampler has.

    Seed and noise are not among them: they come with the request.
    """

    steps: int | None = None
    """Number of sampling steps.

    None: the sampler's default. Samplers of one-shot models ignore it.
    """

    guidance: float = 1.0
    """Scale of classifier-free guidance.

    1: no guidance.
    """

    @field_validator("steps")
    @classmethod
    def _can_be_listed(cls, steps: int | None) -> int | None:
        if steps is not None and steps > MOST_STEPS:
            raise ValueError(f"more sampling steps than {MOST_STEPS} cannot be listed")
        return steps


class UnguidedConfig(SamplerConfig):
    """Settings of a sampler without guidance. Any scale but 1 is an error."""

    @field_validator("guidance")
    @classmethod
    def _unguided(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError("this sampler has no guidance: leave it out, or at 1")
        return guidance


class Sampler(ABC):
    """An algorithm that samples images from generators of the families in its `SamplerSpec`.

    Args:
        config: The sampler's settings, a `SamplerConfig`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def sample(self, generator: Generator, request: Request) -> Tensor:
        """Sample one image for each row of the request.

        The caller disables gradients. A sampler that optimises enables them itself.

        Args:
            generator: A generator in evaluation mode, of a family in the sampler's specification.
            request: What to sample. Its `text` and `null` have been through `Generator.condition`.

        Returns:
            Images, float (B, 3, H, W) in [-1, 1].

        Raises:
            UserError: The generator or the request needs something that this sampler does not
                support.
        """

    @property
    def needs_null(self) -> bool:
        """Whether `Request.null` is needed. By default it is if `guidance` is not 1."""
        return bool(self.config.guidance != 1)

    def check(self, generator: Generator) -> None:  # noqa: B027 (most samplers draw from all of their families)
        """Check that this sampler, with its settings, can sample from a generator.

        Nothing is sampled.

        Args:
            generator: A generator of a family in the sampler's specification.

        Raises:
            UserError: It cannot.
        """

    def inverts(self, generator: Generator) -> bool:
        """Tell whether `invert` works for a generator.

        Args:
            generator: A generator of a family in the sampler's specification.

        Returns:
            True if it does. By default False.
        """
        return False

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """Compute the noise from which `sample` would return these images.

        Args:
            generator: A generator for which `inverts` returns True.
            images: Images, (B, 3, H, W) in [-1, 1].
            request: `text` and `null` of the images. Its noise is not used.

        Returns:
            Noise for `PromptNoise.given`, (B, *noise_shape).

        Raises:
            NotImplementedError: The sampler has no inversion.
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
    """Check that a sampler supports the family of a model.

    Args:
        sampler: Registry name of the sampler.
        families: Families that it supports; "*" stands for all.
        model: Name of the model, for the message.
        family: Family of the model.
        fitting: Names of the samplers that support the family, for the message.
        option: How the user chooses another sampler, for the message.

    Raises:
        UserError: The sampler does not support the family. The message names those that do.
    """
    if family not in families and "*" not in families:
        remedy = (
            f"use {option}{' or '.join(fitting)}"
            if fitting
            else "no sampler for this family is installed"
        )
        raise UserError(
            f"sampler '{sampler}' draws from {' and '.join(families)} models, "
            f"but '{model}' is {family}: {remedy}"
        )
