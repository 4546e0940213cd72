"""Networks of GALIP: the generator Mate-G, the discriminator Mate-D and its quality assessor.

All of them work with one frozen CLIP. Source: Tao et al. 2023, figures 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.gan.conditioning.fusion import Fusion, UpBlock
from t2i.plugins.models.galip.config import GALIPConfig


def sizes(config: GALIPConfig, grid: int) -> list[int]:
    """Return the output size of each generator block.

    The first block raises CLIP's grid to the next power of two, the following ones double it, and
    the last one reaches `last_size`. With CLIP's grid of 7x7 the authors' sizes are
    8, 16, 32, 64, 128, 224 where they train at 256 pixels, and 8, 16, 32, 64, 224 at 128 pixels.

    Args:
        config: The model's settings.
        grid: Side of CLIP's patch grid (7 for ViT-B/32).

    Returns:
        The side of each block's output in pixels, the first block first.
    """
    first = 1 << (grid - 1).bit_length()
    blocks = config.blocks or (config.image_size // first).bit_length()
    return [first << i for i in range(blocks - 1)] + [config.last_size or config.image_size]


class BridgeBlock(nn.Module):
    """A block of Bridge-FP: x + fuse(conv(fuse(conv(x)))), with fewer channels in the middle.

    Args:
        condition: Width of the condition c.
        width: Channels of the input and of the output.
        middle: Channels between the two convolutions.
        gain: Initial spread of the fusions' gamma and beta. At 0 they start as the identity.
    """

    def __init__(self, condition: int, width: int, middle: int, gain: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, middle, 3, padding=1)
        self.fuse1 = Fusion(condition, middle, gain)
        self.conv2 = nn.Conv2d(middle, width, 3, padding=1)
        self.fuse2 = Fusion(condition, width, gain)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Bridge features, float (B, width, g, g).
            c: Conditions, float (B, condition).

        Returns:
            Bridge features of the shape of `x`.
        """
        h = self.fuse1(self.conv1(x), c)
        fused: Tensor = x + self.fuse2(self.conv2(h), c)
        return fused


class GALIPGenerator(OneShotGenerator):
    """Mate-G, the generator: bridge features, completed by the frozen CLIP, become an image.

    Noise z and the condition c = [z; e] give bridge features. CLIP's transformer blocks, prompted
    by c, complete them. Blocks that upsample and fuse c into the features turn both into an image.

    The generator owns the one CLIP that generator, discriminator and similarity share. Without
    `bounded` there is no tanh: images are unbounded in training mode and clamped to [-1, 1] in
    evaluation mode.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
        clip: The image half of CLIP.
    """

    def __init__(self, config: GALIPConfig, text: TextShape, clip: ClipVision) -> None:
        super().__init__()
        self.config, self.clip = config, clip
        emitted = sizes(config, clip.grid)
        self.image_size = emitted[-1]
        self.noise_shape = (config.z_dim,)
        condition, width = config.z_dim + text.sentence, config.bridge_width
        channels = [config.nf * min(2**i, 8) for i in range(len(emitted) + 1)][::-1]
        self.start = nn.Linear(
            condition if config.start_from_text else config.z_dim, width * clip.grid**2
        )
        self.bridge = nn.ModuleList(
            BridgeBlock(condition, width, config.bridge_middle, config.fusion_gain)
            for _ in range(config.bridge_blocks)
        )
        self.to_clip = nn.Conv2d(width, clip.width, 5, padding=2)
        self.prompts = nn.Linear(condition, clip.width * len(config.prompt_blocks))
        self.from_clip = nn.Conv2d(clip.width, channels[0], 5, padding=2)
        self.sizes = emitted
        self.blocks = nn.ModuleList(
            UpBlock(condition, c_in, c_out, config.fusion_gain)
            for c_in, c_out in pairwise(channels)
        )
        self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        e = sentences(self.config, text)
        c = torch.cat([noise, e], dim=1)
        x = self._completed(self.start(c if self.config.start_from_text else noise), c)
        for block, size in zip(self.blocks, self.sizes, strict=True):
            x = block(x, c, size)
        images: Tensor = self.to_rgb(F.leaky_relu(x, 0.2))
        if self.config.bounded:
            return images.tanh()
        return images if self.training else images.clamp(-1, 1)

    def _completed(self, start: Tensor, c: Tensor) -> Tensor:
        """Return bridge features plus the frozen ViT's output on them, (B, C, g, g)."""
        grid = self.clip.grid
        x = start.view(len(c), -1, grid, grid)
        for block in self.bridge:
            x = block(x, c)
        bridge = self.to_clip(x)
        prompts = self.prompts(c).view(len(c), -1, self.clip.width)
        vit = self.clip.completed(bridge, prompts, self.config.prompt_blocks)
        completed: Tensor = self.from_clip(bridge + self.config.vit_gain * vit)
        return completed

    def save_assets(self, folder: Path) -> None:
        self.clip.save_assets(folder)


