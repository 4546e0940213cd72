"""Images: levels come back exactly, floats are clamped and rounded, grids hold every picture."""

import io

import numpy as np
import torch
from PIL import Image

from t2i.core.images import grid, png, readable_scale, to_bytes, to_tensor


def test_every_level_survives_the_round_trip():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensor = to_tensor(levels)
    assert tensor.shape == (1, 3, 16, 16)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_bytes(tensor), levels)


def test_out_of_range_is_clamped_and_channels_stay_in_place():
    image = torch.zeros(1, 3, 1, 2)
    image[0, 0, 0, 1], image[0, 2, 0, 0] = 9.0, -9.0
    assert to_bytes(image).tolist() == [[[[128, 128, 0], [255, 128, 128]]]]


def test_png_holds_the_same_pixels():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


def test_a_grid_holds_every_picture_in_order():
    images = [np.full((2, 2, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(images, columns=2, margin=1, scale=2)
    assert sheet.shape == (11, 11, 3)
    assert (sheet[1, 1, 0], sheet[1, 6, 0], sheet[6, 1, 0], sheet[6, 6, 0]) == (10, 20, 30, 255)


def test_small_pictures_are_enlarged_for_people():
    assert [readable_scale(size) for size in (32, 64, 96, 256)] == [3, 2, 1, 1]
