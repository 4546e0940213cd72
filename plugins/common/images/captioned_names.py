"""What the data sets of the StackGAN line share: lists of names in pickles, captions in text files.

DIR/train/filenames.pickle, DIR/test/filenames.pickle    the names of each split
DIR/text/CLASS/NAME.txt (or DIR/text_c10/...)            captions, one a line (ten for an image)

The vectors beside them, char-CNN-RNN-embeddings.pickle, are not read: they are NumPy arrays, which
a safe reader of pickles cannot build. The encoder `char-cnn-rnn` computes them from the captions.
"""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.common.images.image_files import captions_of, safe_name
from t2i.plugins.common.weights.legacy import read_plain_pickle

FOLDERS = {"train": "train", "val": "test"}
"""Split -> the folder with its list of names."""

TEXTS = ("text", "text_c10")
"""Folders that may hold the captions; the first that exists is used."""


def names_of(root: Path, split: str) -> list[str]:
    """Read the names of a split's images.

    Args:
        root: Folder of the data set.
        split: "train" or "val".

    Returns:
        The names, in the order of the list.

    Raises:
        UserError: There is no such list, or it is not a list of names inside the folder.
    """
    path = root / FOLDERS[split] / "filenames.pickle"
    names = read_plain_pickle(path)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no list of names")
    return [safe_name(name, str(path)) for name in names]


def texts_of(root: Path, example: str) -> Path:
    """Find the folder with the captions.

    Args:
        root: Folder of the data set.
        example: Name of one example, to name a missing file in the error.

    Returns:
        The folder.

    Raises:
        UserError: There is no such folder.
    """
    folder = next((root / name for name in TEXTS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{root} has no folder 'text' with the captions, such as text/{example}.txt"
        )
    return folder


def read_captions(path: Path) -> tuple[str, ...]:
    """Read the captions of one image, one a line.

    Args:
        path: The text file.

    Returns:
        The captions that are not empty; none if there is no such file.
    """
    return captions_of(path.read_text("utf-8", "replace").splitlines()) if path.is_file() else ()


def class_id(folder: str, where: str) -> int:
    """Return the number in the name of a class's folder.

    It is 1 for "001.Black_footed_Albatross", 17 for "class_00017".

    Args:
        folder: Name of the folder.
        where: Name of its place in errors.

    Returns:
        The first number in the name.

    Raises:
        UserError: The name has no number.
    """
    number = re.search(r"\d+", folder)
    if number is None:
        raise UserError(f"{where}: the class '{folder[:80]}' has no number in its name")
    return int(number.group())
