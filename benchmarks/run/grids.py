"""The images to look at: the same captions and the same noise for every row, one PNG file each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i.benchmarks.run.caption_sets import CaptionSet
from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes
from t2i.core.io.images import png
from t2i.core.io.sheets import Block, Layout, legible, sheet

REAL = "real"
MOST_SAMPLES = 64  # images of a caption
LARGEST_SIDE = 4096  # pixels of an image
COLUMNS = 2  # captions side by side on a sheet


def nearest_to(row: str) -> str:
    """Name the folder of the training images that are nearest to a row's images.

    Args:
        row: The row's name.

    Returns:
        The folder, below that of all images of the grid.
    """
    return f"nearest/{row}"


def grid_entries(
    sets: Sequence[CaptionSet], each: int, extra: Sequence[str]
) -> list[dict[str, str]]:
    """List the captions of the grid.

    Args:
        sets: The caption sets.
        each: Captions from each set, the first ones.
        extra: Further captions, which have no real image.

    Returns:
        {"set": NAME, "caption": TEXT} for each caption; the set of further captions is "".
    """
    entries = [
        {"set": s.prompts.name, "caption": caption} for s in sets for caption in s.captions[:each]
    ]
    return entries + [{"set": "", "caption": caption} for caption in extra]


def image_file(out: Path, row: str, caption: int, sample: int) -> Path:
    """Return the file of an image of the grid.

    Args:
        out: The benchmark's folder.
        row: The row's name.
        caption: Number of the caption in the grid, from 0.
        sample: Number of the image of that caption, from 0.

    Returns:
        The file.
    """
    return out / "pictures" / row / f"{caption:02d}-{sample}.png"


def save_image(out: Path, row: str, caption: int, sample: int, image: np.ndarray) -> None:
    """Write an image of the grid.

    Args:
        out: The benchmark's folder.
        row: The row's name.
        caption: Number of the caption in the grid, from 0.
        sample: Number of the image of that caption, from 0.
        image: The image, uint8 (H, W, 3).
    """
    write_bytes(image_file(out, row, caption, sample), png(image))


def remove_images(out: Path, row: str) -> None:
    """Remove the images of a row, and those that are nearest to them.

    Args:
        out: The benchmark's folder.
        row: The row's name.
    """
    for folder in (row, nearest_to(row)):
        shutil.rmtree(out / "pictures" / folder, ignore_errors=True)


def save_real(out: Path, sets: Sequence[CaptionSet], each: int, samples: int) -> Path:
    """Write real images of the grid's captions, and a sheet of them.

    Args:
        out: The benchmark's folder.
        sets: The caption sets.
        each: Captions from each set, the first ones.
        samples: Images of each caption, at most.

    Returns:
        The file of the sheet.
    """
    blocks: list[Block] = []
    places = [(s, index) for s in sets for index in range(min(each, len(s.captions)))]
    for number, (captions, index) in enumerate(places):
        images = [captions.data[index].image]
        images += [e.image for k in range(1, samples) if (e := captions.data.variant(index, k))]
        for sample, image in enumerate(images):
            save_image(out, REAL, number, sample, image)
        image_file(out, REAL, number, len(images)).unlink(missing_ok=True)  # of an earlier grid
        blocks.append(Block(images, captions.captions[index]))
    return _write_sheet(out, REAL, blocks, Layout(COLUMNS, samples, "real images"))


def save_sheet(
    out: Path, row: str, images: Sequence[np.ndarray], captions: Sequence[str], columns: int
) -> Path:
    """Write all images of a row on one sheet, above their captions and beside real images of these.

    Args:
        out: The benchmark's folder, with the real images of the captions that have some.
        row: The row's name.
        images: The images, uint8 (H, W, 3), caption by caption.
        captions: The captions.
        columns: Images of each caption.

    Returns:
        The file of the sheet.
    """
    blocks = []
    for number, caption in enumerate(captions):
        own = images[number * columns :][:columns]
        real = [np.asarray(image) for image in load_images(out, REAL, number)[:1]]
        blocks.append(Block([*(real or [np.full_like(own[0], 255)]), *own], caption))
    about = "Of each caption: a real image if there is one, then the samples."
    return _write_sheet(out, row, blocks, Layout(COLUMNS, columns + 1, row, about))


def _write_sheet(out: Path, row: str, blocks: Sequence[Block], layout: Layout) -> Path:
    path = out / "grids" / f"{row}.png"
    write_bytes(path, png(sheet(blocks, layout)))
    return path


def load_images(out: Path, row: str, caption: int) -> list[Image.Image]:
    """Read a row's images of one caption.

    Args:
        out: The benchmark's folder.
        row: The row's name.
        caption: Number of the caption in the grid, from 0.

    Returns:
        The images in the order of their sample numbers, up to the first that is missing; none if
        the row has none.

    Raises:
        UserError: An image is damaged, or too large.
    """
    files = (image_file(out, row, caption, sample) for sample in range(MOST_SAMPLES))
    return [_opened(file) for file in takewhile(Path.is_file, files)]


def _opened(file: Path) -> Image.Image:
    """Read an image of the grid. One that is not sound raises UserError."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if max(image.size) > LARGEST_SIDE:
                raise ValueError(f"{image.width}x{image.height} pixels")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:80]
        raise UserError(
            f"{file}: no image of a benchmark ({reason}); remove its folder, and run the benchmark "
            "again"
        ) from None


def is_sound(out: Path, row: str, caption: int, samples: int, size: int) -> bool:
    """Tell whether exactly a row's images of one caption are there.

    Args:
        out: The benchmark's folder.
        row: The row's name.
        caption: Number of the caption in the grid, from 0.
        samples: How many images there must be.
        size: Width and height of each in pixels.

    Returns:
        False if one is missing, damaged, of another size, or too many.
    """
    try:
        return [image.size for image in load_images(out, row, caption)] == [(size, size)] * samples
    except UserError:
        return False


def save_comparison(out: Path, rows: Sequence[tuple[str, str]], captions: Sequence[str]) -> Path:
    """Write a sheet with the images of several rows side by side, for a README or a talk.

    Args:
        out: The benchmark's folder.
        rows: (folder, title) of each row, from left to right.
        captions: The captions of the grid, from top to bottom.

    Returns:
        The file of the sheet.
    """
    samples = max(len(load_images(out, folder, 0)) for folder, _ in rows)
    cell, gap, head, words = 64, 6, 28, 22
    block = samples * (cell + 2) + gap
    canvas = Image.new(
        "RGB", (gap + len(rows) * block, head + len(captions) * (cell + words)), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, (folder, title) in enumerate(rows):
        left = gap + column * block
        draw.text((left, 6), legible(title), "black", font)
        for line in range(len(captions)):
            top = head + line * (cell + words) + words - 4
            for sample, image in enumerate(load_images(out, folder, line)):
                canvas.paste(_fit(image, cell), (left + sample * (cell + 2), top))
    for line, caption in enumerate(captions):  # last, as a caption spans the whole width
        draw.text(
            (gap, head + line * (cell + words)),
            legible(caption),
            "black",
            ImageFont.load_default(12),
        )
    path = out / "grids" / "comparison.png"
    write_bytes(path, png(np.asarray(canvas)))
    return path


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Resize an image to a square: by whole pixels if the side is a multiple, else resampled."""
    exact = side % image.width == 0
    return image.resize(
        (side, side), Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS
    )
