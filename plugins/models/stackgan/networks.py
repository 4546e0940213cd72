"""Networks of StackGAN (Zhang et al. 2017), figure 2 and section 3.4: two generators, and a discriminator for each."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning import ConditioningAugmentation
from t2i.plugins.common.gan.upsampling import UpConv3x3
from t2i.plugins.models.stackgan.config import START, StackGANConfig


class StageOutput(NamedTuple):
    """What a stage makes: images (B, 3, H, H) in [-1, 1], and mu and log sigma^2 of its conditioning augmentation,
    each (B, c). The discriminator judges with mu."""

    images: Tensor
    mean: Tensor
    logvar: Tensor


def doublings(small: int, large: int) -> int:
    """How often `small` is doubled to reach `large`."""
    return (large // small).bit_length() - 1


def _conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def _normed(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


def _up_blocks(c: int, n: int) -> nn.Sequential:
    """n times twice the size and half the channels."""
    channels = [c // 2**i for i in range(n + 1)]
    return nn.Sequential(
        *(nn.Sequential(*_normed(UpConv3x3(*pair))) for pair in pairwise(channels))
    )


def _initialise(module: nn.Module) -> None:
    """The authors' start: weights from N(0, 0.02), gains of batch norm from N(1, 0.02), no biases."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(
                part.weight, float(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)), 0.02
            )
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class StageOne(nn.Module):
    """G0: noise z (B, z_dim), eps (B, c_dim) and sentences (B, D) -> `StageOutput`."""

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
        c, mean, logvar = self.augment(sentence, eps)
        h = self.start(torch.cat([z, c], dim=1)).view(len(z), -1, START, START)
        return StageOutput(torch.tanh(self.to_rgb(self.blocks(h))), mean, logvar)


class ResidualBlock(nn.Module):
    """x (B, c, h, w) -> relu(x + two convolutions of it)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_normed(_conv3x3(c, c)), _conv3x3(c, c), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.block(x))


class StageTwo(nn.Module):
    """G: stage I's images s0 (B, 3, h, h), eps (B, c_dim) and sentences (B, D) -> `StageOutput`, whose images
    are `upscale` times as large.

    It has a conditioning augmentation of its own, and no noise but that.
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
        c, mean, logvar = self.augment(sentence, eps)
        h = self.encoder(s0)
        h = self.joint(torch.cat([h, c[..., None, None].expand(-1, -1, *h.shape[2:])], dim=1))
        return StageOutput(torch.tanh(self.to_rgb(self.blocks(self.residuals(h)))), mean, logvar)


def _halving(c: int) -> list[nn.Module]:
    """Half the size and twice the channels."""
    return _normed(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False))


class StackGANGenerator(OneShotGenerator):
    """G(G0(z, c0), c): noise [z; eps of stage I; eps of stage II] and sentences -> images.

    refines: a saved flag, False until stage II begins to be trained or is imported. Until then the images are
    stage I's, enlarged (each of its pixels as a square), so that the grids of stage I, and what is drawn from a run
    that was stopped within it, show what has been learnt.
    """

    refines: Tensor

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
        """noise (B, *noise_shape) -> z (B, z_dim), then eps (B, c_dim) of each stage."""
        return torch.split(noise, self.parts, dim=1)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        z, *eps = self.split(noise)
        images: Tensor = self.first(z, eps[0], text.sentence).images
        if self.second is not None and self.refines:
            images = self.second(images, eps[1], text.sentence).images
        return F.interpolate(images, size=self.image_size)  # changes nothing that has this size


class Discriminator(nn.Module):
    """D without its outputs: images (B, 3, H, H) -> features (B, w, 4, 4), which know nothing of the text.

    Halved to 4x4 pixels with channels doubling from df, then narrowed to 8 df where they are more (stage II's).
    """

    def __init__(self, df: int, image_size: int) -> None:
        super().__init__()
        n = doublings(START, image_size)
        layers: list[nn.Module] = [nn.Conv2d(3, df, 4, stride=2, padding=1, bias=False), _leaky()]
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
        features: Tensor = self.layers(images)
        return features


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class ConditionalHead(nn.Module):
    """The conditional output: features (B, w, 4, 4) and mu (B, c) -> logits (B,): real, and of this text?"""

    def __init__(self, width: int, c: int) -> None:
        super().__init__()
        self.joint = nn.Sequential(_conv3x3(width + c, width), nn.BatchNorm2d(width), _leaky())
        self.score = nn.Conv2d(width, 1, START)
        _initialise(self)

    def forward(self, features: Tensor, mean: Tensor) -> Tensor:
        tiled = mean[..., None, None].expand(-1, -1, START, START)
        logits: Tensor = self.score(self.joint(torch.cat([features, tiled], dim=1))).flatten()
        return logits


class UnconditionalHead(nn.Module):
    """The unconditional output, stage II's: features (B, w, 4, 4) -> logits (B,): real?"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, START)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.score(features).flatten()
        return logits


def build(config: StackGANConfig, text: TextShape, assets: Path | None) -> StackGANGenerator:
    """The generator that the settings describe; it has no assets."""
    return StackGANGenerator(config, text.sentence)
