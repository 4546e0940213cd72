"""The generators of StyleGAN2 and StyleGAN-T: a mapping from noise and text to w, and a synthesis.

Source: Karras et al. 2020 (StyleGAN2), 2020 (ADA: its conditional form); Sauer et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.layers import EqualLinear, unit_moment
from t2i.plugins.models.stylegan.synthesis import stylegan2, stylegan_t


def sentences(config: StyleGANConfig, text: TextFeatures) -> Tensor:
    """Return the sentence vectors as every part of the model uses them.

    Args:
        config: The model's settings. `text_norm` says how they are scaled.
        text: Text features of the batch.

    Returns:
        The sentence vectors c, float (B, D).
    """
    c = text.sentence
    if config.text_norm == "length":
        return F.normalize(c, dim=1)
    return unit_moment(c) if config.text_norm == "moment" else c


class Mapping(nn.Module):
    """StyleGAN2's mapping: w = MLP([n(z); n(linear c)]), where n scales to a mean square of 1.

    Args:
        z: Width of z. 0: the mapping of the discriminator, of the text alone.
        sentence: Width of a sentence vector.
        w: Width of w.
        layers: Number of layers.
        rate: Factor of the layers' learning rate.
        embedded: Width of the embedded sentence. None: that of w.
    """

    def __init__(
        self, z: int, sentence: int, w: int, layers: int, rate: float, embedded: int | None = None
    ) -> None:
        super().__init__()
        embedded = embedded or w
        self.embed = EqualLinear(sentence, embedded)
        widths = [z + embedded] + [w] * layers
        self.layers = nn.Sequential(
            *(EqualLinear(c_in, c_out, rate, active=True) for c_in, c_out in pairwise(widths))
        )

    def forward(self, z: Tensor | None, c: Tensor) -> Tensor:
        """Map noise and text.

        Args:
            z: Noise, float (B, z). None where z is 0.
            c: Sentence vectors, float (B, D).

        Returns:
            w, float (B, w).
        """
        e = unit_moment(self.embed(c))
        w: Tensor = self.layers(e if z is None else torch.cat([unit_moment(z), e], dim=1))
        return w


class MappingT(nn.Module):
    """StyleGAN-T's mapping of the noise alone: a small MLP with a linear last layer.

    Args:
        z: Width of z, and of every layer.
        layers: Number of layers.
        rate: Factor of the layers' learning rate.
    """

    def __init__(self, z: int, layers: int, rate: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(EqualLinear(z, z, rate, active=i < layers - 1) for i in range(layers))
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map noise.

        Args:
            z: Noise, float (B, z).

        Returns:
            x, float (B, z).
        """
        x: Tensor = self.layers(unit_moment(z))
        return x


class StyleGANGenerator(OneShotGenerator):
    """G, the generator of StyleGAN2 or StyleGAN-T, as `config.generator` says.

    The noise of an image is z. The noise of layers is fixed in evaluation mode, as in the authors'
    code (`noise_mode="const"`); a trainer passes it to `synthesise`.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.

    Attributes:
        average: Running mean of what the mapping returns, towards which `truncated` interpolates,
            float (width of w) for StyleGAN2, float (z_dim) for StyleGAN-T.
    """

    average: Tensor

    def __init__(self, config: StyleGANConfig, text: TextShape) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim,)
        rate = config.mapping_rate
        self.mapping: Mapping | MappingT
        if config.generator == "stylegan2":
            self.mapping = Mapping(
                config.z_dim, text.sentence, config.w_dim, config.mapping_layers, rate
            )
            self.synthesis = stylegan2(config, config.w_dim)
            width = config.w_dim
        else:
            self.mapping = MappingT(config.z_dim, config.mapping_layers, rate)
            self.synthesis = stylegan_t(config, config.z_dim + text.sentence)
            width = config.z_dim
        self.register_buffer("average", torch.zeros(width))

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        return self.synthesise(self.styles(noise, text))

    def truncated(self, noise: Tensor, text: TextFeatures, psi: float) -> Tensor:
        """Generate images from styles that are drawn towards their mean (the truncation trick).

        StyleGAN-T's text is not truncated, only what comes from the noise.

        Args:
            noise: Noise, float (B, z_dim).
            text: Text features of the captions.
            psi: Share of a style's distance from the mean that is kept. 1: no truncation.

        Returns:
            Images, float (B, 3, H, H) in [-1, 1].
        """
        return self.synthesise(self.styles(noise, text, psi))

    def mapped(self, noise: Tensor, text: TextFeatures) -> Tensor:
        """Compute what the mapping returns, whose running mean is `average`.

        Args:
            noise: Noise, float (B, z_dim).
            text: Text features of the captions.

        Returns:
            w, float (B, w_dim), or StyleGAN-T's part of it that comes from the noise, (B, z_dim).
        """
        if isinstance(self.mapping, Mapping):
            w: Tensor = self.mapping(noise, sentences(self.config, text))
            return w
        x: Tensor = self.mapping(noise)
        return x

    def latents(self, mapped: Tensor, text: TextFeatures) -> Tensor:
        """Complete what the mapping returned to the latent vectors of all layers.

        Args:
            mapped: What `mapped` returned.
            text: Text features of the captions. StyleGAN-T's w is [x; c].

        Returns:
            Latent vectors, float (B, layers, width of w).
        """
        if self.config.generator == "stylegan-t":
            mapped = torch.cat([mapped, sentences(self.config, text)], dim=1)
        return mapped.unsqueeze(1).expand(-1, self.synthesis.layers, -1)

    def styles(self, noise: Tensor, text: TextFeatures, psi: float = 1.0) -> Tensor:
        """Compute the latent vectors of all layers.

        Args:
            noise: Noise, float (B, z_dim).
            text: Text features of the captions.
            psi: As for `truncated`.

        Returns:
            Latent vectors, float (B, layers, width of w).
        """
        mapped = self.mapped(noise, text)
        if psi != 1:
            mapped = torch.lerp(self.average.to(mapped), mapped, psi)
        return self.latents(mapped, text)

    def synthesise(self, ws: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """Generate images from latent vectors.

        Args:
            ws: Latent vectors, float (B, layers, width of w).
            noises: Noise of each convolution. None: the fixed noise.

        Returns:
            Images, float (B, 3, H, H). Without `bounded` they are clamped to [-1, 1] in evaluation
            mode, and not bounded in training mode.
        """
        images: Tensor = self.synthesis(ws, noises)
        if self.config.bounded:
            return images.tanh()
        return images if self.training else images.clamp(-1, 1)

    @torch.no_grad()
    def follow(self, mapped: Tensor) -> None:
        """Move the running mean towards the mean of a batch.

        Args:
            mapped: What `mapped` returned for the whole global batch.
        """
        mean = mapped.detach().mean(0).to(self.average)
        self.average.lerp_(mean, 1 - self.config.average_decay)


def build(config: StyleGANConfig, text: TextShape, assets: Path | None) -> StyleGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return StyleGANGenerator(config, text)
