"""The dVAE's encoder and decoder, of DALL-E's first stage.

Source: Ramesh et al. 2021 (arXiv:2102.12092), appendix A.1; the sizes and weights are those of
openai/DALL-E. There the encoder ends with the logits of tokens, and the decoder begins with their
vectors. Here both belong to the quantizer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.tokens.quantizers import Gumbel
from t2i.plugins.common.tokens.tokenizer_config import DVAESizes, TokenizerConfig


class Conv(nn.Module):
    """A convolution with weights of variance 1 / inputs, and biases of 0, at first.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel: Side of the kernel, odd.
    """

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        std = 1 / math.sqrt(before * kernel**2)
        self.w = nn.Parameter(torch.randn(after, before, kernel, kernel) * std)
        self.b = nn.Parameter(torch.zeros(after))
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x: Features (B, before, h, w).

        Returns:
            Features (B, after, h, w).
        """
        return F.conv2d(x, self.w, self.b, padding=self.padding)


class Block(nn.Module):
    """id(x) + gain r(x), where r is four times a ReLU and a convolution.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernels: Sides of the four kernels.
        gain: Factor of r, 1 / (number of all blocks)^2.
    """

    def __init__(
        self, before: int, after: int, kernels: tuple[int, int, int, int], gain: float
    ) -> None:
        super().__init__()
        inner = after // 4
        self.gain = gain
        self.id_path = Conv(before, after, 1) if before != after else nn.Identity()
        widths = (before, inner, inner, inner, after)
        self.res_path = nn.Sequential()
        for i, kernel in enumerate(kernels):
            self.res_path.add_module(f"relu_{i + 1}", nn.ReLU())
            self.res_path.add_module(f"conv_{i + 1}", Conv(widths[i], widths[i + 1], kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block.

        Args:
            x: Features (B, before, h, w).

        Returns:
            Features (B, after, h, w).
        """
        out: Tensor = self.id_path(x) + self.gain * self.res_path(x)
        return out


class DVAEEncoder(nn.Module):
    """The encoder: images to features of a grid, from which the quantizer computes logits.

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: DVAESizes) -> None:
        super().__init__()
        gain = 1 / (sizes.groups * sizes.blocks) ** 2
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", Conv(3, sizes.channels, 7))
        width = sizes.channels
        for group in range(sizes.groups):
            after = sizes.channels << group
            made = nn.Sequential()
            for i in range(sizes.blocks):
                made.add_module(f"block_{i + 1}", Block(width, after, (3, 3, 3, 1), gain))
                width = after
            if group < sizes.groups - 1:
                made.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{group + 1}", made)
        self.blocks.add_module("output", nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: Images (B, 3, H, W) in (0, 1).

        Returns:
            Features (B, channels 2^(groups - 1), h, w).
        """
        encoded: Tensor = self.blocks(images)
        return encoded


class DVAEDecoder(nn.Module):
    """The decoder: vectors of a grid to location and log scale of the pixels' logits.

    Args:
        sizes: Its sizes.
        width: Channels of its input.
        channels: Channels of its images: 3, or 6 with a scale beside each value.
    """

    def __init__(self, sizes: DVAESizes, width: int, channels: int = 6) -> None:
        super().__init__()
        gain = 1 / (sizes.groups * sizes.blocks) ** 2
        self.bias = nn.Parameter(torch.zeros(width))
        self.blocks = nn.Sequential()
        for group in range(sizes.groups):
            after = sizes.channels << (sizes.groups - 1 - group)
            made = nn.Sequential()
            for i in range(sizes.blocks):
                made.add_module(f"block_{i + 1}", Block(width, after, (1, 3, 3, 3), gain))
                width = after
            if group < sizes.groups - 1:
                made.add_module("upsample", nn.Upsample(scale_factor=2, mode="nearest"))
            self.blocks.add_module(f"group_{group + 1}", made)
        out = nn.Sequential()
        out.add_module("relu", nn.ReLU())
        out.add_module("conv", Conv(width, channels, 1))
        self.blocks.add_module("output", out)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights at which the adaptive weight compares gradients."""
        weight: nn.Parameter = self.blocks.get_submodule("output.conv").w  # type: ignore[assignment]
        return weight

    def forward(self, vectors: Tensor) -> Tensor:
        """Decode vectors.

        Args:
            vectors: Vectors (B, width, h, w).

        Returns:
            Location and log scale, (B, 6, H, W).
        """
        decoded: Tensor = self.blocks(vectors + self.bias[:, None, None])
        return decoded


def quantizer_of_dvae(config: TokenizerConfig) -> Gumbel:
    """Build the quantizer, with the last layer of openai's encoder and the first of its decoder.

    Args:
        config: Settings of the tokenizer.

    Returns:
        The quantizer.
    """
    width, K = config.dvae.last, config.vocabulary
    proj = nn.Conv2d(width, K, 1)
    quantizer = Gumbel(config.quantizer, K, config.code_width, proj)
    nn.init.normal_(proj.weight, std=width**-0.5)
    nn.init.zeros_(proj.bias)  # type: ignore[arg-type]
    nn.init.normal_(quantizer.embed.weight, std=K**-0.5)
    return quantizer
