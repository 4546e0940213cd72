"""A spatial map of the text that joins a network's input.

It is made of the sentence and the words; each place gets its own view of them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import TextMapConfig

MAP = "text map"  # name of the map in the text's extras
MAP_SIZE = 8  # height and width of the map before it is enlarged to the input's size


class MappedText(nn.Module):
    """Base of networks with a text map.

    The map is computed once for each request (`mapped`), and then joins the input of every step
    (`stem`).

    Args:
        config: Says whether there is a map, and how it is built.
        channels: Channels C of x_t.
        size: Height and width of x_t.
        text: Widths of the text encoder's words and sentences.
    """

    def __init__(self, config: TextMapConfig, channels: int, size: int, text: TextShape) -> None:
        super().__init__()
        there = self.has_map = config.text_map > 0
        by_sentence = there and config.map_sentence
        self.map = SentenceMap(text.sentence, config.text_map, size) if by_sentence else None
        self.outline_weight = config.outline if there else 0.0
        self.to_outline = nn.Conv2d(config.text_map, channels, 1) if self.outline_weight else None
        self.word_map: WordMap | None = None
        if there and config.map_hops:
            self.word_map = WordMap(
                text.words, config.text_map, size, config.map_heads, config.map_hops,
                config.map_queries,
            )  # fmt: skip

    def mapped(self, text: TextFeatures) -> TextFeatures:
        """Add the map to the extras of a text, if there is one.

        Args:
            text: Features of B captions.

        Returns:
            The text; its extras hold the map, float (B, text_map, h, w).
        """
        if not self.has_map:
            return text
        grids: list[Tensor] = []
        if self.map is not None:
            grids.append(self.map(text.sentence))
        if self.word_map is not None:
            grids.append(self.word_map(text))
        grid = sum(grids[1:], grids[0])
        return replace(text, extras={**text.extras, MAP: grid})

    def stem(self, x_t: Tensor, text: TextFeatures) -> Tensor:
        """Concatenate x_t and the map of a text, if there is one.

        Args:
            x_t: The network's input, float (B, C, h, w).
            text: A text that `mapped` was called on.

        Returns:
            The input with the map as further channels, float (B, C + text_map, h, w).
        """
        if not self.has_map:
            return x_t
        grid = conditioned(text, MAP)
        if grid.shape[2:] != x_t.shape[2:]:  # images of another size: the map is stretched
            grid = F.interpolate(grid, size=x_t.shape[2:], mode="bilinear")
        return torch.cat([x_t, grid], 1)

    def outline(self, text: TextFeatures) -> Tensor:
        """Predict x_0 from the map alone, without any x_t.

        Args:
            text: A text that `mapped` was called on.

        Returns:
            The prediction, float (B, C, h, w).
        """
        assert self.to_outline is not None
        outline: Tensor = self.to_outline(conditioned(text, MAP))
        return outline


def conditioned(text: TextFeatures, name: str) -> Tensor:
    """Return what `Generator.condition` computed and stored in a text.

    Args:
        text: Features of B captions.
        name: Name of the tensor in the extras.

    Returns:
        The tensor, (B, ...).

    Raises:
        ValueError: `condition` was not called on this text.
    """
    if name not in text.extras:
        raise ValueError(f"text without its {name}: call the generator's `condition` on it first")
    return text.extras[name]


def resized(grid: Tensor, side: int) -> Tensor:
    """Average a text map to a smaller size, or enlarge it.

    Args:
        grid: Text maps, (B, M, h, w).
        side: Height and width wanted.

    Returns:
        The maps, (B, M, side, side).
    """
    if grid.shape[-1] == side:
        return grid
    if grid.shape[-1] > side:
        return F.adaptive_avg_pool2d(grid, side)
    return F.interpolate(grid, size=side, mode="bilinear")


class SentenceMap(nn.Module):
    """Maps a sentence to a spatial map: one linear map to a coarse grid, which is enlarged.

    Each place gets its own view of the sentence, so that "in the top left corner" can mean a place
    from the first layer on.

    Args:
        sentence: Width of a sentence vector, D.
        channels: Channels of the map, C.
        size: Height and width of the result.
    """

    def __init__(self, sentence: int, channels: int, size: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.coarse = min(MAP_SIZE, size)
        self.linear = nn.Linear(sentence, channels * self.coarse**2)

    def forward(self, sentence: Tensor) -> Tensor:
        """Compute the map.

        Args:
            sentence: Sentence vectors, float (B, D).

        Returns:
            The maps, float (B, C, size, size).
        """
        grid = self.linear(sentence).view(-1, self.channels, self.coarse, self.coarse)
        return resized(grid, self.size)


class WordMap(nn.Module):
    """Maps words to a spatial map: learned queries on a coarse grid attend to the words.

    They do so in several blocks (`hops`), and each block's queries contain what the blocks before
    gathered. The mean of a caption's words only says that there are something red, something blue,
    a circle and a square. A place on the left can find the words that say "left", then their
    neighbours.

    Args:
        words: Width of a word vector, D.
        channels: Channels of the map, C.
        size: Height and width of the result.
        heads: Attention heads.
        hops: Number of blocks.
        queries: How the queries start: "random", or as "sinusoids" of their places.
    """

    def __init__(
        self, words: int, channels: int, size: int, heads: int, hops: int, queries: str = "random"
    ) -> None:
        super().__init__()
        self.size, self.coarse = size, min(MAP_SIZE, size)
        sinusoids = queries == "sinusoids"
        first = _sinusoids(self.coarse, words) if sinusoids else torch.randn(self.coarse**2, words)
        self.queries = nn.Parameter(first * 0.5)
        self.hops = nn.ModuleList(Hop(words, heads) for _ in range(hops))
        self.out = nn.Linear(words, channels)

    def forward(self, text: TextFeatures) -> Tensor:
        """Compute the map.

        Args:
            text: Features of B captions.

        Returns:
            The maps, float (B, C, size, size).
        """
        q = self.queries.expand(len(text.words), -1, -1)
        for hop in self.hops:
            q = hop(q, text)
        return resized(rearrange(self.out(q), "b (y x) c -> b c y x", y=self.coarse), self.size)


class Hop(nn.Module):
    """A transformer's cross-attention block: queries attend to the words, then pass a perceptron.

    The two-layer perceptron is called `think` because trained weights have that name.

    Args:
        width: Width of words and queries, D.
        heads: Attention heads.
    """

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
        """Update the queries.

        Args:
            queries: Queries, float (B, Q, D).
            text: Features of B captions; their words have width D.

        Returns:
            The new queries, float (B, Q, D).
        """
        q = rearrange(self.q(self.norm(queries)), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(text.words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=text.mask[:, None, None])
        queries = queries + self.out(rearrange(gathered, "b h n d -> b n (h d)"))
        refined: Tensor = queries + self.think(queries)
        return refined


def _sinusoids(side: int, width: int) -> Tensor:
    """Return sinusoids of the places of a grid, of unit variance, (side^2, width).

    Each axis has sines and cosines of width / 4 frequencies, from half a period over the grid to
    four periods. Features that a width of another form leaves over are 0.
    """
    places = (torch.arange(side) + 0.5) / side * math.pi
    waves = places[:, None] * torch.logspace(0, 3, width // 4, base=2.0)
    axis = torch.cat([waves.sin(), waves.cos()], 1)
    rows, columns = axis[:, None].expand(side, side, -1), axis.expand(side, side, -1)
    grid = torch.cat([rows, columns], 2).flatten(0, 1)
    return F.pad(grid / grid.std(), (0, width - grid.shape[1]))
