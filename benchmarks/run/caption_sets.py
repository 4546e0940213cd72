"""The captions of a benchmark, and the real images that go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from t2i.benchmarks.run.caption_choice import Chosen
from t2i.benchmarks.score.extraction import batches
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset, Example, SoundDataset
from t2i.core.interfaces.scoring import Benchmark, ImageBatch, PromptSet
from t2i.core.io.terminal import note
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset


def open_data(benchmark: Benchmark, split: str, own: dict[str, Any], folder: str | None) -> Dataset:
    """A split of the benchmark's data set, with `own` settings laid over the benchmark's."""
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


@dataclass(frozen=True)
class CaptionSet:
    """A prompt set with its captions and its data. whole: the split that the data was chosen from. other: where real
    images other than the reference come from."""

    prompts: PromptSet
    data: Dataset
    whole: Dataset
    captions: tuple[str, ...]
    other: Dataset
    other_start: int
    source: str

    @property
    def has_variants(self) -> bool:
        return self.data.variant(0, 1) is not None

    def real(self, index: int, sample: int) -> Example | None:
        """Another real image than the reference's for caption `index`; `sample` counts from 0. Where the data set
        has but one image a caption, it is another example with a caption of its own, and there is one sample. None
        where there is none."""
        if self.has_variants:
            return self.data.variant(index, sample + 1)
        place = self.other_start + index
        there = self.other.endless or place < len(self.other)
        return self.other[place] if sample == 0 and there else None

    def real_caption(self, index: int) -> str:
        """The caption that belongs to `real(index, 0)`."""
        if self.has_variants:
            return self.captions[index]
        place = self.other_start + index
        return (
            self.other.captions(place)[0] if self.other.endless or place < len(self.other) else ""
        )


def caption_set(benchmark: Benchmark, prompts: PromptSet, folder: str | None) -> CaptionSet:
    """Reads the captions. UserError if the split is too short."""
    whole, data = _opened(benchmark, prompts, prompts.split, folder)
    fixed = benchmark.reference if isinstance(benchmark.reference, int) and prompts.headline else 0
    needed = max(prompts.count, fixed)
    if not data.endless and len(data) < needed:
        raise UserError(
            f"benchmark '{benchmark.name}' needs {needed} examples of '{benchmark.dataset}', split '{prompts.split}', "
            f"but there are {len(data)}: give --samples {len(data)} or a complete data set"
        )
    captions = tuple(data.captions(index)[0] for index in range(prompts.count))
    return CaptionSet(
        prompts, data, whole, captions, *_other(benchmark, prompts, data, needed, folder)
    )


def _opened(
    benchmark: Benchmark, prompts: PromptSet, split: str, folder: str | None
) -> tuple[Dataset, Dataset]:
    """A split as it is, and as the prompt set chooses from it."""
    whole = open_data(benchmark, split, dict(prompts.data), folder)
    return whole, Chosen(whole, prompts.select) if prompts.select else whole


def _other(
    benchmark: Benchmark, prompts: PromptSet, data: Dataset, needed: int, folder: str | None
) -> tuple[Dataset, int, str]:
    """Where other real images come from, the best there is: (data, first index, in words)."""
    if benchmark.real:
        return _of_split(benchmark, prompts, data, folder)
    if data.variant(0, 1) is not None:
        return data, 0, "other images of the same captions"
    if data.endless or len(data) >= needed + prompts.count:
        return (
            data,
            needed,
            f"the next {prompts.count} examples of split '{prompts.split}', with their own captions",
        )
    if prompts.split != "train" and "train" in registry().datasets[benchmark.dataset].splits:
        train = open_data(benchmark, "train", dict(prompts.data), folder)
        if train.endless or len(train) >= prompts.count:
            return (
                train,
                0,
                f"the first {prompts.count} examples of split 'train', with their own captions",
            )
    return data, 0, "the reference images themselves, for want of others"


def _of_split(
    benchmark: Benchmark, prompts: PromptSet, data: Dataset, folder: str | None
) -> tuple[Dataset, int, str]:
    """Real images of the split that the benchmark names, as many as there are captions, or fewer where it is shorter.
    A folder without that split has but the reference to offer."""
    try:
        _, other = _opened(benchmark, prompts, benchmark.real, folder)
    except UserError:
        return data, 0, f"the reference images themselves, for want of split '{benchmark.real}'"
    count = min(prompts.count, len(other))
    return other, 0, f"{count} examples of split '{benchmark.real}', with their own captions"


@dataclass(frozen=True)
class ReferenceImages:
    """The real images that distances are taken to: the first `count` of `data`. about: which they are."""

    data: Dataset
    count: int
    about: str


def reference_of(benchmark: Benchmark, headline: CaptionSet) -> ReferenceImages:
    """The reference that a benchmark names, of its headline set."""
    split = f"split '{headline.prompts.split}'"
    if benchmark.reference == "all":
        return ReferenceImages(headline.whole, len(headline.whole), f"all images of {split}")
    if benchmark.reference == "captions":
        return ReferenceImages(
            headline.data, headline.prompts.count, f"the captions' own images, of {split}"
        )
    return ReferenceImages(headline.data, benchmark.reference, f"the first images of {split}")


@dataclass(frozen=True)
class ImageStream:
    """Images that can be asked for by number: `draw(part)` gives those of a range within 0..count, in batches.

    ready: whether whatever is to be kept of a part, beside its features, is there.
    """

    count: int
    draw: Callable[[range], Iterator[ImageBatch]]
    ready: Callable[[range], bool] = lambda part: True


def real_source(captions: CaptionSet, count: int, samples: int) -> ImageStream:
    """Real images of the first `count` captions, `samples` of each: the ceiling of every score."""

    def draw(part: range) -> Iterator[ImageBatch]:
        found = ((index, captions.real(index, sample)) for index, sample in _pairs(part, samples))
        return _stream(
            (index, example.image, example.captions[0]) for index, example in found if example
        )

    return ImageStream(count * samples, draw)


def wrong_source(captions: CaptionSet, count: int, samples: int) -> ImageStream:
    """Real images of the wrong captions, the floor: caption i gets those that belong to i + 1, i + 2, ..."""

    def draw(part: range) -> Iterator[ImageBatch]:
        found = (
            (i, captions.real((i + 1 + sample) % count, 0)) for i, sample in _pairs(part, samples)
        )
        return _stream(
            (i, example.image, captions.real_caption(i)) for i, example in found if example
        )

    return ImageStream(count * samples, draw)


def _pairs(part: range, samples: int) -> Iterator[tuple[int, int]]:
    """(caption, sample) of each number, caption by caption."""
    return (divmod(number, samples) for number in part)


def _stream(found: Iterable[tuple[int, np.ndarray, str]]) -> Iterator[ImageBatch]:
    return map(_images, batches(found))


def _images(held: list[tuple[int, np.ndarray, str]]) -> ImageBatch:
    groups, images, captions = zip(*held, strict=True)
    return ImageBatch(np.stack(images), captions, groups)
