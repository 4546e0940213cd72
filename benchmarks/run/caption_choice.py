"""Choose examples, and one caption of each, in the same way for everybody.

The choice is made by a hash. A random generator's stream may change with a new version of its
library, and the order of a data set may differ between copies of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from t2i.core.interfaces.dataset import Dataset, Example, Written


class Chosen(Dataset):
    """All examples of a data set in the order of a hash, each with one of its captions.

    The first N of them are a choice of N examples. A larger choice contains every smaller one.

    Examples are ordered by the SHA-256 of the key and all their captions (sorted, runs of white
    space replaced by one space). Each keeps the caption whose SHA-256, taken with the key, is
    least. Equal hashes keep the data set's order.

    Args:
        data: The data set. All its captions are read at once.
        key: Key of the hash. Another key gives another choice.
    """

    def __init__(self, data: Dataset, key: str) -> None:
        self.data, self.key, self.image_size = data, key, data.image_size
        every = [data.captions(index) for index in range(len(data))]
        self._places = sorted(
            range(len(data)), key=lambda index: _hash(key, sorted(map(_plain, every[index])))
        )
        self._captions = [
            min(every[index], key=lambda caption: _hash(key, [_plain(caption)]))
            for index in self._places
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        return self._with_caption(index, self.data[self._places[index]])

    def _with_caption(self, index: int, example: Example) -> Example:
        return Example(example.image, self.captions(index), example.key, example.extras)

    def captions(self, index: int) -> tuple[str, ...]:
        return (self._captions[index],)

    def variant(self, index: int, number: int) -> Example | None:
        example = self.data.variant(self._places[index], number)
        return example and self._with_caption(index, example)

    def fingerprint(self) -> str:
        return f"{self.data.fingerprint()}-{self.key}"

    def written(self) -> Written | None:
        return self.data.written()


def _plain(caption: str) -> str:
    """Replace each run of white space by one space."""
    return " ".join(caption.split())


def _hash(key: str, texts: Iterable[str]) -> bytes:
    return sha256("\n".join([key, *texts]).encode(errors="surrogatepass")).digest()
