"""The `clip` encoder: the text half of CLIP (Radford et al. 2021), as transformers has it, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape, unique
from t2i.plugins.common.weights.hub import refuse_foreign_code
from t2i.plugins.encoders.clip.config import ClipConfig
from t2i.plugins.encoders.clip.weights import (
    WHAT,
    checked,
    load_text_model,
    load_tokenizer,
    tokenizer_of,
    wanted_weights,
)

CHARACTERS_A_TOKEN = 64


class ClipEncoder(TextEncoder):
    """sentence: (B, 512 for ViT-B/32) the end-of-text token, projected or not. words: (B, L, 512) one vector a token,
    start and end of text among them, L <= 77. Longer captions are cut. Neither is normalised to unit length."""

    def __init__(
        self, config: ClipConfig, clip: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer
    ) -> None:
        super().__init__()
        checked(config, clip.config, tokenizer)
        self.config, self.tokenizer = config, tokenizer
        self.length: int = clip.config.max_position_embeddings
        width = clip.config.hidden_size
        self.shape = TextShape(
            clip.text_projection.out_features if config.sentence == "projected" else width, width
        )
        if config.sentence == "pooled":
            clip.add_module("text_projection", nn.Identity())
        self.clip = clip
        self.float().requires_grad_(False).eval()

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers (B, L), long, and which of them are the caption's own (B, L), bool."""
        batch = self.tokenizer(
            [readable(caption, self.length) for caption in captions],
            padding="max_length" if self.config.attend_padding else "longest",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        device = self.clip.device
        return batch["input_ids"].to(device), batch["attention_mask"].bool().to(device)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Each distinct caption is encoded once: a batch often holds several samples of one prompt, or of none."""
        distinct = unique(captions)
        row = {caption: i for i, caption in enumerate(distinct)}
        return self._encode(distinct)[[row[caption] for caption in captions]]

    def _encode(self, captions: Sequence[str]) -> TextFeatures:
        tokens, mask = self.tokens(captions)
        # No mask goes in: attention is causal and padding comes last, so it changes no token of the caption itself.
        out = self.clip(input_ids=tokens, output_hidden_states=True)
        words = out.hidden_states[self.config.layer]
        if self.config.final_norm:
            words = self.clip.text_model.final_layer_norm(words)
        if self.config.attend_padding:
            mask = torch.ones_like(mask)
        words = words * mask.unsqueeze(
            -1
        )  # what is masked carries no numbers, whoever forgets the mask
        return TextFeatures(out.text_embeds, words, mask, tuple(captions))

    def save_assets(self, folder: Path) -> None:
        """The network's configuration and the tokenizer: with them a saved model loads without the hub."""
        self.clip.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def readable(caption: str, tokens: int) -> str:
    """What of a caption can matter: valid Unicode, single spaces (as CLIP's own tokenizer does), and no more text than
    `tokens` tokens of sensible length can need, since a caption may be a megabyte long."""
    text = caption[: 16 * CHARACTERS_A_TOKEN * tokens].encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())[: CHARACTERS_A_TOKEN * tokens]


def build(config: ClipConfig, assets: Path | None) -> ClipEncoder:
    """The encoder with CLIP's weights; or, of a saved model, the network that its weights are then loaded into.

    Raises UserError, naming what to do, if the weights or the tokenizer cannot be had or are unsound.
    """
    if assets is None:
        clip = load_text_model(config)
        return ClipEncoder(
            config, clip, load_tokenizer(tokenizer_of(wanted_weights(config), config.tokenizer))
        )
    refuse_foreign_code(CLIPTextConfig, assets, WHAT)
    clip = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(assets))
    return ClipEncoder(config, clip, CLIPTokenizer.from_pretrained(assets))
