"""Text-conditional U-Nets, diffusers', with three ways in for the text: words by cross-attention, the sentence with the
time embedding, sentence and words as a spatial map."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import Attention, UNetConfig
from t2i.plugins.common.diffusion.text_map import MappedText, conditioned
from t2i.plugins.common.weights.diffusers_folders import described_network

SENTENCE = "sentence embedding"  # its name among the extras of the text that it is of


class TextUNet(MappedText):
    """What both kinds share: `unet(x_t (B, C, h, w), t (B,), text) -> (B, C, h, w)`, for a text that `condition` was
    called on, and times as the network's sinusoids want them (`Schedule.embedded`). The classes below take `given`,
    diffusers' network, where it is there already."""

    def condition(self, text: TextFeatures) -> TextFeatures:
        """The text with all that depends on it alone: its map, its sentence as the time embedding takes it."""
        embedding = self.embedded(text.sentence)
        extras = text.extras if embedding is None else {**text.extras, SENTENCE: embedding}
        return self.mapped(replace(text, extras=extras))

    @abstractmethod
    def embedded(self, sentence: Tensor) -> Tensor | None:
        """What is added to the time embedding (B, width), for sentences (B, D); None if nothing is."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """The network's output (B, C, h, w)."""

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...


class Prepared(nn.Module):
    """A linear map that was applied before the network is called (`of`): in its place, called by the network, it hands
    on what it is given. Weights have the linear layer's names."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def of(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x


def _settings(config: UNetConfig, channels: int, size: int) -> dict[str, Any]:
    """What diffusers' two classes call by the same names."""
    kinds = {"none": "", "self": "Attn", "cross": "CrossAttn"}
    return {
        "sample_size": size,
        "in_channels": channels + config.text_map,
        "out_channels": channels,
        "down_block_types": tuple(f"{kinds[a]}DownBlock2D" for a in config.attention),
        "up_block_types": tuple(f"{kinds[a]}UpBlock2D" for a in reversed(config.attention)),
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "dropout": config.dropout,
        "norm_num_groups": config.groups,
        "resnet_time_scale_shift": "scale_shift" if config.sentence else "default",
    }


class WordUNet(TextUNet):
    """UNet2DConditionModel, which attends to words."""

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        size: int,
        text: TextShape,
        given: UNet2DConditionModel | None = None,
    ) -> None:
        super().__init__(config, channels, size, text)
        self.sentence, self.context = config.sentence, config.context
        self.unet: Any = given or UNet2DConditionModel(
            **_settings(config, channels, size),
            cross_attention_dim=text.words if config.context == "words" else text.sentence,
            attention_head_dim=_head_numbers(config),
            class_embed_type="simple_projection" if config.sentence else None,
            projection_class_embeddings_input_dim=text.sentence if config.sentence else None,
        )
        self._prepare(self.unet)

    def _prepare(self, unet: Any) -> None:
        """Takes the sentence's projection out of the network's every call."""
        if self.sentence:
            unet.class_embedding = Prepared(unet.class_embedding)

    def embedded(self, sentence: Tensor) -> Tensor | None:
        return self.unet.class_embedding.of(sentence) if self.sentence else None

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        words = self.context == "words"
        output: Tensor = self.unet(
            self.stem(x_t, text),
            t,
            encoder_hidden_states=text.words if words else text.sentence[:, None],
            encoder_attention_mask=text.mask if words else None,
            class_labels=conditioned(text, SENTENCE) if self.sentence else None,
            return_dict=False,
        )[0]
        return output


def _head_numbers(config: UNetConfig) -> tuple[int, ...]:
    """diffusers' `attention_head_dim`, a level each. It means the number of heads in blocks that attend to words, and
    the width of one in those that attend to themselves only; the last level's is that of the middle block too."""

    def number(attention: Attention, channels: int) -> int:
        return config.head_width or channels if attention == "self" else config.heads_of(channels)

    return tuple(number(*level) for level in zip(config.attention, config.channels, strict=True))


class PlainUNet(TextUNet):
    """UNet2DModel as the DDPM paper's code has it (and diffusers' folders of it), called in the same way."""

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        size: int,
        text: TextShape,
        given: UNet2DModel | None = None,
    ) -> None:
        super().__init__(config, channels, size, text)
        self.sentence = (
            nn.Linear(text.sentence, 4 * config.channels[0]) if config.sentence else None
        )
        self.unet: Any = given or UNet2DModel(
            **_settings(config, channels, size),
            attention_head_dim=config.head_width,
            add_attention=config.middle == "self",
            class_embed_type="identity" if config.sentence else None,
            flip_sin_to_cos=False,
            freq_shift=1,
            downsample_padding=0,
            norm_eps=1e-6,
        )

    def embedded(self, sentence: Tensor) -> Tensor | None:
        return None if self.sentence is None else self.sentence(sentence)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.unet(
            self.stem(x_t, text),
            t,
            class_labels=None if self.sentence is None else conditioned(text, SENTENCE),
            return_dict=False,
        )[0]
        return output


def conditional_unet(
    config: UNetConfig,
    channels: int,
    size: int,
    text: TextShape,
    assets: Path | None = None,
    unet: Any = None,
) -> WordUNet | PlainUNet:
    """For inputs (B, channels, size, size). unet: diffusers' network, where it is there already; one that comes with
    its weights is otherwise loaded by its name, or made as `assets`, a saved model's, describe it.

    Raises UserError if such a network does not fit channels and text.
    """
    network, kind = (UNet2DConditionModel, WordUNet) if config.words else (UNet2DModel, PlainUNet)
    unet = unet or described_network(network, config.weights, "unet", assets)
    if unet is not None:
        _check_fit(unet, config, channels, text)
    made: WordUNet | PlainUNet = kind(config, channels, size, text, unet)
    return made


def _check_fit(unet: Any, config: UNetConfig, channels: int, text: TextShape) -> None:
    given = (unet.config.in_channels, unet.config.out_channels)
    if given != (channels, channels):
        raise UserError(
            f"unet.weights = {config.weights}: it turns {given[0]} channels into {given[1]}, not {channels}"
        )
    width = text.words if config.context == "words" else text.sentence
    if config.words and unet.config.cross_attention_dim != width:
        raise UserError(
            f"unet.weights = {config.weights}: it attends to vectors of {unet.config.cross_attention_dim}, the text "
            f"encoder gives {width}: name the one that it was trained with (encoder.weights)"
        )
