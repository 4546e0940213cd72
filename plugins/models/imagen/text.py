"""How Imagen's networks read a caption: all words, and a vector that attention pools of them.

Source: Saharia et al. 2022, section 2.4 and appendix D; DeepFloyd IF.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.imagen.config import ReadingConfig

WORDS = "read words"  # name of the normalised, projected words in the text's extras
VECTOR = "pooled words"  # name of the vector that joins the time embedding


class AttentionPool(nn.Module):
    """Pools words to one vector: their mean, with a learned offset, attends to itself and to them.

    Args:
        width: Width of a word.
        heads: Attention heads.

    Raises:
        UserError: The words cannot be divided into these heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"pool_heads = {heads}: words of width {width} cannot be divided so")
        self.heads = heads
        self.offset = nn.Parameter(torch.randn(width) / width**0.5)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Pool.

        Args:
            words: Words, float (B, L, D).
            mask: Which of them count, bool (B, L).

        Returns:
            The vectors, float (B, D).
        """
        count = mask.sum(1, keepdim=True).clamp_min(1)
        mean = (words * mask.unsqueeze(2)).sum(1) / count + self.offset
        rows = torch.cat([mean.unsqueeze(1), words], 1)
        q, k, v = (
            x.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for x in (self.q(mean.unsqueeze(1)), self.k(rows), self.v(rows))
        )
        seen = F.pad(mask, (1, 0), value=True)[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).flatten(1)


class Reading(nn.Module):
    """Prepares a caption for a network.

    Args:
        config: Settings.
        text: Widths of the text features.
        embedding: Width of the time embedding.
    """

    def __init__(self, config: ReadingConfig, text: TextShape, embedding: int) -> None:
        super().__init__()
        self.width = config.text_width or text.words
        self.norm = nn.LayerNorm(text.words)
        self.project = nn.Linear(text.words, self.width) if config.text_width else nn.Identity()
        self.pool = AttentionPool(text.words, config.pool_heads)
        self.vector = nn.Sequential(nn.Linear(text.words, embedding), nn.LayerNorm(embedding))

    def forward(self, text: TextFeatures) -> TextFeatures:
        """Compute what depends on the text alone.

        Args:
            text: Features of B captions.

        Returns:
            The text; its extras hold the words (B, L, width) and the vector (B, embedding).
        """
        words = self.norm(text.words)
        vector = self.vector(self.pool(words, text.mask))
        return replace(text, extras={**text.extras, WORDS: self.project(words), VECTOR: vector})


def read(text: TextFeatures) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `Reading` computed.

    Args:
        text: Conditioned captions.

    Returns:
        Words, float (B, L, width); which of them count, bool (B, L); and the vector, float (B,
        embedding).
    """
    return conditioned(text, WORDS), text.mask, conditioned(text, VECTOR)
