"""Building blocks of generators that make images of several sizes.

Source: Zhang et al. 2018 (StackGAN++). AttnGAN and DM-GAN took them over.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.trees.config import START


def doublings(size: int) -> int:
    """Count the doublings from START to a size.

    Args:
        size: Side of an image in pixels, a power of two from START on.

    Returns:
        The number of doublings.
    """
    return (size // START).bit_length() - 1


def conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    """Build a 3x3 convolution without bias that keeps the size.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.

    Returns:
        The convolution.
    """
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def gated(convolution: nn.Conv2d) -> list[nn.Module]:
    """Return the layers of a gated convolution: convolution, batch norm, gated linear unit.

    Half of the convolution's channels gate the other half.

    Args:
        convolution: The convolution.

    Returns:
        The three layers. Their result has half of the convolution's channels.
    """
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.GLU(1)]


def up(c_in: int, c_out: int) -> nn.Sequential:
    """Build an upsampling block: nearest upsampling to twice the size, then a gated convolution.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.

    Returns:
        The block.
    """
    return nn.Sequential(*gated(UpConv3x3(c_in, 2 * c_out)))


class FirstStage(nn.Module):
    """F_0, the first stage: a linear map to 4x4, then upsampling blocks that halve the channels.

    Args:
        inputs: Size of c^ and z together.
        width: Channels of the result.
        size: Side S_0 of the smallest images in pixels.
    """

    def __init__(self, inputs: int, width: int, size: int) -> None:
        super().__init__()
        n = doublings(size)
        channels = [width << i for i in reversed(range(n + 1))]
        values = 2 * channels[0] * START**2
        self.linear = nn.Linear(inputs, values, bias=False)
        self.norm = nn.BatchNorm1d(values)
        self.ups = nn.Sequential(*(up(*pair) for pair in pairwise(channels)))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        """Compute the first hidden map.

        Args:
            c: Conditions c^, float (B, c_dim).
            z: Noise, float (B, z_dim).

        Returns:
            h_0, float (B, width, S_0, S_0).
        """
        h = F.glu(self.norm(self.linear(torch.cat([c, z], dim=1))), dim=1)
        h_0: Tensor = self.ups(h.view(len(h), -1, START, START))
        return h_0


class ResidualBlock(nn.Module):
    """x + conv(gated conv(x)), with batch norms.

    Args:
        channels: Channels of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *gated(conv3x3(channels, 2 * channels)),
            conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, channels, S, S).

        Returns:
            Features of the same shape.
        """
        residual: Tensor = self.block(x)
        return x + residual


def residual_blocks(channels: int, n: int) -> nn.Sequential:
    """Build residual blocks, one after the other.

    Args:
        channels: Channels of the features.
        n: Number of blocks.

    Returns:
        The blocks.
    """
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(n)))


def tiled(vectors: Tensor, size: int) -> Tensor:
    """Repeat vectors at each position of a map.

    Args:
        vectors: Vectors, float (B, D).
        size: Height and width of the map.

    Returns:
        The map, float (B, D, size, size).
    """
    return vectors[..., None, None].expand(-1, -1, size, size)


def orthogonal(module: nn.Module) -> None:
    """Initialise one module as the authors do.

    Convolutions and linear maps are orthogonal, biases of linear maps are 0, and gains of batch
    norm come from N(1, 0.02).

    Args:
        module: The module. Its children are left as they are.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.orthogonal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
