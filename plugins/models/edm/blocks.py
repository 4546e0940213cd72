"""Layers of the U-Nets of EDM's code: convolutions with resampling, residual blocks, embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.plugins.common.diffusion.group_norm import group_norm


class Start(NamedTuple):
    """How the weights of a layer begin.

    Attributes:
        kind: "xavier" (Glorot & Bengio 2010) or "kaiming" (He et al. 2015), both uniform.
        weight: Factor of the weights.
        bias: Factor of the biases, which are drawn like the weights.
    """

    kind: str
    weight: float = 1.0
    bias: float = 0.0

    def fill(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Draw the weights of a layer.

        Args:
            layer: The layer.
        """
        places = layer.weight[0, 0].numel()
        inward, outward = layer.weight.shape[1] * places, layer.weight.shape[0] * places
        bound = math.sqrt(6 / (inward + outward) if self.kind == "xavier" else 3 / inward)
        nn.init.uniform_(layer.weight, -bound * self.weight, bound * self.weight)
        if layer.bias is not None:
            nn.init.uniform_(layer.bias, -bound * self.bias, bound * self.bias)


class Linear(nn.Linear):
    """A linear layer with a start of its own.

    Args:
        inward: Input features.
        outward: Output features.
        start: How the weights begin.
        bias: Whether there is a bias.
    """

    def __init__(self, inward: int, outward: int, start: Start, bias: bool = True) -> None:
        super().__init__(inward, outward, bias)
        start.fill(self)


