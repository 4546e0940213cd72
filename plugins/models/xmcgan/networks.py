"""Networks of XMC-GAN: the generator with attentional self-modulation, and the discriminator.

Source: Zhang et al. 2021, section 4, and the authors' code where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.blocks.spectral import XMCGAN, SpectralConv2d, SpectralLinear
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.losses.contrastive import unit
from t2i.plugins.models.xmcgan.config import START, XMCGANConfig


class ConditionalNorm(nn.Module):
    """Batch norm whose gain 1 + gamma and shift beta are linear maps of a vector.

    Args:
        condition: Width of the vectors.
        channels: Channels of the maps.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gamma, self.beta = nn.Linear(condition, channels), nn.Linear(condition, channels)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Normalise and modulate maps.

        Args:
            x: Maps, float (B, channels, h, w).
            g: Vectors, float (B, condition).

        Returns:
            Maps of the same shape.
        """
        gain, shift = 1 + self.gamma(g), self.beta(g)
        return torch.addcmul(shift[..., None, None], self.norm(x), gain[..., None, None])


class LocalNorm(nn.Module):
    """Batch norm whose gain 1 + gamma and shift beta are 1x1 convolutions of a map.

    The map may be smaller than what it modulates: gain and shift are upsampled, which gives the
    same numbers as upsampling the map does.

    Args:
        condition: Channels of the condition.
        channels: Channels of the maps.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gamma, self.beta = (nn.Conv2d(condition, channels, 1) for _ in range(2))

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Normalise and modulate maps.

        Args:
            x: Maps, float (B, channels, h, w).
            s: Condition, float (B, condition, h', w'), h and w being multiples of h' and w'.

        Returns:
            Maps of the shape of x.
        """
        gain, shift = 1 + self.gamma(s), self.beta(s)
        if s.shape[-1] != x.shape[-1]:
            gain, shift = (F.interpolate(y, size=x.shape[-2:]) for y in (gain, shift))
        return torch.addcmul(shift, self.norm(x), gain)


class UpBlock(nn.Module):
    """A block of the generator: twice norm, ReLU and convolution beside a shortcut, doubled.

    The 1x1 shortcut comes before its nearest upsampling: the same numbers at a quarter of the cost.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        norm: Function that makes the conditional norm of so many channels.
    """

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), UpConv3x3(c_in, c_out, bias=True)
        self.norm2, self.conv2 = norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Enlarge a map.

        Args:
            x: The map, float (B, c_in, h, w).
            condition: What the norms take.

        Returns:
            The map, float (B, c_out, 2h, 2w).
        """
        h = self.conv1(self.norm1(x, condition).relu())
        h = self.conv2(self.norm2(h, condition).relu())
        larger: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return larger


class XMCGANGenerator(OneShotGenerator):
    """G, the generator.

    Below the size `regions`, g = [linear(e); z] modulates the blocks. There each place attends to
    words, once; from there on, what it attends to and g modulate them place by place.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: XMCGANConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size, self.sharpness = config.image_size, config.attention
        self.noise_shape = (config.z_dim,)
        self.start_from_text = config.start_from_text
        widths = [config.gf * width for width in (config.widths_g[0], *config.widths_g)]
        pairs, n = [*pairwise(widths)], config.global_blocks
        seen = config.z_dim + (text.sentence if config.start_from_text else 0)
        g, s = 2 * config.z_dim, 2 * config.z_dim + text.words
        self.sentence = nn.Linear(text.sentence, config.z_dim)
        self.start = nn.Linear(seen, widths[0] * START**2)
        self.blocks = nn.ModuleList(
            UpBlock(*pair, partial(ConditionalNorm, g)) for pair in pairs[:n]
        )
        self.query = nn.Conv2d(widths[n], text.words, 1)
        self.local_blocks = nn.ModuleList(
            UpBlock(*pair, partial(LocalNorm, s)) for pair in pairs[n:]
        )
        self.norm, self.to_rgb = LocalNorm(s, widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.apply(initialised)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        g = torch.cat([self.sentence(text.sentence), noise], 1)
        first = torch.cat([noise, text.sentence], 1) if self.start_from_text else noise
        x = self.start(first).view(len(noise), -1, START, START)
        for block in self.blocks:
            x = block(x, g)
        context = self.attended(x, text)
        s = torch.cat([context, g[..., None, None].expand(-1, -1, *x.shape[-2:])], 1)
        for block in self.local_blocks:
            x = block(x, s)
        return torch.tanh(self.to_rgb(self.norm(x, s).relu()))

    def attended(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Compute what each place attends to: an average of words of unit length.

        Args:
            x: Features, float (B, C, h, w).
            text: Text features of the batch.

        Returns:
            Contexts, float (B, Dw, h, w).
        """
        query, w = unit(self.query(x), 1).flatten(2).transpose(1, 2), unit(text.words)
        # Not PyTorch's attention: torch.compile cannot lower it for captions of many lengths.
        logits = self.sharpness * query @ w.transpose(1, 2)
        logits = logits.masked_fill(~text.mask[:, None], torch.finfo(logits.dtype).min)
        context = logits.softmax(-1) @ w
        return context.transpose(1, 2).reshape(len(x), -1, *x.shape[-2:])


