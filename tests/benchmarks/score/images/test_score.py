"""Scores of images of any program: what they equal, and what is said beside them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

import t2i
from t2i.benchmarks.score.images.score import ScoreRequest, score_images
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Measure

pytestmark = pytest.mark.usefixtures("squares")
FID = {"measures": ["fid"], "features": "random"}
SAVE = {"measures": [], "features": "random"}


def write(folder, seed, count, side=16, top=200, kind="png"):
    folder.mkdir()
    stream = np.random.default_rng(seed)
    for number in range(count):
        colours = stream.integers(0, top, (2, 2, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((side, side)).save(folder / f"{number:03}.{kind}")
    return folder


@pytest.fixture
def two(tmp_path):
    return write(tmp_path / "ours", 1, 30), write(tmp_path / "real", 2, 40, top=250)


def score(images, reference=None, **more):
    return score_images(ScoreRequest(images, reference, **more))


@pytest.fixture
def features(random_cnn):
    """`features(folder)`: what the features `random` are, without the code under test."""

    def of(folder):
        images = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])
        with torch.no_grad():
            return random_cnn()(torch.from_numpy(images).permute(0, 3, 1, 2)).double().numpy()

    return of


def frechet(a, b):
    """The formula of the paper, with SciPy's root."""
    (m, C), (n, D) = a, b
    return (m - n) @ (m - n) + np.trace(C + D - 2 * linalg.sqrtm(C @ D).real)


def statistics(x):
    return x.mean(0), np.cov(x, rowvar=False)


def test_a_score_says_all_that_it_depends_on(two):
    found = score(*two, **FID)
    (fid,) = found.scores
    assert (fid.title, fid.images, fid.reference) == ("FD, random", 30, 40)
    assert fid.features["name"] == "random-cnn"
    assert fid.interval[0] < fid.value < fid.interval[1]
    assert found["fid"] == fid.value
    assert found.protocol["name"] == "torch-fidelity"
    assert found.images["size"] == "16x16"
    json.dumps(found.document())


def test_statistics_go_out_and_come_in(two, features, tmp_path):
    ours, real = two
    whole = score(ours, real, **FID)["fid"]
    saved = score(real, save=tmp_path / "real.npz", **SAVE)
    assert saved.scores == []
    with np.load(tmp_path / "real.npz") as file:
        mean, covariance = statistics(features(real))
        np.testing.assert_allclose(file["mu"], mean, atol=1e-6)
        np.testing.assert_allclose(file["sigma"], covariance, atol=1e-6)
    found = score(ours, tmp_path / "real.npz", **FID)
    assert found["fid"] == pytest.approx(whole, rel=1e-4)
    assert found.scores[0].reference == 40
    assert found.notes == []
    score(ours, save=tmp_path / "ours.npz", **SAVE)
    both = score(tmp_path / "ours.npz", tmp_path / "real.npz", **FID)
    assert both["fid"] == pytest.approx(whole, rel=1e-4)
    assert both.scores[0].interval is None


def test_statistics_of_other_programs_are_taken_with_a_note(two, features, tmp_path):
    ours, real = two
    mean, covariance = statistics(features(real))
    np.savez_compressed(tmp_path / "r.npz", mu=mean, sigma=covariance)  # as pytorch-fid writes it
    found = score(ours, tmp_path / "r.npz", **FID)
    assert found["fid"] == pytest.approx(
        frechet(statistics(features(ours)), (mean, covariance)), rel=1e-3
    )
    assert "does not say how it was computed" in found.notes[0]
    assert found.scores[0].reference is None
    np.savez(
        tmp_path / "single.npz", mu=mean.astype(np.float32), sigma=covariance.astype(np.float32)
    )
    assert score(ours, tmp_path / "single.npz", **FID)["fid"] == pytest.approx(
        found["fid"], rel=1e-2
    )


