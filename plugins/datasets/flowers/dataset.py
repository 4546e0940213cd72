"""The data set `flowers`.

    DIR/jpg/image_00001.jpg
    DIR/text_c10/class_00077/image_00001.txt    captions

Lists are as in t2i.plugins.common.images.captioned_names; the names in them are "jpg/image_00001".
"""

from __future__ import annotations

from pathlib import PurePosixPath

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Contents
from t2i.plugins.common.images.captioned_names import (
    FOLDERS,
    CaptionFiles,
    class_id,
    names_of,
    texts_of,
)
from t2i.plugins.common.images.image_files import Entry, Folder, ImageFiles, data_folder
from t2i.plugins.datasets.flowers.config import FlowersConfig

NAME = "flowers"
EXAMPLE = "class_00077/image_00001"
REMEDY = "it comes with the preprocessed data of StackGAN, and holds out 20 classes"


def build(config: FlowersConfig, split: str) -> ImageFiles:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val". val has the images of the 20 classes that train does not show.

    Returns:
        The images in the order of the split's list. Each example has its "class_id" as an extra.

    Raises:
        UserError: A part of the layout is missing.
    """
    root = data_folder(config, NAME)
    names, images = names_of(root, split, REMEDY), root / "jpg"
    if not images.is_dir():
        raise UserError(f"data set '{NAME}': there is no folder {images}")
    folder = texts_of(root, EXAMPLE)
    texts = {path.stem: path for path in folder.glob("*/*.txt") if path.name[0] != "."}
    captions, entries = CaptionFiles(config.encoding), []
    for name in names:
        stem = PurePosixPath(name).name
        if stem not in texts:  # its folder names the class
            raise UserError(f"data set '{NAME}': there are no captions {stem}.txt in {root}")
        number = class_id(texts[stem].parent.name, str(root))
        entries.append(
            Entry(stem, f"{stem}.jpg", captions.read(texts[stem]), None, {"class_id": number})
        )
    told = f"split: {FOLDERS[split]}/filenames.pickle ({len(names)})"
    found = told, f"images: {images}", f"captions: {folder}", *captions.told()
    return ImageFiles(config, NAME, Folder(images), entries, Contents(found))
