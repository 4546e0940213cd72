"""Settings of Glow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.diffusion.config import HELD, QUICK_TRAINING, SHAPES_AUTOENCODER
from t2i.plugins.common.flows.config import MAP, FlowConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory


class GlowConfig(FlowConfig):
    """Settings of Glow. The defaults are the paper's; README.md lists OpenAI's code's."""

    levels: int = Field(3, ge=1, le=8)
    """Number of levels L. Each halves the resolution, and all but the last split half of the
    channels off."""

    depth: int = Field(32, ge=1, le=MOST_LAYERS)
    """Steps of flow K of each level."""

    width: int = Field(512, ge=1)
    """Channels of the coupling networks."""

    coupling: Literal["affine", "additive"] = "affine"
    """Couplings: "affine", or "additive", which preserve volume."""

    scale: Literal["exp", "sigmoid"] = "exp"
    """Scale of an affine coupling. "exp": y = x exp(s) + t, as in the paper; "sigmoid": y = (x + t)
    sigmoid(s + 2), as in OpenAI's code, which never expands."""

    interleaved: bool = False
    """Whether shifts and scales are every second channel of a network's output, as in OpenAI's
    code, rather than its halves."""

    permutation: Literal["lu", "plain"] = "plain"
    """Weight of the 1x1 convolutions: "plain", or "lu": P L (U + diag(s)), whose determinant costs
    nothing."""

    edges: Literal["zeros", "ones", "flag"] = "zeros"
    """What 3x3 convolutions read beyond the edges. "flag": zeros, and a further channel that is 1
    there only, as in OpenAI's code; "ones": ones in convolutions that start at zero, zeros in the
    others."""

    hidden_norm: bool = True
    """Whether the hidden layers of couplings have actnorm, as in OpenAI's code, rather than a bias.
    """

    log_factor: float = Field(1.0, gt=0)
    """Factor by which the log scales of actnorm are multiplied, which speeds up their learning. 3
    in OpenAI's code."""

    text_prior: bool = False
    """Whether the Gaussians of the levels also depend on the text map. It is ours; OpenAI's code
    has the class there."""

    optimizer: Literal["adam", "adamax"] = "adam"
    """Optimizer: "adam", or "adamax" as in OpenAI's code."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        smallest = self.ratio * 2**self.levels
        if self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for "
                f"{self.levels} levels"
            )
        if self.text_prior and not self.text.text_map:
            raise ValueError("text_prior needs a text map: set text.text_map above 0")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=COOL),
            "cifar": Preset(CIFAR, encoder=("words", {})),
            "openai": Preset({**CIFAR, **OPENAI}, encoder=("words", {})),
            "faces": Preset(
                {**CIFAR, **OPENAI, **FACES}, data=("coco", {}), encoder=("clip", {}), sampler=COOL
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=COOL),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, "batch_size": 24 if size <= 32 else 8}
        if memory is not None:
            settings = {**TINY, **WIDE, "width": by_memory(memory, (128, 192, 256, 384))}
        levels = 3 if size <= 64 else 5 if size <= 128 else 6
        return Preset(
            {**settings, "levels": levels, "image_size": size},
            encoder=("words", {"layers": 1}),
            sampler=COOL,
        )


COOL = ("inverse", {"temperature": 0.7})
"""Sampler of the paper's images and of the small presets."""

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "levels": 3,
    "depth": 6,
    "width": 64,
    "scale": "sigmoid",
    "hidden_norm": False,
    "noise_std": 0.05,
    "text": MAP,
    "text_affine": True,
    "text_prior": True,
}

WIDE: dict[str, Any] = {
    "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4, "depth": 16,
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD,
    "lr": 1e-3,
    "autoencoder": SHAPES_AUTOENCODER,
    "levels": 2,
    "depth": 6,
    "width": 96,
    "noise_std": 0.2,
}

# Table 4 of the paper: CIFAR-10 with L 3, K 32, width 512, affine couplings, batch 512, Adam 1e-3.
CIFAR: dict[str, Any] = {
    "image_size": 32,
    "steps": 500_000,
    "batch_size": 512,
    "accumulate": 8,
    "lr": 1e-3,
    "ema_decay": 0.0,
    "warmup": 1000,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "text": {"text_map": 64, "map_hops": 1},
}

# The code's own choices: model.py and train.py of openai/glow@91b2c57. Its couplings are additive
# by default; flow_coupling 1, which its README trains CIFAR-10 with, is affine.
OPENAI: dict[str, Any] = {
    "scale": "sigmoid",
    "interleaved": True,
    "edges": "flag",
    "hidden_norm": True,
    "log_factor": 3.0,
    "optimizer": "adamax",
}

# The paper's images of faces: 256 pixels, 5 bits, additive couplings, L 6, batch 40.
FACES: dict[str, Any] = {
    "image_size": 256,
    "bits": 5,
    "levels": 6,
    "coupling": "additive",
    "batch_size": 40,
}
