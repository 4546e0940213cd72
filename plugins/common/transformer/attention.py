"""Attention of transformers: within an image, to words, and of both at once."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
"""What normalisations add to a variance or a mean square."""


def head_norm(width: int, used: bool) -> nn.Module:
    """Make the normalisation of the queries or the keys of each head.

    Source: Esser et al. 2024, section 5.3.2 (root mean square, with learned factors).

    Args:
        width: Channels of one head.
        used: Whether to normalise.

    Returns:
        The layer. It returns its input if it is not used.
    """
    return nn.RMSNorm(width, eps=EPS) if used else nn.Identity()


class Projections(nn.Module):
    """Projects tokens to queries, keys and values, and attention's result back to tokens.

    Args:
        width: Width of a token.
        heads: Attention heads.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = (head_norm(width // heads, qk_norm) for _ in range(2))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens.

        Args:
            x: Tokens, float (B, N, D).

        Returns:
            Queries, keys and values, float (B, heads, N, D / heads) each.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return self.norm_q(q), self.norm_k(k), v

    def back(self, gathered: Tensor) -> Tensor:
        """Project what the heads gathered.

        Args:
            gathered: Results of the heads, float (B, heads, N, D / heads).

        Returns:
            Tokens, float (B, N, D).
        """
        tokens: Tensor = self.out(_joined(gathered))
        return tokens


class KeysAndValues(nn.Module):
    """Projects words to keys and values, for tokens that attend to words which attend to nothing.

    Args:
        width: Width of a word.
        heads: Attention heads.
        qk_norm: Whether keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(width, 2 * width)
        self.norm_k = head_norm(width // heads, qk_norm)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Project words.

        Args:
            words: Words, float (B, L, D).

        Returns:
            Keys and values, float (B, heads, L, D / heads) each.
        """
        k, v = rearrange(self.kv(words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        return self.norm_k(k), v


def _joined(heads: Tensor) -> Tensor:
    """Put the results of the heads (B, heads, N, d) side by side, (B, N, heads d)."""
    return rearrange(heads, "b h n d -> b n (h d)")


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of an image.

    Args:
        width: Width of a token.
        heads: Attention heads.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.image = Projections(width, heads, qk_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens attend to each other.

        Args:
            x: Tokens, float (B, N, D).

        Returns:
            What each gathered, float (B, N, D).
        """
        return self.image.back(F.scaled_dot_product_attention(*self.image(x)))


class CrossAttention(nn.Module):
    """Multi-head attention of an image's tokens to words.

    Args:
        width: Width of tokens and words.
        heads: Attention heads.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.norm_q = head_norm(width // heads, qk_norm)
        self.words = KeysAndValues(width, heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Let the tokens attend to the words.

        Args:
            x: Tokens, float (B, N, D).
            words: Words, float (B, L, D).
            mask: Which words count, bool (B, L).

        Returns:
            What each token gathered, float (B, N, D).
        """
        q = self.norm_q(rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads))
        k, v = self.words(words)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        out: Tensor = self.out(_joined(gathered))
        return out


class JointAttention(nn.Module):
    """One attention over image and words together, each with projections of their own.

    Words that do not count are attended to by nobody.

    Source: Esser et al. 2024, section 4 and figure 2.

    Args:
        width: Width of tokens and words.
        heads: Attention heads.
        qk_norm: Whether queries and keys are normalised.
        last: Whether the words are not needed afterwards, and attend to nothing.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False, last: bool = False) -> None:
        super().__init__()
        self.image = Projections(width, heads, qk_norm)
        self.words = (KeysAndValues if last else Projections)(width, heads, qk_norm)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Let image and words attend to both.

        Args:
            x: Tokens of the image, float (B, N, D).
            words: Words, float (B, L, D).
            mask: Which words count, bool (B, L).

        Returns:
            What the image gathered, float (B, N, D), and what the words gathered, float (B, L, D).
            The latter is None in the last block.
        """
        (q, k, v), (*queries, keys, values) = self.image(x), self.words(words)
        counts = torch.cat([mask.new_ones(len(x), x.shape[1]), mask], 1)[:, None, None]
        gathered = F.scaled_dot_product_attention(
            torch.cat([q, *queries], 2), torch.cat([k, keys], 2), torch.cat([v, values], 2), counts
        )
        image = self.image.back(gathered[:, :, : x.shape[1]])
        if not isinstance(self.words, Projections):
            return image, None
        return image, self.words.back(gathered[:, :, x.shape[1] :])
