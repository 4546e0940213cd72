"""The data set `imagefolder`: images in a folder, with captions in tables or text files."""

from __future__ import annotations

from t2i.core.errors import UserError
from t2i.plugins.common.images.image_files import ImageFiles, data_folder
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig
from t2i.plugins.datasets.imagefolder.layout import inspect

NAME = "imagefolder"


def build(config: ImageFolderConfig, split: str) -> ImageFiles:
    """Build one split.

    Where the folder has "train" and a held-back folder, these are the splits; otherwise a table may
    say which image is in which split. Otherwise the images are split by a hash of their names.

    Args:
        config: Settings.
        split: "train" or "val".

    Returns:
        The images in the order of their names.

    Raises:
        UserError: The folder does not exist, what is in it is not clear, or the split is empty.
    """
    root = data_folder(config, NAME)
    plan = inspect(root, config, split)
    if not plan.entries:
        told = "; ".join(f"{reason}: {n}" for reason, n in plan.contents.passed_over.items())
        raise UserError(
            f"data set '{NAME}': there is no image for '{split}' in {root}"
            f"{f' (passed over: {told})' if told else ''}; convert images of other kinds to JPEG "
            "or PNG, or name another --data-dir"
        )
    return ImageFiles(config, NAME, plan.source, plan.entries, plan.contents)
