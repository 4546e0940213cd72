"""Settings of DALL-E 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, ModelConfig, Preset
from t2i.plugins.common.cascades.config import (
    SMALL_UPSAMPLER,
    PartConfig,
    PixelPart,
    UpsamplerPart,
    with_sizes,
)
from t2i.plugins.common.cascades.sizing import sized_cascade
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.config import (
    HELD,
    MAPPED_UNET,
    QUICK_TRAINING,
    SMALL_UNET,
    DenoisingSettings,
    UNetConfig,
)
from t2i.plugins.common.gan.config import SHAPES_TEXT


class PriorPart(PartConfig, DenoisingSettings):
    """Settings of the part that draws embeddings of images: a causal transformer."""

    width: int = Field(2048, ge=1)
    """Width of a token, a multiple of `heads`."""

    layers: int = Field(24, ge=1, le=MOST_LAYERS)
    """Number of blocks."""

    heads: int = Field(32, ge=1)
    """Attention heads of each block."""

    length: int = Field(77, ge=1, le=4096)
    """Largest number of words that are read; the rest of a caption is cut."""

    draws: int = Field(2, ge=1, le=64)
    """Number of embeddings that are drawn for each image.

    The one most similar to the text's embedding is kept."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of Adam, decoupled (AdamW)."""

    adam_eps: float = Field(1e-8, gt=0)
    """Number that Adam adds to the root of the second moment."""

    weights: str | None = Field(None, min_length=1)
    """A pretrained PriorTransformer: a folder in diffusers' layout. None: a new network."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(
                f"width ({self.width}) must be an even multiple of heads ({self.heads})"
            )
        if self.learned_range:
            raise ValueError("learned_range: the prior predicts no variance")
        return self


class DecoderPart(PixelPart):
    """Settings of the part that draws small images from embeddings."""

    caption_dropout: float = Field(0.5, ge=0, le=1)
    """Share of captions that are dropped in training, 0 to 1."""

    image_dropout: float = Field(0.1, ge=0, le=1)
    """Share of embeddings that are dropped in training, 0 to 1; a learned vector replaces them."""

    image_noise: float = Field(0.0, ge=0)
    """Standard deviation of noise that training adds to embeddings, as a share of their own.

    It accustoms the decoder to a prior's errors. Not in the paper."""

    text: bool = True
    """Whether the caption is read too. Without it only the embedding says what to draw."""

    tokens: int = Field(4, ge=0, le=1024)
    """Number of vectors that are made of the embedding and join the words, where words are read."""

    unet: UNetConfig = UNetConfig(sentence=True)
    """The U-Net that denoises images."""

    adm: AdmConfig | None = None
    """ADM's U-Net, as in the paper. Its `encoder_kv` is the width of the vectors that words are
    projected to. None: `unet` behind patches."""

    weights: str | None = Field(None, min_length=1)
    """A pretrained decoder: a folder of Karlo with `decoder` and `text_proj`. None: a new one."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if self.adm is None and self.weights is None:
            if self.learned_range:
                raise ValueError("learned_range needs a network with twice the channels: set adm")
            if not self.unet.sentence:
                raise ValueError(
                    "the embedding is told where the sentence is: set unet.sentence=true"
                )
        if self.adm is not None and not self.adm.encoder_kv:
            raise ValueError("adm.encoder_kv is the width of words and tokens: set it above 0")
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None and self.weights is None


class UnclipUpsampler(UpsamplerPart):
    """Settings of a part that enlarges images."""

    text: bool = False
    """Whether the captions are read too. The paper's upsamplers do not."""

    weights: str | None = Field(None, min_length=1)
    """A pretrained upsampler: a folder of Karlo with `super_res_first` and `super_res_last`, which
    makes the last step. None: a new one."""

    @property
    def uses_unet(self) -> bool:
        return self.adm is None and self.weights is None


