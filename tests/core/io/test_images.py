"""Images: levels come back exactly, floats are clamped and rounded, grids hold every image, files
of every mode are decoded to what they show, and those that cannot be are named."""

import errno
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import t2i.core.io.images as images_module
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.images import (
    decode,
    original,
    png,
    read_image,
    read_whole,
    readable_scale,
    to_bytes,
    to_tensor,
)

RED, BLUE = (200, 40, 10), (10, 60, 220)


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


def test_small_images_are_enlarged_for_people():
    assert [readable_scale(size) for size in (32, 64, 96, 256)] == [3, 2, 1, 1]


def halves(width=48, height=32):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image, form="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def ends(content, **settings):
    """Colours at the left and the right edge of the decoded image."""
    image = decode(content, 16, where="test", **settings)
    assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
    return image[8, 0].tolist(), image[8, -1].tolist()


FORMS = {
    "png": lambda: encoded(halves()),
    "jpeg": lambda: encoded(halves(), "JPEG", quality=98),
    "progressive": lambda: encoded(halves(), "JPEG", quality=98, progressive=True),
    "cmyk jpeg": lambda: encoded(halves().convert("CMYK"), "JPEG", quality=98),
    "cmyk tiff": lambda: encoded(halves().convert("CMYK"), "TIFF"),
    "palette": lambda: encoded(halves().quantize(4)),
    "gif": lambda: encoded(halves().quantize(4), "GIF"),
    "bmp": lambda: encoded(halves(), "BMP"),
    "webp": lambda: encoded(halves(), "WEBP", lossless=True),
    "16-bit rgb": lambda: sixteen_bit_rgb(),
}


