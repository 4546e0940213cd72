"""Scores while training: which there are, on which captions, and what is refused."""

import pytest
import torch

from t2i.benchmarks.run import in_training
from t2i.benchmarks.run.in_training import Wanted, training_scores
from t2i.core.errors import UserError
from t2i.core.models.wanted import Sample
from t2i.core.runs.configure import open_dataset, resolve_config

IMAGES = 12


class Drawing:
    """A model whose samples are held-out images: the right ones, or those of the next caption."""

    device = torch.device("cpu")

    def __init__(self, data, shift=0):
        self.held, self.shift, self.requests = open_dataset(data, "val"), shift, []

    def stream(self, captions, seed, keys):
        self.requests.append((tuple(captions), seed, tuple(keys)))
        for at in range(0, len(captions), 5):
            yield [
                Sample(*key, self.held[(key[0] + self.shift) % IMAGES].image)
                for key in keys[at : at + 5]
            ]


def config(*sets, model="ddpm"):
    return resolve_config(model, sets=[f"score_images={IMAGES}", *sets])


def test_the_data_set_names_the_scores_and_true_images_are_perfect():
    examiner = training_scores(config())
    assert examiner.names == ("caption-accuracy.all", "fid:shapes", "clip-score:shapes-clip")
    data = config().data
    right, wrong = Drawing(data), Drawing(data, shift=1)
    good, bad = examiner.scores(right), examiner.scores(wrong)
    accuracy = good["caption-accuracy.all"]
    assert accuracy.value == 100
    assert accuracy.higher
    assert accuracy.interval[1] == 100
    assert accuracy.interval[0] < 80
    assert bad["caption-accuracy.all"].value < 50
    assert good["fid:shapes"].title == f"FD, shapes of {IMAGES}"
    assert good["fid:shapes"].value == pytest.approx(0, abs=1e-3)
    assert good["fid:shapes"].higher is False
    assert str(accuracy).startswith(f"all right % of {IMAGES}: 100 (")
    # The same captions and keys of the noise each time.
    assert right.requests == wrong.requests
    assert list(right.requests[0][2]) == [(n, 0) for n in range(IMAGES)]


def test_there_are_no_more_images_than_held_out_captions():
    examiner = training_scores(config("score_images=500", "data.val_length=5"))
    assert examiner.images == 5


def test_usual_scores_whose_weights_are_missing_are_left_out(monkeypatch):
    reasons = {"fid:shapes": "gone", "clip-score:shapes-clip": "gone"}
    monkeypatch.setattr(in_training, "hindrance", lambda measure, _: reasons.get(measure.name))
    examiner = training_scores(config())
    assert len(examiner.names) == 3
    assert list(examiner.scores(Drawing(config().data))) == ["caption-accuracy.all"]
    with pytest.raises(UserError, match="'fid:shapes': gone"):
        training_scores(config("scores=['fid:shapes']"))


@pytest.mark.usefixtures("toy")
def test_other_data_gets_a_distance_on_the_default_features():
    assert training_scores(config(model="toy")).names == ("fid:pixels",)


def test_scores_are_chosen_and_names_are_those_of_the_settings():
    wanted = ("caption-accuracy.colour", "kid:pixels", "prc.recall:shapes")
    examiner = training_scores(config(f"scores=[{', '.join(wanted)}]"))
    assert examiner.names == wanted
    assert training_scores(config("scores=[]")) is None
    assert training_scores(config("score_seconds=null")) is None
    assert training_scores(config("score_seconds=null", "score_every=5")) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fud", "fid"),
        ("caption-accuracy.al", "did you mean 'all'"),
        ("diversity:pixels", "cannot be made while training"),
        ("bits-per-dim", "cannot be made while training"),
        ("fid:nothing", "nothing"),
    ],
)
def test_what_cannot_be_made_is_refused_before_training(text, message):
    with pytest.raises(UserError, match=message):
        training_scores(config(f"scores=['{text}']"))


def test_a_measure_with_one_ranked_score_has_the_name_of_the_metric():
    assert [Wanted("fid:shapes").name(s) for s in Wanted("fid:shapes").scores] == ["fid:shapes"]
    several = Wanted("prc:shapes")
    assert [several.name(s) for s in several.scores] == [
        "prc.precision:shapes",
        "prc.recall:shapes",
    ]