class Conv2d(nn.Conv2d):
    """A convolution that keeps the size, with a start of its own.

    Args:
        inward: Input channels.
        outward: Output channels.
        kernel: Side of the kernel, odd.
        start: How the weights begin.
    """

    def __init__(self, inward: int, outward: int, kernel: int, start: Start) -> None:
        super().__init__(inward, outward, kernel, padding=kernel // 2)
        start.fill(self)


class Resampled(nn.Module):
    """A convolution behind a change of the resolution by 2, whose filter is separable.

    Args:
        inward: Input channels.
        outward: Output channels.
        kernel: Side of the convolution's kernel, odd. 0: no convolution.
        up: Whether the resolution is doubled rather than halved.
        filter: Coefficients of the filter along an axis; they are normalised.
        start: How the weights begin.
        fused: Whether a halved resolution is filtered after the convolution, with the borders of
            both at once, as in NCSN++.

    Attributes:
        resample_filter: The filter, float (1, 1, K, K).
        weight: Weight of the convolution. None: there is none.
        bias: Its bias. None: there is none.
    """

    resample_filter: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, inward: int, outward: int, kernel: int, up: bool, filter: Sequence[int],
        start: Start, fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.up, self.fused = up, fused
        if kernel:
            # The layer's parameters are this module's own, as in the paper's code.
            layer = Conv2d(inward, outward, kernel, start)
            self.weight, self.bias = layer.weight, layer.bias
        else:
            self.weight, self.bias = None, None
        along = torch.tensor(filter, dtype=torch.float32)
        self.register_buffer(
            "resample_filter", along.outer(along)[None, None] / along.sum().square()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Resample and convolve.

        Args:
            x: Features, float (B, inward, H, W).

        Returns:
            Features, float (B, outward, 2 H, 2 W) or (B, outward, H / 2, W / 2).
        """
        if self.fused:
            assert self.weight is not None
            x = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2 + self._border)
            return self._halved(x, 0) + self._biases()
        x = self._doubled(x) if self.up else self._halved(x, self._border)
        if self.weight is None:
            return x
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)

    @property
    def _border(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _biases(self) -> Tensor:
        assert self.bias is not None
        return self.bias[:, None, None]

    def _filters(self, x: Tensor, factor: int) -> Tensor:
        return (self.resample_filter * factor).to(x.dtype).expand(x.shape[1], -1, -1, -1)

    def _doubled(self, x: Tensor) -> Tensor:
        channels, border = x.shape[1], self._border
        return F.conv_transpose2d(x, self._filters(x, 4), stride=2, padding=border, groups=channels)

    def _halved(self, x: Tensor, border: int) -> Tensor:
        return F.conv2d(x, self._filters(x, 1), stride=2, padding=border, groups=x.shape[1])


class BlockSettings(NamedTuple):
    """What all residual blocks of a network share.

    Attributes:
        embedding: Width of the embedding.
        dropout: Dropout rate.
        heads: Attention heads. None: one for 64 channels.
        scale: Factor of each sum with the shortcut.
        eps: Number that normalisations add to the variance.
        filter: Resampling filter.
        projects: Whether the shortcut has a convolution wherever the resolution changes.
        scales: Whether the embedding scales the features as well as shifting them.
        start: How weights begin.
        last: How those of the last layer of a branch begin.
        attention: How those of queries, keys and values begin.
    """

    embedding: int
    dropout: float
    heads: int | None
    scale: float
    eps: float
    filter: tuple[int, ...]
    projects: bool
    scales: bool
    start: Start
    last: Start
    attention: Start


class UNetBlock(nn.Module):
    """A residual block, with attention among the places if it is chosen.

    Args:
        inward: Input channels.
        outward: Output channels.
        shared: What all blocks share.
        change: "up" or "down": the resolution is doubled or halved. "": it is kept.
        attends: Whether there is attention.

    Raises:
        UserError: The channels cannot be divided into groups or heads.
    """

    def __init__(
        self, inward: int, outward: int, shared: BlockSettings, change: str = "",
        attends: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels = inward, outward
        self.scale, self.scales, self.dropout = shared.scale, shared.scales, shared.dropout
        self.heads = shared.heads or max(1, outward // 64)
        if attends and outward % self.heads:
            raise UserError(
                f"attention of {outward} channels: they cannot be divided among {self.heads} heads "
                "of about 64; choose channels that are multiples of 64"
            )
        up = change == "up"
        self.norm0 = group_norm(inward, shared.eps)
        self.conv0 = (
            Resampled(inward, outward, 3, up, shared.filter, shared.start)
            if change
            else Conv2d(inward, outward, 3, shared.start)
        )
        self.affine = Linear(shared.embedding, outward * (1 + shared.scales), shared.start)
        self.norm1 = group_norm(outward, shared.eps)
        self.conv1 = Conv2d(outward, outward, 3, shared.last)
        self.skip: nn.Module | None = None
        if change:
            kernel = int(shared.projects or outward != inward)
            self.skip = Resampled(inward, outward, kernel, up, shared.filter, shared.start)
        elif outward != inward:
            self.skip = Conv2d(inward, outward, 1, shared.start)
        self.qkv: nn.Module | None = None
        if attends:
            self.norm2 = group_norm(outward, shared.eps)
            self.qkv = Conv2d(outward, 3 * outward, 1, shared.attention)
            self.proj = Conv2d(outward, outward, 1, shared.last)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Features, float (B, inward, H, W).
            emb: Embedding of noise level and text, float (B, width).

        Returns:
            Features, float (B, outward, H', W').
        """
        h = self.conv0(F.silu(self.norm0(x)))
        moved = self.affine(emb)[:, :, None, None]
        if self.scales:
            scale, shift = moved.chunk(2, 1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + moved))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.scale
        return x if self.qkv is None else (x + self._attended(x)) * self.scale

    def _attended(self, x: Tensor) -> Tensor:
        """Compute attention among the places.

        The channels of a head are ordered (channel, q k v), as in the paper's code.
        """
        assert self.qkv is not None
        b, c, h, w = x.shape
        mixed = self.qkv(self.norm2(x)).reshape(b, self.heads, c // self.heads, 3, h * w)
        q, k, v = mixed.transpose(2, 4).unbind(3)
        gathered = F.scaled_dot_product_attention(q, k, v)
        attended: Tensor = self.proj(gathered.transpose(2, 3).reshape(b, c, h, w))
        return attended


class PositionalEmbedding(nn.Module):
    """Cosines and sines of a number, of geometric frequencies from 1 to 1/10000.

    Args:
        channels: Number of features, even.
        endpoint: Whether the lowest frequency is 1/10000 exactly.
    """

    def __init__(self, channels: int, endpoint: bool) -> None:
        super().__init__()
        self.pairs, self.endpoint = channels // 2, endpoint

    def forward(self, x: Tensor) -> Tensor:
        """Embed numbers.

        Args:
            x: Numbers, float (B,).

        Returns:
            Features, float (B, channels).
        """
        share = torch.arange(self.pairs, dtype=torch.float32, device=x.device)
        frequencies = (1 / 10_000) ** (share / (self.pairs - self.endpoint))
        angles = x.outer(frequencies.to(x.dtype))
        return torch.cat([angles.cos(), angles.sin()], 1)


class FourierEmbedding(nn.Module):
    """Cosines and sines of a number, of frequencies that are drawn once from N(0, 16^2).

    Args:
        channels: Number of features, even.

    Attributes:
        freqs: The frequencies, float (channels / 2,). They are not trained.
    """

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * 16)

    def forward(self, x: Tensor) -> Tensor:
        """Embed numbers.

        Args:
            x: Numbers, float (B,).

        Returns:
            Features, float (B, channels).
        """
        angles = x.outer((2 * math.pi * self.freqs).to(x.dtype))
        return torch.cat([angles.cos(), angles.sin()], 1)
