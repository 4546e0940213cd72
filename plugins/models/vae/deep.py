"""VDVAE: a hierarchy of latents from 1x1 places to the size of the image.

Source: Child 2021, figure 3 and section 3; the text is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, MAP_SIZE, MappedText, conditioned, resized
from t2i.plugins.common.variational.bound import Latent
from t2i.plugins.common.variational.gaussian import Gaussian, split
from t2i.plugins.models.vae.blocks import Place, places
from t2i.plugins.models.vae.config import DeepConfig, VAEConfig

NARROW = 2
"""Largest size of maps whose blocks have 1x1 convolutions only."""

Draw = Callable[[int, torch.Size], Tensor]
"""Function from the number of a group of latents and the shape of one image's group to its noise,
(B, *shape)."""


def conv(c_in: int, c_out: int, size: int = 1, zero: bool = False) -> nn.Conv2d:
    """Make a convolution that keeps the size, whose bias starts at 0.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        size: Height and width of the kernel, odd.
        zero: Whether the weights start at 0, too.

    Returns:
        The convolution.
    """
    made = nn.Conv2d(c_in, c_out, size, padding=size // 2)
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    if zero:
        nn.init.zeros_(made.weight)
    return made


class Block(nn.Module):
    """Four convolutions with GELUs before them: 1x1, twice 3x3, 1x1.

    Args:
        c_in: Channels of the input.
        c_mid: Channels inside.
        c_out: Channels of the output.
        size: Height and width of the map. Up to `NARROW` all convolutions are 1x1.
        residual: Whether the input is added to the result.
        down: Factor of the average pooling at the end. None: there is none.
        zero: Whether the last convolution starts at 0.
        gain: Initial factor of the last convolution's weights.
    """

    def __init__(
        self, c_in: int, c_mid: int, c_out: int, size: int, *, residual: bool = False,
        down: int | None = None, zero: bool = False, gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual, self.down = residual, down
        kernel = 3 if size > NARROW else 1
        self.c1 = conv(c_in, c_mid)
        self.c2 = conv(c_mid, c_mid, kernel)
        self.c3 = conv(c_mid, c_mid, kernel)
        self.c4 = conv(c_mid, c_out, zero=zero)
        with torch.no_grad():
            self.c4.weight *= gain

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: A map, float (B, c_in, h, w).

        Returns:
            A map, float (B, c_out, h / down, w / down).
        """
        h = x
        for layer in (self.c1, self.c2, self.c3, self.c4):
            h = layer(F.gelu(h))
        h = x + h if self.residual else h
        return h if self.down is None else F.avg_pool2d(h, self.down)


