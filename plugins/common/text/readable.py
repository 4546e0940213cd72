"""Captions as tokenizers of subwords read them, and as tables are searched for them."""

from __future__ import annotations

CHARACTERS_A_TOKEN = 64
"""Characters of a caption that are read for each token; the rest of a very long caption is cut."""


def readable(caption: str, tokens: int) -> str:
    """Reduce a caption to the text that a tokenizer needs.

    Invalid Unicode is replaced, and white space becomes single spaces, as in the tokenizers of CLIP
    and T5.

    Args:
        caption: The caption.
        tokens: Largest number of tokens. At most 64 characters for each are kept, which is enough
            for tokens of sensible length: a caption may be a megabyte long.

    Returns:
        The text.
    """
    text = caption[: 16 * CHARACTERS_A_TOKEN * tokens].encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())[: CHARACTERS_A_TOKEN * tokens]


def plain(caption: str) -> str:
    """Return a caption as published tables are searched for it.

    Args:
        caption: The caption.

    Returns:
        The caption with single spaces.
    """
    return " ".join(caption.split())
