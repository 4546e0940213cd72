"""Read the stored outputs of a stage's frozen networks for a data set: latents and text features.

FOLDER/part-00000.safetensors   rows of PART consecutive examples
FOLDER/part-00000.json          their keys and captions, and the broken examples that were skipped
FOLDER/manifest.json            size and SHA-256 of each file; a store without it is not complete
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
import torch
from torch import Tensor

from t2i.core.engine.loader import HostBatch
from t2i.core.engine.reading_ahead import Readable
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.visits import Visit, visit_stream
from t2i.core.io.json_files import read_json
from t2i.core.io.sealed import verify
from t2i.core.io.tensors import load_tensors

PART = 2048
"""Examples in each file."""


def part_file(folder: Path, number: int) -> Path:
    """Return the path of a part's tensors.

    Args:
        folder: The store's folder.
        number: Number of the part, from 0.

    Returns:
        FOLDER/part-NUMBER.safetensors.
    """
    return folder / f"part-{number:05d}.safetensors"


class Store(Readable[HostBatch]):
    """A complete store, which a loader reads in place of the data set.

    `store[visits]` returns a whole micro-batch. The files are mapped into memory, not read whole.

    Args:
        folder: The store's folder.
        seed: Seed of the choice of captions.

    Attributes:
        broken: The broken examples that others replace in the store.

    Raises:
        UserError: A file is missing, damaged or of the wrong form.
    """

    def __init__(self, folder: Path, seed: int) -> None:
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
    """Check the JSON document of a part, and raise UserError if it has another form."""
    try:
        return _Listing.model_validate(document)
    except pydantic.ValidationError:
        raise UserError(
            f"stored features {path.parent}: {path.stem}.json is no listing: remove the folder"
        ) from None


class _StoredPart:
    """One part of a store: its tensors and its listing."""

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
            raise UserError(
                f"{what}: {path.name} and its listing do not belong together: remove the folder"
            )

    def _fits(self) -> bool:
        """Return whether each tensor has one row for each example, caption or word."""
        tensors, captions = self._tensors, self._first[-1]
        rows = {"encoded": len(self._keys)}
        if self._begin is not None:
            rows |= dict.fromkeys(
                ["sentence", "lengths", *(n for n in tensors if n.startswith("extra."))], captions
            )
            rows |= {"words": self._begin[-1], "mask": self._begin[-1]}
        return len(self._keys) == len(self._captions) and all(
            name in tensors and tensors[name].dim() and len(tensors[name]) == count
            for name, count in rows.items()
        )

    def row(self, index: int, epoch: int, stream: np.random.Generator) -> _Row:
        """Return an example, with the caption that a visit to the data set itself would choose."""
        views, own = self._tensors["encoded"][index], self._captions[index]
        choice = int(stream.integers(len(own)))
        text = self._text(self._first[index] + choice, own[choice]) if self._begin else None
        return _Row(self._keys[index], own[choice], views[epoch % len(views)], text)

    def _text(self, number: int, caption: str) -> TextFeatures:
        assert self._begin is not None
        tensors, words = self._tensors, slice(self._begin[number], self._begin[number + 1])
        extras = {
            n.removeprefix("extra."): t[number][None]
            for n, t in tensors.items()
            if n.startswith("extra.")
        }
        return TextFeatures(
            tensors["sentence"][number][None], tensors["words"][words][None],
            tensors["mask"][words][None], (caption,), extras,
        )  # fmt: skip
