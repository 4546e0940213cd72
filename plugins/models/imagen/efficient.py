"""The Efficient U-Net: most blocks at low resolution, and levels that change size at their edges.

Source: Saharia et al. 2022, section 2.4 and appendix B.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.models.imagen.config import EfficientConfig

SKIPPED = 0.5**0.5
"""Factor of the skip connections."""


class ResNetBlock(nn.Module):
    """Twice a normalisation, a nonlinearity and a convolution, plus the input.

    Args:
        config: Settings of the network.
        channels: Channels of the input.
        out: Channels of the output.
    """

    def __init__(self, config: EfficientConfig, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(config.groups, channels), nn.SiLU(),
            nn.Conv2d(channels, out, 3, padding=1),
        )  # fmt: skip
        self.second = nn.Sequential(
            nn.GroupNorm(config.groups, out), nn.SiLU(), nn.Dropout(config.dropout),
            nn.Conv2d(out, out, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output.

        Args:
            x: Features, float (B, channels, h, w).

        Returns:
            Features, float (B, out, h, w).
        """
        output: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return output


class Transformer(nn.Module):
    """Attention to the words, and perhaps among the places of the image, then a perceptron.

    Args:
        config: Settings of the network.
        channels: Channels.
        words: Width of a word.
        own: Whether places attend to each other too.
    """

    def __init__(self, config: EfficientConfig, channels: int, words: int, own: bool) -> None:
        super().__init__()
        self.heads, self.own = config.heads, own
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(channels, 2 * channels, bias=False) if own else None
        self.words = nn.Linear(words, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(),
            nn.Linear(2 * channels, channels),
        )  # fmt: skip
        for layer in (self.out, self.mlp[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Compute the block's output.

        Args:
            x: Features, float (B, C, h, w).
            words: Words, float (B, L, Dw).
            mask: Which of them count, bool (B, L).

        Returns:
            Features, float (B, C, h, w).
        """
        rows = x.flatten(2).mT
        places = self.norm(rows)
        kv = self.words(words)
        if self.kv is not None:
            kv = torch.cat([kv, self.kv(places)], 1)
            mask = F.pad(mask, (0, places.shape[1]), value=True)
        q = self.q(places).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = kv.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        rows = rows + self.out(gathered.transpose(1, 2).flatten(2))
        rows = rows + self.mlp(rows)
        result: Tensor = rows.mT.view_as(x)
        return result


class Level(nn.Module):
    """One level, down or up: embeddings, residual blocks and attention.

    Args:
        config: Settings of the network.
        level: Number of the level, from 0.
        channels: Channels of the input.
        embedding: Width of the time embedding.
        words: Width of a word.
    """

    def __init__(
        self, config: EfficientConfig, level: int, channels: int, embedding: int, words: int
    ) -> None:
        super().__init__()
        out, attends = config.channels[level], config.attention[level]
        self.combine = nn.Sequential(nn.SiLU(), nn.Linear(embedding, channels))
        self.blocks = nn.Sequential(
            *(ResNetBlock(config, out if i else channels, out) for i in range(config.blocks[level]))
        )
        self.attention: Transformer | None = None
        if attends != "none":
            self.attention = Transformer(config, out, words, attends == "both")

    def forward(self, x: Tensor, emb: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Run the level.

        Args:
            x: Features, float (B, channels, h, w).
            emb: Embedding, float (B, embedding).
            words: Words, float (B, L, Dw).
            mask: Which of them count, bool (B, L).

        Returns:
            Features, float (B, C, h, w).
        """
        x = self.blocks(x + self.combine(emb)[..., None, None])
        return x if self.attention is None else self.attention(x, words, mask)


class EfficientUNet(nn.Module):
    """The Efficient U-Net.

    On the way down a level first halves the resolution by a convolution; on the way up it doubles
    it last. So the blocks of a level run at its lower resolution.

    Args:
        config: Settings of the network.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        words: Width of a word.
    """

    def __init__(
        self, config: EfficientConfig, in_channels: int, out_channels: int, words: int
    ) -> None:
        super().__init__()
        self.config, self.step = config, config.step
        widths, first = config.channels, config.channels[0]
        self.embedding_width = 4 * first
        self.stem = nn.Conv2d(in_channels, first, 3, padding=1)
        self.time = nn.Sequential(
            nn.Linear(first, self.embedding_width), nn.SiLU(),
            nn.Linear(self.embedding_width, self.embedding_width),
        )  # fmt: skip
        given = (self.embedding_width, words)
        above = (first, *widths[:-1])
        self.downs = nn.ModuleList(
            nn.Conv2d(before, width, 3, stride=2, padding=1)
            for before, width in zip(above, widths, strict=True)
        )
        self.encoder = nn.ModuleList(
            Level(config, i, width, *given) for i, width in enumerate(widths)
        )
        # What comes from below has the channels of this level already: `ups` changes them.
        self.decoder = nn.ModuleList(
            Level(config, i, 2 * width, *given) for i, width in enumerate(widths)
        )
        self.ups = nn.ModuleList(
            nn.Conv2d(width, before, 3, padding=1)
            for before, width in zip(above, widths, strict=True)
        )
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, 2 * first), nn.SiLU(),
            nn.Conv2d(2 * first, out_channels, 1),
        )  # fmt: skip
        for parameter in self.out[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, extra: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Compute the network's output.

        Args:
            x: Input, float (B, in_channels, h, w).
            t: Timesteps, (B,); they may be fractions.
            extra: What is added to the time embedding, float (B, `embedding_width`).
            words: Words, float (B, L, Dw).
            mask: Which of them count, bool (B, L).

        Returns:
            The output, float (B, out_channels, h, w).
        """
        waves = get_timestep_embedding(
            t, self.config.channels[0], flip_sin_to_cos=True, downscale_freq_shift=0
        )
        emb = self.time(waves.to(extra.dtype)) + extra
        skips = [x := self.stem(x)]
        for down, level in zip(self.downs, self.encoder, strict=True):
            skips.append(x := level(down(x), emb, words, mask))
        for up, level in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x = level(torch.cat([x, SKIPPED * skips.pop()], 1), emb, words, mask)
            x = up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        output: Tensor = self.out(torch.cat([x, SKIPPED * skips.pop()], 1))
        return output
