"""Metrics: equal to torch-fidelity's own, in any batches; what their scores mean; what they refuse."""

import numpy as np
import pytest
import torch
import torch_fidelity
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from t2i.benchmarks.metrics.common import Moments
from t2i.benchmarks.metrics.diversity import Diversity, DiversityConfig
from t2i.benchmarks.metrics.fid import Fid, FidConfig
from t2i.benchmarks.metrics.kid import Kid, KidConfig
from t2i.benchmarks.metrics.prc import Prc, PrcConfig
from t2i.core.errors import UserError
from t2i.core.scoring import Pictures, proportion_interval


def images(seed, count, bright=180):
    return np.random.default_rng(seed).integers(0, bright, (count, 16, 16, 3)).astype(np.uint8)


@pytest.fixture
def theirs(random_cnn, monkeypatch):
    """torch-fidelity's own command on two sets of pictures, with our extractor registered there."""

    class Wrapped(FeatureExtractorBase):
        def __init__(self, name, features_list, **ignored):
            super().__init__(name, features_list)
            self.network = random_cnn()

        @staticmethod
        def get_provided_features_list():
            return ("all",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "all"

        def forward(self, x):
            return (self.network(x),)

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "ours", Wrapped)

    def calculate(ours, real):
        one, two = (torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for x in (ours, real))
        return torch_fidelity.calculate_metrics(
            input1=Stack(one), input2=Stack(two), cuda=False,
            feature_extractor="ours", fid=True, kid=True, prc=True, kid_subset_size=50, kid_subsets=10,
            batch_size=32, cache=False, verbose=False,
        )  # fmt: skip

    return calculate


class Stack(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]


def score(metric, random_cnn, ours, real, batch=37):
    network = random_cnn()

    def features(x):
        with torch.no_grad():
            return network(torch.from_numpy(x).permute(0, 3, 1, 2))

    for start in range(0, len(real), batch):
        metric.update_reference(features(real[start : start + batch]))
    for start in range(0, len(ours), batch):
        part = ours[start : start + batch]
        groups = tuple(range(start, start + len(part)))
        metric.update(Pictures(part, ("",) * len(part), groups, {"random": features(part)}))
    return metric.compute()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_scores_equal_torch_fidelitys(theirs, random_cnn):
    ours, real = images(1, 120), images(2, 150, bright=250)
    want = theirs(ours, real)
    got = score(Fid(FidConfig(features="random")), random_cnn, ours, real)
    assert got["fid"] == pytest.approx(want["frechet_inception_distance"], rel=1e-5)
    got = score(Kid(KidConfig(features="random", subsets=10, subset_size=50)), random_cnn, ours, real)
    assert got["kid"] == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-5)
    assert got["kid_std"] == pytest.approx(want["kernel_inception_distance_std"], rel=1e-5)
    got = score(Prc(PrcConfig(features="random")), random_cnn, ours, real)
    assert got["precision"] == pytest.approx(100 * want["precision"], rel=1e-5)
    assert got["recall"] == pytest.approx(100 * want["recall"], rel=1e-5)
    assert 0 < got["precision"] < 100  # or the comparison would say nothing


def test_batches_do_not_matter(random_cnn):
    ours, real = images(1, 90), images(2, 90, bright=200)
    scores = [score(Fid(FidConfig(features="random")), random_cnn, ours, real, batch)["fid"] for batch in (1, 7, 90)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_moments_are_those_of_the_whole():
    x = torch.from_numpy(np.random.default_rng(0).normal(1e3, 1, (101, 5))).float()  # far from 0: cancellation bites
    moments = Moments()
    for part in x.split(13):
        moments.add(part)
    found = moments.statistics()
    np.testing.assert_allclose(found["mu"], x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["sigma"], np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)


def test_fids_interval_holds_the_score_and_narrows(random_cnn):
    widths = []
    for count in (40, 400):
        metric = Fid(FidConfig(features="random", bootstrap=20))
        fid = score(metric, random_cnn, images(1, count), images(2, 400, bright=250))["fid"]
        low, high = metric.intervals()["fid"]
        assert low < fid < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]
    assert Fid(FidConfig(features="random")).intervals() == {}


def grouped(spread, groups=6, samples=4):
    """Diversity of groups whose members are `spread` apart, while real pictures lie 1 apart per coordinate."""
    stream = torch.Generator().manual_seed(0)
    metric = Diversity(DiversityConfig(features="x"))
    metric.update_reference(torch.randn(500, 32, generator=stream))
    centres = torch.randn(groups, 1, 32, generator=stream)
    points = (centres + spread * torch.randn(groups, samples, 32, generator=stream)).flatten(0, 1)
    names = tuple(i // samples for i in range(groups * samples))
    metric.update(Pictures(np.zeros((len(points), 1, 1, 3), np.uint8), ("",) * len(points), names, {"x": points}))
    return metric, metric.compute()


def test_diversity_is_measured_against_different_captions():
    metric, scores = grouped(0.5)
    assert scores["diversity"] == pytest.approx(50, rel=0.05)
    low, high = metric.intervals()["diversity"]
    assert low < scores["diversity"] < high < low + 10
    assert grouped(0.0)[1]["diversity"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("ours", "real", "said"),
    [
        (2, 14, "mode collapse"), (10, 14, None), (40, 14, "ignores part of the caption"), (20, 14, None),
        (2, None, "mode collapse"), (40, None, None), (99, None, "ignores part of the caption"),
    ],
)  # fmt: skip
def test_collapse_and_straying_are_told_from_the_real_pictures(ours, real, said):
    metric = Diversity(DiversityConfig(features="x"))
    warnings = metric.warnings({"diversity": ours}, None if real is None else {"diversity": real})
    assert [said] == [w.split(":")[0] for w in warnings] if said else warnings == []


def test_too_few_pictures_are_refused(random_cnn):
    for metric in (Prc(PrcConfig(features="random")), Fid(FidConfig(features="random"))):
        with pytest.raises(UserError, match=r"needs at least . pictures, but got 1: raise --samples"):
            score(metric, random_cnn, images(1, 1), images(2, 1))
    with pytest.raises(UserError, match="at least 2 samples of each caption"):
        score(Diversity(DiversityConfig(features="random")), random_cnn, images(1, 3), images(2, 3))


def test_the_interval_of_a_proportion():
    assert proportion_interval(50, 100) == pytest.approx((40.38, 59.62), abs=0.01)  # Wilson, by hand
    assert proportion_interval(0, 10)[0] == 0
    assert proportion_interval(10, 10)[1] == 100
