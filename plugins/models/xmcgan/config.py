"""Settings of XMC-GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config, Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY, GANConfig, quick_batch
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining

START = 4  # pixels: the side of the smallest feature maps


class ImageNetConfig(Config):
    """Settings of the frozen image network of the last contrastive loss."""

    kind: Literal["resnet", "clip", "none"] = "resnet"
    """Kind of network. "resnet": timm's ResNet-50, by its 1000 logits. "clip": a CLIP's image half,
    by its image vectors. "none": no such network, hence no such loss."""

    weights: str | None = Field(None, min_length=1)
    """Pretrained weights: a folder with model.safetensors, or a name on the hub. For "clip" also a
    name of weights that a data set ships. None: timm/resnet50.tv_in1k for "resnet", shapes-clip for
    "clip"."""

    revision: str = "main"
    """Branch, tag or commit on the hub."""


class XMCGANConfig(GANConfig, TextPretraining):
    """Settings of XMC-GAN. The defaults are those of the authors' code, for 128 pixels.

    The paper has no settings `start_from_text`, `mask_equal`, `mismatched` and `recalibrate`.
    README.md says what they are for.
    """

    image_size: int = Field(128, ge=16)
    """Height and width of the images in pixels, a power of two."""

    lr_g: float = Field(1e-4, gt=0)
    """Learning rate of the generator."""

    lr_d: float = Field(4e-4, gt=0)
    """Learning rate of the discriminator."""

    critic_steps: int = Field(2, ge=1)
    """Steps of the discriminator for each step of the generator, each on a batch of its own. The
    generator is updated in every `critic_steps`-th step of the run."""

    gf: int = Field(96, ge=1)
    """Base width of the generator: its channels at the size of the image."""

    df: int = Field(96, ge=1)
    """Base width of the discriminator: the channels of its first block."""

    widths_g: tuple[int, ...] = Field((16, 8, 4, 2, 1), min_length=2, max_length=MOST_LAYERS)
    """Channels of the generator's blocks in units of gf. Each block doubles the size, from 4 pixels
    on. The 4x4 map is as wide as the first block."""

    widths_d: tuple[int, ...] = Field((2, 4, 8, 16, 16), min_length=2, max_length=MOST_LAYERS)
    """Channels of the discriminator's blocks after the first one, in units of df. The first block
    and all of these but the last halve the size, down to 4 pixels."""

    regions: int = Field(16, ge=START)
    """Side of the map whose places attend to words in the generator, and are the regions that are
    compared with words in the discriminator, in pixels."""

    z_dim: int = Field(128, ge=1)
    """Size of the noise vector of an image, and of the map of the sentence beside it."""

    attention: float = Field(15.0, gt=0)
    """Sharpness of the generator's attention to words."""

    start_from_text: bool = False
    """Whether the generator's first linear layer also takes the sentence: linear([z; e]) instead of
    linear(z)."""

    sentence_contrast: float = Field(1.0, ge=0)
    """Weight of the contrastive loss of sentences and images."""

    word_contrast: float = Field(1.0, ge=0)
    """Weight of the contrastive loss of words and regions."""

    image_contrast: float = Field(1.0, ge=0)
    """Weight of the contrastive loss of generated and real images, by the discriminator's
    features."""

    frozen_contrast: float = Field(1.0, ge=0)
    """Weight of the contrastive loss of generated and real images, by a frozen network's
    vectors."""

    temperature: float = Field(0.1, gt=0)
    """What the cosines of sentences and images, and of images, are divided by."""

    word_scale: float = Field(50.0, gt=0)
    """Factor of the scores of words and regions in their contrastive loss."""

    word_sharpness: float = Field(5.0, gt=0)
    """Sharpness of each word's attention to regions in that loss."""

    word_pooling: float = Field(5.0, gt=0)
    """Weight of the best matching words in the score of a caption."""

    mask_equal: bool = False
    """Whether pairs of a batch with equal captions are left out of what the contrastive losses call
    wrong."""

    mismatched: float = Field(0.0, ge=0, lt=1)
    """Share of real images with captions of others in what the discriminator must reject. The rest
    are generated images."""

    image_net: ImageNetConfig = ImageNetConfig()
    """The frozen image network."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when
    training ends. 0: they stay those of the last weights."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        drawn = START << len(self.widths_g)
        if drawn != self.image_size or START << len(self.widths_d) != self.image_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be {START} pixels doubled as often as "
                f"widths_g and widths_d have numbers ({len(self.widths_g)}, {len(self.widths_d)})"
            )
        sides = [START << i for i in range(len(self.widths_g) - 1)]
        if self.regions not in sides:
            raise ValueError(f"regions ({self.regions}) must be one of {sides}")
        return self

    @model_validator(mode="after")
    def _batch_has_negatives(self) -> Self:
        if self.batch_size // self.accumulate < 2:
            raise ValueError(
                "batch_size: a batch (each of its `accumulate` parts) needs two images, which the "
                "contrastive losses compare"
            )
        return self

    @property
    def global_blocks(self) -> int:
        """Number of the generator's blocks below the size `regions`."""
        return (self.regions // START).bit_length() - 1

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "coco": Preset(_COCO, data=("coco", {}), encoder=("bert", {})),
            "coco-256": Preset(_COCO_256, data=("coco", {}), encoder=("bert", {})),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        doublings = (size // START).bit_length() - 1
        settings = {
            **_TINY,
            "image_size": size,
            "regions": 8 if size <= 32 else 16,
            "widths_g": tuple(min(16, 2**i) for i in reversed(range(doublings))),
            "widths_d": tuple(min(16, 2**i) for i in range(1, doublings + 1)),
        }
        if memory is None:
            width = 16 if size <= 64 else 8
            settings |= {"gf": width, "df": width, "batch_size": quick_batch(size)}
        else:
            width = by_memory(memory, (32, 48, 64, 96))
            settings |= {
                "gf": width, "df": width, "z_dim": 128, "lr_g": 1e-4, "lr_d": 4e-4,
                "ema_decay": 0.999,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


_COCO = {
    "image_size": 128,
    "batch_size": 56,
    "augment": {"flip": True},
    "ema_decay": 0.9995,  # 0.999 for each step of the generator, which is every second one
    "steps": 739_000,  # 500 epochs of 82,783 images
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "channels_last": True,
}
_COCO_256 = {
    **_COCO,
    "image_size": 256,
    "widths_g": (16, 8, 8, 4, 2, 1),
    "widths_d": (2, 4, 8, 8, 16, 16),
}
_TINY = {
    **TINY,
    "gf": 16,
    "df": 16,
    "widths_g": (4, 2, 1),
    "widths_d": (2, 4, 8),
    "regions": 8,
    "z_dim": 32,
    "critic_steps": 1,
    "steps": 4000,
    "text_share": 0.1,
    "lr_g": 6e-4,
    "lr_d": 1.2e-3,
    "warmup": 50,
    "start_from_text": True,
    "mask_equal": True,
    "word_scale": 15.0,
    "image_net": {"kind": "none"},
    "recalibrate": 16,
}
_SHAPES = {
    **_TINY,
    **QUICK,
    "gf": 24,
    "df": 24,
    "lr_g": 7e-4,
    "lr_d": 1.4e-3,
    "image_net": {"kind": "clip"},
}
