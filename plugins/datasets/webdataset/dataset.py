"""The data set `webdataset`.

Indexes count through the examples of all shards. Training visits the examples window by window.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t2i.core.errors import UserError, is_away
from t2i.core.interfaces.dataset import (
    BrokenExample,
    Contents,
    Dataset,
    Example,
    Original,
    Written,
)
from t2i.core.interfaces.noise import random_stream
from t2i.core.io.images import decode, original
from t2i.plugins.common.images.splits import in_val, safe_share
from t2i.plugins.datasets.webdataset.captions import found_key, of_json, of_text
from t2i.plugins.datasets.webdataset.config import WebDatasetConfig
from t2i.plugins.datasets.webdataset.counts import Ahead, counts
from t2i.plugins.datasets.webdataset.grouping import (
    LARGEST,
    PROBLEMS,
    SEVERAL,
    told_endings,
    usable,
)
from t2i.plugins.datasets.webdataset.names import find
from t2i.plugins.datasets.webdataset.shards import LocalShard, RemoteShard, Shard

FORMAT = 1  # of the fingerprint; to be raised whenever the same shards give other examples
WORDS = 100_000  # number of examples from whose captions a vocabulary is made
TABLES = frozenset({"csv", "tsv", "jsonl", "parquet"})  # endings of tables of captions
TRIED = 20  # examples whose captions are read when the data set is opened


class WebDataset(Dataset):
    """The examples of tar shards.

    Args:
        config: Settings.
        shards: The shards.
        share: (fraction of the examples that is val's, whether this is val), if every shard is
            split by a hash of its examples' keys. None: all examples are of this split.
        left: Number of files that are no shards of this data set, by reason.
    """

    def __init__(
        self,
        config: WebDatasetConfig,
        shards: list[Shard],
        share: tuple[float, bool] | None,
        left: Counter[str],
    ) -> None:
        self.image_size, self.max_broken = config.image_size, config.max_broken
        self.shards, self._share, self._window = shards, share, config.window
        self._encoding, self._caption_key = config.encoding, config.caption_key
        self._square: dict[str, Any] = config.model_dump(include={"fit", "max_pixels"})
        self._own = config.model_dump(
            include={"fit", "max_pixels", "caption_key", "encoding"}, exclude_defaults=True
        )
        self._left = left
        self._indexes: OrderedDict[int, np.ndarray] = OrderedDict()
        self._ahead = Ahead()
        self._times: dict[Path, int] = {}  # when local shards were written, in ns since 1970
        sizes = (
            counts(shards)
            if share is None
            else [len(self._index(number)) for number in range(len(shards))]
        )
        self._sizes = np.array(sizes, np.int64)
        self._firsts = np.concatenate([[0], np.cumsum(self._sizes)])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_indexes": OrderedDict(), "_ahead": Ahead()}

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> Example:
        shard, row, where = self._find(index)
        captions = self._captions(shard, row, where)
        content = self._read(shard, row, "image", where)
        image = decode(content, self.image_size, **self._square, where=where)
        return Example(image, captions, f"{shard.stem}/{_key(row)}")

    def captions(self, index: int) -> tuple[str, ...]:
        """Read the captions of one example, without the image.

        Args:
            index: Index of the example.

        Returns:
            At least one caption.

        Raises:
            BrokenExample: It has no caption, or cannot be read.
        """
        return self._captions(*self._find(index))

    def original(self, index: int) -> Original:
        shard, row, where = self._find(index)
        return original(self._read(shard, row, "image", where), where, **self._square)

    def vocabulary(self) -> Iterable[str]:
        """Read the captions of the first WORDS examples; reading all of a large set takes hours.

        Yields:
            The captions.
        """
        for index in range(min(WORDS, len(self))):
            try:
                yield from self.captions(index)
            except BrokenExample:
                continue

    def fingerprint(self) -> str:
        """Return a hash of the shards, the split and the image size.

        Of each shard it covers the name (or URL), the number of examples and, if it is local, the
        size. Settings that change the examples are in it where they are not the default.
        """
        told = [
            [*shard.identity(), int(size)]
            for shard, size in zip(self.shards, self._sizes, strict=True)
        ]
        own = [self._own, *self.shards[0].choice]
        document = [FORMAT, self.image_size, self._share, told, *([own] if any(own) else [])]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def written(self) -> Written | None:
        files = [shard.file for shard in self.shards if isinstance(shard, LocalShard)]
        self._times = {file: file.stat().st_mtime_ns for file in files if file.exists()}
        return Written.of(files) if files else None

    def _refuse_if_away_or_written(self, shard: Shard, where: str) -> None:
        """Raise BrokenExample if a local shard is away, or was written since it was looked at."""
        if not isinstance(shard, LocalShard):
            return
        try:
            now = shard.file.stat().st_mtime_ns
        except OSError as error:
            raise BrokenExample(where, str(error.strerror), is_away(error)) from None
        if now != self._times.get(shard.file, now):
            raise BrokenExample(where, "the shard is written to while it is in use")

    def contents(self) -> Contents:
        left, local = Counter(self._left), [s for s in self.shards if isinstance(s, LocalShard)]
        indexes = [shard.index() for shard in local]
        for index in indexes:
            left.update(index.left)
        names = [shard.name for shard in self.shards]
        found = [f"shards: {len(names)} ({names[0]}{' ...' if names[1:] else ''})"]
        if local:
            found.append(f"endings of their members: {told_endings(indexes)}")
        if key := self._found_key():
            found.append(f"captions: key '{key}' of .json")
        return Contents(tuple(found), dict(left))

    # --- the order of training --------------------------------------------------------------------

    def order(self, seed: int, epoch: int, start: int = 0) -> Iterator[int]:
        """List the indexes of one epoch in the order of training.

        The shards come in an order of the epoch's own; then the examples of `window` shards at a
        time are permuted. Windows before `start` are skipped without reading. While a window is
        visited, the shards of the next one are downloaded.

        Args:
            seed: Seed of the order.
            epoch: Number of the epoch.
            start: Position in the epoch to start from.

        Yields:
            The indexes.
        """
        shards = random_stream(seed, "shards", epoch).permutation(len(self.shards))
        windows = [shards[at : at + self._window] for at in range(0, len(shards), self._window)]
        for number, window in enumerate(windows):
            size = int(self._sizes[window].sum())
            if start >= size:
                start -= size
                continue
            self._ahead.bring(
                self.shards[shard] for shard in itertools.chain(window, *windows[number + 1 :][:1])
            )
            indexes = np.concatenate(
                [np.arange(self._firsts[shard], self._firsts[shard + 1]) for shard in window]
            )
            yield from (
                random_stream(seed, "order", epoch, number).permutation(indexes)[start:].tolist()
            )
            start = 0

    # --- one example ------------------------------------------------------------------------------

    def _find(self, index: int) -> tuple[Shard, np.void, str]:
        """Return the shard of an example, its row in the shard's index, and its name for errors.

        Raises:
            BrokenExample: Something is wrong with the example.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"webdataset: there is no example {index}: there are {len(self)}")
        number = int(np.searchsorted(self._firsts, index, "right")) - 1
        shard, rows, at = (
            self.shards[number],
            self._index(number),
            index - int(self._firsts[number]),
        )
        if at >= len(rows):
            raise BrokenExample(
                f"{shard.name}:{at}",
                f"the shard has {len(rows)} examples, fewer than expected",
            )
        row = rows[at]
        where = f"{shard.name}:{_key(row)}"
        if row["problem"]:
            part = ("image", "caption", "json")[int(row["part"])]
            raise BrokenExample(where, PROBLEMS[int(row["problem"])].format(part))
        return shard, row, where

    def _index(self, number: int) -> np.ndarray:
        """Return the rows of a shard that are of this split; those of recent shards are cached."""
        if number in self._indexes:
            self._indexes.move_to_end(number)
            return self._indexes[number]
        rows = self.shards[number].index().rows
        if self._share is not None:
            share, val = self._share
            rows = rows[[in_val(_key(row), share) == val for row in rows]] if len(rows) else rows
        self._indexes[number] = rows
        if len(self._indexes) > 2 * self._window + 2:
            self._indexes.popitem(last=False)
        return rows

    def _captions(self, shard: Shard, row: np.void, where: str) -> tuple[str, ...]:
        """Read the captions of a text, or else of a document; of the latter if a key is named."""
        captions: tuple[str, ...] = ()
        text, meta = row["text"][0] >= 0, row["meta"][0] >= 0
        if text and not (meta and self._caption_key):
            captions = of_text(self._read(shard, row, "text", where), where, self._encoding)
        if not captions and meta:
            content = self._read(shard, row, "meta", where)
            captions = of_json(content, where, self._encoding, self._caption_key)
        if not captions:
            raise BrokenExample(where, "no caption")
        return captions

    def _found_key(self) -> str:
        """Return the key that holds the caption of the first example here, if a .json has it."""
        shard = self.shards[0]
        if isinstance(shard, LocalShard):
            for row in self._index(0):
                if not row["problem"] and row["meta"][0] >= 0 and (
                    row["text"][0] < 0 or self._caption_key
                ):  # fmt: skip
                    content = self._read(shard, row, "meta", shard.name)
                    return found_key(content, self._encoding, self._caption_key)
        return ""

    def _read(self, shard: Shard, row: np.void, kind: str, where: str) -> bytes:
        """Read a member of a shard.

        The file is opened each time, so that processes share nothing.
        """
        self._refuse_if_away_or_written(shard, where)
        offset, size = (int(number) for number in row[kind])
        if offset < 0:
            raise BrokenExample(where, f"no {'image' if kind == 'image' else kind}")
        for _ in range(2):  # a downloaded shard may have been removed meanwhile, to make room
            try:
                with open(shard.path(), "rb") as file:
                    file.seek(offset)
                    content = file.read(min(size, LARGEST[kind]))
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = error.strerror or "cannot be read"
                raise BrokenExample(where, reason, is_away(error)) from None
            if len(content) == size:
                return content
            break
        raise BrokenExample(where, "the shard is gone or has changed since it was indexed")


