"""Choice of the weight files to load from a folder: safetensors only."""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.terminal import note
from t2i.core.models.identify import identify, shapes_of
from t2i.plugins.common.weights.trusted_files import AGAIN, check_folder

PRECISIONS = ("fp16", "bf16", "fp32")
"""Variants that differ from the plain weights only by rounding."""


def variant_of(folder: Path, stem: str) -> str | None:
    """Return the variant of the safetensors files in a folder, and check the folder before.

    A variant that holds other weights than the plain file would, such as "non_ema", is told in a
    line on stderr.

    Args:
        folder: The folder.
        stem: Name of the plain file without its ending.

    Returns:
        The variant, such as "fp16" for stem.fp16.safetensors. None if there are plain files, which
        take precedence.

    Raises:
        UserError: The folder has no weights, pickles only, several variants without a plain file,
            a file that is damaged, or one that `check_folder` refuses.
    """
    check_folder(folder)
    name = re.escape(stem)
    shard = r"(-\d{5}-of-\d{5})?\.safetensors"
    files = sorted(path.name for path in folder.iterdir())
    plain = [file for file in files if re.fullmatch(name + shard, file)]
    pattern = re.compile(rf"{name}\.(\w+){shard}")
    variants = {file: match[1] for file in files if (match := pattern.fullmatch(file))}
    if not plain and not variants:
        raise UserError(_nothing(folder, stem, files))
    if not plain and len(set(variants.values())) > 1:
        raise UserError(
            f"{folder}: it has the variants {' and '.join(sorted(set(variants.values())))} of its "
            f"weights, and no plain {stem}.safetensors: move all but one out of the folder"
        )
    for file in plain or variants:
        if shapes_of(folder / file) is None:
            raise UserError(f"{folder / file} is {identify(folder / file).sentence}")
    variant = None if plain else next(iter(variants.values()))
    if not {f"{stem}.safetensors", f"{stem}.{variant}.safetensors"} & set(files):
        dotted = f".{variant}" if variant else ""
        index = folder / f"{stem}.safetensors.index{dotted}.json"
        if not index.exists():
            raise UserError(f"{index} is missing, which says in which file each tensor is: {AGAIN}")
    if variant not in (None, *PRECISIONS):
        note(f"{folder}: its only weights are the variant {variant}, which is used")
    return variant


def _nothing(folder: Path, stem: str, files: list[str]) -> str:
    """Say why a folder has no weights that can be read."""
    pickled = [file for file in files if file.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickled:
        return (
            f"{folder}: {pickled[0]} is a pickle, which can run code: only safetensors are read. "
            "Download the model's .safetensors files, or convert it where you trust it: load it "
            "with its library and save it again with save_pretrained(folder, "
            "safe_serialization=True)"
        )
    other = [file for file in files if file.endswith((".safetensors", ".gguf", ".msgpack", ".h5"))]
    found = f"it has {other[0]}, but no" if other else "it has no"
    what = f" (it is {identify(folder).what})" if other else ""
    return f"{folder}: {found} {stem}.safetensors{what}: {AGAIN}"
