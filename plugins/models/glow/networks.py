"""The network of Glow.

Source: Kingma & Dhariwal 2018; where a setting says so, OpenAI's code.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.flow import FlowRun
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, conditioned, resized
from t2i.plugins.common.flows.generator import FlowNetwork, SpaceFlow
from t2i.plugins.models.glow.config import GlowConfig
from t2i.plugins.models.glow.steps import ActNorm, Step, ZeroConv


def build(config: GlowConfig, text: TextShape, assets: Path | None = None) -> SpaceFlow:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the autoencoder. None: it is built or loaded
            as the settings say.

    Returns:
        The generator.
    """
    return SpaceFlow(config, Glow(config, text), assets)


class Glow(FlowNetwork):
    """Levels of squeezed steps; the noise of all levels is one vector.

    Each level but the last splits half of the channels off, whose Gaussian depends on the other
    half. Noise is standardised: (z - mean) / std.

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Attributes:
        prepared: Whether the first batch has set the actnorms, bool ().
    """

    prepared: Tensor

    def __init__(self, config: GlowConfig, text: TextShape) -> None:
        super().__init__(config, text)
        self.noise_shape = (config.channels * config.side**2,)
        channels, side = config.channels, config.side
        self.levels = nn.ModuleList()
        for number in range(config.levels):
            channels, side = 4 * channels, side // 2
            level = Level(config, channels, side, last=number == config.levels - 1)
            self.levels.append(level)
            channels = level.kept
        self.register_buffer("prepared", torch.tensor(False))

    def flow(self, x: Tensor, text: TextFeatures, run: FlowRun) -> tuple[Tensor, Tensor]:
        noise: list[Tensor] = []
        total = x.new_zeros(len(x))
        for level in self.levels:
            x, eps, log_det = level(F.pixel_unshuffle(x, 2), self._map(text, x.shape[-1] // 2))
            noise.append(eps.flatten(1))
            total = total + log_det
        return torch.cat(noise, 1), total

    def unflow(self, noise: Tensor, text: TextFeatures, run: FlowRun) -> Tensor:
        levels = [level for level in self.levels if isinstance(level, Level)]
        x: Tensor | None = None
        end = noise.shape[1]
        for level in reversed(levels):
            begin = end - math.prod(level.noise_shape)
            eps = noise[:, begin:end].reshape(len(noise), *level.noise_shape)
            x = F.pixel_shuffle(level.reverse(x, eps, self._map(text, eps.shape[-1])), 2)
            end = begin
        assert x is not None
        return x

    def prepare(self, x: Tensor, text: TextFeatures) -> None:
        """Set each actnorm so that its output on a batch has mean 0 and variance 1.

        Source: Kingma & Dhariwal 2018, section 3.1.

        Args:
            x: Data of the whole global batch, (B, C, h, w).
            text: Conditioned captions.
        """
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        for norm in norms:
            norm.measures = True
        try:
            self(x, text)
        finally:
            for norm in norms:
                norm.measures = False
        self.prepared.fill_(True)

    def _map(self, text: TextFeatures, side: int) -> Tensor | None:
        """Return the text's map at a size, or None if there is none."""
        return resized(conditioned(text, MAP), side) if self.has_map else None


class Level(nn.Module):
    """K steps of flow, and the Gaussian of what leaves after them.

    Args:
        config: The model's settings.
        channels: Channels after the squeeze.
        side: Height and width after the squeeze.
        last: Whether everything leaves.

    Attributes:
        kept: Channels that go on to the next level.
        noise_shape: Shape of what leaves.
    """

    def __init__(self, config: GlowConfig, channels: int, side: int, last: bool) -> None:
        super().__init__()
        self.last, self.interleaved = last, config.interleaved and not last
        self.steps = nn.ModuleList(Step(config, channels) for _ in range(config.depth))
        leaving = channels if last else channels // 2
        self.kept = 0 if last else channels - leaving
        self.noise_shape = (leaving, side, side)
        self.text = config.text.text_map if config.text_prior else 0
        self.prior = ZeroConv((self.kept or leaving) + self.text, 2 * leaving, config.edges)

    def gaussian(
        self, kept: Tensor | None, like: Tensor, grid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean and the log standard deviation of what leaves.

        Args:
            kept: What goes on, (B, kept, s, s). None: nothing does.
            like: Tensor of the shape of what leaves, (B, leaving, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            Both, (B, leaving, s, s).
        """
        h = torch.zeros_like(like) if kept is None else kept
        if self.text:
            assert grid is not None
            h = torch.cat([h, grid], 1)
        out = self.prior(h)
        return (out[:, 0::2], out[:, 1::2]) if self.interleaved else out.chunk(2, 1)

    def forward(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Turn values into noise and what goes on.

        Args:
            x: Squeezed values, (B, C, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            What goes on, (B, kept, s, s), noise, (B, *noise_shape), and log |det| of each image,
            (B,).
        """
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, log_det = step(x, grid)
            total = total + log_det
        kept, leaving = (None, x) if self.last else x.chunk(2, 1)
        mean, log_std = self.gaussian(kept, leaving, grid)
        eps = (leaving - mean) * (-log_std).exp()
        return x if kept is None else kept, eps, total - log_std.flatten(1).sum(1)

    def reverse(self, kept: Tensor | None, eps: Tensor, grid: Tensor | None) -> Tensor:
        """Turn noise and what went on into values.

        Args:
            kept: What went on, (B, kept, s, s). None: nothing did.
            eps: Noise, (B, *noise_shape).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            Squeezed values, (B, C, s, s).
        """
        mean, log_std = self.gaussian(kept, eps, grid)
        x = eps * log_std.exp() + mean
        if kept is not None:
            x = torch.cat([kept, x], 1)
        for step in reversed(self.steps):
            assert isinstance(step, Step)
            x = step.reverse(x, grid)
        return x
