"""The discriminator of StyleGAN2: residual blocks, and a projection onto the mapped sentence.

Source: Karras et al. 2020 (StyleGAN2 and ADA).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.layers import EqualConv, EqualLinear
from t2i.plugins.models.stylegan.networks import Mapping
from t2i.plugins.models.stylegan.synthesis import START


class JudgeBlock(nn.Module):
    """A residual block at half the size: (conv(conv(x)) + skip(x)) / sqrt(2).

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        clamp: Limit of the activations. None: no limit.
    """

    def __init__(self, c_in: int, c_out: int, clamp: float | None) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = EqualConv(c_in, c_in, 3, clamp=clamp)
        self.conv1 = EqualConv(c_in, c_out, 3, half, clamp, halve=True)
        self.skip = EqualConv(c_in, c_out, 1, half, active=False, halve=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c_in, H, W).

        Returns:
            Features, float (B, c_out, H/2, W/2).
        """
        h: Tensor = self.conv1(self.conv0(x)) + self.skip(x)
        return h


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append how much the images of a group differ, as one more channel.

    It is the standard deviation over the group, averaged over channels and places. A generator that
    repeats itself is recognised by it. Groups are those of the authors' code: with n groups, images
    i, i + n, i + 2n, ...

    Args:
        x: Features, float (B, C, H, W).
        group: Images of a group. Where B is no multiple of it, the largest smaller number that
            divides B.

    Returns:
        Features, float (B, C + 1, H, W).
    """
    images = len(x)
    group = next(g for g in range(min(group, images), 0, -1) if images % g == 0)
    members = x.reshape(group, -1, *x.shape[1:])
    deviation = (members.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x)], dim=1)


class Discriminator(nn.Module):
    """D, the discriminator. Its features do not depend on the text.

    Args:
        config: The model's settings.
        sentence: Width of a sentence vector.
    """

    def __init__(self, config: StyleGANConfig, sentence: int) -> None:
        super().__init__()
        sizes = config.sizes(START)[::-1]
        widths = [config.judge_channels(size) for size in sizes]
        last, clamp = widths[-1], config.clamp
        projected = config.projected or last
        self.group = config.minibatch_group
        self.from_rgb = EqualConv(3 * config.pack, widths[0], 1, clamp=clamp)
        self.blocks = nn.Sequential(
            *(JudgeBlock(c_in, c_out, clamp) for c_in, c_out in pairwise(widths))
        )
        self.conv = EqualConv(last + (self.group > 1), last, 3, clamp=clamp)
        self.linear = EqualLinear(last * START**2, last, active=True)
        self.out = EqualLinear(last, projected)
        self.mapping = Mapping(
            0, config.pack * sentence, projected, config.judge_mapping_layers, config.mapping_rate
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], or packs of them, float (B, 3 pack, H, H).

        Returns:
            Features, float (B, width of the projection).
        """
        x = self.blocks(self.from_rgb(images))
        if self.group > 1:
            x = minibatch_deviation(x, self.group)
        features: Tensor = self.out(self.linear(self.conv(x).flatten(1)))
        return features

    def score(self, features: Tensor, c: Tensor) -> Tensor:
        """Score each image with its sentence.

        Args:
            features: Features of the images, as `forward` returned them.
            c: Sentence vectors, float (B, pack D).

        Returns:
            Logits, float (B, 1).
        """
        projection: Tensor = self.mapping(None, c)
        return (features * projection).sum(1, keepdim=True) / math.sqrt(features.shape[1])
