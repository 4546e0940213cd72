"""Name what was given as a run but is none: images, data, samples, texts, archives."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

TEXTS = (
    ".txt", ".md", ".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".html", ".log", ".py",
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2", ".zst")
WEIGHTS = (
    ".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".msgpack", ".h5",
    ".npz", ".sft",
)  # fmt: skip
LOOKED_AT = 5000
"""How many entries of a folder are looked at."""
KNOWN = "a run, a checkpoint, or a folder or file of weights is expected ('t2i runs' lists runs)"


def stranger(path: Path) -> str:
    """Say what a file or folder is that holds no weights.

    Args:
        path: The file or folder, which exists.

    Returns:
        One line: what it is, and what would work. "" if it may hold weights.
    """
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        return f"{path} is no regular file (a pipe, a socket or a device): {KNOWN}"
    try:
        inside = list(islice(path.rglob("*"), LOOKED_AT))
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
    files = [each for each in inside if each.suffix and not each.name.startswith(".")]
    if (path / "samples.jsonl").is_file():
        return f"{path} holds samples, which 't2i sample' made from a run: name that run; {KNOWN}"
    if any(each.suffix.lower() in WEIGHTS for each in files) or (path / "config.json").is_file():
        return ""
    if (path / "model_index.json").is_file():
        return ""
    if (path / "results.json").is_file():
        return f"{path} is a benchmark's folder without runs: {KNOWN}"
    from t2i.core.io.images import SUFFIXES  # imports torch

    if not inside:
        return f"{path} is an empty folder: {KNOWN}"
    if images := [each for each in files if each.suffix.lower() in SUFFIXES]:
        return (
            f"{path} is a folder of images ({images[0].relative_to(path)}, ...), no model: "
            f"'t2i train --model M --data-dir {path}' may train one on them; {KNOWN}"
        )
    if any(each.suffix in (".tar", ".tgz", ".parquet") for each in files):
        return f"{path} is a folder of data, no model: {KNOWN}"
    shown = ", ".join(sorted(each.name for each in path.iterdir())[:4])
    return f"{path} holds no weights ({shown}): {KNOWN}"


def _file(path: Path) -> str:
    ending = path.suffix.lower()
    if ending in WEIGHTS and path.stat().st_size:
        return ""
    from t2i.core.io.images import SUFFIXES  # imports torch

    if ending in SUFFIXES:
        return f"{path} is an image, no model: {KNOWN}"
    if ending in ARCHIVES:
        return f"{path} is an archive: unpack it, and name the folder; {KNOWN}"
    if ending in TEXTS:
        return f"{path} is a text file, no model: {KNOWN}"
    if path.stat().st_size == 0:
        return f"{path} is an empty file: {KNOWN}"
    return ""
