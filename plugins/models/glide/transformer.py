"""GLIDE's text transformer. Modules have the names of the paper's code, so that weights fit.

Source: Nichol et al. 2022, section 3.1.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.recomputing import Recomputing
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.text.tokens import TOKENS
from t2i.plugins.models.glide.config import TransformerConfig

INITIAL = 0.02
"""Standard deviation of new vectors of tokens, places and padding."""


class Attention(nn.Module):
    """Attention of all places to all places.

    Args:
        width: Width of a place.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x: Places, float (B, L, width).

        Returns:
            What each gathered, float (B, L, width).
        """
        q, k, v = self.c_qkv(x).unflatten(2, (self.heads, 3, -1)).transpose(1, 2).unbind(3)
        gathered = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.c_proj(gathered.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Two layers of four times the width.

    Args:
        width: Width of a place.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layers' output.

        Args:
            x: Places, float (B, L, width).

        Returns:
            Places, float (B, L, width).
        """
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return out


class TextBlock(nn.Module):
    """Attention and a perceptron, each on normalised places.

    Args:
        width: Width of a place.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output.

        Args:
            x: Places, float (B, L, width).

        Returns:
            Places, float (B, L, width).
        """
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class TextTransformer(Recomputing, nn.Module):
    """Reads a caption: one vector for each place, and the last one for the whole caption.

    Places without a token hold a vector of padding, one for each place, so that no mask is needed.

    Args:
        config: Settings.
        text: Widths of the text encoder's features.
    """

    def __init__(self, config: TransformerConfig, text: TextShape) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.resblocks = nn.ModuleList(TextBlock(width, config.heads) for _ in range(config.layers))
        self.final_ln = nn.LayerNorm(width)
        self.positional_embedding = nn.Parameter(INITIAL * torch.randn(config.length, width))
        self.padding_embedding = nn.Parameter(INITIAL * torch.randn(config.length, width))
        self.token_embedding = nn.Embedding(config.tokens, width) if config.tokens else None
        if self.token_embedding is not None:
            nn.init.normal_(self.token_embedding.weight, std=INITIAL)
        self.words = None if config.tokens else nn.Linear(text.words, width)
        self.sentence = nn.Linear(text.sentence, width) if config.sentence else None

    @property
    def shape(self) -> TextShape:
        """Widths of the features that it makes."""
        return TextShape(self.config.width, self.config.width)

    def forward(self, text: TextFeatures) -> TextFeatures:
        """Read captions.

        Args:
            text: Features of B captions, as the text encoder returned them.

        Returns:
            Features whose words are the outputs of all places, and whose sentence is that of the
            last.

        Raises:
            UserError: The text encoder makes no tokens, or others than the transformer has.
        """
        length = self.config.length
        text = replace(text, words=text.words[:, :length], mask=text.mask[:, :length])
        text = text.padded(length)
        x = self._embedded(text) + self.positional_embedding
        x = torch.where(text.mask[..., None], x, self.padding_embedding.to(x.dtype))
        for block in self.resblocks:
            x = self.through(block, x)
        x = self.final_ln(x)
        last = x[:, -1]
        if self.sentence is not None:
            last = last + self.sentence(text.sentence)
        return replace(text, sentence=last, words=x)

    def _embedded(self, text: TextFeatures) -> Tensor:
        """Return the vector of each token, or word, (B, length, width)."""
        if self.words is not None:
            embedded: Tensor = self.words(text.words)
            return embedded
        assert self.token_embedding is not None
        if TOKENS not in text.extras:
            raise UserError(
                "transformer.tokens: the text encoder makes no tokens: use encoder gpt2, or set "
                "base.transformer.tokens=0 and upsampler.transformer.tokens=0"
            )
        tokens = text.extras[TOKENS][:, : self.config.length]
        found: Tensor = self.token_embedding(
            F.pad(tokens, (0, self.config.length - tokens.shape[1]))
        )
        return found
