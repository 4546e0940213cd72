"""Networks of BigGAN, conditioned on a sentence instead of a class.

Source: Brock et al. 2019, appendix B; the authors' code (ajbrock/BigGAN-PyTorch).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.blocks.spectral import (
    BIGGAN,
    TORCH,
    Spectral,
    SpectralConv2d,
    SpectralLinear,
    SpectralRule,
)
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3, upsample_conv3x3
from t2i.plugins.models.biggan.config import START, BigGANConfig

# Multiples of ch in the authors' code: the generator's from 4x4 up, the discriminator's from its
# first block down.
GENERATOR = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
DISCRIMINATOR = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}


def generator_widths(config: BigGANConfig) -> list[int]:
    """Return the channels of the generator's maps.

    Args:
        config: The model's settings.

    Returns:
        One width for each size, from 4x4 pixels to the image's.
    """
    if config.widths == "authors":
        return [config.ch * multiple for multiple in GENERATOR[config.image_size]]
    return [config.ch * min(2**i, 8) for i in reversed(range(config.rounds + 1))]


def discriminator_widths(config: BigGANConfig) -> list[int]:
    """Return the channels of the outputs of the discriminator's blocks.

    Args:
        config: The model's settings.

    Returns:
        One width for each block.
    """
    ch = config.ch_d or config.ch
    if config.widths == "authors":
        return [ch * multiple for multiple in DISCRIMINATOR[config.image_size]]
    return [ch * min(2**i, 8) for i in range(config.rounds + 1)]


def downsampling_blocks(config: BigGANConfig) -> int:
    """Return how many of the discriminator's blocks halve their maps: the first ones.

    Args:
        config: The model's settings.

    Returns:
        The number. With the authors' tables they reach 4x4 pixels, but 8x8 for images of 32.
    """
    if config.widths == "authors" and config.image_size == 32:
        return 2
    return config.rounds


class Layers:
    """Makes linear layers and convolutions, spectrally normalised or not.

    Args:
        rule: The convention of spectral normalisation. None: plain layers.
    """

    def __init__(self, rule: SpectralRule | None) -> None:
        self.rule = rule

    def linear(self, c_in: int, c_out: int, bias: bool = True) -> nn.Linear:
        """Make a linear layer.

        Args:
            c_in: Number of inputs.
            c_out: Number of outputs.
            bias: Whether it has a bias.

        Returns:
            The layer.
        """
        if self.rule is None:
            return nn.Linear(c_in, c_out, bias)
        return SpectralLinear(c_in, c_out, bias, rule=self.rule)

    def conv(self, c_in: int, c_out: int, kernel: int, bias: bool = True) -> nn.Conv2d:
        """Make a convolution that keeps the size.

        Args:
            c_in: Channels of the input.
            c_out: Channels of the output.
            kernel: Height and width of the kernel, odd.
            bias: Whether it has a bias.

        Returns:
            The layer.
        """
        if self.rule is None:
            return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
        return SpectralConv2d(c_in, c_out, kernel, 1, kernel // 2, bias, rule=self.rule)

    def up_conv(self, c_in: int, c_out: int) -> nn.Conv2d:
        """Make a nearest upsampling to twice the size, followed by a 3x3 convolution.

        Args:
            c_in: Channels of the input.
            c_out: Channels of the output.

        Returns:
            The layer.
        """
        if self.rule is None:
            return UpConv3x3(c_in, c_out, bias=True)
        return SpectralUpConv(c_in, c_out, 3, rule=self.rule)


class SpectralUpConv(SpectralConv2d):
    """`UpConv3x3` with a bias and spectral normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """Upsample and convolve a map.

        Args:
            x: The map, float (B, c_in, h, w).

        Returns:
            The map, float (B, c_out, 2h, 2w).
        """
        return upsample_conv3x3(x, self.normalized(), self.bias, self.training)


