"""A run finds its data from any working directory, and where the folder was moved to."""

import pytest
from PIL import Image

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.json_files import read_json
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run on a folder that was named relative to the working directory."""
    (tmp_path / "images").mkdir()
    for number in range(12):
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / f"images/{number}.png")
        (tmp_path / f"images/{number}.txt").write_text(f"red number {number}")
    monkeypatch.chdir(tmp_path)
    config = resolve_config("toy", sets=("steps=2", "data.name=imagefolder", "data.dir=images"))
    made = train(config, tmp_path / "run", reporter=Silent())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return made


def dir_of(run):
    return read_json(run.config_file, "run")["run"]["data"]["dir"]


def test_a_relative_folder_is_found_from_another_working_directory(run, tmp_path):
    assert dir_of(run) == str(tmp_path / "images")
    resume(run.path, steps=3, reporter=Silent())
    assert run.config().settings.steps == 3


def test_moved_data_is_named_once_and_must_be_the_same(run, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"images is no folder; say which with --data-dir"):
        resume(run.path, steps=3, reporter=Silent())
    resume(run.path, steps=3, data_dir="../moved", reporter=Silent())
    assert dir_of(run) == str(tmp_path / "moved")
    resume(run.path, steps=4, reporter=Silent())
    (tmp_path / "moved" / "3.txt").write_text("blue")
    with pytest.raises(UserError, match="is not the one that the run began with"):
        resume(run.path, steps=5, data_dir=tmp_path / "moved", reporter=Silent())
    assert run.config().settings.steps == 4


def test_a_complete_run_stays_as_it_is(run, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    resume(run.path, data_dir=tmp_path / "moved", reporter=Silent())
    assert run.complete
    assert run.summary()["steps"] == 2


def test_data_that_lies_in_no_folder_takes_none(tmp_path):
    sets = ("steps=1", "image_size=32", "data.name=shapes")
    run = train(resolve_config("toy", sets=sets), tmp_path / "run", reporter=Silent())
    with pytest.raises(UserError, match="'shapes' reads no folder"):
        resume(run.path, steps=2, data_dir=tmp_path, reporter=Silent())
