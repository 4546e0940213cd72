"""CLIP's text half and its tokenizer, from a folder or the hub."""

from __future__ import annotations

from dataclasses import replace

from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.encoders.clip.config import ClipConfig

WHAT = "text encoder 'clip'"
PROJECTION = "text_projection.weight"
FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"


def wanted_weights(config: ClipConfig) -> Wanted:
    """The weights that the settings of the text encoder name."""
    return Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER)


def tokenizer_of(weights: Wanted, tokenizer: str | None) -> Wanted:
    """The tokenizer's files: beside the weights, or at a folder or hub name of their own."""
    if tokenizer is None:
        return weights
    setting = weights.setting.replace("weights", "tokenizer")
    return replace(weights, setting=setting, name=tokenizer, revision="main", remedy="")


def load_text_model(config: ClipConfig) -> CLIPTextModelWithProjection:
    """CLIP's text half with its weights. Raises UserError if they cannot be had or are incomplete."""
    pooled = (
        config.sentence == "pooled"
    )  # the text half of Stable Diffusion comes without a projection
    return load_clip(
        CLIPTextModelWithProjection,
        wanted_weights(config),
        optional=[PROJECTION] if pooled else [],
        advice={PROJECTION: "it has no projection; use --set encoder.sentence=pooled"},
    )


def load_tokenizer(wanted: Wanted) -> CLIPTokenizer:
    """CLIP's tokenizer. Raises UserError if its files cannot be had."""

    def load(source: str, offline: bool) -> CLIPTokenizer:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
            source, revision=wanted.revision, local_files_only=offline
        )
        if set(tokenizer.get_vocab()) == set(
            tokenizer.all_special_tokens
        ):  # made up: transformers found no file
            raise FileNotFoundError("no tokenizer.json there, nor vocab.json and merges.txt")
        return tokenizer

    return obtained(wanted, load)


def checked(config: ClipConfig, clip: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    """Raises UserError unless settings, network and tokenizer fit one another."""
    if -config.layer > clip.num_hidden_layers:
        raise UserError(
            f"{WHAT}: encoder.layer = {config.layer}, but {config.weights} has {clip.num_hidden_layers}"
        )
    fits(WHAT, clip, tokenizer, "name the right one with --set encoder.tokenizer=...")


def fits(what: str, clip: CLIPTextConfig, tokenizer: CLIPTokenizer, remedy: str) -> None:
    """Raises UserError, with the remedy, if the tokenizer has numbers that the network knows nothing of."""
    if max(tokenizer.get_vocab().values()) >= clip.vocab_size:
        raise UserError(
            f"{what}: the tokenizer knows {len(tokenizer)} tokens, the weights {clip.vocab_size}: they do not belong "
            f"together; {remedy}"
        )