def sixteen_bit_rgb():
    """A PNG of 16 bits a channel, written by hand: Pillow writes none."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = np.asarray(halves()).astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", FORMS)
def test_colours_come_out_of_every_format(form):
    left, right = ends(FORMS[form]())
    assert np.abs(np.subtract(left, RED)).max() <= 3
    assert np.abs(np.subtract(right, BLUE)).max() <= 3


def test_grey_images_stay_grey():
    grey = halves().convert("L")
    for image in (grey, grey.convert("LA")):
        assert ends(encoded(image)) == ([84] * 3, [63] * 3)
    assert ends(encoded(halves().convert("L").point(lambda v: 255 * (v > 70)).convert("1"))) == (
        [255] * 3,
        [0] * 3,
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGB with a colour left out"])
def test_transparency_lies_on_white(mode):
    image = halves()
    if mode.startswith("RGB with"):
        content = encoded(image, transparency=BLUE)
    elif mode == "PA":
        palette = image.quantize(4)
        content = encoded(palette, transparency=palette.getpixel((47, 0)))
    else:
        shown = image.convert(mode)
        shown.putalpha(Image.new("L", image.size, 255))
        shown.paste(0 if mode == "RGBA" else (0, 0), (24, 0, 48, 32))
        content = encoded(shown)
    left, right = ends(content)
    assert right == [255, 255, 255]
    assert np.abs(np.subtract(left, [84] * 3 if mode == "LA" else RED)).max() <= 2


def test_half_transparency_is_half_white():
    assert ends(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128))))[0] == [127] * 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut_off(form):
    samples = np.full((32, 48), 0x8080, np.uint16)
    samples[:, 24:] = 0x2A2A
    assert ends(encoded(Image.fromarray(samples), form)) == ([0x80] * 3, [0x2A] * 3)
    white = np.full((8, 8), 65535, np.uint16)
    assert ends(encoded(Image.fromarray(white), form))[0] == [255] * 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(form, orientation):
    """Stored as each orientation asks for, an upright image comes back."""
    upright = Image.new("RGB", (24, 32), (20, 20, 20))
    upright.paste((250, 20, 20), (0, 0, 12, 16))  # red: top left
    upright.paste((20, 20, 250), (0, 16, 12, 32))  # blue: bottom left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, form, exif=exif), 8, where="test").astype(int)
    assert image[1, 1, 0] > 200 > image[1, 1, 2]
    assert image[6, 1, 2] > 200 > image[6, 1, 0]
    assert image[:, 6].max() < 60


def test_a_broken_exif_is_no_reason_to_lose_the_image():
    content = encoded(halves(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert ends(content)[0] == list(RED)


def test_the_central_square_or_that_of_a_box_is_taken():
    image = Image.new("RGB", (60, 20), "black")
    image.paste((255, 255, 255), (20, 0, 40, 20))
    assert (
        decode(encoded(image), 10, where="x").min() > 235
    )  # the filter looks a little beyond the edges
    image.paste((0, 255, 0), (0, 0, 12, 12))
    cut = decode(encoded(image), 8, box=(-30, -30, 8, 8), where="x")  # at the edges of the image
    assert (cut == (0, 255, 0)).all()
    image.paste((255, 0, 0), (28, 4, 32, 8))
    wide = decode(encoded(image), 4, box=(20, 4, 40, 8), where="x")
    assert wide[2, 2].tolist() == [255, 0, 0]
    with pytest.raises(BrokenExample, match="has no part in the image of 60 x 20 pixels"):
        decode(encoded(image), 8, box=(70, 0, 90, 20), where="x")


def stripes(width, height, period):
    line = (np.arange(width) // (period // 2) % 2 * 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(line[None, :, None], (height, width, 3)).copy())


def test_fine_detail_becomes_grey_and_no_pattern():
    image = decode(encoded(stripes(512, 512, 4)), 32, where="x")
    assert np.abs(image.astype(int) - 127)[:, 2:-2].max() <= 3


def test_a_jpeg_is_decoded_small_and_looks_as_if_it_were_not(monkeypatch):
    """Waves of many lengths, in a JPEG eight times too large."""
    y, x = np.mgrid[:480, :640] / 640
    waves = 127 + 60 * np.sin(40 * x + 9 * y) + 50 * np.cos(31 * y * x + 5) + 10 * np.sin(300 * x)
    content = encoded(Image.fromarray(waves.astype(np.uint8)).convert("RGB"), "JPEG", quality=95)
    decoded = []
    square = images_module._as_rgb
    monkeypatch.setattr(
        images_module, "_as_rgb", lambda image: decoded.append(image.size) or square(image)
    )
    small = decode(content, 60, where="x").astype(float)
    monkeypatch.setattr(images_module, "SPARE", 99)
    whole = decode(content, 60, where="x").astype(float)
    assert decoded == [(160, 120), (640, 480)]
    assert np.abs(small - whole).mean() < 1
    monkeypatch.setattr(images_module, "SPARE", 2)
    decode(content, 60, box=(100, 100, 340, 340), where="x")  # of the box, too, enough is left
    decode(content, 256, where="x")
    assert decoded[2:] == [(320, 240), (640, 480)]


def bomb():
    """A PNG of a few bytes that claims to hold 60,000 x 60,000 pixels."""
    content = bytearray(encoded(Image.new("L", (1, 1))))
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


BAD = {
    "an empty file": (lambda: b"", "an empty file"),
    "text": (lambda: b"<html>not found</html>", "not an image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "half a jpeg": (lambda: encoded(halves(400, 400), "JPEG")[:1500], "cannot be read"),
    "half a png": (lambda: encoded(Image.effect_noise((99, 99), 60))[:3000], "cannot be read"),
    "a bomb": (bomb, "pixels"),
    "floats": (lambda: encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32 bits"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path, kind):
    content, reason = BAD[kind][0](), BAD[kind][1]
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(BrokenExample) as caught:
            decode(source, 8, where="pictures/bad.jpg")
        assert caught.value.where == "pictures/bad.jpg"
        assert reason in caught.value.reason
        assert "\n" not in str(caught.value)


def test_more_pixels_than_the_limit_are_not_decoded(monkeypatch):
    monkeypatch.setattr(images_module, "PIXELS", 1000)
    with pytest.raises(BrokenExample, match=r"48 x 32 pixels, more than 1000"):
        decode(encoded(halves()), 8, where="x")


def test_a_missing_file_is_broken_and_a_missing_argument_is_the_users(tmp_path):
    with pytest.raises(BrokenExample, match=r"gone\.png: No such file"):
        decode(tmp_path / "gone.png", 8, where="gone.png")
    with pytest.raises(UserError, match=r"No such file.*; give a PNG or JPEG file"):
        read_image(tmp_path / "gone.png", 8)


def test_what_is_not_the_files_fault_is_not_blamed_on_it(tmp_path, monkeypatch):
    def too_many(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(images_module.Image, "open", too_many)
    with pytest.raises(OSError, match="Too many open files"):
        decode(tmp_path / "a.png", 8, where="a.png")


def test_broken_examples_travel_between_processes():
    error = pickle.loads(pickle.dumps(BrokenExample("a.png", "torn")))
    assert (error.where, error.reason, str(error)) == ("a.png", "torn", "a.png: torn")


def test_a_file_is_described_without_decoding_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(halves()))
    found = original(path, "a.png")
    assert (found.width, found.height, found.mode) == (48, 32, "RGB")
    assert (
        found.digest
        == original(path.read_bytes(), "x").digest
        != original(encoded(halves(50)), "x").digest
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_is_laid_on_white_in_strips_as_all_at_once(mode, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    whole = Image.fromarray(noise)
    image = whole.convert("RGB").quantize(9) if mode == "P" else whole.convert(mode)
    image.save(
        tmp_path / "a.png", transparency={"P": 3, "RGB": tuple(map(int, noise[0, 0, :3]))}.get(mode)
    )
    with Image.open(tmp_path / "a.png") as opened:
        rgba = opened.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    expected = Image.alpha_composite(white, rgba).convert("RGB")
    monkeypatch.setattr("t2i.core.io.transparency.STRIP", 100)
    assert np.array_equal(np.asarray(read_whole(tmp_path / "a.png")), np.asarray(expected))
    expected.save(tmp_path / "b.png")
    for fit in ("crop", "pad", "squash"):
        laid = decode(tmp_path / "a.png", 16, fit=fit, where="a")
        assert np.array_equal(laid, decode(tmp_path / "b.png", 16, fit=fit, where="b"))
