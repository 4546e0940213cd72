"""Text-conditional U-Nets, diffusers', with three ways in for the text: words by cross-attention, the sentence with the
time embedding, sentence and words as a spatial map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import Attention, UNetConfig
from t2i.plugins.common.weights.diffusers_folders import described_network

MAP = "text map"  # its name among the extras of the text that it is of
MAP_SIZE = 8  # of the sentence's spatial map, before it is enlarged to the input's size
LEVELS = 1000  # what a continuous noise level is multiplied by, so that its embedding resolves it as it does indexes


def embedded(t: Tensor) -> Tensor:
    """Times as the networks' sinusoids want them."""
    return t * LEVELS if t.is_floating_point() else t


class SentenceMap(nn.Module):
    """sentence (B, D) -> (B, C, h, w): one linear map to a coarse grid, enlarged. Each place gets its own view of the
    sentence, so "in the top left corner" can mean a place from the first layer on."""

    def __init__(self, sentence: int, channels: int, size: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.coarse = min(MAP_SIZE, size)
        self.linear = nn.Linear(sentence, channels * self.coarse**2)

    def forward(self, sentence: Tensor) -> Tensor:
        grid = self.linear(sentence).view(-1, self.channels, self.coarse, self.coarse)
        return _enlarged(grid, self.size)


class WordMap(nn.Module):
    """words (B, L, D) -> (B, C, h, w): each place of a coarse grid asks the words with queries of its own, `hops` times
    over, what it has heard being part of the next question. The mean of a caption's words says that there are something
    red, something blue, a circle and a square; a place on the left finds the words that say "left", then their
    neighbours."""

    def __init__(self, words: int, channels: int, size: int, heads: int, hops: int) -> None:
        super().__init__()
        self.size, self.coarse = size, min(MAP_SIZE, size)
        self.queries = nn.Parameter(torch.randn(self.coarse**2, words) * 0.5)
        self.hops = nn.ModuleList(Hop(words, heads) for _ in range(hops))
        self.out = nn.Linear(words, channels)

    def forward(self, text: TextFeatures) -> Tensor:
        q = self.queries.expand(len(text.words), -1, -1)
        for hop in self.hops:
            q = hop(q, text)
        return _enlarged(rearrange(self.out(q), "b (y x) c -> b c y x", y=self.coarse), self.size)


class Hop(nn.Module):
    """Queries (B, Q, D) attend to the words, then each thinks by itself: a transformer's cross-attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.q, self.kv, self.out = (
            nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        )  # fmt: skip
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, queries: Tensor, text: TextFeatures) -> Tensor:
        q = rearrange(self.q(self.norm(queries)), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(text.words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=text.mask[:, None, None])
        queries = queries + self.out(rearrange(heard, "b h n d -> b n (h d)"))
        thought: Tensor = queries + self.think(queries)
        return thought


def _enlarged(grid: Tensor, size: int) -> Tensor:
    return grid if grid.shape[-1] == size else F.interpolate(grid, size=size, mode="bilinear")


class TextUNet(nn.Module):
    """What both kinds share: the call, `unet(x_t (B, C, h, w), t (B,), text) -> (B, C, h, w)`, and the text's map at
    the stem. The classes below take `given`, diffusers' network, where it is there already."""

    def __init__(self, config: UNetConfig, channels: int, size: int, text: TextShape) -> None:
        super().__init__()
        mapped = config.text_map > 0
        self.map = SentenceMap(text.sentence, config.text_map, size) if mapped else None
        self.outline_weight = config.outline if mapped else 0.0
        self.to_outline = nn.Conv2d(config.text_map, channels, 1) if self.outline_weight else None
        hops = config.map_hops if mapped else 0
        self.word_map = WordMap(text.words, config.text_map, size, config.map_heads, hops) if hops else None

    def mapped(self, text: TextFeatures) -> TextFeatures:
        """The text with its map (B, text_map, h, w) among its extras, if there is one: it need not be made again."""
        if self.map is None:
            return text
        grid = self.map(text.sentence)
        grid = grid if self.word_map is None else grid + self.word_map(text)
        return replace(text, extras={**text.extras, MAP: grid})

    def stem(self, x_t: Tensor, text: TextFeatures) -> Tensor:
        if self.map is None:
            return x_t
        if MAP not in text.extras:
            raise ValueError("text without its map: call the generator's `condition` on it first")
        return torch.cat([x_t, text.extras[MAP]], 1)

    def outline(self, text: TextFeatures) -> Tensor:
        """x_0 (B, C, h, w) as the map of a mapped text tells it, without having seen any x_t."""
        assert self.to_outline is not None
        outline: Tensor = self.to_outline(text.extras[MAP])
        return outline


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
        self, config: UNetConfig, channels: int, size: int, text: TextShape, given: UNet2DConditionModel | None = None
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

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        words = self.context == "words"
        output: Tensor = self.unet(
            self.stem(x_t, text),
            embedded(t),
            encoder_hidden_states=text.words if words else text.sentence[:, None],
            encoder_attention_mask=text.mask if words else None,
            class_labels=text.sentence if self.sentence else None,
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
        self, config: UNetConfig, channels: int, size: int, text: TextShape, given: UNet2DModel | None = None
    ) -> None:
        super().__init__(config, channels, size, text)
        self.sentence = nn.Linear(text.sentence, 4 * config.channels[0]) if config.sentence else None
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

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.unet(
            self.stem(x_t, text),
            embedded(t),
            class_labels=None if self.sentence is None else self.sentence(text.sentence),
            return_dict=False,
        )[0]
        return output


def conditional_unet(
    config: UNetConfig, channels: int, size: int, text: TextShape, assets: Path | None = None, unet: Any = None
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
