"""Settings of NCSN and NCSNv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_LATENTS,
    SHAPES_TEXT,
    WIDE,
    SpaceConfig,
    TextMapConfig,
    quick_batch,
)
from t2i.plugins.common.sizing import by_memory, patch_of

Depth = Literal["plain", "deeper", "deepest"]

HALVINGS: Mapping[Depth, int] = {"plain": 1, "deeper": 2, "deepest": 3}
"""How often each network halves the size of its input."""

MOST_LEVELS = 100_000
"""Largest number of noise levels."""


class RefineNetConfig(TextMapConfig):
    """Settings of the RefineNet."""

    ngf: int = Field(128, ge=2)
    """Channels of the first stage. The widest stage has two or four times as many."""

    depth: Depth = "plain"
    """Stages of the network: four ("plain", for 32 and 64 px), five ("deeper", for 96 and 128 px)
    or six ("deepest", for 256 px)."""

    per_level: bool = False
    """Whether the network takes the noise level as input, as in NCSN: every normalisation has a row
    for each level, refine blocks are normalised too, and pooling takes means. False: NCSNv2's
    network, which does not."""

    sentence: bool = False
    """Whether a linear function of the sentence is added to the rows of the normalisations, and,
    where `per_level` is off, to the channels of each refine block. Off, and with `text_map` 0: the
    paper's network."""


class NCSNConfig(SpaceConfig):
    """Settings of NCSN. The defaults are NCSNv2's."""

    network: RefineNetConfig = RefineNetConfig()
    """The RefineNet that predicts the score."""

    patch: int = Field(1, ge=1)
    """Side in pixels of the squares whose pixels become channels of the network's input
    (space-to-depth). This keeps a small network's convolutions on a small grid. 1: off, as in the
    papers."""

    sigma_begin: float = Field(50.0, gt=0)
    """Largest noise level, for images in [0, 1] as in the papers. NCSNv2's technique 1: the largest
    distance between two training images (`python -m t2i.plugins.models.ncsn.measure`)."""

    sigma_end: float = Field(0.01, gt=0)
    """Smallest noise level, for images in [0, 1]."""

    levels: int | None = Field(None, ge=2, le=MOST_LEVELS)
    """Number L of noise levels. None: NCSNv2's technique 2, by which neighbouring levels share half
    of their mass."""

    output: Literal["score", "noise", "image"] = "noise"
    """What the network's output is. "score": the score, as in NCSN. "noise": the score times sigma,
    NCSNv2's technique 3. "image": x_0, from which the score follows; neither paper does this, but
    small networks behind patches need it."""

    scaled_input: bool = False
    """Whether x_t is divided by sqrt(1 + sigma^2) before the network. Off in the papers. On, a text
    map in the input weighs the same at all noise levels."""

    min_snr_gamma: float | None = Field(None, ge=1)
    """Upper bound of the weight by which the error of x_0 is multiplied: min(1 + SNR, gamma), where
    SNR is 1 / sigma^2 (after Hang et al. 2023). None: the papers' weight, which makes it the error
    of the noise."""

    reduction: Literal["sum", "mean"] = "sum"
    """How the loss reduces the squared errors of an image. "sum": half of the sum, as in the
    papers. "mean": the mean, which does not depend on the size of images."""

    dequantise: bool = False
    """Whether training images are spread over the 256 values, 255/256 x + u/256, as in NCSN."""

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.sigma_end >= self.sigma_begin:
            raise ValueError(
                f"sigma_end ({self.sigma_end:g}) must be below sigma_begin ({self.sigma_begin:g})"
            )
        if self.output == "score" and not self.network.per_level:
            raise ValueError(
                "a network that does not take the noise level cannot output the score, which grows "
                "with 1 / sigma: set output=noise, or network.per_level=true"
            )
        if self.dequantise and self.autoencoder is not None:
            raise ValueError("dequantise is of the 256 values of pixels: leave it out on latents")
        if self.image_size % size_step(self):
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {size_step(self)} for this "
                "network"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=FEW),
            "cifar-v1": Preset(CIFAR_V1, encoder=("words", {}), sampler=LANGEVIN_V1),
            "cifar-v2": Preset(CIFAR_V2, encoder=("words", {}), sampler=langevin(5, 6.2e-6)),
            "celeba64": Preset(CELEBA64, encoder=("words", {}), sampler=langevin(5, 3.3e-6)),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = _quick(size) if memory is None else _wide(size, memory)
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=FEW
        )


