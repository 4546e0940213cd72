"""`t2i score` by judges: one that reads images and captions apart, and one that reads them
together."""

import numpy as np
import pytest
import torch

from t2i.benchmarks.score.images.score import ScoreRequest, score_images
from t2i.benchmarks.score.metrics.judged import Hpsv2Config, ImageRewardConfig, Judged
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, Measure, PairedExtractor
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FeatureSpec
from t2i.core.settings import Config


class Length(PairedExtractor):
    """A judge: brightness of the first pixel plus the length of the caption."""

    name, weights_sha256, dim = "length", "2" * 64, 1

    def of_pairs(self, images, captions):
        sizes = torch.tensor([len(caption) for caption in captions])
        return (images[:, 0, 0, 0].float() + sizes)[:, None]


class NoConfig(Config):
    pass


class LengthPlugin:
    @hookimpl
    def t2i_features(self):
        return [
            FeatureSpec(
                name="length", summary="Length", config=f"{__name__}:NoConfig",
                build=f"{__name__}:length",
            )
        ]  # fmt: skip


def length(config):
    return Length()


def test_a_judge_reads_each_image_with_its_caption(plug, monkeypatch):
    """Images of two sizes, whose batches are made by size."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _own())
    plug(LengthPlugin(), "length")
    images = [np.full((side, side, 3), value, np.uint8)
              for side, value in ((8, 10), (12, 20), (8, 30))]  # fmt: skip
    measure = Measure("image-reward", {"features": "length"})
    request = ScoreRequest(images, measures=[measure], captions=["a", "bb", "cccc"])
    (score,) = score_images(request).scores
    assert score.value == pytest.approx((11 + 22 + 34) / 3)
    assert score.interval[0] < score.value < score.interval[1]
    with pytest.raises(UserError, match="have no caption"):
        score_images(ScoreRequest(images, measures=[measure]))
    with pytest.raises(UserError, match="each image with its caption"):
        score_images(
            ScoreRequest(images, images, measures=[Measure("fid", {"features": "length"})])
        )


def _own():
    from types import ModuleType

    module = ModuleType(__name__)
    module.NoConfig, module.length = NoConfig, length
    return module


def test_features_apart_are_multiplied_and_kept_for_each_image():
    metric = Judged(Hpsv2Config())
    seen = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    said = torch.tensor([[0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    batch = ImageBatch(
        np.zeros((0, 0, 0, 3), np.uint8), ("a", "b", "b"), (0, 1, 1), {"hpsv2": seen},
        {"hpsv2": said},
    )  # fmt: skip
    metric.update(batch)
    assert metric.compute() == {"hpsv2": pytest.approx(60)}
    assert metric.each == pytest.approx([0, 100, 80])
    low, high = metric.intervals()["hpsv2"]
    half = 1.96 * float(torch.tensor([0.0, 90.0]).std()) / 2**0.5  # over captions
    assert (low, high) == pytest.approx((60 - half, 60 + half))


def test_one_caption_has_no_interval():
    metric = Judged(ImageRewardConfig())
    batch = ImageBatch(np.zeros((0, 0, 0, 3), np.uint8), ("a",), (0,),
                       {"image-reward": torch.tensor([[0.5]])})  # fmt: skip
    metric.update(batch)
    assert (metric.compute(), metric.intervals()) == ({"image_reward": 0.5}, {})
