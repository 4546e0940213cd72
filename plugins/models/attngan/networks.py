"""Networks of AttnGAN: stages that attend to words.

The rest of the generator, the discriminators
and DAMSM's image encoder are shared with other models (`t2i.plugins.common.gan.trees`).

Source: Xu et al. 2018, figure 2.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.trees.blocks import residual_blocks, up
from t2i.plugins.common.gan.trees.generator import Tree, TreeGenerator
from t2i.plugins.models.attngan.config import AttnGANConfig


class Attention(nn.Module):
    """F_attn: for each position of the image, an average of the words, weighted by attention.

    Words are projected to the image's channels. Their weights are the softmax over words of
    <h, word>. Source: Xu et al. 2018, equation 2.

    Args:
        channels: Channels C of the image features.
        words: Width Dw of a word vector.
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.project = nn.Linear(words, channels, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Compute the word context of each position.

        Args:
            h: Image features, float (B, C, S, S).
            words: Word vectors, float (B, L, Dw).
            mask: Whether a word may be attended to, bool (B, L). The others get no weight.

        Returns:
            Word contexts, float (B, C, S, S).
        """
        e = self.project(words)
        places = h.flatten(2).transpose(1, 2)
        context = F.scaled_dot_product_attention(places, e, e, attn_mask=mask[:, None], scale=1.0)
        return context.transpose(1, 2).reshape(h.shape)


class NextStage(nn.Module):
    """F_i, a later stage: attention to words, residual blocks, upsampling to twice the size.

    Args:
        config: The model's settings.
        words: Width of a word vector.
    """

    def __init__(self, config: AttnGANConfig, words: int) -> None:
        super().__init__()
        self.attention = Attention(config.gf, words)
        self.residual = residual_blocks(2 * config.gf, config.residual_blocks)
        self.up = up(2 * config.gf, config.gf)

    def forward(self, h: Tensor, c: Tensor, text: TextFeatures) -> Tensor:
        """Compute the next hidden map.

        Args:
            h: h_{i-1}, float (B, gf, S, S).
            c: Not used.
            text: Text features of the batch. Words and mask are used.

        Returns:
            h_i, float (B, gf, 2S, 2S).
        """
        context = self.attention(h, text.words, text.mask)
        h_next: Tensor = self.up(self.residual(torch.cat([h, context], dim=1)))
        return h_next


class Network(Tree):
    """The generator's network. All scales have gf channels.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: AttnGANConfig, text: TextShape) -> None:
        widths = [config.gf] * config.scales
        super().__init__(config, text, widths, lambda i: NextStage(config, text.words))


def build(config: AttnGANConfig, text: TextShape, assets: Path | None) -> TreeGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return TreeGenerator(config, Network(config, text))
