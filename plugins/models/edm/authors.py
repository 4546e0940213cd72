"""The U-Nets of EDM's code: DDPM++ and NCSN++ ("SongUNet"), and ADM ("DhariwalUNet").

Modules have the names of the paper's code, so that its weights fit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.group_norm import group_norm
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.edm.blocks import (
    BlockSettings,
    Conv2d,
    FourierEmbedding,
    Linear,
    PositionalEmbedding,
    Resampled,
    Start,
    UNetBlock,
)
from t2i.plugins.models.edm.config import AuthorsConfig, EDMConfig

LABEL = "class embedding"  # name of the projected sentence or class in the text's extras


class AuthorsUNet(nn.Module):
    """Base of both networks: `unet(x, c_noise, text)` for a text that `condition` was called on.

    The sentence takes the place of the class vector of the paper's code.

    Args:
        config: Settings of the network.
        size: Height and width of the images, for the names of the blocks and for attention.
        out: Output channels.
        labels: Width of the sentence, or number of classes. 0: neither is read.
        classes: Names of the classes. (): the sentence is read.

    Attributes:
        map_noise: Embeds c_noise.
        map_label: Projects sentences or classes. None: neither is read.
        map_layer0: First layer of the embedding's perceptron.
        map_layer1: Its second layer.
    """

    map_noise: nn.Module
    map_label: nn.Module | None
    map_layer0: nn.Module
    map_layer1: nn.Module

    def __init__(
        self, config: AuthorsConfig, size: int, out: int, labels: int, classes: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.config, self.size, self.out = config, size, out
        self.labels, self.classes = labels, classes
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()

    @property
    def step(self) -> int:
        """Height and width of the input may be any multiples of it."""
        return int(2 ** (len(self.config.multipliers) - 1))

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project the sentences, or the classes that the captions name.

        Args:
            text: Features of B captions.

        Returns:
            The text, with the projection among its extras.

        Raises:
            UserError: The network reads classes, and a caption is no name of one.
        """
        if self.map_label is None:
            return text
        labels = self._one_hot(text) if self.classes else text.sentence
        return replace(text, extras={**text.extras, LABEL: self.map_label(labels)})

    def _one_hot(self, text: TextFeatures) -> Tensor:
        """Return the class of each caption, (B, K), of the paper's scale; no caption is zeros."""
        hot = torch.zeros(len(text), self.labels).to(text.sentence)
        for row, caption in enumerate(text.captions):
            if caption and caption not in self.classes:
                raise UserError(
                    f"caption '{caption[:80]}': these weights know classes only, by name: "
                    f"{', '.join(self.classes[:10])}{' ..' if len(self.classes) > 10 else ''}"
                )
            if caption:
                hot[row, self.classes.index(caption)] = self.class_scale
        return hot

    @property
    @abstractmethod
    def class_scale(self) -> float:
        """The number that stands for a class in its vector."""

    @abstractmethod
    def embedding(self, numbers: Tensor, label: Tensor | None) -> Tensor:
        """Embed noise level and text.

        Args:
            numbers: c_noise, (B,).
            label: The projected sentence or class, float (B, width). None: there is none.

        Returns:
            The embedding, float (B, width).
        """

    def forward(self, x: Tensor, numbers: Tensor, text: TextFeatures) -> Tensor:
        """Compute F.

        Args:
            x: Scaled noisy images, float (B, 3, H, W).
            numbers: c_noise, (B,).
            text: Conditioned captions.

        Returns:
            The output, float (B, out, H, W).
        """
        label = None if self.map_label is None else conditioned(text, LABEL)
        emb = self.embedding(numbers.to(x.dtype), label)
        return self.decoded(*self.encoded(x, emb), emb)

    def encoded(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the encoder.

        Args:
            x: Its input, float (B, 3, H, W).
            emb: The embedding.

        Returns:
            Its output, and the outputs of all its blocks.
        """
        skips: list[Tensor] = []
        pyramid = x
        for block in self.enc.values():
            if isinstance(block, Resampled):  # the residual input pyramid of NCSN++
                x = skips[-1] = pyramid = (x + block(pyramid)) / math.sqrt(2)
                continue
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        return x, skips

    def decoded(self, x: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Run the decoder, and the last layers.

        Args:
            x: Output of the encoder.
            skips: Outputs of all the encoder's blocks. The list is emptied.
            emb: The embedding.

        Returns:
            The output, float (B, out, H, W).
        """
        for block in self.dec.values():
            if not isinstance(block, UNetBlock):
                continue
            if x.shape[1] != block.in_channels:
                x = torch.cat([x, skips.pop()], 1)
            x = block(x, emb)
        return self.last(x)

    @abstractmethod
    def last(self, x: Tensor) -> Tensor:
        """Run the last layers.

        Args:
            x: Output of the last block.

        Returns:
            The output of the network.
        """

    def build(self, shared: BlockSettings, first: int, attends: Callable[[int, int], bool],
              pyramid: tuple[int, ...] = ()) -> int:  # fmt: skip
        """Build encoder and decoder.

        Args:
            shared: What all blocks share.
            first: Channels of the first convolution.
            attends: Whether block number i of the decoder, at a resolution, attends.
            pyramid: Filter of the input pyramid. (): there is none.

        Returns:
            Channels of the last block.
        """
        c, resolutions = self.config, [self.size >> i for i in range(len(self.config.multipliers))]
        width, before = first, 3
        kept = [first]
        self.enc[f"{self.size}x{self.size}_conv"] = Conv2d(3, first, 3, shared.start)
        for level, (res, factor) in enumerate(zip(resolutions, c.multipliers, strict=True)):
            name = f"{res}x{res}"
            if level:
                self.enc[f"{name}_down"] = UNetBlock(width, width, shared, "down")
                kept.append(width)
                if pyramid:
                    self.enc[f"{name}_aux_residual"] = Resampled(
                        before, width, 3, False, pyramid, shared.start, fused=True
                    )
                    before = width
            for i in range(c.blocks):
                inward, width = width, c.channels * factor
                here = res in c.attention
                self.enc[f"{name}_block{i}"] = UNetBlock(inward, width, shared, attends=here)
                kept.append(width)
        for level, (res, factor) in reversed(
            list(enumerate(zip(resolutions, c.multipliers, strict=True)))
        ):
            name = f"{res}x{res}"
            if level == len(resolutions) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(width, width, shared, attends=True)
                self.dec[f"{name}_in1"] = UNetBlock(width, width, shared)
            else:
                self.dec[f"{name}_up"] = UNetBlock(width, width, shared, "up")
            for i in range(c.blocks + 1):
                inward, width = width + kept.pop(), c.channels * factor
                self.dec[f"{name}_block{i}"] = UNetBlock(
                    inward, width, shared, attends=attends(i, res)
                )
        return width


class SongUNet(AuthorsUNet):
    """DDPM++ or NCSN++ of Song et al. 2021, as EDM trains them.

    The parameters are those of `AuthorsUNet`.
    """

    def __init__(
        self, config: AuthorsConfig, size: int, out: int, labels: int, classes: tuple[str, ...]
    ) -> None:
        super().__init__(config, size, out, labels, classes)
        fourier = config.kind == "ncsnpp"
        start, last = Start("xavier"), Start("xavier", 1e-5)
        width, emb = config.channels * (2 if fourier else 1), 4 * config.channels
        filter = (1, 3, 3, 1) if fourier else (1, 1)
        shared = BlockSettings(
            embedding=emb, dropout=config.dropout, heads=1, scale=math.sqrt(0.5), eps=1e-6,
            filter=filter, projects=True, scales=False, start=start, last=last,
            attention=Start("xavier", math.sqrt(0.2)),
        )  # fmt: skip
        self.map_noise = FourierEmbedding(width) if fourier else PositionalEmbedding(width, True)
        self.map_label = Linear(labels, width, start) if labels else None
        self.map_layer0 = Linear(width, emb, start)
        self.map_layer1 = Linear(emb, emb, start)
        ends = self.build(
            shared, config.channels, lambda i, res: i == config.blocks and res in config.attention,
            filter if fourier else (),
        )  # fmt: skip
        self.dec[f"{size}x{size}_aux_norm"] = group_norm(ends, 1e-6)
        self.dec[f"{size}x{size}_aux_conv"] = Conv2d(ends, out, 3, last)

    @property
    def class_scale(self) -> float:
        return math.sqrt(self.labels)

    def embedding(self, numbers: Tensor, label: Tensor | None) -> Tensor:
        emb = self.map_noise(numbers)
        # The paper's code has sines before cosines here, unlike in its embedding.
        emb = emb.unflatten(1, (2, -1)).flip(1).flatten(1)
        emb = emb if label is None else emb + label
        embedded: Tensor = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        return embedded

    def last(self, x: Tensor) -> Tensor:
        name = f"{self.size}x{self.size}_aux"
        output: Tensor = self.dec[f"{name}_conv"](F.silu(self.dec[f"{name}_norm"](x)))
        return output


class DhariwalUNet(AuthorsUNet):
    """ADM of Dhariwal & Nichol 2021, as EDM trains it.

    The parameters are those of `AuthorsUNet`.
    """

    def __init__(
        self, config: AuthorsConfig, size: int, out: int, labels: int, classes: tuple[str, ...]
    ) -> None:
        super().__init__(config, size, out, labels, classes)
        third = math.sqrt(1 / 3)
        start, last = Start("kaiming", third, third), Start("kaiming", 0.0)
        emb = 4 * config.channels
        shared = BlockSettings(
            embedding=emb, dropout=config.dropout, heads=None, scale=1.0, eps=1e-5, filter=(1, 1),
            projects=False, scales=True, start=start, last=last, attention=start,
        )  # fmt: skip
        self.map_noise = PositionalEmbedding(config.channels, False)
        self.map_layer0 = Linear(config.channels, emb, start)
        self.map_layer1 = Linear(emb, emb, start)
        self.map_label = Linear(labels, emb, start, bias=False) if labels else None
        first = config.channels * config.multipliers[0]
        ends = self.build(shared, first, lambda _, res: res in config.attention)
        self.out_norm = group_norm(ends, 1e-5)
        self.out_conv = Conv2d(ends, out, 3, last)

    @property
    def class_scale(self) -> float:
        return 1.0

    def embedding(self, numbers: Tensor, label: Tensor | None) -> Tensor:
        emb = self.map_layer1(F.silu(self.map_layer0(self.map_noise(numbers))))
        return F.silu(emb if label is None else emb + label)

    def last(self, x: Tensor) -> Tensor:
        output: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return output


def authors_network(config: EDMConfig, text: TextShape) -> AuthorsUNet | None:
    """Build the network of the paper's code that a model's settings name.

    Args:
        config: The model's settings.
        text: Widths of the text features. A sentence of width 1 (encoder `none`) is not read.

    Returns:
        The network. None: the settings name none.
    """
    if config.network is None:
        return None
    labels = len(config.classes) or (text.sentence if text.sentence > 1 else 0)
    kind = DhariwalUNet if config.network.kind == "adm" else SongUNet
    out = 6 if config.preconditioning == "iddpm" else 3
    return kind(config.network, config.image_size, out, labels, config.classes)