class Encoder(nn.Module):
    """The bottom-up half: maps of the image at every size.

    Args:
        config: Settings of the hierarchy.
        channels: Channels of x.
    """

    def __init__(self, config: DeepConfig, channels: int) -> None:
        super().__init__()
        blocks, width = places(config.encoder_blocks), config.width
        self.stem = conv(channels, width, 3)
        self.blocks = nn.ModuleList(
            Block(
                width, int(width * config.bottleneck), width, place.size, residual=True,
                down=place.down, gain=len(blocks) ** -0.5,
            )
            for place in blocks
        )  # fmt: skip

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Compute the maps of images.

        Args:
            x: Normalised images or latents, float (B, C, H, H).

        Returns:
            The last map of each size, float (B, width, h, h), by its size.
        """
        h = self.stem(x)
        maps = {h.shape[2]: h}
        for block in self.blocks:
            h = block(h)
            maps[h.shape[2]] = h
        return maps


class TopDownBlock(nn.Module):
    """A block of the decoder: it draws latents and adds them to the map, then refines the map.

    The posterior is computed from the map and the encoder's map, the prior from the map alone.

    Args:
        config: Settings of the hierarchy.
        place: Size of the map, and the map that is enlarged and added first.
        blocks: Number of blocks of the decoder.
    """

    def __init__(self, config: DeepConfig, place: Place, blocks: int) -> None:
        super().__init__()
        self.place, self.z = place, config.z
        width, inner, size = config.width, int(config.width * config.bottleneck), place.size
        self.latent = config.latents is None or size <= config.latents
        if self.latent:
            self.posterior = Block(2 * width, inner, 2 * config.z, size)
            self.prior = Block(width, inner, 2 * config.z + width, size, zero=True)
            self.project = conv(config.z, width)
            with torch.no_grad():
                self.project.weight *= blocks**-0.5
        self.resnet = Block(width, inner, width, size, residual=True, gain=blocks**-0.5)

    def entered(self, maps: dict[int, Tensor]) -> Tensor:
        """Return the block's input: the map of its size, and the enlarged smaller one.

        Args:
            maps: The newest map of each size.

        Returns:
            A map, float (B, width, h, h).
        """
        x, source = maps[self.place.size], self.place.source
        if source is None:
            return x
        return x + F.interpolate(maps[source], scale_factor=self.place.size // source)

    def believed(self, x: Tensor) -> tuple[Gaussian, Tensor]:
        """Compute the prior of the latents.

        Args:
            x: The block's input.

        Returns:
            The prior, of shape (B, z, h, h), and the map with what the prior's network adds.
        """
        features = self.prior(x)
        return split(features[:, : 2 * self.z]), x + features[:, 2 * self.z :]

    def infer(self, maps: dict[int, Tensor], seen: Tensor, eps: Tensor | None) -> Latent | None:
        """Draw latents from the posterior, and replace the map of this size.

        Args:
            maps: The newest map of each size, which is changed.
            seen: The encoder's map of this size, float (B, width, h, h).
            eps: Noise of the latents, (B, z, h, h). None: the block has none.

        Returns:
            The latents. None: the block has none.
        """
        x = self.entered(maps)
        latent: Latent | None = None
        if eps is not None:
            q = split(self.posterior(torch.cat([x, seen], dim=1)))
            p, x = self.believed(x)
            latent = Latent(q, p, q.draw(eps))
            x = x + self.project(latent.z.to(x.dtype))
        maps[self.place.size] = self.resnet(x)
        return latent

    def imagine(self, maps: dict[int, Tensor], eps: Tensor | None, temperature: float) -> None:
        """Draw latents from the prior, and replace the map of this size.

        Args:
            maps: The newest map of each size, which is changed.
            eps: Noise of the latents, (B, z, h, h). None: the block has none.
            temperature: Factor of the prior's standard deviations.
        """
        x = self.entered(maps)
        if eps is not None:
            p, x = self.believed(x)
            x = x + self.project(p.draw(eps, temperature).to(x.dtype))
        maps[self.place.size] = self.resnet(x)


class DeepNetwork(MappedText):
    """VDVAE's encoder and decoder, whose maps begin with the text.

    Each size begins with a learnt bias, a linear map of the sentence, and a 1x1 convolution of the
    text map where there is one. These maps enter every prior and posterior of their size.

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Attributes:
        width: Channels of the features that the decoder returns.
        shapes: Shape of each group of latents of an image, in the order in which they are drawn.
    """

    def __init__(self, config: VAEConfig, text: TextShape) -> None:
        super().__init__(config.text, config.channels, min(MAP_SIZE, config.side), text)
        deep = config.deep
        blocks = places(deep.decoder_blocks)
        sizes = sorted({place.size for place in blocks})
        self.side, self.width, self.bias_sizes = config.side, deep.width, deep.biases
        self.encoder = Encoder(deep, config.channels)
        self.blocks = nn.ModuleList(TopDownBlock(deep, place, len(blocks)) for place in blocks)
        self.shapes = [
            (deep.z, place.size, place.size)
            for place in blocks
            if deep.latents is None or place.size <= deep.latents
        ]
        self.biases = nn.ParameterDict(
            {
                str(n): nn.Parameter(torch.zeros(1, deep.width, n, n))
                for n in sizes
                if n <= deep.biases
            }
        )
        self.sentences = nn.ModuleDict(
            {str(n): nn.Linear(text.sentence, deep.width) for n in sizes}
        )
        self.grids = nn.ModuleDict(
            {str(n): conv(config.text.text_map, deep.width) for n in sizes if self.has_map}
        )
        for layer in [*self.sentences.values(), *self.grids.values()]:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=deep.text_gain * layer.weight.shape[1] ** -0.5)
            nn.init.zeros_(layer.bias)
        self.gain = nn.Parameter(torch.ones(1, deep.width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, deep.width, 1, 1))

    def started(self, text: TextFeatures) -> dict[int, Tensor]:
        """Compute what the map of each size begins with.

        Args:
            text: Features of B captions, conditioned.

        Returns:
            The maps, float (B, width, h, h), by size.
        """
        maps: dict[int, Tensor] = {}
        for name, linear in self.sentences.items():
            size = int(name)
            h = linear(text.sentence)[..., None, None]
            h = h + self.biases[name] if name in self.biases else h.expand(-1, -1, size, size)
            if self.has_map:
                grid = self.grids[name](resized(conditioned(text, MAP), size))
                h = h + grid
            maps[size] = h
        return maps

    def infer(self, x: Tensor, text: TextFeatures, draw: Draw) -> tuple[Tensor, list[Latent]]:
        """Draw latents of images from the posterior.

        Args:
            x: Normalised images or latents, float (B, C, H, H).
            text: Features of B captions, conditioned.
            draw: Source of the noise.

        Returns:
            The decoder's features, float (B, width, H, H), and the groups of latents.
        """
        seen, maps = self.encoder(x), self.started(text)
        latents: list[Latent] = []
        for block in self.blocks:
            assert isinstance(block, TopDownBlock)
            shape = self.shapes[len(latents)] if block.latent else None
            eps = None if shape is None else draw(len(latents), torch.Size(shape))
            latent = block.infer(maps, seen[block.place.size], eps)
            if latent is not None:
                latents.append(latent)
        return maps[self.side] * self.gain + self.bias, latents

    def imagine(
        self, eps: Sequence[Tensor], text: TextFeatures, temperature: float = 1.0
    ) -> Tensor:
        """Draw latents from the prior.

        Args:
            eps: Noise of each group of latents, (B, *shape) each.
            text: Features of B captions, conditioned.
            temperature: Factor of the prior's standard deviations.

        Returns:
            The decoder's features, float (B, width, H, H).
        """
        maps, noise = self.started(text), iter(eps)
        for block in self.blocks:
            assert isinstance(block, TopDownBlock)
            block.imagine(maps, next(noise) if block.latent else None, temperature)
        return maps[self.side] * self.gain + self.bias
