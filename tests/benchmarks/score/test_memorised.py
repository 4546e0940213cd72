"""The metric `memorised`, on features whose answer is known."""

import numpy as np
import pytest
import torch

from t2i.benchmarks.score.metrics.memorised import MANY, MemorisedConfig, build, nearest
from t2i.core.interfaces.scoring import ImageBatch

NONE = np.zeros((0, 0, 0, 3), np.uint8)


def drawn(seed, count):
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


def scored(samples, training, unseen):
    metric = build(MemorisedConfig(features="f"))
    metric.update_reference(unseen)
    for part in torch.split(training, 70):
        metric.update_training(part)
    numbers = tuple(range(len(samples)))
    metric.update(ImageBatch(NONE, ("",) * len(samples), numbers, {"f": samples}))
    return metric, metric.compute()


@pytest.mark.parametrize("copies", [0, 20, 80])
def test_copies_are_counted(copies):
    training, unseen = drawn(1, 200), drawn(2, 40)
    samples = torch.cat([training[:copies] + 0.05 * drawn(3, copies), drawn(4, 80 - copies)])
    metric, scores = scored(samples, training, unseen)
    assert scores["memorised"] == pytest.approx(100 * copies / 80)
    low, high = metric.intervals()["memorised"]
    assert low <= scores["memorised"] <= high
    assert bool(metric.warnings(scores, None)) == (scores["memorised"] >= MANY)
    if copies == 0:
        assert scores["train_distance"] == pytest.approx(1, abs=0.05)
    if copies == 80:
        assert scores["train_distance"] < 0.1


def test_the_mean_image_is_no_copy():
    """A blurred mean is nearer to all training images than real images are, but copies none."""
    training = drawn(1, 200)
    _, scores = scored(training.mean(0, keepdim=True).repeat(10, 1), training, drawn(2, 40))
    assert scores["memorised"] == 0
    assert 0.5 < scores["train_distance"] < 1


def test_the_nearest_image_is_found():
    training = drawn(1, 50)
    distances, places = nearest(training[[7, 3]] + 1e-3, training)
    assert places.tolist() == [7, 3]
    assert distances.tolist() == pytest.approx([1e-3 * 32**0.5] * 2, rel=1e-3)
