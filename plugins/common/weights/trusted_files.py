"""Which files the libraries may open in a folder of a network or a tokenizer.

diffusers and transformers follow what a folder's files say: an index names files of weights, a
configuration names files of weights or of a vocabulary. So before they open a folder, this checks
that all of it is plain files inside the folder, that indexes name safetensors beside them, and that
no other file is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular
from t2i.core.io.json_files import read_object

AGAIN = "get that file from where the folder is from"
LARGEST_TEXT = 1 << 28  # bytes of a configuration, an index or a vocabulary
READ = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Names of the files that the libraries read. They are passed over by their names otherwise."""
VOCABULARIES = {
    "vocab_file": "vocab.json", "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json",
}  # fmt: skip
"""Entries of tokenizer_config.json that name a file -> the file that takes precedence over them."""
ADAPTER = "adapter_config.json"


def check_folder(folder: Path) -> None:
    """Check the folder of a network or a tokenizer before a library opens it.

    Args:
        folder: The folder; what its own folders hold is not read.

    Raises:
        UserError: A file is a pipe or a device, lies outside the folder, is too large, or names a
            file that is not safetensors in the folder.
    """
    for pattern in READ:
        for file in sorted(folder.glob(pattern)):
            _check_place(file, folder)
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        check_listed(index)
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder / ADAPTER} is of an adapter (a LoRA), which changes the weights of another "
            "model and is not read: remove it"
        )
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _check_named(folder / name)


def check_pipeline(folder: Path, parts: Iterable[str]) -> None:
    """Check the folder of a pipeline, and those of its parts.

    Args:
        folder: Folder of the pipeline.
        parts: Names of the parts that are read. They may have no folders of their own.

    Raises:
        UserError: A part lies outside the folder, or `check_folder` refuses one.
    """
    check_folder(folder)
    for part in parts:
        place = folder / part
        if place.is_dir():
            target = place.resolve()
            if not target.is_relative_to(folder.resolve()) and not _in_hub_cache(target):
                raise UserError(f"{place} is a link that leads out of {folder}: put the folder "
                                "itself in its place")  # fmt: skip
            check_folder(place)


def check_listed(index: Path) -> None:
    """Check that an index lists safetensors beside it, all of which are there.

    Args:
        index: The file.

    Raises:
        UserError: It does not.
    """
    shards = read_object(index, f"folder {index.parent}").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index}: it does not say in which file each tensor is: {AGAIN}")
    for shard in dict.fromkeys(map(str, shards.values())):
        plain = "/" not in shard and "\\" not in shard and "\0" not in shard
        if not plain or not shard.endswith(".safetensors"):
            raise UserError(
                f"{index}: it names {shard[:80]!r}; only .safetensors files in its folder are read"
            )
        if not (index.parent / shard).is_file():
            raise UserError(f"{index}: it names {shard[:80]}, which is not there: {AGAIN}")


def entries(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Iterate over the keys and values of a document, and of the mappings in it.

    Args:
        document: The document.

    Yields:
        Key and value.
    """
    left = [document]
    while left:
        for key, value in left.pop().items():
            yield str(key), value
            if isinstance(value, Mapping):
                left.append(value)


def _check_place(file: Path, folder: Path) -> None:
    """Raise UserError unless a file is a plain one inside its folder, of a sensible size."""
    check_regular(file, f"folder {folder}")
    place, inside = file.resolve(), folder.resolve()
    if not place.is_relative_to(inside) and not _in_hub_cache(place):
        raise UserError(
            f"{file} is a link that leads out of its folder: put the file itself in its place"
        )
    if file.is_file() and file.suffix != ".safetensors" and file.stat().st_size > LARGEST_TEXT:
        size = file.stat().st_size / 1e6
        raise UserError(f"{file} has {size:.0f} MB, more than such a file can need: {AGAIN}")


def _in_hub_cache(place: Path) -> bool:
    """Whether a file or folder, without links, is part of a model in a cache of the hub.

    Snapshots link to files there, and so do folders that older downloaders made.
    """
    return any(parent.name.startswith("models--") for parent in place.parents)


def _check_named(file: Path) -> None:
    """Raise UserError if a configuration names a file of weights or of a vocabulary."""
    document = read_object(file, f"folder {file.parent}")
    for key, value in entries(document):
        if value is None:
            continue
        usual = VOCABULARIES.get(key)
        if key == "transformers_weights" or (usual and not (file.parent / usual).is_file()):
            raise UserError(
                f"{file}: {key} = {str(value)[:60]!r} names a file to read, which is not followed: "
                "remove it, and give the file its usual name"
            )