def size_step(config: NCSNConfig) -> int:
    """Return what height and width of images must be multiples of.

    Args:
        config: The model's settings.

    Returns:
        The number of pixels.
    """
    return config.ratio * config.patch * int(2 ** HALVINGS[config.network.depth])


FEW = ("ddim", {"steps": 10, "guidance": 2.0})
"""The sampler of the small presets. Langevin dynamics visits each level several times."""

LANGEVIN_V1 = (
    "langevin", {"each": 100, "eps": 2e-5, "start": "uniform", "denoise": False}
)  # fmt: skip
"""The sampler of NCSN's code, whose step is twice that of its paper (`rule=half`)."""


def langevin(each: int, eps: float) -> tuple[str, dict[str, Any]]:
    """Return the sampler of NCSNv2.

    Args:
        each: Steps T at each noise level.
        eps: Step size at the smallest noise level.

    Returns:
        Name and settings.
    """
    return "langevin", {"each": each, "eps": eps, "start": "uniform"}


# Appendix B.1 of NCSN's paper. The sentence is added to the rows of the normalisations, because the
# papers' images have no captions. The papers mirror images at random: add augment.flip=true where
# captions do not speak of left and right.
CIFAR_V1: dict[str, Any] = {
    "image_size": 32, "steps": 200_000, "batch_size": 128, "ema_decay": 0.0,
    "sample_every": 5000, "checkpoint_every": 5000, "lr": 1e-3, "lr_text": 1e-4,
    "sigma_begin": 1.0, "sigma_end": 0.01, "levels": 10, "output": "score", "dequantise": True,
    "network": {"ngf": 128, "per_level": True, "sentence": True},
}  # fmt: skip

# Table of the hyperparameters of NCSNv2's paper (appendix B.4).
CIFAR_V2: dict[str, Any] = {
    "image_size": 32, "steps": 300_000, "batch_size": 128, "ema_decay": 0.999,
    "sample_every": 5000, "checkpoint_every": 5000, "lr": 1e-4, "lr_text": 1e-4,
    "sigma_begin": 50.0, "sigma_end": 0.01, "levels": 232, "output": "noise",
    "network": {"ngf": 128, "sentence": True},
}  # fmt: skip

CELEBA64 = {**CIFAR_V2, "image_size": 64, "steps": 210_000, "sigma_begin": 90.0, "levels": 500}

# A RefineNet behind patches of 4x4 pixels. It predicts x_0: its channels are too few for all the
# noise in the values of a patch.
TINY: dict[str, Any] = {
    **QUICK_TRAINING, "steps": 2000,
    "patch": 4, "sigma_begin": 50.0, "sigma_end": 0.01, "levels": 60, "output": "image",
    "scaled_input": True, "min_snr_gamma": 5.0, "reduction": "mean",
    "network": {"ngf": 64, "sentence": True, "text_map": 64},
}  # fmt: skip

# On latents of unit variance, whose noise levels are twice `sigma_begin` to twice `sigma_end`. The
# rate is below HELD's, because the refine blocks have no normalisation: with 2e-3 two of three
# trainings lost all that they had learned, within the first 500 steps.
SHAPES: dict[str, Any] = {
    **TINY,
    **HELD, "lr": 1e-3, "lr_text": 3e-4,
    "patch": 1, "autoencoder": SHAPES_LATENTS["autoencoder"], "sigma_begin": 15.0,
    "sigma_end": 0.025, "levels": 45,
    "network": {
        **TINY["network"], "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False,
        "outline": 0.5,
    },
}  # fmt: skip


def _quick(size: int) -> dict[str, Any]:
    """Return the settings of `tiny`, on a grid of at most 16x16 patches for larger images."""
    return {**TINY, "batch_size": quick_batch(size), "patch": patch_of(size, 16, 4)}


def _wide(size: int, memory: int) -> dict[str, Any]:
    """Return settings for an accelerator: a grid of at most 64x64, and a wide network."""
    network = {
        "ngf": by_memory(memory, (80, 96, 128, 192)), "sentence": True, "text_map": 64,
        "map_hops": 2,
    }  # fmt: skip
    steps = QUICK_TRAINING["steps"]
    return {**TINY, **WIDE, "steps": steps, "patch": patch_of(size, 64, 1), "network": network}
