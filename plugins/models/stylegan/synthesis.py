"""The synthesis: from latent vectors to an image.

StyleGAN2 starts from a learnt map, StyleGAN-T from Fourier features. Styled convolutions follow,
and an image for each size, which are upsampled and added up.

Source: Karras et al. 2020 (StyleGAN2), 2021 (Fourier features); Sauer et al. 2023, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from t2i.plugins.common.fir import upsample
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.layers import (
    GAIN,
    Affine,
    EqualLinear,
    SecondOrder,
    StyledConv,
    ToRGB,
)

START = 4
"""Height and width of StyleGAN2's smallest map, pixels."""
START_T = 8
"""Height and width of StyleGAN-T's smallest map, pixels."""
BANDWIDTH = 2.0
"""Largest frequency that is not dampened, in periods an image."""


class Constant(nn.Module):
    """A learnt map, the same for all images.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(channels, START, START))

    def forward(self, w: Tensor) -> Tensor:
        """Repeat the map.

        Args:
            w: One row for each image, (B, ...).

        Returns:
            The map, float (B, channels, 4, 4).
        """
        return self.value.expand(len(w), -1, -1, -1)


class FourierInput(nn.Module):
    """Sines of random frequencies, which w rotates and moves, mixed by a trained matrix.

    Args:
        w: Width of w.
        channels: Number of channels.

    Attributes:
        freqs: Frequencies, float (channels, 2), in periods an image.
        phases: Phases in periods, float (channels,).
        transform: A transform of the image's plane that the user may set, float (3, 3).
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w: int, channels: int) -> None:
        super().__init__()
        freqs = torch.randn(channels, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        # Uniform on a disc: the radius of a normal draw, turned into the square root of its
        # (approximate) distribution function.
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * BANDWIDTH
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualLinear(w, 4, std=0.0)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        """Compute the features.

        Args:
            w: Latent vectors, float (B, w).

        Returns:
            Features, float (B, channels, 8, 8).
        """
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        # First the image is rotated, then moved, then the user's transform is applied.
        matrix = rotation @ self.transform[:2, :2]
        offset = self.transform[:2, 2] - torch.stack([x, y], 1)
        offset = (rotation @ offset.unsqueeze(2)).squeeze(2)
        phases = self.phases + offset @ self.freqs.T
        freqs = self.freqs @ matrix
        # Frequencies that the transform has moved out of the band are dampened.
        sampling = float(START_T)
        norms = freqs.norm(dim=2)
        amplitudes = (1 - (norms - BANDWIDTH) / (sampling / 2 - BANDWIDTH)).clamp(0, 1)
        places = (torch.arange(START_T, device=w.device, dtype=w.dtype) + 0.5) / START_T - 0.5
        grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), 2).flatten(0, 1)
        waves = grid @ freqs.transpose(1, 2) + phases.unsqueeze(1)
        features = torch.sin(2 * math.pi * waves) * amplitudes.unsqueeze(1)
        mixed = features @ (self.weight.T / math.sqrt(len(self.weight)))
        maps: Tensor = mixed.transpose(1, 2)
        return maps.reshape(len(w), -1, START_T, START_T)


class ResidualConv(StyledConv):
    """A styled convolution of normalised features, added to them with a small trained factor.

    The result is (n(x) + gamma conv(n(x))) sqrt(2), where n is group normalisation.

    Args:
        channels: Channels of input and output.
        w: Width of w.
        size: Height and width.
        config: The model's settings.
    """

    def __init__(self, channels: int, w: int, size: int, config: StyleGANConfig) -> None:
        super().__init__(
            channels, channels, w, size, SecondOrder, math.sqrt(0.5), config.clamp,
            noise=config.noise,
        )  # fmt: skip
        self.norm = nn.GroupNorm(config.norm_groups, channels)
        self.gamma = nn.Parameter(torch.full((channels,), config.layer_scale))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        h = super().forward(x, w, noise)
        return torch.addcmul(GAIN * x, h, (GAIN * self.gamma)[:, None, None])


