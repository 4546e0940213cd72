"""CLIP's image encoder, transformers' network, run block by block.

GALIP reads the outputs of single blocks, and enters the network behind the patch embedding.

Source: Radford et al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from t2i.core.errors import UserError
from t2i.core.registry.tables import registry
from t2i.plugins.common.clip.config import MEAN, STD, ClipVisionConfig
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted, refuse_foreign_code

FOLDER = "a folder with the config.json and model.safetensors of a CLIP"


class ClipVision(nn.Module):
    """CLIP's vision transformer.

    Blocks are numbered from 1. A map is a block's patch tokens as (B, width, grid, grid), without
    the class token. The parameters are frozen here; a trainer that trains them must unfreeze them.

    Args:
        config: How images are resized and normalised. The sizes are taken from `network`.
        network: The network of transformers. It is converted to float32.

    Attributes:
        mean: Mean of each colour channel, (3, 1, 1), for images in [0, 1].
        std: Standard deviation of each colour channel, (3, 1, 1), for images in [0, 1].
        image_size: Height and width of the network's input in pixels.
        width: Width of the tokens.
        heads: Attention heads of each block.
        grid: Patches along a side of the image.
        quick: Whether the activation is `quick_gelu`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClipVisionConfig, network: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.config = config
        inner: Any = network  # transformers' types do not describe the parts
        self.network: Any = inner.float().requires_grad_(False)
        sizes = inner.config
        self.image_size: int = sizes.image_size
        self.width: int = sizes.hidden_size
        self.heads: int = sizes.num_attention_heads
        self.patch: int = sizes.patch_size
        self.grid: int = sizes.image_size // sizes.patch_size
        self.quick: bool = sizes.hidden_act == "quick_gelu"
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the transformer."""
        blocks: nn.ModuleList = self.network.vision_model.encoder.layers
        return blocks

    def maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Compute the outputs of some blocks. Blocks after the last of them are not run.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].
            blocks: Numbers of the blocks, from 1, ascending; at least one.

        Returns:
            The map of each of `blocks`, (B, width, grid, grid).
        """
        return self._watched(self._patches(images), blocks, max(blocks))[0]

    def tokens(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Compute all tokens after some blocks, the class token first. Later blocks are not run.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].
            blocks: Numbers of the blocks, from 1, ascending; at least one.

        Returns:
            The tokens (B, 1 + grid^2, width) after each of `blocks`, and at the end of the list
            those that the first block receives.
        """
        first = x = self._tokens(self._patches(images))
        found = []
        for number in range(1, max(blocks) + 1):
            x = self._block(number, x)
            if number in blocks:
                found.append(x)
        return [*found, first]

    def pixels(self, images: Tensor) -> Tensor:
        """Return the pixels of the patches that CLIP sees.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].

        Returns:
            The pixels (B, 3 patch^2, grid, grid), in [-1, 1] as the images.
        """
        return F.pixel_unshuffle(self._resized(images), self.patch)

    def embedding(self, images: Tensor) -> Tensor:
        """Compute the vectors of images in the space they share with text.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].

        Returns:
            Vectors (B, projection_dim), not normalised.
        """
        return self.maps_and_embedding(images, ())[1]

    def maps_and_embedding(
        self, images: Tensor, blocks: Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """Compute `maps` and `embedding` in one pass.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].
            blocks: Numbers of the blocks, from 1, ascending; may be empty.

        Returns:
            The map of each of `blocks`, (B, width, grid, grid), and the vectors (B,
            projection_dim).
        """
        maps, x = self._watched(self._patches(images), blocks, len(self.layers))
        norm, project = self.network.vision_model.post_layernorm, self.network.visual_projection
        embedding: Tensor = project(norm(x[:, 0]))
        return maps, embedding

    def completed(self, features: Tensor, prompts: Tensor, blocks: Sequence[int]) -> Tensor:
        """Run all blocks on features that take the place of the patch embeddings.

        Args:
            features: Features (B, width, grid, grid).
            prompts: One token for each of `blocks`, (B, len(blocks), width). The block attends to
                it besides its own tokens; it is dropped after the block.
            blocks: Numbers of the blocks that get a prompt, from 1.

        Returns:
            The map of the last block, (B, width, grid, grid).
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
        """Normalise images and resize them to CLIP's input.

        Normalising first is cheaper, since the images are mostly smaller, and gives the same
        result.
        """
        scale, shift = (0.5, 0.5) if self.config.normalise == "once" else (0.25, 0.75)
        return self._resized(images * (scale / self.std) + (shift - self.mean) / self.std)

    def _resized(self, images: Tensor) -> Tensor:
        if images.shape[-1] == self.image_size:
            return images
        size = (self.image_size, self.image_size)
        if self.config.resize == "nearest":
            return F.interpolate(images, size)
        return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)

    def _tokens(self, patches: Tensor) -> Tensor:
        """Build the first block's input (B, 1 + grid^2, width) from patches (B, width, grid, grid).

        The class token comes first; positions are added, and the first layer norm is applied.
        """
        vision = self.network.vision_model
        first = vision.embeddings.class_embedding.expand(len(patches), 1, -1)
        x = (
            torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
            + vision.embeddings.position_embedding.weight
        )
        tokens: Tensor = vision.pre_layrnorm(x)
        return tokens

    def _map(self, x: Tensor) -> Tensor:
        """Return tokens (B, 1 + grid^2, width) as a map, without the class token."""
        return x[:, 1:].transpose(1, 2).view(len(x), self.width, self.grid, self.grid)

    def _watched(
        self, patches: Tensor, blocks: Sequence[int], last: int
    ) -> tuple[list[Tensor], Tensor]:
        """Run blocks 1 to `last`; return the maps of `blocks`, and the last block's tokens.

        In CLIP's own last block only the class token is computed, unless its map is in `blocks`.
        """
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
        """Run one pre-norm transformer block on x (B, L, width).

        Tokens `beside` (B, P, width) are attended to and then dropped. Their outputs are not
        needed, so they have no queries. `kept`: only this many tokens, the first ones, are
        computed; None: all.
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
        """Write the network's configuration. Its weights are saved with the generator's.

        Args:
            folder: The folder that config.json is written to.
        """
        self.network.config.save_pretrained(folder)


def quick_gelu(h: Tensor) -> Tensor:
    """Apply CLIP's activation, h sigmoid(1.702 h).

    It is computed as silu(1.702 h) / 1.702, which reads and writes memory half as often, forward
    and backward.

    Args:
        h: Any tensor. It is overwritten, so nothing else may use it.

    Returns:
        A tensor of the same shape.
    """
    return F.silu(h.mul_(1.702)).mul_(1 / 1.702)


def build_clip(
    config: ClipVisionConfig, sentence: int, assets: Path | None, what: str
) -> ClipVision:
    """Build CLIP's image encoder.

    Args:
        config: Which weights to load, or the sizes of a new network.
        sentence: Width of the text encoder's sentences, which must be the width of the image
            vectors.
        assets: Folder that `ClipVision.save_assets` wrote; its weights are loaded later. None: a
            new model.
        what: The model, as errors name it.

    Returns:
        The network: pretrained, or with random weights, or (with `assets`) still to be loaded.

    Raises:
        UserError: The weights cannot be loaded, or the image vectors are not as wide as the
            sentences.
    """
    if assets is not None:
        refuse_foreign_code(CLIPVisionConfig, assets, what)
        network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(assets))
    elif config.weights is None:
        network = _fresh(config, sentence)
    elif torch.empty(0).is_meta and (folder := registry().shipped(config.weights)):
        # On the meta device weights have no values, so none are loaded.
        network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(folder))
    else:
        network = load_clip(
            CLIPVisionModelWithProjection,
            Wanted(what, "clip.weights", config.weights, config.revision, FOLDER),
        )
    width = network.config.projection_dim
    if width != sentence:
        raise UserError(
            f"{what}: sentences of {sentence} numbers cannot be compared with the {width} of "
            f"CLIP's images: use "
            "--encoder clip with the text half of the same CLIP (encoder.weights, clip.weights)"
        )
    return ClipVision(config, network)


def _fresh(config: ClipVisionConfig, sentence: int) -> CLIPVisionModelWithProjection:
    """Build a new network of the sizes that the settings give."""
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
