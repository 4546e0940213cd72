"""Compute the outputs of a stage's frozen networks for a data set once and store them.

`stored.py` reads them and describes the files. A part is complete or absent, so a run that is
killed computes only the missing parts when it is resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from filelock import FileLock
from torch import Tensor

from t2i.core.engine import stored
from t2i.core.engine.loader import Loader, Views
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.reading_ahead import Readable
from t2i.core.engine.stored import Store, part_file
from t2i.core.errors import UserError
from t2i.core.interfaces.broken import sound
from t2i.core.interfaces.dataset import BrokenExample, Dataset
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.visits import Visit
from t2i.core.io.images import to_tensor
from t2i.core.io.json_files import write_json
from t2i.core.io.locks import take_or_refuse
from t2i.core.io.sealed import MANIFEST, seal, verify
from t2i.core.io.tensors import save_tensors
from t2i.core.models.weights import owned_tensors, tensor_bytes
from t2i.core.settings import ModelConfig

PIXELS = 2**20  # of the images that are encoded at once
FORMAT = 1


@dataclass(frozen=True)
class EncodedExamples:
    """N examples, before or after they are encoded.

    Args:
        images: uint8 (N, V, H, W, 3), V views of each example; empty once they are encoded.
        captions: All captions of each example.
        keys: Key of each example.
        broken: Broken examples that were skipped.
    """

    images: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    broken: tuple[BrokenExample, ...]


class _AllViews(Readable[EncodedExamples]):
    """All views of each example; view v is the image that epoch v would show."""

    def __init__(self, dataset: Dataset, views: Views, count: int) -> None:
        self._dataset, self._views, self._count = dataset, views, count

    def __getitem__(self, batch: Sequence[Visit]) -> EncodedExamples:
        found = [sound(self._dataset, visit.index, patient=self.patient) for visit in batch]
        examples = [example for example, _ in found]
        images = [
            [self._views.look(example, Visit(view, visit.index))[1] for view in range(self._count)]
            for visit, example in zip(batch, examples, strict=True)
        ]
        captions, keys = tuple(e.captions for e in examples), tuple(e.key for e in examples)
        return EncodedExamples(
            np.array(images),
            captions,
            keys,
            tuple(error for _, passed in found for error in passed),
        )


@dataclass(frozen=True)
class Recipe:
    """How the outputs to store are computed.

    Args:
        settings: The stage's settings.
        encode: Encodes images (B, 3, H, W) as (B, ...).
        text: Encodes captions. None: the stage trains the text encoder, so no text features are
            stored.
        networks: The tensors on which both may depend, by full name.
    """

    settings: ModelConfig
    encode: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], TextFeatures] | None
    networks: Mapping[str, Tensor]

    @classmethod
    def of(cls, prepared: PreparedStage, settings: ModelConfig) -> Recipe:
        """Make the recipe of a stage.

        Args:
            prepared: The stage; its trainer must have `encode`.
            settings: The stage's settings.

        Returns:
            The recipe, which depends on all tensors of the model that the stage does not train.
        """
        model, encode = prepared.model, prepared.trainer.encode
        assert encode is not None
        parts = {"generator": model.generator, "text": model.text_encoder, "helpers": model.helpers}
        tensors = {
            f"{part}.{n}": t
            for part, module in parts.items()
            for n, t in owned_tensors(module).items()
        }
        trained = prepared.trained()
        fixed = {name: tensor for name, tensor in tensors.items() if name not in trained}
        return cls(
            settings, encode, None if prepared.encoder_trains else model.text_encoder.encode, fixed
        )

    def key(self, dataset: Dataset) -> str:
        """Compute the name of the store, which differs wherever its content may differ.

        Args:
            dataset: The data set.

        Returns:
            24 hexadecimal digits: a hash of data, settings, seed and networks.
        """
        hashed = {
            "format": FORMAT,
            "data": dataset.version(),
            "image_size": self.settings.image_size,
            "augment": self.settings.augment.model_dump(),
            "views": self.settings.cache_views,
            "seed": self.settings.seed,
            "text": self.text is not None,
        }
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode())
        for name in sorted(self.networks):
            digest.update(name.encode() + tensor_bytes(self.networks[name]))
        return digest.hexdigest()[:24]


def obtain(
    root: Path,
    dataset: Dataset,
    views: Views,
    recipe: Recipe,
    accelerator: Accelerator,
    say: Callable[[str], None],
) -> Store:
    """Return the store of a recipe, after computing the parts that are missing.

    All processes must call this together; each computes some of the parts. A damaged store is
    removed and computed anew.

    Args:
        root: Folder that holds the stores.
        dataset: The data set.
        views: The same data set, augmented.
        recipe: How the outputs are computed.
        accelerator: The run's processes.
        say: Takes a line of progress after each round of parts, in every process at the same point,
            so that it may stop them all.

    Returns:
        The complete store.

    Raises:
        UserError: Another run is filling the same store, or examples of the data set are at fault.
    """
    folder = root / recipe.key(dataset)
    lock = FileLock(root / f".{folder.name}.lock")
    if accelerator.is_main_process:
        root.mkdir(parents=True, exist_ok=True)
        refusal = f"{folder} is being filled by another run: wait for it, or set another cache_dir"
        take_or_refuse(lock, refusal)
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
    folder: Path,
    dataset: Dataset,
    views: Views,
    recipe: Recipe,
    accelerator: Accelerator,
    say: Callable[[str], None],
) -> None:
    """Compute the missing parts, each in one of the processes, and seal the store."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, count = -(-len(dataset) // stored.PART), recipe.settings.cache_views
    missing = [n for n in range(parts) if not part_file(folder, n).with_suffix(".json").exists()]
    accelerator.wait_for_everyone()  # before anyone writes
    examples, world = _AllViews(dataset, views, count), accelerator.num_processes
    say(f"storing {count} view{'s' * (count > 1)} of {len(dataset)} images in {folder}")
    for begin in range(0, len(missing), world):
        mine = missing[begin : begin + world][accelerator.process_index :][:1]
        for number in mine:
            indexes = range(number * stored.PART, min((number + 1) * stored.PART, len(dataset)))
            _write_part(part_file(folder, number), examples, indexes, recipe, accelerator.device)
        say(f"stored {min((missing[begin] + world) * stored.PART, len(dataset))} of {len(dataset)}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for litter in folder.glob("*.tmp"):
            litter.unlink()
        seal(folder)
    accelerator.wait_for_everyone()


def _write_part(
    path: Path, examples: _AllViews, indexes: range, recipe: Recipe, device: torch.device
) -> None:
    size = max(1, min(64, PIXELS // recipe.settings.image_size**2))
    groups = [indexes[i : i + size] for i in range(0, len(indexes), size)]
    loader = Loader(
        examples,
        iter([Visit(0, index) for index in group] for group in groups),
        recipe.settings.workers,
    )
    try:
        found = [_computed(next(loader), recipe, device) for _ in groups]
    finally:
        loader.close()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_tensors(
        temporary,
        {name: torch.cat([tensors[name] for tensors, _ in found]) for name in found[0][0]},
    )
    os.replace(temporary, path)
    document = {
        "keys": [key for _, rows in found for key in rows.keys],
        "captions": [list(own) for _, rows in found for own in rows.captions],
        "broken": [[error.where, error.reason] for _, rows in found for error in rows.broken],
    }
    write_json(path.with_suffix(".json"), document)  # last: its presence marks a complete part


def _computed(
    rows: EncodedExamples, recipe: Recipe, device: torch.device
) -> tuple[dict[str, Tensor], EncodedExamples]:
    """Encode a few examples, and return their tensors and the examples without images.

    It runs in full precision, whichever precision training uses.
    """
    count, views = rows.images.shape[:2]
    images = to_tensor(rows.images.reshape(-1, *rows.images.shape[2:]), device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        encoded = recipe.encode(images)
        tensors = {"encoded": encoded.view(count, views, *encoded.shape[1:]).cpu()}
        if recipe.text is not None:
            text = recipe.text([caption for own in rows.captions for caption in own])
            tensors |= _flat(text.to("cpu"))
    return tensors, replace(rows, images=np.empty(0, np.uint8))


def _flat(text: TextFeatures) -> dict[str, Tensor]:
    """Remove the padding of text features.

    The words of all captions follow one another; "lengths" holds the number of each caption's.
    """
    positions = torch.arange(1, text.mask.shape[1] + 1)
    lengths = (text.mask * positions).amax(1).clamp_min(1)
    kept = positions <= lengths[:, None]
    flat = {
        "sentence": text.sentence,
        "lengths": lengths,
        "words": text.words[kept],
        "mask": text.mask[kept],
    }
    return flat | {f"extra.{name}": value for name, value in text.extras.items()}
