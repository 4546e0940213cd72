"""Networks of DF-GAN (Tao et al. 2022), figure 2: the generator, the discriminator and its one-way output."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.fusion import UpBlock
from t2i.plugins.models.dfgan.config import DFGANConfig

START = 4  # pixels: the side of the smallest feature map


def widths(nf: int, image_size: int) -> list[int]:
    """Channels at the image's size, half of it, ... down to 4x4: nf * min(2^i, 8)."""
    return [nf * min(2**i, 8) for i in range((image_size // START).bit_length())]


class DFGANGenerator(OneShotGenerator):
    """G: linear(z) as a 4x4 map, then blocks that upsample it and fuse c = [z; e] into it, then RGB."""

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
    """x (B, c_in, h, h) -> (B, c_out, h/2, h/2): average-pooled shortcut + gain * residual."""

    def __init__(self, c_in: int, c_out: int, gain: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.gain = nn.Parameter(torch.full((1,), gain))

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.conv2(h), 0.2)
        # Pooling and the 1x1 conv are linear and commute: pooled first, the conv costs a quarter.
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2))
        return shortcut + self.gain * h


class Discriminator(nn.Module):
    """D without its output: images (B, 3, H, H) -> features (B, 8 nf, 4, 4), which know nothing of the text."""

    def __init__(self, config: DFGANConfig) -> None:
        super().__init__()
        channels = widths(config.nf, config.image_size)
        self.from_rgb = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.Sequential(
            *(DownBlock(*pair, config.residual_gain) for pair in pairwise(channels))
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.from_rgb(images))
        return features


class OneWayOutput(nn.Module):
    """C: features (B, 8 nf, 4, 4) and sentences (B, D) -> (B,), one score for real and matching at once."""

    def __init__(self, config: DFGANConfig, sentence: int) -> None:
        super().__init__()
        channels, joint = widths(config.nf, config.image_size)[-1], config.joint or 2 * config.nf
        self.joint = nn.Conv2d(channels + sentence, joint, 3, padding=1, bias=False)
        self.score = nn.Conv2d(joint, 1, START, bias=False)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        e = sentence[..., None, None].expand(-1, -1, START, START)
        h = F.leaky_relu(self.joint(torch.cat([features, e], dim=1)), 0.2)
        score: Tensor = self.score(h).flatten()
        return score


def build(config: DFGANConfig, text: TextShape, assets: Path | None) -> DFGANGenerator:
    """The generator that the settings describe; it has no assets."""
    return DFGANGenerator(config, text)
