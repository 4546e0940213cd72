"""What networks that a stage does not train make of a data set, computed once and stored: latents, text features.

FOLDER/part-00000.safetensors   rows of PART consecutive examples
FOLDER/part-00000.json          their keys and captions, and what is broken
FOLDER/manifest.json            sizes and SHA-256 of all that: without it the store is not complete

A part is there whole or not at all: a run that is killed goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from t2i.core.engine.loader import HostBatch, Loader, Views
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Visit, sound, visit_stream
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.files import MANIFEST, load_tensors, read_json, save_tensors, seal, verify, write_json
from t2i.core.io.images import to_tensor
from t2i.core.settings import ModelConfig

PART = 2048  # examples a file
PIXELS = 2**20  # encoded at once
FORMAT = 1


@dataclass(frozen=True)
class Looks:
    """Examples as the store sees them. images: uint8 (N, V, H, W, 3), V views of each. captions: all of each. broken:
    what was passed over."""

    images: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    broken: tuple[BrokenExample, ...]


class _AllViews(TorchDataset[Looks]):
    """View v of an example is what epoch v would have shown."""

    def __init__(self, dataset: Dataset, views: Views, count: int) -> None:
        self._dataset, self._views, self._count = dataset, views, count

    def __getitem__(self, batch: Sequence[Visit]) -> Looks:
        found = [sound(self._dataset, visit.index) for visit in batch]
        examples = [example for example, _ in found]
        images = [
            [self._views.look(example, Visit(view, visit.index))[1] for view in range(self._count)]
            for visit, example in zip(batch, examples, strict=True)
        ]
        captions, keys = tuple(e.captions for e in examples), tuple(e.key for e in examples)
        return Looks(np.array(images), captions, keys, tuple(error for _, passed in found for error in passed))


@dataclass(frozen=True)
class Recipe:
    """How features are computed. encode: images (B, 3, H, W) -> (B, ...). text: captions -> features, None where the
    stage trains the encoder. networks: the tensors that both depend on."""

    settings: ModelConfig
    encode: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], TextFeatures] | None
    networks: Mapping[str, Tensor]

    def key(self, dataset: Dataset) -> str:
        """Names the store: it differs wherever what is stored may differ."""
        told = {
            "format": FORMAT, "data": dataset.fingerprint(), "image_size": self.settings.image_size,
            "augment": self.settings.augment.model_dump(), "views": self.settings.cache_views,
            "seed": self.settings.seed, "text": self.text is not None,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name in sorted(self.networks):
            digest.update(name.encode())
            digest.update(self.networks[name].cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:24]


def obtain(
    root: Path, dataset: Dataset, views: Views, recipe: Recipe, accelerator: Accelerator, say: Callable[[str], None]
) -> Store:
    """The store of this recipe under `root`, whose missing parts are computed now, by all processes together.

    say: called in every process alike, part by part. UserError if another run is filling the same store.
    """
    folder = root / recipe.key(dataset)
    lock = FileLock(root / f".{folder.name}.lock")
    if accelerator.is_main_process:
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder} is being filled by another run: wait for it, or set another cache_dir") from None
    try:
        if accelerator.is_main_process:
            _discard_if_damaged(folder, say)
        accelerator.wait_for_everyone()
        if not (folder / MANIFEST).exists():
            _fill(folder, dataset, views, recipe, accelerator, say)
    finally:
        lock.release()
    return Store(folder, recipe.settings.seed)


def _discard_if_damaged(folder: Path, say: Callable[[str], None]) -> None:
    try:
        if (folder / MANIFEST).exists():
            verify(folder, "stored features")
    except UserError as error:
        say(f"warning: {error}: computing them anew")
        shutil.rmtree(folder)


def _fill(
    folder: Path, dataset: Dataset, views: Views, recipe: Recipe, accelerator: Accelerator, say: Callable[[str], None]
) -> None:
    """Computes the parts that are missing, each process its own, and seals the store."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, count = -(-len(dataset) // PART), recipe.settings.cache_views
    missing = [n for n in range(parts) if not _part(folder, n).with_suffix(".json").exists()]
    accelerator.wait_for_everyone()  # before anyone writes
    looks, world = _AllViews(dataset, views, count), accelerator.num_processes
    say(f"storing {count} view{'s' * (count > 1)} of {len(dataset)} images in {folder}")
    for begin in range(0, len(missing), world):
        mine = missing[begin : begin + world][accelerator.process_index :][:1]
        for number in mine:
            indexes = range(number * PART, min((number + 1) * PART, len(dataset)))
            _write_part(_part(folder, number), looks, indexes, recipe, accelerator.device)
        say(f"stored {min((missing[begin] + world) * PART, len(dataset))} of {len(dataset)}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for litter in folder.glob("*.tmp"):
            litter.unlink()
        seal(folder)
    accelerator.wait_for_everyone()


def _write_part(path: Path, looks: _AllViews, indexes: range, recipe: Recipe, device: torch.device) -> None:
    size = max(1, min(64, PIXELS // recipe.settings.image_size**2))
    groups = [indexes[i : i + size] for i in range(0, len(indexes), size)]
    loader = Loader(looks, iter([Visit(0, index) for index in group] for group in groups), recipe.settings.workers)
    try:
        found = [_computed(next(loader), recipe, device) for _ in groups]
    finally:
        loader.close()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_tensors(temporary, {name: torch.cat([tensors[name] for tensors, _ in found]) for name in found[0][0]})
    os.replace(temporary, path)
    document = {
        "keys": [key for _, looks in found for key in looks.keys],
        "captions": [list(own) for _, looks in found for own in looks.captions],
        "broken": [[error.where, error.reason] for _, looks in found for error in looks.broken],
    }
    write_json(path.with_suffix(".json"), document)  # last: its presence says "complete"


def _computed(looks: Looks, recipe: Recipe, device: torch.device) -> tuple[dict[str, Tensor], Looks]:
    """A few examples' tensors, and what was seen of them without the pictures. In full precision, whatever training
    uses."""
    count, views = looks.images.shape[:2]
    images = to_tensor(looks.images.reshape(-1, *looks.images.shape[2:]), device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        encoded = recipe.encode(images)
        tensors = {"encoded": encoded.view(count, views, *encoded.shape[1:]).cpu()}
        if recipe.text is not None:
            text = recipe.text([caption for own in looks.captions for caption in own])
            tensors |= _flat(text.to("cpu"))
    return tensors, replace(looks, images=np.empty(0, np.uint8))


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.safetensors"


def _flat(text: TextFeatures) -> dict[str, Tensor]:
    """Features without their padding: the words of all captions one after another, and how many each has."""
    positions = torch.arange(1, text.mask.shape[1] + 1)
    lengths = (text.mask * positions).amax(1).clamp_min(1)
    kept = positions <= lengths[:, None]
    flat = {"sentence": text.sentence, "lengths": lengths, "words": text.words[kept], "mask": text.mask[kept]}
    return flat | {f"extra.{name}": value for name, value in text.extras.items()}


class Store(TorchDataset[HostBatch]):
    """A complete store, read as the loader reads a data set; files are mapped into memory, not read whole. broken: the
    examples in whose place others are stored."""

    def __init__(self, folder: Path, seed: int) -> None:
        """UserError if a byte of it is not what it was."""
        self._seed = seed
        verify(folder, f"stored features {folder}")
        self._parts = [_StoredPart(path) for path in sorted(folder.glob("part-*.safetensors"))]
        self.broken = tuple(error for part in self._parts for error in part.broken)

    def __getitem__(self, batch: Sequence[Visit]) -> HostBatch:
        rows = [self._row(visit) for visit in batch]
        texts = [row.text for row in rows if row.text is not None]
        captions = tuple(row.caption for row in rows)
        return HostBatch(
            np.empty((len(batch), 0, 0, 3), np.uint8), captions, tuple(row.key for row in rows), {},
            torch.stack([row.encoded for row in rows]), TextFeatures.cat(texts) if texts else None,
        )  # fmt: skip

    def _row(self, visit: Visit) -> _Row:
        part = self._parts[visit.index // PART]
        return part.row(visit.index % PART, visit.epoch, visit_stream(self._seed, visit))


@dataclass(frozen=True)
class _Row:
    key: str
    caption: str
    encoded: Tensor
    text: TextFeatures | None


class _Listing(pydantic.BaseModel):
    keys: list[str]
    captions: list[Annotated[list[str], pydantic.Field(min_length=1)]]
    broken: list[tuple[str, str]] = []


def _listing(document: object, path: Path) -> _Listing:
    """What a part's JSON tells of it. UserError if it does not."""
    try:
        return _Listing.model_validate(document)
    except pydantic.ValidationError:
        raise UserError(f"stored features {path.parent}: {path.stem}.json is no listing: remove the folder") from None


class _StoredPart:
    def __init__(self, path: Path) -> None:
        what = f"stored features {path.parent}"
        self._tensors = load_tensors(path, what)
        listing = _listing(read_json(path.with_suffix(".json"), what), path)
        self._keys, self._captions = listing.keys, listing.captions
        self.broken = [BrokenExample(where, reason) for where, reason in listing.broken]
        self._first = [0, *np.cumsum([len(own) for own in self._captions]).tolist()]
        lengths = self._tensors.get("lengths")
        self._begin = None if lengths is None else [0, *torch.cumsum(lengths, 0).tolist()]
        if not self._fits():
            raise UserError(f"{what}: {path.name} and its listing do not belong together: remove the folder")

    def _fits(self) -> bool:
        """Whether there are as many rows of everything as there are examples, captions and words."""
        tensors, captions = self._tensors, self._first[-1]
        rows = {"encoded": len(self._keys)}
        if self._begin is not None:
            rows |= dict.fromkeys(["sentence", "lengths", *(n for n in tensors if n.startswith("extra."))], captions)
            rows |= {"words": self._begin[-1], "mask": self._begin[-1]}
        return len(self._keys) == len(self._captions) and all(
            name in tensors and tensors[name].dim() and len(tensors[name]) == count for name, count in rows.items()
        )

    def row(self, index: int, epoch: int, stream: np.random.Generator) -> _Row:
        """An example, with the caption that a visit to the data set itself would have chosen."""
        views, own = self._tensors["encoded"][index], self._captions[index]
        choice = int(stream.integers(len(own)))
        text = self._text(self._first[index] + choice, own[choice]) if self._begin else None
        return _Row(self._keys[index], own[choice], views[epoch % len(views)], text)

    def _text(self, number: int, caption: str) -> TextFeatures:
        assert self._begin is not None
        tensors, words = self._tensors, slice(self._begin[number], self._begin[number + 1])
        extras = {n.removeprefix("extra."): t[number][None] for n, t in tensors.items() if n.startswith("extra.")}
        return TextFeatures(
            tensors["sentence"][number][None], tensors["words"][words][None], tensors["mask"][words][None], (caption,),
            extras,
        )  # fmt: skip
