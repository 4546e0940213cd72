"""ViT-VQGAN's encoder and decoder: transformers on patches.

Source: Yu et al. 2021 (arXiv:2110.04627), with the layout, weight for weight, of
thuanz123/enhancing-transformers@e1c185d, `ViTEncoder` and `ViTDecoder`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.tokens.tokenizer_config import ViTSizes, ViTTransformerSizes


def grid_sinusoids(width: int, side: int) -> Tensor:
    """Compute the fixed position vectors of the places of a grid.

    The first half of a vector are the sines and then the cosines of the column, the second half
    those of the row, with frequencies 10000^(-i / (width / 4)).

    Args:
        width: Width of a vector, a multiple of 4.
        side: Places in a row and in a column.

    Returns:
        The vectors, row by row, float (side^2, width).
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    columns, rows = axis.expand(side, side, -1), axis[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).float()


class Attention(nn.Module):
    """Multi-head attention among all places; queries, keys and values without biases.

    Args:
        sizes: Width and heads. The heads' own width times their number need not be the width.
    """

    def __init__(self, sizes: ViTTransformerSizes) -> None:
        super().__init__()
        self.heads, inner = sizes.heads, sizes.heads * sizes.head_width
        self.qkv = nn.Linear(sizes.width, 3 * inner, bias=False)
        plain = sizes.heads == 1 and sizes.head_width == sizes.width
        self.out = nn.Identity() if plain else nn.Linear(inner, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the attention.

        Args:
            x: Places, (B, N, width).

        Returns:
            What each gathered, (B, N, width).
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        found = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(rearrange(found, "b h n d -> b n (h d)"))
        return out


class Layer(nn.Module):
    """A layer: x + attention(LN(x)), then x + mlp(LN(x)) with a hyperbolic tangent inside.

    Args:
        sizes: Its sizes.
    """

    def __init__(self, sizes: ViTTransformerSizes) -> None:
        super().__init__()
        width = sizes.width
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(sizes)
        self.mlp = nn.Sequential(
            nn.Linear(width, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: Places, (B, N, width).

        Returns:
            The new places.
        """
        x = x + self.attention(self.norm_1(x))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out


class Transformer(nn.Module):
    """Layers, and a layer normalisation after the last, on the places of a grid.

    Args:
        sizes: Its sizes.
        side: Places in a row and in a column.
    """

    def __init__(self, sizes: ViTTransformerSizes, side: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(sizes) for _ in range(sizes.layers)))
        self.norm = nn.LayerNorm(sizes.width)
        # Fixed, and so not stored.
        self.register_buffer("positions", grid_sinusoids(sizes.width, side), persistent=False)
        self.positions: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Add positions, and apply the layers.

        Args:
            x: Features of a grid, (B, width, side, side).

        Returns:
            The new features, (B, width, side, side).
        """
        side = x.shape[-1]
        places = self.layers(rearrange(x, "b c h w -> b (h w) c") + self.positions)
        grid: Tensor = rearrange(self.norm(places), "b (h w) c -> b c h w", h=side)
        return grid


class ViTEncoder(nn.Module):
    """The encoder: images to features of a grid. Inside, images lie in [0, 1].

    Args:
        sizes: Sizes of the encoder, and the patch.
        side: Patches in a row and in a column of the image.
    """

    def __init__(self, sizes: ViTSizes, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, sizes.encoder.width, sizes.patch, stride=sizes.patch)
        self.transformer = Transformer(sizes.encoder, side)
        self.apply(_initialised)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Features, (B, width, h, w).
        """
        features: Tensor = self.transformer(self.patches((images + 1) / 2))
        return features


class ViTDecoder(nn.Module):
    """The decoder: features of a grid to images. Inside, images lie in [0, 1].

    Args:
        sizes: Sizes of the decoder, and the patch.
        side: Patches in a row and in a column of the image.
        channels: Channels of the output: 3, or 6 with scales.
    """

    def __init__(self, sizes: ViTSizes, side: int, channels: int = 3) -> None:
        super().__init__()
        self.transformer = Transformer(sizes.decoder, side)
        self.pixels = nn.ConvTranspose2d(
            sizes.decoder.width, channels, sizes.patch, stride=sizes.patch
        )
        self.apply(_initialised)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the last layer, by which an adversarial term may be scaled."""
        weight = self.pixels.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, z: Tensor) -> Tensor:
        """Decode features.

        Args:
            z: Features, (B, width, h, w).

        Returns:
            Images, (B, 3, H, W), about in [-1, 1]; scales follow as they are where there are some.
        """
        out: Tensor = self.pixels(self.transformer(z))
        return torch.cat([2 * out[:, :3] - 1, out[:, 3:]], 1)


def _initialised(module: nn.Module) -> None:
    """Initialise a layer as the authors' ViT: Xavier's uniform weights, no biases at first."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))


INNER = {
    "attn.norm": "norm_1", "attn.fn.to_qkv": "attention.qkv", "attn.fn.to_out": "attention.out",
    "ff.norm": "norm_2", "ff.fn.net.0": "mlp.0", "ff.fn.net.2": "mlp.2",
}  # fmt: skip
"""Our names of a layer's parts, by theirs; "attn" and "ff" stand for their 0 and 1."""


def renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of enhancing-transformers' `ViTVQ` to ours.

    Fixed position vectors and the networks of the loss are left out. The linear layers before and
    after the codebook become 1x1 convolutions.

    Args:
        theirs: Weights by the authors' names, such as `encoder.transformer.layers.0.0.norm.weight`.

    Returns:
        Weights by our names, those of an `ImageTokenizer`.
    """
    ours: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if name.startswith("loss.") or name.endswith("pos_embedding"):
            continue
        module, _, kind = name.rpartition(".")
        parts = module.split(".")
        if parts[:1] + parts[1:3] in (
            ["encoder", "transformer", "layers"], ["decoder", "transformer", "layers"]
        ):  # fmt: skip
            inner = ".".join([("attn", "ff")[int(parts[4])], *parts[5:]])
            module = ".".join([*parts[:4], INNER[inner]])
        elif module in OUTER:
            module = OUTER[module]
        if module in ("quant_conv", "post_quant_conv") and kind == "weight":
            value = value[:, :, None, None]
        ours[f"{module}.{kind}"] = value
    return ours


OUTER = {
    "encoder.to_patch_embedding.0": "encoder.patches", "decoder.to_pixel.1": "decoder.pixels",
    "pre_quant": "quant_conv", "post_quant": "post_quant_conv",
}  # fmt: skip
"""Our names of the other parts, by theirs."""
