"""Read the lists of names and the captions of data sets in the layout of StackGAN.

DIR/train/filenames.pickle, DIR/test/filenames.pickle    names of the images of each split
DIR/text/CLASS/NAME.txt (or DIR/text_c10/...)            captions of an image (ten), one a line

The vectors beside them, char-CNN-RNN-embeddings.pickle, are not read: they hold NumPy arrays, which
no safe reader of pickles can build. The encoder `char-cnn-rnn` computes them from the captions.
"""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.common.images.image_files import captions_of, safe_name
from t2i.plugins.common.weights.legacy import read_plain_pickle

FOLDERS = {"train": "train", "val": "test"}
"""Folder with the list of names, by split."""

TEXTS = ("text", "text_c10")


def names_of(root: Path, split: str) -> list[str]:
    """Read the list of names of a split.

    Args:
        root: Folder of the data set.
        split: "train" or "val".

    Returns:
        The names in the order of the list.

    Raises:
        UserError: The list cannot be read, is no list of names, or has a name that leads out of the
            folder.
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
        example: Name of an image whose captions should be there, for the message.

    Returns:
        The folder "text", or else "text_c10".

    Raises:
        UserError: There is neither.
    """
    folder = next((root / name for name in TEXTS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{root} has no folder 'text' with the captions, such as text/{example}.txt"
        )
    return folder


def read_captions(path: Path) -> tuple[str, ...]:
    """Read a file of captions, one a line.

    Args:
        path: The file.

    Returns:
        The captions, without empty lines. () if there is no such file.
    """
    return captions_of(path.read_text("utf-8", "replace").splitlines()) if path.is_file() else ()


def class_id(folder: str, where: str) -> int:
    """Read the class number from the name of a class's folder.

    Args:
        folder: The name, such as "001.Black_footed_Albatross" (1) or "class_00017" (17).
        where: The file that has the name, as errors name it.

    Returns:
        The first number in the name.

    Raises:
        UserError: There is no number in the name.
    """
    number = re.search(r"\d+", folder)
    if number is None:
        raise UserError(f"{where}: the class '{folder[:80]}' has no number in its name")
    return int(number.group())
