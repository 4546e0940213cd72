"""Sheets of images to look at: a title, and a caption under each block of images."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i.core.io.images import readable_scale
from t2i.core.io.terminal import printable

LARGEST_CELL = 512
"""Largest side of an image on a sheet, in pixels. Larger images are made smaller."""

LARGEST_SHEET = 4096
"""Largest side of the images of a sheet together, in pixels."""

MARGIN = 2
"""Pixels between the images of a block."""

GAP = 10
"""Pixels between blocks, and around all of them."""

CAPTION_LINES = 3
"""Lines of a caption. A longer one is cut."""

UNKNOWN = "?"
"""What stands for a character that the font lacks."""

LIKE = {"\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{LATIN SMALL LETTER SHARP S}": "ss"}
"""Characters that the font may lack, and what stands for them."""

NO_CHARACTER = "\U0010ffff"
"""A code point that no font has a glyph for."""

Item = TypeVar("Item")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Block:
    """Images that belong to one caption.

    Args:
        images: The images, uint8 (H, W, 3); each of its own size.
        caption: Text below them. "": none.
    """

    images: Sequence[np.ndarray]
    caption: str = ""


@dataclass(frozen=True)
class Layout:
    """How a sheet is laid out.

    Args:
        columns: Blocks side by side.
        across: Images side by side in a block.
        title: Text above all blocks. "": none.
        about: A smaller text below the title. "": none.
    """

    columns: int
    across: int
    title: str = ""
    about: str = ""


def sheet(blocks: Sequence[Block], layout: Layout) -> np.ndarray:
    """Lay blocks of images out on white, row by row, with their captions below them.

    Small images are enlarged by a whole factor (nearest neighbour), so that a person can see them.
    Images are made smaller (Lanczos) where they would make the sheet larger than `LARGEST_SHEET`.

    Args:
        blocks: The blocks; at least one of them has an image.
        layout: How they are laid out.

    Returns:
        The sheet, uint8 (H, W, 3). The same images and texts make the same bytes.
    """
    return _Sheet(blocks, layout).drawn()


class _Sheet:
    """The sizes of a sheet, and its drawing."""

    def __init__(self, blocks: Sequence[Block], layout: Layout) -> None:
        self.blocks, self.layout = blocks, layout
        self.deep = max(math.ceil(len(block.images) / layout.across) for block in blocks)
        self.lines = math.ceil(len(blocks) / layout.columns)
        self.cell = self._cell()
        points = max(12, min(self.cell) // 20)
        self.font, self.large = (ImageFont.load_default(size) for size in (points, points + 3))
        self.width = layout.across * (self.cell[0] + MARGIN) - MARGIN
        self.captions = [wrapped(b.caption, self.font, self.width, CAPTION_LINES) for b in blocks]
        self.line_height = round(points * 1.3)
        self.extent = self.layout.columns * (self.width + GAP) + GAP
        self.head = [
            *((line, self.large) for line in wrapped(layout.title, self.large, self._room(), 2)),
            *((line, self.font) for line in wrapped(self._about(), self.font, self._room(), 4)),
        ]

    def _room(self) -> int:
        """Width of the lines of the title."""
        return self.extent - 2 * GAP

    def _about(self) -> str:
        texts = [self.layout.title, self.layout.about, *(block.caption for block in self.blocks)]
        if all(map(_has_all, texts)):
            return self.layout.about
        return f"{self.layout.about} {UNKNOWN}: a character that this font lacks.".strip()

    def _cell(self) -> tuple[int, int]:
        """Return width and height of an image on the sheet."""
        first = next(image for block in self.blocks for image in block.images)
        height, width = first.shape[0], first.shape[1]
        scale = float(readable_scale(min(height, width)))
        across, down = self.layout.columns * self.layout.across, self.lines * self.deep
        for side, count in ((width, across), (height, down)):
            scale = min(scale, LARGEST_CELL / side, max(1.0, LARGEST_SHEET / count) / side)
        if scale > 1:
            scale = math.floor(scale)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def drawn(self) -> np.ndarray:
        """Draw the sheet."""
        told = [max(map(len, row)) for row in _rows(self.captions, self.layout.columns)]
        images = self.deep * (self.cell[1] + MARGIN)
        top = GAP // 2 + self.line_height * len(self.head) + GAP // 2
        height = top + sum(images + lines * self.line_height + GAP for lines in told)
        canvas = Image.new("RGB", (self.extent, height), "white")
        draw = ImageDraw.Draw(canvas)
        for number, (line, font) in enumerate(self.head):
            draw.text((GAP, GAP // 2 + number * self.line_height), line, "black", font)
        numbered = list(enumerate(self.blocks))
        for row, lines in zip(_rows(numbered, self.layout.columns), told, strict=True):
            for column, (number, block) in enumerate(row):
                left = GAP + column * (self.width + GAP)
                self._paste(canvas, block, left, top)
                for at, line in enumerate(self.captions[number]):
                    place = left, top + images + at * self.line_height
                    draw.text(place, line, "black", self.font)
            top += images + lines * self.line_height + GAP
        return np.asarray(canvas)

    def _paste(self, canvas: Image.Image, block: Block, left: int, top: int) -> None:
        for number, image in enumerate(block.images):
            down, across = divmod(number, self.layout.across)
            place = left + across * (self.cell[0] + MARGIN), top + down * (self.cell[1] + MARGIN)
            canvas.paste(_fitted(image, self.cell), place)


def _rows(items: Sequence[Item], columns: int) -> Iterator[Sequence[Item]]:
    return (items[at : at + columns] for at in range(0, len(items), columns))


def _fitted(image: np.ndarray, cell: tuple[int, int]) -> Image.Image:
    """Resize an image: by whole pixels if the cell is a multiple of it, else resampled."""
    picture = Image.fromarray(image)
    exact = cell[0] % picture.width == 0 and cell[1] % picture.height == 0
    return picture.resize(cell, Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS)


def wrapped(text: str, font: Font, width: int, lines: int) -> list[str]:
    """Break a text into lines. Characters that the font lacks become `UNKNOWN`.

    Args:
        text: The text.
        font: The font.
        width: Width of the lines in pixels.
        lines: Most lines; a longer text is cut, with an ellipsis at its end.

    Returns:
        The lines; none if the text is empty.
    """
    found: list[str] = []
    for word in legible(text[: lines * width]).split():  # a letter is wider than a pixel
        longer = f"{found[-1]} {word}" if found else word
        if found and font.getlength(longer) <= width:
            found[-1] = longer
        else:
            found.append(word)
    kept = found[:lines]
    if len(found) > lines:
        kept[-1] += " ..."
    return [_cut(line, font, width) for line in kept]


def _cut(line: str, font: Font, width: int) -> str:
    """Cut a line that is too long, with an ellipsis at its end."""
    if font.getlength(line) <= width:
        return line
    line = line.removesuffix(" ...")
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."


def legible(text: str) -> str:
    """Replace the characters that the font of sheets lacks: letters by those without accents.

    Args:
        text: Any text.

    Returns:
        The text as one line, with `UNKNOWN` in place of each character that has no likeness.
    """
    return "".join(map(_likeness, printable(text)))


def _likeness(character: str) -> str:
    if _has(character):
        return character
    base = unicodedata.normalize("NFKD", LIKE.get(character, character))
    bare = "".join(c for c in base if not unicodedata.combining(c))
    return bare if bare.isascii() and bare.isprintable() and bare else UNKNOWN


def _has_all(text: str) -> bool:
    return not any(_likeness(c) == UNKNOWN != c for c in printable(text))


@lru_cache(maxsize=4096)
def _has(character: str) -> bool:
    """Return whether the font has a glyph for a character."""
    if character.isascii():
        return True
    font = ImageFont.load_default(20)
    return bytes(font.getmask(character)) != bytes(font.getmask(NO_CHARACTER))
