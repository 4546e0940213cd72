"""Text-conditional U-Nets of diffusers.

Text enters in three ways: words by cross-attention, the sentence with the timestep embedding, and
both as a spatial map.
"""

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

SENTENCE = "sentence embedding"  # name of the projected sentence in the text's extras


class TextUNet(MappedText):
    """Base of both kinds of U-Net: `unet(x_t, t, text)` for a text that `condition` was called on.

    The times t are those that the network's sinusoids expect (`Schedule.embedded`). The subclasses'
    parameter `given` is a network of diffusers to use instead of a new one.

    Attributes:
        unet: The network of diffusers.
    """

    unet: Any

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute everything that depends on the text alone: its map, and its projected sentence.

        Args:
            text: Features of B captions.

        Returns:
            The text, with both among its extras.
        """
        embedding = self.embedded(text.sentence)
        extras = text.extras if embedding is None else {**text.extras, SENTENCE: embedding}
        return self.mapped(replace(text, extras=extras))

    @property
    def step(self) -> int:
        """Height and width of the input may be any multiples of it: what all levels halve."""
        return int(2 ** (len(self.unet.config.block_out_channels) - 1))

    @abstractmethod
    def embedded(self, sentence: Tensor) -> Tensor | None:
        """Project sentences to the width of the timestep embedding.

        Args:
            sentence: Sentence vectors, float (B, D).

        Returns:
            What is added to the timestep embedding, float (B, width). None if nothing is added.
        """

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's prediction.

        Args:
            x_t: Noisy images or latents, float (B, C, h, w).
            t: Times (B,), as `Schedule.embedded` returns them.
            text: Conditioned captions.

        Returns:
            The prediction, float (B, C, h, w).
        """

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...


class Prepared(nn.Module):
    """A linear layer that was applied before the network is called.

    `of` applies it. `forward`, which diffusers' network calls in its place, returns its input. The
    weights keep the linear layer's names.

    Args:
        linear: The layer to replace.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def of(self, x: Tensor) -> Tensor:
        """Apply the linear layer.

        Args:
            x: Vectors, float (B, D).

        Returns:
            The projected vectors, float (B, width).
        """
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input, which has been projected already.

        Args:
            x: Projected vectors, float (B, width).

        Returns:
            The same vectors.
        """
        return x


def _settings(config: UNetConfig, channels: int, size: int, more: int) -> dict[str, Any]:
    """Return the settings that diffusers' two classes call by the same names."""
    kinds = {"none": "", "self": "Attn", "cross": "CrossAttn"}
    return {
        "sample_size": size,
        "in_channels": channels + more + config.text_map,
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
    """A UNet2DConditionModel, which attends to words.

    Args:
        config: Settings of the network.
        channels: Channels of input and output, without the text map.
        size: Height and width of the input.
        text: Widths of the text encoder's words and sentences.
        given: A network of diffusers to use. None: a new one is built from the settings.
        more: Further channels of the input, after the others.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        size: int,
        text: TextShape,
        given: UNet2DConditionModel | None = None,
        more: int = 0,
    ) -> None:
        super().__init__(config, channels, size, text)
        self.sentence, self.context = config.sentence, config.context
        self.unet = given or UNet2DConditionModel(
            **_settings(config, channels, size, more),
            cross_attention_dim=text.words if config.context == "words" else text.sentence,
            attention_head_dim=_head_numbers(config),
            class_embed_type="simple_projection" if config.sentence else None,
            projection_class_embeddings_input_dim=text.sentence if config.sentence else None,
        )
        self._prepare(self.unet)

    @property
    def step(self) -> int:
        """1: this network of diffusers brings odd sizes back when it enlarges."""
        return 1

    def _prepare(self, unet: Any) -> None:
        """Make the network not project the sentence at every call."""
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
    """Return diffusers' `attention_head_dim` for each level.

    It means the number of heads in blocks that attend to words, and the width of one head in blocks
    with self-attention only. The last level's value is used for the middle block too.
    """

    def number(attention: Attention, channels: int) -> int:
        return config.head_width or channels if attention == "self" else config.heads_of(channels)

    return tuple(number(*level) for level in zip(config.attention, config.channels, strict=True))


class PlainUNet(TextUNet):
    """A UNet2DModel with the settings of the DDPM paper's code, called like a `WordUNet`.

    Args:
        config: Settings of the network.
        channels: Channels of input and output, without the text map.
        size: Height and width of the input.
        text: Widths of the text encoder's words and sentences.
        given: A network of diffusers to use. None: a new one is built from the settings.
        more: Further channels of the input, after the others.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        size: int,
        text: TextShape,
        given: UNet2DModel | None = None,
        more: int = 0,
    ) -> None:
        super().__init__(config, channels, size, text)
        self.sentence = (
            nn.Linear(text.sentence, 4 * config.channels[0]) if config.sentence else None
        )
        self.unet = given or UNet2DModel(
            **_settings(config, channels, size, more),
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
    more: int = 0,
) -> WordUNet | PlainUNet:
    """Build a text-conditional U-Net.

    If the settings name a pretrained network, it is loaded by that name, or, for a saved model,
    built as its folder describes it.

    Args:
        config: Settings of the network.
        channels: Channels of input and output.
        size: Height and width of the input.
        text: Widths of the text encoder's words and sentences.
        assets: Folder of a saved model, whose weights are loaded later. None: a new model.
        unet: A network of diffusers to use. None: load or build one.
        more: Further channels of the input of a new network, such as those of a smaller image.

    Returns:
        A `WordUNet` if any part attends to words, else a `PlainUNet`.

    Raises:
        UserError: A pretrained network cannot be loaded, or does not fit the channels or the text.
    """
    network, kind = (UNet2DConditionModel, WordUNet) if config.words else (UNet2DModel, PlainUNet)
    unet = unet or described_network(network, config.weights, "unet", assets)
    if unet is not None:
        _check_fit(unet, config, channels, text, more)
    made: WordUNet | PlainUNet = kind(config, channels, size, text, unet, more)
    return made


def _check_fit(unet: Any, config: UNetConfig, channels: int, text: TextShape, more: int) -> None:
    given = (unet.config.in_channels, unet.config.out_channels)
    if given != (channels + more, channels):
        raise UserError(
            f"unet.weights = {config.weights}: it turns {given[0]} channels into {given[1]}, not "
            f"{channels}"
        )
    width = text.words if config.context == "words" else text.sentence
    if config.words and unet.config.cross_attention_dim != width:
        raise UserError(
            f"unet.weights = {config.weights}: it attends to vectors of "
            f"{unet.config.cross_attention_dim}, the text encoder gives {width}: name the one that "
            "it was trained with (encoder.weights)"
        )