def test_statistics_that_do_not_fit_are_refused(two, tmp_path):
    ours, real = two

    def refused(line, reference, **more):
        with pytest.raises(UserError, match=line):
            score(ours, reference, **{**FID, **more})

    np.savez(tmp_path / "small.npz", mu=np.zeros(8), sigma=np.eye(8))
    refused(r"it is of 8 features, but 'random' has 12", tmp_path / "small.npz")
    np.savez(tmp_path / "nan.npz", mu=np.full(8, np.nan), sigma=np.eye(8))
    refused("not finite", tmp_path / "nan.npz")
    np.savez(tmp_path / "shape.npz", mu=np.zeros(8), sigma=np.eye(7))
    refused(r"mu must be \(D,\)", tmp_path / "shape.npz")
    np.savez(tmp_path / "minus.npz", mu=np.zeros(12), sigma=-np.eye(12))
    refused("negative variances", tmp_path / "minus.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    refused("neither images", tmp_path / "other.npz")
    score(real, save=tmp_path / "real.npz", **SAVE)
    with np.load(tmp_path / "real.npz") as file:
        about = json.loads(str(file["about"]))
        about["extractor"]["name"] = "another"
        np.savez(tmp_path / "real.npz", mu=file["mu"], sigma=file["sigma"], about=json.dumps(about))
    refused("statistics of other features", tmp_path / "real.npz")
    refused("holds statistics alone", tmp_path / "small.npz", measures=["kid"])


def test_images_of_several_sizes_are_scored_each_as_it_is(two, tmp_path):
    ours, real = two
    other = write(tmp_path / "other", 1, 30)
    for path in sorted(other.glob("*.png"))[::3]:
        Image.open(path).resize((32, 32), Image.NEAREST).save(path)  # the same when shrunk by area
    kid = {"measures": [Measure("kid", {"features": "pixels", "subsets": 2})]}
    found = score(other, real, **kid)
    assert found["kid"] == pytest.approx(score(ours, real, **kid)["kid"], abs=1e-6)
    assert found.images["size"] == "2 sizes from 16x16 to 32x32"
    assert any("another size alone gives a distance" in text for text in found.notes)


def test_warnings_say_why_a_score_means_little(two, tmp_path):
    ours, real = two
    few = write(tmp_path / "few", 1, 9)
    found = score(few, real, measures=["fid", "kid"], features="random")
    assert any("fewer than its 12 features" in text for text in found.warnings)
    assert any("subsets of 9 images, where papers take 1000" in text for text in found.warnings)
    same = score(ours, ours, **FID)
    assert any("30 of 30 images are in the reference too" in text for text in same.warnings)
    assert same["fid"] == pytest.approx(0, abs=1e-6)


def test_a_jpeg_reference_is_noted(two, tmp_path):
    lossy = write(tmp_path / "lossy", 2, 40, kind="jpg")
    assert any("JPEG" in text for text in score(two[0], lossy, **FID).notes)


def test_the_usual_measures_leave_out_what_is_not_here(two, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    found = score(*two, features="random")
    assert set(found.by_measure()) == {"fid", "kid", "prc"}
    assert found.left_out["isc"] == "'t2i fetch inception' gets its weights"
    with pytest.raises(UserError, match=r"'t2i fetch inception' gets.*--features pixels") as caught:
        score(*two)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"'t2i fetch inception' gets it; without a download"):
        score(*two, measures=["fid"])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"measures": ["fidd"]}, "no metric is named 'fidd'; did you mean 'fid'"),
        ({"measures": ["fid:pixelz"]}, "'pixelz'; did you mean 'pixels'"),
        ({"measures": ["clip-score"]}, "30 images have no caption; name a file of captions"),
        ({"measures": ["memorised"]}, "only 't2i bench' can"),
        ({"protocol": "clean"}, "no protocol is named 'clean'; did you mean 'clean-fid'"),
        ({"captions": ["one"]}, "captions: there are 1 for 30 images"),
    ],
)
def test_mistakes_are_named(two, more, line):
    with pytest.raises(UserError, match=line):
        score(*two, **more)


def test_measures_without_a_reference(two):
    with pytest.raises(UserError, match="name them with --reference"):
        score(two[0], **FID)


def test_diversity_is_that_of_the_samples_of_one_caption(two):
    ours, real = two
    captions = [f"caption {number // 3}" for number in range(30)]
    found = score(ours, real, measures=["diversity"], features="random", captions=captions)
    assert 50 < found["diversity"] < 150
    with pytest.raises(UserError, match="give more, or name other --measures"):
        score(ours, real, measures=["diversity"], features="random")


def test_python_scores_images_in_memory(two):
    ours, real = two
    images = [Image.open(path) for path in sorted(ours.glob("*.png"))]
    found = t2i.score(images, real, **FID)
    assert found["fid"] == score(ours, real, **FID)["fid"]
    assert "FD, random" in found._repr_html_()
    with pytest.raises(UserError, match="image 0: float64"):
        t2i.score([np.zeros((4, 4, 3))], real, **FID)