def sentences(config: GALIPConfig, text: TextFeatures) -> Tensor:
    """Return the sentence vectors e as every part of the model uses them.

    Args:
        config: The model's settings. `unit_text` divides each vector by its length.
        text: Text features of the batch.

    Returns:
        The sentence vectors, float (B, D).
    """
    return F.normalize(text.sentence, dim=1) if config.unit_text else text.sentence


class DiscriminatorBlock(nn.Module):
    """A block of Mate-D: shortcut(x) + gamma residual(x), plus beta f if CLIP features f join it.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        gain: Initial value of gamma and beta.
        joined: Whether CLIP features are added to the output.
    """

    def __init__(self, c_in: int, c_out: int, gain: float, *, joined: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.gamma = nn.Parameter(torch.full((1,), gain))
        self.beta = nn.Parameter(torch.full((1,), gain)) if joined else None

    def forward(self, x: Tensor, f: Tensor | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: Features, float (B, c_in, g, g).
            f: CLIP features to add, float (B, c_out, g, g). None: nothing is added. Ignored where
                the block is not `joined`.

        Returns:
            Features, float (B, c_out, g, g).
        """
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.conv2(h), 0.2)
        x = self.shortcut(x) + self.gamma * h
        return x if f is None or self.beta is None else x + self.beta * f


class Discriminator(nn.Module):
    """Mate-D, the discriminator without its output: it works on CLIP's features of an image.

    Args:
        config: The model's settings. With `judge_pixels` the pixels of each patch come before
            CLIP's features, by a linear map.
        clip: The image half of CLIP.
    """

    def __init__(self, config: GALIPConfig, clip: ClipVision) -> None:
        super().__init__()
        gain, width = config.residual_gain, config.pack * clip.width
        seen = 3 * config.pack * clip.patch**2
        self.pixels = nn.Conv2d(seen, width, 1) if config.judge_pixels else None
        joined = len(config.feature_blocks) - (self.pixels is None)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(width, width, gain, joined=True) for _ in range(joined)
        )
        self.last = DiscriminatorBlock(width, config.judge_width, gain, joined=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Combine the outputs of several CLIP blocks.

        Args:
            maps: One map for each of `feature_blocks`, each float (B, width, g, g). With
                `judge_pixels` the pixels come first, float (B, 3 patch^2, g, g).

        Returns:
            Features, float (B, judge_width, g, g). They do not depend on the text.
        """
        x = maps[0] if self.pixels is None else self.pixels(maps[0])
        for block, f in zip(self.blocks, maps[1:], strict=True):
            x = block(x, f)
        judged: Tensor = self.last(x)
        return judged


class QualityAssessor(nn.Module):
    """C, the quality assessor: it scores whether features are real and match a sentence.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
        grid: Side g of CLIP's patch grid.
    """

    def __init__(self, config: GALIPConfig, sentence: int, grid: int) -> None:
        super().__init__()
        self.features = config.judge_width
        self.joint = nn.Conv2d(
            config.judge_width + config.pack * sentence,
            config.assessor_width,
            min(4, grid),
            bias=False,
        )
        self.score = nn.Conv2d(config.assessor_width, 1, grid + 1 - min(4, grid), bias=False)

    def forward(self, features: Tensor, *sentences: Tensor) -> tuple[Tensor, ...]:
        """Score the images once with each batch of sentences.

        A sentence vector is the same at every position, so its half of the first convolution is a
        linear map. The images' half is computed once for all batches of sentences.

        Args:
            features: Mate-D's features, float (B, judge_width, g, g).
            *sentences: Batches of sentence vectors, each float (B, D).

        Returns:
            For each batch of sentences its scores, float (B,).
        """
        image, word = self.joint.weight[:, : self.features], self.joint.weight[:, self.features :]
        seen, map_of = F.conv2d(features, image), word.sum((2, 3))
        hidden = (F.leaky_relu(seen + F.linear(e, map_of)[..., None, None], 0.2) for e in sentences)
        return tuple(self.score(h).flatten() for h in hidden)


def build(config: GALIPConfig, text: TextShape, assets: Path | None) -> GALIPGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model with CLIP's configuration. None: CLIP is built or loaded as
            `config.clip` says.

    Returns:
        The generator, with its CLIP frozen.

    Raises:
        UserError: CLIP cannot be loaded, its embeddings do not fit the text's width, or it has
            fewer blocks than `feature_blocks` or `prompt_blocks` name.
    """
    clip = build_clip(config.clip, text.sentence, assets, "galip")
    for name, blocks in (
        ("feature_blocks", config.feature_blocks),
        ("prompt_blocks", config.prompt_blocks),
    ):
        if blocks and blocks[-1] > len(clip.layers):
            raise UserError(
                f"galip: {name} = {list(blocks)}, but this CLIP has {len(clip.layers)} blocks"
            )
    return GALIPGenerator(config, text, clip)
