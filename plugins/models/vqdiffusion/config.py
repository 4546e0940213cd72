"""Settings of VQ-Diffusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    DiffusionConfig,
    TextMapConfig,
)
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig


class VQDiffusionConfig(DiffusionConfig):
    """Settings of VQ-Diffusion. The defaults are those of the released model for COCO."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    """The tokenizer and its training."""

    codes: int | None = Field(None, ge=2)
    """Number of the tokenizer's tokens that are used, of which a table says which (2887 of 8192 in
    the released models). Only imported models have such a table. None: all."""

    width: int = Field(1024, ge=2)
    """Width of the transformer. A multiple of `heads`."""

    layers: int = Field(19, ge=1, le=MOST_LAYERS)
    """Number of the transformer's blocks."""

    heads: int = Field(16, ge=1)
    """Attention heads."""

    mlp_ratio: int = Field(4, ge=1, le=64)
    """Width of a perceptron's hidden layer, as a multiple of `width`."""

    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights of linear layers and embeddings."""

    unit_words: bool = True
    """Whether each word vector is scaled to length 1, as in the released code."""

    learned_null: int = Field(0, ge=0, le=65536)
    """Number of learned words that stand for an empty caption, and so for dropped ones: learnable
    guidance (Tang et al. 2022). 77 in the released models. 0: the text encoder's features of no
    caption."""

    sentence: bool = False
    """Whether the sentence vector is added to every token. Not in the paper."""

    text: TextMapConfig = TextMapConfig()
    """A spatial map of the text that is added to the tokens, each place its own. Not in the paper.
    Its `outline` is the cross-entropy of the tokens that are predicted from the map alone."""

    timesteps: int = Field(100, ge=2, le=100_000)
    """Number T of timesteps."""

    chain: Literal["code", "paper", "mask", "cosine"] = "code"
    """How tokens become noise. "code": the released code's schedule, in effect only masks. "paper":
    0.9 of the tokens are masked in the end, and 0.1 replaced. "mask": the masked share is t / T,
    and nothing is replaced. "cosine": the same with MaskGIT's share, sin(pi t / 2 T)."""

    objective: Literal["bound", "masked"] = "bound"
    """The loss of the transformer. "bound": the variational bound, with the auxiliary loss.
    "masked": MaskGIT's, the cross-entropy of the masked tokens, all timesteps alike."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the objective "masked". MaskGIT: 0.1."""

    importance: bool = True
    """Whether timesteps are drawn in proportion to the root of their mean squared loss, once each
    was seen more than ten times (Nichol & Dhariwal 2021). Otherwise they are drawn uniformly."""

    auxiliary: float = Field(5e-4, ge=0)
    """Weight of the auxiliary loss, -log p(x_0 | x_t)."""

    adaptive: bool = True
    """Whether the auxiliary loss of timestep t is multiplied by 2 - (t - 1) / T, as in the released
    code."""

    token_weights: tuple[float, float] = (1.0, 1.0)
    """Weights of masked and of visible tokens in the loss."""

    weight_decay: float = Field(4.5e-2, ge=0)
    """Weight decay of AdamW, on all parameters as in the released code."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.objective == "masked" and self.chain == "paper":
            raise ValueError('the objective "masked" needs a chain that only masks: set chain=mask')
        if min(self.token_weights) < 0:
            raise ValueError("token_weights: two numbers of at least 0")
        if self.tokenizer.weights is None and self.image_size % self.tokenizer.reduction:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.tokenizer.reduction} "
                "for this tokenizer"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=GUIDED),
            "coco": Preset(COCO, data=("coco", {}), encoder=CLIP, sampler=TRUNCATED),
            "cub": Preset(CUB, data=("cub", {}), encoder=CLIP, sampler=TRUNCATED),
            "ithq": Preset(
                ITHQ, data=("coco", {}), encoder=CLIP, sampler=("discrete", {"guidance": 5.0})
            ),
            "maskgit": Preset(
                MASKGIT, data=("coco", {}), encoder=CLIP,
                sampler=("maskgit", {"steps": 12, "guidance": 3.0}),
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED),
        }  # fmt: skip

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, "batch_size": 24 if size <= 64 else 8}
        if memory is not None:
            settings |= {**WIDE, "width": by_memory(memory, (256, 320, 384, 512))}
        settings["tokenizer"] = _tokenizer(size, memory)
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=GUIDED
        )


CLIP = ("clip", {"attend_padding": True, "pad": 0})
"""CLIP ViT-B/32, all 77 words, those of the padding too, which is the token 0."""

TRUNCATED = ("discrete", {"top_p": 0.86})
"""The paper's truncation, written top0.86r in the released code."""

GUIDED = ("discrete", {"guidance": 2.0})
"""Sampler of the small presets."""