def rule_of(config: BigGANConfig) -> SpectralRule:
    """Return the convention of spectral normalisation.

    Args:
        config: The model's settings.

    Returns:
        The rule.
    """
    return BIGGAN if config.spectral_first == "v" else replace(TORCH, eps=BIGGAN.eps)


def start_orthogonally(network: nn.Module) -> None:
    """Draw the weights of linear layers and convolutions anew: orthogonal matrices.

    Args:
        network: The network. Biases are kept.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.orthogonal_(layer.weight)
        if isinstance(layer, Spectral):
            with torch.no_grad():
                for _ in range(layer.rule.start):
                    layer.sigma(store=True)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition: (1 + A c) * norm(x) + B c.

    Args:
        channels: Channels C of the map.
        condition: Width of the condition.
        layers: Makes the linear layers.
    """

    def __init__(self, channels: int, condition: int, layers: Layers) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = layers.linear(condition, channels, bias=False)
        self.bias = layers.linear(condition, channels, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Normalise a map.

        Args:
            x: The map, float (B, C, h, w).
            c: Conditions, float (B, condition).

        Returns:
            The map, float (B, C, h, w).
        """
        gain, bias = 1 + self.gain(c), self.bias(c)
        out: Tensor = torch.addcmul(bias[..., None, None], self.norm(x), gain[..., None, None])
        return out


class UpBlock(nn.Module):
    """A block of the generator: shortcut + residual, at twice the size.

    The first norm and the 1x1 shortcut work pixel by pixel. They give the same before nearest
    upsampling as after it, at a quarter of the cost.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        condition: Width of the condition.
        layers: Makes the layers.
    """

    def __init__(self, c_in: int, c_out: int, condition: int, layers: Layers) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(c_in, condition, layers)
        self.conv1 = layers.up_conv(c_in, c_out)
        self.norm2 = ConditionalBatchNorm(c_out, condition, layers)
        self.conv2 = layers.conv(c_out, c_out, 3)
        self.shortcut = layers.conv(c_in, c_out, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Enlarge a map.

        Args:
            x: The map, float (B, c_in, h, h).
            c: Conditions, float (B, condition).

        Returns:
            The map, float (B, c_out, 2h, 2h).
        """
        h: Tensor = self.conv1(self.norm1(x, c).relu())
        h = self.conv2(self.norm2(h, c).relu())
        shortcut: Tensor = F.interpolate(self.shortcut(x), scale_factor=2)
        return shortcut + h


class DownBlock(nn.Module):
    """A block of the discriminator: shortcut + residual, at half the size or at the same.

    Pooling and the 1x1 shortcut commute. After pooling the shortcut costs a quarter.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        first: Whether it is the first block, whose residual has no ReLU in front.
        down: Whether the size is halved, by average pooling.
        layers: Makes the layers.
    """

    def __init__(self, c_in: int, c_out: int, first: bool, down: bool, layers: Layers) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = layers.conv(c_in, c_out, 3)
        self.conv2 = layers.conv(c_out, c_out, 3)
        self.shortcut = layers.conv(c_in, c_out, 1) if down or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: The map, float (B, c_in, h, h).

        Returns:
            The map, float (B, c_out, h/2, h/2), or (B, c_out, h, h).
        """
        h: Tensor = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        shortcut: Tensor = self.shortcut(x)
        return h + shortcut


class Attention(nn.Module):
    """Self-attention of a map, x + gamma * attention(x).

    Keys and values are max-pooled to half the size. gamma is trained and starts at 0.

    Source: Zhang et al. 2019 (SAGAN), as in the authors' code.

    Args:
        channels: Channels C of the map, at least 8.
        layers: Makes the convolutions.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.query = layers.conv(channels, channels // 8, 1, bias=False)
        self.key = layers.conv(channels, channels // 8, 1, bias=False)
        self.value = layers.conv(channels, channels // 2, 1, bias=False)
        self.out = layers.conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: The map, float (B, C, h, h).

        Returns:
            The map, float (B, C, h, h).
        """
        query = self.query(x).flatten(2)
        key, value = (F.max_pool2d(f(x), 2).flatten(2) for f in (self.key, self.value))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        found = torch.bmm(value, weights.transpose(1, 2))
        attended: Tensor = self.out(found.view(len(x), -1, *x.shape[2:]))
        return x + self.gamma * attended


class BigGANGenerator(OneShotGenerator):
    """G, the generator.

    z is cut into chunks. The first one becomes a 4x4 map. Each block takes [y; a chunk], y being
    the sentence's shared embedding.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
    """

    def __init__(self, config: BigGANConfig, text: TextShape) -> None:
        super().__init__()
        layers = Layers(rule_of(config) if config.spectral_g else None)
        channels = generator_widths(config)
        self.image_size = config.image_size
        self.chunk = config.chunk
        self.noise_shape = (config.chunk * len(channels),)
        self.start_from_text = config.start_from_text
        condition = config.shared + config.chunk
        self.shared = nn.Linear(text.sentence, config.shared, bias=False)
        self.start = layers.linear(
            condition if config.start_from_text else config.chunk, channels[0] * START**2
        )
        self.blocks = nn.ModuleList(
            UpBlock(c_in, c_out, condition, layers) for c_in, c_out in pairwise(channels)
        )
        sides = [START * 2 ** (i + 1) for i in range(config.rounds)]
        self.attention = nn.ModuleDict(
            {
                str(i): Attention(channels[i + 1], layers)
                for i, side in enumerate(sides)
                if side in config.attention
            }
        )
        self.norm = nn.BatchNorm2d(channels[-1])
        self.to_rgb = layers.conv(channels[-1], 3, 3)
        start_orthogonally(self)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        y = self.shared(text.sentence)
        first, *chunks = torch.split(noise, self.chunk, dim=1)
        x = self.start(torch.cat([y, first], dim=1) if self.start_from_text else first)
        x = x.view(len(noise), -1, START, START)
        for i, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            x = block(x, torch.cat([y, chunk], dim=1))
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        return torch.tanh(self.to_rgb(self.norm(x).relu()))


class Discriminator(nn.Module):
    """D, the discriminator without its output. Its features do not depend on the text.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        layers = Layers(rule_of(config))
        channels, halving = discriminator_widths(config), downsampling_blocks(config)
        self.mean = config.pooling == "mean"
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        side = config.image_size
        for i, (c_in, c_out) in enumerate(pairwise([3 * config.pack, *channels])):
            self.blocks.append(DownBlock(c_in, c_out, i == 0, i < halving, layers))
            if i < halving:
                side //= 2
                if side in config.attention:
                    self.attention[str(i)] = Attention(c_out, layers)
        start_orthogonally(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], or packs of them, float (B, 3 pack, H, H).

        Returns:
            Features, float (B, C). C is the last of `discriminator_widths`.
        """
        x = images
        for i, block in enumerate(self.blocks):
            x = block(x)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        x = x.relu()
        return x.mean((2, 3)) if self.mean else x.sum((2, 3))


class Embedding(SpectralLinear):
    """V, as the table of vectors that it is in the authors' code: a row for each input."""

    axis = 1


class Projection(nn.Module):
    """The output of D: a linear score of the features h, plus <V e, h>.

    Source: Miyato & Koyama 2018.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: BigGANConfig, sentence: int) -> None:
        super().__init__()
        layers, channels = Layers(rule_of(config)), discriminator_widths(config)[-1]
        self.score = layers.linear(channels, 1)
        self.embed = Embedding(config.pack * sentence, channels, bias=False, rule=rule_of(config))
        start_orthogonally(self)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Score each image with its sentence.

        Args:
            features: Features of the images, float (B, C).
            sentence: Sentence vectors, float (B, D pack).

        Returns:
            Scores, float (B,). High scores mean "real, and matching the sentence".
        """
        score: Tensor = self.score(features).flatten()
        projected: Tensor = self.embed(sentence)
        return score + (projected * features).sum(1)


def build(config: BigGANConfig, text: TextShape, assets: Path | None) -> BigGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return BigGANGenerator(config, text)
