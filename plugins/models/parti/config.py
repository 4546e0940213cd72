"""Settings of Parti."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.settings import MOST_LAYERS, ModelConfig, Preset
from t2i.plugins.common.diffusion.config import QUICK_TRAINING, TextMapConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.sizing import by_memory, patch_of
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig


class PartiConfig(ModelConfig):
    """Settings of Parti: the tokenizer, and the transformers over words and tokens.

    The defaults are those of the paper's smallest model, of 350 million parameters.
    """

    tokenizer: TokenizerConfig = TokenizerConfig()
    """The tokenizer and its training."""

    encoder_layers: int = Field(12, ge=0, le=MOST_LAYERS)
    """Blocks of the encoder, which reads the words of the text encoder. 0: the decoder attends to
    these words."""

    decoder_layers: int = Field(12, ge=1, le=MOST_LAYERS)
    """Blocks of the decoder, which predicts the tokens of the image."""

    width: int = Field(1024, ge=1, le=65536)
    """Width of encoder and decoder. A multiple of `heads`."""

    hidden: int = Field(4096, ge=1, le=1 << 20)
    """Width of the hidden layer of each perceptron."""

    heads: int = Field(16, ge=1)
    """Attention heads of each block."""

    max_words: int = Field(128, ge=1)
    """Largest number of words of a caption; the encoder leaves out those beyond."""

    kernel: int = Field(0, ge=0)
    """Side of the conv-shaped sparse mask of the decoder's self-attention, an odd number.

    A token is predicted from those before it within the square of this side around it. 0: from all
    before it.
    """

    qk_norm: bool = False
    """Whether queries and keys are divided by their root mean square, head by head. This keeps
    attention from saturating at high learning rates. It is ours."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of dropout after embeddings and in each block, 0 to below 1."""

    text: TextMapConfig = TextMapConfig()
    """A spatial map of the words that is added to the decoder's input, and its loss: to predict the
    tokens from the map alone. It is ours; off in the paper's presets."""

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance, 0 to 1."""

    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    """The optimizer: "adafactor" as in the paper, or "adamw"."""

    lr: float = Field(4.5e-5, gt=0)
    """Learning rate of encoder and decoder."""

    lr_text: float = Field(4.5e-5, gt=0)
    """Learning rate of a text encoder that is trained together with them."""

    betas: tuple[float, float] = (0.9, 0.96)
    """Decay rates of the optimizer's mean of gradients and of their squares. Adafactor ignores the
    second: its rate is 1 - t^-0.8 at step t."""

    weight_decay: float = Field(4.5e-2, ge=0)
    """Weight decay, of the weights of linear layers only."""

    lr_decay_start: float = Field(85 / 450, ge=0, lt=1)
    """Progress of the stage at which an exponential decay of the learning rates begins, 0 to 1."""

    lr_decay_ratio: float = Field(1.0, gt=0, le=1)
    """Learning rate at the end of this decay, as a share of that before. 1: there is no decay."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel and (kernel % 2 == 0 or kernel < 3):
            raise ValueError("an odd number from 3 on, a place and as many on either side, or 0")
        return kernel

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        reduction = self.tokenizer.reduction
        if self.tokenizer.weights is None and self.image_size % reduction:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {reduction}, the pixels "
                "that a side of a token spans"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        paper = {
            "350m": PAPER,
            "750m": {**PAPER, "decoder_layers": 36},
            "3b": {**PAPER, "decoder_layers": 36, "width": 2048, "hidden": 8192, "heads": 32},
            "20b": {
                **PAPER, "encoder_layers": 16, "decoder_layers": 64, "width": 4096,
                "hidden": 16384, "heads": 64,
            },
        }  # fmt: skip
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=GUIDED),
            **{
                name: Preset(settings, data=("coco", {}), encoder=OWN_WORDS, sampler=GUIDED)
                for name, settings in paper.items()
            },
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=GUIDED),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, "batch_size": 24 if size <= 32 else 16}
        patch = patch_of(size, 8, 4)
        if memory is not None:
            width = by_memory(memory, (256, 384, 512, 640))
            patch = patch_of(size, 16, 4)
            settings = {
                **TINY, **WIDE, "width": width, "hidden": 4 * width, "heads": width // 64,
            }  # fmt: skip
        wide = 96 if memory is None else 256
        sizes = {"layers": 2 if memory is None else 6, "width": wide, "heads": wide // 32}
        sizes = {**sizes, "head_width": 32, "hidden": 4 * wide}
        tokenizer = {
            **TINY["tokenizer"], "vit": {"patch": patch, "encoder": sizes, "decoder": sizes},
        }  # fmt: skip
        return Preset(
            {**settings, "image_size": size, "tokenizer": tokenizer},
            encoder=("words", {"layers": 1}),
            sampler=GUIDED,
        )


GUIDED = ("autoregressive", {"guidance": 2.0})
"""Sampler of all presets."""

OWN_WORDS = (
    "words",
    {
        "width": 1024, "heads": 16, "layers": 1, "positions": 0.02, "max_words": 128,
        "vocabulary_size": 16_000,
    },
)  # fmt: skip
"""Text encoder of the paper's presets: little more than embeddings, which Parti's encoder reads."""

SMALL_VIT: dict[str, Any] = {"layers": 2, "width": 96, "heads": 3, "head_width": 32, "hidden": 384}

TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "optimizer": "adamw",
    "betas": (0.9, 0.95),
    "weight_decay": 0.01,
    "lr_text": 3e-4,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "width": 128,
    "hidden": 512,
    "heads": 4,
    "max_words": 64,
    "qk_norm": True,
    "dropout": 0.0,
    "text": {
        "text_map": 64, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False,
        "outline": 0.3,
    },
    "tokenizer": {
        "kind": "vit",
        "vocabulary": 256,
        "code_width": 16,
        "vit": {"patch": 4, "encoder": SMALL_VIT, "decoder": SMALL_VIT},
        "quantizer": {"normalised": True, "restart": 0.03},
        "lr": 2e-3,
        "betas": (0.9, 0.99),
        "batch_size": 16,
        "share": 0.3,
    },
}  # fmt: skip

