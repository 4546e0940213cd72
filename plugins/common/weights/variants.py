"""Choose which of a folder's weight files to load. Only safetensors are loaded."""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError


def variant_of(folder: Path, stem: str) -> str | None:
    """Find the variant of a folder's safetensors files, such as "fp16" of STEM.fp16.safetensors.

    Args:
        folder: Folder of the network.
        stem: Beginning of the files' names, such as "model".

    Returns:
        The variant to load, the first one of several. None for files without a variant, which are
        preferred, and if the folder holds no weights at all.

    Raises:
        UserError: The folder holds only pickles, which can run code.
    """
    whole = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    if any((folder / name).is_file() for name in whole):
        return None
    pattern = re.compile(rf"{re.escape(stem)}\.(\w+)(-\d{{5}}-of-\d{{5}})?\.safetensors")
    found = [
        match[1] for path in sorted(folder.iterdir()) if (match := pattern.fullmatch(path.name))
    ]
    if found:
        return found[0]
    pickled = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".pth")
    )
    if pickled:
        raise UserError(
            f"{folder}: {pickled[0]} is a pickle, which can run code: only safetensors are read. "
            f"Download the "
            f"model's .safetensors files, or convert it where you trust it: load it with its "
            f"library and save it again "
            "with save_pretrained(folder, safe_serialization=True)"
        )
    return None
