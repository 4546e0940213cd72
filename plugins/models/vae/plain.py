"""The network with one vector of latents, whose prior depends on the text.

Source: Kingma & Welling 2014; Sohn et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, MAP_SIZE, MappedText, conditioned, resized
from t2i.plugins.common.variational.bound import Latent
from t2i.plugins.common.variational.gaussian import split
from t2i.plugins.common.variational.prior import ConditionalPrior
from t2i.plugins.models.vae.config import VAEConfig
from t2i.plugins.models.vae.deep import Draw, conv

START = 4  # places: the side of the smallest map


class PlainNetwork(MappedText):
    """q(z | x, t), p(z | t), and a decoder of z and t.

    The encoder halves the image to 4x4 places; the sentence joins at its last layer. The decoder
    doubles 4x4 places, and the text map is added at 4x4 and 8x8.

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Attributes:
        width: Channels of the features that the decoder returns.
        shapes: Shape of the latents of an image, in a list of one.
    """

    def __init__(self, config: VAEConfig, text: TextShape) -> None:
        super().__init__(config.text, config.channels, min(MAP_SIZE, config.side), text)
        plain = config.plain
        sizes = (config.side // START).bit_length()
        widths = [plain.width * min(2**i, 8) for i in range(sizes)]
        self.width, self.shapes = widths[0], [(plain.z,)]
        self.entry = conv(config.channels, widths[0], 3)
        self.down = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1) for c_in, c_out in pairwise(widths)
        )
        flat = widths[-1] * START**2
        self.posterior = nn.Linear(flat + text.sentence, 2 * plain.z)
        self.prior = ConditionalPrior(text.sentence, plain.z, plain.prior)
        self.start = nn.Linear(plain.z + text.sentence, flat)
        self.up = nn.ModuleList(conv(c_in, c_out, 3) for c_in, c_out in pairwise(widths[::-1]))
        self.refine = nn.ModuleList(conv(c, c, 3) for c in widths[::-1])
        mapped = [START, 2 * START] if self.has_map else []
        self.grids = nn.ModuleDict(
            {str(n): conv(config.text.text_map, c)
             for n, c in zip(mapped, widths[::-1], strict=False)}
        )  # fmt: skip

    def encoded(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Compute the parameters of the posterior.

        Args:
            x: Normalised images or latents, float (B, C, H, H).
            text: Features of B captions.

        Returns:
            Means and log scales, float (B, 2 z).
        """
        h = self.entry(x)
        for layer in self.down:
            h = layer(F.gelu(h))
        parameters: Tensor = self.posterior(torch.cat([F.gelu(h).flatten(1), text.sentence], 1))
        return parameters

    def decoded(self, z: Tensor, text: TextFeatures) -> Tensor:
        """Decode latents.

        Args:
            z: Latents, float (B, z).
            text: Features of B captions, conditioned.

        Returns:
            Features, float (B, width, H, H).
        """
        h: Tensor = self.start(torch.cat([z, text.sentence], 1)).view(len(z), -1, START, START)
        for number, refine in enumerate(self.refine):
            if number:
                h = self.up[number - 1](F.interpolate(F.gelu(h), scale_factor=2))
            name = str(h.shape[-1])
            if name in self.grids:
                h = h + self.grids[name](resized(conditioned(text, MAP), h.shape[-1]))
            h = h + refine(F.gelu(h))
        return F.gelu(h)

    def infer(self, x: Tensor, text: TextFeatures, draw: Draw) -> tuple[Tensor, list[Latent]]:
        """Draw latents of images from the posterior, as `DeepNetwork.infer` does.

        Args:
            x: Normalised images or latents, float (B, C, H, H).
            text: Features of B captions, conditioned.
            draw: Source of the noise.

        Returns:
            The decoder's features, float (B, width, H, H), and the latents.
        """
        q, p = split(self.encoded(x, text)), self.prior(text.sentence)
        z = q.draw(draw(0, torch.Size(self.shapes[0])))
        return self.decoded(z.to(x.dtype), text), [Latent(q, p, z)]

    def imagine(
        self, eps: Sequence[Tensor], text: TextFeatures, temperature: float = 1.0
    ) -> Tensor:
        """Draw latents from the prior, as `DeepNetwork.imagine` does.

        Args:
            eps: Noise of the latents, one tensor (B, z).
            text: Features of B captions, conditioned.
            temperature: Factor of the prior's standard deviations.

        Returns:
            The decoder's features, float (B, width, H, H).
        """
        return self.decoded(self.prior(text.sentence).draw(eps[0], temperature), text)
