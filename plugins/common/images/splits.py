"""Which images are for training and which are held back. This imports no NumPy."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence

VALIDATION = ("val", "validation", "valid", "dev", "test")
"""Names of held-back splits; the first that is there is used."""

_WORDS = {
    "restval": "train", "training": "train", "trn": "train", "testing": "test", "tst": "test",
    "eval": "val", "evaluation": "val", "holdout": "val", "heldout": "val",
}  # fmt: skip
"""Other names of splits, as columns of tables and folders have them."""


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


def in_val(key: str, share: float) -> bool:
    """Return whether an image belongs to the validation split, by a hash of its key.

    Args:
        key: Key of the image.
        share: Share of all keys that belong to the split, 0 to 1.

    Returns:
        True for about this share of keys.
    """
    return rank(key) < share * 2**64


def rank(key: str) -> int:
    """Return the place of an image in an order that names alone decide: a hash of its key.

    Args:
        key: Key of the image.

    Returns:
        A number from 0 to 2**64 - 1, evenly spread over keys.
    """
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


def safe_share(keys: Sequence[str], share: float) -> float:
    """Change the share of val as little as it takes for each split to have an image.

    Args:
        keys: Keys of the images, at least two different ones.
        share: The share that was set, for `in_val`.

    Returns:
        The share itself, unless no key or every key would be in val.
    """
    inside = sum(in_val(key, share) for key in keys)
    if inside == 0:
        return math.nextafter(min(map(rank, keys)) / 2**64, 1)
    return share if inside < len(keys) else math.nextafter(max(map(rank, keys)) / 2**64, 0)


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
    if len(set(keys)) < 2:
        return {"train": keys, "val": keys}
    share = safe_share(keys, share)
    return {
        "train": [key for key in keys if not in_val(key, share)],
        "val": [key for key in keys if in_val(key, share)],
    }
