"""Names with commas between, as options and environment variables have them."""

from __future__ import annotations


def names_in(text: str | None) -> list[str]:
    """Split names at commas.

    Args:
        text: The names, with or without spaces around them. None: no text, which has no name.

    Returns:
        The names that are not empty, each once, in their order.
    """
    return list(dict.fromkeys(filter(None, map(str.strip, (text or "").split(",")))))
