"""The blocks of NCSN++ and DDPM++ (Song et al. 2021, appendix H).

Their parameters have the names of the authors' code, so that released weights fit.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common import fir
from t2i.plugins.common.diffusion.group_norm import group_norm
from t2i.plugins.models.scoresde.fir import DownsampledConv

SMALL = 1e-10
"""Scale of the initial weights of layers that end a residual branch: almost 0."""

HEAD = 64
"""Channels of a head with which places of an image attend to words."""


def summed(x: Tensor, h: Tensor) -> Tensor:
    """Return (x + h) / sqrt(2), which has the variance of each if they are independent.

    Args:
        x: Features, (B, C, H, W).
        h: Features of the same shape.

    Returns:
        Their scaled sum.
    """
    return (x + h) / math.sqrt(2)


def conv(inner: int, outer: int, size: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps the size, with DDPM's initial weights.

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
        size: Height and width of the kernel, an odd number.
        scale: Factor of the variance of the initial weights, which is that of Glorot & Bengio 2010.

    Returns:
        The layer.
    """
    layer = nn.Conv2d(inner, outer, size, padding=size // 2)
    started(layer, scale)
    return layer


def linear(inner: int, outer: int) -> nn.Linear:
    """Return a linear layer with DDPM's initial weights.

    Args:
        inner: Width of the input.
        outer: Width of the output.

    Returns:
        The layer.
    """
    layer = nn.Linear(inner, outer)
    started(layer)
    return layer


def started(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    """Initialise a layer in place.

    Args:
        layer: The layer; its bias becomes 0.
        scale: Factor of the variance of the weights.
    """
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def norm(channels: int) -> nn.GroupNorm:
    """Return a group normalisation of min(C / 4, 32) groups.

    Args:
        channels: C.

    Returns:
        The layer.

    Raises:
        UserError: The channels cannot be divided into such groups.
    """
    return group_norm(channels, 1e-6)


class Fourier(nn.Module):
    """Random Fourier features of a number: sin and cos of 2 pi w x with fixed w ~ N(0, scale^2).

    Args:
        width: Number of frequencies.
        scale: Standard deviation of the frequencies.

    Attributes:
        W: The frequencies w, float (width,). They are not trained.
    """

    W: Tensor

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(width) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features.

        Args:
            x: Numbers, (B,).

        Returns:
            Features, (B, 2 width).
        """
        angles = 2 * math.pi * x[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], 1)


class Positional(nn.Module):
    """Sinusoids of a number, as of a position in a Transformer. It has no parameters.

    Args:
        width: Number of features, even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = width // 2

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features.

        Args:
            x: Numbers, (B,), from 0 to 999.

        Returns:
            Features, (B, width).
        """
        steps = torch.arange(self.pairs, dtype=x.dtype, device=x.device)
        angles = x[:, None] * torch.exp(steps * (-math.log(10000) / (self.pairs - 1)))
        return torch.cat([angles.sin(), angles.cos()], 1)


class Projection(nn.Module):
    """A linear map of the channels of each place (the authors' "NIN").

    Args:
        channels: Channels of input and output.
        scale: Factor of the variance of the initial weights.
    """

    def __init__(self, channels: int, scale: float = 0.1) -> None:
        super().__init__()
        weight = torch.empty(channels, channels)
        self.W = nn.Parameter(nn.init.xavier_uniform_(weight, gain=math.sqrt(scale)))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map the channels.

        Args:
            x: Features, (B, C, H, W).

        Returns:
            Features of the same shape.
        """
        return F.conv2d(x, self.W.T[:, :, None, None], self.b)


class SelfAttention(nn.Module):
    """Attention among the places of an image, with one head of all channels.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (Projection(channels) for _ in range(3))
        self.NIN_3 = Projection(channels, SMALL)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the places gather from each other.

        Args:
            x: Features, (B, C, H, W).

        Returns:
            Features of the same shape.
        """
        h = self.GroupNorm_0(x)
        q, k, v = (
            rearrange(part(h), "b c y x -> b 1 (y x) c")
            for part in (self.NIN_0, self.NIN_1, self.NIN_2)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return summed(x, self.NIN_3(rearrange(h, "b 1 (y x) c -> b c y x", y=x.shape[2])))


class WordAttention(nn.Module):
    """Attention of the places of an image to the words. It is not in the paper.

    No layer but the queries' has a bias, so that words of zeros add zero.

    Args:
        channels: Channels of input and output.
        words: Width of a word vector.
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.heads = max(channels // HEAD, 1)
        self.norm = norm(channels)
        self.queries = conv(channels, channels, 1)
        self.pairs = nn.Linear(words, 2 * channels, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        started(self.pairs)
        started(self.out, SMALL)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Add what the places gather from the words.

        Args:
            x: Features, (B, C, H, W).
            words: Word vectors, (B, L, words).
            mask: Which words count, bool (B, L).

        Returns:
            Features of the same shape.
        """
        q = rearrange(self.queries(self.norm(x)), "b (h d) y x -> b h (y x) d", h=self.heads)
        k, v = rearrange(self.pairs(words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        added: Tensor = x + self.out(rearrange(h, "b h (y x) d -> b (h d) y x", y=x.shape[2]))
        return added


class Residual(nn.Module):
    """A residual block of BigGAN (Brock et al. 2019), which may also change the size.

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
        embedding: Width of the embedding of the noise level.
        dropout: Dropout rate.
        size: "same", "up" (twice the height and width) or "down" (half of them).
        filtered: Whether the size is changed with the filter [1, 3, 3, 1], or by repeated pixels
            and means.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        embedding: int,
        dropout: float,
        size: str = "same",
        filtered: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.filtered = size, filtered
        self.GroupNorm_0 = norm(inner)
        self.Conv_0 = conv(inner, outer)
        self.Dense_0 = linear(embedding, outer)
        self.GroupNorm_1 = norm(outer)
        self.Dropout_0 = nn.Dropout(dropout)
        self.Conv_1 = conv(outer, outer, scale=SMALL)
        changed = inner != outer or size != "same"
        self.Conv_2 = conv(inner, outer, 1) if changed else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Features, (B, inner, H, W).
            embedding: Embeddings of the noise level and the text, (B, embedding).

        Returns:
            Features, (B, outer, H, W), or of twice or half the size.
        """
        h = self._resized(F.silu(self.GroupNorm_0(x)))
        x = self._resized(x)
        h = self.Conv_0(h) + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        return summed(x if self.Conv_2 is None else self.Conv_2(x), h)

    def _resized(self, x: Tensor) -> Tensor:
        if self.size == "up":
            return fir.upsample(x) if self.filtered else F.interpolate(x, scale_factor=2.0)
        if self.size == "down":
            return fir.downsample(x) if self.filtered else F.avg_pool2d(x, 2)
        return x


class Joined(nn.Module):
    """A 1x1 convolution of smaller images that is added to the features of their size.

    Args:
        colours: Channels of the images.
        channels: Channels of the features.
    """

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__()
        self.Conv_0 = conv(colours, channels, 1)

    def forward(self, images: Tensor, h: Tensor) -> Tensor:
        """Add the images.

        Args:
            images: Images, (B, colours, H, W).
            h: Features, (B, channels, H, W).

        Returns:
            Features of the same shape.
        """
        joined: Tensor = h + self.Conv_0(images)
        return joined


class Shrunk(nn.Module):
    """Images or features of half the size, by a filtered convolution.

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.Conv2d_0 = DownsampledConv(inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the height and width.

        Args:
            x: Features, (B, inner, H, W).

        Returns:
            Features, (B, outer, H / 2, W / 2).
        """
        shrunk: Tensor = self.Conv2d_0(x)
        return shrunk
