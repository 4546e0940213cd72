"""Getting CLIP's weights and tokenizer, from a folder or the hub; what cannot be had is said in one line.

Only safetensors and JSON are read, and never any code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.weights.hub import Wanted, obtained, refuse_foreign_code
from t2i.plugins.common.weights.variants import variant_of
from t2i.plugins.encoders.clip.config import ClipConfig

WHAT = "text encoder 'clip'"
FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"


def load_text_model(config: ClipConfig) -> CLIPTextModelWithProjection:
    """CLIP's text half with its weights. Raises UserError if they cannot be had or are incomplete."""

    def load(source: str, offline: bool) -> CLIPTextModelWithProjection:
        folder = Path(source)
        refuse_foreign_code(CLIPTextConfig, source, WHAT, revision=config.revision, local_files_only=offline)
        loaded: Any = CLIPTextModelWithProjection.from_pretrained(
            source, revision=config.revision, local_files_only=offline, use_safetensors=True, output_loading_info=True,
            variant=variant_of(folder, "model") if folder.is_dir() else None,
        )  # fmt: skip
        clip: CLIPTextModelWithProjection = loaded[0]
        report = loaded[1]
        missing = set(report["missing_keys"])
        if config.sentence == "pooled":  # the text half of Stable Diffusion comes without a projection
            missing.discard("text_projection.weight")
        if missing == {"text_projection.weight"}:
            raise UserError(f"{WHAT}: {source} has no projection; use --set encoder.sentence=pooled")
        if missing:
            raise UserError(f"{WHAT}: {source} holds no whole CLIP text encoder: {sorted(missing)[0]} is missing")
        return clip

    return obtained(Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER), load)


def load_tokenizer(config: ClipConfig) -> CLIPTokenizer:
    """CLIP's tokenizer. Raises UserError if its files cannot be had."""

    revision = config.revision if config.tokenizer is None else "main"

    def load(source: str, offline: bool) -> CLIPTokenizer:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(source, revision=revision, local_files_only=offline)
        if set(tokenizer.get_vocab()) == set(tokenizer.all_special_tokens):  # made up: transformers found no file
            raise FileNotFoundError("no tokenizer.json there, nor vocab.json and merges.txt")
        return tokenizer

    key = "weights" if config.tokenizer is None else "tokenizer"
    return obtained(Wanted(WHAT, f"encoder.{key}", config.tokenizer or config.weights, revision, FOLDER), load)


def checked(config: ClipConfig, clip: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    """Raises UserError unless settings, network and tokenizer fit one another."""
    if -config.layer > clip.num_hidden_layers:
        raise UserError(f"{WHAT}: encoder.layer = {config.layer}, but {config.weights} has {clip.num_hidden_layers}")
    fits(WHAT, clip, tokenizer, "name the right one with --set encoder.tokenizer=...")


def fits(what: str, clip: CLIPTextConfig, tokenizer: CLIPTokenizer, remedy: str) -> None:
    """Raises UserError, with the remedy, if the tokenizer has numbers that the network knows nothing of."""
    if max(tokenizer.get_vocab().values()) >= clip.vocab_size:
        raise UserError(
            f"{what}: the tokenizer knows {len(tokenizer)} tokens, the weights {clip.vocab_size}: they do not belong "
            f"together; {remedy}"
        )
