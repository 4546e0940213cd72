"""`t2i.train`, `t2i.resume` and `t2i.bench`: the commands, from Python."""

import json
import shutil

import numpy as np
import pytest

import t2i
from t2i.core.engine.reporting import Silent
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")
TOY = {"encoder.name": "toytext", "checkpoint_every": 2}


def train(out, **more):
    return t2i.train("toy", data="toydata", settings=TOY, out=out, reporter=Silent(), **more)


def test_a_model_is_trained_and_loaded(tmp_path):
    model = train(tmp_path / "run", steps=4, seed=3)
    settings = Run(tmp_path / "run").config().settings
    assert (settings.steps, settings.seed, settings.checkpoint_every) == (4, 3, 2)
    (image,) = model.sample("a red image")
    (again,) = t2i.load(tmp_path / "run").sample("a red image")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(again))


def test_a_run_is_resumed_to_the_same_images(tmp_path):
    whole = train(tmp_path / "run", steps=4)
    run = Run(tmp_path / "run")
    newest = max(run.checkpoints.iterdir(), key=lambda path: int(path.name[5:]))
    for path in (newest, run.model):
        shutil.rmtree(path)
    run.summary_file.unlink()
    resumed = t2i.resume(tmp_path / "run", reporter=Silent())
    first, second = (np.asarray(one.sample("a red image")[0]) for one in (whole, resumed))
    np.testing.assert_array_equal(first, second)
    assert json.loads(run.summary_file.read_text())["steps"] == 4


def test_what_is_wrong_is_an_error_before_anything_is_trained(tmp_path):
    with pytest.raises(t2i.UserError, match="two ways to say the budget"):
        train(tmp_path / "run", steps=4, minutes=1)
    with pytest.raises(t2i.UserError, match="no setting is named 'stepz'; did you mean 'steps'"):
        t2i.train("toy", settings={"stepz": 4}, out=tmp_path / "run")
    with pytest.raises(t2i.UserError, match="no setting is named 'wordz'"):
        t2i.train("toy", settings=TOY | {"encoder.wordz": []}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
