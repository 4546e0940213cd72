"""The best of several candidates: which are sampled, which is kept, and what is recorded."""

import json

import numpy as np
import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.models.again import sample_again
from t2i.core.models.building import build
from t2i.core.models.samples import write_samples
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")
CAPTIONS = ["a red image", "a blue image", "a green image"]


class Redness(FeatureExtractor):
    """Compares the mean colour of an image with red, whatever the caption."""

    name, weights_sha256, dim = "redness", "0" * 64, 3

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, images):
        self.calls.append(len(images))
        return images.float().mean((2, 3))

    def encode_text(self, captions):
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(captions), -1)


class Blind(FeatureExtractor):
    name, weights_sha256, dim = "blind", "0" * 64, 3

    def forward(self, images):
        return images.float().mean((2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(resolve_config("toy"))


def cosine_with_red(image):
    mean = np.asarray(image).reshape(-1, 3).mean(0)
    return mean[0] / np.linalg.norm(mean)


def test_the_candidates_are_the_images_of_a_longer_request_and_the_best_is_kept(model):
    best = model.sample(CAPTIONS, n=2, best_of=5, judge=Redness(), seed=4)
    every = model.sample(CAPTIONS, n=10, seed=4)
    assert len(best) == len(best.chosen) == 6
    for number, (image, chosen) in enumerate(zip(best, best.chosen, strict=True)):
        candidates = every[5 * number : 5 * number + 5]
        scores = [cosine_with_red(candidate) for candidate in candidates]
        np.testing.assert_allclose(chosen.scores, scores, atol=1e-5)
        assert chosen.candidate == int(np.argmax(scores))
        assert chosen.score == max(chosen.scores)
        np.testing.assert_array_equal(image, candidates[chosen.candidate])
    assert not every.chosen


@pytest.mark.parametrize("size", [1, 3, 4, 8, 64])
def test_batches_change_nothing_but_how_many_are_sampled_at_once(model, size):
    judge = Redness()
    images = model.sample(CAPTIONS, n=2, best_of=4, judge=judge, batch_size=size)
    whole = model.sample(CAPTIONS, n=2, best_of=4, judge=Redness())
    assert [c.candidate for c in images.chosen] == [c.candidate for c in whole.chosen]
    assert sum(judge.calls) == 24
    assert max(judge.calls) <= size
    assert all(
        np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1
        for a, b in zip(images, whole, strict=True)
    )


def test_of_equal_candidates_the_first_is_kept(model):
    class Equal(Redness):
        def forward(self, images):
            return torch.ones(len(images), 3)

    images = model.sample("x", best_of=3, judge=Equal())
    assert images.chosen[0].candidate == 0


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return lines


def test_a_folder_says_which_candidate_won_and_is_completed_to_the_same_bytes(model, tmp_path):
    best = model.best_of(3, Redness())
    request = {"n": 2, "batch_size": 6, "best": best}
    write_samples(model, CAPTIONS, tmp_path / "whole", **request)
    done = []

    def stop(images, total):
        done.append((images, total))
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(model, CAPTIONS, tmp_path / "cut", progress=stop, **request)
    assert done == [(6, 18), (12, 18)]
    assert len(lines_of(tmp_path / "cut")) == 2
    write_samples(model, CAPTIONS, tmp_path / "cut", **request)
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.png"))
    assert len(names) == 7
    assert all(
        (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        for name in names
    )
    line = lines_of(tmp_path / "whole")[3]
    assert line["settings"]["best_of"] == {
        "candidates": 3, "judge": "redness", "network": "redness", "weights_sha256": "0" * 64,
    }  # fmt: skip
    kept = line["best"]
    assert kept["score"] == max(kept["scores"]) == kept["scores"][kept["candidate"]]
    assert kept["noise_number"] == 3 + kept["candidate"]  # image 1 of the prompt begins at 3
    assert "noise_number" not in line


def test_an_image_is_sampled_again_from_its_own_file(model, tmp_path):
    request = {"n": 2, "batch_size": 2, "best": model.best_of(3, Redness())}
    (tmp_path / "run").mkdir()
    write_samples(model, CAPTIONS, tmp_path / "o", run=tmp_path / "run", **request)
    for name in ("0000-001.png", "0002-000.png"):
        again = sample_again(tmp_path / "o" / name, tmp_path / "again", lambda _: model)
        assert again.same, again.difference


def test_another_number_of_candidates_is_another_request(model, tmp_path):
    write_samples(model, CAPTIONS, tmp_path / "o", best=model.best_of(2, Redness()))
    with pytest.raises(UserError, match=r"another request .* another best_of"):
        write_samples(model, CAPTIONS, tmp_path / "o", best=model.best_of(3, Redness()))
    with pytest.raises(UserError, match="another request"):
        write_samples(model, CAPTIONS, tmp_path / "o")


def test_what_is_wrong_is_said(model):
    with pytest.raises(UserError, match=r"'blind' read no text.*--judge NAME.*clip"):
        model.sample("x", best_of=2, judge=Blind())
    with pytest.raises(UserError, match=r"data set 'toydata' names no features.*--judge"):
        model.sample("x", best_of=2)
    with pytest.raises(UserError, match="give best_of"):
        model.sample("x", judge=Redness())
    with pytest.raises(UserError, match="at least 1"):
        model.sample("x", best_of=0)
    with pytest.raises(UserError, match=r"no feature.* is named 'clp'.*clip"):
        model.sample("x", best_of=2, judge="clp")
    features = model.text_encoder.encode(["x"])
    nameless = type(features)(features.sentence, features.words, features.mask)
    with pytest.raises(UserError, match="by their captions"):
        model.sample(nameless, best_of=2, judge=Redness())


def test_steps_are_reported(model):
    seen = []
    for _ in model.stream(["x", "y"], batch_size=1, steps=lambda *step: seen.append(step)):
        pass
    assert seen == [(1, 1), (1, 1)]


def test_every_data_set_that_names_a_judge_names_features_with_text():
    for spec in registry().datasets:
        assert not spec.judge or registry().features[spec.judge].text, spec.name