SMALL_TOKENIZER: dict[str, Any] = {
    "kind": "vqgan", "vocabulary": 256, "code_width": 16,
    "vqgan": {
        "patch": 4, "channels": 64, "multiples": (1,), "blocks": 1, "attention": (),
        "middle_attention": False, "latent_channels": 32, "groups": 8,
    },
    "quantizer": {"kind": "ema", "restart": 0.1},
    "lr": 3e-3, "betas": (0.9, 0.99), "batch_size": 8, "share": 0.25,
}  # fmt: skip
"""The tokenizer of the preset `tiny`: 8x8 tokens of images of 32 pixels."""

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "betas": (0.9, 0.96),
    "width": 128,
    "layers": 4,
    "heads": 4,
    "mlp_ratio": 2,
    "init_std": 0.05,
    "timesteps": 32,
    "chain": "cosine",
    "auxiliary": 0.01,
    "weight_decay": 0.01,
    "sentence": True,
    "text": {
        "text_map": 64, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False,
        "outline": 0.2,
    },
    "tokenizer": SMALL_TOKENIZER,
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY, **HELD, "layers": 3, "batch_size": 16, "lr": 2e-3, "ema_decay": 0.99,
    "tokenizer": {"weights": "shapes-tokens"},
}  # fmt: skip

WIDE: dict[str, Any] = {
    "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4, "layers": 8, "heads": 8,
    "mlp_ratio": 4, "init_std": 0.02, "timesteps": 100,
}  # fmt: skip

# VQGAN f8 with Gumbel quantization, trained on OpenImages by taming-transformers' authors.
OPENIMAGES: dict[str, Any] = {
    "kind": "vqgan", "vocabulary": 8192, "code_width": 256,
    "vqgan": {"multiples": (1, 1, 2, 4), "attention": (2,), "latent_channels": 256},
    "quantizer": {"kind": "gumbel", "kl_weight": 1e-8},
}  # fmt: skip

# configs/coco.yaml of microsoft/VQ-Diffusion: 100 epochs of 82,783 images, 4 images on each of
# (the paper's) 16 GPUs. Clipping by 0.5 and averages of every 25 steps are the released code's.
COCO: dict[str, Any] = {
    "image_size": 256,
    "steps": 129_000,
    "batch_size": 64,
    "accumulate": 16,
    "lr": 2e-4,
    "betas": (0.9, 0.96),
    "warmup": 1000,
    "grad_clip": 0.5,
    "ema_decay": 0.9996,  # 0.99 every 25 steps
    "caption_dropout": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "tokenizer": OPENIMAGES,
}

CUB: dict[str, Any] = {**COCO, "steps": 55_000, "lr": 4.5e-4}

# configs/ithq.yaml: 1.36 billion parameters, with learnable guidance.
ITHQ: dict[str, Any] = {
    **COCO,
    "width": 1408,
    "layers": 36,
    "lr": 1e-4,
    "warmup": 7000,
    "caption_dropout": 0.1,
    "learned_null": 77,
    "tokenizer": {
        "kind": "vqgan", "vocabulary": 4096, "code_width": 128,
        "vqgan": {
            "channels": 64, "multiples": (1, 2, 4, 8), "attention": (3,), "latent_channels": 256,
        },
        "quantizer": {"kind": "ema"},
    },
}  # fmt: skip

# MaskGIT's sizes and loss, with a caption in place of its class; its network reads no timestep.
MASKGIT: dict[str, Any] = {
    **COCO,
    "width": 768,
    "layers": 24,
    "heads": 16,
    "chain": "cosine",
    "objective": "masked",
    "label_smoothing": 0.1,
    "importance": False,
    "caption_dropout": 0.1,
    "batch_size": 256,
    "accumulate": 16,
    "lr": 1e-4,
    "tokenizer": {"kind": "vqgan", "vocabulary": 1024},
}


def _tokenizer(size: int, memory: int | None) -> dict[str, Any]:
    """Return the tokenizer of a preset `auto`: 8x8 to 15x15 tokens, four times as many if wide."""
    side, patch = (8, 4) if memory is None else (16, 2)
    patch, levels = math.gcd(size, patch), 0
    while size % (patch << (levels + 1)) == 0 and size // (patch << (levels + 1)) >= side:
        levels += 1
    multiples = (1, 2, 2, 4, 4, 4, 4, 4)[: levels + 1]
    sizes = {**SMALL_TOKENIZER["vqgan"], "patch": patch, "multiples": multiples}
    if memory is None:
        return {**SMALL_TOKENIZER, "vqgan": sizes}
    sizes |= {"blocks": 2, "latent_channels": 128}
    return {**SMALL_TOKENIZER, "vocabulary": 1024, "code_width": 32, "vqgan": sizes, "lr": 3e-4}
