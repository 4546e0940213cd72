"""The discriminator of one image size, with an unconditional and a conditional output.

Source: Zhang et al. 2018 (StackGAN++), section 3.2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from t2i.plugins.common.gan.blocks.spectral import DMGAN, SpectralConv2d
from t2i.plugins.common.gan.trees.blocks import doublings, orthogonal, tiled
from t2i.plugins.common.gan.trees.config import START, TreeConfig

Norm = Literal["none", "batch", "spectral"]
"""What normalises a convolution: nothing, a batch norm after it, or the spectral norm of its
weight."""


def down(c_in: int, c_out: int, stride: int = 2, norm: Norm = "batch") -> nn.Sequential:
    """Build a normalised convolution with leaky ReLU.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        stride: 2: a 4x4 convolution to half the size. 1: a 3x3 convolution that keeps the size.
        norm: What normalises the convolution. It has a bias with "spectral" alone.

    Returns:
        The layers.
    """
    if norm == "spectral":
        spectral = SpectralConv2d(c_in, c_out, 2 + stride, stride, 1, rule=DMGAN)
        return nn.Sequential(spectral, nn.LeakyReLU(0.2))
    conv = nn.Conv2d(c_in, c_out, 2 + stride, stride, 1, bias=False)
    normed = [nn.BatchNorm2d(c_out)] if norm == "batch" else []
    return nn.Sequential(conv, *normed, nn.LeakyReLU(0.2))


class Head(nn.Module):
    """An output of D_i, with or without conditions.

    Args:
        channels: Channels C of the features.
        condition: Width D of a condition. 0: the output takes no conditions.
        norm: What normalises the convolution of features and conditions.
        condition_first: Whether the condition's channels come before those of the features.
    """

    def __init__(
        self,
        channels: int,
        condition: int = 0,
        norm: Norm = "batch",
        *,
        condition_first: bool = False,
    ) -> None:
        super().__init__()
        joint = down(channels + condition, channels, stride=1, norm=norm) if condition else None
        self.joint = joint
        self.score = nn.Conv2d(channels, 1, START)
        self.condition_first = condition_first

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        """Score images.

        Args:
            features: Features of the images, float (B, C, 4, 4).
            condition: Conditions, float (B, D). None where the output takes none.

        Returns:
            Logits, float (B,).
        """
        if self.joint is not None and condition is not None:
            both = [features, tiled(condition, START)]
            features = self.joint(torch.cat(both[::-1] if self.condition_first else both, dim=1))
        logits: Tensor = self.score(features).flatten()
        return logits


class Discriminator(nn.Module):
    """D_i, the discriminator of one scale, with two outputs that take its features.

    `unconditional` scores whether an image is real, `conditional` whether it is real and matches a
    condition. The smallest images are halved down to 4x4 while the channels double from df on.
    Larger ones are halved more often, to more channels, which 3x3 convolutions then halve to the
    same C.

    Args:
        config: The model's settings.
        scale: Index i of the scale. 0: the smallest images.
        condition: Width of a condition.
        norm: What normalises the convolutions. With "batch" the first has none.
        condition_first: Whether the condition's channels come before those of the features.
    """

    def __init__(
        self,
        config: TreeConfig,
        scale: int,
        condition: int,
        norm: Literal["batch", "spectral"] = "batch",
        *,
        condition_first: bool = False,
    ) -> None:
        super().__init__()
        halvings = doublings(config.sizes[scale])
        widths = [3 * config.pack, *(config.df << i for i in range(halvings))]
        first: Norm = "none" if norm == "batch" else norm
        layers = [down(*pair, norm=norm if i else first) for i, pair in enumerate(pairwise(widths))]
        last = widths[-1]
        layers += [down(last >> i, last >> (i + 1), stride=1, norm=norm) for i in range(scale)]
        self.layers = nn.Sequential(*layers)
        width = last >> scale
        self.unconditional = Head(width)
        packed = config.pack * condition
        self.conditional = Head(width, packed, norm, condition_first=condition_first)
        self.apply(orthogonal)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], or packs of them, float (B, 3 pack, S_i, S_i).

        Returns:
            Features, float (B, C, 4, 4), with the same C at every scale.
        """
        features: Tensor = self.layers(images)
        return features
