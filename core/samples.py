"""Pictures drawn into a folder: a PNG each, a grid of them, and what each one is.

OUT/0000-000.png    prompt number and sample number (never the prompt's own text)
OUT/grid.png        a row a prompt
OUT/samples.jsonl   one object a picture: file, prompt, seed, prompt and sample number, settings, seconds
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from t2i.core.errors import UserError
from t2i.core.files import load_tensors
from t2i.core.images import grid, png, read_picture, readable_scale
from t2i.core.model import Drawn, Model, Prompts
from t2i.core.runs import Choice, free_path
from t2i.core.sampler import SamplerConfig
from t2i.core.text import TextFeatures

GRID_PICTURES = 256
GRID_COLUMNS = 16


def write_samples(
    model: Model, prompts: Prompts, folder: Path, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None, run: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Draws `n` pictures of each prompt into `folder`, which must be new or empty, and returns what samples.jsonl says.

    prompts: captions, or their features, whose `captions` then name the rows.
    run: where the model came from, for the record. seconds: of a picture's batch, divided by its pictures.
    A picture and its line are written as soon as it is drawn: what an interrupted command has drawn stays.
    Raises UserError if the folder is taken.
    """
    choice = sampler or model.sampler()
    batches = model.draw(prompts, n=n, seed=seed, sampler=choice, batch_size=batch_size, progress=progress)
    names = prompts.captions if isinstance(prompts, TextFeatures) else prompts
    return _write(batches, names, folder, n, seed, _settings(model, choice, run))


def write_interpolation(
    model: Model, first: Path, last: Path, prompt: str, folder: Path, *, n: int = 8,
    sampler: Choice[SamplerConfig] | None = None, run: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The same for `n` pictures on the way from one picture file to another (`Model.interpolate`)."""
    choice = sampler or model.sampler()
    begin, end = (read_picture(path, model.generator.image_size) for path in (first, last))
    settings = {**_settings(model, choice, run), "interpolate": [str(first), str(last)]}
    return _write(model.interpolate(begin, end, prompt, n=n, sampler=choice), [prompt], folder, n, 0, settings)


def _settings(model: Model, choice: Choice[SamplerConfig], run: Path | None) -> dict[str, Any]:
    source = {} if run is None else {"run": str(run)}
    return {**source, "model": model.config.model, "preset": model.config.preset, "sampler": choice.dump()}


def _write(
    batches: Iterator[list[Drawn]], prompts: Sequence[str], folder: Path, n: int, seed: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    _take(folder)
    records: list[dict[str, Any]] = []
    shown: list[np.ndarray] = []
    start = time.perf_counter()
    with _records(folder / "samples.jsonl") as file:
        for batch in batches:
            seconds = (time.perf_counter() - start) / len(batch)
            for drawn in batch:
                name = f"{drawn.prompt:04}-{drawn.sample:03}.png"
                (folder / name).write_bytes(png(drawn.image))
                record = {
                    "file": name, "prompt": prompts[drawn.prompt], "seed": seed, "prompt_index": drawn.prompt,
                    "sample_index": drawn.sample, "settings": settings, "seconds": seconds,
                }  # fmt: skip
                file.write(json.dumps(record) + "\n")
                records.append(record)
            file.flush()
            shown += [drawn.image for drawn in batch[: GRID_PICTURES - len(shown)]]
            start = time.perf_counter()
    sheet = grid(shown, _columns(len(shown), n), scale=readable_scale(shown[0].shape[0]))
    (folder / "grid.png").write_bytes(png(sheet))
    return records


@contextmanager
def _records(path: Path) -> Iterator[TextIO]:
    """samples.jsonl, open for writing. A command that fails before its first picture leaves no folder behind."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            yield file
    finally:
        if list(path.parent.iterdir()) == [path] and not path.stat().st_size:
            path.unlink()
            path.parent.rmdir()


def _take(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not empty: choose another --out, or remove it")
    folder.mkdir(parents=True, exist_ok=True)


def _columns(count: int, n: int) -> int:
    """A row a prompt, if its samples fit into one; else about as many columns as rows."""
    return n if 1 < n <= GRID_COLUMNS else min(GRID_COLUMNS, math.ceil(math.sqrt(count)))


def new_samples_path(name: str, root: Path = Path("samples")) -> Path:
    """A free folder samples/NAME-TIME."""
    return free_path(root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def read_prompts(path: Path) -> list[str]:
    """Prompts from a text file, one a line; blank lines are skipped. UserError if it cannot be read or has none."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"prompts {path}: {error.strerror}; give a text file with one prompt a line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"prompts {path}: not UTF-8 (byte {error.start}); save it as UTF-8 text") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"prompts {path}: it holds no prompt; write one a line")
    return prompts


def read_features(path: Path) -> TextFeatures:
    """Sentence vectors (N, D) that another program computed, from a .npy file or a .safetensors file of one tensor.

    UserError if it cannot be read or holds anything else.
    """
    array = _array(path)
    if array.dim() != 2 or not len(array) or array.is_complex() or not array.isfinite().all():
        raise UserError(
            f"features {path}: {tuple(array.shape)} of {str(array.dtype).removeprefix('torch.')}, where finite numbers "
            "(N, D) are expected, one sentence vector a row"
        )
    return TextFeatures.of(sentence=array.float(), captions=[f"{path.name}[{row}]" for row in range(len(array))])


def _array(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        tensors = load_tensors(path, "features")
        if len(tensors) != 1:
            raise UserError(f"features {path}: it holds {len(tensors)} tensors; save the sentence vectors alone")
        (tensor,) = tensors.values()
        return torch.as_tensor(tensor)
    try:
        # Mapped, not read: a header cannot ask for more memory than the file has bytes.
        array = np.lib.format.open_memmap(path, mode="r")
        return torch.from_numpy(np.array(array))
    except OSError as error:
        raise UserError(f"features {path}: {error.strerror or error}; give a .npy or .safetensors file") from None
    except (ValueError, TypeError, OverflowError, MemoryError, SyntaxError) as error:  # no .npy, or one of objects
        raise UserError(
            f"features {path}: no .npy file of numbers ({str(error).partition('.')[0][:80]}); write them with "
            "numpy.save or safetensors"
        ) from None
