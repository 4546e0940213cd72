"""The captions of a benchmark, and the real pictures that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from t2i.benchmarks.features import batches
from t2i.core.data import Dataset, Example, SoundDataset
from t2i.core.errors import UserError
from t2i.core.logging import note
from t2i.core.registry import registry
from t2i.core.runs import chosen, open_dataset
from t2i.core.scoring import Benchmark, Pictures, PromptSet


def open_data(benchmark: Benchmark, split: str, own: dict[str, Any], folder: str | None) -> Dataset:
    """A split of the benchmark's data set, with `own` settings laid over the benchmark's."""
    spec = registry().datasets[benchmark.dataset]
    if spec.needs_dir and folder is None:
        raise UserError(
            f"benchmark '{benchmark.name}' needs the data set '{benchmark.dataset}': say where it is with --data-dir"
        )
    if split not in spec.splits:
        raise UserError(f"data set '{spec.name}' has no split '{split}'; it has {', '.join(spec.splits)}")
    place = {} if folder is None else {"dir": folder}
    settings = {**benchmark.data, **own, **place, "image_size": benchmark.image_size}
    data = open_dataset(chosen(registry().datasets, spec.name, settings, "data set"), split)
    data.prepare(note)
    return SoundDataset(data, note)


@dataclass(frozen=True)
class CaptionSet:
    """A prompt set with its captions and its data. other: where real pictures other than the reference come from."""

    prompts: PromptSet
    data: Dataset
    captions: tuple[str, ...]
    other: Dataset
    other_start: int
    source: str

    @property
    def has_variants(self) -> bool:
        return self.data.variant(0, 1) is not None

    def real(self, index: int, sample: int) -> Example | None:
        """Another real picture than the reference's for caption `index`; `sample` counts from 0. Where the data set
        has but one picture a caption, it is another example with a caption of its own, and there is one sample."""
        if self.has_variants:
            return self.data.variant(index, sample + 1)
        return self.other[self.other_start + index] if sample == 0 else None


def caption_set(benchmark: Benchmark, prompts: PromptSet, folder: str | None) -> CaptionSet:
    """Reads the captions. UserError if the split is too short."""
    data = open_data(benchmark, prompts.split, dict(prompts.data), folder)
    needed = max(prompts.count, benchmark.reference if prompts.headline else 0)
    if not data.endless and len(data) < needed:
        raise UserError(
            f"benchmark '{benchmark.name}' needs {needed} examples of '{benchmark.dataset}', split '{prompts.split}', "
            f"but there are {len(data)}: give --samples {len(data)} or a complete data set"
        )
    captions = tuple(data.captions(index)[0] for index in range(prompts.count))
    return CaptionSet(prompts, data, captions, *_other(benchmark, prompts, data, needed, folder))


def _other(
    benchmark: Benchmark, prompts: PromptSet, data: Dataset, needed: int, folder: str | None
) -> tuple[Dataset, int, str]:
    """Where other real pictures come from, the best there is: (data, first index, in words)."""
    if data.variant(0, 1) is not None:
        return data, 0, "other pictures of the same captions"
    if data.endless or len(data) >= needed + prompts.count:
        return data, needed, f"the next {prompts.count} examples of split '{prompts.split}', with their own captions"
    if prompts.split != "train" and "train" in registry().datasets[benchmark.dataset].splits:
        train = open_data(benchmark, "train", dict(prompts.data), folder)
        if train.endless or len(train) >= prompts.count:
            return train, 0, f"the first {prompts.count} examples of split 'train', with their own captions"
    return data, 0, "the reference pictures themselves, for want of others"


def real_pictures(captions: CaptionSet, count: int, samples: int) -> Iterator[Pictures]:
    """Real pictures of the first `count` captions, `samples` of each: the ceiling of every score."""
    found = ((index, captions.real(index, sample)) for index in range(count) for sample in range(samples))
    yield from _stream((index, example.image, example.captions[0]) for index, example in found if example)


def wrong_pictures(captions: CaptionSet, count: int, samples: int) -> Iterator[Pictures]:
    """Real pictures of the wrong captions, the floor: caption i gets those that belong to i + 1, i + 2, ..."""
    asked = [example.captions[0] if (example := captions.real(i, 0)) else "" for i in range(count)]
    yield from _stream(
        (index, example.image, asked[index])
        for index in range(count)
        for sample in range(samples)
        if (example := captions.real((index + 1 + sample) % count, 0))
    )


def _stream(found: Iterator[tuple[int, np.ndarray, str]]) -> Iterator[Pictures]:
    return map(_pictures, batches(found))


def _pictures(held: list[tuple[int, np.ndarray, str]]) -> Pictures:
    groups, images, captions = zip(*held, strict=True)
    return Pictures(np.stack(images), captions, groups)
