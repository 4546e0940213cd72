"""Settings of CLIP-guided VQGAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Config, ModelConfig, Preset
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig

Share = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Config):
    """Random changes of the cutouts. The defaults are those of nerdyrodent/VQGAN-CLIP.

    Each change is drawn for each cutout, with its own probability.
    """

    affine: Share = 0.7
    """Probability of a rotation, shift and shear."""

    degrees: float = Field(15.0, ge=0, le=180)
    """Largest angle of the rotation, in degrees."""

    translate: Share = 0.1
    """Largest shift, as a fraction of the cutout's side."""

    shear: float = Field(5.0, ge=0, lt=90)
    """Largest angle of the shear, in degrees."""

    border: bool = False
    """Whether pixels beyond the edge repeat the edge. False: they are black."""

    perspective: Share = 0.7
    """Probability of a change of perspective."""

    distortion: Share = 0.7
    """How far corners move in it at most, 0 to 1; 1 is the middle of the cutout."""

    jitter: Share = 0.7
    """Probability of a change of brightness, contrast, saturation and hue."""

    brightness: Share = 0.1
    """Largest relative change of the brightness."""

    contrast: Share = 0.1
    """Largest relative change of the contrast."""

    saturation: Share = 0.1
    """Largest relative change of the saturation."""

    hue: float = Field(0.1, ge=0, le=0.5)
    """Largest turn of the hue, as a fraction of the colour circle."""

    erasing: Share = 0.7
    """Probability that a rectangle, the same in all cutouts of an image, becomes black."""

    erased: tuple[Share, Share] = (0.1, 0.4)
    """Smallest and largest area of that rectangle, as a fraction of the cutout's."""

    noise: float = Field(0.1, ge=0)
    """Largest standard deviation of the noise that is added last, for pixels in [0, 1]."""


class CutoutsConfig(Config):
    """Settings of the cutouts, the views of an image that CLIP is shown in each step."""

    kind: Literal["latest", "original"] = "latest"
    """How a cutout is taken. "latest": the whole image, reduced by the mean of average and maximum
    pooling. "original": a random square, resized."""

    count: int = Field(32, ge=1)
    """Number of cutouts of each image in each step."""

    power: float = Field(1.0, gt=0)
    """Exponent of the random size of a square: larger exponents give smaller squares."""

    smallest: float | None = Field(None, gt=0, le=1)
    """Smallest side of a square, as a fraction of the image's. None: CLIP's input size."""

    augment: AugmentConfig = AugmentConfig()
    """Random changes of the cutouts."""


class RegulariserConfig(Config):
    """Settings of the mean square of the latents in the loss (`init_weight` of the public code)."""

    weight: float = Field(0.0, ge=0)
    """Its weight w. 0 turns it off."""

    towards: Literal["zero", "start"] = "zero"
    """What latents are compared with: zeros, or the latents of the start."""

    schedule: Literal["inverse", "stages"] = "inverse"
    """How the weight falls with the step i, from 0. "inverse": w / (2 i + 1). "stages": by
    w / `stages` after each `every` steps."""

    stages: int = Field(5, ge=1)
    """Number of stages after which the weight is 0."""

    every: int = Field(50, ge=1)
    """Steps of a stage."""


