"""What has been drawn of a row, kept in parts until the row is whole: a command that was killed goes on with the parts
that are missing, and several processes share them out.

OUT/partial/ROW/key.json         what the parts depend on; those of anything else are dropped
OUT/partial/ROW/SET/00003/       a sealed folder: features.safetensors and captions.json of CHUNK images

Features are kept, not images; but where a metric looks at the images themselves (one without features), they are
kept with them, as bytes. Scores are always computed from the parts, read in order: whoever made them, and in however
many sessions, they are the same.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.benchmarks.run.caption_sets import ImageStream
from t2i.benchmarks.run.timed_sampling import Clock
from t2i.benchmarks.score.extraction import rebatched
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.io.files import intact, load_tensors, read_json, save_tensors, sealed, write_json
from t2i.core.io.parts import ranges
from t2i.core.io.processes import Group

CHUNK = 256
"""Images in a part: whole batches of a sampler, and minutes of work at most."""

KINDS = ("features", "text_features")
"""The fields of `Images` that hold features by name."""

Look = Callable[[ImageBatch], ImageBatch]
"""Fills in the features of a batch."""


class Parts:
    """The parts of one row.

    folder: theirs. key: all that they depend on; parts that were made under another are dropped.
    clock: seconds spent on drawing the images that `read` has given.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], group: Group) -> None:
        self.folder, self.group, self.clock = folder, group, Clock()
        self.fresh = group.first(lambda: self._open(dict(key)))

    def _open(self, key: dict[str, Any]) -> bool:
        """Whether nothing had been begun under this key."""
        file, key = self.folder / "key.json", {**key, "chunk": CHUNK}
        if file.is_file() and _document(file) == key:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        write_json(file, key)
        return True

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _place(self, where: str, number: int) -> Path:
        return self.folder / where / f"{number:05d}"

    def fill(
        self,
        where: str,
        source: ImageStream,
        look: Look,
        keep_images: bool,
        count: Callable[[int, int], None],
    ) -> None:
        """Makes the parts that are missing, each process its share.

        Args:
            where: The set of images, as a folder's name.
            source: Its images.
            look: Fills in the features of a batch.
            keep_images: Whether the images themselves are kept with their features.
            count: Called with (done, total) images of this process's share.
        """
        parts = dict(enumerate(ranges(source.count, CHUNK)))
        missing = self.group.first(
            lambda: [n for n, part in parts.items() if not self._there(where, n, source, part)]
        )
        mine = missing[self.group.rank :: self.group.size]
        total, done = sum(len(parts[number]) for number in mine), 0
        for number in mine:
            held, seconds = [], 0.0
            started = time.perf_counter()
            for batch in rebatched(source.draw(parts[number])):
                seconds += time.perf_counter() - started
                done += len(batch.captions)
                count(done, total)
                seen = look(batch)
                held.append(seen if keep_images else _without_images(seen))
                started = time.perf_counter()
            _save(self._place(where, number), held, seconds)
        self.group.wait()

    def _there(self, where: str, number: int, source: ImageStream, part: range) -> bool:
        return intact(self._place(where, number)) and source.ready(part)

    def read(self, where: str, source: ImageStream) -> Iterator[ImageBatch]:
        """All images in order, by parts, with their features; `images` is empty unless they were kept."""
        for number, _ in enumerate(ranges(source.count, CHUNK)):
            folder = self._place(where, number)
            tensors = load_tensors(folder / "features.safetensors", f"part {folder}")
            self.clock.seconds += float(tensors.pop("seconds"))
            self.clock.images += len(tensors["groups"])
            if len(tensors["groups"]):
                yield _images(tensors, read_json(folder / "captions.json", f"part {folder}"))


def _document(file: Path) -> Any:
    try:
        return read_json(file, "key")
    except UserError:
        return None


def _without_images(images: ImageBatch) -> ImageBatch:
    return replace(images, images=np.zeros((0, 0, 0, 3), np.uint8))


def _save(folder: Path, held: Sequence[ImageBatch], seconds: float) -> None:
    tensors: dict[str, Tensor] = {
        "groups": torch.tensor(
            [group for images in held for group in images.groups], dtype=torch.int64
        ),
        "seconds": torch.tensor(seconds, dtype=torch.float64),
        "images": torch.cat(
            [torch.from_numpy(images.images) for images in held] or [torch.zeros(0)]
        ),
    }
    for kind in KINDS:
        for name in getattr(held[0], kind) if held else ():
            tensors[f"{kind}:{name}"] = torch.cat([getattr(images, kind)[name] for images in held])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with sealed(folder) as place:
        save_tensors(place / "features.safetensors", tensors)
        write_json(
            place / "captions.json", [caption for images in held for caption in images.captions]
        )


def _images(tensors: Mapping[str, Tensor], captions: Sequence[str]) -> ImageBatch:
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    for key, tensor in tensors.items():
        kind, colon, name = key.partition(":")
        if colon:
            found[kind][name] = tensor
    return ImageBatch(
        tensors["images"].numpy(), tuple(captions), tuple(tensors["groups"].tolist()), **found
    )
