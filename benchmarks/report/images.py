"""The images of the report: a block for each caption, and two models' images to wipe between."""

from __future__ import annotations

import base64
import io
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from t2i.benchmarks.report.markup import text
from t2i.benchmarks.results import Results, Standing
from t2i.benchmarks.run.grids import REAL, load_images, nearest_to

LARGEST = 256  # width in pixels to which larger images are reduced
MANY, SMALLER = 300, 160  # the same for pages of so many images
SMALL = 64  # pixels; narrower images are embedded losslessly, and the browser enlarges them
REAL_TITLE = "real"


@dataclass(frozen=True)
class _Strip:
    """Images of one row for one caption.

    Args:
        title: Name of the row.
        images: The images.
        compared: Whether the images are a model's or real ones of the caption.
    """

    title: str
    images: list[Image.Image]
    compared: bool


def images_section(results: Results) -> str:
    """Return the images of the grid: a block for each caption, in it a strip for each row.

    The strips are below each other on a phone and side by side on a desktop.

    Args:
        results: The results. Images are read from `results.out`.

    Returns:
        The HTML; empty if there are no images.
    """
    blocks = [_strips(results, number) for number in range(len(results.grid))]
    count = sum(len(strip.images) for strips in blocks for strip in strips)
    largest = SMALLER if count > MANY else LARGEST
    figures = [
        _figure(number, entry, strips, largest)
        for number, (entry, strips) in enumerate(zip(results.grid, blocks, strict=True))
        if strips
    ]
    if not figures:
        return ""
    names = dict.fromkeys(s.title for strips in blocks for s in strips if s.compared)
    switch = (
        '<p class="switch"><label><input type="checkbox" id="captions" checked> captions</label>'
        "</p><p class='note'>A click enlarges an image.</p>"
    )
    return f'{_compare(list(names))}{switch}<div class="captions">{"".join(figures)}</div>'


def _strips(results: Results, number: int) -> list[_Strip]:
    """Read the images of a caption: real ones, then each model's with the nearest real ones."""
    folders = [(REAL, REAL_TITLE, True)]
    for row in results.rows:
        if row.has_images and row.kind == "model":
            folders.append((row.name, row.name, True))
            folders.append((nearest_to(row.name), f"{row.name}: nearest training images", False))
    return [
        _Strip(title, images, compared)
        for folder, title, compared in folders
        if (images := load_images(results.out, folder, number))
    ]


def _figure(number: int, entry: dict[str, str], strips: Sequence[_Strip], largest: int) -> str:
    where = f"<span>{text(entry['set'])}</span>" if entry["set"] else ""
    lines = "".join(
        f"<figcaption>{text(strip.title)}</figcaption>"
        f"{_strip(strip, number, entry['caption'], largest)}"
        for strip in strips
    )
    return (
        f'<figure class="caption"><p>{text(entry["caption"])} {where}</p>'
        f'<div class="strips">{lines}</div></figure>'
    )


def _strip(strip: _Strip, number: int, caption: str, largest: int) -> str:
    """Return images side by side, each of which a click enlarges."""
    small = "small " if strip.images[0].width < SMALL else ""
    shown = []
    for place, image in enumerate(strip.images, 1):
        words = f"{strip.title}, image {place}: {caption}"
        data = (
            f' data-row="{text(strip.title)}" data-caption="{number}"'
            if strip.compared and place == 1
            else ""
        )
        shown.append(
            f'<label class="zoom"><input type="checkbox"><img alt="{text(words)}"{data} '
            f'src="{_source(image, largest)}"></label>'
        )
    return f'<div class="{small}strip">{"".join(shown)}</div>'


def _source(image: Image.Image, largest: int) -> str:
    """Embed an image: a small one as PNG, which the browser enlarges, others reduced as JPEG."""
    buffer = io.BytesIO()
    kind = "png" if image.width < SMALL else "jpeg"
    if kind == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        side = min(largest, image.width)
        image.resize((side, side), Image.Resampling.LANCZOS).save(
            buffer, "JPEG", quality=88, optimize=True
        )
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _compare(names: Sequence[str]) -> str:
    """Return the controls that wipe between two rows' images. They are hidden without scripts."""
    if len(names) < 2:
        return ""
    ordered = [*(n for n in names if n != REAL_TITLE), *(n for n in names if n == REAL_TITLE)]
    lists = []
    for place, side in enumerate(("left", "right")):
        options = "".join(
            f"<option{' selected' if i == place else ''}>{text(name)}</option>"
            for i, name in enumerate(ordered)
        )
        lists.append(f'<label>{side} <select class="{side}">{options}</select></label>')
    return (
        f'<div id="compare" hidden><div class="controls">{"".join(lists)}'
        '<label class="cut">wipe <input type="range" min="0" max="100" value="50"></label></div>'
        '<div class="wipes"></div></div>'
    )


def runs_section(results: Results, standings: Sequence[Standing]) -> str:
    """Return, for each model, a link to its runs and the command that samples more images.

    Args:
        results: The results.
        standings: Their ranking.

    Returns:
        The HTML; empty if no run is recorded.
    """
    captions = [entry["caption"] for entry in results.grid] or ["..."]
    lines = []
    for standing in (s for s in standings if s.kind == "model"):
        runs = [str(row.training["run"]) for row in standing.rows if row.training.get("run")]
        if runs:
            command = shlex.join(["t2i", "sample", "--run", runs[0], "-p", captions[0], "-n", "8"])
            links = ", ".join(_link(run, results.out) for run in runs)
            lines.append(
                f"<dt>{text(standing.name)}</dt><dd>{links}"
                f'<code class="command">{text(command)}</code></dd>'
            )
    return f'<dl class="runs">{"".join(lines)}</dl>' if lines else ""


def _link(run: str, out: Path) -> str:
    """Return a link to a run's folder, as seen from the report; its name if it is not there."""
    if not os.path.isdir(run):
        return text(run)
    where = os.path.relpath(Path(run).absolute(), out.absolute())
    return f'<a href="{quote(os.fsencode(where))}/">{text(run)}</a>'
