"""Networks of AttnGAN: the attentional generative network and the discriminators.

Source: Xu et al. 2018, figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.conditioning.augmentation import ConditioningAugmentation
from t2i.plugins.common.text.image_encoder import image_encoder, load_image_encoder
from t2i.plugins.models.attngan.config import START, AttnGANConfig


class GeneratorOutput(NamedTuple):
    """What the generator network returns.

    Attributes:
        images: Images of each scale, float (B, 3, S, S) in [-1, 1], the smallest first.
        sentence: Sentence vectors as the generator used them, float (B, D). The discriminators take
            the same.
        mean: Mean of the condition c^, float (B, c_dim).
        logvar: Log variance of the condition c^, float (B, c_dim).
    """

    images: list[Tensor]
    sentence: Tensor
    mean: Tensor
    logvar: Tensor


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


def up(c_in: int, c_out: int) -> nn.Sequential:
    """Build an upsampling block: nearest upsampling to twice the size, then a gated convolution.

    The 3x3 convolution has twice `c_out` channels. Half of them gate the other half.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.

    Returns:
        The block.
    """
    return nn.Sequential(UpConv3x3(c_in, 2 * c_out), nn.BatchNorm2d(2 * c_out), nn.GLU(1))


class FirstStage(nn.Module):
    """F_0, the first stage: a linear map to 4x4, then upsampling blocks that halve the channels.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: AttnGANConfig) -> None:
        super().__init__()
        n = doublings(config.sizes[0])
        channels = [config.gf << i for i in reversed(range(n + 1))]
        values = 2 * channels[0] * START**2
        self.linear = nn.Linear(config.c_dim + config.z_dim, values, bias=False)
        self.norm = nn.BatchNorm1d(values)
        self.ups = nn.Sequential(*(up(channels[i], channels[i + 1]) for i in range(n)))

    def forward(self, c: Tensor, z: Tensor) -> Tensor:
        """Compute the first hidden map.

        Args:
            c: Conditions c^, float (B, c_dim).
            z: Noise, float (B, z_dim).

        Returns:
            h_0, float (B, gf, S_0, S_0), where S_0 is the side of the smallest images.
        """
        h = F.glu(self.norm(self.linear(torch.cat([c, z], dim=1))), dim=1)
        h_0: Tensor = self.ups(h.view(len(h), -1, START, START))
        return h_0


class Attention(nn.Module):
    """F_attn: for each position of the image, an average of the words, weighted by attention.

    Words are projected to the image's channels. Their weights are the softmax over words of
    <h, word>. Source: Xu et al. 2018, equation 2.

    Args:
        channels: Channels C of the image features.
        words: Width Dw of a word vector.
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.project = nn.Linear(words, channels, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Compute the word context of each position.

        Args:
            h: Image features, float (B, C, S, S).
            words: Word vectors, float (B, L, Dw).
            mask: Whether a word may be attended to, bool (B, L). The others get no weight.

        Returns:
            Word contexts, float (B, C, S, S).
        """
        e = self.project(words)
        places = h.flatten(2).transpose(1, 2)
        context = F.scaled_dot_product_attention(places, e, e, attn_mask=mask[:, None], scale=1.0)
        return context.transpose(1, 2).reshape(h.shape)


class ResidualBlock(nn.Module):
    """x + conv(gated conv(x)), with batch norms.

    Args:
        channels: Channels of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv3x3(channels, 2 * channels), nn.BatchNorm2d(2 * channels), nn.GLU(1),
            conv3x3(channels, channels), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, channels, S, S).

        Returns:
            Features of the same shape.
        """
        residual: Tensor = self.block(x)
        return x + residual


class NextStage(nn.Module):
    """F_i, a later stage: attention to words, residual blocks, upsampling to twice the size.

    Args:
        config: The model's settings.
        words: Width of a word vector.
    """

    def __init__(self, config: AttnGANConfig, words: int) -> None:
        super().__init__()
        self.attention = Attention(config.gf, words)
        self.residual = nn.Sequential(
            *(ResidualBlock(2 * config.gf) for _ in range(config.residual_blocks))
        )
        self.up = up(2 * config.gf, config.gf)

    def forward(self, h: Tensor, text: TextFeatures) -> Tensor:
        """Compute the next hidden map.

        Args:
            h: h_{i-1}, float (B, gf, S, S).
            text: Text features of the batch. Words and mask are used.

        Returns:
            h_i, float (B, gf, 2S, 2S).
        """
        context = self.attention(h, text.words, text.mask)
        h_next: Tensor = self.up(self.residual(torch.cat([h, context], dim=1)))
        return h_next


