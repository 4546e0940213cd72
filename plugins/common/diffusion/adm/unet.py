"""ADM's U-Net and its encoder half.

Both have the state dicts of the paper's code (openai/guided-diffusion), of GLIDE's U-Net and of
DeepFloyd IF's, as far as they are a U-Net.

Source: Dhariwal & Nichol 2021.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.plugins.common.diffusion.adm.blocks import (
    Attention,
    Block,
    Downsample,
    ResBlock,
    Row,
    Upsample,
    Vectors,
    activation,
    norm,
    zeroed,
)
from t2i.plugins.common.diffusion.adm.config import AdmConfig


class AdmEncoding(nn.Module):
    """What the U-Net and the classifier share: embedding, encoder and middle.

    Args:
        config: Settings of the network.
        in_channels: Channels of the input.
        size: Height of the input in pixels, which says which levels have attention.

    Attributes:
        step: Height and width of the input may be any multiples of it.
        time_embed: Perceptron of the timestep embedding.
        input_blocks: Rows of the encoder, the first of which is a convolution.
        middle_block: Row between encoder and decoder.
        ends: Channels of the output of every row of the encoder.

    Raises:
        UserError: The channels of a level cannot be divided into attention heads.
    """

    def __init__(self, config: AdmConfig, in_channels: int, size: int) -> None:
        super().__init__()
        self.config, self.size, self.step = config, size, config.step
        emb = config.embedding_width
        self.time_embed = nn.Sequential(
            nn.Linear(config.base, emb), activation(config), nn.Linear(emb, emb)
        )
        self.activation = activation(config)
        width, last = config.widths[0], len(config.widths) - 1
        rows, self.ends = [Row(nn.Conv2d(in_channels, width, 3, padding=1))], [width]
        for level, out in enumerate(config.widths):
            for _ in range(config.depths[level]):
                rows.append(Row(ResBlock(config, width, out), *self.attention(level, out)))
                self.ends.append(width := out)
            if level < last:
                rows.append(Row(self._down(width)))
                self.ends.append(width)
        self.input_blocks = nn.ModuleList(rows)
        self.middle_block = Row(
            ResBlock(config, width, width),
            self._attention(last, width),
            ResBlock(config, width, width),
        )

    def attention(self, level: int, width: int) -> list[Block]:
        """Build the attention that follows each residual block of a level.

        Args:
            level: Number of the level, from 0.
            width: Its channels.

        Returns:
            The attention; [] if the level has none.
        """
        here = self.size >> level in self.config.attention
        return [self._attention(level, width)] if here else []

    def _attention(self, level: int, width: int) -> Attention:
        try:
            return Attention(self.config, width, self.size >> level in self.config.encoder_only)
        except ValueError as error:
            raise UserError(str(error)) from None

    def _down(self, width: int) -> Block:
        if self.config.residual_resampling:
            return ResBlock(self.config, width, width, "down")
        return Downsample(width)

    def embedded(self, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Embed timesteps.

        Args:
            t: Timesteps, (B,); they may be fractions.
            extra: What is added to the embedding, float (B, `embedding_width`). None: nothing.

        Returns:
            The embedding, after the nonlinearity with which every block would begin, float (B, E).
        """
        waves = get_timestep_embedding(
            t, self.config.base, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        emb = self.time_embed(waves.to(next(self.time_embed.parameters()).dtype))
        embedded: Tensor = self.activation(emb if extra is None else emb + extra)
        return embedded

    def encoded(self, x: Tensor, emb: Tensor, text: Vectors | None = None) -> list[Tensor]:
        """Run the encoder and the middle.

        Args:
            x: Input, float (B, C, h, w).
            emb: Embedding, as `embedded` returned it.
            text: Further vectors that attention reads. None: there are none.

        Returns:
            The outputs of all rows of the encoder, and that of the middle.
        """
        outputs: list[Tensor] = []
        for row in self.input_blocks:
            x = row(x, emb, text)
            outputs.append(x)
        return [*outputs, self.middle_block(x, emb, text)]


class AdmUNet(AdmEncoding):
    """ADM's U-Net.

    Args:
        config: Settings of the network.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Height of the input in pixels, which says which levels have attention.

    Raises:
        UserError: The channels of a level cannot be divided into attention heads.
    """

    def __init__(self, config: AdmConfig, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(config, in_channels, size)
        ends, width = list(self.ends), self.ends[-1]
        rows: list[Row] = []
        for level, out in reversed(list(enumerate(config.widths))):
            depth = config.depths[level]
            for i in range(depth + 1):
                up = [self._up(out)] if level and i == depth else []
                block = ResBlock(config, width + ends.pop(), out)
                rows.append(Row(block, *self.attention(level, out), *up))
                width = out
        self.output_blocks = nn.ModuleList(rows)
        self.out = nn.Sequential(
            norm(config, width), activation(config),
            zeroed(nn.Conv2d(width, out_channels, 3, padding=1)),
        )  # fmt: skip

    def _up(self, width: int) -> Block:
        if self.config.residual_resampling:
            return ResBlock(self.config, width, width, "up")
        return Upsample(width)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        emb_extra: Tensor | None = None,
        kv: Tensor | None = None,
        kv_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the network's output.

        Args:
            x: Input, float (B, in_channels, h, w).
            t: Timesteps, (B,); they may be fractions.
            emb_extra: What is added to the timestep embedding, such as a projected sentence, float
                (B, `embedding_width`). None: nothing.
            kv: Vectors that every attention reads beside the places of the image, float (B,
                encoder_kv, L). None: there are none.
            kv_mask: Which of them may be attended to, bool (B, L). None: all.

        Returns:
            The output, float (B, out_channels, h, w).
        """
        emb = self.embedded(t, emb_extra)
        text = None if kv is None else Vectors(kv, kv_mask)
        *skips, x = self.encoded(x, emb, text)
        for row in self.output_blocks:
            x = row(torch.cat([x, skips.pop()], 1), emb, text)
        output: Tensor = self.out(x)
        return output


class AttentionPool(nn.Module):
    """Pools the places of an image by attention, as CLIP does.

    The mean of all places is one place more; what attention returns for it is the output.

    Args:
        places: Number of places.
        width: Channels.
        heads: Attention heads.
        out: Channels of the output.
    """

    def __init__(self, places: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(width, places + 1) / width**0.5)
        self.qkv_proj = nn.Conv1d(width, 3 * width, 1)
        self.c_proj = nn.Conv1d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool.

        Args:
            x: Features, float (B, width, h, w), with h * w places.

        Returns:
            The pooled features, float (B, out).
        """
        x = x.flatten(2)
        x = torch.cat([x.mean(2, keepdim=True), x], 2) + self.positional_embedding
        q, k, v = self.qkv_proj(x).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        first = nn.functional.scaled_dot_product_attention(q[:, :, :1], k, v)
        pooled: Tensor = self.c_proj(first.transpose(2, 3).flatten(1, 2))
        return pooled[:, :, 0]


class AdmEncoder(AdmEncoding):
    """The encoder half of ADM's U-Net with attention pooling: its noisy classifier.

    Args:
        config: Settings of the network.
        in_channels: Channels of the input.
        out_channels: Channels of the output, such as the number of classes.
        size: Height and width of the input in pixels.

    Raises:
        UserError: The channels of a level cannot be divided into attention heads.
    """

    def __init__(self, config: AdmConfig, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(config, in_channels, size)
        width, side = self.ends[-1], size // config.step
        heads = config.heads_of(width)
        pool = AttentionPool(side * side, width, heads, out_channels)
        self.out = nn.Sequential(norm(config, width), activation(config), pool)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Compute the network's output.

        Args:
            x: Input, float (B, in_channels, size, size).
            t: Timesteps, (B,); they may be fractions.

        Returns:
            The output, such as the logits of the classes, float (B, out_channels).
        """
        output: Tensor = self.out(self.encoded(x, self.embedded(t))[-1])
        return output
