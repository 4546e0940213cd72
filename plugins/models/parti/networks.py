"""The network of Parti: a transformer encoder of the text and a decoder of image tokens.

Source: Yu et al. 2022, section 2.2. The network's code was never released: what the paper leaves
open is said in README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.causal.generator import TokenGenerator
from t2i.plugins.common.diffusion.text_map import MAP, MappedText, conditioned
from t2i.plugins.common.tokens.tokenizer import tokenizer_of
from t2i.plugins.common.transformer.attention import head_norm
from t2i.plugins.models.parti.config import PartiConfig


class PartiGenerator(TokenGenerator):
    """p(token i | tokens before i, words), in raster order, over the tokens of a tokenizer.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the tokenizer. None: it is built or loaded as
            the settings say.

    Attributes:
        tokenizer: Turns images into tokens, and tokens into images.
        network: The encoder and the decoder.
    """

    network: PartiNetwork

    def __init__(self, config: PartiConfig, text: TextShape, assets: Path | None = None) -> None:
        tokenizer = tokenizer_of(config.tokenizer, config.image_size, assets)
        network = PartiNetwork(config, tokenizer.vocabulary, tokenizer.side, text)
        super().__init__(tokenizer, network)


@dataclass(frozen=True)
class Sampling:
    """The state between two tokens.

    Args:
        at: Number of tokens that were processed, from 0.
        added: What is added to each input: its position and, if there is one, the text map,
            (1 or B, length, width).
        caches: Keys and values of the inputs so far, one for each block, (2, B, heads, length, d).
        words: Keys and values of the words, one pair for each block, (B, heads, L, d) each.
        mask: Which words count, bool (B, L).
    """

    at: int
    added: Tensor
    caches: Sequence[Tensor]
    words: Sequence[tuple[Tensor, Tensor]]
    mask: Tensor


class PartiNetwork(Recomputing, MappedText):
    """The encoder and the decoder. Normalisation comes first in each block; no layer has a bias.

    Input i of the decoder is token i - 1, or the start vector; its output are the logits of token
    i. The embedding of a place is the sum of those of its row and its column.

    Args:
        config: The model's settings.
        vocabulary: Number of different tokens.
        side: Tokens in a row and in a column.
        text: Widths of the text features.
    """

    def __init__(self, config: PartiConfig, vocabulary: int, side: int, text: TextShape) -> None:
        super().__init__(config.text, vocabulary, side, text)
        width, self.side, self.reach = config.width, side, config.kernel // 2
        self.dropout = config.dropout
        self.words_in = nn.Linear(text.words, width, bias=False)
        self.word_positions = nn.Parameter(torch.randn(config.max_words, width) * width**-0.5)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)

        self.tokens = nn.Embedding(vocabulary, width)
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.rows = nn.Parameter(torch.randn(side, width) * width**-0.5)
        self.columns = nn.Parameter(torch.randn(side, width) * width**-0.5)
        self.map_in = nn.Linear(config.text.text_map, width, bias=False) if self.has_map else None
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        # Nothing is stored of the mask: it follows from the settings.
        mask = conv_mask(side, self.reach) if self.reach else None
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor | None

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Encode the words, and compute the text map if there is one.

        Args:
            text: Features of B captions, as the text encoder returned them. Words beyond
                `max_words` are left out.

        Returns:
            The captions, whose words are the encoder's output, (B, L, width).
        """
        text = self.mapped(text)
        most = len(self.word_positions)
        words, mask = text.words[:, :most], text.mask[:, :most]
        x = self._dropped(self.words_in(words) + self.word_positions[: words.shape[1]])
        for block in self.encoder:
            x = self.through(block, x, mask)
        return replace(text, words=self.encoder_norm(x), mask=mask)

    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Predict each token from those before it.

        Args:
            tokens: Tokens, int64 (B, length).
            text: Conditioned captions.

        Returns:
            Logits, (B, length, vocabulary).
        """
        inputs = self.tokens(tokens[:, :-1])
        start = self.start.to(inputs).expand(len(tokens), 1, -1)
        x = self._dropped(torch.cat([start, inputs], 1) + self._added(text))
        for block in self.decoder:
            x = self.through(block, x, text, self.mask)
        logits: Tensor = self.head(self.decoder_norm(x))
        return logits

    def begin(self, text: TextFeatures) -> tuple[Tensor, Sampling]:
        """Predict the first token, and begin the caches.

        Args:
            text: Conditioned captions.

        Returns:
            Logits, (B, vocabulary), and the state.
        """
        words = [block.cross.keys_and_values(text.words) for block in self._blocks]
        shape = (2, len(text), self._blocks[0].attention.heads, self.side**2, -1)
        caches = [k.new_empty(*shape[:-1], k.shape[-1]) for k, _ in words]
        state = Sampling(0, self._added(text), caches, words, text.mask)
        return self._step(self.start.expand(len(text), -1), state)

    def next(self, tokens: Tensor, state: Sampling) -> tuple[Tensor, Sampling]:
        """Predict the next token.

        Args:
            tokens: The tokens that were drawn last, int64 (B,).
            state: The state, whose caches are extended.

        Returns:
            Logits, (B, vocabulary), and the new state.
        """
        return self._step(self.tokens(tokens), state)

    @property
    def _blocks(self) -> list[DecoderBlock]:
        """The blocks of the decoder, with their type."""
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def _step(self, x: Tensor, state: Sampling) -> tuple[Tensor, Sampling]:
        """Process one input (B, width) with the caches of those before it."""
        at = state.at
        first = first_visible(at, self.side, self.reach) if self.reach else 0
        visible = None if self.mask is None else self.mask[at : at + 1, first : at + 1]
        x = (x + state.added[:, at])[:, None]
        for block, cache, words in zip(self._blocks, state.caches, state.words, strict=True):
            x = block.step(x, cache, at, first, visible, words, state.mask)
        logits: Tensor = self.head(self.decoder_norm(x[:, 0]))
        return logits, replace(state, at=at + 1)

    def _added(self, text: TextFeatures) -> Tensor:
        """Return positions, and the text map: what is added to each input, (1 or B, N, width)."""
        places = (self.rows[:, None] + self.columns).flatten(0, 1)[None]
        if self.map_in is None:
            return places
        grid: Tensor = self.map_in(rearrange(conditioned(text, MAP), "b c h w -> b (h w) c"))
        return places + grid

    def _dropped(self, x: Tensor) -> Tensor:
        """Apply dropout in training."""
        return F.dropout(x, self.dropout, self.training)


def conv_mask(side: int, reach: int) -> Tensor:
    """Return which inputs an input attends to under the conv-shaped sparse mask.

    Token (r, c) is predicted from the tokens before it in the square of `2 reach + 1` places a
    side around it: those of `reach` rows above, and those to the left. Input j is token j - 1, or
    the start vector. An input also attends to itself, that is to the token right before.

    Args:
        side: Tokens in a row and in a column.
        reach: Places to each side.

    Returns:
        The mask, bool (side^2, side^2): entry (i, j) is whether input i attends to input j.
    """
    numbers = torch.arange(side**2)
    target_row, target_column = (numbers // side)[:, None], (numbers % side)[:, None]
    content = numbers - 1
    near = (target_row - content // side <= reach) & (
        (target_column - content % side).abs() <= reach
    )
    causal, itself = numbers[:, None] >= numbers, numbers[:, None] == numbers
    return causal & (near & (content >= 0) | itself)


def first_visible(at: int, side: int, reach: int) -> int:
    """Return the first input that input `at` may attend to under the conv-shaped mask.

    Args:
        at: Number of the input, which predicts token `at`.
        side: Tokens in a row and in a column.
        reach: Places to each side.

    Returns:
        Number of the input, at most `at`.
    """
    row, column = divmod(at, side)
    return min(at, max(0, row - reach) * side + max(0, column - reach) + 1)


class Attention(nn.Module):
    """Multi-head attention without biases, to the same or to another sequence.

    Args:
        width: Width of both sequences.
        heads: Attention heads.
        qk_norm: Whether queries and keys are divided by their root mean square, head by head.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = (nn.Linear(width, n * width, bias=False) for n in (1, 2))
        self.norm_q, self.norm_k = (head_norm(width // heads, qk_norm) for _ in range(2))
        self.out = nn.Linear(width, width, bias=False)

    def queries(self, x: Tensor) -> Tensor:
        """Project a sequence to queries.

        Args:
            x: The sequence, (B, N, width).

        Returns:
            Queries, (B, heads, N, d).
        """
        queries: Tensor = self.norm_q(rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads))
        return queries

    def keys_and_values(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Project a sequence to keys and values.

        Args:
            y: The sequence, (B, M, width).

        Returns:
            Keys and values, (B, heads, M, d) each.
        """
        k, v = rearrange(self.kv(y), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        return self.norm_k(k), v

    def gathered(
        self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        """Attend from a sequence to keys and values.

        Args:
            x: The sequence, (B, N, width).
            k: Keys, (B, heads, M, d).
            v: Values, (B, heads, M, d).
            mask: What is attended to, bool, broadcast to (B, heads, N, M). None: all.
            is_causal: Whether each attends to those before it and to itself; without a mask only.

        Returns:
            What was gathered, (B, N, width).
        """
        q = self.queries(x)
        found = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)
        out: Tensor = self.out(rearrange(found, "b h n d -> b n (h d)"))
        return out


class Block(nn.Module):
    """What encoder blocks and decoder blocks share: self-attention and a perceptron.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: PartiConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, config.qk_norm)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.hidden, bias=False),
            nn.GELU(),
            nn.Linear(config.hidden, width, bias=False),
        )
        self.dropout = nn.Dropout(config.dropout)

    def perceived(self, x: Tensor) -> Tensor:
        """Apply the perceptron.

        Args:
            x: The sequence, (B, N, width).

        Returns:
            The new sequence.
        """
        out: Tensor = x + self.dropout(self.mlp(self.norm_2(x)))
        return out


