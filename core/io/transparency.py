"""Transparent images on white, in bounded memory."""

from __future__ import annotations

from PIL import Image

STRIP = 2**22
"""Pixels that are laid on white at a time; a whole image at once would take a gigabyte."""


def on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white.

    Args:
        image: An image with transparency, which may be changed.

    Returns:
        The image, RGB.
    """
    whole = opaque(image)
    return whole if whole.mode == "RGB" else whole.convert("RGB")


def opaque(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white, a strip at a time.

    A whole image at once would take four times its own memory. So it is changed in place if its
    mode allows that.

    Args:
        image: An image with transparency, which may be changed.

    Returns:
        The image: RGB, or RGBA of which nothing is transparent.
    """
    image.load()
    in_place = image.mode in ("RGB", "RGBA")
    whole = image if in_place else Image.new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        whole.paste(Image.alpha_composite(white, strip).convert(whole.mode), box)
    whole.info.pop("transparency", None)
    return whole
