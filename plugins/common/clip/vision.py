"""The image encoder of CLIP, run block by block.

GALIP reads the outputs of its blocks, and feeds features of its own to them in place of patch
embeddings. The network is that of transformers.

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
from t2i.plugins.common.clip.config import MEAN, STD, ClipVisionConfig
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted, refuse_foreign_code

FOLDER = "a folder with the config.json and model.safetensors of a CLIP"


class ClipVision(nn.Module):
    """CLIP's vision transformer.

    Blocks are numbered from 1. Maps are patch tokens (B, width, grid, grid), without the class
    token. The parameters are frozen; a trainer that trains them must unfreeze them.

    Args:
        config: How images are resized and normalised.
        network: The network of transformers; it becomes float32.

    Attributes:
        mean: Mean of each colour channel, (3, 1, 1).
        std: Standard deviation of each colour channel, (3, 1, 1).
        width: Width of the tokens.
        grid: Number of patches in a row and in a column.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClipVisionConfig, network: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.config = config
        inner: Any = network  # transformers' type annotations do not describe the inside
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
        """The blocks of the transformer."""
        blocks: nn.ModuleList = self.network.vision_model.encoder.layers
        return blocks

    def maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Compute the outputs of some blocks. Later blocks are not run.

        Args:
            images: Images, float (B, 3, H, H) in [-1, 1].
            blocks: Numbers of the blocks, from 1, ascending.

        Returns:
            A map for each of the blocks, float (B, width, grid, grid).
        """
        return self._watched(self._patches(images), blocks, max(blocks))[0]

    def embedding(self, images: Tensor) -> Tensor:
        """Encode images in the space that they share with text.

        Args:
            images: Images, float (B, 3, H, H) in [-1, 1].

        Returns:
            The embeddings, float (B, projection), not normalised.
        """
        return self.maps_and_embedding(images, ())[1]

    def maps_and_embedding(
        self, images: Tensor, blocks: Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """Compute `maps` and `embedding` in one pass.

        Args:
            images: Images, float (B, 3, H, H) in [-1, 1].
            blocks: Numbers of the blocks whose outputs are returned, from 1, ascending.

        Returns:
            The maps, and the embeddings.
        """
        maps, x = self._watched(self._patches(images), blocks, len(self.layers))
        norm, project = self.network.vision_model.post_layernorm, self.network.visual_projection
        embedding: Tensor = project(norm(x[:, 0]))
        return maps, embedding

    def completed(self, features: Tensor, prompts: Tensor, blocks: Sequence[int]) -> Tensor:
        """Run all blocks on given features instead of patch embeddings.

        Args:
            features: The features, float (B, width, grid, grid).
            prompts: Tokens, float (B, len(blocks), width). One is appended before each of `blocks`
                and dropped after it.
            blocks: Numbers of the blocks that are given a token, from 1.

        Returns:
            The last block's map, float (B, width, grid, grid).
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
        """Normalise and resize images for CLIP.

        The order does not matter for the result. Normalising first is cheaper, because the images
        are smaller.
        """
        scale, shift = (0.5, 0.5) if self.config.normalise == "once" else (0.25, 0.75)
        images = images * (scale / self.std) + (shift - self.mean) / self.std
        if images.shape[-1] == self.image_size:
            return images
        size = (self.image_size, self.image_size)
        if self.config.resize == "nearest":
            return F.interpolate(images, size)
        return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)

    def _tokens(self, patches: Tensor) -> Tensor:
        """Turn patches (B, width, grid, grid) into normalised tokens (B, 1 + grid^2, width).

        The class token comes first, and position embeddings are added.
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
        return x[:, 1:].transpose(1, 2).view(len(x), self.width, self.grid, self.grid)

    def _watched(
        self, patches: Tensor, blocks: Sequence[int], last: int
    ) -> tuple[list[Tensor], Tensor]:
        """Run blocks 1 to `last`; return the maps of `blocks`, and the last block's tokens.

        In CLIP's own last block only the class token is computed, unless that block's map is
        needed.
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

        Args:
            number: Number of the block, from 1.
            x: The tokens.
            beside: Further tokens (B, P, width) that are attended to and then dropped. They need no
                queries, because their own outputs are not used.
            kept: Only this many tokens, the first ones, are computed. None: all.

        Returns:
            The tokens, (B, L or kept, width).
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
        """Write the network's sizes. The weights are saved with the generator's.

        Args:
            folder: Folder of the saved model.
        """
        self.network.config.save_pretrained(folder)


def quick_gelu(h: Tensor) -> Tensor:
    """Compute CLIP's activation h sigmoid(1.702 h), in place.

    It is computed as silu(1.702 h) / 1.702, which reads and writes memory half as often, forward
    and backward.

    Args:
        h: Input, any shape. It is overwritten, so nothing else may need it.

    Returns:
        The activation, of the same shape.
    """
    return F.silu(h.mul_(1.702)).mul_(1 / 1.702)


def build_clip(
    config: ClipVisionConfig, sentence: int, assets: Path | None, what: str
) -> ClipVision:
    """Build the image encoder of CLIP.

    Args:
        config: Which weights, or the sizes of a new network.
        sentence: Width of the text encoder's sentence vectors; the network's output must have the
            same.
        assets: Folder of a saved model (`ClipVision.save_assets`), whose weights are loaded later.
            None: a new model.
        what: Name of the model in errors.

    Returns:
        The network: pretrained, new, or ready for the weights of a saved model.

    Raises:
        UserError: The weights cannot be obtained, or the output has another width.
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