SHAPES: dict[str, Any] = {
    **TINY,
    "lr": 2e-3,
    "lr_schedule": "linear",
    "lr_hold": 0.5,
    "ema_decay": 0.99,
    "tokenizer": {"weights": "shapes-tokens"},
}

WIDE: dict[str, Any] = {
    "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4, "encoder_layers": 4,
    "decoder_layers": 8,
}  # fmt: skip

# ViT-VQGAN small (Yu et al. 2021): 32x32 tokens of 8192 at 256 pixels. Errors of the reconstruction
# as in its public code.
VIT_SMALL: dict[str, Any] = {"layers": 8, "width": 512, "heads": 8, "hidden": 2048}
VIT_BASE: dict[str, Any] = {"layers": 12, "width": 768, "heads": 12, "hidden": 3072}
VIT_WIDE_DECODER: dict[str, Any] = {"layers": 32, "width": 1280, "heads": 16, "hidden": 5120}
VIT_VQGAN: dict[str, Any] = {
    "kind": "vit",
    "vocabulary": 8192,
    "code_width": 32,
    "vit": {"patch": 8, "encoder": VIT_SMALL, "decoder": VIT_SMALL},
    "quantizer": {"normalised": True},
    "losses": {
        "reconstruction": "l2", "variance": 4.0, "perceptual": 0.1, "adversarial": 0.1,
        "adversarial_start": 0.0, "adaptive": False, "adversarial_loss": "bce",
    },
    "lr": 1e-4,
    "betas": (0.9, 0.99),
    "batch_size": 256,
    "share": 500 / 950,
}  # fmt: skip

# The paper's training: 450,000 steps of 8192 images, after 500,000 steps of the tokenizer.
PAPER: dict[str, Any] = {
    "image_size": 256,
    "tokenizer": VIT_VQGAN,
    "kernel": 11,
    "steps": 950_000,
    "batch_size": 8192,
    "accumulate": 128,
    "warmup": 10_000,
    "precision": "bf16",
    "ema_decay": 0.0,
    "lr_decay_ratio": 0.025,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}
