"""The bound on the log-likelihood of 8-bit images under a variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.likelihood import Likelihood, dequantised
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.settings import Config
from t2i.plugins.common.variational.bound import importance_bound, log_ratio
from t2i.plugins.models.vae.networks import VAEGenerator


class VAELikelihoodConfig(Config):
    """Settings of the bound."""

    samples: int = Field(1, ge=1)
    """Draws K from the posterior of an image. More of them make the bound tighter (Burda et al.
    2016). 1: the usual bound."""


class VAELikelihood(Likelihood):
    """-log p of images is at most -log mean_k p(x, z_k | t) / q(z_k | x, t).

    Args:
        generator: A variational autoencoder of pixels.
        settings: Settings by name, as in `VAELikelihoodConfig`.

    Raises:
        UserError: A setting is unknown or wrong.
    """

    kind = "bound"

    def __init__(self, generator: VAEGenerator, settings: Mapping[str, Any]) -> None:
        self.config = VAELikelihoodConfig.of(settings, "likelihood")
        self.generator = generator

    def protocol(self) -> Mapping[str, Any]:
        dequantisation = "none" if self.generator.output.discrete else "uniform"
        return {"dequantisation": dequantisation, **self.config.model_dump()}

    @torch.no_grad()
    def nats(self, images: Tensor, text: TextFeatures, noise: Noise) -> Tensor:
        size = self.generator.image_size
        if images.shape[2:] != (size, size):
            raise UserError(f"the likelihood is of images of {size}x{size} pixels")
        if self.generator.output.discrete:
            x, volume = images.to(self.generator.device).float() / 127.5 - 1, 0.0
        else:
            x, volume = dequantised(images, noise)
            x = x.to(self.generator.device)
        weights: list[Tensor] = []
        for number in range(self.config.samples):
            seen = self.generator.infer(x, text, noise, number)
            weights.append((seen.log_prob + log_ratio(seen.latents)).double())
        return (volume - importance_bound(torch.stack(weights))).cpu()


def vae_likelihood(generator: Generator, settings: Mapping[str, Any]) -> VAELikelihood | None:
    """Build the bound of a variational autoencoder, if it is one of images.

    Args:
        generator: The generator.
        settings: Settings by name, as in `VAELikelihoodConfig`.

    Returns:
        The likelihood. None: x are the latents of an autoencoder, whose density says nothing about
        pixels.

    Raises:
        UserError: A setting is unknown or wrong.
    """
    assert isinstance(generator, VAEGenerator)
    return VAELikelihood(generator, settings) if generator.autoencoder is None else None
