"""What `--run` takes, `t2i runs` and `t2i info RUN`: a run is found by each of its names."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import t2i
from t2i.core.errors import UserError
from t2i.core.models.loading import load
from t2i.core.models.locating import located, located_run
from t2i.core.runs.folder import Run

CAPTIONS = ["a red image", "a blue image"]


@pytest.fixture
def trained(here, tmp_path):
    """`runs/one`, a finished run of the toy model with checkpoints 3 and 6."""
    assert here("train", "--model", "toy", "--out", "runs/one", "--set", "ema_decay=0.9")[0] == 0
    return Run(tmp_path / "runs" / "one")


def begun(run, name, step):
    """A copy of a run as it was when it was killed after a checkpoint."""
    copy = Run(run.path.parent / name)
    shutil.copytree(run.path, copy.path)
    copy.summary_file.unlink()
    shutil.rmtree(copy.model)
    for path in copy.checkpoints.iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    return copy


def images(text):
    return np.stack([np.asarray(x) for x in load(text, "cpu").sample(CAPTIONS, seed=3)])


def test_a_run_is_found_in_every_way_it_may_be_named(trained, tmp_path):
    expected = images(trained.path)
    for text in ("runs/one", "runs/one/", "one", "latest", "toy", "runs/one/model", "runs",
                 "runs/one/model/generator.safetensors", "runs/one/checkpoints/step-6",
                 "one/checkpoints/step-6", "runs/one/checkpoints", trained.model):  # fmt: skip
        assert np.array_equal(images(text), expected), text
    earlier = images("runs/one/checkpoints/step-3")
    assert not np.array_equal(earlier, expected)


def test_a_checkpoint_is_the_model_as_it_was_at_that_step(here, trained):
    """RUN/model when training was at that step had the averaged weights: they are used, not the
    last ones."""
    arguments = ("--set", "ema_decay=0.9", "--set", "keep_best=generator", "--set", "log_every=3")
    assert here("train", "--model", "toy", "--out", "runs/two", *arguments)[0] == 0
    two = Run(trained.path.parent / "two")
    step = json.loads((two.checkpoints / "step-6" / "state.json").read_text())["best"][0]
    assert np.array_equal(images(two.best), images(two.checkpoints / f"step-{step}"))


def test_an_unfinished_run_without_a_model_is_its_newest_checkpoint_and_says_so(here, trained):
    killed = begun(trained, "killed", step=3)
    code, out, err = here("sample", "--run", "killed", "-p", CAPTIONS[0], "--out", "o", "--json")
    assert code == 0, err
    assert "runs/killed is not finished: its checkpoint of step 3 is used" in err
    record = json.loads(out)["samples"][0]
    assert record["settings"]["run"] == "runs/killed/checkpoints/step-3"
    assert np.array_equal(images(killed.path), images("runs/one/checkpoints/step-3"))
    (killed.checkpoints / "step-3" / "ema.safetensors").write_bytes(b"x")
    code, _, err = here("sample", "--run", "killed", "-p", "x")
    assert code == 2
    assert "step-3/ema.safetensors is damaged" in err


def test_a_run_that_still_trains_says_that_its_model_is_not_the_last(here, trained):
    trained.summary_file.unlink()
    code, _, err = here("sample", "--run", "one", "-p", CAPTIONS[0])
    assert code == 0
    assert err.count("runs/one is not finished") == 1


def test_runs_in_a_benchmark_s_folder(here, refused, trained, tmp_path):
    bench = tmp_path / "runs" / "bench-x"
    shutil.copytree(trained.path, bench / "runs" / "toy")
    assert (
        located("bench-x").run
        == located("runs/bench-x/runs").run
        == Run(located("bench-x/runs/toy").path)
    )
    shutil.rmtree(trained.path)
    code, _, err = here("sample", "--model", "toy", "-p", "x")
    assert code == 0
    assert "from runs/bench-x/runs/toy with" in err
    shutil.copytree(bench / "runs" / "toy", bench / "runs" / "other")
    line = refused("sample", "--run", "runs/bench-x", "-p", "x")
    assert "runs/bench-x holds 2 runs, runs/other, runs/toy: name one of them" in line
    assert line.endswith("--run runs/bench-x/runs/other")


def test_what_is_no_run_is_named(refused, trained, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "text.txt").write_text("a red image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.md").write_text("x")
    shutil.copytree(trained.checkpoints / "step-3", tmp_path / "lonely" / "step-3")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "bad").mkdir()
    shutil.copy(trained.config_file, tmp_path / "bad" / "config.json")
    shutil.copytree(trained.samples, tmp_path / "bad" / "samples")
    for text, line in {
        "photos": "photos is a folder of images (a.png, ...), no model",
        "photos/a.png": "photos/a.png is an image, no model",
        "text.txt": "text.txt is a text file, no model",
        "empty": "empty is an empty folder",
        "empty.safetensors": "empty.safetensors is an empty file",
        "words": "words holds no weights (notes.md)",
        "lonely/step-3": "is a checkpoint without its run",
        "bad": "bad has neither a model nor a checkpoint",
        "runs/one/samples": "lies in the run runs/one and holds no weights",
        "runs/one/config.json": "lies in the run runs/one and holds no weights",
        "runs/onee": "run runs/onee: no such file or directory; did you mean 'runs/one'?",
        "onne": "run onne: no such file or directory; did you mean 'one'?",
        "quite-other": "run quite-other: no such file or directory; 't2i runs' lists the runs",
        "models/lost.safetensors": "run models/lost.safetensors: no such file or directory",
        "runs/x": "run runs/x: no such file or directory",  # no name of the hub
        "": "the name of a run is empty",
        "toi": "run toi: no such file or directory; did you mean 'toy'?",
        "latst": "run latst: no such file or directory; did you mean 'latest'?",
        "runs/one/checkpoints/step-99": "no such file or directory; runs/one has checkpoints/step-",
        "runs/one/best": "no such file or directory; runs/one has checkpoints/step-",
        "https://example.com/x.safetensors": "is an address: download the file or folder",
        "pipe": "pipe is no regular file (a pipe, a socket or a device)",
        "link": "run link: a link to nowhere, which does not exist",
    }.items():
        for option in ("sample", "export"):
            more = ("-p", "x") if option == "sample" else ("--out", "o")
            assert line in refused(option, "--run", text, *more), text
        if text:
            assert line in refused("bench", "shapes", "--run", f"mine={text}"), text


def test_latest_is_the_newest_complete_run(here, refused, trained):
    killed = begun(trained, "killed", step=3)
    assert located("latest").run == Run(located("runs/one").path)
    assert located_run("latest").path.name == "killed"  # to go on with: the last worked on
    shutil.rmtree(trained.path)
    line = refused("sample", "--run", "latest", "-p", "x")
    assert "no complete run under runs/; runs/killed is not finished: 't2i train --resume" in line
    shutil.rmtree(killed.path)
    assert "there is no run under runs/" in refused("sample", "--run", "latest", "-p", "x")


def test_resume_takes_names(here, refused, trained):
    begun(trained, "killed", step=3)
    for text in ("killed", "latest"):
        code, out, err = here("train", "--resume", text)
        assert code == 0, err
        assert "run: runs/killed" in out
    assert np.array_equal(images("killed"), images("one"))
    assert t2i.resume("killed").config.model == "toy"
    line = refused("train", "--resume", "runs")
    assert "runs holds 2 runs, killed, one: name one" in line
    assert "did you mean 'killed'" in refused("train", "--resume", "kiled")


def test_a_path_wins_over_a_name(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "one")
    assert str(located("one").path) == "one"
    with pytest.raises(UserError, match="run /nowhere/one: no such file or directory"):
        located("/nowhere/one")


# --- t2i runs -------------------------------------------------------------------------------------


def test_runs_are_listed_the_newest_first_with_what_they_are(here, trained, tmp_path):
    begun(trained, "killed", step=3)
    bench = tmp_path / "runs" / "bench-x"
    shutil.copytree(trained.path, bench / "runs" / "toy")
    results = {
        "headline": {"set": "s", "measure": "m", "score": "all", "title": "all right %"},
        "rows": [{"name": "toy", "scores": {"s": {"m": {"all": 12.5}}}}, {"name": "real"}],
    }
    (bench / "results.json").write_text(json.dumps(results))
    damaged = tmp_path / "runs" / "damaged"
    shutil.copytree(trained.path, damaged)
    (damaged / "config.json").write_text("{")
    lost = tmp_path / "runs" / "lost"
    shutil.copytree(trained.path, lost)
    shutil.rmtree(lost / "model")
    (tmp_path / "runs" / "notes").mkdir()
    code, out, _ = here("runs", "--json")
    found = {row["run"]: row for row in json.loads(out)}
    assert code == 0
    assert set(found) == {
        "runs/one", "runs/killed", "runs/bench-x/runs/toy", "runs/damaged", "runs/lost"
    }  # fmt: skip
    one, killed = found["runs/one"], found["runs/killed"]
    assert (one["model"], one["preset"], one["data"]) == ("toy", "tiny", "toydata")
    assert (one["state"], one["step"], one["budget"]) == ("complete", 6, "6 steps")
    assert one["seconds"] == trained.summary()["seconds"]
    last = json.loads(trained.metrics_file.read_text().splitlines()[-1]) if (
        trained.metrics_file.exists()
    ) else {"losses": {}}  # fmt: skip
    assert one["losses"] == last["losses"]
    assert (killed["state"], killed["budget"]) == ("interrupted", "6 steps")
    # results.json of a benchmark with a broken row tells no score, and hides no run
    assert found["runs/bench-x/runs/toy"]["score"] is None
    results["rows"].pop()
    (bench / "results.json").write_text(json.dumps(results))
    _, table, _ = here("runs")
    lines = table.splitlines()
    (line,) = [line for line in lines if "bench-x" in line]
    assert "all right % 12.5" in line
    (line,) = [line for line in lines if "runs/damaged" in line]
    assert "damaged: config.json is not JSON" in line.replace("cannot read ", "")
    (line,) = [line for line in lines if "runs/lost" in line]
    assert "damaged: model is missing" in line
    assert here("runs", "runs/bench-x", "--json")[1].count('"run"') == 1


def test_the_newest_is_first(here, trained):
    here("train", "--model", "toy", "--out", "runs/two", "--steps", "2")
    _, out, _ = here("runs", "--json")
    assert [row["run"] for row in json.loads(out)] == ["runs/two", "runs/one"]


def test_no_runs_and_no_such_folder(here, refused):
    code, out, err = here("runs")
    assert (code, out) == (0, "")
    assert "no run in runs/: 't2i train --model M' makes one" in err
    assert here("runs", "--json")[1] == "[]\n"
    assert "nowhere: no such directory" in refused("runs", "nowhere")


def test_a_run_that_is_being_trained_says_so(here, trained):
    from filelock import FileLock

    killed = begun(trained, "killed", step=3)
    with FileLock(killed.path / ".lock"):
        _, out, _ = here("runs", "--json")
    states = {row["run"]: row["state"] for row in json.loads(out)}
    assert states == {"runs/killed": "training", "runs/one": "complete"}


def test_listing_runs_does_not_import_torch():
    source = (
        "import t2i.core.runs.listing, t2i.core.models.locating, sys; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# --- t2i info RUN ---------------------------------------------------------------------------------


def test_info_says_what_a_run_is(here, trained):
    splits = {"train": {"found": ["10 images"], "passed_over": {"no caption": 3}}}
    (trained.path / "data.json").write_text(json.dumps(splits))
    code, out, _ = here("info", "one", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["run"] == "runs/one"
    assert facts["changed"] == {"ema_decay": 0.9}
    assert (facts["data"]["name"], facts["data"]["fingerprint"]) == ("toydata", "toy-train-8")
    assert facts["data"]["splits"] == splits
    assert facts["encoder"]["name"] == "toytext"
    assert facts["encoder"]["known words"] == 7
    assert facts["captions"] == trained.captions()[:3]
    assert facts["parameters"] == trained.summary()["parameters"]
    assert facts["checkpoints"] == [3, 6]
    assert facts["next"]["sample"].startswith("t2i sample --run runs/one -p ")
    assert "resume" not in facts["next"]
    _, table, _ = here("info", "runs/one")
    assert "train: passed over  3 no caption" in table
    assert table.splitlines()[-1].startswith("sample: t2i sample --run runs/one")


def test_info_of_unfinished_and_damaged_runs(here, trained):
    killed = begun(trained, "killed", step=3)
    _, out, _ = here("info", "killed")
    assert "resume: t2i train --resume runs/killed" in out
    killed.config_file.write_text("[]")
    code, out, _ = here("info", "killed")
    assert code == 0
    assert "damaged: config.json is no configuration of a run" in out


@pytest.mark.parametrize(
    ("file", "wrong", "place"),
    [
        ("data.json", {"train": {"found": 3}}, "'train.found'"),
        ("data.json", {"train": {"passed_over": ["x"]}}, "'train.passed_over'"),
        ("data.json", {"train": None}, "'train'"),
        ("data.json", [], "no JSON object"),
        ("summary.json", {"seconds": "long"}, "'seconds'"),
        ("summary.json", {"stages": [{"name": "a"}]}, "'stages.0.steps'"),
        ("summary.json", {"parameters": {"all": None}}, "'parameters.all'"),
        ("config.json", {"run": {"model": "toy"}, "versions": 5}, "'versions'"),
        ("config.json", {"run": {"model": "toy"}, "command": {}}, "'command'"),
    ],
)
def test_info_of_files_of_wrong_types_is_a_line(refused, trained, file, wrong, place):
    (trained.path / file).write_text(json.dumps(wrong))
    told = refused("info", "runs/one")
    assert file in told
    assert place in told


def test_info_of_what_is_elsewhere(here, refused, trained, tmp_path):
    shutil.copytree(trained.model, tmp_path / "alone")
    facts = json.loads(here("info", "alone", "--json")[1])
    assert (facts["model folder"], facts["model"]) == ("alone", "toy")
    folder = tmp_path / "pipe"
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "Pipe", "unet": ["diffusers", "UNet"], "x": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.copy(trained.model / "generator.safetensors", folder / "unet" / "w.safetensors")
    facts = json.loads(here("info", "pipe", "--json")[1])
    assert (facts["what"], facts["parts"]) == ("a Pipe of diffusers", {"unet": "UNet"})
    generator = trained.summary()["parameters"]["generator"]
    assert facts["weights"] == {"unet/w.safetensors": generator}
    assert "no such file or directory" in refused("info", "nowhere")
