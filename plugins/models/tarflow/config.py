"""Settings of TarFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.diffusion.config import HELD, QUICK_TRAINING, SHAPES_AUTOENCODER
from t2i.plugins.common.flows.config import MAP, FlowConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory, patch_of


class TarFlowConfig(FlowConfig):
    """Settings of TarFlow. The defaults are the paper's for images of 64 pixels with a class."""

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance, 0 to 1."""

    patch: int = Field(2, ge=1)
    """Side of the squares of pixels or latents that become one token."""

    width: int = Field(768, ge=2)
    """Width of the transformers. A multiple of `head_width`."""

    head_width: int = Field(64, ge=1)
    """Channels of one attention head."""

    layers: tuple[int, ...] = (8,) * 8
    """Transformer layers of each block, from data to noise. Every second block reads the tokens
    from the last to the first. STARFlow: the last block, the first one in sampling, is deep."""

    start_token: bool = False
    """Whether a learnt token comes before the first, so that the first one is changed too, as in
    STARFlow. Otherwise each block leaves its first token as it is."""

    scale: Literal["exp", "softplus"] = "exp"
    """Standard deviation of a token given those before: exp(a), or softplus(a + 0.5413) as in
    STARFlow, which is 1 at a = 0."""

    soft_clip: float = Field(0.0, ge=0)
    """Bound c of means and log scales: c tanh(. / c). 0: none. STARFlow: 4."""

    norm: Literal["layer", "rms"] = "layer"
    """Normalisation of the transformers: layer normalisation, or by the root mean square, which
    then also comes before the last layer, as in STARFlow."""

    sentence: bool = True
    """Whether the sentence is added to every token, as the paper's class vector is."""

    words: bool = False
    """Whether the words are a prefix of the tokens, as in STARFlow."""

    text_in: Literal["all", "deep"] = "all"
    """Blocks that read the text, and that guidance acts on: "all", or the last one ("deep"), as in
    STARFlow."""

    guidance_rule: Literal["difference", "product"] = "difference"
    """Rule of guidance. "difference": mean and log scale move away from those without caption, as
    in the paper. "product": they are those of p(x|t)^(1+w) / p(x)^w, a product of Gaussians, as in
    STARFlow's code."""

    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of AdamW."""

    @field_validator("layers")
    @classmethod
    def _some_blocks(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or min(layers) < 1 or sum(layers) > MOST_LAYERS:
            raise ValueError(f"one number above 0 for each block, {MOST_LAYERS} in all at most")
        return layers

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        smallest = self.ratio * self.patch
        if self.image_size % smallest or self.image_size == smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest}, two or more"
            )
        if self.width % self.head_width:
            raise ValueError(
                f"width ({self.width}) must be a multiple of head_width ({self.head_width})"
            )
        return self

    @property
    def tokens(self) -> int:
        """Number of tokens of an image."""
        return (self.side // self.patch) ** 2

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=GUIDED),
            "imagenet64": Preset(
                IMAGENET64, data=("coco", {}), encoder=("clip", {}), sampler=GUIDED
            ),
            "imagenet128": Preset(
                IMAGENET128, data=("coco", {}), encoder=("clip", {}), sampler=GUIDED
            ),
            "starflow": Preset(
                STARFLOW, data=("coco", {}), encoder=("t5", {"weights": "google/flan-t5-xl"}),
                sampler=("inverse", {"guidance": 3.5}),
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED),
        }  # fmt: skip

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, "batch_size": 24 if size <= 64 else 8, "patch": patch_of(size, 8, 4)}
        if memory is not None:
            width = by_memory(memory, (256, 320, 384, 512))
            settings = {**TINY, **WIDE, "width": width, "patch": patch_of(size, 16, 2)}
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=GUIDED
        )


GUIDED = ("inverse", {"guidance": 2.0})
"""Sampler of most presets."""

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "betas": (0.9, 0.95),
    "patch": 4,
    "width": 128,
    "head_width": 32,
    "layers": (1, 1, 1, 2),
    "start_token": True,
    "words": True,
    "noise_std": 0.1,
    "soft_clip": 4.0,
    "guidance_rule": "product",
    "text": MAP,
    "text_affine": True,
}

WIDE: dict[str, Any] = {
    "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4, "layers": (2, 2, 2, 2, 2, 8),
    "head_width": 64,
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD,
    "lr": 1.5e-3,
    "autoencoder": SHAPES_AUTOENCODER,
    "patch": 2,
    "layers": (1, 1, 1, 3),
    "noise_std": 0.2,
}

# Section 3 and table 2 of the paper: patch-width-blocks-layers 2-768-8-8 at 64 px with noise 0.05,
# and 4-1024-8-8 at 128 px with 0.15; AdamW 1e-4 falling to 1e-6. The public code averages no
# weights.
IMAGENET64: dict[str, Any] = {
    "image_size": 64,
    "noise_std": 0.05,
    "steps": 1_000_000,
    "batch_size": 256,
    "accumulate": 8,
    "lr": 1e-4,
    "betas": (0.9, 0.95),
    "warmup": 5000,
    "lr_schedule": "cosine",
    "lr_floor": 0.01,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}

IMAGENET128: dict[str, Any] = {
    **IMAGENET64,
    "image_size": 128,
    "noise_std": 0.15,
    "patch": 4,
    "width": 1024,
    "batch_size": 768,
    "accumulate": 24,
}

# apple/ml-starflow@e565a46, starflow_3B_t2i_256x256.yaml: 3.8 billion parameters.
STARFLOW: dict[str, Any] = {
    **IMAGENET64,
    "image_size": 256,
    "noise_std": 0.3,
    "patch": 1,
    "width": 3072,
    "layers": (2, 2, 2, 2, 2, 24),
    "start_token": True,
    "scale": "softplus",
    "soft_clip": 4.0,
    "norm": "rms",
    "sentence": False,
    "words": True,
    "text_in": "deep",
    "guidance_rule": "product",
    "batch_size": 1024,
    "accumulate": 128,
    "lr": 6.4e-5,
    "lr_floor": 1 / 64,
    "autoencoder": {"weights": "stabilityai/sd-vae-ft-ema"},
}
