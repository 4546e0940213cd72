"""The data set `flowers`.

    DIR/jpg/image_00001.jpg
    DIR/text_c10/class_00077/image_00001.txt    captions

Lists are as in t2i.plugins.common.images.captioned_names; the names in them are "jpg/image_00001".
"""

from __future__ import annotations

from pathlib import PurePosixPath

from t2i.core.errors import UserError
from t2i.plugins.common.images.captioned_names import class_id, names_of, read_captions, texts_of
from t2i.plugins.common.images.image_files import Entry, Folder, ImageFiles, data_folder
from t2i.plugins.datasets.flowers.config import FlowersConfig

NAME = "flowers"
EXAMPLE = "class_00077/image_00001"


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
    names, images = names_of(root, split), root / "jpg"
    if not images.is_dir():
        raise UserError(f"data set '{NAME}': there is no folder {images}")
    texts = {path.stem: path for path in texts_of(root, EXAMPLE).glob("*/*.txt")}
    entries = []
    for name in names:
        stem = PurePosixPath(name).name
        if stem not in texts:  # its folder names the class
            raise UserError(f"data set '{NAME}': there are no captions {stem}.txt in {root}")
        number = class_id(texts[stem].parent.name, str(root))
        entries.append(
            Entry(stem, f"{stem}.jpg", read_captions(texts[stem]), None, {"class_id": number})
        )
    return ImageFiles(config, NAME, Folder(images), entries)
