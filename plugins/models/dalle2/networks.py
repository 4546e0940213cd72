"""DALL-E 2 as a whole: CLIP, a prior, a decoder and upsamplers.

Source: Ramesh et al. 2022.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.networks import CascadeOf
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.models.dalle2.config import Dalle2Config
from t2i.plugins.models.dalle2.decoder import DecoderGenerator, UnclipUpsamplerGenerator
from t2i.plugins.models.dalle2.prior import PriorGenerator, closest


class Dalle2Generator(CascadeOf):
    """The prior draws embeddings of images, the decoder small images, the upsampler enlarges them.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        clip: The image half of CLIP. None: there is none.
        assets: Folder of a saved model's files. None: a new one.
    """

    embedded = "prior"

    def __init__(
        self,
        config: Dalle2Config,
        text: TextShape,
        clip: ClipVision | None = None,
        assets: Path | None = None,
    ) -> None:
        def folder(name: str) -> Path | None:
            return assets and assets / name

        parts: dict[str, Generator] = {
            "prior": PriorGenerator(config.prior, text, folder("prior")),
            "decoder": DecoderGenerator(config.decoder, text, folder("decoder")),
        }
        for name, part in config.upsamplers.items():
            parts[name] = UnclipUpsamplerGenerator(part, text, folder(name))
        super().__init__(parts)
        self.config, self.clip = config, clip

    def link(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        if name == "decoder" and previous is not None and previous.dim() == 3:
            previous = closest(previous, text.sentence)  # of the draws of the prior
        return super().link(name, text, previous, noise)

    def link_null(
        self, name: str, text: TextFeatures, previous: Tensor | None, noise: Noise
    ) -> TextFeatures:
        if name == "decoder":
            previous = None  # the decoder's own vector stands for it
        return self.link(name, text, previous, noise)

    def required_clip(self) -> ClipVision:
        """Return CLIP's image half.

        Returns:
            The network.

        Raises:
            UserError: The model has none.
        """
        if self.clip is None:
            raise UserError(
                "this model has no image half of CLIP (clip), to embed images: set clip.weights to "
                "that of its text encoder"
            )
        return self.clip

    def embed(self, images: Tensor) -> Tensor:
        return embedding_of(self.required_clip(), images, self.config.unit_embeddings)

    def edited(
        self, images: Tensor, text: TextFeatures, null: TextFeatures, share: float
    ) -> Tensor:
        """Turn embeddings of images towards the difference between two captions.

        Source: Ramesh et al. 2022, section 3.3 (text diffs).

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].
            text: The captions that are wanted.
            null: The captions that the images have, or none.
            share: How far, from 0 (the images' own embeddings) to 1 (the difference itself).

        Returns:
            Embeddings, (B, D), as long as those of the images.
        """
        z = self.embed(images)
        unit = [F.normalize(x.sentence, dim=1) for x in (text, null)]
        return turned(z, unit[0] - unit[1], share)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.clip is not None:
            (folder / "clip").mkdir()
            self.clip.save_assets(folder / "clip")


def embedding_of(clip: ClipVision, images: Tensor, unit: bool) -> Tensor:
    """Embed images.

    Args:
        clip: The image half of CLIP.
        images: Images, (B, 3, H, W) in [-1, 1].
        unit: Whether embeddings are scaled to the length sqrt(D).

    Returns:
        Embeddings, (B, D).
    """
    z = clip.embedding(images)
    return F.normalize(z, dim=1) * z.shape[1] ** 0.5 if unit else z


def turned(z: Tensor, direction: Tensor, share: float) -> Tensor:
    """Turn vectors towards others on a sphere.

    Args:
        z: Vectors, (B, D).
        direction: Where to, (B, D). A vector of length 0: not at all.
        share: How far, from 0 (not) to 1 (all the way).

    Returns:
        Vectors as long as z, (B, D).
    """
    a, b = F.normalize(z, dim=1), F.normalize(direction, dim=1)
    angle = (a * b).sum(1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    between = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    between = torch.where(direction.norm(dim=1, keepdim=True) > 1e-6, between, a)
    result: Tensor = F.normalize(between, dim=1) * z.norm(dim=1, keepdim=True)
    return result


def build(config: Dalle2Config, text: TextShape, assets: Path | None) -> Dalle2Generator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model's files. None: a new one.

    Returns:
        The generator, with its CLIP frozen.

    Raises:
        UserError: CLIP cannot be loaded, or its embeddings are not as wide as the sentences.
    """
    clip = None
    if config.clip is not None:
        clip = build_clip(config.clip, text.sentence, assets and assets / "clip", "dalle2")
    return Dalle2Generator(config, text, clip, assets)
