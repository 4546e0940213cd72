"""The data set `cub`: images of birds, cropped as StackGAN crops them.

    DIR/CUB_200_2011/images/CLASS/NAME.jpg (or DIR/images/CLASS/NAME.jpg)
    DIR/CUB_200_2011/images.txt
    DIR/CUB_200_2011/bounding_boxes.txt
    DIR/CUB_200_2011/train_test_split.txt (for split="official")

Lists and captions are as in t2i.plugins.common.images.captioned_names.
"""

from __future__ import annotations

from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Contents
from t2i.core.io.text import read_text
from t2i.plugins.common.images.captioned_names import (
    FOLDERS,
    CaptionFiles,
    class_id,
    first_folder,
    names_of,
    texts_of,
)
from t2i.plugins.common.images.image_files import Entry, Folder, ImageFiles, data_folder
from t2i.plugins.datasets.cub.config import CUBConfig
from t2i.plugins.datasets.cub.recognise import OFFICIAL, PLACES

NAME = "cub"
EXAMPLE = "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111"
REMEDY = (
    "it comes with the preprocessed data of StackGAN or AttnGAN, and holds out 50 classes; for the "
    "split of CUB's own train_test_split.txt, which holds out none, set data.split=official"
)

Box = tuple[int, int, int, int]


def build(config: CUBConfig, split: str) -> ImageFiles:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val". In the papers' split, val has the 2,933 images of the 50 classes
            that train does not show.

    Returns:
        The images in the order of the split's list. Each example has its "class_id" as an extra.

    Raises:
        UserError: A part of the layout is missing.
    """
    root = data_folder(config, NAME)
    official = _official(root)
    texts, boxes = texts_of(root, EXAMPLE), _boxes(official) if config.crop else {}
    names, told = _names(config, root, official, split)
    captions, entries = CaptionFiles(config.encoding), []
    for name in names:
        if config.crop and name not in boxes:
            raise UserError(
                f"data set '{NAME}': no bounding box for {name} in {official}; add it, or "
                "set data.crop=false"
            )
        number = class_id(name.partition("/")[0], str(root))
        texts_read = captions.read(texts / f"{name}.txt")
        entries.append(
            Entry(name, f"{name}.jpg", texts_read, boxes.get(name), {"class_id": number})
        )
    images = official / "images"
    found = told, f"images: {images}", f"captions: {texts}", *captions.told()
    return ImageFiles(config, NAME, Folder(images), entries, Contents(found))


def _official(root: Path) -> Path:
    """Return the folder as CUB's authors made it, which holds images."""
    images = first_folder(root / place / "images" for place in PLACES)
    if images is None:
        raise UserError(
            f"data set '{NAME}': there is neither {OFFICIAL}/images nor images in {root}"
        )
    return images.parent


def _names(config: CUBConfig, root: Path, official: Path, split: str) -> tuple[list[str], str]:
    """Return the names of a split, and a line that says where they are from."""
    if config.split == "papers":
        names = names_of(root, split, REMEDY)
        return names, f"split: the papers', {FOLDERS[split]}/filenames.pickle ({len(names)})"
    path = official / "train_test_split.txt"
    files, wanted = _files(official), "1" if split == "train" else "0"
    try:
        names = [files[number] for number, (flag,) in _table(path).items() if flag == wanted]
    except (KeyError, ValueError):
        raise UserError(f"{path} and images.txt are not those of {OFFICIAL}") from None
    return (
        names,
        f"split: CUB's own, {path.name} ({len(names)}), the classes of the other split too",
    )


def _files(official: Path) -> dict[str, str]:
    """Return the images' names by their numbers."""
    return {n: row[0].removesuffix(".jpg") for n, row in _table(official / "images.txt").items()}


def _boxes(official: Path) -> dict[str, Box]:
    """Return the square of each image that is used, by the image's name."""
    hint = "; without it, set data.crop=false"
    try:
        files, boxes = _files(official), _table(official / "bounding_boxes.txt", hint)
        return {
            files[number]: _around(*(int(float(value)) for value in box))
            for number, box in boxes.items()
        }
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise UserError(
            f"{official}: images.txt and bounding_boxes.txt are not those of {OFFICIAL}"
        ) from None


def _table(path: Path, hint: str = "") -> dict[str, list[str]]:
    """Return the rows of a text file, split into words, by their first word."""
    try:
        rows = [line.split() for line in read_text(path).splitlines()]
    except UserError as error:
        raise UserError(f"{error}{hint}") from None
    return {row[0]: row[1:] for row in rows if row}


def _around(x: int, y: int, width: int, height: int) -> Box:
    """Return the square that StackGAN crops.

    It is centred on the bounding box, and half its side is three quarters of the box's longer side.
    """
    half = int(max(width, height) * 0.75)
    centre_x, centre_y = (2 * x + width) // 2, (2 * y + height) // 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half
