"""Real images that several rows have in common are made once."""

import numpy as np

from t2i.benchmarks.run import caption_sets
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_samples
from t2i.core.interfaces.dataset import Example


def test_images_are_kept_up_to_a_size(monkeypatch):
    monkeypatch.setattr(caption_sets, "KEPT", 250)
    kept, made = caption_sets._Kept(), []

    def get(index):
        def make():
            made.append(index)
            return Example(np.full((6, 6, 3), index, np.uint8), ("",), "") if index else None

        found = kept.get((index, 0), make)
        return None if found is None else int(found.image[0, 0, 0])

    assert [get(n) for n in (1, 2, 3, 0, 1, 2, 3, 0)] == [1, 2, 3, None, 1, 2, 3, None]
    assert made == [1, 2, 3, 0, 3]  # 108 bytes each: the third has no room


def test_ceiling_and_floor_share_the_images_of_a_caption():
    benchmark = with_samples(find_benchmark("shapes", None), 4)
    captions = caption_sets.caption_set(benchmark, benchmark.prompts[0], None)
    first, second = captions.real(2, 0), captions.real(2, 1)
    assert captions.real(2, 0) is first
    assert first.captions == second.captions
    assert not np.array_equal(first.image, second.image)
