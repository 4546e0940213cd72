"""Networks of StackGAN: two generators, and a discriminator for each.

Source: Zhang et al. 2017, figure 2 and section 3.4.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.conditioning.augmentation import ConditioningAugmentation
from t2i.plugins.models.stackgan.config import START, StackGANConfig


class StageOutput(NamedTuple):
    """What the generator of a stage returns.

    Attributes:
        images: Images in [-1, 1], float (B, 3, H, H).
        mean: mu of the conditioning augmentation, float (B, c_dim). The discriminator takes it.
        logvar: log sigma^2 of the conditioning augmentation, float (B, c_dim).
    """

    images: Tensor
    mean: Tensor
    logvar: Tensor


def doublings(small: int, large: int) -> int:
    """Count the doublings from one size to another.

    Args:
        small: The smaller size.
        large: The larger size, `small` times a power of two.

    Returns:
        The number of doublings.
    """
    return (large // small).bit_length() - 1


def _conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def _normed(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


def _up_blocks(c: int, n: int) -> nn.Sequential:
    """Build n blocks. Each doubles the size and halves the channels, from c on."""
    channels = [c // 2**i for i in range(n + 1)]
    return nn.Sequential(
        *(nn.Sequential(*_normed(UpConv3x3(*pair))) for pair in pairwise(channels))
    )


def _initialise(module: nn.Module) -> None:
    """Initialise as the authors do: weights N(0, 0.02), batch norm's gains N(1, 0.02), biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(
                part.weight, float(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)), 0.02
            )
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class StageOne(nn.Module):
    """G0, the generator of stage I.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: StackGANConfig, sentence: int) -> None:
        super().__init__()
        width, n = 8 * config.gf, doublings(START, config.first_size)
        self.augment = ConditioningAugmentation(sentence, config.c_dim)
        hidden = width * START**2
        self.start = nn.Sequential(
            nn.Linear(config.z_dim + config.c_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
        )
        self.blocks = _up_blocks(width, n)
        self.to_rgb = _conv3x3(width // 2**n, 3)

    def forward(self, z: Tensor, eps: Tensor, sentence: Tensor) -> StageOutput:
        """Generate small images.

        Args:
            z: Noise, float (B, z_dim).
            eps: Noise of the conditioning augmentation, float (B, c_dim). 0 gives the mean.
            sentence: Sentence vectors, float (B, D).

        Returns:
            The images, of side `first_size`, and the condition's mu and log sigma^2.
        """
        c, mean, logvar = self.augment(sentence, eps)
        h = self.start(torch.cat([z, c], dim=1)).view(len(z), -1, START, START)
        return StageOutput(torch.tanh(self.to_rgb(self.blocks(h))), mean, logvar)


class ResidualBlock(nn.Module):
    """relu(x + two convolutions of x), with batch norms.

    Args:
        c: Channels of the input and of the output.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_normed(_conv3x3(c, c)), _conv3x3(c, c), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c, h, w).

        Returns:
            Features of the same shape.
        """
        return F.relu(x + self.block(x))


class StageTwo(nn.Module):
    """G, the generator of stage II: it enlarges and refines stage I's images.

    It has its own conditioning augmentation, and no other noise.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: StackGANConfig, sentence: int) -> None:
        super().__init__()
        gf, c = config.gf, config.c_dim
        self.augment = ConditioningAugmentation(sentence, c)
        self.encoder = nn.Sequential(
            _conv3x3(3, gf), nn.ReLU(inplace=True), *_halving(gf), *_halving(2 * gf)
        )
        self.joint = nn.Sequential(*_normed(_conv3x3(4 * gf + c, 4 * gf)))
        self.residuals = nn.Sequential(*(ResidualBlock(4 * gf) for _ in range(config.residuals)))
        n = doublings(1, 4 * config.upscale)
        self.blocks = _up_blocks(4 * gf, n)
        self.to_rgb = _conv3x3(4 * gf // 2**n, 3)

    def forward(self, s0: Tensor, eps: Tensor, sentence: Tensor) -> StageOutput:
        """Generate large images.

        Args:
            s0: Stage I's images, float (B, 3, h, h).
            eps: Noise of the conditioning augmentation, float (B, c_dim). 0 gives the mean.
            sentence: Sentence vectors, float (B, D).

        Returns:
            Images of side `upscale` h, and the condition's mu and log sigma^2.
        """
        c, mean, logvar = self.augment(sentence, eps)
        h = self.encoder(s0)
        h = self.joint(torch.cat([h, c[..., None, None].expand(-1, -1, *h.shape[2:])], dim=1))
        return StageOutput(torch.tanh(self.to_rgb(self.blocks(self.residuals(h)))), mean, logvar)


def _halving(c: int) -> list[nn.Module]:
    """Build layers that halve the size and double the channels c."""
    return _normed(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False))


