"""Loading of CLIP's text half and its tokenizer, from a folder or the hub."""

from __future__ import annotations

from dataclasses import replace

from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import obtained_tokenizer
from t2i.plugins.encoders.clip.config import ClipConfig

WHAT = "text encoder 'clip'"
PROJECTION = "text_projection.weight"
FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"


def wanted_weights(config: ClipConfig) -> Wanted:
    """Describe the weights that the text encoder's settings name.

    Args:
        config: Settings of the text encoder.

    Returns:
        The description, which errors quote.
    """
    return Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER)


def tokenizer_of(weights: Wanted, tokenizer: str | None) -> Wanted:
    """Describe where the tokenizer's files are.

    Args:
        weights: The weights.
        tokenizer: Folder or hub name of the tokenizer. None: it is beside the weights.

    Returns:
        The description, which errors quote.
    """
    if tokenizer is None:
        return weights
    setting = weights.setting.replace("weights", "tokenizer")
    return replace(weights, setting=setting, name=tokenizer, revision="main", remedy="")


def load_text_model(config: ClipConfig) -> CLIPTextModelWithProjection:
    """Load CLIP's text half with its weights.

    Args:
        config: Settings of the text encoder.

    Returns:
        The network. Without a projection in the file, it is a new one, which "pooled" sentences do
        not use.

    Raises:
        UserError: The weights cannot be found or are incomplete.
    """
    # The text half of Stable Diffusion has no projection.
    pooled = config.sentence == "pooled"
    return load_clip(
        CLIPTextModelWithProjection,
        wanted_weights(config),
        optional=[PROJECTION] if pooled else [],
        advice={PROJECTION: "it has no projection; use --set encoder.sentence=pooled"},
    )


def load_tokenizer(wanted: Wanted) -> CLIPTokenizer:
    """Load CLIP's tokenizer.

    Args:
        wanted: Where its files are.

    Returns:
        The tokenizer.

    Raises:
        UserError: The files cannot be found.
    """
    return obtained_tokenizer(CLIPTokenizer, wanted, "vocab.json and merges.txt")


def checked(config: ClipConfig, clip: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    """Check that settings, network and tokenizer fit together.

    Args:
        config: Settings of the text encoder.
        clip: Configuration of the network.
        tokenizer: The tokenizer.

    Raises:
        UserError: `layer` is beyond the first block, or the tokenizer belongs to another network.
    """
    if -config.layer > clip.num_hidden_layers:
        raise UserError(
            f"{WHAT}: encoder.layer = {config.layer}, but {config.weights} has "
            f"{clip.num_hidden_layers}"
        )
    fits(WHAT, clip, tokenizer, "name the right one with --set encoder.tokenizer=...")


def fits(what: str, clip: CLIPTextConfig, tokenizer: CLIPTokenizer, remedy: str) -> None:
    """Check that the network has an embedding for each of the tokenizer's tokens.

    Args:
        what: What errors call the network.
        clip: Configuration of the text half.
        tokenizer: The tokenizer.
        remedy: End of the error message: what to do.

    Raises:
        UserError: The network lacks some.
    """
    if max(tokenizer.get_vocab().values()) >= clip.vocab_size:
        raise UserError(
            f"{what}: the tokenizer has {len(tokenizer)} tokens, the weights {clip.vocab_size}: "
            f"they do not belong together; {remedy}"
        )
