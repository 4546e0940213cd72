"""The captions of a benchmark, and the real images that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from t2i.benchmarks.run.caption_choice import Chosen
from t2i.benchmarks.score.extraction import batches
from t2i.core.errors import UserError
from t2i.core.interfaces.broken import SoundDataset
from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.interfaces.scoring import Benchmark, ImageBatch, PromptSet
from t2i.core.io.terminal import note
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset

KEPT = 64 * 2**20
"""Most bytes of real images that a caption set keeps."""


def open_data(benchmark: Benchmark, split: str, own: dict[str, Any], folder: str | None) -> Dataset:
    """Open a split of the benchmark's data set.

    Args:
        benchmark: The benchmark.
        split: Name of the split.
        own: Settings of the data set that override the benchmark's.
        folder: Folder of the data set. None: it needs none, or its settings name it.

    Returns:
        The split, prepared. Broken examples in it are reported, and the next sound example takes
        their place.

    Raises:
        UserError: The data set has no such split, or it cannot be opened.
    """
    spec = registry().datasets[benchmark.dataset]
    if split not in spec.splits:
        raise UserError(
            f"data set '{spec.name}' has no split '{split}'; it has {', '.join(spec.splits)}"
        )
    place = {} if folder is None else {"dir": folder}
    settings = {**benchmark.data, **own, **place, "image_size": benchmark.image_size}
    data = open_dataset(registry().datasets.choose(spec.name, settings, "data set"), split)
    data.prepare(note)
    return SoundDataset(data, note)


class _Kept:
    """Real images that were made before. The ceiling and the floor have many in common.

    Images that come when `KEPT` is reached are made anew each time.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], Example | None] = {}
        self._size = 0

    def get(self, key: tuple[int, int], make: Callable[[], Example | None]) -> Example | None:
        """Return the image of a key, and make it if it is not there."""
        if key in self._found:
            return self._found[key]
        example = make()
        size = 0 if example is None else example.image.nbytes
        if self._size + size <= KEPT:
            self._found[key], self._size = example, self._size + size
        return example


@dataclass(frozen=True)
class CaptionSet:
    """A prompt set with its captions and its data.

    Args:
        prompts: The prompt set.
        data: The examples whose captions are used, and whose images may be the reference.
        whole: The whole split that `data` was chosen from.
        captions: The captions, `prompts.count` of them; caption i is the first of example i of
            `data`.
        other: Where real images other than the reference come from, if captions have one image
            each.
        other_start: Index in `other` of the image that stands for caption 0.
        source: Description of the other real images, as the protocol records it.
    """

    prompts: PromptSet
    data: Dataset
    whole: Dataset
    captions: tuple[str, ...]
    other: Dataset
    other_start: int
    source: str

    @cached_property
    def has_variants(self) -> bool:
        """Whether the data set has several images of one caption."""
        return self.data.variant(0, 1) is not None

    def real(self, index: int, sample: int) -> Example | None:
        """Return a real image for a caption, other than the reference's if possible.

        Args:
            index: Number of the caption, from 0.
            sample: Number of the image, from 0.

        Returns:
            Another image of the same caption. If the data set has one image per caption, another
            example with its own caption, as sample 0 only. None if there is no such image.
        """
        return self._kept.get((index, sample), lambda: self._real(index, sample))

    def _real(self, index: int, sample: int) -> Example | None:
        if self.has_variants:
            return self.data.variant(index, sample + 1)
        place = self.other_start + index
        there = self.other.endless or place < len(self.other)
        return self.other[place] if sample == 0 and there else None

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept()

    def real_caption(self, index: int) -> str:
        """Return the caption that belongs to `real(index, 0)`.

        Args:
            index: Number of the caption in this set, from 0.

        Returns:
            The caption; empty if there is no such image.
        """
        if self.has_variants:
            return self.captions[index]
        place = self.other_start + index
        return (
            self.other.captions(place)[0] if self.other.endless or place < len(self.other) else ""
        )


def caption_set(benchmark: Benchmark, prompts: PromptSet, folder: str | None) -> CaptionSet:
    """Read the captions of a prompt set.

    Args:
        benchmark: The benchmark.
        prompts: One of its prompt sets.
        folder: Folder of the data set. None: it needs none.

    Returns:
        The captions with their data.

    Raises:
        UserError: The split is unknown, or has too few examples for the captions or the reference.
    """
    whole, data = _opened(benchmark, prompts, prompts.split, folder)
    fixed = benchmark.reference if isinstance(benchmark.reference, int) and prompts.headline else 0
    needed = max(prompts.count, fixed)
    if not data.endless and len(data) < needed:
        raise UserError(
            f"benchmark '{benchmark.name}' needs {needed} examples of '{benchmark.dataset}', "
            f"split '{prompts.split}', "
            f"but there are {len(data)}: give --samples {len(data)} or a complete data set"
        )
    captions = tuple(data.captions(index)[0] for index in range(prompts.count))
    return CaptionSet(
        prompts, data, whole, captions, *_other(benchmark, prompts, data, needed, folder)
    )


def _opened(
    benchmark: Benchmark, prompts: PromptSet, split: str, folder: str | None
) -> tuple[Dataset, Dataset]:
    """Open a split; return the whole of it, and what the prompt set chooses from it."""
    whole = open_data(benchmark, split, dict(prompts.data), folder)
    return whole, Chosen(whole, prompts.select) if prompts.select else whole


