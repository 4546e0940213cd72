"""Settings of flow matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Config, Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_TEXT,
    WIDE,
    DiffusionConfig,
    UNetConfig,
    quick_batch,
)
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.latent.sized import quick_latents, wide_latents
from t2i.plugins.common.text.config import BINDING
from t2i.plugins.common.transformer.config import TransformerConfig


class ReflowConfig(Config):
    """Settings of the stage `reflow`."""

    share: float = Field(0.0, ge=0, lt=1)
    """Share of the budget of `flow` and `reflow` together that `reflow` takes. 0: there is no such
    stage."""

    steps: int = Field(25, ge=1)
    """Steps of Euler's method with which the trained flow makes an image."""

    guidance: float = Field(2.0, ge=0)
    """Guidance of these images. The straightened flow has it built in, and is sampled with
    guidance 1."""

    uses: int = Field(4, ge=1)
    """Timesteps at which each pair of noise and image is used."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate of Adam for the network in this stage."""


class FlowMatchingConfig(DiffusionConfig):
    """Settings of flow matching, its networks and its training."""

    network: Literal["transformer", "unet"] = "transformer"
    """The network that predicts velocities: a diffusion transformer or a U-Net. The settings of the
    other one have no effect."""

    space: Literal["latents", "pixels"] = "latents"
    """What flows: latents of an autoencoder, or pixels. The latter ignore the autoencoder's
    settings."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    """The autoencoder and its training."""

    transformer: TransformerConfig = TransformerConfig()
    """The diffusion transformer."""

    unet: UNetConfig = UNetConfig()
    """The U-Net."""

    patch: int = Field(1, ge=1)
    """Side of the squares of pixels or latents that become channels before the network
    (space-to-depth). A transformer has patches of its own besides. 1: off."""

    times: Literal["uniform", "logit-normal"] = "logit-normal"
    """Density of the timesteps in training. "logit-normal" has few near 0 and 1: t = sigmoid(n),
    with n from a normal distribution (Esser et al. 2024)."""

    logit_mean: float = 0.0
    """Mean of that normal distribution. Above 0: more timesteps near the noise."""

    logit_std: float = Field(1.0, gt=0)
    """Standard deviation of that normal distribution."""

    shift: float = Field(1.0, ge=0.001, le=1000)
    """Shift k of the timesteps in training, to k t / (1 + (k - 1) t), whatever their density is.
    Above 1: more of them near the noise, as large images need, whose signal noise hides less. 1: no
    shift. From 0.001 to 1000."""

    reflow: ReflowConfig = ReflowConfig()
    """The second stage, which straightens the flow."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        transformer = self.network == "transformer"
        own = self.transformer.patch if transformer else 2 ** (len(self.unet.channels) - 1)
        smallest = self.reduction * self.patch * own
        if self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for these "
                "networks"
            )
        return self

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to the side of what flows."""
        return self.autoencoder.reduction if self.space == "latents" else 1

    @property
    def side(self) -> int:
        """Side of what flows."""
        return self.image_size // self.reduction

    @property
    def channels(self) -> int:
        """Channels of what flows."""
        return self.autoencoder.latent_channels if self.space == "latents" else 3

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", BINDING), sampler=FEW_STEPS),
            "coco": Preset(COCO, data=("coco", {}), encoder=LARGE_CLIP, sampler=MANY_STEPS),
            "sd3": Preset(SD3, data=("coco", {}), encoder=LARGE_CLIP, sampler=MANY_STEPS),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW_STEPS),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = _quick(size) if memory is None else _wide(size, memory)
        return Preset(
            {**settings, "image_size": size},
            encoder=("words", BINDING if memory is None else {}),
            sampler=FEW_STEPS if memory is None else ("flow-euler", {"steps": 28, "guidance": 2.0}),
        )


FEW_STEPS = ("flow-euler", {"steps": 8, "guidance": 2.0})
"""The sampler of small models."""

MANY_STEPS = ("flow-euler", {"steps": 28, "guidance": 5.0})
"""The sampler of the papers' presets: Stable Diffusion 3's number of steps."""

LARGE_CLIP = ("clip", {"weights": "openai/clip-vit-large-patch14", "sentence": "pooled"})
"""The smaller of Stable Diffusion 3's two CLIPs: 77 words of width 768."""

MAP: dict[str, Any] = {
    "text_map": 64, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False,
    "outline": 0.5,
}  # fmt: skip

# About the density of noise levels times the weight of their errors with which `ldm` learns best
# (uniform levels of the cosine schedule, errors of x_0 weighted by min(1 / sigma^2, 5)), as a
# density of t alone: that is min(1, 5 t^2 / ((1 - t)^2 + t^2)), up to a factor.
LEVELS: dict[str, Any] = {"times": "logit-normal", "logit_mean": 0.4, "logit_std": 1.2}

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    **LEVELS,
    "network": "unet",
    "autoencoder": {
        "patch": 4, "channels": (64,), "layers": 1, "latent_channels": 8, "attention": False,
        "kl_weight": 3e-5, "lr": 3e-3, "betas": (0.9, 0.99), "batch_size": 8, "first_logvar": -6.0,
        "share": 0.2,
    },
    "unet": {
        "channels": (64, 128), "layers": 1, "attention": ("none", "none"), "head_width": 4,
        "groups": 8, "sentence": True, **MAP,
    },
    "transformer": {"patch": 1, "width": 128, "depth": 4, "heads": 4, "qk_norm": True, **MAP},
    "reflow": {"steps": 8, "lr": 5e-4},
    "lr_text": 3e-4,
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD,
    "autoencoder": {
        **TINY["autoencoder"], "weights": "shapes-autoencoder", "channels": (56,), "groups": 8,
    },
}  # fmt: skip

# Latents of an eighth of the image's side and four channels.
KL_F8 = {"weights": "stabilityai/sd-vae-ft-mse"}

# DiT-B/2 at 256 px (Peebles & Xie 2023, table 1 and section 4: depth 12, width 768, 12 heads, patch
# 2; Adam 1e-4 without warm-up or decay, batch 256, 400,000 steps, EMA 0.9999), with cross-attention
# to the words in each block as in PixArt-alpha.
COCO: dict[str, Any] = {
    "image_size": 256,
    "steps": 400_000,
    "batch_size": 256,
    "accumulate": 8,
    "ema_decay": 0.9999,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "lr": 1e-4,
    "autoencoder": KL_F8,
}

# Stable Diffusion 3's transformer of depth 24 (Esser et al. 2024, sections 4 and 5.3: width 64 and
# one head for each block of the depth, patch 2; batch 4096, 500,000 steps at 256 px), on latents of
# 4 channels instead of 16 and with one text encoder instead of three.
SD3: dict[str, Any] = {
    **COCO,
    "steps": 500_000,
    "batch_size": 4096,
    "accumulate": 256,
    "warmup": 1000,
    "transformer": {
        "blocks": "joint", "depth": 24, "width": 1536, "heads": 24, "qk_norm": True,
    },
}  # fmt: skip


def _quick(size: int) -> dict[str, Any]:
    """Return the settings of `tiny`, with latents of at most 16x16 for larger images."""
    autoencoder = {**TINY["autoencoder"], **quick_latents(size)}
    return {**TINY, "batch_size": quick_batch(size), "autoencoder": autoencoder}


def _wide(size: int, memory: int) -> dict[str, Any]:
    """Return settings for an accelerator: latents of 16x16 to 64x64, and a wide U-Net."""
    return {**TINY, **WIDE, **wide_latents(size, memory)}
