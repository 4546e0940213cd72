"""What the data sets of the StackGAN line share: lists of names in pickles, captions in text files.

DIR/train/filenames.pickle, DIR/test/filenames.pickle    the names of each split
DIR/text/CLASS/NAME.txt (or DIR/text_c10/...)            captions, one a line (ten for an image)

The vectors beside them, char-CNN-RNN-embeddings.pickle, are not read: they are NumPy arrays, which
a safe reader of pickles cannot build. The encoder `char-cnn-rnn` computes them from the captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError
from t2i.core.io.text import read_text
from t2i.plugins.common.images.image_files import captions_of, safe_name
from t2i.plugins.common.weights.legacy import read_plain_pickle

FOLDERS = {"train": "train", "val": "test"}
"""Split -> the folder with its list of names."""

TEXTS = ("text", "text_c10")
"""Folders that may hold the captions; the first that exists is used."""

ENDINGS = (".jpg", ".jpeg", ".png")
"""Endings that a name in a list may have, in lower case."""

LOST = "\ufffd"
"""The mark that a program left where it could not decode a letter."""


def names_of(root: Path, split: str, remedy: str) -> list[str]:
    """Read the names of a split's images.

    Args:
        root: Folder of the data set.
        split: "train" or "val".
        remedy: What the error says to do where there is no list.

    Returns:
        The names, in the order of the list, without endings.

    Raises:
        UserError: There is no such list, or it is not a list of names inside the folder.
    """
    path = root / FOLDERS[split] / "filenames.pickle"
    if not path.is_file():
        above = root.parent / FOLDERS[split] / "filenames.pickle"
        hint = f"; there is one in {root.parent}: name that folder" if above.is_file() else ""
        raise UserError(f"there is no {path}, which holds the split{hint or f': {remedy}'}")
    names = read_plain_pickle(path)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no list of names")
    return [_plain_name(safe_name(name.strip(), str(path))) for name in names]


def _plain_name(name: str) -> str:
    """Return a name without the ending of an image."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) if ending.lower() in ENDINGS else name


def first_folder(places: Iterable[Path]) -> Path | None:
    """Return the first folder that exists.

    Args:
        places: Where it may be.

    Returns:
        The folder, or None.
    """
    return next((place for place in places if place.is_dir()), None)


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
    found = first_folder(root / name for name in TEXTS)
    if found is None:
        raise UserError(
            f"{root} has no folder 'text' with the captions, such as text/{example}.txt; they come "
            "with the preprocessed data of StackGAN or AttnGAN"
        )
    return first_folder([found / found.name]) or found  # an archive unpacked into its own name


class CaptionFiles:
    """Reads the files of captions, and counts the captions in which letters were lost.

    Args:
        encoding: Name of their encoding. None: UTF-8.

    Attributes:
        damaged: Captions that hold U+FFFD in the file, each such mark being read as a space.
        absent: Images without a file of captions.
    """

    def __init__(self, encoding: str | None) -> None:
        self._encoding = encoding
        self.damaged = self.absent = 0

    def read(self, path: Path) -> tuple[str, ...]:
        """Read the captions of one image, one a line.

        Args:
            path: The text file.

        Returns:
            The captions that are not empty; none if there is no such file.

        Raises:
            UserError: The file is in another encoding.
        """
        if not path.is_file():
            self.absent += 1
            return ()
        lines = re.split(r"\r\n|\r|\n", read_text(path, self._encoding))
        self.damaged += sum(LOST in line for line in lines)
        return captions_of(lines)

    def told(self) -> tuple[str, ...]:
        """Say what was found in the captions.

        Returns:
            Lines for `Contents.found`.
        """
        if not self.damaged:
            return ()
        return (
            f"captions that lost letters (U+FFFD in the files, read as spaces): {self.damaged}",
        )


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
