"""The features of a row's images, kept in parts until the row is finished.

A command that was killed continues with the missing parts, and several processes share them.

OUT/partial/ROW/key.json     everything that the parts depend on; parts with another key are deleted
OUT/partial/ROW/SET/00003/   a sealed folder: features.safetensors and captions.json of CHUNK images

Parts hold features, not images. If a metric reads the images themselves (one without features),
they are kept as well, uncompressed. Scores are always computed from the parts, read in order, so
they depend neither on the number of processes nor on the number of sessions.
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
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.parts import ranges
from t2i.core.io.processes import Group
from t2i.core.io.sealed import intact, sealed
from t2i.core.io.tensors import load_tensors, save_tensors

CHUNK = 256
"""Images in a part: whole batches of a sampler, and minutes of work at most."""

KINDS = ("features", "text_features")
"""The fields of `ImageBatch` that hold features by name."""

Look = Callable[[ImageBatch], ImageBatch]
"""A function that adds the features to a batch."""


class Parts:
    """The parts of one row.

    Args:
        folder: Folder of the parts.
        key: Everything that the parts depend on, as JSON. Parts with another key are deleted.
        group: The processes that share the work. All of them call the same methods.

    Attributes:
        fresh: Whether there were no parts with this key yet.
        filled: Number of images of the sets that `fill` has been called for.
        clock: Seconds spent on sampling the images that `read` has yielded, and their number.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], group: Group) -> None:
        self.folder, self.group, self.clock, self.filled = folder, group, Clock(), 0
        self.fresh = group.first(lambda: self._open(dict(key)))

    def _open(self, key: dict[str, Any]) -> bool:
        """Return whether there are no parts with this key; if so, delete others and write it."""
        file, key = self.folder / "key.json", {**key, "chunk": CHUNK}
        if file.is_file() and _document(file) == key:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        write_json(file, key)
        return True

    def _place(self, where: str, number: int) -> Path:
        return self.folder / where / f"{number:05d}"

    def fill(
        self,
        where: str,
        source: ImageStream,
        look: Look,
        keep_images: bool,
        count: Callable[[int, int], None],
    ) -> float:
        """Make the missing parts of a set of images; each process makes its share.

        Args:
            where: Name of the set's folder.
            source: The images of the set.
            look: Adds the features to a batch.
            keep_images: Whether the images are kept along with their features.
            count: Called after each batch with (done, total) images of this process's share.

        Returns:
            Seconds that this process spent on sampling the images that were missing.
        """
        parts = dict(enumerate(ranges(source.count, CHUNK)))
        missing = self.group.first(
            lambda: [n for n, part in parts.items() if not self._there(where, n, source, part)]
        )
        mine = missing[self.group.rank :: self.group.size]
        total, done, whole = sum(len(parts[number]) for number in mine), 0, 0.0
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
            whole += seconds
        self.group.wait()
        self.filled += source.count
        return whole

    def _there(self, where: str, number: int, source: ImageStream, part: range) -> bool:
        place = self._place(where, number)
        return intact(place) and _is_part(place, len(part)) and source.ready(part)

    def read(self, where: str, source: ImageStream) -> Iterator[ImageBatch]:
        """Read the parts of a set of images, and add their sampling time to `clock`.

        Args:
            where: Name of the set's folder.
            source: The images of the set, whose parts have all been made.

        Yields:
            A batch for each part, in order, with features; `images` is empty unless the images were
            kept. Parts without images are skipped.
        """
        for number, _ in enumerate(ranges(source.count, CHUNK)):
            folder = self._place(where, number)
            tensors = load_tensors(folder / "features.safetensors", f"part {folder}")
            self.clock.seconds += float(tensors.pop("seconds"))
            self.clock.images += len(tensors["groups"])
            if len(tensors["groups"]):
                yield _images(tensors, read_json(folder / "captions.json", f"part {folder}"))


def remove_parts(folder: Path) -> None:
    """Delete the parts of a row, if there are any, and the folder above if it is empty then.

    Args:
        folder: Folder of the parts.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _document(file: Path) -> Any:
    try:
        return read_json(file, "key")
    except UserError:
        return None


def _is_part(folder: Path, most: int) -> bool:
    """Tell whether a folder holds what `_save` writes of at most so many images."""
    try:
        tensors = load_tensors(folder / "features.safetensors", "part")
        captions = read_json(folder / "captions.json", "part")
    except UserError:
        return False
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        return False
    count, missing = len(captions), torch.zeros(0, 0)
    groups, seconds, images = (tensors.pop(n, missing) for n in ("groups", "seconds", "images"))
    return (
        count <= most
        and (groups.shape, groups.dtype) == ((count,), torch.int64)
        and seconds.shape == () and bool(seconds.isfinite()) and bool(seconds >= 0)
        and (len(images) == 0 or (len(images) == count and images.dtype == torch.uint8))
        and all(t.ndim == 2 and len(t) == count and t.isfinite().all() for t in tensors.values())
    )  # fmt: skip


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
        tensors["images"].numpy(),
        tuple(captions),
        tuple(tensors["groups"].tolist()),
        features=found["features"],
        text_features=found["text_features"],
    )
