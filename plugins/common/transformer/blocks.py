"""Blocks of diffusion transformers, whose normalisations are modulated by a vector (adaLN-zero)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.transformer.attention import (
    EPS,
    CrossAttention,
    JointAttention,
    SelfAttention,
)
from t2i.plugins.common.transformer.config import TransformerConfig


class Modulation(nn.Module):
    """Computes shifts, scales and gates from the vector of timestep and sentence.

    A transformer starts it at zero: then nothing is shifted or scaled, and gates are closed.

    Source: Peebles & Xie 2023, section 3.2 (adaLN-zero).

    Args:
        width: Width of the vector and of a token.
        count: Number of shifts, scales and gates.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count, self.linear = count, nn.Linear(width, count * width)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        """Compute them.

        Args:
            c: The vector of each image, float (B, D).

        Returns:
            `count` tensors, float (B, 1, D) each.
        """
        values: Tensor = self.linear(F.silu(c))[:, None]
        return values.chunk(self.count, -1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise tokens, then scale and shift them: LN(x) (1 + scale) + shift.

    Args:
        x: Tokens, float (B, N, D).
        shift: Shifts, float (B, 1, D).
        scale: Scales less 1, float (B, 1, D).

    Returns:
        The tokens, float (B, N, D).
    """
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def perceptron(width: int, ratio: float) -> nn.Sequential:
    """Make a block's perceptron of two layers.

    Args:
        width: Width of a token.
        ratio: Width of the hidden layer, as a multiple.

    Returns:
        The perceptron, with the tanh form of GELU.
    """
    hidden = round(width * ratio)
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
    )


class Block(nn.Module, ABC):
    """Base of both kinds of block: `block(x, words, c, mask)` returns new tokens and new words."""

    @abstractmethod
    def forward(self, x: Tensor, words: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Update the tokens of the image, and perhaps the words.

        Args:
            x: Tokens of the image, float (B, N, D).
            words: Words, float (B, L, D).
            c: Vector of timestep and sentence, float (B, D).
            mask: Which words count, bool (B, L).

        Returns:
            New tokens, float (B, N, D), and words, float (B, L, D).
        """


class DiTBlock(Block):
    """DiT's block, with cross-attention to the words between self-attention and perceptron.

        x = x + gate_1 attention(LN(x) (1 + scale_1) + shift_1)
        x = x + cross(x, words)
        x = x + gate_2 mlp(LN(x) (1 + scale_2) + shift_2)

    The words do not change. Cross-attention is neither normalised nor gated; its last layer starts
    at zero.

    Source: Peebles & Xie 2023, section 3.2; Chen et al. 2023 (PixArt-alpha), section 2.3.

    Args:
        config: Settings of the transformer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.modulation = Modulation(width, 6)
        self.attention = SelfAttention(width, heads, config.qk_norm)
        self.cross = CrossAttention(width, heads, config.qk_norm)
        self.mlp = perceptron(width, config.mlp_ratio)

    def forward(self, x: Tensor, words: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)
        x = x + gate_1 * self.attention(modulated(x, shift_1, scale_1))
        x = x + self.cross(x, words, mask)
        return x + gate_2 * self.mlp(modulated(x, shift_2, scale_2)), words


class JointBlock(Block):
    """Stable Diffusion 3's block (MM-DiT): both streams pass a DiT block, with one attention.

    In the last block the words are only attended to: their stream is shifted and scaled once, and
    ends.

    Source: Esser et al. 2024, section 4 and figure 2.

    Args:
        config: Settings of the transformer.
        last: Whether it is the last block.
    """

    def __init__(self, config: TransformerConfig, last: bool = False) -> None:
        super().__init__()
        width = config.width
        self.last = last
        self.modulation = Modulation(width, 6)
        self.modulation_words = Modulation(width, 2 if last else 6)
        self.attention = JointAttention(width, config.heads, config.qk_norm, last)
        self.mlp = perceptron(width, config.mlp_ratio)
        self.mlp_words = None if last else perceptron(width, config.mlp_ratio)

    def forward(self, x: Tensor, words: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)
        shift, scale, *more = self.modulation_words(c)
        image, text = self.attention(
            modulated(x, shift_1, scale_1), modulated(words, shift, scale), mask
        )
        x = x + gate_1 * image
        x = x + gate_2 * self.mlp(modulated(x, shift_2, scale_2))
        if self.mlp_words is not None:
            gate, shift, scale, gate_mlp = more
            words = words + gate * text
            words = words + gate_mlp * self.mlp_words(modulated(words, shift, scale))
        return x, words


def blocks_of(config: TransformerConfig) -> nn.ModuleList:
    """Build the blocks of a transformer.

    Args:
        config: Settings of the transformer.

    Returns:
        The blocks, in order.
    """
    if config.blocks == "cross":
        return nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
    return nn.ModuleList(JointBlock(config, i == config.depth - 1) for i in range(config.depth))
