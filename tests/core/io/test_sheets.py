"""Sheets of images: captions and titles that can be read, sizes that can be opened."""

import numpy as np
import pytest
from PIL import ImageFont

from t2i.core.io.images import png
from t2i.core.io.sheets import (
    LARGEST_CELL,
    LARGEST_SHEET,
    Block,
    Layout,
    legible,
    sheet,
    wrapped,
)

CAPTION = "a large red circle above a small green square"


def image(value=128, size=32):
    return np.full((size, size, 3), value, np.uint8)


def test_images_are_in_order_and_the_same_sheet_has_the_same_bytes():
    colours = [(value, 0, 200) for value in (10, 20, 30, 40)]
    first, second, third, fourth = (image(colour) for colour in colours)
    blocks = [Block([first, second], CAPTION), Block([third, fourth], "x")]
    layout = Layout(2, 2, "base, stage 1 of 2, step 500", "Of each caption: a real image first.")
    made = sheet(blocks, layout)
    found = [(made == colour).all(2) for colour in colours]
    assert [int(where.sum()) for where in found] == [96 * 96] * 4
    places = [int(np.flatnonzero(where.any(0))[0]) for where in found]
    assert places == sorted(places)
    assert png(made) == png(sheet(blocks, layout))


def test_captions_and_titles_are_drawn():
    block = [Block([image()], CAPTION)]
    plain = sheet([Block([image()])], Layout(1, 1))
    captioned = sheet(block, Layout(1, 1))
    titled = sheet(block, Layout(1, 1, "a title"))
    assert plain.shape[0] < captioned.shape[0] < titled.shape[0]
    assert (captioned[plain.shape[0] :] < 100).any()
    assert not np.array_equal(
        sheet(block, Layout(1, 1, "a title")), sheet(block, Layout(1, 1, "b"))
    )


@pytest.mark.parametrize("size", [8, 32, 256, 1024])
@pytest.mark.parametrize("count", [1, 16, 256])
def test_no_sheet_is_absurdly_large(size, count):
    columns = int(count**0.5)
    made = sheet([Block([image(size=size)], "x")] * count, Layout(columns, 1))
    assert made.shape[1] <= min(LARGEST_SHEET, columns * max(LARGEST_CELL, 96)) + columns * 12 + 20
    assert made.shape[0] < 2 * LARGEST_SHEET
    if count == 1:
        assert made.shape[1] >= 96


def test_long_captions_are_broken_into_lines_and_cut():
    font = ImageFont.load_default(12)
    lines = wrapped(CAPTION * 5, font, 150, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 150 for line in lines)
    assert font.getlength(wrapped("x" * 900, font, 100, 3)[0]) <= 100
    assert " ".join(wrapped(CAPTION, font, 150, 3)) == CAPTION
    assert wrapped("", font, 100, 3) == []


def test_characters_that_the_font_lacks_are_not_boxes_and_the_sheet_says_so():
    assert legible("caf\u00e9 \u2013 \u65e5\u672c \x1b[2J") == "cafe - ?? \\x1b[2J"
    strange, plain = (sheet([Block([image()], text)], Layout(4, 1)) for text in ("\u65e5", "x"))
    assert strange.shape[0] > plain.shape[0]  # a line above says what ? stands for
    assert sheet([Block([image()], "caf\u00e9")], Layout(4, 1)).shape == plain.shape