class Dalle2Config(ModelConfig):
    """Settings of DALL-E 2: those of its CLIP and of its parts."""

    image_size: int = Field(32, ge=8)
    """Height and width of the images in pixels, those of the last upsampler."""

    clip: ClipVisionConfig | None = ClipVisionConfig(
        weights="openai/clip-vit-large-patch14", resize="bicubic", normalise="once"
    )
    """The image half of the CLIP whose embeddings are drawn; the text encoder is the other half.
    None: there is none, and the model can neither be trained nor interpolate."""

    unit_embeddings: bool = True
    """Whether embeddings of images are scaled to the length sqrt(D), D being their width."""

    prior: PriorPart = PriorPart()
    """The part that draws an embedding for a caption."""

    decoder: DecoderPart = DecoderPart(image_size=16)
    """The part that draws a small image for an embedding."""

    upsampler: UnclipUpsampler = UnclipUpsampler.model_validate(SMALL_UPSAMPLER)
    """The part that enlarges it."""

    upsampler2: UnclipUpsampler | None = None
    """A part that enlarges the enlarged image. None: there is none."""

    text_share: float = Field(0.05, gt=0, lt=1)
    """Share of the training budget of the contrastive training of CLIP and the text encoder. It
    trains those of the two that are trainable. With pretrained ones this stage is left out."""

    clip_lr: float = Field(1e-4, gt=0)
    """Learning rate of CLIP in the contrastive stage."""

    text_lr: float = Field(1e-4, gt=0)
    """Learning rate of the text encoder in the contrastive stage."""

    @model_validator(mode="before")
    @classmethod
    def _sizes(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        given = dict(settings)
        if isinstance(prior := given.get("prior"), Mapping) and "image_size" in given:
            given["prior"] = {"image_size": given["image_size"], **prior}
        return with_sizes(given, "decoder")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        size = self.decoder.image_size
        for name, part in self.upsamplers.items():
            if part.low_size != size:
                raise ValueError(f"{name}.low_size ({part.low_size}) must be {size}")
            size = part.image_size
        if size != self.image_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be that of the last part: {size}"
            )
        return self

    @property
    def upsamplers(self) -> dict[str, UnclipUpsampler]:
        """The parts that enlarge, by name."""
        found = {"upsampler": self.upsampler}
        return found if self.upsampler2 is None else {**found, "upsampler2": self.upsampler2}

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1, "width": 64}), sampler=FEW),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW),
            "paper": Preset(PAPER, data=("coco", {}), encoder=LARGE, sampler=MANY),
            "karlo": Preset(KARLO, data=("coco", {}), encoder=LARGE, sampler=KARLO_STEPS),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = sized_cascade(TINY, "decoder", size, memory)
        return Preset(settings, encoder=("words", {"layers": 1, "width": 64}), sampler=FEW)


LARGE = ("clip", {"weights": "openai/clip-vit-large-patch14"})

FEW = ("cascade", {"samplers": {
    "prior": {"name": "ddim", "steps": 10, "guidance": 1.5},
    "decoder": {"name": "ddim", "steps": 25, "guidance": 2.0},
    "upsampler": {"name": "ddim", "steps": 8},
}})  # fmt: skip
"""The sampler of the small presets."""

MANY = ("cascade", {"samplers": {
    "prior": {"name": "ddpm", "steps": 64, "clip": 5.0},
    "decoder": {
        "name": "ddpm", "respacing": "250", "clip": 1.0, "variance": "learned", "guidance": 1.25,
    },
    "upsampler": {"name": "ddim", "steps": 27, "clip": 1.0},
    "upsampler2": {"name": "ddim", "steps": 15, "clip": 1.0},
}})  # fmt: skip
"""The sampler of the paper, which draws the prior with Analytic-DPM."""

KARLO_SAMPLERS: dict[str, dict[str, Any]] = {
    "prior": {
        "name": "ddpm", "steps": 25, "spacing": "linspace", "sigma_max": None, "clip": 5.0,
        "guidance": 4.0,
    },
    "decoder": {
        "name": "ddpm", "steps": 25, "spacing": "linspace", "sigma_max": None, "clip": 1.0,
        "variance": "learned", "guidance": 8.0,
    },
    "upsampler": {
        "name": "ddpm", "steps": 7, "spacing": "linspace", "sigma_max": None, "clip": 1.0,
    },
}  # fmt: skip
KARLO_STEPS = ("cascade", {"samplers": KARLO_SAMPLERS})
"""The sampler of Karlo, as diffusers' pipeline has it."""

ENGINE = {k: v for k, v in QUICK_TRAINING.items() if k not in ("lr", "lr_text", "betas")}
RATES = {k: v for k, v in QUICK_TRAINING.items() if k in ("lr", "lr_text", "betas")}

SMALL_PRIOR: dict[str, Any] = {
    "schedule": "cosine", "prediction": "sample", "width": 128, "layers": 3,
    "heads": 4, "length": 49, "share": 0.1, "training": {"batch_size": 64}, **RATES, "lr": 1e-3,
}  # fmt: skip

