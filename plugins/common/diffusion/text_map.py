"""A spatial map of the text, which joins a network's input: sentence and words, each place's own view of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import UNetConfig

MAP = "text map"  # its name among the extras of the text that it is of
MAP_SIZE = (
    8  # height and width of the sentence's spatial map, before it is enlarged to the input's size
)


class MappedText(nn.Module):
    """What a network with a text map extends: the map's parts, and what is computed of them.

    The map is made once a request (`mapped`), and then joins the input of every step (`stem`).
    """

    def __init__(self, config: UNetConfig, channels: int, size: int, text: TextShape) -> None:
        super().__init__()
        there = config.text_map > 0
        self.map = SentenceMap(text.sentence, config.text_map, size) if there else None
        self.outline_weight = config.outline if there else 0.0
        self.to_outline = nn.Conv2d(config.text_map, channels, 1) if self.outline_weight else None
        hops = config.map_hops if there else 0
        self.word_map = (
            WordMap(text.words, config.text_map, size, config.map_heads, hops) if hops else None
        )

    def mapped(self, text: TextFeatures) -> TextFeatures:
        """The text with its map (B, text_map, h, w) among its extras, if there is one."""
        if self.map is None:
            return text
        grid = self.map(text.sentence)
        grid = grid if self.word_map is None else grid + self.word_map(text)
        return replace(text, extras={**text.extras, MAP: grid})

    def stem(self, x_t: Tensor, text: TextFeatures) -> Tensor:
        """x_t (B, C, h, w) with the map of a mapped text behind it, if there is one."""
        return x_t if self.map is None else torch.cat([x_t, conditioned(text, MAP)], 1)

    def outline(self, text: TextFeatures) -> Tensor:
        """x_0 (B, C, h, w) as the map of a mapped text alone predicts it, without any x_t."""
        assert self.to_outline is not None
        outline: Tensor = self.to_outline(conditioned(text, MAP))
        return outline


def conditioned(text: TextFeatures, name: str) -> Tensor:
    """What `Generator.condition` computed of a text, by its name. Raises ValueError where it was not called."""
    if name not in text.extras:
        raise ValueError(f"text without its {name}: call the generator's `condition` on it first")
    return text.extras[name]


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
    """words (B, L, D) -> (B, C, h, w): each place of a coarse grid attends to the words with a query of its own, `hops`
    times over, each time with what it has gathered. The mean of a caption's words says that there are something red,
    something blue, a circle and a square; a place on the left finds the words that say "left", then their
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
    """Queries (B, Q, D) attend to the words, then pass a two-layer perceptron (`think`, as trained weights name it): a
    transformer's cross-attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.kv, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, queries: Tensor, text: TextFeatures) -> Tensor:
        q = rearrange(self.q(self.norm(queries)), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(text.words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=text.mask[:, None, None])
        queries = queries + self.out(rearrange(gathered, "b h n d -> b n (h d)"))
        refined: Tensor = queries + self.think(queries)
        return refined


def _enlarged(grid: Tensor, size: int) -> Tensor:
    return grid if grid.shape[-1] == size else F.interpolate(grid, size=size, mode="bilinear")
