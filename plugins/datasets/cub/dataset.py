"""The data set `cub`: images of birds, cropped as StackGAN crops them.

    DIR/CUB_200_2011/images/CLASS/NAME.jpg (or DIR/images/CLASS/NAME.jpg)
    DIR/CUB_200_2011/images.txt
    DIR/CUB_200_2011/bounding_boxes.txt

Lists and captions are as in t2i.plugins.common.images.captioned_names.
"""

from __future__ import annotations

from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.common.images.captioned_names import class_id, names_of, read_captions, texts_of
from t2i.plugins.common.images.image_files import Entry, Folder, ImageFiles, data_folder
from t2i.plugins.datasets.cub.config import CUBConfig

NAME = "cub"
OFFICIAL = "CUB_200_2011"
EXAMPLE = "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111"

Box = tuple[int, int, int, int]


def build(config: CUBConfig, split: str) -> ImageFiles:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val". val has the 2,933 images of the 50 classes that train does not
            show.

    Returns:
        The images in the order of the split's list. Each example has its "class_id" as an extra.

    Raises:
        UserError: A part of the layout is missing.
    """
    root = data_folder(config, NAME)
    names = names_of(root, split)
    images = next((p for p in (root / OFFICIAL / "images", root / "images") if p.is_dir()), None)
    if images is None:
        raise UserError(
            f"data set '{NAME}': there is neither {OFFICIAL}/images nor images in {root}"
        )
    texts, boxes = texts_of(root, EXAMPLE), _boxes(root) if config.crop else {}
    entries = []
    for name in names:
        if config.crop and name not in boxes:
            raise UserError(
                f"data set '{NAME}': no bounding box for {name} in {root / OFFICIAL}; add it, or "
                "set data.crop=false"
            )
        number = class_id(name.partition("/")[0], str(root))
        captions = read_captions(texts / f"{name}.txt")
        entries.append(Entry(name, f"{name}.jpg", captions, boxes.get(name), {"class_id": number}))
    return ImageFiles(config, NAME, Folder(images), entries)


def _boxes(root: Path) -> dict[str, Box]:
    """Return the square of each image that is used, by the image's name."""
    files, boxes = (_table(root / OFFICIAL / name) for name in ("images.txt", "bounding_boxes.txt"))
    try:
        return {
            files[number][0].removesuffix(".jpg"): _around(*(int(float(value)) for value in box))
            for number, box in boxes.items()
        }
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise UserError(
            f"{root / OFFICIAL}: images.txt and bounding_boxes.txt are not those of {OFFICIAL}"
        ) from None


def _table(path: Path) -> dict[str, list[str]]:
    """Return the rows of a text file, split into words, by their first word."""
    try:
        rows = [line.split() for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; without it, set data.crop=false") from None
    return {row[0]: row[1:] for row in rows if row}


def _around(x: int, y: int, width: int, height: int) -> Box:
    """Return the square that StackGAN crops.

    It is centred on the bounding box, and half its side is three quarters of the box's longer side.
    """
    half = int(max(width, height) * 0.75)
    centre_x, centre_y = (2 * x + width) // 2, (2 * y + height) // 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half
