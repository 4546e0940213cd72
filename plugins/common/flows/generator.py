"""Normalising flows on pixels, or on the latents of an autoencoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.flow import PIXELS, PLAIN, FlowGenerator, FlowRun
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, MAP_SIZE, MappedText, conditioned
from t2i.plugins.common.flows.config import FlowConfig
from t2i.plugins.common.latent.space import autoencoder_of, keep_autoencoder

LARGEST = 4.0
"""Bound of the log scale of the affine map of the text."""


class FlowNetwork(MappedText, ABC):
    """Base of the networks of flows: `network(x, text)` returns noise and log |det|.

    Args:
        config: Settings of the flow.
        text: Widths of the text features.
        map_side: Height and width of the text map, a divisor of those of the data. None: the
            largest up to 8.
        affine: Whether `text_affine` is a map before the flow. A network that is guided has it
            elsewhere.

    Attributes:
        noise_shape: Shape of the noise of one image.
    """

    noise_shape: tuple[int, ...]

    def __init__(
        self,
        config: FlowConfig,
        text: TextShape,
        map_side: int | None = None,
        affine: bool = True,
    ) -> None:
        side = map_side or max(n for n in range(1, MAP_SIZE + 1) if config.side % n == 0)
        patch = config.side // side
        super().__init__(config.text, config.channels * patch**2, side, text)
        channels = config.text.text_map
        own = affine and config.text_affine
        self.affine = TextAffine(channels, config.channels, patch) if own else None

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute what depends on the text alone: by default its map.

        Args:
            text: Features of B captions.

        Returns:
            The text, with the results among its extras.
        """
        return self.mapped(text)

    def forward(self, x: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> tuple[Tensor, Tensor]:
        """Turn data into noise.

        Args:
            x: Data, (B, C, h, w).
            text: Conditioned captions.
            run: Guidance.

        Returns:
            Noise, (B, *noise_shape), and log |det| of each image, (B,).
        """
        if self.affine is None:
            return self.flow(x, text, run)
        x, first = self.affine(x, conditioned(text, MAP))
        noise, log_det = self.flow(x, text, run)
        return noise, log_det + first

    def reverse(self, noise: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> Tensor:
        """Turn noise into data.

        Args:
            noise: Noise, (B, *noise_shape).
            text: Conditioned captions.
            run: Guidance, and how tokens are computed.

        Returns:
            Data, (B, C, h, w).
        """
        x = self.unflow(noise, text, run)
        return x if self.affine is None else self.affine.reverse(x, conditioned(text, MAP))

    @abstractmethod
    def flow(self, x: Tensor, text: TextFeatures, run: FlowRun) -> tuple[Tensor, Tensor]:
        """Turn data, after the affine map of the text, into noise.

        Args:
            x: Data, (B, C, h, w).
            text: Conditioned captions.
            run: Guidance.

        Returns:
            Noise, (B, *noise_shape), and log |det| of each image, (B,).
        """

    @abstractmethod
    def unflow(self, noise: Tensor, text: TextFeatures, run: FlowRun) -> Tensor:
        """Turn noise into data, before the affine map of the text is undone.

        Args:
            noise: Noise, (B, *noise_shape).
            text: Conditioned captions.
            run: Guidance, and how tokens are computed.

        Returns:
            Data, (B, C, h, w).
        """

    if TYPE_CHECKING:

        def __call__(
            self, x: Tensor, text: TextFeatures, run: FlowRun = PLAIN
        ) -> tuple[Tensor, Tensor]: ...


class TextAffine(nn.Module):
    """x -> (x - m) exp(-s), where m and s come from the text map by a 1x1 convolution.

    s is bounded softly. It starts as the identity.

    Args:
        channels: Channels of the text map.
        data: Channels of the data.
        patch: Side of the square of data that belongs to a place of the map.
    """

    def __init__(self, channels: int, data: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(channels, 2 * data * patch**2, 1)
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def parameters_of(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Compute m and s.

        Args:
            grid: Text maps, (B, M, h / patch, w / patch).

        Returns:
            m and s, (B, C, h, w) each.
        """
        m, s = F.pixel_shuffle(self.conv(grid), self.patch).chunk(2, 1)
        return m, LARGEST * torch.tanh(s / LARGEST)

    def forward(self, x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the map.

        Args:
            x: Data, (B, C, h, w).
            grid: Text maps, (B, M, h / patch, w / patch).

        Returns:
            The result and log |det| of each image, (B,).
        """
        m, s = self.parameters_of(grid)
        return (x - m) * (-s).exp(), -s.flatten(1).sum(1)

    def reverse(self, y: Tensor, grid: Tensor) -> Tensor:
        """Undo the map.

        Args:
            y: Its result, (B, C, h, w).
            grid: Text maps, (B, M, h / patch, w / patch).

        Returns:
            The data.
        """
        m, s = self.parameters_of(grid)
        return y * s.exp() + m


class SpaceFlow(FlowGenerator):
    """A flow on pixels or on latents, around a network.

    Args:
        config: The model's settings.
        network: The network, a `FlowNetwork`.
        assets: Folder of a saved model that describes the autoencoder. None: it is built or loaded
            as the settings say.

    Attributes:
        autoencoder: The autoencoder whose latents flow. None: pixels flow.
        network: The network.
    """

    def __init__(
        self, config: FlowConfig, network: FlowNetwork, assets: Path | None = None
    ) -> None:
        super().__init__()
        self.image_size, self.bits = config.image_size, config.bits
        self.noise_std = config.noise_std
        latents = config.autoencoder
        self.space = PIXELS if latents is None else f"latents of {latents.weights}"
        self.autoencoder = autoencoder_of(latents, config.image_size, assets)
        self.network, self.noise_shape = network, network.noise_shape

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.condition(text)

    def forward(self, noise: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> Tensor:
        return self.network.reverse(noise, text, run)

    def to_noise(
        self, x: Tensor, text: TextFeatures, run: FlowRun = PLAIN
    ) -> tuple[Tensor, Tensor]:
        return self.network(x, text, run)

    def encode(self, images: Tensor) -> Tensor:
        return images if self.autoencoder is None else self.autoencoder.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        return (x if self.autoencoder is None else self.autoencoder.decode(x)).clamp(-1, 1)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        keep_autoencoder(self.autoencoder, folder)
