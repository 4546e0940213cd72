"""Settings that models of a tokenizer and a causal transformer share. No torch is imported."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from t2i.core.settings import ModelConfig
from t2i.plugins.common.causal.config import TransformerConfig
from t2i.plugins.common.diffusion.config import TextMapConfig
from t2i.plugins.common.flows.config import MAP
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig


class TokenModelConfig(ModelConfig):
    """Settings of a model that turns images into tokens and predicts them one after the other."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    """What turns images into tokens, and its training."""

    transformer: TransformerConfig = TransformerConfig()
    """The transformer that predicts tokens."""

    text: TextMapConfig = TextMapConfig()
    """A map of the words: each place of the image gets its view of them. It is ours, and off in the
    papers' presets. `outline` weighs the cross-entropy of tokens that are predicted from it alone.
    """

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance, 0 to 1."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate of AdamW for the transformer."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained together with the transformer."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two decay rates."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW. It acts on the weights of linear layers."""


class PriorConfig(TokenModelConfig):
    """Settings of a tokenizer with taming's transformer as prior, and captions in front of it."""

    words: bool = True
    """Whether the words of the caption stand before the tokens. Without them, and without a map of
    the words, images do not depend on captions, as taming's models of faces."""

    block: int | None = Field(None, ge=1)
    """Number of positions that the transformer has vectors for. More than it needs are not used.
    None: as many as it needs."""

    coordinates: bool = False
    """Whether the number of each place, scaled to the vocabulary, stands before the image's tokens
    as a token, as in taming's FacesHQ. Otherwise one start token does."""

    pkeep: float = Field(1.0, ge=0, le=1)
    """Probability with which a token that the transformer reads in training is kept. Others are
    replaced by random ones."""


GUIDED: tuple[str, dict[str, Any]] = ("autoregressive", {"guidance": 2.0})
"""The sampler of the small presets."""

SMALL_TRANSFORMER: dict[str, Any] = {
    "width": 128, "layers": 4, "heads": 4, "embedding_std": 0.2,
}  # fmt: skip
"""A transformer of about 0.8M parameters."""

QUICK_PRIOR: dict[str, Any] = {
    "image_size": 32,
    "steps": 6000,
    "batch_size": 16,
    "ema_decay": 0.99,
    "grad_clip": 1.0,
    "warmup": 50,
    "lr": 2e-3,
    "lr_text": 3e-4,
    "lr_schedule": "linear",
    "lr_hold": 0.5,
    "sample_every": 1000,
    "checkpoint_every": 1000,
    "transformer": SMALL_TRANSFORMER,
    "text": MAP,
}
"""Settings with which a small model of tokens learns within minutes on a CPU."""

SHAPES_PRIOR: dict[str, Any] = {**QUICK_PRIOR, "tokenizer": {"weights": "shapes-tokens"}}
"""The same on the tokens that the data set `shapes` ships a tokenizer for."""


def wide_prior(width: int) -> dict[str, Any]:
    """Return settings of a prior for an accelerator.

    Args:
        width: Width of the transformer, a multiple of 64.

    Returns:
        The settings.
    """
    return {
        "batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4,
        "transformer": {"width": width, "layers": 8, "heads": width // 64},
    }  # fmt: skip
