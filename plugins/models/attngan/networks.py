"""Networks of AttnGAN (Xu et al. 2018), figure 2: the attentional generative network and the discriminators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning import ConditioningAugmentation
from t2i.plugins.common.gan.upsampling import UpConv3x3
from t2i.plugins.common.text.image_encoder import image_encoder, load_image_encoder
from t2i.plugins.models.attngan.config import START, AttnGANConfig


class GeneratorOutput(NamedTuple):
    """images: of each scale, (B, 3, S, S), the smallest first. mean, logvar: of the condition c^, (B, c). sentence:
    (B, D), as the generator took it, and as the discriminators are to."""

    images: list[Tensor]
    sentence: Tensor
    mean: Tensor
    logvar: Tensor


def doublings(size: int) -> int:
    """How often START doubles to `size`."""
    return (size // START).bit_length() - 1


def conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def up(c_in: int, c_out: int) -> nn.Sequential:
    """Nearest upsampling to twice the size, then a gated 3x3 convolution: half of its channels gate the others."""
    return nn.Sequential(UpConv3x3(c_in, 2 * c_out), nn.BatchNorm2d(2 * c_out), nn.GLU(1))


class FirstStage(nn.Module):
    """F_0: c^ (B, c) and z (B, z) -> h_0 (B, gf, S_0, S_0), a linear map to 4x4 and blocks that halve the channels."""

    def __init__(self, config: AttnGANConfig) -> None:
        super().__init__()
        n = doublings(config.sizes[0])
        channels = [config.gf << i for i in reversed(range(n + 1))]
        values = 2 * channels[0] * START**2
        self.linear = nn.Linear(config.c_dim + config.z_dim, values, bias=False)
        self.norm = nn.BatchNorm1d(values)
        self.ups = nn.Sequential(*(up(channels[i], channels[i + 1]) for i in range(n)))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        h = F.glu(self.norm(self.linear(torch.cat([c, z], dim=1))), dim=1)
        h_0: Tensor = self.ups(h.view(len(h), -1, START, START))
        return h_0


class Attention(nn.Module):
    """F_attn: for each place of h (B, C, S, S) the words (B, L, Dw), projected to C channels, averaged with the weights
    softmax over words of <h, word> (equation 2) -> (B, C, S, S). Words that `mask` leaves out have no weight."""

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.project = nn.Linear(words, channels, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        e = self.project(words)
        places = h.flatten(2).transpose(1, 2)
        context = F.scaled_dot_product_attention(places, e, e, attn_mask=mask[:, None], scale=1.0)
        return context.transpose(1, 2).reshape(h.shape)


class ResidualBlock(nn.Module):
    """x (B, C, S, S) -> the same shape: x + conv(gated conv(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv3x3(channels, 2 * channels), nn.BatchNorm2d(2 * channels), nn.GLU(1),
            conv3x3(channels, channels), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.block(x)
        return x + residual


class NextStage(nn.Module):
    """F_i: h_{i-1} (B, gf, S, S) and the words -> h_i (B, gf, 2S, 2S)."""

    def __init__(self, config: AttnGANConfig, words: int) -> None:
        super().__init__()
        self.attention = Attention(config.gf, words)
        self.residual = nn.Sequential(
            *(ResidualBlock(2 * config.gf) for _ in range(config.residual_blocks))
        )
        self.up = up(2 * config.gf, config.gf)

    def forward(self, h: Tensor, text: TextFeatures) -> Tensor:
        context = self.attention(h, text.words, text.mask)
        h_next: Tensor = self.up(self.residual(torch.cat([h, context], dim=1)))
        return h_next


class Network(nn.Module):
    """noise (B, z + c) = [z; eps] and text -> GeneratorOutput: h_0 = F_0(z, F_ca(e)), h_i = F_i(h_{i-1}, F_attn(w, h_{i-1})),
    x^_i = G_i(h_i) (equation 1)."""

    def __init__(self, config: AttnGANConfig, text: TextShape) -> None:
        super().__init__()
        self.z_dim = config.z_dim
        norm = nn.BatchNorm1d(text.sentence, affine=False) if config.standardise else nn.Identity()
        self.standard: nn.Module = norm
        self.augment = ConditioningAugmentation(text.sentence, config.c_dim, "glu")
        self.first = FirstStage(config)
        self.next = nn.ModuleList(NextStage(config, text.words) for _ in config.sizes[1:])
        self.to_rgb = nn.ModuleList(conv3x3(config.gf, 3) for _ in config.sizes)
        self.apply(orthogonal)

    def forward(self, noise: Tensor, text: TextFeatures) -> GeneratorOutput:
        sentence = self.standard(text.sentence)
        c, mean, logvar = self.augment(sentence, noise[:, self.z_dim :])
        h = [self.first(c, noise[:, : self.z_dim])]
        for stage in self.next:
            h.append(stage(h[-1], text))
        images = [torch.tanh(rgb(h_i)) for rgb, h_i in zip(self.to_rgb, h, strict=True)]
        return GeneratorOutput(images, sentence, mean, logvar)


class AttnGANGenerator(OneShotGenerator):
    """The network, of whose images the largest is drawn."""

    def __init__(self, config: AttnGANConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim + config.c_dim,)
        self.network = Network(config, text)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        drawn: GeneratorOutput = self.network(noise, text)
        return drawn.images[-1]


class Head(nn.Module):
    """D_i's output: features (B, C, 4, 4), with sentences (B, D) or without, -> logits (B,)."""

    def __init__(self, channels: int, sentence: int = 0) -> None:
        super().__init__()
        self.joint = down(channels + sentence, channels, stride=1) if sentence else None
        self.score = nn.Conv2d(channels, 1, START)

    def forward(self, features: Tensor, sentence: Tensor | None = None) -> Tensor:
        if self.joint is not None and sentence is not None:
            e = sentence[..., None, None].expand(-1, -1, START, START)
            features = self.joint(torch.cat([features, e], dim=1))
        logits: Tensor = self.score(features).flatten()
        return logits


def down(c_in: int, c_out: int, stride: int = 2, norm: bool = True) -> nn.Sequential:
    """A convolution, 4x4 to half the size or 3x3 that keeps it, batch norm, leaky ReLU."""
    conv = nn.Conv2d(c_in, c_out, 2 + stride, stride, 1, bias=False)
    return nn.Sequential(conv, *([nn.BatchNorm2d(c_out)] if norm else []), nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """D_i: images (B, 3, S_i, S_i) -> features (B, C, 4, 4), on which its two heads judge: `unconditional` whether the
    image is real, `conditional` whether it is real and matches.

    The smallest image is halved down to 4x4 while channels double, from df. A larger one is halved more often, to
    more channels, which 3x3 convolutions then halve to the same C.
    """

    def __init__(self, config: AttnGANConfig, scale: int, sentence: int) -> None:
        super().__init__()
        halvings = doublings(config.sizes[scale])
        widths = [3, *(config.df << i for i in range(halvings))]
        layers = [down(widths[i], widths[i + 1], norm=i > 0) for i in range(halvings)]
        layers += [down(widths[-1] >> i, widths[-1] >> (i + 1), stride=1) for i in range(scale)]
        self.layers = nn.Sequential(*layers)
        self.unconditional = Head(widths[-1] >> scale)
        self.conditional = Head(widths[-1] >> scale, sentence)
        self.apply(orthogonal)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def orthogonal(module: nn.Module) -> None:
    """The authors' initial weights, for one module: orthogonal maps, gains of batch norm about 1."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.orthogonal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)


def build(config: AttnGANConfig, text: TextShape, assets: Path | None) -> AttnGANGenerator:
    """The generator that the settings describe."""
    return AttnGANGenerator(config, text)


def helpers(config: AttnGANConfig, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]:
    """DAMSM's image encoder, unless the settings leave it out: stage `damsm` trains it, and stage `gan` needs it.

    fresh: whether the files of weights that the settings name are loaded.
    """
    encoder = image_encoder(config.image_encoder, config.image_size, text)
    if encoder is None:
        return {}
    if fresh:
        load_image_encoder(encoder, config.image_encoder)
    return {"image_encoder": encoder}
