"""Layers of NCSN's networks: InstanceNorm++ and the residual block.

Modules have the names of the authors' code. What is ours is how text enters, in modules named
`text`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VARIANCE_EPS = 1e-5


class Condition(NamedTuple):
    """What all layers of a network depend on beside the image.

    Attributes:
        levels: Weights of the noise levels, (B, L): one-hot at a level, two weights between two.
            None: the network does not depend on the level.
        sentence: Sentence vectors, (B, D). None: no text enters by this way.
    """

    levels: Tensor | None
    sentence: Tensor | None


class NormShape(NamedTuple):
    """What the rows of normalisations are made of.

    Attributes:
        levels: Number of noise levels that have a row each. None: one row for all.
        sentence: Width of a sentence vector. 0: no text.
    """

    levels: int | None
    sentence: int


class InstanceNormPlus(nn.Module):
    """InstanceNorm++: instance normalisation that keeps the channel means, relative to each other.

    out = gamma (instance_norm(x) + alpha (mu - m) / v) + beta, where mu are the channel means of an
    image, and m and v are mean and standard deviation of mu over the channels. In NCSN each noise
    level has its row (gamma, alpha, beta). A sentence adds a linear function of itself to the row.

    Source: Song & Ermon 2019, appendix A.

    Args:
        channels: Channels C, at least 2.
        shape: What the rows are made of.
    """

    def __init__(self, channels: int, shape: NormShape) -> None:
        super().__init__()
        self.embed: nn.Embedding | None = None
        if shape.levels is None:
            self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.beta = nn.Parameter(torch.zeros(channels))
        else:
            self.embed = nn.Embedding(shape.levels, 3 * channels)
            nn.init.normal_(self.embed.weight[:, : 2 * channels], 1, 0.02)
            nn.init.zeros_(self.embed.weight[:, 2 * channels :])
        self.text = text_term(shape.sentence, 3 * channels)

    def forward(self, x: Tensor, given: Condition) -> Tensor:
        """Normalise.

        Args:
            x: Features, float (B, C, h, w).
            given: Noise levels and sentences.

        Returns:
            Normalised features, float (B, C, h, w).
        """
        gamma, alpha, beta = self._row(given)[..., None, None].chunk(3, 1)
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        scale = gamma * torch.rsqrt(variance + VARIANCE_EPS)
        v, m = torch.var_mean(mean, 1, keepdim=True)
        kept = (mean - m) / torch.sqrt(v + VARIANCE_EPS)
        return torch.addcmul(gamma * alpha * kept + beta - mean * scale, x, scale)

    def _row(self, given: Condition) -> Tensor:
        """Return gamma, alpha and beta side by side, (B or 1, 3 C)."""
        if self.embed is None:
            row = torch.cat([self.gamma, self.alpha, self.beta])[None]
        else:
            assert given.levels is not None
            row = given.levels @ self.embed.weight
        return row if self.text is None else row + self.text(given.sentence)


def text_term(sentence: int, width: int) -> nn.Linear | None:
    """Make the linear map of sentences to what they add. It is 0 at first, and for the sentence 0.

    Args:
        sentence: Width of a sentence vector. 0: no text.
        width: Width of the result.

    Returns:
        The map. None: no text.
    """
    if not sentence:
        return None
    linear = nn.Linear(sentence, width, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each square of 2x2 places.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Side of the kernel, odd.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and halve.

        Args:
            x: Features, float (B, C, h, w); h and w are even.

        Returns:
            Features of half the size.
        """
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """A pre-normalised residual block: twice normalisation, ELU and 3x3 convolution.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        shape: What the rows of normalisations are made of.
        first: Whether it is the first block of a stage: it halves the size, unless it is dilated,
            and its shortcut is a convolution.
        dilation: Dilation of the convolutions.
    """

    def __init__(
        self, c_in: int, c_out: int, shape: NormShape, first: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        middle = c_in if first else c_out
        halves = first and dilation == 1
        self.normalize1 = InstanceNormPlus(c_in, shape)
        self.conv1 = dilated(c_in, middle, dilation)
        self.normalize2 = InstanceNormPlus(middle, shape)
        self.conv2 = ConvMeanPool(middle, c_out, 3) if halves else dilated(middle, c_out, dilation)
        self.shortcut: nn.Module | None = None
        if first:
            self.shortcut = (
                ConvMeanPool(c_in, c_out, 1) if halves else dilated(c_in, c_out, dilation)
            )

    def forward(self, x: Tensor, given: Condition) -> Tensor:
        """Compute the block.

        Args:
            x: Features, float (B, C, h, w).
            given: Noise levels and sentences.

        Returns:
            The features of the next block.
        """
        h = self.conv1(F.elu(self.normalize1(x, given)))
        h = self.conv2(F.elu(self.normalize2(h, given)))
        kept: Tensor = x if self.shortcut is None else self.shortcut(x)
        summed: Tensor = kept + h
        return summed


def dilated(c_in: int, c_out: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        dilation: Its dilation.
        bias: Whether it has a bias.

    Returns:
        The convolution.
    """
    return nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation, bias=bias)


class Norms(NamedTuple):
    """Normalisation in refine blocks, which NCSN has and NCSNv2 does not.

    Attributes:
        shape: What the rows are made of. None: no normalisation.
    """

    shape: NormShape | None

    def of(self, channels: int) -> nn.Module:
        """Make a normalisation.

        Args:
            channels: Channels of its input.

        Returns:
            InstanceNorm++, or a module that returns its input.
        """
        return Unchanged() if self.shape is None else InstanceNormPlus(channels, self.shape)


class Unchanged(nn.Module):
    """A layer that returns its input, where NCSN has a normalisation and NCSNv2 has none."""

    def forward(self, x: Tensor, given: Condition) -> Tensor:
        """Return the input.

        Args:
            x: Features, float (B, C, h, w).
            given: Not used.

        Returns:
            The features.
        """
        return x
