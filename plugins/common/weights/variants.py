"""Choice of the weight files to load from a folder: safetensors only."""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError


def variant_of(folder: Path, stem: str) -> str | None:
    """Return the variant of the safetensors files in a folder.

    Args:
        folder: The folder.
        stem: Name of the plain file without its ending.

    Returns:
        The variant, such as "fp16" for stem.fp16.safetensors. None if there are plain files, which
        take precedence, or no weights at all.

    Raises:
        UserError: The only weights in the folder are pickles, which can run code.
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
            "Download the model's .safetensors files, or convert it where you trust it: load it "
            "with its library and save it again with save_pretrained(folder, "
            "safe_serialization=True)"
        )
    return None