class Synthesis(nn.Module):
    """A start, blocks of styled convolutions, and an image from each block.

    Args:
        start: The first map. `FourierInput` takes a latent vector of its own.
        blocks: The convolutions of each size, the smallest size first.
        to_rgb: The image of each size.

    Attributes:
        layers: Number of latent vectors of an image: one for each convolution and one for the last
            image. An image before it shares that of the next convolution.
    """

    def __init__(
        self,
        start: Constant | FourierInput,
        blocks: Sequence[Sequence[StyledConv]],
        to_rgb: Sequence[ToRGB],
    ) -> None:
        super().__init__()
        self.start = start
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.to_rgb = nn.ModuleList(to_rgb)
        self.lead = int(isinstance(start, FourierInput))
        self.layers = self.lead + sum(len(block) for block in blocks) + 1

    def forward(self, ws: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """Generate images.

        Args:
            ws: Latent vectors, float (B, layers, w).
            noises: Noise of each of `noisy`, float (B, 1, h, h). None: the fixed noise.

        Returns:
            Images, float (B, 3, H, H), not bounded.
        """
        w, used, draws = ws.unbind(1), self.lead, iter(noises or ())
        x, image = self.start(w[0]), None
        for block, to_rgb in zip(self.blocks, self.to_rgb, strict=True):
            for layer in block.children():
                x = layer(x, w[used], None if layer.strength is None else next(draws, None))
                used += 1
            colours: Tensor = to_rgb(x, w[used])
            image = colours if image is None else upsample(image) + colours
        assert image is not None
        return image

    def convolutions(self) -> list[StyledConv]:
        """Return the styled convolutions.

        Returns:
            The layers, in the order in which they are called.
        """
        return [layer for layer in self.blocks.modules() if isinstance(layer, StyledConv)]

    def noisy(self) -> list[StyledConv]:
        """Return the convolutions that noise is added to.

        Returns:
            The layers, in the order of `noises`. Empty if the model has no noise.
        """
        return [layer for layer in self.convolutions() if layer.strength is not None]


def stylegan2(config: StyleGANConfig, w: int) -> Synthesis:
    """Build StyleGAN2's synthesis: two convolutions a size, but one at the smallest.

    Args:
        config: The model's settings.
        w: Width of w.

    Returns:
        The synthesis.
    """
    sizes = config.sizes(START)
    blocks = []
    for size in sizes:
        c = config.channels(size)
        same = StyledConv(c, c, w, size, clamp=config.clamp, noise=config.noise)
        up = [_up(config, size, w, Affine)] if size > START else []
        blocks.append([*up, same])
    images = [ToRGB(config.channels(size), w, clamp=config.clamp) for size in sizes]
    return Synthesis(Constant(config.channels(START)), blocks, images)


def stylegan_t(config: StyleGANConfig, w: int) -> Synthesis:
    """Build StyleGAN-T's synthesis: after the upsampling, `res_blocks` pairs of convolutions.

    Args:
        config: The model's settings.
        w: Width of w.

    Returns:
        The synthesis.
    """
    sizes = config.sizes(START_T)
    blocks = []
    for size in sizes:
        block = [_up(config, size, w, SecondOrder)] if size > START_T else []
        c = config.channels(size)
        for _ in range(config.res_blocks):
            plain = StyledConv(
                c, c, w, size, SecondOrder, math.sqrt(0.5), config.clamp, noise=config.noise
            )
            block += [plain, ResidualConv(c, w, size, config)]
        blocks.append(block)
    images = [
        ToRGB(config.channels(size), w, SecondOrder, std=0.1, clamp=config.clamp) for size in sizes
    ]
    return Synthesis(FourierInput(w, config.channels(START_T)), blocks, images)


def _up(config: StyleGANConfig, size: int, w: int, affine: type[Affine]) -> StyledConv:
    """Build the convolution that doubles the size, to `size`."""
    return StyledConv(
        config.channels(size // 2), config.channels(size), w, size, affine, clamp=config.clamp,
        double=True, noise=config.noise,
    )  # fmt: skip
