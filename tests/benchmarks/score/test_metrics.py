"""Metrics: equal to torch-fidelity's own, in any batches; what their scores mean; what they
refuse."""

import numpy as np
import pytest
import torch
import torch_fidelity
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from t2i.benchmarks.score.metrics.clip_score import ClipScore, ClipScoreConfig
from t2i.benchmarks.score.metrics.diversity import Diversity, DiversityConfig
from t2i.benchmarks.score.metrics.fid import Fid, FidConfig, Moments
from t2i.benchmarks.score.metrics.isc import Isc, IscConfig
from t2i.benchmarks.score.metrics.kid import Kid, KidConfig
from t2i.benchmarks.score.metrics.prc import Prc, PrcConfig
from t2i.benchmarks.score.metrics.r_precision import RPrecision, RPrecisionConfig
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, proportion_interval


def images(seed, count, bright=180):
    return np.random.default_rng(seed).integers(0, bright, (count, 16, 16, 3)).astype(np.uint8)


@pytest.fixture
def theirs(random_cnn, monkeypatch):
    """torch-fidelity's own command on two sets of images, with our extractor registered there."""

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
            feature_extractor="ours", fid=True, kid=True, prc=True, isc=True, kid_subset_size=50,
            kid_subsets=10,
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
        metric.update(ImageBatch(part, ("",) * len(part), groups, {"random": features(part)}))
    return metric.compute()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_scores_equal_torch_fidelitys(theirs, random_cnn):
    ours, real = images(1, 120), images(2, 150, bright=250)
    want = theirs(ours, real)
    got = score(Fid(FidConfig(features="random")), random_cnn, ours, real)
    assert got["fid"] == pytest.approx(want["frechet_inception_distance"], rel=1e-5)
    got = score(
        Kid(KidConfig(features="random", subsets=10, subset_size=50)), random_cnn, ours, real
    )
    assert got["kid"] == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-5)
    assert got["kid_std"] == pytest.approx(want["kernel_inception_distance_std"], rel=1e-5)
    got = score(Prc(PrcConfig(features="random")), random_cnn, ours, real)
    assert got["precision"] == pytest.approx(100 * want["precision"], rel=1e-5)
    assert score(Isc(IscConfig(features="random")), random_cnn, ours, real)["isc"] == pytest.approx(
        want["inception_score_mean"], rel=1e-5
    )
    assert got["recall"] == pytest.approx(100 * want["recall"], rel=1e-5)
    assert 0 < got["precision"] < 100  # or the comparison would say nothing


def test_batches_do_not_matter(random_cnn):
    ours, real = images(1, 90), images(2, 90, bright=200)
    scores = [
        score(Fid(FidConfig(features="random")), random_cnn, ours, real, batch)["fid"]
        for batch in (1, 7, 90)
    ]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_moments_are_those_of_the_whole():
    x = torch.from_numpy(
        np.random.default_rng(0).normal(1e3, 1, (101, 5))
    ).float()  # far from 0: cancellation bites
    moments = Moments()
    for part in x.split(13):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9
    )


def gaussian(seed, count, dim=12, shift=0.0):
    """Features of `count` images, of unequal spread and correlated."""
    stream = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dim, dim)) * np.linspace(0.3, 1.2, dim)
    return torch.from_numpy(stream.normal(size=(count, dim)) @ mix + shift).float()


def given(metric, ours, real=None, groups=None, said=None, captions=None):
    """Scores of features, one image a caption unless `groups` says otherwise."""
    if real is not None:
        metric.update_reference(real)
    groups = tuple(range(len(ours))) if groups is None else tuple(groups)
    captions = ("",) * len(ours) if captions is None else tuple(captions)
    texts = {} if said is None else {metric.features: said}
    metric.update(
        ImageBatch(
            np.zeros((len(ours), 1, 1, 3), np.uint8),
            captions,
            groups,
            {metric.features: ours},
            texts,
        )
    )
    return metric.compute()