class EncoderBlock(Block):
    """A block of the encoder: every word attends to every word."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Words, (B, L, width).
            mask: Which words count, bool (B, L).

        Returns:
            The new words.
        """
        h = self.norm_1(x)
        found = self.attention.gathered(h, *self.attention.keys_and_values(h), mask[:, None, None])
        return self.perceived(x + self.dropout(found))


class DecoderBlock(Block):
    """A block of the decoder: causal self-attention, attention to the words, a perceptron.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: PartiConfig) -> None:
        super().__init__(config)
        self.norm_cross = nn.LayerNorm(config.width)
        self.cross = Attention(config.width, config.heads, config.qk_norm)

    def forward(self, x: Tensor, text: TextFeatures, mask: Tensor | None) -> Tensor:
        """Apply the block to all inputs.

        Args:
            x: Inputs, (B, N, width).
            text: Captions whose words are the encoder's output.
            mask: Which inputs attend to which, bool (N, N). None: each to those before it.

        Returns:
            The outputs, (B, N, width).
        """
        h = self.norm_1(x)
        k, v = self.attention.keys_and_values(h)
        found = self.attention.gathered(h, k, v, mask, is_causal=mask is None)
        words = self.cross.keys_and_values(text.words)
        return self._finished(x + self.dropout(found), words, text.mask)

    def step(
        self,
        x: Tensor,
        cache: Tensor,
        at: int,
        first: int,
        visible: Tensor | None,
        words: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> Tensor:
        """Apply the block to one input, given the keys and values of those before.

        Args:
            x: The input, (B, 1, width).
            cache: Keys and values, which are extended, (2, B, heads, length, d).
            at: Number of the input.
            first: Number of the first input that it may attend to.
            visible: Which of the inputs from there to itself it attends to, bool (1, n). None: all.
            words: Keys and values of the words, (B, heads, L, d) each.
            mask: Which words count, bool (B, L).

        Returns:
            The output, (B, 1, width).
        """
        h = self.norm_1(x)
        k, v = self.attention.keys_and_values(h)
        cache[0, :, :, at : at + 1], cache[1, :, :, at : at + 1] = k, v
        keys, values = cache[:, :, :, first : at + 1].unbind()
        found = self.attention.gathered(h, keys, values, visible)
        return self._finished(x + self.dropout(found), words, mask)

    def _finished(self, x: Tensor, words: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend to the words, then apply the perceptron."""
        found = self.cross.gathered(self.norm_cross(x), *words, mask[:, None, None])
        return self.perceived(x + self.dropout(found))