def _other(
    benchmark: Benchmark, prompts: PromptSet, data: Dataset, needed: int, folder: str | None
) -> tuple[Dataset, int, str]:
    """Find the best source of other real images: (data, first index, description).

    In this order: the split that the benchmark names, other images of the same captions, the next
    examples of the split, the split "train", and the reference itself if there is nothing else.
    """
    if benchmark.real:
        return _of_split(benchmark, prompts, data, folder)
    if data.variant(0, 1) is not None:
        # These texts are part of the protocol: another word would make old scores incomparable.
        return data, 0, "other pictures of the same captions"
    if data.endless or len(data) >= needed + prompts.count:
        return (
            data,
            needed,
            f"the next {prompts.count} examples of split '{prompts.split}', "
            "with their own captions",
        )
    if prompts.split != "train" and "train" in registry().datasets[benchmark.dataset].splits:
        train = open_data(benchmark, "train", dict(prompts.data), folder)
        if train.endless or len(train) >= prompts.count:
            return (
                train,
                0,
                f"the first {prompts.count} examples of split 'train', with their own captions",
            )
    return data, 0, "the reference pictures themselves, for want of others"


def _of_split(
    benchmark: Benchmark, prompts: PromptSet, data: Dataset, folder: str | None
) -> tuple[Dataset, int, str]:
    """Take other real images from the split that the benchmark names.

    There are as many as captions, or fewer if the split is shorter. If the folder lacks the split,
    the reference images are used.
    """
    try:
        _, other = _opened(benchmark, prompts, benchmark.real, folder)
    except UserError:
        return data, 0, f"the reference pictures themselves, for want of split '{benchmark.real}'"
    count = min(prompts.count, len(other))
    return other, 0, f"{count} examples of split '{benchmark.real}', with their own captions"


@dataclass(frozen=True)
class ReferenceImages:
    """The real images that generated ones are compared with.

    Args:
        data: The data set that holds them.
        count: Number of images, the first ones of `data`.
        about: Description of the images, as the protocol records it.
    """

    data: Dataset
    count: int
    about: str


def reference_of(benchmark: Benchmark, headline: CaptionSet) -> ReferenceImages:
    """Find the reference images of a benchmark.

    Args:
        benchmark: The benchmark; its field `reference` says which images to take.
        headline: Its headline set.

    Returns:
        The reference images.
    """
    split = f"split '{headline.prompts.split}'"
    if benchmark.reference == "all":
        return ReferenceImages(headline.whole, len(headline.whole), f"all pictures of {split}")
    if benchmark.reference == "captions":
        return ReferenceImages(
            headline.data, headline.prompts.count, f"the captions' own pictures, of {split}"
        )
    return ReferenceImages(headline.data, benchmark.reference, f"the first pictures of {split}")


@dataclass(frozen=True)
class ImageStream:
    """Images that can be produced by number.

    Args:
        count: Number of images.
        draw: Yields the images of a range within 0 to `count` - 1, in order and in batches. It may
            yield fewer, if some images do not exist.
        ready: Whether everything that must be kept of a range, besides its features, exists already
            (image files).
    """

    count: int
    draw: Callable[[range], Iterator[ImageBatch]]
    ready: Callable[[range], bool] = lambda part: True


def real_source(captions: CaptionSet, count: int, samples: int) -> ImageStream:
    """Make the stream of real images, whose scores are the ceiling.

    Args:
        captions: The captions.
        count: Number of captions, the first ones.
        samples: Images of each caption.

    Returns:
        The images, caption by caption, each with the caption of its own example. Images that do not
        exist are left out.
    """

    def draw(part: range) -> Iterator[ImageBatch]:
        found = ((index, captions.real(index, sample)) for index, sample in _pairs(part, samples))
        return _stream(
            (index, example.image, example.captions[0]) for index, example in found if example
        )

    return ImageStream(count * samples, draw)


def wrong_source(captions: CaptionSet, count: int, samples: int) -> ImageStream:
    """Make the stream of real images with wrong captions, whose scores are the floor.

    Args:
        captions: The captions.
        count: Number of captions, the first ones.
        samples: Images of each caption.

    Returns:
        The images, caption by caption: the caption of `real(i, 0)` gets the images i + 1, i + 2,
        ... (modulo `count`). Images that do not exist are left out.
    """

    def draw(part: range) -> Iterator[ImageBatch]:
        found = (
            (i, captions.real((i + 1 + sample) % count, 0)) for i, sample in _pairs(part, samples)
        )
        return _stream(
            (i, example.image, captions.real_caption(i)) for i, example in found if example
        )

    return ImageStream(count * samples, draw)


def _pairs(part: range, samples: int) -> Iterator[tuple[int, int]]:
    """Yield the (caption, sample) of each number, where numbers count caption by caption."""
    return (divmod(number, samples) for number in part)


def _stream(found: Iterable[tuple[int, np.ndarray, str]]) -> Iterator[ImageBatch]:
    """Group (caption's number, image, caption) into batches."""
    return map(_images, batches(found))


def _images(held: list[tuple[int, np.ndarray, str]]) -> ImageBatch:
    groups, images, captions = zip(*held, strict=True)
    return ImageBatch(np.stack(images), captions, groups)
