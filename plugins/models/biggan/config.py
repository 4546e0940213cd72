"""Settings of BigGAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import (
    PAPER,
    QUICK,
    SHAPES_TEXT,
    TINY,
    GANConfig,
    quick_batch,
)
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining

START = 4  # pixels: the side of the smallest feature maps


class BigGANConfig(GANConfig, TextPretraining):
    """Settings of BigGAN. The defaults are those of the authors' script for 128 pixels.

    The paper has no settings `widths`, `pooling`, `start_from_text`, `wrong_pairs`, `penalty_k` and
    `recalibrate`. README.md says what they are for.
    """

    lr_g: float = Field(1e-4, gt=0)
    """Learning rate of the generator. The paper's is 5e-5."""

    lr_d: float = Field(4e-4, gt=0)
    """Learning rate of the discriminator. The paper's is 2e-4."""

    beta1: float = Field(0.0, ge=0, lt=1)
    """Decay rate of Adam's running mean of gradients, for generator and discriminator."""

    adam_eps: float = Field(1e-6, gt=0)
    """Constant in the denominator of Adam."""

    ch: int = Field(96, ge=1)
    """Base width of the generator (the paper's ch)."""

    ch_d: int | None = Field(None, ge=1)
    """Base width of the discriminator. None: `ch`."""

    widths: Literal["authors", "doubling"] = "authors"
    """Channels of the blocks, in multiples of ch. "authors": the tables of the authors' code, for
    images of 32, 64, 128 and 256 pixels; at 32 pixels all blocks have 4 ch.
    "doubling": ch at the image's size, twice as many at each smaller size, at most 8 ch."""

    z_dim: int = Field(120, ge=1)
    """Size of the noise vector z. It is rounded down to equal chunks: one for the first layer, and
    one for each block."""

    shared: int = Field(128, ge=1)
    """Size of the shared embedding of the sentence, which each block of the generator takes."""

    attention: tuple[int, ...] = (64,)
    """Sides of the feature maps, in pixels, after which both networks have self-attention. Empty:
    no attention."""

    spectral_g: bool = True
    """Whether the generator's weights are normalised spectrally, except the shared embedding's.
    The discriminator's always are."""

    spectral_first: Literal["v", "u"] = "v"
    """Half step of the power iteration that comes first. "v": as in the authors' code, which stores
    u and iterates in sampling too. "u": as in torch.nn.utils.parametrizations, which stores both
    vectors and samples with the stored ones."""

    pooling: Literal["sum", "mean"] = "sum"
    """How the discriminator pools its last feature map. The paper takes the sum."""

    start_from_text: bool = False
    """Whether the generator's first linear layer also takes the shared embedding."""

    wrong_pairs: bool = False
    """Whether the discriminator also learns from real images with captions of others. A wrong pair
    then weighs half, and so does a generated image."""

    penalty_k: float = Field(0.0, ge=0)
    """Weight k of DF-GAN's matching-aware gradient penalty. 0: it is left out."""

    penalty_p: float = Field(6.0, ge=2)
    """Power p of the gradient's norm in that penalty, at least 2."""

    ortho_g: float = Field(0.0, ge=0)
    """Weight of the orthogonal regularisation of the generator. The paper's is 1e-4. 0, as in the
    authors' script: it is left out."""

    ortho_d: float = Field(0.0, ge=0)
    """Weight of the orthogonal regularisation of the discriminator. 0, as in the paper: it is left
    out."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when
    training ends (the paper's "standing statistics"). 0: they stay those of the last weights."""

    @property
    def rounds(self) -> int:
        """How often the generator doubles the side of its maps: its number of blocks."""
        return (self.image_size // START).bit_length() - 1

    @property
    def chunk(self) -> int:
        """Size of one chunk of z."""
        return self.z_dim // (self.rounds + 1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_size & (self.image_size - 1) or self.image_size < 2 * START:
            raise ValueError(
                f"image_size = {self.image_size}: the generator doubles {START}x{START} pixels: "
                "use 32, 64, 128, 256 ..."
            )
        if self.widths == "authors" and self.image_size not in (32, 64, 128, 256):
            raise ValueError(
                f"image_size = {self.image_size}: the authors' tables of both networks are for 32, "
                "64, 128 and 256 pixels: use one of these, or widths=doubling"
            )
        if not self.chunk:
            raise ValueError(
                f"z_dim = {self.z_dim}: each of {self.rounds + 1} chunks needs a number: use more"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": _paper("cub", 128),
            "cub256": _paper("cub", 256),
            "coco": _paper("coco", 128),
            "coco256": _paper("coco", 256),
            "shapes": Preset({**_TINY, **_SHAPES}, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            settings |= {"ch": 16 if size <= 64 else 8, "batch_size": quick_batch(size)}
        else:
            settings |= {
                "ch": by_memory(memory, (24, 32, 48, 64)), "z_dim": 120, "ema_decay": 0.999,
                "warmup": 200, "lr_g": 1e-4, "lr_d": 4e-4,
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


def _paper(data: str, size: int) -> Preset:
    """Return a preset with the settings of the authors' script, with DAMSM's sentences for classes.

    At 256 pixels z has 140 numbers, seven chunks of 20, as in the paper.
    """
    settings = {
        **PAPER,
        "image_size": size,
        "z_dim": 120 if size == 128 else 140,
        "batch_size": 2048,
        "accumulate": 8,
        "ema_decay": 0.9999,
        "steps": 100_000,
        "sample_every": 5000,
        "checkpoint_every": 5000,
    }
    return Preset(settings, (data, {}), encoder=("damsm", {"max_words": 18}))


_TINY = {
    **TINY,
    "ch": 16,
    "widths": "doubling",
    "z_dim": 64,
    "shared": 64,
    "attention": (),
    "spectral_g": False,
    "pooling": "mean",
    "start_from_text": True,
    "wrong_pairs": True,
    "steps": 3000,
    "text_share": 0.1,
    "lr_g": 7e-4,
    "lr_d": 1.4e-3,
    "warmup": 50,
    "recalibrate": 16,
}

_SHAPES = {**QUICK, "shared": 128}