def _key(row: np.void) -> str:
    """Return the key of an example."""
    return str(row["key"].decode("utf-8", "backslashreplace"))


def build(config: WebDatasetConfig, split: str) -> WebDataset:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val".

    Returns:
        The data set.

    Raises:
        UserError: The shards cannot be found or downloaded, none of their examples can be used, or
            they leave no example for the split.
    """
    _check_encoding(config)
    found = find(config)
    shards, share = found.shards, None
    kept = min(1, len(shards) - 1) if config.val_shards is None else config.val_shards
    if found.val:
        shards = found.val if split == "val" else shards
    elif kept >= len(shards):
        raise UserError(
            f"data set 'webdataset': val_shards = {kept} of {len(shards)} shards leaves none to "
            "train on"
        )
    elif kept:
        shards = shards[-kept:] if split == "val" else shards[:-kept]
    elif any(isinstance(shard, RemoteShard) for shard in shards) and len(shards) > 1:
        raise UserError(
            "data set 'webdataset': val_shards = 0 splits every shard, for which all of them would "
            "have to be downloaded first; set data.val_shards to 1 or more"
        )
    else:
        share = _share(config.val_share, shards, split == "val")
    _refuse_unusable(shards)
    dataset = WebDataset(config, shards, share, found.left)
    if not len(dataset):
        raise UserError(
            f"data set 'webdataset': split '{split}' is empty: there is no example in "
            f"{shards[0].name}{' and the others' if shards[1:] else ''}; see data.val_shards"
        )
    _refuse_without_captions(dataset)
    return dataset


def _check_encoding(config: WebDatasetConfig) -> None:
    """Raise an error if the encoding is none that Python knows."""
    if config.encoding:
        try:
            codecs.lookup(config.encoding)
        except LookupError:
            raise UserError(
                f"data.encoding = {config.encoding}: Python knows no such encoding; try utf-8, "
                "cp1252 or gbk"
            ) from None


def _share(share: float, shards: Sequence[Shard], val: bool) -> tuple[float, bool] | None:
    """Return the share of val, so changed that each split has an example; None: all is of both."""
    keys = [_key(row) for shard in shards for row in shard.index().rows]
    return (safe_share(keys, share), val) if len(set(keys)) > 1 else None


def _refuse_unusable(shards: Sequence[Shard]) -> None:
    """Raise an error if the shards are here, and no example has an image and a caption."""
    indexes = []
    for shard in shards:
        if not isinstance(shard, LocalShard):
            return
        indexes.append(shard.index())
        if usable(indexes[-1].rows).any():
            return
    reason, names = _lost([index.rows for index in indexes if len(index.rows)])
    remedy = f"say which with {' '.join(f'--set data.{name}=ENDING' for name in names)}"
    if not names:
        remedy = "an image and its caption need one name in one folder, such as a.jpg and a.txt"
    elif any(ending in TABLES for index in indexes for ending in index.endings):
        remedy += "; a table in a tar is not read: unpack the tar, and name its folder"
    others = " and the others" if shards[1:] else ""
    raise UserError(
        f"data set 'webdataset': {shards[0].name}{others}: {reason}; "
        f"endings found: {told_endings(indexes)}; {remedy}"
    )


def _lost(indexes: Sequence[np.ndarray]) -> tuple[str, list[str]]:
    """Say why no example can be used: (reason, settings that may mend it)."""
    kinds = {"image": ("image",), "caption": ("text", "meta")}
    lost = [
        name
        for name, fields in kinds.items()
        if not any((rows[kind][:, 0] >= 0).any() for rows in indexes for kind in fields)
    ]
    if lost:
        return " and ".join(f"no {name}" for name in lost) + " was found", lost
    several = [rows["part"][rows["problem"] == SEVERAL] for rows in indexes]
    many = [name for part, name in enumerate(kinds) if any((at == part).any() for at in several)]
    if many:
        return f"several members of an example could be the {' and the '.join(many)}", many
    return "no example has both an image and a caption", []


def _refuse_without_captions(dataset: WebDataset) -> None:
    """Raise an error if none of the first examples has a caption, and say what they have."""
    tried, last = 0, None
    if any(isinstance(shard, RemoteShard) for shard in dataset.shards):
        return
    for index in range(min(TRIED, len(dataset))):
        try:
            dataset.captions(index)
            return
        except BrokenExample as error:
            tried, last = tried + 1, error
    raise UserError(f"data set 'webdataset': none of the first {tried} examples is sound: {last}")
