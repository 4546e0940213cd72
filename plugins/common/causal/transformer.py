"""Causal transformers over tokens, minGPT's, with a cache of keys and values.

Training computes all positions of known tokens in one pass, sampling one position at a time. Both
give the same logits. Source: the layer of minGPT, as Esser et al. 2021 and minDALL-E have it; the
masks of Ramesh et al. 2021, appendix B.1 and figure 11.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.causal.config import Attention, TransformerConfig
from t2i.plugins.common.diffusion.config import TextMapConfig
from t2i.plugins.common.diffusion.text_map import MAP, MappedText, conditioned


@dataclass(frozen=True)
class Prefix:
    """What stands before the image's tokens. Its last position predicts the first of them.

    Args:
        x: Vectors, (B, P, width).
        counts: Which positions count, bool (B, P), the last one always. These prefixes see all of
            themselves. None: all count, and each sees those before it.
    """

    x: Tensor
    counts: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of positions P."""
        return self.x.shape[1]


@dataclass
class Cache:
    """Keys and values of all positions so far.

    Args:
        stored: Keys and values of each layer, (layers, 2, B, heads, P + N - 1, d).
        masks: Who attends to whom, by kind of attention, bool (B or 1, 1, P + N - 1, P + N - 1).
            None: each to all before it.
        added: What is added to the inputs that predict the N tokens, (B, N, width). None: nothing.
        prefix: Number of positions P of the prefix.
        at: Number of positions that are stored.
    """

    stored: Tensor
    masks: dict[Attention, Tensor | None]
    added: Tensor | None
    prefix: int
    at: int


