"""Text from elsewhere, made harmless in HTML."""

from __future__ import annotations

import html

TEMPLATED = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})
"""Letters that mean something in the templates of Gradio's component HTML."""


def escaped(text: object) -> str:
    """Escape a text for HTML, in elements and in quoted attributes.

    Args:
        text: Any text, or a number.

    Returns:
        HTML that shows the text, and nothing else.
    """
    return html.escape(str(text)).translate(TEMPLATED)