def test_few_images_of_many_features_have_torch_fidelitys_fid():
    """Fewer images than features: covariances that are not of full rank."""
    ours, real = gaussian(1, 30, 64), gaussian(2, 40, 64, 0.3)
    statistics = [fid_features_to_statistics(x.double()) for x in (ours, real)]
    theirs = fid_statistics_to_metric(*statistics, False)
    found = given(Fid(FidConfig(features="x")), ours, real)["fid"]
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_fids_interval_is_as_wide_as_fids_of_other_images_spread():
    real = 1.7 * gaussian(
        0, 4000, shift=0.5
    )  # near a distance of nothing, every interval of it is too wide
    others = [
        given(Fid(FidConfig(features="x")), gaussian(seed, 500), real)["fid"]
        for seed in range(1, 100)
    ]
    metric = Fid(FidConfig(features="x"))
    fid = given(metric, gaussian(1, 500), real)
    low, high = metric.intervals()["fid"]
    assert low < fid["fid"] < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(others), rel=0.25)
    resampled = Fid(FidConfig(features="x", bootstrap=60))
    given(resampled, gaussian(1, 500), real)
    lower, higher = resampled.intervals()["fid"]
    assert higher - lower == pytest.approx(high - low, rel=0.25)


def test_kids_interval_is_as_wide_as_kids_of_other_images_spread():
    def kid(seed):
        metric = Kid(KidConfig(features="x", subset_size=40, subsets=12))
        return metric, given(metric, gaussian(seed, 400), gaussian(seed + 1000, 400, shift=0.2))[
            "kid"
        ]

    others = [kid(seed)[1] for seed in range(40)]
    widths = []
    for seed in range(8):
        metric, found = kid(seed)
        low, high = metric.intervals()["kid"]
        assert low < found < high
        widths.append(high - low)
    assert (
        0.8 < np.mean(widths) / (2 * 1.96 * np.std(others)) < 2.0
    )  # disjoint parts say a little less than all pairs
    few = Kid(KidConfig(features="x"))
    given(few, gaussian(0, 50), gaussian(1, 50))
    assert few.intervals() == {}


