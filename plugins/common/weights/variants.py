"""Which of a folder's weight files to load: safetensors, or nothing."""

from __future__ import annotations

import re
from pathlib import Path

from t2i.core.errors import UserError


def variant_of(folder: Path, stem: str) -> str | None:
    """The variant ("fp16" of stem.fp16.safetensors) to ask a loader for, None for the plain files, which win.

    Raises UserError if the folder holds weights, but none that cannot run code.
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
            f"{folder}: {pickled[0]} is a pickle, which can run code: only safetensors are read. Download the "
            f"model's .safetensors files, or convert it where you trust it: load it with its library and save it again "
            "with save_pretrained(folder, safe_serialization=True)"
        )
    return None
