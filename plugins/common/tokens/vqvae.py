"""The VQ-VAE's encoder and decoder.

Source: van den Oord et al. 2017 (arXiv:1711.00937), with the sizes of google-deepmind/sonnet's
example.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.tokens.tokenizer_config import VQVAESizes


class ResidualLayer(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))).

    Args:
        sizes: Channels outside and inside.
    """

    def __init__(self, sizes: VQVAESizes) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(sizes.channels, sizes.residual_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(sizes.residual_channels, sizes.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer.

        Args:
            x: Features (B, C, h, w).

        Returns:
            Features (B, C, h, w).
        """
        added: Tensor = self.conv1(F.relu(self.conv3(F.relu(x))))
        return x + added


def _stack(sizes: VQVAESizes) -> nn.Sequential:
    layers = [ResidualLayer(sizes) for _ in range(sizes.residual_layers)]
    return nn.Sequential(*layers, nn.ReLU())


class VQVAEEncoder(nn.Module):
    """The encoder: images to features of a grid.

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: VQVAESizes) -> None:
        super().__init__()
        half, full = max(sizes.channels // 2, 1), sizes.channels
        widths = [3, *([half] * (sizes.levels > 1)), *([full] * max(sizes.levels - 1, 1))]
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )
        self.conv = nn.Conv2d(full, full, 3, padding=1)
        self.residual = _stack(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: Images (B, 3, H, W).

        Returns:
            Features (B, channels, h, w).
        """
        h = images
        for conv in self.down:
            h = F.relu(conv(h))
        encoded: Tensor = self.residual(self.conv(h))
        return encoded


class VQVAEDecoder(nn.Module):
    """The decoder: vectors of a grid to images.

    Args:
        sizes: Its sizes.
        width: Channels of its input.
        channels: Channels of its images: 3, or 6 with a scale beside each value.
    """

    def __init__(self, sizes: VQVAESizes, width: int, channels: int = 3) -> None:
        super().__init__()
        half, full = max(sizes.channels // 2, 1), sizes.channels
        widths = [*([full] * max(sizes.levels - 1, 1)), *([half] * (sizes.levels > 1)), channels]
        self.conv = nn.Conv2d(width, full, 3, padding=1)
        self.residual = _stack(sizes)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights at which the adaptive weight compares gradients."""
        weight: nn.Parameter = self.up[-1].weight  # type: ignore[assignment]
        return weight

    def forward(self, z: Tensor) -> Tensor:
        """Decode vectors.

        Args:
            z: Vectors (B, width, h, w).

        Returns:
            Images (B, channels, H, W), not clamped.
        """
        h = self.residual(self.conv(z))
        for i, conv in enumerate(self.up):
            h = conv(F.relu(h) if i else h)
        decoded: Tensor = h
        return decoded