class ClipVQGANConfig(ModelConfig):
    """Settings of CLIP-guided VQGAN. The defaults are those of nerdyrodent/VQGAN-CLIP.

    `lr`, number of steps and average of the latents are settings of the sampler `optimise`.
    """

    tokenizer: TokenizerConfig = TokenizerConfig()
    """The VQGAN whose latents are optimised."""

    clip: ClipVisionConfig = ClipVisionConfig(normalise="once", resize="bicubic")
    """CLIP's image encoder. Its text half is the text encoder of the run."""

    cutouts: CutoutsConfig = CutoutsConfig()
    """Views of the image that CLIP is shown."""

    weight: float = 1.0
    """Weight of the caption's loss. Below 0: images are led away from the caption."""

    stop: float | None = None
    """Loss of a cutout at which it stops changing the image. None: there is no such loss."""

    start: Literal["codes", "flat", "uniform"] = "codes"
    """Latents of the start: "codes", a random vector of the codebook in each place; "flat", the
    same one everywhere; "uniform", uniform numbers from 0 to 2."""

    smooth: float = Field(0.0, ge=0)
    """Weight of the images' total variation in the loss. 0, as in the paper, turns it off."""

    snaps: int = Field(0, ge=0, le=100)
    """How often an image is encoded and decoded again at the end, which moves it towards what the
    tokenizer knows. 0, as in the paper: never."""

    constrained: bool = True
    """Whether latents are clamped to each channel's range over the codebook after every step."""

    regulariser: RegulariserConfig = RegulariserConfig()
    """Mean square of the latents in the loss."""

    clip_share: float = Field(0.7, gt=0, lt=1)
    """Share of the budget for the contrastive training of CLIP and text encoder. It is left out if
    both are pretrained."""

    clip_lr: float = Field(1e-3, gt=0)
    """Learning rate of CLIP in its stage."""

    text_lr: float = Field(1e-4, gt=0)
    """Learning rate of the text encoder in that stage."""

    @model_validator(mode="after")
    def _weighs(self) -> Self:
        if self.weight == 0:
            raise ValueError("weight is 0, so the caption has no effect: set another weight")
        low, high = self.cutouts.augment.erased
        if low > high:
            raise ValueError("cutouts.augment.erased: the smallest area is above the largest")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        clip: tuple[str, Mapping[str, Any]] = ("clip", {})
        return {
            "tiny": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=SHORT),
            "paper": Preset(PAPER, ("coco", {}), clip),
            "paper512": Preset({**PAPER, "image_size": 512}, ("coco", {}), clip),
            "mse": Preset(MSE, ("coco", {}), clip, RESTARTED),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=SHORT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        seen = min(size, 64)
        reduction = 4
        while size > 16 * reduction:
            reduction *= 2
        width = 64 if memory is None else by_memory(memory, (128, 192, 256, 384))
        channels = 64 if memory is None else by_memory(memory, (96, 128, 192, 256))
        settings = {
            **SHAPES,
            "image_size": size,
            "steps": 4000,
            "batch_size": 32 if size <= 64 else 8,
            "tokenizer": {
                **OWN_TOKENIZER, "vqgan": {**OWN_SIZES, "patch": reduction, "channels": channels},
            },
            "clip": {
                "weights": None, "image_size": seen, "patch": max(1, seen // 8), "width": width,
                "layers": 3, "heads": 4, "normalise": "once", "resize": "bicubic",
            },
        }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1, "width": 64}), sampler=SHORT)


RESTARTED = ("optimise", {"lr": 0.95, "restarts": (51, 101, 151, 201, 251)})
"""Sampler of the preset `mse`: that of its notebook."""

SHORT = ("optimise", {"steps": 150, "lr": 0.2})
"""Sampler of the quick presets."""

GENTLE: dict[str, Any] = {
    "degrees": 4.0, "translate": 0.03, "shear": 0.0, "border": True, "perspective": 0.0,
    "jitter": 0.0, "erasing": 0.0, "noise": 0.1,
}  # fmt: skip
"""Augmentations that leave what captions of shapes say: colours and places stay."""

SHAPES: dict[str, Any] = {
    "image_size": 32,
    "tokenizer": {"weights": "shapes-tokens"},
    "clip": {"weights": "shapes-clip", "normalise": "once", "resize": "bicubic"},
    "cutouts": {"count": 4, "augment": GENTLE},
    "start": "flat",
    "smooth": 6.0,
    "snaps": 3,
}

OWN_SIZES: dict[str, Any] = {
    "channels": 64, "multiples": (1,), "blocks": 1, "attention": (), "middle_attention": False,
    "latent_channels": 32, "groups": 8,
}  # fmt: skip

OWN_TOKENIZER: dict[str, Any] = {
    "kind": "vqgan", "vocabulary": 512, "code_width": 16, "lr": 1.5e-3, "betas": (0.9, 0.99),
    "batch_size": 16, "quantizer": {"kind": "ema", "restart": 0.1},
}  # fmt: skip

# taming's VQGAN f16 with 16384 vectors; the user names the file. Defaults of the rest.
PAPER: dict[str, Any] = {
    "image_size": 256,
    "tokenizer": {
        "vocabulary": 16384, "code_width": 256,
        "vqgan": {"multiples": (1, 1, 2, 2, 4), "attention": (4,)},
        "quantizer": {"legacy": True},
        "losses": {"perceptual": 1.0, "adversarial": 0.75},
    },
}  # fmt: skip

# Notebook "MSE regularized z+quantize_method" of EleutherAI/vqgan-clip@e4c78e7.
MSE: dict[str, Any] = {
    **PAPER,
    "constrained": False,
    "cutouts": {
        "count": 64,
        "kind": "original",
        "augment": {
            "affine": 0.8, "degrees": 30.0, "shear": 0.0, "border": True, "perspective": 0.4,
            "distortion": 0.2, "brightness": 0.0, "contrast": 0.0, "saturation": 0.01, "hue": 0.01,
            "erasing": 0.0,
        },
    },
    "regulariser": {"weight": 1.5, "schedule": "stages"},
}  # fmt: skip