class SelfAttention(nn.Module):
    """Self-attention with separate maps for keys, queries, values and the result.

    Args:
        width: Width of a token.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Tensor | None = None) -> Tensor:
        """Attend among all positions.

        Args:
            x: Vectors, (B, M, width).
            mask: Who attends to whom, bool (B or 1, 1, M, M). None: each to all before it.
            cache: Where keys and values are written, (2, B, heads, L, d). None: nowhere.

        Returns:
            The result, (B, M, width).
        """
        q, k, v = self._projected(x)
        if cache is not None:
            cache[0, :, :, : k.shape[2]], cache[1, :, :, : v.shape[2]] = k, v
        return self._joined(F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None))

    def step(self, x: Tensor, mask: Tensor | None, cache: Tensor, at: int) -> Tensor:
        """Attend from one position to those before it and itself.

        Args:
            x: Its vector, (B, 1, width).
            mask: What it attends to, bool (B or 1, 1, 1, at + 1). None: all.
            cache: Keys and values, which are extended, (2, B, heads, L, d).
            at: Number of positions before it.

        Returns:
            The result, (B, 1, width).
        """
        q, k, v = self._projected(x)
        cache[0, :, :, at : at + 1], cache[1, :, :, at : at + 1] = k, v
        keys, values = cache[:, :, :, : at + 1].to(q.dtype).unbind()
        return self._joined(F.scaled_dot_product_attention(q, keys, values, mask))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, heads, M, d) each."""
        shape = (len(x), x.shape[1], self.heads, -1)
        q, k, v = (
            part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return q, k, v

    def _joined(self, x: Tensor) -> Tensor:
        """Put the heads side by side, and map them."""
        joined: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return joined


class Layer(nn.Module):
    """A layer: x + attention(norm x), then x + perceptron(norm x) with an exact GELU.

    Args:
        width: Width of a token.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None, cache: Tensor | None = None) -> Tensor:
        """Apply the layer to all positions.

        Args:
            x: Vectors, (B, M, width).
            mask: Who attends to whom, bool (B or 1, 1, M, M). None: each to all before it.
            cache: Where keys and values are written. None: nowhere.

        Returns:
            The new vectors, (B, M, width).
        """
        x = x + self.attn(self.ln1(x), mask, cache)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out

    def step(self, x: Tensor, mask: Tensor | None, cache: Tensor, at: int) -> Tensor:
        """Apply the layer to one position, given the keys and values of those before it.

        Args:
            x: Its vector, (B, 1, width).
            mask: What it attends to, bool (B or 1, 1, 1, at + 1). None: all.
            cache: Keys and values, which are extended, (2, B, heads, L, d).
            at: Number of positions before it.

        Returns:
            The new vector, (B, 1, width).
        """
        x = x + self.attn.step(self.ln1(x), mask, cache, at)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class TokenTransformer(Recomputing, nn.Module, ABC):
    """Base of transformers that predict an image's tokens from a text and the tokens before.

    A subclass makes the prefix, the vectors of tokens, and logits. The places of the image may each
    get their view of the words (`text`), which is ours: it is added to the input that predicts the
    place.

    Args:
        config: Sizes.
        vocabulary: Number K of different tokens.
        side: Height and width of an image in tokens.

    Attributes:
        vocabulary: Number K of different tokens.
        length: Number N of tokens of an image.
        text_map: Makes a map of the words. None: there is none.
    """

    def __init__(self, config: TransformerConfig, vocabulary: int, side: int) -> None:
        super().__init__()
        self.vocabulary, self.side, self.length = vocabulary, side, side**2
        self.width, self.heads, self.kinds = config.width, config.heads, config.kinds
        self.kernel = config.kernel
        self.blocks = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        self.text_map: MappedText | None = None
        self.map_in: nn.Linear | None = None

    def begin_weights(
        self, config: TransformerConfig, maps: TextMapConfig, text: TextShape
    ) -> None:
        """Draw the first weights as minGPT does, and build the map of the words.

        A subclass calls it at the end of `__init__`.

        Args:
            config: Sizes.
            maps: The map of the words.
            text: Widths of the text features.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=config.embedding_std)
        if maps.text_map:
            self.text_map = MappedText(maps, self.vocabulary, self.side, text)
            self.map_in = nn.Linear(maps.text_map, self.width, bias=False)

    @abstractmethod
    def prefix(self, text: TextFeatures) -> Prefix:
        """Compute what stands before the image's tokens.

        Args:
            text: Features of B captions, from `condition`.

        Returns:
            The prefix.
        """

    @abstractmethod
    def embedded(self, tokens: Tensor, first: int) -> Tensor:
        """Compute the vectors of tokens of an image at consecutive places.

        Args:
            tokens: Tokens, int64 (B, M).
            first: Place of the first of them, from 0.

        Returns:
            Vectors, (B, M, width).
        """

    @abstractmethod
    def logits(self, h: Tensor) -> Tensor:
        """Compute logits of image tokens.

        Args:
            h: What the last layer returns, normalised, (B, M, width).

        Returns:
            Logits, (B, M, K).
        """

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Compute the map of the words, if there is one.

        Args:
            text: Features of B captions.

        Returns:
            The text with the map among its extras.
        """
        return text if self.text_map is None else self.text_map.mapped(text)

    def added(self, text: TextFeatures) -> Tensor | None:
        """Return what each place gets of the words.

        Args:
            text: Features of B captions, from `condition`.

        Returns:
            What is added to the input that predicts each token, (B, N, width). None: nothing.
        """
        if self.map_in is None:
            return None
        grid: Tensor = self.map_in(rearrange(conditioned(text, MAP), "b c y x -> b (y x) c"))
        return grid

    def outline(self, text: TextFeatures) -> Tensor | None:
        """Predict all tokens from the map of the words alone.

        Args:
            text: Features of B captions, from `condition`.

        Returns:
            Logits, (B, N, K). None: there is no such loss.
        """
        if self.text_map is None or not self.text_map.outline_weight:
            return None
        return self.text_map.outline(text).flatten(2).mT

    def hidden(self, tokens: Tensor, text: TextFeatures) -> tuple[Tensor, int]:
        """Compute the normalised outputs at all positions.

        Args:
            tokens: Tokens that are fed, int64 (B, N - 1 or N); the last of N is not.
            text: Features of B captions, from `condition`.

        Returns:
            The outputs, (B, P + N - 1, width), and the length P of the prefix.
        """
        prefix = self.prefix(text)
        p, tokens = prefix.length, tokens[:, : self.length - 1]
        x = torch.cat([prefix.x, self.embedded(tokens, 0)], 1)
        if (added := self.added(text)) is not None:
            x = x + F.pad(added, (0, 0, p - 1, 0))
        masks = self.masks(prefix, x.shape[1])
        for kind, layer in zip(self.kinds, self.blocks, strict=True):
            x = self.through(layer, x, masks[kind])
        return self.ln_f(x), p

    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Predict each of some known tokens, given those before it.

        Args:
            tokens: Tokens, int64 (B, N).
            text: Features of B captions, from `condition`.

        Returns:
            Logits, (B, N, K).
        """
        h, p = self.hidden(tokens, text)
        return self.logits(h[:, p - 1 :])

    @torch.no_grad()
    def begin(self, text: TextFeatures) -> tuple[Tensor, Cache]:
        """Process the prefix and predict the first token.

        Args:
            text: Features of B captions, from `condition`.

        Returns:
            Logits, (B, K), and the cache.
        """
        prefix, added = self.prefix(text), self.added(text)
        x, p = prefix.x, prefix.length
        if added is not None:
            x = torch.cat([x[:, :-1], x[:, -1:] + added[:, :1]], 1)
        length = p + self.length - 1
        masks = self.masks(prefix, length)
        stored = x.new_empty(
            len(self.blocks), 2, len(x), self.heads, length, self.width // self.heads
        )
        first = {kind: None if m is None else m[..., :p, :p] for kind, m in masks.items()}
        for kind, layer, cache in zip(self.kinds, self.blocks, stored, strict=True):
            x = layer(x, first[kind], cache)
        logits = self.logits(self.ln_f(x[:, -1:]))[:, 0]
        return logits, Cache(stored, masks, added, p, p)

    @torch.no_grad()
    def next(self, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Process the tokens that were just drawn and predict the next ones.

        Args:
            tokens: One token for each image, int64 (B,).
            cache: The cache, which is extended.

        Returns:
            Logits, (B, K), and the cache.
        """
        at = cache.at
        place = at - cache.prefix
        x = self.embedded(tokens[:, None], place)
        if cache.added is not None:
            x = x + cache.added[:, place + 1 : place + 2]
        masks = {
            kind: None if mask is None else mask[:, :, at : at + 1, : at + 1]
            for kind, mask in cache.masks.items()
        }
        for kind, layer, stored in zip(self.kinds, self.blocks, cache.stored, strict=True):
            assert isinstance(layer, Layer)
            x = layer.step(x, masks[kind], stored, at)
        cache.at = at + 1
        return self.logits(self.ln_f(x))[:, 0], cache

    def masks(self, prefix: Prefix, length: int) -> dict[Attention, Tensor | None]:
        """Compute who attends to whom, for each kind of attention that the layers have.

        Args:
            prefix: What stands before the image's tokens.
            length: Number of positions.

        Returns:
            The masks, bool (B or 1, 1, length, length). None: each to all before it.
        """
        p, counts = prefix.length, prefix.counts
        found: dict[Attention, Tensor | None] = {}
        for kind in dict.fromkeys(self.kinds):
            if kind == "full" and counts is None:
                found[kind] = None
                continue
            mask = visible(kind, self.side, self.kernel, p, counts is not None)
            mask = mask[:length, :length].to(prefix.x.device)[None, None]
            if counts is not None:
                mask = mask & F.pad(counts, (0, length - p), value=True)[:, None, None]
            found[kind] = mask
        return found


@lru_cache(maxsize=64)
def visible(kind: Attention, side: int, kernel: int, prefix: int, whole: bool) -> Tensor:
    """Compute which positions attend to which.

    Places count in raster order, and patterns wrap around the edges, as in DALL-E: "row" reaches
    back to the place above, "conv" is a square around the place whose rows run on into the next.

    Args:
        kind: Kind of attention among image tokens.
        side: Height and width of an image in tokens.
        kernel: Side of the square of "conv".
        prefix: Number of positions before the image.
        whole: Whether these see all of themselves. Otherwise each sees those before it.

    Returns:
        The mask, bool (P + N, P + N): row i attends to column j.
    """
    n = side**2
    places = torch.arange(n)
    back = places[:, None] - places  # how far a place looks back, in raster order
    if kind == "row":
        among = back <= side
    elif kind == "column":
        among = back % side == 0
    elif kind == "conv":
        half = kernel // 2
        steps = [
            row * side + column for row in range(half + 1) for column in range(-half, half + 1)
        ]
        among = torch.isin(back, torch.tensor(steps))
    else:
        among = torch.ones(n, n, dtype=torch.bool)
    mask = torch.ones(prefix + n, prefix + n, dtype=torch.bool)
    mask[prefix:, prefix:] = among
    mask = mask.tril()
    if whole:
        mask[:prefix, :prefix] = True
    return mask
