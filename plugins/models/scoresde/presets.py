"""The presets of score-based models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.core.settings import Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_LATENTS,
    SHAPES_TEXT,
    SMALL_UNET,
    WIDE,
    quick_pixels,
    wide_pixels,
)

# A small network on patches: the equation, and which errors count, are in README.md.
TINY: dict[str, Any] = {
    **QUICK_TRAINING, "sde": "vp", "network": "unet", "prediction": "sample",
    "weight_bounds": (1.0, 5.0), "patch": 4, "unet": SMALL_UNET,
}  # fmt: skip

SHAPES: dict[str, Any] = {**TINY, **HELD, **SHAPES_LATENTS, "prediction": "v"}

# Appendix H of the paper and the authors' configurations. The paper mirrors its images at random:
# add augment.flip=true where captions do not speak of left and right.
PAPER: dict[str, Any] = {
    "image_size": 32, "steps": 1_300_000, "batch_size": 128, "grad_clip": 1.0, "warmup": 5000,
    "lr": 2e-4, "lr_text": 2e-4, "sample_every": 5000, "checkpoint_every": 5000,
}  # fmt: skip
VE: dict[str, Any] = {**PAPER, "sde": "ve", "reduction": "half-sum", "ema_decay": 0.999}
VP: dict[str, Any] = {**PAPER, "sde": "vp", "ema_decay": 0.9999}
DEEP: dict[str, Any] = {"steps": 950_000}

# The sentence is added to the embedding, because the paper's images have no captions.
NCSNPP: dict[str, Any] = {"sentence": True}
DDPMPP: dict[str, Any] = {
    **NCSNPP, "embedding": "positional", "fir": False, "progressive_input": "none",
}  # fmt: skip

FFHQ: dict[str, Any] = {
    **VE, "image_size": 256, "steps": 2_400_000, "batch_size": 64, "accumulate": 8,
    "sigma_max": 348.0,
    "ncsnpp": {
        **NCSNPP, "multipliers": (1, 1, 2, 2, 2, 2, 2), "layers": 2, "dropout": 0.0,
        "progressive_input": "input_skip", "progressive": "output_skip",
    },
}  # fmt: skip


# The samplers of the authors' configurations.
PC = ("pc", {"steps": 1000, "snr": 0.16})
EULER_MARUYAMA = ("pc", {"steps": 1000, "predictor": "euler-maruyama", "corrector_steps": 0})


def _paper(settings: Mapping[str, Any], network: Mapping[str, Any], layers: int = 4) -> Preset:
    """Return a preset with one of the paper's networks for CIFAR-10."""
    more = DEEP if layers > 4 else {}
    ncsnpp = {**network, "layers": layers}
    sampler = PC if settings["sde"] == "ve" else EULER_MARUYAMA
    return Preset({**settings, **more, "ncsnpp": ncsnpp}, encoder=("words", {}), sampler=sampler)


QUICK = ("ddim", {"steps": 25, "guidance": 2.0})

PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=QUICK),
    "cifar-ve": _paper(VE, NCSNPP),
    "cifar-vp": _paper(VP, DDPMPP),
    "cifar-sub-vp": _paper({**VP, "sde": "sub-vp"}, DDPMPP),
    "cifar-ve-deep": _paper(VE, NCSNPP, 8),
    "cifar-vp-deep": _paper(VP, DDPMPP, 8),
    "cifar-sub-vp-deep": _paper({**VP, "sde": "sub-vp"}, DDPMPP, 8),
    "ffhq256": Preset(
        FFHQ,
        encoder=("words", {}),
        sampler=("pc", {"steps": 2000, "snr": 0.075, "sigma_max": None}),
    ),
    "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=QUICK),
}


def sized(size: int, memory: int | None) -> Preset:
    """Return the preset `auto`.

    Args:
        size: Height and width of the images in pixels.
        memory: Memory of the accelerator in bytes. None: the CPU.

    Returns:
        The preset.
    """
    wide = {} if memory is None else {**WIDE, **wide_pixels(size, memory), "prediction": "v"}
    settings = {**TINY, **quick_pixels(size), **wide, "image_size": size}
    return Preset(settings, encoder=("words", {"layers": 1}), sampler=QUICK)
