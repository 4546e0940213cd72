"""Settings of RealNVP and NICE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.diffusion.config import HELD, QUICK_TRAINING, SHAPES_AUTOENCODER
from t2i.plugins.common.flows.config import MAP, FlowConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory


class RealNVPConfig(FlowConfig):
    """Settings of RealNVP, or of NICE. The defaults are RealNVP's for images of 32 pixels."""

    layout: Literal["realnvp", "nice"] = "realnvp"
    """Kind of flow. "realnvp": couplings of convolutions over scales; "nice": additive couplings of
    perceptrons between the even and the odd values of a vector, which read the sentence. A text map
    reaches "nice" through `text_affine` only."""

    coupling: Literal["affine", "additive"] = "affine"
    """Couplings of "realnvp": "affine", or "additive" as in NICE, which preserve volume."""

    scales: int = Field(2, ge=1, le=8)
    """Number of scales; each after the first has half the resolution of the one before. "nice"
    ignores it."""

    width: int = Field(64, ge=1)
    """Channels of the coupling networks of the first scale, twice as many from scale to scale. Of
    "nice": units of a hidden layer."""

    blocks: int = Field(8, ge=1, le=MOST_LAYERS)
    """Residual blocks of a coupling network. Of "nice": hidden layers."""

    couplings: int = Field(4, ge=2, le=MOST_LAYERS)
    """Number of couplings of "nice". "realnvp" ignores it."""

    prior: Literal["logistic", "gaussian"] = "logistic"
    """Density of the noise of "nice", before it is turned into normal noise. "realnvp" ignores it.
    """

    batch_norm: bool = True
    """Whether coupling networks of "realnvp" have batch normalisation."""

    logit: float = Field(0.9, ge=0, lt=1)
    """Share of (0, 1) that pixels take before their logit, which needs uniform dequantisation. 0:
    there is no logit. Latents and "nice" have none."""

    recalibrate: int = Field(0, ge=0)
    """Batches with which the statistics of batch normalisation are recomputed when training ends,
    since those of training belong to other weights than the averaged ones. 0: they are kept."""

    weight_decay: float = Field(5e-5, ge=0)
    """Weight of the squared lengths of weight-normalised filters, as Adam's L2 term."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        smallest = 2 ** (self.scales - 1) if self.layout == "realnvp" else 1
        if self.image_size % self.ratio or self.side % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.ratio * smallest} for "
                f"{self.scales} scales"
            )
        pixels = self.layout == "realnvp" and not self.autoencoder
        if pixels and self.logit and self.noise_std:
            raise ValueError(
                "Gaussian noise leaves the range in which pixels have a logit: set logit=0, or "
                "noise_std=0"
            )
        if self.layout == "nice" and self.channels * self.side**2 % 2:
            raise ValueError("layout=nice needs an even number of values")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=COOL),
            "cifar": Preset(CIFAR, encoder=("words", {})),
            "nice": Preset(NICE, encoder=("words", {})),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=COOL),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, "batch_size": 24 if size <= 32 else 8}
        if memory is not None:
            settings = {**TINY, **WIDE, "width": by_memory(memory, (32, 48, 64, 64))}
        scales = 3 if size <= 64 else 4
        return Preset(
            {**settings, "scales": scales, "image_size": size},
            encoder=("words", {"layers": 1}),
            sampler=COOL,
        )


COOL = ("inverse", {"temperature": 0.7})
"""Sampler of the small presets."""

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "scales": 3,
    "width": 16,
    "blocks": 2,
    "batch_norm": False,
    "logit": 0.0,
    "noise_std": 0.05,
    "text": MAP,
    "text_affine": True,
}

WIDE: dict[str, Any] = {
    "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 5e-4, "blocks": 4,
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD,
    "lr": 1e-3,
    "autoencoder": SHAPES_AUTOENCODER,
    "scales": 2,
    "width": 32,
    "noise_std": 0.2,
}

# Section 4.1 of the paper for images of 32 pixels: 8 residual blocks of 64 channels, batch 64, Adam
# with its defaults. The public port clips the norm of the gradients of the summed loss at 100,
# which is 100 / 3072 for a mean over the values.
CIFAR: dict[str, Any] = {
    "image_size": 32,
    "steps": 250_000,
    "batch_size": 64,
    "lr": 1e-3,
    "grad_clip": 100 / 3072,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "text": {"text_map": 64, "map_hops": 1},
}

# Section 5.1 of NICE for CIFAR-10: four couplings of four hidden layers of 2000 units, and a
# logistic prior. The paper whitens the images (ZCA); here they are used as they are.
NICE: dict[str, Any] = {
    "image_size": 32,
    "layout": "nice",
    "width": 2000,
    "blocks": 4,
    "steps": 250_000,
    "batch_size": 200,
    "lr": 1e-3,
    "betas": (0.9, 0.99),
    "weight_decay": 0.0,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}
