"""HTML that notebooks show for a model and for a list of sampled images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from PIL import Image

from t2i.core.models.wanted import Chosen

SHOWN = 64
"""Largest number of images of one list that a notebook shows."""

SMALL = 128
"""Width in pixels to which smaller images are enlarged, without smoothing."""


class Images(list[Image.Image]):
    """A list of sampled images with their prompts, which a notebook shows as a grid.

    Args:
        images: PIL images, RGB.
        captions: The prompt of each image.
        chosen: Of each image, which of several candidates it is. Empty: none was chosen among
            several.
    """

    def __init__(
        self,
        images: Iterable[Image.Image] = (),
        captions: Sequence[str] = (),
        chosen: Sequence[Chosen] = (),
    ) -> None:
        super().__init__(images)
        self.captions = tuple(captions)
        self.chosen = tuple(chosen)

    def _repr_html_(self) -> str:
        captions = [*self.captions, *[""] * len(self)]
        shown = "".join(
            _figure(image, caption) for image, caption in zip(self[:SHOWN], captions, strict=False)
        )
        rest = len(self) - SHOWN
        more = f"<p>and {rest} more</p>" if rest > 0 else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{shown}</div>{more}'


def _figure(image: Image.Image, caption: str) -> str:
    """Write one image with its caption as HTML, the image inline."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    width = max(image.width, SMALL)
    return (
        f'<figure style="margin:0;width:{width}px">'
        f'<img alt="{escape(caption)}" width="{width}" style="image-rendering:pixelated" '
        f'src="data:image/png;base64,{data}">'
        f'<figcaption style="font-size:small">{escape(caption)}</figcaption></figure>'
    )


def facts_table(facts: Mapping[str, str]) -> str:
    """Write facts as an HTML table of two columns.

    Args:
        facts: Value by name.

    Returns:
        The table, with everything escaped.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def count_in_words(count: int) -> str:
    """Write a number of parameters as people do.

    Args:
        count: The number.

    Returns:
        Such as "4.9 M" or "1.2 B".
    """
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)
