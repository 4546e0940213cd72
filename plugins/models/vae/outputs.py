"""The likelihoods p(x | z, t): what the last layer of a decoder means."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from t2i.plugins.common.variational.gaussian import Gaussian
from t2i.plugins.common.variational.logistic import Mixture, discretised_logistic, logistic_noise
from t2i.plugins.models.vae.config import VAEConfig


class OutputLayer(nn.Module, ABC):
    """Base of the likelihoods.

    Attributes:
        discrete: Whether x are the levels of 8-bit pixels, 2 k / 255 - 1. Else x are real numbers.
        noise_channels: Channels of the noise that turns features into draws.
    """

    discrete: bool
    noise_channels: int

    @abstractmethod
    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        """Compute log p(x | features).

        Args:
            features: Features of the decoder, float (B, width, H, W).
            x: Images or latents, float (B, C, H, W).

        Returns:
            The sum over all values, (B,).
        """

    @abstractmethod
    def draw(self, features: Tensor, eps: Tensor | None) -> Tensor:
        """Turn features into images or latents.

        Args:
            features: Features of the decoder, float (B, width, H, W).
            eps: Noise from N(0, 1), (B, noise_channels, H, W). None: zeros, which give the mean or
                the most probable component's.

        Returns:
            x, float (B, C, H, W).
        """


class Scaled(OutputLayer):
    """Base of likelihoods with a mean of each value and one learnt log scale of each channel.

    Args:
        width: Channels of the features.
        channels: Channels of x.
        first: Initial log scale.
        least: Smallest log scale.
    """

    def __init__(self, width: int, channels: int, first: float, least: float) -> None:
        super().__init__()
        self.noise_channels, self.least = channels, least
        self.mean = nn.Conv2d(width, channels, 1)
        self.log_sigma = nn.Parameter(torch.full((channels, 1, 1), first))

    def scale(self) -> Tensor:
        """Return the log scales, none of them below the least.

        Returns:
            float (C, 1, 1).
        """
        return self.log_sigma.clamp_min(self.least)


class GaussianOutput(Scaled):
    """p(x | z, t) = N(mean, sigma^2)."""

    discrete = False

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        mean = self.mean(features).to(x.dtype)
        return Gaussian(mean, self.scale().expand_as(mean)).log_prob(x).flatten(1).sum(1)

    def draw(self, features: Tensor, eps: Tensor | None) -> Tensor:
        mean: Tensor = self.mean(features)
        return mean if eps is None else mean + self.scale().exp() * eps


class LogisticOutput(Scaled):
    """A discretised logistic of each value.

    Source: Kingma et al. 2016, openai/iaf.
    """

    discrete = True

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        mean = self.mean(features).to(x.dtype)
        return discretised_logistic(x, mean, self.scale()).flatten(1).sum(1)

    def draw(self, features: Tensor, eps: Tensor | None) -> Tensor:
        mean: Tensor = self.mean(features)
        return mean if eps is None else mean + self.scale().exp() * logistic_noise(eps)


class MixtureOutput(OutputLayer):
    """A mixture of discretised logistics of each pixel, as in VDVAE.

    Args:
        width: Channels of the features.
        components: Number K of components.
    """

    discrete = True

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.components, self.noise_channels = components, components + 3
        self.parameters_of = nn.Conv2d(width, 10 * components, 1)
        nn.init.zeros_(self.parameters_of.bias)  # type: ignore[arg-type]

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        mixture = Mixture.of(self.parameters_of(features).to(x.dtype))
        return mixture.log_prob(x).flatten(1).sum(1)

    def draw(self, features: Tensor, eps: Tensor | None) -> Tensor:
        mixture = Mixture.of(self.parameters_of(features))
        if eps is None:
            b, _, h, w = features.shape
            eps = features.new_zeros(b, self.noise_channels, h, w)
        return mixture.draw(eps[:, : self.components], eps[:, self.components :])


def output_of(config: VAEConfig, width: int) -> OutputLayer:
    """Build the likelihood that the settings name.

    Args:
        config: The model's settings.
        width: Channels of the decoder's features.

    Returns:
        The last layer.
    """
    if config.output == "mixture":
        return MixtureOutput(width, config.mixtures)
    kind = GaussianOutput if config.output == "gaussian" else LogisticOutput
    return kind(width, config.channels, config.first_log_sigma, config.least_log_sigma)