# The network predicts x_0: its channels are too few for all the noise in the values of a patch.
SMALL_DECODER: dict[str, Any] = {
    "schedule": "cosine", "prediction": "sample", "error": "x_0",
    "min_snr_gamma": 5.0, "patch": 2, "share": 0.6, **RATES,
    "unet": {**SMALL_UNET, "map_hops": 2, "map_queries": "sinusoids"},
}  # fmt: skip

TINY: dict[str, Any] = {
    **ENGINE,
    "clip": {
        "weights": None, "image_size": 32, "patch": 4, "width": 64, "layers": 3, "heads": 4,
        "normalise": "once",
    },
    "text_share": 0.1,
    "prior": SMALL_PRIOR,
    "decoder": SMALL_DECODER,
    "upsampler": {**SMALL_UPSAMPLER, "share": 0.2, **RATES},
}  # fmt: skip

# Position and count fade in an embedding, so captions are dropped less often than in the paper, and
# the embeddings are trusted less.
SHAPES: dict[str, Any] = {
    **TINY,
    **{k: v for k, v in HELD.items() if k != "lr"},
    "clip": {**TINY["clip"], "weights": "shapes-clip"},
    "decoder": {
        **SMALL_DECODER, "lr": HELD["lr"], "unet": MAPPED_UNET, "caption_dropout": 0.15,
        "image_dropout": 0.25, "image_noise": 0.3,
    },
    "upsampler": {**TINY["upsampler"], "lr": HELD["lr"]},
}  # fmt: skip

_LONG = {"accumulate": 64, "ema_decay": 0.9999, "sample_every": 5000, "checkpoint_every": 5000}
_CHAIN = {"prediction": "epsilon", "learned_range": True, "schedule": "cosine", "lr": 1.2e-4}

# Section C of the paper. It takes a ViT-H/16 of its own with 1024 values, and a text transformer in
# the decoder; here both are those of the CLIP that was released.
PAPER: dict[str, Any] = {
    "image_size": 1024, "steps": 3_400_000, "batch_size": 2048, **_LONG,
    "prior": {
        "image_size": 1024, "schedule": "cosine", "prediction": "sample", "share": 600_000,
        "width": 2048, "layers": 24, "heads": 32, "lr": 1.1e-4, "betas": (0.9, 0.96),
        "weight_decay": 6e-2, "adam_eps": 1e-6, "caption_dropout": 0.1,
        "training": {"batch_size": 4096},
    },
    "decoder": {
        "image_size": 64, "share": 800_000, **_CHAIN,
        "adm": {
            "base": 512, "multipliers": (1, 2, 3, 4), "blocks": 3, "encoder_kv": 2048,
        },
    },
    "upsampler": {
        "image_size": 256, "low_size": 64, "share": 1_000_000, "schedule": "cosine", "lr": 1.2e-4,
        "augmentation": 0.5, "augmentation_sampling": 0.1, "crop": 64,
        "training": {"batch_size": 1024},
        "adm": {"base": 320, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": ()},
    },
    "upsampler2": {
        "image_size": 1024, "low_size": 256, "share": 1_000_000, "schedule": "linear", "lr": 1e-4,
        "augmentation": 0.5, "augmentation_sampling": 0.1, "crop": 256,
        "training": {"batch_size": 512},
        "adm": {"base": 192, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": ()},
    },
}  # fmt: skip

# Karlo's sizes (Lee et al. 2022). Its upsampler has a second network, trained for the last step.
KARLO: dict[str, Any] = {
    "image_size": 256, "steps": 3_000_000, "batch_size": 2048, **_LONG, "unit_embeddings": False,
    "prior": {
        "image_size": 256, "schedule": "cosine", "prediction": "sample", "share": 1.0,
        "width": 2048, "layers": 20, "heads": 32, "draws": 1, "caption_dropout": 0.2,
    },
    "decoder": {
        "image_size": 64, "share": 1.0, **_CHAIN, "caption_dropout": 0.3,
        "adm": {
            "base": 320, "multipliers": (1, 2, 3, 4), "blocks": 3, "encoder_kv": 1536,
        },
    },
    "upsampler": {
        "image_size": 256, "low_size": 64, "share": 1.0, "schedule": "cosine", "lr": 1e-4,
        "resize": "bicubic",
        "adm": {
            "base": 320, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (),
            "scale_shift": False,
        },
    },
}  # fmt: skip
