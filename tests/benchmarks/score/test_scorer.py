"""The scorer: always the same batches, text read once, references extracted and worked on once,
judges told apart."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from t2i.benchmarks.score.extraction import Extractors, rebatched, reference_features
from t2i.benchmarks.score.metrics.fid import Fid
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import FeatureExtractor, ImageBatch, Measure
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import FeatureSpec
from t2i.core.settings import Config


class Seeing(FeatureExtractor):
    """The corners of an image, and of a caption its letters; notes the sizes of its batches."""

    name, weights_sha256, dim, networks = "seeing", "0" * 64, 6, ("lab/seeing",)
    batches: list[int]
    read: list[str]

    def __init__(self):
        super().__init__()
        self.batches, self.read = [], []

    def forward(self, images):
        self.batches.append(len(images))
        return images[:, :, 0, :2].flatten(1).float()

    def encode_text(self, captions):
        self.read += captions
        return torch.tensor(
            [[float(ord(letter)) for letter in caption[:6]] for caption in captions]
        )


@pytest.fixture
def seeing(plug, monkeypatch):
    extractor = Seeing()
    module = ModuleType("t2i_seeing")
    module.__dict__.update(Config=Config, build=lambda config: extractor)
    monkeypatch.setitem(sys.modules, "t2i_seeing", module)

    class Plugin:
        @hookimpl
        def t2i_features(self):
            return [
                FeatureSpec(
                    name="seeing",
                    summary="Sees",
                    config="t2i_seeing:Config",
                    build="t2i_seeing:build",
                )
            ]

    plug(Plugin(), "seeing")
    return extractor


def scorer(*measures):
    return Scorer(SimpleNamespace(measures=measures, features={}, prompts=()), "cpu")


def stream(*sizes):
    images = np.random.default_rng(0).integers(0, 256, (sum(sizes), 4, 4, 3)).astype(np.uint8)
    start = 0
    for size in sizes:
        rows = range(start, start + size)
        yield ImageBatch(
            images[start : start + size], tuple(f"word {row % 7}" for row in rows), tuple(rows)
        )
        start += size


def test_images_go_through_networks_in_the_same_batches_however_they_come(seeing):
    whole, found = list(stream(150)), list(rebatched(stream(1, 70, 0, 3, 76)))
    assert [len(images.groups) for images in found] == [64, 64, 22]
    np.testing.assert_array_equal(
        np.concatenate([images.images for images in found]), whole[0].images
    )
    assert sum((images.captions for images in found), ()) == whole[0].captions
    ours = scorer(Measure("clip-score", {"features": "seeing"}))
    scores = [
        ours.score(ours.metrics(SimpleNamespace(headline=True)), s)
        for s in (stream(150), stream(9, 100, 41))
    ]
    assert seeing.batches == [64, 64, 22] * 2
    assert scores[0] == scores[1]


def test_a_caption_is_read_once_for_all_rows_and_metrics(seeing):
    ours = scorer(
        Measure("clip-score", {"features": "seeing"}),
        Measure("r-precision", {"features": "seeing"}),
    )
    for _ in range(2):
        ours.score(ours.metrics(SimpleNamespace(headline=True)), stream(20))
    assert seeing.read == [f"word {number}" for number in range(7)]


def test_features_without_text_are_refused_by_name():
    ours = scorer(Measure("clip-score", {"features": "pixels"}))
    with pytest.raises(UserError, match="features 'pixels-16' have no text encoder"):
        ours.score(ours.metrics(SimpleNamespace(headline=True)), stream(3))


class Reference:
    """A data set of twenty images."""

    def fingerprint(self):
        return "twenty"

    version = fingerprint

    def __getitem__(self, index):
        return SimpleNamespace(image=np.full((4, 4, 3), index * 9, np.uint8))


def test_of_a_reference_only_what_is_compared_is_extracted_and_once_for_all(seeing):
    ours = scorer(
        Measure("fid", {"features": "seeing"}), Measure("clip-score", {"features": "seeing"}),
        Measure("isc", {"features": "pixels", "splits": 2}),
    )  # fmt: skip
    assert ours.extractors.compared == ["seeing"]
    first = reference_features(Reference(), 20, ours.extractors)
    assert list(first) == ["seeing"]
    again = reference_features(Reference(), 20, Extractors(["seeing", "pixels"], "cpu"))
    assert seeing.batches == [20]  # the other features were made anew, without this network
    torch.testing.assert_close(again["seeing"], first["seeing"], rtol=0, atol=0)
    assert again["pixels"].shape == (20, 768)


def test_what_is_made_of_a_reference_is_made_once_for_all_rows(seeing, monkeypatch):
    ours = scorer(Measure("fid", {"features": "seeing"}))
    ours.reference = reference_features(Reference(), 20, ours.extractors)
    fed, update = [], Fid.update_reference

    def noted(self, features):
        fed.append(len(features))
        update(self, features)

    monkeypatch.setattr(Fid, "update_reference", noted)
    headline = SimpleNamespace(headline=True)
    rows = [ours.score(ours.metrics(headline), stream(40))[0] for _ in range(3)]
    assert fed == [20]
    assert rows[0] == rows[1] == rows[2]


def test_a_judge_is_told_by_its_extractors_names(seeing):
    ours = scorer(
        Measure("clip-score", {"features": "seeing"}), Measure("fid", {"features": "pixels"})
    )
    assert ours.own_judges(["galip", "lab/seeing", "lab/seeing"]) == [("clip-score", "lab/seeing")]
    assert ours.own_judges(["galip"]) == []
