"""Settings of the latent diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from t2i.core.settings import Config, Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK,
    SHAPES_TEXT,
    WIDE,
    DenoisingConfig,
    NoiseSchedule,
    UNetConfig,
    quick_batch,
)
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.latent.sized import quick_latents, wide_latents
from t2i.plugins.common.text.config import BINDING

Size = tuple[Annotated[int, Field(ge=0, le=65536)], Annotated[int, Field(ge=0, le=65536)]]
"""Height and width, or top and left, in pixels."""

Network = Literal["unet", "sdxl", "sd3", "pixart"]
"""Kinds of networks that denoise latents."""


class SizesConfig(Config):
    """Sizes that the network "sdxl" takes as input, as Stable Diffusion XL was in training."""

    original: Size | None = None
    """Height and width of the training image before it was scaled. None: those of the sample.

    Small ones give blurred images.
    """

    crop: Size = (0, 0)
    """Top and left of what was cut out of the training image. (0, 0) gives centred objects."""

    target: Size | None = None
    """Height and width that the training image was scaled to. None: those of the sample."""


class TransformerConfig(Config):
    """A diffusion transformer of diffusers, which brings its own configuration."""

    weights: str | None = Field(None, min_length=1)
    """The pretrained network: a folder in diffusers' layout, or a name on the Hugging Face hub.

    The networks "sd3" and "pixart" need it.
    """

    patch: int = Field(2, ge=1)
    """Side of the squares of latents that are its tokens."""


class LDMConfig(DenoisingConfig):
    """Settings of latent diffusion: the autoencoder, and diffusion on its latents."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    """The autoencoder and its training."""

    network: Network = "unet"
    """What denoises latents: "unet", "sdxl", "sd3" or "pixart".

    "unet" is the U-Net of `unet`. "sdxl" is one that reads sizes, too (Stable Diffusion XL); "sd3"
    and "pixart" are the transformers of Stable Diffusion 3 and PixArt-alpha. These three come with
    their weights, from folders in diffusers' layout.
    """

    unet: UNetConfig = UNetConfig()
    """The U-Net that denoises latents."""

    sizes: SizesConfig = SizesConfig()
    """The sizes that the network "sdxl" takes as input."""

    transformer: TransformerConfig = TransformerConfig()
    """The transformer of the networks "sd3" and "pixart"."""

    schedule: NoiseSchedule = "scaled_linear"
    """The noise schedule: "linear", "scaled_linear" (Stable Diffusion's), "cosine" or "mixing". The
    first three have `timesteps` steps. "mixing" is the straight path x_t = (1 - t) x_0 + t eps with
    t in [0, 1]."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> LDMConfig:
        weights = {"sdxl": self.unet.weights, "unet": ""}.get(
            self.network, self.transformer.weights
        )
        if weights is None:
            part = "unet" if self.network == "sdxl" else "transformer"
            raise ValueError(
                f"the network {self.network} comes with its weights: set {part}.weights, or open "
                "the folder of a whole pipeline with --run FOLDER"
            )
        smallest = self.autoencoder.reduction * self._step
        if self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for these "
                "networks"
            )
        return self

    @property
    def _step(self) -> int:
        """The side of the latents that the networks are made for is a multiple of this."""
        if self.network in ("sd3", "pixart"):
            return self.transformer.patch
        return int(2 ** (len(self.unet.channels) - 1))

    @property
    def latent_size(self) -> int:
        """Side of the latents."""
        return self.image_size // self.autoencoder.reduction

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", BINDING), sampler=FEW_STEPS),
            "coco": Preset(
                COCO,
                data=("coco", {}),
                encoder=LARGE_CLIP,
                sampler=("ddim", {"steps": 50, "guidance": 5.0}),
            ),
            "thesis": Preset(
                THESIS, data=("coco", {}), encoder=("clip", {}), sampler=("ddim", {"guidance": 3.0})
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW_STEPS),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = _quick(size) if memory is None else _wide(size, memory)
        return Preset(
            {**settings, "image_size": size},
            encoder=("words", BINDING if memory is None else {}),
            sampler=FEW_STEPS if memory is None else ("ddim", {"steps": 50, "guidance": 2.0}),
        )


