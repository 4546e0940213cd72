"""Networks of DF-GAN: the generator, the discriminator and its one-way output.

Source: Tao et al. 2022, figure 2.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning.fusion import UpBlock
from t2i.plugins.models.dfgan.config import DFGANConfig

START = 4  # pixels: the side of the smallest feature map


def widths(nf: int, image_size: int) -> list[int]:
    """Return the channels at each size, from the image's size down to 4x4: nf * min(2^i, 8).

    Args:
        nf: Base width.
        image_size: Side of the images in pixels, a power of two.

    Returns:
        One width for each size: the image's, half of it, and so on to 4x4.
    """
    return [nf * min(2**i, 8) for i in range((image_size // START).bit_length())]


class DFGANGenerator(OneShotGenerator):
    """G, the generator: linear(z) as a 4x4 map, blocks that upsample it and fuse c = [z; e], RGB.

    Args:
        config: The model's settings. With `start_from_text` the 4x4 map is linear(c).
        text: Widths of the text features. Only the sentence is used.
    """

    def __init__(self, config: DFGANConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim,)
        self.start_from_text = config.start_from_text
        condition = config.z_dim + text.sentence
        channels = widths(config.nf, config.image_size)[::-1]
        self.start = nn.Linear(
            condition if config.start_from_text else config.z_dim, channels[0] * START**2
        )
        self.blocks = nn.ModuleList(
            UpBlock(condition, c_in, c_out, config.fusion_gain)
            for c_in, c_out in pairwise(channels)
        )
        self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        c = torch.cat([noise, text.sentence], dim=1)
        x = self.start(c if self.start_from_text else noise).view(len(noise), -1, START, START)
        for block in self.blocks:
            x = block(x, c, 2 * x.shape[-1])
        return torch.tanh(self.to_rgb(F.leaky_relu(x, 0.2)))


class DownBlock(nn.Module):
    """A block of the discriminator: average-pooled shortcut + gain * residual, at half the size.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        gain: Initial value of the trained gain.
    """

    def __init__(self, c_in: int, c_out: int, gain: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.gain = nn.Parameter(torch.full((1,), gain))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c_in, h, h).

        Returns:
            Features, float (B, c_out, h/2, h/2).
        """
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.conv2(h), 0.2)
        # Pooling and the 1x1 convolution commute. After pooling the convolution costs a quarter.
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2))
        return shortcut + self.gain * h


class Discriminator(nn.Module):
    """D, the discriminator without its output. Its features do not depend on the text.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: DFGANConfig) -> None:
        super().__init__()
        channels = widths(config.nf, config.image_size)
        self.from_rgb = nn.Conv2d(3 * config.pack, channels[0], 3, padding=1)
        self.blocks = nn.Sequential(
            *(DownBlock(*pair, config.residual_gain) for pair in pairwise(channels))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Features, float (B, C, 4, 4). C is the last of `widths`: 8 nf from 32 pixels on.
        """
        features: Tensor = self.blocks(self.from_rgb(images))
        return features


class OneWayOutput(nn.Module):
    """C, the one-way output: one score for "real and matching".

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: DFGANConfig, sentence: int) -> None:
        super().__init__()
        channels, joint = widths(config.nf, config.image_size)[-1], config.joint or 2 * config.nf
        c_in = channels + config.pack * sentence
        self.joint = nn.Conv2d(c_in, joint, 3, padding=1, bias=False)
        self.score = nn.Conv2d(joint, 1, START, bias=False)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Score each image with its sentence.

        Args:
            features: Features of the images, float (B, C, 4, 4).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Scores, float (B,). High scores mean "real, and matching the sentence".
        """
        e = sentence[..., None, None].expand(-1, -1, START, START)
        h = F.leaky_relu(self.joint(torch.cat([features, e], dim=1)), 0.2)
        score: Tensor = self.score(h).flatten()
        return score


def build(config: DFGANConfig, text: TextShape, assets: Path | None) -> DFGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return DFGANGenerator(config, text)
