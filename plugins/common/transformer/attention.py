"""Attention of transformers: within an image, to words, and of both at once."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
"""What normalisations add to a variance or a mean square."""


class QKNorm(nn.Module):
    """Normalises queries and keys head by head, or returns them as they are.

    Source: Esser et al. 2024, section 5.3.2 (root mean square, with learned factors).

    Args:
        width: Channels of one head.
        used: Whether to normalise.
    """

    def __init__(self, width: int, used: bool) -> None:
        super().__init__()
        self.q: nn.Module = nn.RMSNorm(width, eps=EPS) if used else nn.Identity()
        self.k: nn.Module = nn.RMSNorm(width, eps=EPS) if used else nn.Identity()

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            q: Queries, float (B, heads, N, d).
            k: Keys, float (B, heads, M, d).

        Returns:
            Both, of the same shapes.
        """
        return self.q(q), self.k(k)


class Projections(nn.Module):
    """Projects tokens to queries, keys and values, and attention's result back to tokens.

    Args:
        width: Width of a token.
        heads: Attention heads.
        qk_norm: Whether queries and keys are normalised.
        returns: Whether there is a projection back.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, returns: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm(width // heads, qk_norm)
        self.out = nn.Linear(width, width) if returns else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens.

        Args:
            x: Tokens, float (B, N, D).

        Returns:
            Queries, keys and values, float (B, heads, N, D / heads) each.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return (*self.norm(q, k), v)


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
        assert self.image.out is not None
        gathered: Tensor = self.image.out(_joined(F.scaled_dot_product_attention(*self.image(x))))
        return gathered


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
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.norm = QKNorm(width // heads, qk_norm)
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
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(words), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        q, k = self.norm(q, k)
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
        last: Whether the words are not needed afterwards, and have no projection back.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False, last: bool = False) -> None:
        super().__init__()
        self.image = Projections(width, heads, qk_norm)
        self.words = Projections(width, heads, qk_norm, returns=not last)

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
        q, k, v = (
            torch.cat(pair, 2) for pair in zip(self.image(x), self.words(words), strict=True)
        )
        counts = torch.cat([mask.new_ones(len(x), x.shape[1]), mask], 1)[:, None, None]
        gathered = _joined(F.scaled_dot_product_attention(q, k, v, attn_mask=counts))
        image, text = gathered.split([x.shape[1], words.shape[1]], 1)
        assert self.image.out is not None
        return self.image.out(image), None if self.words.out is None else self.words.out(text)
