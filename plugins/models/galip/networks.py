"""Networks of GALIP (Tao et al. 2023), figures 2 to 4: Mate-G, Mate-D and the quality assessor, about a frozen CLIP."""

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
from t2i.plugins.common.gan.fusion import Fusion, UpBlock
from t2i.plugins.models.galip.config import GALIPConfig


def sizes(config: GALIPConfig, grid: int) -> list[int]:
    """What the G-blocks emit, a side: the power of two at or above CLIP's grid, doubled again and again, and the last.

    With CLIP's 7x7: 8, 16, 32, 64, 128, 224 (the authors, trained at 256), 8, 16, 32, 64, 224 (at 128).
    """
    first = 1 << (grid - 1).bit_length()
    blocks = config.blocks or (config.image_size // first).bit_length()
    return [first << i for i in range(blocks - 1)] + [config.last_size or config.image_size]


class BridgeBlock(nn.Module):
    """A block of Bridge-FP: x + fuse(conv(fuse(conv(x)))), narrow in the middle; x (B, width, g, g), c (B, Dc)."""

    def __init__(self, condition: int, width: int, middle: int, gain: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, middle, 3, padding=1)
        self.fuse1 = Fusion(condition, middle, gain)
        self.conv2 = nn.Conv2d(middle, width, 3, padding=1)
        self.fuse2 = Fusion(condition, width, gain)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.fuse1(self.conv1(x), c)
        fused: Tensor = x + self.fuse2(self.conv2(h), c)
        return fused


class GALIPGenerator(OneShotGenerator):
    """Mate-G: z and c = [z; e] become bridge features, which the frozen CLIP completes with what it knows of images,
    prompted by c; from both, blocks that upsample and fuse c draw the image.

    It owns the one CLIP that G, D and the similarity share. While training its images are unbounded, as there is no
    tanh (unless `bounded` asks for one); otherwise they are cut to [-1, 1].
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
        """Bridge-FP, the frozen ViT on its features, and both together: (B, 8 nf, g, g)."""
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
    """e (B, D), as all parts of the model see it."""
    return F.normalize(text.sentence, dim=1) if config.unit_text else text.sentence


class DiscriminatorBlock(nn.Module):
    """A block of Mate-D: shortcut(x) + gamma residual(x), and + beta f with the next of CLIP's features."""

    def __init__(self, c_in: int, c_out: int, gain: float, *, joined: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.gamma = nn.Parameter(torch.full((1,), gain))
        self.beta = nn.Parameter(torch.full((1,), gain)) if joined else None

    def forward(self, x: Tensor, f: Tensor | None = None) -> Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        h = F.leaky_relu(self.conv2(h), 0.2)
        x = self.shortcut(x) + self.gamma * h
        return x if f is None or self.beta is None else x + self.beta * f


class Discriminator(nn.Module):
    """Mate-D: CLIP's features of an image, one map a block (B, width, g, g) -> (B, judge_width, g, g)."""

    def __init__(self, config: GALIPConfig, width: int) -> None:
        super().__init__()
        gain, joined = config.residual_gain, len(config.feature_blocks) - 1
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(width, width, gain, joined=True) for _ in range(joined)
        )
        self.last = DiscriminatorBlock(width, config.judge_width, gain, joined=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[0]
        for block, f in zip(self.blocks, maps[1:], strict=True):
            x = block(x, f)
        judged: Tensor = self.last(x)
        return judged


class QualityAssessor(nn.Module):
    """C: Mate-D's features (B, judge_width, g, g) and sentences (B, D), once or several times -> (B,) scores each."""

    def __init__(self, config: GALIPConfig, sentence: int, grid: int) -> None:
        super().__init__()
        self.features = config.judge_width
        self.joint = nn.Conv2d(
            config.judge_width + sentence, config.assessor_width, min(4, grid), bias=False
        )
        self.score = nn.Conv2d(config.assessor_width, 1, grid + 1 - min(4, grid), bias=False)

    def forward(self, features: Tensor, *sentences: Tensor) -> tuple[Tensor, ...]:
        """A sentence is the same at every place, so that its part of the convolution is a linear map; the images'
        part is the same for all sentences."""
        image, word = self.joint.weight[:, : self.features], self.joint.weight[:, self.features :]
        seen, map_of = F.conv2d(features, image), word.sum((2, 3))
        hidden = (F.leaky_relu(seen + F.linear(e, map_of)[..., None, None], 0.2) for e in sentences)
        return tuple(self.score(h).flatten() for h in hidden)


def build(config: GALIPConfig, text: TextShape, assets: Path | None) -> GALIPGenerator:
    """The generator that the settings describe. Raises UserError if CLIP cannot be had, or is not deep enough."""
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
