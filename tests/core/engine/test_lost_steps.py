"""What ends a run from the side of the data loses no step; damaged models are made again; data that
changed is noticed."""

import os
import shutil
import sys

import pytest
import torch
from PIL import Image

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Crash, UserError
from t2i.core.io.json_files import read_json
from t2i.core.io.sealed import intact
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import load_model
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")
LONG = ("steps=12", "checkpoint_every=100", "batch_size=2", "log_every=1")


def go(out, *sets):
    return train(resolve_config("toy", sets=sets), out, reporter=Silent())


def weights(run):
    return load_tensors(run.model / "generator.safetensors", "x")


def equal(one, other):
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Said(Silent):
    def __init__(self):
        self.texts = []

    def say(self, text):
        self.texts.append(text)


# --- errors of the data ---------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """`failing(after)`: the toy's data raises an error of its own once it was read so often."""
    module, data = sys.modules["t2i_toy"], sys.modules["t2i_toy"].data
    read = []

    def make(after):
        class Failing(data):
            def __getitem__(self, index):
                read.append(index)
                if len(read) > after:
                    raise ValueError("a bug")
                return super().__getitem__(index)

        monkeypatch.setattr(module, "data", Failing if after else data)

    return make


@pytest.mark.parametrize("more", [(), ("accumulate=2",)])
def test_an_error_of_the_data_set_saves_first_and_keeps_the_traceback(tmp_path, failing, more):
    failing(26)  # 10 for the grid's captions
    said = Said()
    with pytest.raises(Crash, match=r"unexpected ValueError in .*: a bug") as caught:
        train(resolve_config("toy", sets=(*LONG, *more)), tmp_path / "cut", reporter=said)
    run = Run(tmp_path / "cut")
    assert run.steps_saved()[-1] > 0
    assert any(text.startswith("saved step") for text in said.texts)
    assert caught.value.__notes__ == [f"{tmp_path / 'cut' / 'error.txt'} has the traceback"]
    assert "in __getitem__" in (run.path / "error.txt").read_text()
    failing(0)
    assert equal(resume(run.path, reporter=Silent()), go(tmp_path / "whole", *LONG, *more))


def test_an_error_before_the_first_step_leaves_only_its_traceback(tmp_path, failing):
    failing(1)
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="a bug"):
        go(out, *LONG)
    assert [path.name for path in out.iterdir()] == ["error.txt"]
    failing(0)
    assert go(out, "steps=1").complete
    assert not (out / "error.txt").exists()


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "each"), [(1, [0, 1]), (2, [1, 1]), (3, [1, 2]), (7, [2, 5])])
def test_a_budget_of_steps_is_kept_exactly(tmp_path, steps, each):
    run = go(tmp_path / "run", "two_stages=true", f"steps={steps}")
    assert run.summary()["steps"] == steps
    assert [stage["steps"] for stage in run.summary()["stages"]] == each


# --- damaged models -------------------------------------------------------------------------------


def hurt(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_damaged_model_of_a_complete_run_is_made_again(tmp_path):
    run = go(tmp_path / "run")
    before = (run.model / "generator.safetensors").read_bytes()
    hurt(run.model / "generator.safetensors")
    with pytest.raises(UserError, match=r"damaged .*; 't2i train --resume .*run' makes it again"):
        load_model(run.model)
    said = Said()
    resume(run.path, reporter=said)
    assert any("is damaged: making it again" in text for text in said.texts)
    assert (run.model / "generator.safetensors").read_bytes() == before
    assert run.complete
    shutil.rmtree(run.model)
    resume(run.path, reporter=Silent())
    assert (run.model / "generator.safetensors").read_bytes() == before


def test_a_damaged_best_model_is_made_again(tmp_path):
    run = go(tmp_path / "run", "keep_best=generator", "log_every=1", "checkpoint_every=1", "lr=0.3")
    hurt(run.best / "generator.safetensors")
    resume(run.path, reporter=Silent())
    assert intact(run.best)
    assert intact(run.model)


def test_without_a_sound_checkpoint_there_is_a_line(tmp_path):
    run = go(tmp_path / "run")
    hurt(run.model / "generator.safetensors")
    for folder in run.checkpoints.iterdir():
        hurt(folder / "ema.safetensors")
    with pytest.raises(UserError, match="no sound checkpoint"):
        resume(run.path, reporter=Silent())


def test_files_of_a_run_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        run = go(tmp_path / "run")
    finally:
        os.umask(before)
    modes = {
        path.relative_to(run.path).as_posix(): path.stat().st_mode & 0o777
        for path in run.path.rglob("*")
    }
    wrong = [
        name
        for name, mode in modes.items()
        if mode != (0o750 if (run.path / name).is_dir() else 0o640) and name != ".lock"
    ]
    assert wrong == []


# --- data that changes ----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images that all have the same size in bytes."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.bmp")
        (folder / f"{number}.txt").write_text(f"red number {number}")
    return folder


def of(images, *more):
    return ("data.name=imagefolder", f"data.dir={images}", "steps=2", *more)


def repaint(file, later=1):
    state = file.stat()
    Image.new("RGB", (8, 8), (0, 255, 0)).save(file)
    assert file.stat().st_size == state.st_size
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + later))


def test_data_of_the_same_names_and_sizes_that_was_written_since_is_noticed(tmp_path, images):
    run = go(tmp_path / "run", *of(images))
    repaint(images / "3.bmp")
    with pytest.raises(UserError, match=r"were written since .* go on .*: --data-dir .*images$"):
        resume(run.path, steps=3, reporter=Silent())
    said = Said()
    resume(run.path, steps=3, data_dir=images, reporter=said)
    assert any("were written since the run began, or copied" in text for text in said.texts)
    resume(run.path, steps=4, reporter=Silent())  # it was accepted once


def test_a_copy_of_the_data_is_accepted_with_a_word(tmp_path, images):
    run = go(tmp_path / "run", *of(images))
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copy)
    shutil.rmtree(images)
    said = Said()
    resume(run.path, steps=3, data_dir=tmp_path / "copy", reporter=said)
    assert any("or copied" in text for text in said.texts)


@pytest.mark.parametrize("later", [0, 1])
def test_a_cache_of_images_is_made_again(tmp_path, images, later):
    go(tmp_path / "a", *of(images, "data.cache=true"))
    known = {path.name for path in (tmp_path / "home" / "pictures").iterdir()}
    go(tmp_path / "b", *of(images, "data.cache=true"))
    assert {path.name for path in (tmp_path / "home" / "pictures").iterdir()} == known
    for number in range(12):
        repaint(images / f"{number}.bmp", later)
    go(tmp_path / "c", *of(images, "data.cache=true"))
    assert {path.name for path in (tmp_path / "home" / "pictures").iterdir()} > known


def test_a_file_that_is_written_while_a_run_reads_is_noticed(tmp_path, images):
    class Painter(Silent):
        def __init__(self):
            self.texts = []

        def say(self, text):
            self.texts.append(text)
            if text.startswith("stage 1"):
                for number in range(12):
                    repaint(images / f"{number}.bmp")

    painter = Painter()
    config = resolve_config("toy", sets=of(images, "steps=20", "data.max_broken=0.4"))
    with pytest.raises(UserError, match="written to while it is in use"):
        train(config, tmp_path / "run", reporter=painter)


def test_what_is_recorded_of_the_data_is_of_its_files_only(tmp_path):
    assert read_json(go(tmp_path / "run").config_file, "run")["data_written"] is None
