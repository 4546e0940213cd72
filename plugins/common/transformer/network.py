"""A text-conditional diffusion transformer.

Text enters in three ways: words in every block, the sentence with the timestep embedding, and, if
the settings ask for it, both as a spatial map that joins the input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MappedText, conditioned
from t2i.plugins.common.transformer.attention import CrossAttention
from t2i.plugins.common.transformer.blocks import Block, Modulation, blocks_of, modulated
from t2i.plugins.common.transformer.config import TransformerConfig

SENTENCE = "sentence embedding"  # name of the projected sentence in the text's extras
SINUSOIDS = 256  # channels of the sinusoids of a timestep, as in DiT and Stable Diffusion 3


class TextTransformer(Recomputing, MappedText):
    """A transformer, called like a `TextUNet`: `transformer(x_t, t, text)`.

    The text is one that `condition` was called on. The times t are those that the network's
    sinusoids expect (`Schedule.embedded`).

    Source: Peebles & Xie 2023; Esser et al. 2024.

    Args:
        config: Settings of the network.
        channels: Channels of input and output.
        size: Height and width of the input in training.
        text: Widths of the text encoder's words and sentences.

    Attributes:
        positions: Sinusoids of the places of the grid of training, (places, width).
    """

    positions: Tensor

    def __init__(
        self, config: TransformerConfig, channels: int, size: int, text: TextShape
    ) -> None:
        width, inputs = config.width, channels * config.patch**2
        super().__init__(config, inputs, size // config.patch, text)
        self.patch, self.grid, self.width = config.patch, size // config.patch, width
        self.embed = nn.Linear(inputs + config.text_map, width)
        self.time = _two_layers(SINUSOIDS, width)
        self.sentence = _two_layers(text.sentence, width)
        self.words = nn.Linear(text.words, width)
        self.blocks = blocks_of(config)
        self.modulation = Modulation(width, 2)
        self.out = nn.Linear(width, inputs)
        self.register_buffer("positions", self._positions(self.grid, self.grid), persistent=False)
        self._initialise()

    @property
    def step(self) -> int:
        """Height and width of the input may be any multiples of it: the side of a patch."""
        return self.patch

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute everything that depends on the text alone: its map, and its projected sentence.

        Args:
            text: Features of B captions.

        Returns:
            The text, with both among its extras.
        """
        extras = {**text.extras, SENTENCE: self.sentence(text.sentence)}
        return self.mapped(replace(text, extras=extras))

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's prediction.

        Args:
            x_t: Noisy images or latents, float (B, C, h, w).
            t: Times (B,), as `Schedule.embedded` returns them.
            text: Conditioned captions.

        Returns:
            The prediction, float (B, C, h, w).
        """
        x = self.stem(F.pixel_unshuffle(x_t, self.patch), text)
        height, width = x.shape[2:]
        x = self.embed(rearrange(x, "b c h w -> b (h w) c")) + self._at(height, width)
        waves = get_timestep_embedding(t, SINUSOIDS, flip_sin_to_cos=True, downscale_freq_shift=0)
        c = self.time(waves.to(x.dtype)) + conditioned(text, SENTENCE)
        words = self.words(text.words)
        for block in self.blocks:
            assert isinstance(block, Block)
            x, words = self.through(block, x, words, c, text.mask)
        x = self.out(modulated(x, *self.modulation(c)))
        output: Tensor = rearrange(
            x, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=self.patch, q=self.patch
        )
        return output

    def _at(self, height: int, width: int) -> Tensor:
        """Return the positions of a grid (height width, D)."""
        if height == width == self.grid:
            return self.positions
        return self._positions(height, width).to(self.positions)

    def _positions(self, height: int, width: int) -> Tensor:
        """Compute sinusoids of a grid's places, (height width, D).

        The grid is stretched over that of training, as a text map is: the middle of an image stays
        the middle.
        """
        places: Tensor = get_2d_sincos_pos_embed(
            self.width, (height, width), base_size=self.grid, output_type="pt"
        )
        return places.to(torch.get_default_dtype())

    def _initialise(self) -> None:
        """Set the first weights, as DiT does. With them the network returns 0."""
        zeros = {m.linear for m in self.modules() if isinstance(m, Modulation)} | {self.out}
        zeros |= {m.out for m in self.modules() if isinstance(m, CrossAttention)}
        for layer in [self.embed, *self.blocks.modules()]:
            if isinstance(layer, nn.Linear) and layer not in zeros:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in [*self.time, *self.sentence]:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for layer in zeros:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...


def _two_layers(inputs: int, width: int) -> nn.Sequential:
    """Make the perceptron that embeds a timestep or a sentence."""
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))
