"""Settings of DALL-E."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from t2i.core.settings import Preset
from t2i.plugins.common.causal.prior_config import (
    GUIDED,
    QUICK_PRIOR,
    SHAPES_PRIOR,
    TokenModelConfig,
    wide_prior,
)
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory


class DalleConfig(TokenModelConfig):
    """Settings of DALL-E: the dVAE, and one transformer over text and image tokens."""

    reads: Literal["tokens", "features"] = "tokens"
    """What the transformer reads of a caption. "tokens": the tokens of the text encoder `bpe`,
    which it predicts too, as in the paper. "features": the word vectors of any text encoder."""

    text_length: int = Field(256, ge=2, le=4096)
    """Number of text tokens, padding included. The text encoder's `length` must be the same."""

    text_vocabulary: int = Field(16384, ge=2, le=1 << 20)
    """Number of different text tokens, at least those of the text encoder."""

    padding: Literal["learned", "token"] = "learned"
    """What stands where a caption has ended: a learned token for each position, as in the paper, or
    one token of the vocabulary ("token"), as in minDALL-E."""

    positions: Literal["grid", "learned"] = "grid"
    """Vectors of the places of an image: one for the row and one for the column ("grid"), as in the
    paper, or one for each place ("learned"), as in minDALL-E."""

    text_weight: float = Field(1 / 8, ge=0, lt=1)
    """Weight w of the text's cross-entropy; that of the image has 1 - w. "features" ignore it."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=SMALL_TEXT, sampler=GUIDED),
            "coco": Preset(
                COCO, data=("coco", {}), encoder=("bpe", {"length": 256}),
                sampler=("autoregressive", {}),
            ),
            "mindalle": Preset(
                MINDALLE, data=("coco", {}), encoder=("bpe", {"length": 64}),
                sampler=("autoregressive", {"top_k": 256}),
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED),
        }  # fmt: skip

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        # A grid of 8x8 tokens for small images on a CPU, else of 16x16.
        groups = 1
        while size >> (groups - 1) > (8 if memory is None and size <= 64 else 16):
            groups += 1
        tokenizer = {**SMALL_DVAE, "dvae": {**SMALL_DVAE["dvae"], "groups": groups}}
        settings: dict[str, Any] = {**TINY, "tokenizer": tokenizer}
        if memory is not None:
            settings |= wide_prior(by_memory(memory, (256, 384, 512, 768)))
        return Preset({**settings, "image_size": size}, encoder=SMALL_TEXT, sampler=GUIDED)


SMALL_TEXT: tuple[str, dict[str, Any]] = ("bpe", {"length": 32, "vocabulary_size": 256})
"""The text encoder of the small presets on text tokens."""

SMALL_DVAE: dict[str, Any] = {
    "kind": "dvae",
    "vocabulary": 256,
    "code_width": 32,
    "dvae": {"channels": 32, "groups": 3, "blocks": 1},
    "quantizer": {
        "kind": "gumbel", "kl_weight": 1e-4, "kl_warmup": 0.3, "last_temperature": 0.1,
        "cooled": 0.8,
    },
    "losses": {"reconstruction": "l1"},
    "lr": 2e-3,
    "betas": (0.9, 0.99),
    "batch_size": 16,
    "share": 0.35,
}  # fmt: skip

DALLE_LAYERS: dict[str, Any] = {
    "attention": ("row", "column", "row", "row"), "last_attention": "conv", "kernel": 11,
}  # fmt: skip
"""Attention of the paper: the last layer is convolutional, layer i of the others reads columns
where i - 2 is a multiple of 4, from 1 on, and rows otherwise (appendix B.1)."""

TINY: dict[str, Any] = {
    **QUICK_PRIOR,
    "tokenizer": SMALL_DVAE,
    "text_length": 32,
    "text_vocabulary": 256,
    "transformer": {**QUICK_PRIOR["transformer"], **DALLE_LAYERS, "kernel": 5},
}

SHAPES: dict[str, Any] = {
    **SHAPES_PRIOR,
    "reads": "features",
    "transformer": TINY["transformer"],
}

# Appendices A.2 and B.2: the dVAE's temperature falls from 1 to 1/16 in 150,000 updates and its KL
# weight rises to 6.6 in 5000, of 3,000,000. The losses are divided by the number of values, so that
# of the 192 values of a token's square each gets 6.6 / 192 of its KL.
DVAE: dict[str, Any] = {
    "kind": "dvae",
    "vocabulary": 8192,
    "code_width": 128,
    "quantizer": {
        "kind": "gumbel", "kl_weight": 6.6 / 192, "kl_warmup": 5 / 3000, "temperature": 1.0,
        "last_temperature": 1 / 16, "cooled": 150 / 3000,
    },
    "losses": {"reconstruction": "logit_laplace"},
    "lr": 1e-4,
    "betas": (0.9, 0.999),
    "batch_size": 512,
    "share": 0.5,
}  # fmt: skip

# 12 billion parameters; the data were 250 million pairs of images and texts.
COCO: dict[str, Any] = {
    "image_size": 256,
    "steps": 430_000,
    "batch_size": 1024,
    "accumulate": 256,
    "ema_decay": 0.999,
    "grad_clip": 4.0,
    "warmup": 5000,
    "lr": 4.5e-4,
    "betas": (0.9, 0.96),
    "weight_decay": 4.5e-2,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "tokenizer": DVAE,
    "transformer": {"width": 3968, "layers": 64, "heads": 62, **DALLE_LAYERS},
    "text_length": 256,
    "text_vocabulary": 16384,
}

# kakaobrain/minDALL-E, configs/dalle-1.3B.yaml.
MINDALLE: dict[str, Any] = {
    "image_size": 256,
    "steps": 100_000,
    "batch_size": 512,
    "accumulate": 128,
    "ema_decay": 0.0,
    "grad_clip": 4.0,
    "lr": 1e-4,
    "lr_schedule": "cosine",
    "weight_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "tokenizer": {
        "kind": "vqgan", "vocabulary": 16384, "code_width": 256,
        "losses": {"perceptual": 1.0, "adversarial": 0.75, "adversarial_start": 0.0},
        "quantizer": {"legacy": True},
    },
    "transformer": {"width": 1536, "layers": 42, "heads": 24},
    "text_length": 64,
    "text_vocabulary": 16384,
    "padding": "token",
    "positions": "learned",
}  # fmt: skip
