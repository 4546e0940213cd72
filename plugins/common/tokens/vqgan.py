"""VQGAN's encoder and decoder.

Source: Esser et al. 2021 (arXiv:2012.09841); the weights fit those of CompVis/taming-transformers.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.tokens.tokenizer_config import VQGANSizes


def _norm(channels: int, sizes: VQGANSizes) -> nn.GroupNorm:
    return nn.GroupNorm(sizes.groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 convolution if channels change.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        sizes: Groups and dropout.
    """

    def __init__(self, before: int, after: int, sizes: VQGANSizes) -> None:
        super().__init__()
        self.norm1 = _norm(before, sizes)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = _norm(after, sizes)
        self.dropout = nn.Dropout(sizes.dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        if before != after:
            self.nin_shortcut = nn.Conv2d(before, after, 1)
        self.changes = before != after

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Features (B, before, h, w).

        Returns:
            Features (B, after, h, w).
        """
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = (self.nin_shortcut(x) if self.changes else x) + h
        return out


class AttentionBlock(nn.Module):
    """x + self-attention over all places, with one head.

    Args:
        channels: Channels of the input and output.
        sizes: Groups of the normalisation.
    """

    def __init__(self, channels: int, sizes: VQGANSizes) -> None:
        super().__init__()
        self.norm = _norm(channels, sizes)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Features (B, C, h, w).

        Returns:
            Features (B, C, h, w).
        """
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).mT[:, None] for f in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        out: Tensor = x + self.proj_out(attended)
        return out


class Downsample(nn.Module):
    """A convolution that halves the size, after a row and a column of zeros at the end.

    Args:
        channels: Channels of the input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the size.

        Args:
            x: Features (B, C, h, w).

        Returns:
            Features (B, C, h / 2, w / 2).
        """
        h: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return h


class Upsample(nn.Module):
    """Repetition of each place twice in each direction, and a convolution.

    Args:
        channels: Channels of the input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double the size.

        Args:
            x: Features (B, C, h, w).

        Returns:
            Features (B, C, 2 h, 2 w).
        """
        h: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return h


class Level(nn.Module):
    """The blocks of one size, each followed by self-attention if the level has it.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        blocks: Number of residual blocks.
        attention: Whether self-attention follows each.
        sizes: Groups and dropout.
    """

    def __init__(
        self, before: int, after: int, blocks: int, attention: bool, sizes: VQGANSizes
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(after if i else before, after, sizes) for i in range(blocks)
        )
        self.attn = nn.ModuleList(
            AttentionBlock(after, sizes) for _ in range(blocks if attention else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the blocks.

        Args:
            x: Features (B, before, h, w).

        Returns:
            Features (B, after, h, w).
        """
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


class Middle(nn.Module):
    """A residual block, self-attention, and another residual block.

    Args:
        channels: Channels of the input and output.
        sizes: Whether there is self-attention; groups and dropout.
    """

    def __init__(self, channels: int, sizes: VQGANSizes) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, sizes)
        self.attn_1 = AttentionBlock(channels, sizes) if sizes.middle_attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels, sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the blocks.

        Args:
            x: Features (B, C, h, w).

        Returns:
            Features (B, C, h, w).
        """
        h: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return h


class VQGANEncoder(nn.Module):
    """The encoder: images to features of a grid.

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: VQGANSizes) -> None:
        super().__init__()
        self.patch = sizes.patch
        widths = [sizes.channels, *(sizes.channels * n for n in sizes.multiples)]
        self.conv_in = nn.Conv2d(3 * sizes.patch**2, sizes.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            level = Level(before, after, sizes.blocks, i in sizes.attention, sizes)
            if i < len(sizes.multiples) - 1:
                level.downsample = Downsample(after)
            self.down.append(level)
        self.mid = Middle(widths[-1], sizes)
        self.norm_out = _norm(widths[-1], sizes)
        self.conv_out = nn.Conv2d(widths[-1], sizes.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: Images (B, 3, H, W).

        Returns:
            Features (B, latent_channels, h, w).
        """
        h: Tensor = self.conv_in(F.pixel_unshuffle(images, self.patch))
        level: Any
        for level in self.down:
            h = level(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        z: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return z


class VQGANDecoder(nn.Module):
    """The decoder: features of a grid to images.

    Args:
        sizes: Its sizes.
        channels: Channels of its images: 3, or 6 with a scale beside each value.
    """

    def __init__(self, sizes: VQGANSizes, channels: int = 3) -> None:
        super().__init__()
        self.patch = sizes.patch
        widths = [sizes.channels * n for n in sizes.multiples]
        widths.append(widths[-1])
        self.conv_in = nn.Conv2d(sizes.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], sizes)
        self.up = nn.ModuleList()
        for i in range(len(sizes.multiples)):
            level = Level(widths[i + 1], widths[i], sizes.blocks + 1, i in sizes.attention, sizes)
            if i:
                level.upsample = Upsample(widths[i])
            self.up.append(level)
        self.norm_out = _norm(widths[0], sizes)
        self.conv_out = nn.Conv2d(widths[0], channels * sizes.patch**2, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights at which the adaptive weight compares gradients."""
        weight = self.conv_out.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, z: Tensor) -> Tensor:
        """Decode features.

        Args:
            z: Features (B, latent_channels, h, w).

        Returns:
            Images (B, channels, H, W), not clamped.
        """
        h = self.mid(self.conv_in(z))
        level: Any
        for level in reversed(self.up):
            h = level(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)
