"""What the data sets of the StackGAN line share: lists of names in pickles, ten captions an image in a text file.

DIR/train/filenames.pickle, DIR/test/filenames.pickle    the names of each split
DIR/text/CLASS/NAME.txt (or DIR/text_c10/...)            captions, one a line

The vectors beside them, char-CNN-RNN-embeddings.pickle, hold NumPy arrays, which no safe reader of pickles builds: they
are not read. The encoder `char-cnn-rnn` computes them from the captions.
"""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.common.images.image_files import captions_of, safe_name
from t2i.plugins.common.weights.legacy import read_plain_pickle

FOLDERS = {"train": "train", "val": "test"}
"""Split -> the folder with its list."""

TEXTS = ("text", "text_c10")


def names_of(root: Path, split: str) -> list[str]:
    """The names in the list of a split, in its order. UserError if it is not there or no list of names."""
    path = root / FOLDERS[split] / "filenames.pickle"
    names = read_plain_pickle(path)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no list of names")
    return [safe_name(name, str(path)) for name in names]


def texts_of(root: Path, example: str) -> Path:
    """The folder with the captions. UserError, naming a file that should be there, if there is none."""
    folder = next((root / name for name in TEXTS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{root} has no folder 'text' with the captions, such as text/{example}.txt"
        )
    return folder


def read_captions(path: Path) -> tuple[str, ...]:
    """One caption a line; none if there is no such file."""
    return captions_of(path.read_text("utf-8", "replace").splitlines()) if path.is_file() else ()


def class_id(folder: str, where: str) -> int:
    """The number in the name of a class's folder: 1 of "001.Black_footed_Albatross", 17 of "class_00017"."""
    number = re.search(r"\d+", folder)
    if number is None:
        raise UserError(f"{where}: the class '{folder[:80]}' has no number in its name")
    return int(number.group())