@pytest.mark.parametrize(
    "metric",
    [
        lambda: Fid(FidConfig(features="x")),
        lambda: Kid(KidConfig(features="x", subset_size=30, subsets=5)),
        lambda: Prc(PrcConfig(features="x")), lambda: Isc(IscConfig(features="x")),
        lambda: RPrecision(RPrecisionConfig(features="x", candidates=9)),
    ],
    ids=["fid", "kid", "prc", "isc", "r-precision"],
)  # fmt: skip
def test_neither_the_order_of_shards_nor_their_size_matters(metric):
    ours, real, said = gaussian(1, 90), gaussian(2, 90, shift=0.2), gaussian(3, 90)
    groups, captions = np.arange(90) // 2, [f"caption {number}" for number in range(90)]

    def scores(*shards):
        fresh = metric()
        if fresh.reference:
            fresh.update_reference(real)
        for shard in shards:
            fresh.update(
                ImageBatch(
                    np.zeros((len(shard), 1, 1, 3), np.uint8),
                    tuple(captions[row // 2] for row in shard),
                    tuple(groups[list(shard)]), {"x": ours[list(shard)]},
                    {"x": said[[row // 2 for row in shard]]},
                )
            )  # fmt: skip
        return fresh.compute(), fresh.intervals()

    whole = scores(range(90))
    assert scores(range(60, 90), range(0, 22), range(22, 60)) == whole
    assert whole[1].keys() <= whole[0].keys()


def test_a_shared_reference_gives_the_same_scores():
    ours, real = gaussian(1, 60), gaussian(2, 80, shift=0.2)
    for make in (lambda: Fid(FidConfig(features="x")), lambda: Prc(PrcConfig(features="x"))):
        first, second = make(), make()
        scores = given(first, ours, real)
        assert second.share_reference(first)
        assert given(second, ours) == scores


def test_inception_scores_interval_comes_from_its_splits():
    """All of a class, and it is 1; each its own class in turn, and it is their number."""
    sure = torch.eye(5).repeat(40, 1) * 50
    metric = Isc(IscConfig(features="x", splits=2))
    assert given(metric, sure)["isc"] == pytest.approx(5, rel=0.05)
    low, high = metric.intervals()["isc"]
    assert low <= 5 <= high + 0.2
    assert given(Isc(IscConfig(features="x", splits=2)), sure[:1].repeat(40, 1)) == pytest.approx(
        {"isc": 1, "isc_std": 0}, abs=1e-9
    )


def test_clip_score_by_hand():
    seen = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-1.0, 0.0], [0.0, 2.0]])
    said = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    metric = ClipScore(ClipScoreConfig(features="x"))
    found = given(metric, seen, said=said, groups=(0, 0, 1, 1))
    mean = (1 + 0.6 + 0 + 1) / 4  # negative cosines count as 0
    assert found == pytest.approx({"clip_score": 100 * mean, "clip_s": 2.5 * mean})
    low, high = metric.intervals()["clip_score"]  # two captions, with means 0.8 and 0.5
    assert (low + high) / 2 == pytest.approx(65)
    assert high - low == pytest.approx(2 * 1.96 * 15)


def test_r_precision_by_hand():
    """Captions at the corners of a simplex; two of the five images lie at another caption's
    corner."""
    said = torch.eye(5)
    seen = said[[0, 1, 2, 0, 1]] + 0.1
    captions = list("abcde")
    every = RPrecision(RPrecisionConfig(features="x"))
    assert given(every, seen, said=said, captions=captions) == {"r_precision": pytest.approx(60)}
    assert every.intervals()["r_precision"] == proportion_interval(3, 5)
    alike = RPrecision(RPrecisionConfig(features="x"))
    assert given(alike, torch.ones(5, 5), said=torch.ones(5, 5), captions=captions) == {
        "r_precision": 0
    }  # ties lose
    one_of = [  # with one other candidate, an image at a wrong corner is right where that corner is not drawn  # noqa: E501
        given(
            RPrecision(RPrecisionConfig(features="x", candidates=2, seed=seed)),
            seen,
            said=said,
            captions=captions,
        )
        for seed in range(40)
    ]
    assert 60 < np.mean([found["r_precision"] for found in one_of]) < 100
    with pytest.raises(UserError, match="at least 2 captions that differ"):
        given(RPrecision(RPrecisionConfig(features="x")), seen, said=said, captions=["a"] * 5)


def grouped(spread, groups=6, samples=4):
    """Diversity of groups whose members are `spread` apart, while real images lie 1 apart per
    coordinate."""
    stream = torch.Generator().manual_seed(0)
    metric = Diversity(DiversityConfig(features="x"))
    metric.update_reference(torch.randn(500, 32, generator=stream))
    centres = torch.randn(groups, 1, 32, generator=stream)
    points = (centres + spread * torch.randn(groups, samples, 32, generator=stream)).flatten(0, 1)
    names = tuple(i // samples for i in range(groups * samples))
    metric.update(
        ImageBatch(
            np.zeros((len(points), 1, 1, 3), np.uint8), ("",) * len(points), names, {"x": points}
        )
    )
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
        (2, 14, "mode collapse"), (10, 14, None), (40, 14, "ignores part of the caption"),
        (20, 14, None),
        (2, None, "mode collapse"), (40, None, None), (99, None, "ignores part of the caption"),
    ],
)  # fmt: skip
def test_collapse_and_straying_are_told_from_the_real_images(ours, real, said):
    metric = Diversity(DiversityConfig(features="x"))
    warnings = metric.warnings({"diversity": ours}, None if real is None else {"diversity": real})
    assert [said] == [w.split(":")[0] for w in warnings] if said else warnings == []


def test_too_few_images_are_refused(random_cnn):
    for metric in (Prc(PrcConfig(features="random")), Fid(FidConfig(features="random"))):
        with pytest.raises(UserError, match=r"needs at least . images, but got 1: raise --samples"):
            score(metric, random_cnn, images(1, 1), images(2, 1))
    with pytest.raises(UserError, match="at least 2 samples of each caption"):
        score(Diversity(DiversityConfig(features="random")), random_cnn, images(1, 3), images(2, 3))


def test_the_interval_of_a_proportion():
    assert proportion_interval(50, 100) == pytest.approx(
        (40.38, 59.62), abs=0.01
    )  # Wilson, by hand
    assert proportion_interval(0, 10)[0] == 0
    assert proportion_interval(10, 10)[1] == 100
