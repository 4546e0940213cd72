"""Images drawn into a folder: a PNG each, a grid of them, and what each one is.

OUT/0000-000.png    prompt number and sample number (never the prompt's own text)
OUT/grid.png        a row a prompt
OUT/samples.jsonl   one object an image: file, prompt, seed, prompt and sample number, settings,
seconds
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.files import load_tensors, place_bytes, write_bytes
from t2i.core.io.images import grid, png, read_image, readable_scale
from t2i.core.io.locks import LOCK, folder_lock, take_folder
from t2i.core.io.processes import Group
from t2i.core.models.model import GuideMaker, Model, Sample, Several, default_batch
from t2i.core.models.weights import owned_tensors, tensor_bytes
from t2i.core.registry.choice import Choice
from t2i.core.runs.folder import free_path

RECORDS = "samples.jsonl"
PART = ".samples-{}.jsonl"  # lines of another process than the first, until all have drawn
GRID_IMAGES = 256
GRID_COLUMNS = 16

Key = tuple[int, int]
"""Which image: number of the prompt, number of the sample."""


def write_samples(
    model: Model, prompts: Several, folder: Path, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
    run: Path | None = None,
    guide: Steering | None = None, progress: Callable[[int, int], None] | None = None,
    group: Group | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Draws `n` images of each prompt into `folder`, and returns what samples.jsonl says.

    prompts: captions, or their features, whose `captions` then name the rows.
    run: where the model came from, for the record. seconds: of an image's batch, divided by its
    images. An image and its line are written as soon as it is drawn. What an interrupted command
    has drawn stays: the same request into the same folder draws what is missing, in the same
    batches, so that each image has the bytes it would have had. Several processes (`group`) share
    out the batches; the first of them returns what all have drawn. Raises UserError if the folder
    holds anything else, or is being drawn into.
    """
    choice, group = sampler or model.sampler(), group or Group()
    names = prompts.captions if isinstance(prompts, TextFeatures) else prompts
    given = [prompts.sentence, prompts.words] if isinstance(prompts, TextFeatures) else []
    keys = [(p, s) for p in range(len(names)) for s in range(n)]
    size = batch_size or _batch_size(model, len(keys), group)

    make = guide.make() if guide else None

    def draw(wanted: Sequence[Key]) -> Iterator[list[Sample]]:
        return model.stream(
            prompts,
            seed=seed,
            sampler=choice,
            guide=make,
            batch_size=size,
            progress=progress,
            keys=wanted,
        )

    model.check(prompts, choice)  # what cannot be drawn is refused before there is a folder
    settings = {**_settings(model, choice, run, given), **(guide.document() if guide else {})}
    return _Work(model, keys, names, seed, settings, size, draw).into(folder, n, group)


@dataclass(frozen=True)
class Steering:
    """Classifier guidance by another model. scale: of its gradient. run: where it came from, for
    the record."""

    model: Model
    scale: float
    run: Path

    def make(self) -> GuideMaker:
        """UserError if the model is no guide."""
        return self.model.guide(self.scale)

    def document(self) -> dict[str, Any]:
        """What samples.jsonl says of it."""
        return {
            "guide": {
                "run": str(self.run),
                "scale": self.scale,
                "fingerprint": _fingerprint(self.model, []),
            }
        }


