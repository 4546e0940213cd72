"""The text encoder `clip`: the frozen text half of CLIP (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.clip.tokenizer import load_tokenizer
from t2i.plugins.common.clip.weights import check_config
from t2i.plugins.common.text.frozen import FrozenEncoder
from t2i.plugins.common.weights.transformers_folders import check_saved, tokenizer_of
from t2i.plugins.encoders.clip.config import ClipConfig
from t2i.plugins.encoders.clip.weights import WHAT, checked, load_text_model, wanted_weights


class ClipEncoder(FrozenEncoder):
    """CLIP's text half, frozen.

    `sentence` (B, 512 for ViT-B/32) is the end-of-text token, projected or not. `words` (B, L, 512)
    has one vector for each token, start and end of text included; L <= 77, and longer captions are
    cut. Neither is normalised to unit length.

    Args:
        config: Settings.
        clip: The network of transformers. It is frozen, converted to float32 and, for "pooled"
            sentences, loses its projection.
        tokenizer: The tokenizer of the same CLIP.

    Raises:
        UserError: Settings, network and tokenizer do not fit together.
    """

    def __init__(
        self, config: ClipConfig, clip: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer
    ) -> None:
        super().__init__()
        checked(config, clip.config, tokenizer)
        self.config, self.tokenizer = config, tokenizer
        self.length = clip.config.max_position_embeddings
        self.padding = "max_length" if config.attend_padding else "longest"
        width = clip.config.hidden_size
        self.shape = TextShape(
            clip.text_projection.out_features if config.sentence == "projected" else width, width
        )
        if config.sentence == "pooled":
            clip.add_module("text_projection", nn.Identity())
        self.clip = clip
        self.float().requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        return self.clip

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens, mask = super().tokens(captions)
        if self.config.pad is not None:
            tokens = tokens.masked_fill(~mask, self.config.pad)
        return tokens, mask

    def encode_distinct(self, captions: Sequence[str]) -> TextFeatures:
        tokens, mask = self.tokens(captions)
        # No mask is given: attention is causal and padding comes last, so padding does not change
        # the caption's own tokens.
        out = self.clip(input_ids=tokens, output_hidden_states=True)
        words = out.hidden_states[self.config.layer]
        if self.config.final_norm:
            words = self.clip.text_model.final_layer_norm(words)
        if self.config.attend_padding:
            mask = torch.ones_like(mask)
        # Masked outputs are 0, so code that ignores the mask is safe.
        words = words * mask.unsqueeze(-1)
        return TextFeatures(out.text_embeds, words, mask, tuple(captions))


def build(config: ClipConfig, assets: Path | None) -> ClipEncoder:
    """Build the encoder, with CLIP's weights if it is new.

    Args:
        config: Settings.
        assets: Folder that `save_assets` wrote for a saved model, whose weights the caller loads
            afterwards. None for a new encoder.

    Returns:
        The encoder.

    Raises:
        UserError: The weights or the tokenizer cannot be found or are damaged; the message says
            what to do.
    """
    if assets is None:
        clip = load_text_model(config)
        return ClipEncoder(
            config, clip, load_tokenizer(tokenizer_of(wanted_weights(config), config.tokenizer))
        )
    check_saved(assets, CLIPTextConfig, WHAT, check_config)
    clip = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(assets))
    return ClipEncoder(config, clip, CLIPTokenizer.from_pretrained(assets))