LARGE_CLIP = (
    "clip",
    {"weights": "openai/clip-vit-large-patch14", "sentence": "pooled", "attend_padding": True},
)
"""Stable Diffusion 1.x's text encoder: 77 words of width 768."""


TINY: dict[str, Any] = {
    **QUICK,
    "autoencoder": {
        "patch": 4, "channels": (64,), "layers": 1, "latent_channels": 8, "attention": False,
        "kl_weight": 3e-5, "lr": 3e-3, "betas": (0.9, 0.99), "batch_size": 8, "first_logvar": -6.0,
        "share": 0.2,
    },
    "unet": {
        "channels": (64, 128), "layers": 1, "attention": ("none", "none"), "head_width": 4,
        "groups": 8, "text_map": 64, "map_hops": 2, "outline": 0.5, "sentence": True,
    },
    "lr_text": 3e-4,
}  # fmt: skip

FEW_STEPS = ("ddim", {"steps": 8, "guidance": 2.0})
"""The sampler of small models: more steps do not improve their images (docs/learning.md)."""

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD,
    "min_snr_gamma": 5.0,
    "autoencoder": {
        **TINY["autoencoder"], "weights": "shapes-autoencoder", "channels": (56,), "groups": 8,
    },
    "unet": {**TINY["unet"], "map_queries": "sinusoids", "map_sentence": False},
}  # fmt: skip

# Latents of an eighth of the image's side and four channels, as the paper's KL-f8. Without the
# weights (autoencoder.weights=null) it is trained with the terms of the paper: absolute error,
# LPIPS, and a discriminator.
KL_F8 = {
    "weights": "stabilityai/sd-vae-ft-mse",
    "losses": {
        "reconstruction": "l1", "perceptual": 1.0, "adversarial": 0.5, "adversarial_start": 0.2,
    },
}  # fmt: skip

# The paper's text-to-image model (appendix E.2 and its table of hyperparameters): KL autoencoder of
# factor 8, 320 channels times 1, 2, 4, 4, eight heads, attention to words at 32, 16 and 8, T
# 1000, 680 images a step.
COCO = {
    "image_size": 256,
    "steps": 390_000,
    "batch_size": 680,
    "accumulate": 40,
    "ema_decay": 0.9999,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "schedule": "scaled_linear",
    "prediction": "epsilon",
    "lr": 1e-4,
    "autoencoder": KL_F8,
    "unet": {
        "channels": (320, 640, 1280, 1280), "layers": 2,
        "attention": ("cross", "cross", "cross", "none"), "heads": 8, "head_width": None,
    },
}  # fmt: skip

# The thesis describes a U-Net of about 24M parameters on 16x16x4 latents, with self-attention and
# cross-attention to one vector of 512. It does not give the channels. Ours make 24.5M parameters.
THESIS = {
    "image_size": 128,
    "steps": 469_000,  # 400 epochs of 300,000 images
    "batch_size": 256,
    "accumulate": 4,
    "cache_views": 1,  # as in the thesis: latents and text vectors are computed once
    "ema_decay": 0.9999,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "schedule": "mixing",
    "prediction": "sample",
    "loss": "l1",
    "noise_level_beta": (1.0, 2.5),
    "lr": 3e-4,
    "autoencoder": KL_F8,
    "unet": {
        "channels": (128, 192, 256), "layers": 1, "attention": ("cross", "cross", "cross"),
        "head_width": 32, "context": "sentence",
    },
}  # fmt: skip


def _quick(size: int) -> dict[str, Any]:
    """Return the settings of `tiny`, with latents of at most 16x16 for larger images."""
    autoencoder = {**TINY["autoencoder"], **quick_latents(size)}
    return {**TINY, "batch_size": quick_batch(size), "autoencoder": autoencoder}


def _wide(size: int, memory: int) -> dict[str, Any]:
    """Return settings for an accelerator: latents of 16x16 to 64x64, and a wide U-Net."""
    return {**TINY, **WIDE, **wide_latents(size, memory), "lr_text": 3e-4}
