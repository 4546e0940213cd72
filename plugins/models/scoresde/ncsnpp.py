"""NCSN++ and DDPM++, the networks of Song et al. 2021, with additional terms for text.

The layers are in one list, in the order of the authors' code. So their weights have the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common import fir
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.scoresde.blocks import (
    SMALL,
    Fourier,
    Joined,
    Positional,
    Residual,
    SelfAttention,
    Shrunk,
    WordAttention,
    conv,
    linear,
    norm,
    started,
    summed,
)
from t2i.plugins.models.scoresde.config import NCSNppConfig

COLOURS = 3
SENTENCE = "sentence embedding"  # name of the projected sentence in the text's extras


class NCSNpp(nn.Module):
    """The network: eps = -sigma times the score of noisy images.

    Args:
        config: Settings of the network.
        size: Height and width of the images that the attention's sizes are for.
        text: Widths of the text features.
    """

    def __init__(self, config: NCSNppConfig, size: int, text: TextShape) -> None:
        super().__init__()
        self.config = config
        self.levels = len(config.multipliers)
        self.attends = tuple(size // 2**i in config.attention for i in range(self.levels))
        self.positional = Positional(config.width) if config.embedding == "positional" else None
        self.embedding = 4 * config.width
        self.all_modules = nn.ModuleList(self._layers())
        self.sentence: nn.Linear | None = None
        if config.sentence:
            self.sentence = nn.Linear(text.sentence, self.embedding, bias=False)
            started(self.sentence, SMALL)
        self.words: nn.ModuleList | None = None
        if config.words:
            wide = [m.NIN_0.b.numel() for m in self.all_modules if isinstance(m, SelfAttention)]
            self.words = nn.ModuleList(WordAttention(channels, text.words) for channels in wide)

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project the sentence.

        Args:
            text: Features of B captions.

        Returns:
            The text, with the projected sentence among its extras.
        """
        if self.sentence is None:
            return text
        return replace(text, extras={**text.extras, SENTENCE: self.sentence(text.sentence)})

    def forward(self, x: Tensor, numbers: Tensor, text: TextFeatures) -> Tensor:
        """Compute the prediction.

        Args:
            x: Noisy images for data in [-1, 1], (B, 3, H, W).
            numbers: What the network embeds of the noise level of each image, (B,): sigma for
                images in [0, 1] (VE), or 999 times the paper's time (VP and sub-VP).
            text: Conditioned captions.

        Returns:
            The score times sigma, (B, 3, H, W). VP models of the paper return its negative.
        """
        layers: Iterator[Any] = iter(self.all_modules)
        embedding = self._embedded(layers, numbers.to(x.dtype), text)
        attend = _Attending(self.words, text)
        features = self._down(layers, x, embedding, attend)
        h = next(layers)(features[-1], embedding)
        h = attend(next(layers), h)
        h = next(layers)(h, embedding)
        return self._up(layers, h, features, embedding, attend)

    def _embedded(self, layers: Iterator[Any], numbers: Tensor, text: TextFeatures) -> Tensor:
        """Embed the noise level and the sentence."""
        if self.positional is not None:
            waves = self.positional(numbers)
        else:
            waves = next(layers)(numbers.log())
        hidden = next(layers)(waves)
        embedding: Tensor = next(layers)(F.silu(hidden))
        return embedding if self.sentence is None else embedding + conditioned(text, SENTENCE)

    def _down(
        self, layers: Iterator[Any], x: Tensor, embedding: Tensor, attend: _Attending
    ) -> list[Tensor]:
        """Run the levels downwards, and return the features that the upward levels join."""
        config, images = self.config, x
        features = [next(layers)(x)]
        for level in range(self.levels):
            for _ in range(config.layers):
                h = next(layers)(features[-1], embedding)
                features.append(attend(next(layers), h) if self.attends[level] else h)
            if level == self.levels - 1:
                break
            h = next(layers)(features[-1], embedding)
            if config.progressive_input == "input_skip":
                images = fir.downsample(images)
                h = next(layers)(images, h)
            elif config.progressive_input == "residual":
                h = images = summed(next(layers)(images), h)
            features.append(h)
        return features

    def _up(
        self,
        layers: Iterator[Any],
        h: Tensor,
        features: list[Tensor],
        embedding: Tensor,
        attend: _Attending,
    ) -> Tensor:
        """Run the levels upwards, and return the output."""
        skips, output = self.config.progressive == "output_skip", None
        for level in reversed(range(self.levels)):
            for _ in range(self.config.layers + 1):
                h = next(layers)(torch.cat([h, features.pop()], 1), embedding)
            if self.attends[level]:
                h = attend(next(layers), h)
            if skips:
                part = _coloured(layers, h)
                output = part if output is None else fir.upsample(output) + part
            if level:
                h = next(layers)(h, embedding)
        return _coloured(layers, h) if output is None else output

    def _layers(self) -> Iterator[nn.Module]:
        """Yield all layers in order."""
        c, wide = self.config, self.embedding
        if c.embedding == "fourier":
            yield Fourier(c.width, c.fourier_scale)
        yield linear(2 * c.width if c.embedding == "fourier" else c.width, wide)
        yield linear(wide, wide)
        yield conv(COLOURS, c.width)
        inner, joins = c.width, [c.width]
        pyramid = COLOURS
        for level, attends in enumerate(self.attends):
            outer = c.width * c.multipliers[level]
            for _ in range(c.layers):
                yield Residual(inner, outer, wide, c.dropout)
                inner = outer
                if attends:
                    yield SelfAttention(inner)
                joins.append(inner)
            if level == self.levels - 1:
                break
            yield Residual(inner, inner, wide, c.dropout, "down", c.fir)
            if c.progressive_input == "input_skip":
                yield Joined(COLOURS, inner)
            elif c.progressive_input == "residual":
                yield Shrunk(pyramid, inner)
                pyramid = inner
            joins.append(inner)
        yield Residual(inner, inner, wide, c.dropout)
        yield SelfAttention(inner)
        yield Residual(inner, inner, wide, c.dropout)
        yield from self._upward_layers(inner, joins)

    def _upward_layers(self, inner: int, joins: list[int]) -> Iterator[nn.Module]:
        """Yield the layers of the upward levels, whose first input has `inner` channels."""
        c, wide, skips = self.config, self.embedding, self.config.progressive == "output_skip"
        for level in reversed(range(self.levels)):
            outer = c.width * c.multipliers[level]
            for _ in range(c.layers + 1):
                yield Residual(inner + joins.pop(), outer, wide, c.dropout)
                inner = outer
            if self.attends[level]:
                yield SelfAttention(inner)
            if skips or not level:
                yield norm(inner)
                yield conv(inner, COLOURS, scale=SMALL)
            if level:
                yield Residual(inner, inner, wide, c.dropout, "up", c.fir)


def _coloured(layers: Iterator[Any], h: Tensor) -> Tensor:
    """Normalise features, and turn them into colours."""
    normal = next(layers)(h)
    colours: Tensor = next(layers)(F.silu(normal))
    return colours


class _Attending:
    """Calls each self-attention, and after it the attention to words, if there is one.

    Args:
        words: Attention to words after each self-attention. None: there is none.
        text: Conditioned captions.
    """

    def __init__(self, words: nn.ModuleList | None, text: TextFeatures) -> None:
        self.words, self.text, self.done = words, text, 0

    def __call__(self, attention: SelfAttention, h: Tensor) -> Tensor:
        h = attention(h)
        if self.words is not None:
            h = self.words[self.done](h, self.text.words, self.text.mask)
            self.done += 1
        return h