SpectralConv = partial(SpectralConv2d, rule=XMCGAN)
SpectralDense = partial(SpectralLinear, rule=XMCGAN)


class FirstBlock(nn.Module):
    """The discriminator's first block, which halves the size of an image.

    The shortcut is pooled before its 1x1 convolution: the same numbers at a quarter of the cost.

    Args:
        c_out: Channels of the output.
    """

    def __init__(self, c_out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SpectralConv(3, c_out, 3, padding=1), _conv3x3(c_out, c_out)
        self.shortcut = SpectralConv(3, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Images, float (B, 3, H, H).

        Returns:
            Features, float (B, c_out, H/2, H/2).
        """
        h = self.conv2(self.conv1(x).relu())
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2))
        return F.avg_pool2d(h, 2) + shortcut


class DownBlock(nn.Module):
    """A block of the discriminator.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        halves: Whether the block halves the size, by an average. The shortcut then is pooled before
            its 1x1 convolution.
    """

    def __init__(self, c_in: int, c_out: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1, self.conv2 = _conv3x3(c_in, c_out), _conv3x3(c_out, c_out)
        projects = halves or c_in != c_out
        self.shortcut: nn.Module = SpectralConv(c_in, c_out, 1) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c_in, h, h).

        Returns:
            Features, float (B, c_out, h/2, h/2), or of the same size.
        """
        h = self.conv2(self.conv1(x.relu()).relu())
        if self.halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        smaller: Tensor = h + self.shortcut(x)
        return smaller


def _conv3x3(c_in: int, c_out: int) -> SpectralConv2d:
    return SpectralConv2d(c_in, c_out, 3, padding=1, rule=XMCGAN)


@dataclass(frozen=True)
class Judged:
    """What the discriminator returns for N images.

    Args:
        realism: Part of the score that does not depend on the sentence, float (N,).
        features: Features f of the images, float (N, C).
        sentence: V e, the map of each of B sentences, float (B, C).
        regions: Vectors of the regions, float (N, R, Dw). None if there is no loss of words.
    """

    realism: Tensor
    features: Tensor
    sentence: Tensor
    regions: Tensor | None

    def __getitem__(self, rows: slice) -> Judged:
        """Take what belongs to some of the images, with all sentences."""
        regions = None if self.regions is None else self.regions[rows]
        return Judged(self.realism[rows], self.features[rows], self.sentence, regions)

    def scores(self, sentence: Tensor | None = None) -> Tensor:
        """Score images with sentences.

        Args:
            sentence: Maps V e of N sentences, float (N, C). None: those of the images' own, B = N.

        Returns:
            Scores, float (N,). High scores mean "real, and matching the sentence".
        """
        e = self.sentence if sentence is None else sentence
        return self.realism + (self.features * e).sum(1)


class Discriminator(nn.Module):
    """D, a projection discriminator with spectral norm: the score is linear(f) + <f, V e>.

    Args:
        config: The model's settings. Without `word_contrast` there are no region vectors.
        text: Widths of the text features.
    """

    def __init__(self, config: XMCGANConfig, text: TextShape) -> None:
        super().__init__()
        widths = [config.df * width for width in (1, *config.widths_d)]
        last = len(config.widths_d) - 1
        self.first = FirstBlock(widths[0])
        self.blocks = nn.ModuleList(
            DownBlock(widths[i], widths[i + 1], halves=i < last) for i in range(last + 1)
        )
        sides = [config.image_size >> min(i + 2, last + 1) for i in range(last + 1)]
        self.seen = max(i for i, side in enumerate(sides) if side == config.regions)
        self.realism = SpectralDense(widths[-1], 1)
        self.sentence = SpectralDense(text.sentence, widths[-1])
        self.regions = (
            SpectralConv(widths[self.seen + 1], text.words, 1) if config.word_contrast else None
        )
        self.apply(initialised)

    def forward(self, images: Tensor, sentence: Tensor) -> Judged:
        """Compute what scores and losses need of images and sentences.

        Args:
            images: Images in [-1, 1], float (N, 3, H, H). The network takes them in [0, 1], as the
                authors' does.
            sentence: Sentence vectors, float (B, D).

        Returns:
            The features and the parts of the scores.
        """
        f, regions = self.features(images)
        return Judged(self.realism(f).flatten(), f, self.sentence(sentence), regions)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], float (N, 3, H, H).

        Returns:
            Features f (N, C), and vectors of regions (N, R, Dw) or None.
        """
        x, regions = self.first((images + 1) / 2), None
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.seen and self.regions is not None:
                regions = self.regions(x).flatten(2).transpose(1, 2)
        return x.relu().sum((2, 3)), regions

    def matching(self, features: tuple[Tensor, Tensor | None], sentence: Tensor) -> Tensor:
        """Score features with sentences.

        Args:
            features: What `features` returned for N images.
            sentence: Sentence vectors, float (N, D).

        Returns:
            Scores, float (N,).
        """
        f, _ = features
        scores: Tensor = self.realism(f).flatten() + (f * self.sentence(sentence)).sum(1)
        return scores


def initialised(module: nn.Module) -> None:
    """Initialise one module as the authors do: Glorot's normal distribution, biases of 0.

    Args:
        module: The module. Its children are left as they are.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(config: XMCGANConfig, text: TextShape, assets: Path | None) -> XMCGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return XMCGANGenerator(config, text)
