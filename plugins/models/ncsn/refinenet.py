"""The networks of NCSN and NCSNv2: RefineNets with dilated convolutions.

Modules have the names of the authors' code (ermongroup/ncsn and ermongroup/ncsnv2), so that their
weights load as they are. What is ours is how text enters, in modules named `text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MappedText
from t2i.plugins.models.ncsn.config import RefineNetConfig
from t2i.plugins.models.ncsn.layers import (
    Condition,
    InstanceNormPlus,
    Norms,
    NormShape,
    ResidualBlock,
    dilated,
    text_term,
)


class ResidualUnits(nn.ModuleDict):
    """Residual convolution units (RCU): each twice normalisation, ELU and convolution.

    Args:
        channels: Channels of input and output.
        units: Number of units.
        norms: Makes the normalisations.
    """

    def __init__(self, channels: int, units: int, norms: Norms) -> None:
        super().__init__()
        self.units = units
        for i in range(units):
            for j in range(2):
                self[f"{i + 1}_{j + 1}_norm"] = norms.of(channels)
                self[f"{i + 1}_{j + 1}_conv"] = dilated(channels, channels, bias=False)

    def forward(self, x: Tensor, given: Condition) -> Tensor:
        """Compute the units, one after the other.

        Args:
            x: Features, float (B, C, h, w).
            given: Noise levels and sentences.

        Returns:
            Features of the same shape.
        """
        for i in range(self.units):
            h = x
            for j in range(2):
                h = F.elu(self[f"{i + 1}_{j + 1}_norm"](h, given))
                h = self[f"{i + 1}_{j + 1}_conv"](h)
            x = x + h
        return x


class Fusion(nn.Module):
    """Multi-resolution fusion: the inputs, convolved and enlarged to one size, are added.

    Args:
        c_in: Channels of each input.
        c_out: Channels of the output.
        norms: Makes the normalisations.
    """

    def __init__(self, c_in: Sequence[int], c_out: int, norms: Norms) -> None:
        super().__init__()
        self.convs = nn.ModuleList(dilated(channels, c_out) for channels in c_in)
        self.norms = nn.ModuleList(norms.of(channels) for channels in c_in)

    def forward(self, inputs: Sequence[Tensor], given: Condition) -> Tensor:
        """Add the inputs at the size of the first.

        Args:
            inputs: Features, float (B, C, h, w) each.
            given: Noise levels and sentences.

        Returns:
            Their fusion.
        """
        size = inputs[0].shape[2:]
        parts: list[Tensor] = []
        for x, conv, norm in zip(inputs, self.convs, self.norms, strict=True):
            h = conv(norm(x, given))
            if h.shape[2:] != size:
                h = F.interpolate(h, size=size, mode="bilinear", align_corners=True)
            parts.append(h)
        return sum(parts[1:], parts[0])


class ChainedPooling(nn.Module):
    """Chained residual pooling: twice normalisation, 5x5 pooling and convolution, each added.

    Pooling takes the mean in NCSN and the maximum in NCSNv2.

    Args:
        channels: Channels of input and output.
        norms: Makes the normalisations.
    """

    def __init__(self, channels: int, norms: Norms) -> None:
        super().__init__()
        self.convs = nn.ModuleList(dilated(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norms.of(channels) for _ in range(2))
        self.pool = (nn.MaxPool2d if norms.shape is None else nn.AvgPool2d)(5, 1, 2)

    def forward(self, x: Tensor, given: Condition) -> Tensor:
        """Compute the chain.

        Args:
            x: Features, float (B, C, h, w).
            given: Noise levels and sentences.

        Returns:
            Features of the same shape.
        """
        x = path = F.elu(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            path = conv(self.pool(norm(path, given)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """A block of RefineNet: units on each input, fusion, chained pooling, units on the output.

    Without normalisations, a sentence adds a linear function of itself to the channels before the
    pooling.

    Args:
        c_in: Channels of each input, of the finer one first.
        c_out: Channels of the output.
        norms: Makes the normalisations.
        sentence: Width of a sentence vector. 0: no text.
        units: Number of residual units on the output.
    """

    def __init__(
        self, c_in: Sequence[int], c_out: int, norms: Norms, sentence: int, units: int
    ) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualUnits(channels, 2, norms) for channels in c_in)
        self.msf = Fusion(c_in, c_out, norms) if len(c_in) > 1 else None
        self.text = text_term(sentence, c_out) if norms.shape is None else None
        self.crp = ChainedPooling(c_out, norms)
        self.output_convs = ResidualUnits(c_out, units, norms)

    def forward(self, inputs: Sequence[Tensor], given: Condition) -> Tensor:
        """Refine.

        Args:
            inputs: Features, float (B, C, h, w) each, the finer one first.
            given: Noise levels and sentences.

        Returns:
            Features of the first input's size.
        """
        adapted = [units(x, given) for units, x in zip(self.adapt_convs, inputs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, given)
        if self.text is not None:
            h = h + self.text(given.sentence)[..., None, None]
        refined: Tensor = self.output_convs(self.crp(h, given), given)
        return refined


class StageOf(NamedTuple):
    """One stage of residual blocks.

    Attributes:
        name: What follows "res" in the stage's name.
        width: Channels of its output, as a multiple of `ngf`.
        dilation: Dilation of its convolutions. 1: the stage halves the size, except the first one.
    """

    name: str
    width: int
    dilation: int = 1


STAGES = {
    "plain": (StageOf("1", 1), StageOf("2", 2), StageOf("3", 2, 2), StageOf("4", 2, 4)),
    "deeper": (
        StageOf("1", 1), StageOf("2", 2), StageOf("3", 2), StageOf("4", 4, 2), StageOf("5", 4, 4)
    ),
    "deepest": (
        StageOf("1", 1), StageOf("2", 2), StageOf("3", 2), StageOf("31", 2), StageOf("4", 4, 2),
        StageOf("5", 4, 4),
    ),
}  # fmt: skip
"""Stages of the networks: for 32 and 64 px, 96 and 128 px, and 256 px."""

REFINES = {
    "plain": ("1", "2", "3", "4"),
    "deeper": ("1", "2", "3", "4", "5"),
    "deepest": ("1", "2", "31", "3", "4", "5"),
}
"""What follows "refine" in the names of the refine blocks, from the coarsest stage to the finest.
"""


class RefineNet(MappedText):
    """A RefineNet from images to images of the same shape.

    Source: Song & Ermon 2019, appendix A; Song & Ermon 2020, appendix B.

    Args:
        config: Settings of the network.
        channels: Channels of input and output.
        size: Height and width of the input.
        levels: Number of noise levels L.
        text: Widths of the text encoder's features.
    """

    def __init__(
        self, config: RefineNetConfig, channels: int, size: int, levels: int, text: TextShape
    ) -> None:
        super().__init__(config, channels, size, text)
        ngf, stages = config.ngf, STAGES[config.depth]
        sentence = text.sentence if config.sentence else 0
        shape = NormShape(levels if config.per_level else None, sentence)
        norms = Norms(shape if config.per_level else None)
        self.levels, self.reads_sentence = shape.levels, config.sentence
        self.stage_names = [f"res{stage.name}" for stage in stages]
        self.refine_names = [f"refine{name}" for name in REFINES[config.depth]]
        self.begin_conv = dilated(channels + config.text_map, ngf)
        self.normalizer = InstanceNormPlus(ngf, shape)
        self.end_conv = dilated(ngf, channels)
        width = ngf
        for i, (name, stage) in enumerate(zip(self.stage_names, stages, strict=True)):
            after = stage.width * ngf
            first = ResidualBlock(width, after, shape, i > 0, stage.dilation)
            second = ResidualBlock(after, after, shape, False, stage.dilation)
            self.add_module(name, nn.ModuleList([first, second]))
            width = after
        for i, name in enumerate(self.refine_names):
            finer = stages[max(len(stages) - 2 - i, 0)].width * ngf
            block = RefineBlock(
                [width] * min(i + 1, 2),
                finer,
                norms,
                sentence,
                units=3 if i + 1 == len(stages) else 1,
            )
            self.add_module(name, block)
            width = finer

    def forward(self, x: Tensor, level: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's output.

        Args:
            x: Noisy images in [-1, 1] and beyond, float (B, C, h, w).
            level: Number of the noise level of each, (B,), from 0 (the largest) to L - 1. Between
                two levels the rows of both are mixed.
            text: Captions that `mapped` was called on.

        Returns:
            The output, float (B, C, h, w).
        """
        given = Condition(self._weights(level, x), text.sentence if self.reads_sentence else None)
        h = self.begin_conv(self.stem(x, text))
        kept = []
        for name in self.stage_names:
            for block in getattr(self, name):
                h = block(h, given)
            kept.append(h)
        inputs = [kept.pop()]
        for name in self.refine_names:
            h = getattr(self, name)(inputs, given)
            inputs = [kept.pop(), h] if kept else []
        output: Tensor = self.end_conv(F.elu(self.normalizer(h, given)))
        return output

    def _weights(self, level: Tensor, x: Tensor) -> Tensor | None:
        """Compute the weights of the levels, (B, L), in the type of x."""
        if self.levels is None:
            return None
        numbers = torch.arange(self.levels, device=level.device)
        return (1 - (level[:, None] - numbers).abs()).clamp_min(0).to(x.dtype)
