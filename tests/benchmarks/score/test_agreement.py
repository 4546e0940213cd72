"""Our FID, KID, IS, precision and recall against torch-fidelity's own command, run on the same
folders of images, with weights written at random in the true format. It takes minutes: run it with
-m slow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as inception
from PIL import Image
from torchvision.models import vgg16

from t2i.benchmarks.score import extraction
from t2i.benchmarks.score.image_folders import MEASURES, score_folders
from t2i.core.interfaces.scoring import Measure

SCORES = {
    ("fid", "fid"): ("frechet_inception_distance", 1),
    ("kid", "kid"): ("kernel_inception_distance_mean", 1),
    ("kid", "kid_std"): ("kernel_inception_distance_std", 1),
    ("isc", "isc"): ("inception_score_mean", 1),
    ("isc", "isc_std"): ("inception_score_std", 1), ("prc", "precision"): ("precision", 100),
    ("prc", "recall"): ("recall", 100),
}  # fmt: skip
KID = Measure("kid", {"features": "inception/pool", "subset_size": 30})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Blurred colours of two kinds, some images of each like the other's."""
    root = tmp_path_factory.mktemp("pictures")
    for name, seed, count, top in (("ours", 1, 40, 200), ("real", 2, 44, 250)):
        (root / name).mkdir()
        stream = np.random.default_rng(seed)
        for number in range(count):
            colours = stream.integers(0, top, (5, 5, 3)).astype(np.uint8)
            large = np.asarray(Image.fromarray(colours).resize((48, 48), Image.BICUBIC)).astype(int)
            noisy = (large + stream.integers(-20, 20, large.shape)).clip(0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(root / name / f"{number:05}.png")
    return root / "ours", root / "real"


def spread(network, gain):
    """Random weights that keep the spread of what goes through, so that scores are no rounding of
    nothing."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(
                parameter, std=(2 / parameter[0].numel()) ** 0.5 * (gain if "fc" in name else 1)
            )
    return network.state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of weights as they are published, by the extractor's name."""
    root = tmp_path_factory.mktemp("weights")

    class Fresh(inception.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """There is none yet."""

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *given, **named: {})
        torch.save(spread(Fresh("inception-v3-compat", ["2048"]), gain=10), root / "inception.pth")
    torch.save(spread(vgg16(), gain=1), root / "vgg16.pth")
    return {name: {"weights": str(root / f"{name}.pth")} for name in ("inception", "vgg16")}


def theirs(folders, path, *options):
    """What the command prints."""
    command = [
        sys.executable,
        "-m",
        "torch_fidelity.fidelity",
        "--cpu",
        "--json",
        "--silent",
        "--no-cache",
    ]
    where = [
        "--feature-extractor-weights-path",
        path,
        "--input1",
        str(folders[0]),
        "--input2",
        str(folders[1]),
    ]
    done = subprocess.run(
        [*command, *where, *options], capture_output=True, text=True, check=True, env=os.environ
    )
    return json.loads(done.stdout)


def compare(ours, theirs):
    for (measure, score), (key, percent) in SCORES.items():
        if key in theirs and measure in ours:
            assert ours[measure][score] == pytest.approx(percent * theirs[key], rel=1e-5), (
                measure,
                score,
            )


@pytest.mark.slow
def test_scores_of_inception_equal_torch_fidelitys_command_in_any_batches(
    folders, weights, monkeypatch
):
    path = weights["inception"]["weights"]
    kid = ["--kid", "--kid-subset-size", "30"]
    extractor = ["--feature-extractor", "inception-v3-compat"]
    want = theirs(folders, path, "--isc", "--fid", *kid, "--prc", *extractor)
    measures = (*MEASURES[:3], Measure("prc", {"features": "inception/pool"}))
    measures = tuple(KID if measure.name == "kid" else measure for measure in measures)
    ours, _ = score_folders(*folders, measures, features=weights)
    assert {key for key, _ in SCORES.values()} <= want.keys()
    compare(ours, want)
    assert ours["fid"]["fid"] > 0.1
    assert ours["isc"]["isc"] > 1.01
    assert 0 < ours["prc"]["precision"] < 100

    monkeypatch.setattr(extraction, "BATCH", 7)
    monkeypatch.setattr(extraction.batches, "__defaults__", (7,))
    again, _ = score_folders(*folders, measures, features=weights)
    for measure, score in (
        ("fid", "fid"),
        ("kid", "kid"),
        ("isc", "isc"),
        ("prc", "precision"),
        ("prc", "recall"),
    ):
        assert again[measure][score] == pytest.approx(ours[measure][score], rel=1e-6), (
            measure,
            score,
        )


@pytest.mark.slow
def test_precision_and_recall_equal_torch_fidelitys_default(folders, weights):
    want = theirs(folders, weights["vgg16"]["weights"], "--prc")
    ours, _ = score_folders(*folders, MEASURES[3:], features=weights)
    compare(ours, want)
    assert 0 < ours["prc"]["precision"] < 100