class StackGANGenerator(OneShotGenerator):
    """Both generators: G(G0(z, c0), c).

    The noise of an image is [z; eps of stage I; eps of stage II]. The buffer `refines` is saved. It
    is False until the training of stage II begins or stage II is imported. Until then the images
    are stage I's, enlarged by nearest neighbour. So sample grids of stage I, and samples of a run
    that was stopped in stage I, show what stage I has learnt.

    Args:
        config: The model's settings.
        sentence: Width of a sentence vector.
    """

    refines: Tensor
    """Whether stage II is used, bool scalar."""

    def __init__(self, config: StackGANConfig, sentence: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.parts = [config.z_dim] + [config.c_dim] * config.stages
        self.noise_shape = (sum(self.parts),)
        self.first = StageOne(config, sentence)
        self.second = StageTwo(config, sentence) if config.stages == 2 else None
        self.register_buffer("refines", torch.tensor(False))
        _initialise(self)

    def split(self, noise: Tensor) -> tuple[Tensor, ...]:
        """Split the noise into its parts.

        Args:
            noise: Noise, float (B, z_dim + stages * c_dim).

        Returns:
            z, float (B, z_dim), then eps of each stage, each float (B, c_dim).
        """
        return torch.split(noise, self.parts, dim=1)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        z, *eps = self.split(noise)
        images: Tensor = self.first(z, eps[0], text.sentence).images
        if self.second is not None and self.refines:
            images = self.second(images, eps[1], text.sentence).images
        return F.interpolate(images, size=self.image_size)  # no change at this size


class Discriminator(nn.Module):
    """D, the discriminator of a stage without its outputs. Its features do not depend on the text.

    Images are halved to 4x4 while the channels double from df on. More than 8 df channels (stage
    II) are then reduced to 8 df. The attribute `width` is the number of channels of the features.

    Args:
        df: Base width.
        image_size: Side of the images in pixels.
        pack: Number of images that are scored together.
    """

    def __init__(self, df: int, image_size: int, pack: int = 1) -> None:
        super().__init__()
        n = doublings(START, image_size)
        layers: list[nn.Module] = [
            nn.Conv2d(3 * pack, df, 4, stride=2, padding=1, bias=False),
            _leaky(),
        ]
        for i in range(1, n):
            convolution = nn.Conv2d(
                df * 2 ** (i - 1), df * 2**i, 4, stride=2, padding=1, bias=False
            )
            layers += [convolution, nn.BatchNorm2d(df * 2**i), _leaky()]
        self.width = df * 2 ** (n - 1)
        while self.width > 8 * df:
            self.width //= 2
            layers += [_conv3x3(2 * self.width, self.width), nn.BatchNorm2d(self.width), _leaky()]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Features, float (B, width, 4, 4).
        """
        features: Tensor = self.layers(images)
        return features


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class ConditionalHead(nn.Module):
    """The conditional output: it scores whether an image is real and matches the text.

    Args:
        width: Channels of the discriminator's features.
        c: Size of mu, the mean of the conditioning augmentation.
    """

    def __init__(self, width: int, c: int) -> None:
        super().__init__()
        self.joint = nn.Sequential(_conv3x3(width + c, width), nn.BatchNorm2d(width), _leaky())
        self.score = nn.Conv2d(width, 1, START)
        _initialise(self)

    def forward(self, features: Tensor, mean: Tensor) -> Tensor:
        """Score images with texts.

        Args:
            features: Features of the images, float (B, width, 4, 4).
            mean: mu of the texts, float (B, c).

        Returns:
            Logits, float (B,).
        """
        tiled = mean[..., None, None].expand(-1, -1, START, START)
        logits: Tensor = self.score(self.joint(torch.cat([features, tiled], dim=1))).flatten()
        return logits


class UnconditionalHead(nn.Module):
    """The unconditional output, which only stage II has: it scores whether an image is real.

    Args:
        width: Channels of the discriminator's features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, START)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Score images alone.

        Args:
            features: Features of the images, float (B, width, 4, 4).

        Returns:
            Logits, float (B,).
        """
        logits: Tensor = self.score(features).flatten()
        return logits


def build(config: StackGANConfig, text: TextShape, assets: Path | None) -> StackGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return StackGANGenerator(config, text.sentence)