def write_interpolation(
    model: Model, first: Path, last: Path, prompt: str, folder: Path, *, n: int = 8,
    sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
    run: Path | None = None,
    group: Group | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The same for `n` images on the way from one image file to another (`Model.interpolate`)."""
    choice, group = sampler or model.sampler(), group or Group()
    begin, end = (read_image(path, model.generator.image_size) for path in (first, last))
    ends = [torch.tensor(begin), torch.tensor(end)]
    settings = {**_settings(model, choice, run, ends), "interpolate": [str(first), str(last)]}
    size = batch_size or _batch_size(model, n, group)

    def draw(wanted: Sequence[Key]) -> Iterator[list[Sample]]:
        return model.interpolate(
            begin, end, prompt, n=n, sampler=choice, batch_size=size, keys=wanted
        )

    draw(())  # raises what cannot be drawn before there is a folder; nothing is drawn
    return _Work(model, [(0, s) for s in range(n)], [prompt], 0, settings, size, draw).into(
        folder, n, group
    )


def _batch_size(model: Model, images: int, group: Group) -> int:
    """The model's own, but small enough that every process gets something to do."""
    return min(default_batch(model.generator.image_size), -(-images // group.size))


def _settings(
    model: Model, choice: Choice[SamplerConfig], run: Path | None, given: Sequence[Tensor]
) -> dict[str, Any]:  # fmt: skip
    source = {} if run is None else {"run": str(run)}
    told = {
        "model": model.config.model,
        "preset": model.config.preset,
        "fingerprint": _fingerprint(model, given),
    }
    return {**source, **told, "sampler": choice.dump()}


def _fingerprint(model: Model, given: Sequence[Tensor]) -> str:
    """Tells models apart: by their settings, and by a thousand numbers of each tensor (training
    moves them all); and what is given beside prompts, by all of it."""
    digest = hashlib.sha256(json.dumps(model.config.dump(), sort_keys=True).encode())
    for module in (model.generator, model.text_encoder):
        for name, tensor in owned_tensors(module).items():
            digest.update(
                name.encode() + tensor_bytes(tensor.flatten()[:: max(1, tensor.numel() // 1000)])
            )
    for tensor in given:
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class _Work:
    """Images to be drawn into a folder. keys: of all of them, in order. draw: some of them, in
    batches of `size`."""

    model: Model
    keys: Sequence[Key]
    prompts: Sequence[str]
    seed: int
    settings: Mapping[str, Any]
    size: int
    draw: Callable[[Sequence[Key]], Iterator[list[Sample]]]

    def into(self, folder: Path, n: int, group: Group) -> list[dict[str, Any]]:
        with _held(folder, group):
            there = frozenset(
                group.first(
                    lambda: [str(line["file"]) for line in self._collected(folder, self._sound)]
                )
            )
            self._draw_missing(folder, there, group)
            group.wait()
            if not group.is_first:
                return []
            records = self._collected(folder)
            shown = [
                np.asarray(Image.open(folder / record["file"])) for record in records[:GRID_IMAGES]
            ]
            sheet = grid(shown, _columns(len(shown), n), scale=readable_scale(shown[0].shape[0]))
            place_bytes(folder / "grid.png", png(sheet))
            return records

    def _draw_missing(self, folder: Path, there: frozenset[str], group: Group) -> None:
        """This process's share of the batches that are not there whole."""
        batches = [
            self.keys[start : start + self.size] for start in range(0, len(self.keys), self.size)
        ]
        missing = [batch for batch in batches if any(_name(key) not in there for key in batch)]
        mine = [key for batch in missing[group.rank :: group.size] for key in batch]
        own = RECORDS if group.is_first else PART.format(group.rank)
        with open(folder / own, "a", encoding="utf-8") as file:
            start = time.perf_counter()
            for batch in self.draw(mine) if mine else ():
                seconds = (time.perf_counter() - start) / len(batch)
                for drawn in batch:
                    key = (drawn.prompt, drawn.sample)
                    if _name(key) not in there:
                        place_bytes(folder / _name(key), png(drawn.image))
                        file.write(json.dumps({**self._line(key), "seconds": seconds}) + "\n")
                file.flush()
                start = time.perf_counter()

    def _line(self, key: Key) -> dict[str, Any]:
        """What samples.jsonl says of an image before it is drawn."""
        return {
            "file": _name(key), "prompt": self.prompts[key[0]], "seed": self.seed,
            "prompt_index": key[0],
            "sample_index": key[1], "settings": self.settings,
        }  # fmt: skip

    def _collected(
        self, folder: Path, sound: Callable[[Path], bool] = Path.is_file
    ) -> list[dict[str, Any]]:
        """The lines of all images that are there, and sound, in order, which samples.jsonl then
        holds alone. UserError if the folder holds anything that is not of this request."""
        if any(folder.glob("[!.]*")) and not (folder / RECORDS).is_file():
            raise UserError(
                f"{folder} is there already, and not empty: choose another --out, or remove it"
            )
        wanted = {_name(key): json.loads(json.dumps(self._line(key))) for key in self.keys}
        found: dict[str, dict[str, Any]] = {}
        parts = [folder / RECORDS, *folder.glob(PART.format("*"))]
        for line in (line for part in parts for line in _lines(part)):
            if difference := _difference(line, wanted.get(str(line.get("file")), {})):
                raise UserError(
                    f"{folder} holds images of another request ({difference}): choose another "
                    f"--out, or remove it"
                )
            if sound(folder / line["file"]):
                found[line["file"]] = line
        lines = [found[name] for name in wanted if name in found]
        write_bytes(folder / RECORDS, "".join(json.dumps(line) + "\n" for line in lines).encode())
        for litter in (*parts[1:], *folder.glob(".*.tmp")):
            litter.unlink()
        return lines

    def _sound(self, path: Path) -> bool:
        """Whether an image is there whole."""
        size = self.model.generator.image_size
        try:
            with Image.open(path) as image:
                image.verify()  # the checksums of all its parts
                return (image.size, image.mode) == ((size, size), "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return False


def _name(key: Key) -> str:
    return f"{key[0]:04}-{key[1]:03}.png"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a samples.jsonl, but for what a killed command has left half-written."""
    if not path.is_file():
        return
    for text in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


def _difference(line: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Why a line is not of this request: '' if it is. Where the run lies now does not matter."""
    if not wanted:
        return f"{str(line.get('file'))[:40]} is not asked for"
    settings = line.get("settings")
    ours = {**wanted, **wanted["settings"], "run": None}
    theirs = {**line, **(settings if isinstance(settings, dict) else {}), "run": None}
    different = [name for name in ours if name != "settings" and theirs.get(name) != ours[name]]
    return f"{line['file']} has another {different[0]}" if different else ""


@contextmanager
def _held(folder: Path, group: Group) -> Iterator[None]:
    """The folder for one command at a time. One that fails before its first image leaves no folder
    behind."""
    lock = folder_lock(folder)
    refusal = f"another command draws into {folder}: wait for it, or choose another --out"
    group.first(lambda: take_folder(lock, refusal))
    try:
        yield
    finally:
        if lock.is_locked:
            records = folder / RECORDS
            if (
                not any(folder.glob("[!.]*.png"))
                and records.is_file()
                and not records.stat().st_size
            ):
                records.unlink()
            (folder / LOCK).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _columns(count: int, n: int) -> int:
    """A row a prompt, if its samples fit into one; else about as many columns as rows."""
    return n if 1 < n <= GRID_COLUMNS else min(GRID_COLUMNS, math.ceil(math.sqrt(count)))


def new_samples_path(name: str, root: Path = Path("samples")) -> Path:
    """A free folder samples/NAME-TIME."""
    return free_path(root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def read_prompts(path: Path) -> list[str]:
    """Prompts from a text file, one a line; blank lines are skipped. UserError if it cannot be read
    or has none."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(
            f"prompts {path}: {error.strerror}; give a text file with one prompt a line"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"prompts {path}: not UTF-8 (byte {error.start}); save it as UTF-8 text"
        ) from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"prompts {path}: it holds no prompt; write one a line")
    return prompts


def read_features(path: Path) -> TextFeatures:
    """Sentence vectors (N, D) that another program computed, from a .npy file or a .safetensors
    file of one tensor.

    UserError if it cannot be read or holds anything else.
    """
    array = _array(path)
    if array.dim() != 2 or not len(array) or array.is_complex() or not array.isfinite().all():
        raise UserError(
            f"features {path}: {tuple(array.shape)} of {str(array.dtype).removeprefix('torch.')}, "
            f"where finite numbers "
            "(N, D) are expected, one sentence vector a row"
        )
    return TextFeatures.of(
        sentence=array.float(), captions=[f"{path.name}[{row}]" for row in range(len(array))]
    )


def _array(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        tensors = load_tensors(path, "features")
        if len(tensors) != 1:
            raise UserError(
                f"features {path}: it holds {len(tensors)} tensors; save the sentence vectors alone"
            )
        (tensor,) = tensors.values()
        return torch.as_tensor(tensor)
    try:
        # Mapped, not read: a header cannot ask for more memory than the file has bytes.
        array = np.lib.format.open_memmap(path, mode="r")
        return torch.from_numpy(np.array(array))
    except OSError as error:
        raise UserError(
            f"features {path}: {error.strerror or error}; give a .npy or .safetensors file"
        ) from None
    except (
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        SyntaxError,
    ) as error:  # no .npy, or one of objects
        raise UserError(
            f"features {path}: no .npy file of numbers ({str(error).partition('.')[0][:80]}); "
            f"write them with "
            "numpy.save or safetensors"
        ) from None
