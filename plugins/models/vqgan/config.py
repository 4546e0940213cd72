"""Settings of VQGAN with its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.core.settings import Preset
from t2i.plugins.common.causal.prior_config import (
    GUIDED,
    QUICK_PRIOR,
    SHAPES_PRIOR,
    PriorConfig,
    wide_prior,
)
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory


class VQGANConfig(PriorConfig):
    """Settings of VQGAN, with a transformer that reads captions."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=GUIDED),
            "coco": Preset(
                COCO, data=("coco", {}), encoder=("clip", {}),
                sampler=("autoregressive", {"top_k": 600, "top_p": 0.92, "guidance": 2.0}),
            ),
            "faces": Preset(
                FACES, data=("imagefolder", {}), encoder=("none", {}),
                sampler=("autoregressive", {"top_k": 250}),
            ),
            "shapes": Preset(
                SHAPES_PRIOR, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED
            ),
        }  # fmt: skip

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        # A grid of 8x8 tokens for small images on a CPU, else of 16x16.
        patch = 1
        while size // patch > (8 if memory is None and size <= 64 else 16):
            patch *= 2
        tokenizer = {**SMALL_VQGAN, "vqgan": {**SMALL_VQGAN["vqgan"], "patch": patch}}
        settings: dict[str, Any] = {**TINY, "tokenizer": tokenizer}
        if memory is not None:
            settings |= wide_prior(by_memory(memory, (256, 384, 512, 768)))
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=GUIDED
        )


SMALL_VQGAN: dict[str, Any] = {
    "kind": "vqgan",
    "vocabulary": 256,
    "code_width": 16,
    "vqgan": {
        "patch": 4, "channels": 64, "multiples": (1,), "blocks": 1, "attention": (),
        "middle_attention": False, "latent_channels": 32, "groups": 8,
    },
    "quantizer": {"normalised": True, "restart": 0.03},
    "losses": {"reconstruction": "l1"},
    "lr": 2e-3,
    "betas": (0.9, 0.99),
    "batch_size": 16,
    "share": 0.35,
}  # fmt: skip

TINY: dict[str, Any] = {**QUICK_PRIOR, "tokenizer": SMALL_VQGAN}

# configs/imagenet_vqgan.yaml of CompVis/taming-transformers, with the vocabulary of the released
# f16-16384. Its discriminator begins in the middle of the training of the model of 1024 tokens.
F16: dict[str, Any] = {
    "kind": "vqgan",
    "vocabulary": 16384,
    "code_width": 256,
    "quantizer": {"legacy": True},
    "losses": {"perceptual": 1.0, "adversarial": 0.75, "adversarial_start": 0.0},
    "lr": 5.4e-5,
    "batch_size": 12,
}

COCO: dict[str, Any] = {
    "image_size": 256,
    "steps": 1_000_000,
    "batch_size": 32,
    "accumulate": 8,
    "ema_decay": 0.0,
    "lr": 1.44e-4,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "tokenizer": F16,
    "transformer": {"width": 1024, "layers": 24, "heads": 16},
}

# configs/faceshq_transformer.yaml: coordinates stand before the tokens, and there is no caption.
FACES: dict[str, Any] = {
    **COCO,
    "lr": 9e-6,
    "batch_size": 2,
    "accumulate": 1,
    "caption_dropout": 0.0,
    "words": False,
    "block": 512,
    "coordinates": True,
    "tokenizer": {
        **F16,
        "vocabulary": 1024,
        "losses": {"perceptual": 1.0, "adversarial": 0.8, "adversarial_start": 0.05},
    },
}