class Network(nn.Module):
    """The generator's network, which returns the images of all scales.

    h_0 = F_0(z, F_ca(e)), h_i = F_i(h_{i-1}, F_attn(w, h_{i-1})), x^_i = G_i(h_i).
    Source: Xu et al. 2018, equation 1.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

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
        """Generate images of all scales.

        Args:
            noise: [z; eps], float (B, z_dim + c_dim). eps is the conditioning augmentation's noise.
            text: Text features of the batch.

        Returns:
            The images, with what the losses need of the condition.
        """
        sentence = self.standard(text.sentence)
        c, mean, logvar = self.augment(sentence, noise[:, self.z_dim :])
        h = [self.first(c, noise[:, : self.z_dim])]
        for stage in self.next:
            h.append(stage(h[-1], text))
        images = [torch.tanh(rgb(h_i)) for rgb, h_i in zip(self.to_rgb, h, strict=True)]
        return GeneratorOutput(images, sentence, mean, logvar)


class AttnGANGenerator(OneShotGenerator):
    """The generator: it returns the network's largest image.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: AttnGANConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim + config.c_dim,)
        self.network = Network(config, text)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        drawn: GeneratorOutput = self.network(noise, text)
        return drawn.images[-1]


class Head(nn.Module):
    """An output of D_i, with or without sentences.

    Args:
        channels: Channels C of the features.
        sentence: Width D of a sentence vector. 0: the output takes no sentences.
    """

    def __init__(self, channels: int, sentence: int = 0) -> None:
        super().__init__()
        self.joint = down(channels + sentence, channels, stride=1) if sentence else None
        self.score = nn.Conv2d(channels, 1, START)

    def forward(self, features: Tensor, sentence: Tensor | None = None) -> Tensor:
        """Score images.

        Args:
            features: Features of the images, float (B, C, 4, 4).
            sentence: Sentence vectors, float (B, D). None where the output takes none.

        Returns:
            Logits, float (B,).
        """
        if self.joint is not None and sentence is not None:
            e = sentence[..., None, None].expand(-1, -1, START, START)
            features = self.joint(torch.cat([features, e], dim=1))
        logits: Tensor = self.score(features).flatten()
        return logits


def down(c_in: int, c_out: int, stride: int = 2, norm: bool = True) -> nn.Sequential:
    """Build a convolution with batch norm and leaky ReLU.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        stride: 2: a 4x4 convolution to half the size. 1: a 3x3 convolution that keeps the size.
        norm: Whether there is a batch norm.

    Returns:
        The layers.
    """
    conv = nn.Conv2d(c_in, c_out, 2 + stride, stride, 1, bias=False)
    return nn.Sequential(conv, *([nn.BatchNorm2d(c_out)] if norm else []), nn.LeakyReLU(0.2))


class Discriminator(nn.Module):
    """D_i, the discriminator of one scale, with two outputs that take its features.

    `unconditional` scores whether an image is real, `conditional` whether it is real and matches a
    sentence. The smallest images are halved down to 4x4 while the channels double from df on.
    Larger ones are halved more often, to more channels, which 3x3 convolutions then halve to the
    same C.

    Args:
        config: The model's settings.
        scale: Index i of the scale. 0: the smallest images.
        sentence: Width of a sentence vector.
    """

    def __init__(self, config: AttnGANConfig, scale: int, sentence: int) -> None:
        super().__init__()
        halvings = doublings(config.sizes[scale])
        widths = [3 * config.pack, *(config.df << i for i in range(halvings))]
        layers = [down(widths[i], widths[i + 1], norm=i > 0) for i in range(halvings)]
        layers += [down(widths[-1] >> i, widths[-1] >> (i + 1), stride=1) for i in range(scale)]
        self.layers = nn.Sequential(*layers)
        self.unconditional = Head(widths[-1] >> scale)
        self.conditional = Head(widths[-1] >> scale, config.pack * sentence)
        self.apply(orthogonal)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            images: Images in [-1, 1], float (B, 3, S_i, S_i).

        Returns:
            Features, float (B, C, 4, 4), with the same C at every scale.
        """
        features: Tensor = self.layers(images)
        return features


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


def build(config: AttnGANConfig, text: TextShape, assets: Path | None) -> AttnGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return AttnGANGenerator(config, text)


def helpers(config: AttnGANConfig, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]:
    """Build DAMSM's image encoder, which stage `damsm` trains and stage `gan` needs.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        fresh: Whether to load the files of weights that the settings name.

    Returns:
        The network under the name "image_encoder". Empty if `image_encoder.kind` is "none".
    """
    encoder = image_encoder(config.image_encoder, config.image_size, text)
    if encoder is None:
        return {}
    if fresh:
        load_image_encoder(encoder, config.image_encoder)
    return {"image_encoder": encoder}
