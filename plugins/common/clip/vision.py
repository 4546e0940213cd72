"""The image half of CLIP (Radford et al. 2021), as transformers has it, run block by block: GALIP taps its blocks, and
enters it behind the patch embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from t2i.core.errors import UserError
from t2i.plugins.common.clip.config import MEAN, STD, ClipVisionConfig
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted, refuse_foreign_code

FOLDER = "a folder with the config.json and model.safetensors of a CLIP"


class ClipVision(nn.Module):
    """CLIP's vision transformer. width: of its tokens. grid: of its patches, a side.

    Blocks count from 1. Maps are patch tokens (B, width, grid, grid), without the class token. The parameters come
    frozen; whoever trains them says so.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClipVisionConfig, network: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.config = config
        inner: Any = network  # transformers' types know little of what is inside
        self.network: Any = inner.float().requires_grad_(False)
        sizes = inner.config
        self.image_size: int = sizes.image_size
        self.width: int = sizes.hidden_size
        self.heads: int = sizes.num_attention_heads
        self.grid: int = sizes.image_size // sizes.patch_size
        self.quick: bool = sizes.hidden_act == "quick_gelu"
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer's blocks."""
        blocks: nn.ModuleList = self.network.vision_model.encoder.layers
        return blocks

    def maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """The outputs of some blocks (ascending), for images (B, 3, H, H) in [-1, 1]; no later block is run."""
        return self._watched(self._patches(images), blocks, max(blocks))[0]

    def embedding(self, images: Tensor) -> Tensor:
        """(B, projection): the images in the space that they share with text; not normalised."""
        return self.maps_and_embedding(images, ())[1]

    def maps_and_embedding(
        self, images: Tensor, blocks: Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """`maps` and `embedding` in one pass."""
        maps, x = self._watched(self._patches(images), blocks, len(self.layers))
        norm, project = self.network.vision_model.post_layernorm, self.network.visual_projection
        embedding: Tensor = project(norm(x[:, 0]))
        return maps, embedding

    def completed(self, features: Tensor, prompts: Tensor, blocks: Sequence[int]) -> Tensor:
        """All blocks on given features (B, width, grid, grid) in the patch embeddings' place -> the last block's map.

        prompts (B, len(blocks), width): one token appended for each of `blocks`, and dropped after it.
        """
        x = self._tokens(features)
        appended = dict(zip(blocks, prompts.unbind(1), strict=True))
        for number in range(1, len(self.layers) + 1):
            x = self._block(
                number, x, appended[number].unsqueeze(1) if number in appended else None
            )
        return self._map(x)

    def _patches(self, images: Tensor) -> Tensor:
        patches: Tensor = self.network.vision_model.embeddings.patch_embedding(
            self._normalised(images)
        )
        return patches

    def _normalised(self, images: Tensor) -> Tensor:
        """What CLIP looks at. The shifts and scales come first, being cheaper on small images, and commute."""
        scale, shift = (0.5, 0.5) if self.config.normalise == "once" else (0.25, 0.75)
        images = images * (scale / self.std) + (shift - self.mean) / self.std
        if images.shape[-1] == self.image_size:
            return images
        size = (self.image_size, self.image_size)
        if self.config.resize == "nearest":
            return F.interpolate(images, size)
        return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)

    def _tokens(self, patches: Tensor) -> Tensor:
        """(B, width, grid, grid) -> (B, 1 + grid^2, width): behind the class token, with positions, normed."""
        vision = self.network.vision_model
        first = vision.embeddings.class_embedding.expand(len(patches), 1, -1)
        x = (
            torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
            + vision.embeddings.position_embedding.weight
        )
        tokens: Tensor = vision.pre_layrnorm(x)
        return tokens

    def _map(self, x: Tensor) -> Tensor:
        return x[:, 1:].transpose(1, 2).view(len(x), self.width, self.grid, self.grid)

    def _watched(
        self, patches: Tensor, blocks: Sequence[int], last: int
    ) -> tuple[list[Tensor], Tensor]:
        """Runs blocks 1 to `last`: the maps of `blocks`, and the last block's tokens. Of CLIP's own last block only
        the class token is computed, where nobody watches the others."""
        x, maps = self._tokens(patches), []
        for number in range(1, last + 1):
            unwatched = number == len(self.layers) and number not in blocks
            x = self._block(number, x, kept=1 if unwatched else None)
            if number in blocks:
                maps.append(self._map(x))
        return maps, x

    def _block(
        self, number: int, x: Tensor, beside: Tensor | None = None, kept: int | None = None
    ) -> Tensor:
        """One pre-norm transformer block on x (B, L, width).

        beside (B, P, width): tokens that are attended to, and dropped: as their own outputs are not wanted, they need
        no queries. kept: only so many tokens, the first ones, go on.
        """
        layer: Any = self.layers[number - 1]
        attention, h = layer.self_attn, layer.layer_norm1(x)
        context = h if beside is None else torch.cat([h, layer.layer_norm1(beside)], 1)
        q, k, v = (
            attention.q_proj(h[:, :kept]),
            attention.k_proj(context),
            attention.v_proj(context),
        )
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        heard = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x[:, :kept] + attention.out_proj(heard)
        h = layer.mlp.fc1(layer.layer_norm2(x))
        h = quick_gelu(h) if self.quick else layer.mlp.activation_fn(h)
        out: Tensor = x + layer.mlp.fc2(h)
        return out

    def save_assets(self, folder: Path) -> None:
        """The network's sizes: the weights are among the generator's."""
        self.network.config.save_pretrained(folder)


def quick_gelu(h: Tensor) -> Tensor:
    """h sigmoid(1.702 h), CLIP's activation, as silu(1.702 h) / 1.702, which goes over memory half as often, forward
    and backward. It overwrites h, which must be an output that nobody else needs."""
    return F.silu(h.mul_(1.702)).mul_(1 / 1.702)


def build_clip(
    config: ClipVisionConfig, sentence: int, assets: Path | None, what: str
) -> ClipVision:
    """Builds the image half of CLIP.

    Args:
        config: Which weights, or the sizes of a fresh network.
        sentence: Width of the text encoder's sentences, in whose space the network must end.
        assets: Folder of a saved model (`ClipVision.save_assets`); its weights are loaded later. None: a new model.
        what: The model that asks, named in errors.

    Returns:
        The network: with its weights, fresh, or ready for those of a saved model.

    Raises:
        UserError: The weights cannot be had, or do not end in that space.
    """
    if assets is not None:
        refuse_foreign_code(CLIPVisionConfig, assets, what)
        network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(assets))
    elif config.weights is None:
        network = _fresh(config, sentence)
    else:
        network = load_clip(
            CLIPVisionModelWithProjection,
            Wanted(what, "clip.weights", config.weights, config.revision, FOLDER),
        )
    width = network.config.projection_dim
    if width != sentence:
        raise UserError(
            f"{what}: sentences of {sentence} numbers cannot be compared with the {width} of "
            "CLIP's images: use --encoder clip with the text half of the same CLIP "
            "(encoder.weights, clip.weights)"
        )
    return ClipVision(config, network)


def _fresh(config: ClipVisionConfig, sentence: int) -> CLIPVisionModelWithProjection:
    sizes = CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        projection_dim=sentence,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
    )
    return CLIPVisionModelWithProjection(sizes)
