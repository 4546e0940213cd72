"""The blocks of ADM's U-Net. Modules have the names of the paper's code, so that weights fit.

Source: Dhariwal & Nichol 2021, section 3 and appendix; keys and values of a text: Nichol et al.
2022 (GLIDE).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.recomputing import Recomputing
from t2i.plugins.common.diffusion.adm.config import AdmConfig


@dataclass(frozen=True)
class Vectors:
    """Vectors that attention reads beside the places of the image.

    Args:
        vectors: The vectors, float (B, D, L).
        mask: Which of them may be attended to, bool (B, L). None: all.
    """

    vectors: Tensor
    mask: Tensor | None = None


def activation(config: AdmConfig) -> nn.Module:
    """Build the nonlinearity.

    Args:
        config: Names it.

    Returns:
        The layer.
    """
    return nn.SiLU() if config.activation == "silu" else nn.GELU()


def norm(config: AdmConfig, channels: int) -> nn.GroupNorm:
    """Build a group normalisation.

    Args:
        config: Gives the number of groups.
        channels: Channels.

    Returns:
        The layer.
    """
    return nn.GroupNorm(config.groups, channels)


def zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """Set the parameters of a layer to 0, so that its block starts as the identity.

    Args:
        layer: The layer.

    Returns:
        The same layer.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    """Base of what a row of the U-Net consists of."""

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:
        """Compute the block's output.

        Args:
            x: Its input, float (B, C, h, w).
            emb: Timestep embedding after the nonlinearity, float (B, E).
            text: Further vectors that attention reads. None: there are none.

        Returns:
            The output, float (B, C', h', w').
        """
        raise NotImplementedError


class Row(Recomputing, nn.Sequential):
    """Blocks that are run in order, or a convolution."""

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:  # type: ignore[override]
        """Run the blocks.

        Args:
            x: Input of the first, float (B, C, h, w).
            emb: Timestep embedding after the nonlinearity, float (B, E).
            text: Further vectors that attention reads. None: there are none.

        Returns:
            Output of the last, float (B, C', h', w').
        """
        for block in self:
            more = (emb, text) if isinstance(block, Block) else ()
            x = self.through(block, x, *more)
        return x


def halved(x: Tensor) -> Tensor:
    """Average squares of 2x2 places.

    Args:
        x: Features, float (B, C, h, w).

    Returns:
        Features, float (B, C, h / 2, w / 2).
    """
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """Repeat every place in a square of 2x2 places.

    Args:
        x: Features, float (B, C, h, w).

    Returns:
        Features, float (B, C, 2h, 2w).
    """
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


RESAMPLED: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x, "down": halved, "up": doubled,
}  # fmt: skip
"""What residual blocks do to the resolution."""


class ResBlock(Block):
    """A residual block, which may halve or double the resolution.

    Args:
        config: Settings of the network.
        channels: Channels of the input.
        out: Channels of the output.
        resample: "down": halve the resolution; "up": double it; "": keep it.
    """

    def __init__(self, config: AdmConfig, channels: int, out: int, resample: str = "") -> None:
        super().__init__()
        self.scale_shift, self.skip_scale = config.scale_shift, config.skip_scale
        self.resample = resample
        self.in_layers = nn.Sequential(
            norm(config, channels), activation(config), nn.Conv2d(channels, out, 3, padding=1)
        )
        # The nonlinearity before this layer is the same in all blocks: the network applies it once.
        emb = nn.Linear(config.embedding_width, 2 * out if config.scale_shift else out)
        self.emb_layers = nn.Sequential(nn.Identity(), emb)
        self.out_layers = nn.Sequential(
            norm(config, out), activation(config), nn.Dropout(config.dropout),
            zeroed(nn.Conv2d(out, out, 3, padding=1)),
        )  # fmt: skip
        self.skip_connection: nn.Module = (
            nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)
        )

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:
        resampled = RESAMPLED[self.resample]
        h = self.in_layers[2](resampled(self.in_layers[:2](x)))
        shift = self.emb_layers(emb)[..., None, None]
        if self.scale_shift:
            scale, shift = shift.chunk(2, 1)
            h = self.out_layers[1:](torch.addcmul(shift, self.out_layers[0](h), 1 + scale))
        else:
            h = self.out_layers(h + shift)
        total: Tensor = self.skip_connection(resampled(x)) + h
        return total if self.skip_scale == 1 else total * self.skip_scale


class Downsample(Block):
    """A convolution that halves the resolution.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:
        halves: Tensor = self.op(x)
        return halves


class Upsample(Block):
    """A convolution after the resolution is doubled.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:
        doubles: Tensor = self.conv(doubled(x))
        return doubles


class Attention(Block):
    """Attention among the places of the image, and to further vectors.

    Args:
        config: Settings of the network.
        channels: Channels of the image's features.
        encoder_only: Whether it reads the further vectors only.
    """

    def __init__(self, config: AdmConfig, channels: int, encoder_only: bool = False) -> None:
        super().__init__()
        self.heads, self.kinds = config.heads_of(channels), config.qkv == "kinds"
        self.encoder_only = encoder_only
        self.norm = norm(config, channels)
        self.qkv = nn.Conv1d(channels, channels if encoder_only else 3 * channels, 1)
        wide = config.encoder_kv
        self.norm_encoder = norm(config, wide) if config.encoder_norm else None
        self.encoder_kv = nn.Conv1d(wide, 2 * channels, 1) if wide else None
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, emb: Tensor, text: Vectors | None) -> Tensor:
        parts = self._split(self.qkv(self.norm(x.flatten(2))), 1 if self.encoder_only else 3)
        q, mask = parts[0], None
        if self.encoder_kv is not None:
            if text is None:
                raise ValueError("this network attends to vectors: pass kv")
            vectors = text.vectors
            if self.norm_encoder is not None:
                vectors = self.norm_encoder(vectors)
            more = self._split(self.encoder_kv(vectors), 2)
            mask = None if text.mask is None else text.mask[:, None, None]
            if self.encoder_only:
                k, v = more
            else:
                k, v = (torch.cat(pair, 2) for pair in zip(more, parts[1:], strict=True))
                mask = None if mask is None else F.pad(mask, (0, q.shape[2]), value=True)
        else:
            k, v = parts[1:]
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.proj_out(gathered.transpose(2, 3).flatten(1, 2))
        return x + out.view_as(x)

    def _split(self, x: Tensor, kinds: int) -> tuple[Tensor, ...]:
        """Split (B, kinds * C, L) into queries, keys or values (B, heads, L, width) each."""
        count, _, places = x.shape
        if self.kinds:
            split = x.reshape(count, kinds, self.heads, -1, places)
            return split.transpose(3, 4).unbind(1)
        return x.reshape(count, self.heads, kinds, -1, places).transpose(3, 4).unbind(2)
