"""CLIP's tokenizer, from a folder or the hub."""

from __future__ import annotations

from transformers import CLIPTokenizer

from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import obtained_tokenizer

FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"


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
