"""Settings of the VQ-VAE with a prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.core.settings import Preset
from t2i.plugins.common.causal.prior_config import (
    GUIDED,
    QUICK_PRIOR,
    PriorConfig,
    wide_prior,
)
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory


class VQVAEConfig(PriorConfig):
    """Settings of the VQ-VAE, with a transformer that reads captions as prior."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=GUIDED),
            "coco": Preset(COCO, data=("coco", {}), encoder=("clip", {}), sampler=GUIDED),
            "shapes": Preset(TINY, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        # A grid of 8x8 tokens for small images on a CPU, else of 16x16.
        levels = 1
        while size >> levels > (8 if memory is None and size <= 64 else 16):
            levels += 1
        tokenizer = {**SMALL_VQVAE, "vqvae": {**SMALL_VQVAE["vqvae"], "levels": levels}}
        settings: dict[str, Any] = {**TINY, "tokenizer": tokenizer}
        if memory is not None:
            settings |= wide_prior(by_memory(memory, (256, 384, 512, 768)))
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=GUIDED
        )


SMALL_VQVAE: dict[str, Any] = {
    "kind": "vqvae",
    "vocabulary": 256,
    "code_width": 32,
    "vqvae": {"channels": 64, "levels": 2, "residual_layers": 2, "residual_channels": 32},
    "quantizer": {"kind": "ema", "restart": 0.03},
    "losses": {"reconstruction": "l2", "variance": 0.06},
    "lr": 1e-3,
    "betas": (0.9, 0.99),
    "batch_size": 16,
    "share": 0.3,
}

TINY: dict[str, Any] = {**QUICK_PRIOR, "tokenizer": SMALL_VQVAE}

# Section 4.1 of the paper: 128 px to 32x32 tokens of 512. The prior is taming's transformer, where
# the paper has a PixelCNN.
COCO: dict[str, Any] = {
    "image_size": 128,
    "steps": 500_000,
    "batch_size": 128,
    "accumulate": 16,
    "ema_decay": 0.9999,
    "lr": 2e-4,
    "warmup": 5000,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "tokenizer": {
        "kind": "vqvae", "vocabulary": 512, "code_width": 64,
        "vqvae": {"channels": 256, "levels": 2, "residual_layers": 2, "residual_channels": 256},
        "losses": {"reconstruction": "l2"},
        "lr": 2e-4, "betas": (0.9, 0.999), "batch_size": 128, "share": 0.5,
    },
    "transformer": {"width": 1024, "layers": 24, "heads": 16},
}  # fmt: skip
