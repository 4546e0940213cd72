"""Which images are for training and which are held back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from t2i.plugins.common.images.image_files import in_val, rank

VALIDATION = ("val", "validation", "valid", "dev", "test")
"""Names of held-back splits; the first that is there is used."""

_WORDS = {"restval": "train", "training": "train", "eval": "val", "testing": "test"}
"""Other names of splits, as columns of tables have them."""


def split_word(name: str) -> str:
    """Return the split that a name stands for.

    Args:
        name: Name of a folder, or the value of a column.

    Returns:
        "train", one of VALIDATION, or "" if it is none.
    """
    word = name.strip().lower()
    word = _WORDS.get(word, word)
    return word if word in ("train", *VALIDATION) else ""


def split_in(stem: str) -> str:
    """Return the split that a name begins or ends with, as in "train-00000-of-00002", "val2017".

    Args:
        stem: Name of a folder, or of a file without its ending.

    Returns:
        As `split_word`.
    """
    parts = [re.sub(r"\d+$", "", part) for part in re.split(r"[-_. ]+", stem)]
    return split_word(parts[0]) or split_word(parts[-1])


def chosen(present: Sequence[str]) -> dict[str, str]:
    """Choose the two splits among those that are there.

    Args:
        present: Names of folders or files without endings, or values of a column. One that is just
            the name of a split is preferred to one that begins or ends with it.

    Returns:
        The names for "train" and "val"; empty unless there is one of each.
    """
    ordered = sorted(present, key=lambda name: bool(split_word(name)))
    words = {split_in(name): name for name in ordered}
    held = next((words[word] for word in VALIDATION if word in words), None)
    return {"train": words["train"], "val": held} if "train" in words and held else {}


def by_hash(keys: Sequence[str], share: float) -> Mapping[str, Sequence[str]]:
    """Split images by a hash of their names.

    Adding images moves no old one, unless a split would be empty: then the image with the smallest
    hash is val's, or that with the largest is train's. One image alone is in both splits.

    Args:
        keys: The images.
        share: Share that val gets, 0 to 1.

    Returns:
        The images of "train" and of "val".
    """
    if len(keys) < 2:
        return {"train": keys, "val": keys}
    val = {key for key in keys if in_val(key, share)} or {min(keys, key=rank)}
    if len(val) == len(keys):
        val.remove(max(keys, key=rank))
    return {
        "train": [key for key in keys if key not in val],
        "val": [key for key in keys if key in val],
    }
