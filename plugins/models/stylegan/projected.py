"""The discriminator of StyleGAN-T: small heads on the tokens of a frozen vision transformer.

Source: Sauer et al. 2023, section 3.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.plugins.common.clip.vision import ClipVision
from t2i.plugins.common.gan.blocks.spectral import LEGACY, SpectralConv1d
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.layers import EqualLinear

DINO = "vit_small_patch16_224.dino"
VIRTUAL_BATCH = 8
"""Images that batch normalisation in a head takes together."""


class Eye(nn.Module, ABC):
    """A frozen vision transformer whose tokens a discriminator judges.

    Attributes:
        image_size: Height and width of its input in pixels.
        patch: Height and width of a patch in pixels.
        width: Width of the tokens.
        depth: Number of its blocks.
    """

    image_size: int
    patch: int
    width: int
    depth: int

    @abstractmethod
    def tokens(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Compute tokens.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).
            blocks: Numbers of the blocks, from 1, ascending.

        Returns:
            The tokens (B, 1 + patches, width) after each of `blocks`, the class token first, and at
            the end of the list those before the first block.
        """

    def forward(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Compute what the heads see: the patches' tokens, each plus the class token.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).
            blocks: Numbers of the blocks, from 1, ascending.

        Returns:
            Maps (B, width, patches), in the order of `tokens`.
        """
        return [(x[:, 1:] + x[:, :1]).transpose(1, 2) for x in self.tokens(images, blocks)]

    def resized(self, images: Tensor) -> Tensor:
        """Resize images to the network's input, by averages over areas.

        Args:
            images: Images, float (B, 3, H, H).

        Returns:
            Images, float (B, 3, image_size, image_size).
        """
        if images.shape[-1] == self.image_size:
            return images
        return F.interpolate(images, (self.image_size, self.image_size), mode="area")


class DinoEye(Eye):
    """DINO ViT-S/16 of timm.

    Args:
        network: The network of timm, a vision transformer.

    Attributes:
        mean: Mean of each colour channel, for images in [0, 1], (3, 1, 1).
        std: Standard deviation of each colour channel, (3, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network.requires_grad_(False)
        self.image_size = int(network.patch_embed.img_size[0])
        self.patch = int(network.patch_embed.patch_size[0])
        self.width = int(network.embed_dim)
        self.depth = len(network.blocks)
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def tokens(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        x = self.resized(images)
        x = x * (0.5 / self.std) + (0.5 - self.mean) / self.std
        x = self.network._pos_embed(self.network.patch_embed(x))
        first, found = x, []
        x = self.network.norm_pre(x)
        for number, block in enumerate(self.network.blocks[: blocks[-1]], 1):
            x = block(x)
            if number in blocks:
                found.append(x)
        return [*found, first]


class ClipEye(Eye):
    """The image half of a CLIP.

    Args:
        clip: The network.
    """

    def __init__(self, clip: ClipVision) -> None:
        super().__init__()
        self.clip = clip
        self.image_size, self.patch, self.width = clip.image_size, clip.patch, clip.width
        self.depth = len(clip.layers)

    def tokens(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        return self.clip.tokens(images, blocks)


class GroupedNorm(nn.Module):
    """Batch normalisation over groups of at most eight images, without running statistics.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group over its images and places.

        Args:
            x: Features, float (B, C, L).

        Returns:
            Features of the same shape.
        """
        images = len(x)
        groups = -(-images // VIRTUAL_BATCH)
        while images % groups:  # the authors' code takes multiples of the group only
            groups += 1
        h = x.reshape(groups, -1, *x.shape[1:])
        var, mean = torch.var_mean(h, (1, 3), unbiased=False, keepdim=True)
        factor = self.weight[:, None] * (var + 1e-5).rsqrt()
        h = h * factor + (self.bias[:, None] - mean * factor)
        features: Tensor = h.flatten(0, 1)
        return features


class HeadBlock(nn.Module):
    """A spectrally normalised convolution over the sequence, normalisation and a leaky ReLU.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Places under the kernel, an odd number. The ends of the sequence meet.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = SpectralConv1d(c_in, c_out, kernel, kernel // 2, "circular", rule=LEGACY)
        self.norm: nn.Module = GroupedNorm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c_in, L).

        Returns:
            Features, float (B, c_out, L).
        """
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class Head(nn.Module):
    """Judges the tokens of one depth.

    Args:
        c_in: Channels of the input.
        width: Channels of the convolutions.
        sentence: Width of a sentence vector.
        projected: Width of the space in which image and sentence are compared.
        kernel: Places under the kernel of the second convolution.
    """

    def __init__(self, c_in: int, width: int, sentence: int, projected: int, kernel: int) -> None:
        super().__init__()
        self.first = HeadBlock(c_in, width, 1)
        self.second = HeadBlock(width, width, kernel)
        self.out = SpectralConv1d(width, projected, 1, rule=LEGACY)
        self.text = EqualLinear(sentence, projected)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            x: Tokens, float (B, c_in, L).

        Returns:
            Features, float (B, projected, L).
        """
        h = self.first(x)
        h = (h + self.second(h)) * math.sqrt(0.5)
        features: Tensor = self.out(h)
        return features

    def score(self, features: Tensor, c: Tensor) -> Tensor:
        """Score each token of an image with its sentence.

        Args:
            features: What `forward` returned.
            c: Sentence vectors, float (B, D).

        Returns:
            Logits, float (B, L).
        """
        projection = self.text(c) / math.sqrt(features.shape[1])
        return torch.einsum("bpl,bp->bl", features, projection)


class ProjectedDiscriminator(nn.Module):
    """D without its frozen network: one head for each depth.

    Args:
        config: The model's settings.
        eye: The frozen network. It is not a part of this module.
        sentence: Width of a sentence vector.

    Raises:
        UserError: The network has fewer blocks than `eye_blocks` names.
    """

    def __init__(self, config: StyleGANConfig, eye: Eye, sentence: int) -> None:
        super().__init__()
        if config.eye_blocks[-1] > eye.depth:
            raise UserError(
                f"stylegan: eye_blocks = {list(config.eye_blocks)}, but the frozen network has "
                f"{eye.depth} blocks"
            )
        inputs = [eye.width] * (len(config.eye_blocks) + 1)
        if config.eye_pixels:
            inputs.append(3 * eye.patch**2)
        width, m = config.head_width or eye.width, config.pack
        self.heads = nn.ModuleList(
            Head(m * c_in, width, m * sentence, config.head_projected, config.head_kernel)
            for c_in in inputs
        )
        if config.critic_norm == "layer":
            blocks = [module for module in self.modules() if isinstance(module, HeadBlock)]
            for block in blocks:
                block.norm = nn.GroupNorm(1, width)
        elif config.twice:
            raise UserError(
                f"stylegan: {config.twice}: the heads normalise over several images, so a score "
                "has no gradient of its own: use critic_norm=layer"
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the features of images.

        Args:
            maps: One map for each head, float (B, width, L).

        Returns:
            Features of each head, float (B, projected, L).
        """
        return [head(x) for head, x in zip(self.heads, maps, strict=True)]

    def score(self, features: Sequence[Tensor], c: Tensor) -> Tensor:
        """Score images with sentences.

        Args:
            features: What `forward` returned.
            c: Sentence vectors, float (B, D).

        Returns:
            Logits of all tokens of all heads, float (B, heads * L).
        """
        scores = [head.score(x, c) for head, x in zip(self.heads, features, strict=True)]  # type: ignore[operator]
        return torch.cat(scores, dim=1)


def seen_by(eye: Eye, config: StyleGANConfig, images: Tensor, share: Tensor | None) -> list[Tensor]:
    """Compute the maps that the heads judge.

    Args:
        eye: The frozen network.
        config: The model's settings.
        images: Images in [-1, 1], float (B, 3, H, H).
        share: Three numbers in [0, 1) for each image, float (B, 3): whether a crop is taken of an
            image that is larger than the network's input, and where. None: never.

    Returns:
        The maps, in the order of the heads.
    """
    if share is not None and images.shape[-1] > eye.image_size:
        images = _cropped(images, eye, share, config.crop)
    maps: list[Tensor] = eye(images, config.eye_blocks)
    if config.eye_pixels:
        maps.append(F.pixel_unshuffle(eye.resized(images), eye.patch).flatten(2))
    return maps


def _cropped(images: Tensor, eye: Eye, share: Tensor, probability: float) -> Tensor:
    """Take a crop at full resolution of some images, and make the others smaller."""
    side, room = eye.image_size, images.shape[-1] - eye.image_size + 1
    corners = (share[:, 1:] * room).long().tolist()
    crops = torch.stack(
        [
            image[:, y : y + side, x : x + side]
            for image, (y, x) in zip(images, corners, strict=True)
        ]
    )
    chosen = (share[:, 0] < probability)[:, None, None, None]
    return torch.where(chosen, crops, eye.resized(images))


def build_dino(config: StyleGANConfig) -> DinoEye:
    """Build DINO ViT-S/16 with its pretrained weights.

    Args:
        config: The model's settings.

    Returns:
        The frozen network.

    Raises:
        UserError: The weights cannot be obtained, or are those of another network.
    """
    what, file = "stylegan: DINO", "model.safetensors"

    def load(source: str, offline: bool) -> dict[str, Tensor]:
        folder = Path(source)
        if folder.is_dir():
            return load_tensors(folder / file, what)
        path = hf_hub_download(
            source, file, revision=config.dino_revision, local_files_only=offline
        )
        return load_tensors(Path(path), what)

    source = Path(config.dino_weights).expanduser()
    if source.is_file():
        state = load_tensors(source, what)
    else:
        wanted = Wanted(
            what, "dino_weights", config.dino_weights, config.dino_revision,
            f"a folder with {file}",
            "'t2i fetch dino-vit-s-16', or set dino_weights to a .safetensors file",
        )  # fmt: skip
        state = obtained(wanted, load)
    network: Any = timm.create_model(DINO, pretrained=False, num_classes=0)
    load_state(network, state, f"{what}: {config.dino_weights}")
    return DinoEye(network)
