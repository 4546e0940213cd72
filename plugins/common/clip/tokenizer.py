"""CLIP's tokenizer, from a folder or the hub."""

from __future__ import annotations

from dataclasses import replace

from transformers import CLIPTextConfig, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import obtained_tokenizer

FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"


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
