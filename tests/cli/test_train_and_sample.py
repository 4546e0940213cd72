"""train -> sample -> resume, as a user does it; and everything that can be wrong about it, in one
line each."""

import json
import shlex
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from t2i.core.models.loading import load
from t2i.core.models.metadata import model_hash
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run


@pytest.fixture
def trained(here, tmp_path):
    """A finished run of the toy model."""
    assert here("train", "--model", "toy", "--out", tmp_path / "run")[0] == 0
    return Run(tmp_path / "run")


def test_a_model_alone_trains_the_tiny_preset_and_says_where_everything_is(here, tmp_path):
    code, out, err = here("train", "--model", "toy")
    assert code == 0
    (run,) = (tmp_path / "runs").glob("toy-toydata-*")
    assert "using preset tiny" in err
    relative = run.relative_to(tmp_path)
    line = dict(line.split(": ", 1) for line in out.splitlines())
    assert line["run"] == str(relative)
    assert (tmp_path / line["images"]).is_file()
    words = shlex.split(line["draw more"])
    assert words[:4] == ["t2i", "sample", "--run", str(relative)]
    assert here(*words[1:])[0] == 0  # the command that it names works as it stands


def test_json_of_train_is_one_document(here, tmp_path):
    code, out, _ = here(
        "train", "--model", "toy", "--steps", "2", "--seed", "7", "--batch-size", "3", "--json"
    )
    document = json.loads(out)
    assert code == 0
    assert (document["model"], document["preset"], document["data"]) == ("toy", "tiny", "toydata")
    assert document["summary"]["steps"] == 2
    settings = Run(tmp_path / document["run"]).config().settings
    assert (settings.steps, settings.seed, settings.batch_size, settings.minutes) == (2, 7, 3, None)


def test_a_dry_run_prints_settings_that_are_legal_for_config_and_makes_nothing(here, tmp_path):
    arguments = (
        "--model",
        "toy",
        "--set",
        "lr=1e-3",
        "--set",
        "encoder.frozen=true",
        "--data-dir",
        "some where",
    )
    code, out, _ = here("train", *arguments, "--minutes", "2", "--dry-run")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.yaml").write_text(out)
    overrides = {"minutes": 2.0, "data": {"dir": "some where"}}
    expected = resolve_config("toy", overrides=overrides, sets=["lr=1e-3", "encoder.frozen=true"])
    assert yaml.safe_load(out) == expected.dump()
    code, as_json, _ = here("train", "--model", "toy", "--config", "c.yaml", "--dry-run", "--json")
    assert json.loads(as_json) == expected.dump()
    steps = json.loads(
        here(
            "train", "--model", "toy", "--config", "c.yaml", "--steps", "9", "--dry-run", "--json"
        )[1]
    )
    assert (steps["steps"], steps["minutes"]) == (
        9,
        None,
    )  # a budget on the command line wins over one in a file


@pytest.mark.parametrize("way", [["--dry-run"], ["--slurm", "--out", "run"]])
def test_a_misspelt_score_is_told_before_anything_is_written(here, tmp_path, way):
    code, _, err = here("train", "--model", "toy", "--set", "scores=['fdi']", *way)
    assert code == 2
    assert "'fdi'" in err
    assert "fid" in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_and_what_is_skipped_are_options(here, tmp_path):
    code, out, _ = here(
        "train", "--model", "toy", "--keep", "1", "--on-nan", "skip", "--dry-run", "--json"
    )
    assert (code, json.loads(out)["keep"], json.loads(out)["on_nan"]) == (0, 1, "skip")
    arguments = ("--model", "toy", "--set", "explode_at=4", "--keep", "1", "--out", "run")
    code, _, err = here("train", *arguments)
    assert code == 1
    assert "step-3: 't2i train --resume run --on-nan skip' goes on from it" in err
    assert here("train", "--resume", "run")[0] == 1  # the same step has the same numbers
    assert here("train", "--resume", "run", "--on-nan", "skip")[0] == 0
    assert [path.name for path in Run(tmp_path / "run").checkpoints.iterdir()] == ["step-6"]
    assert Run(tmp_path / "run").summary()["skipped"] == 1


def test_samples_are_files_by_number_with_a_line_each(here, trained, tmp_path):
    (tmp_path / "prompts.txt").write_text(
        "\ufeffa blue image\r\n\n  ../../evil  \n", encoding="utf-8"
    )
    code, out, _ = here(
        "sample", "--run", trained.path, "-p", "a red image", "--prompts", "prompts.txt", "-n", "2",
        "--seed", "3",
        "--batch-size", "4", "--out", "pictures", "--json",
    )  # fmt: skip
    assert code == 0
    document = json.loads(out)
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == [f"000{p}-00{s}.png" for p in range(3) for s in range(2)] + [
        "grid.png",
        "samples.jsonl",
    ]
    lines = [
        json.loads(line)
        for line in (tmp_path / "pictures" / "samples.jsonl").read_text().splitlines()
    ]
    assert lines == document["samples"]
    assert [line["prompt"] for line in lines[::2]] == [
        "a red image",
        "a blue image",
        "../../evil",
    ]
    assert lines[3]["settings"] == {
        "noise": "text", "run": str(trained.path), "model": "toy", "preset": "tiny",
        "hash": model_hash(load(trained.path, "cpu")),
        "fingerprint": lines[0]["settings"]["fingerprint"],
        "sampler": {"name": "direct", **lines[3]["settings"]["sampler"]},
    }  # fmt: skip
    numbers = [(line["prompt_index"], line["sample_index"]) for line in lines]
    assert numbers == [(p, s) for p in range(3) for s in range(2)]
    assert all(line["seed"] == 3 and line["seconds"] > 0 for line in lines)
    again = here(
        "sample",
        "--run",
        trained.path,
        "-p",
        "a red image",
        "-n",
        "1",
        "--seed",
        "3",
        "--out",
        "again",
    )
    assert again[0] == 0
    images = [
        np.asarray(Image.open(tmp_path / d / "0000-000.png")).astype(int)
        for d in ("pictures", "again")
    ]
    assert np.abs(images[0] - images[1]).max() <= 1


def test_the_newest_run_of_a_model_is_drawn_from_into_a_folder_of_its_own(here, tmp_path):
    assert here("train", "--model", "toy")[0] == 0
    for _ in range(2):
        code, out, err = here("sample", "--model", "toy", "-p", "x")
        assert code == 0
        assert "sampling 1 image from runs/toy-toydata-" in err
    folders = list((tmp_path / "samples").glob("toy-*"))
    assert len(folders) == 2
    assert any(str(folder.relative_to(tmp_path)) in out for folder in folders)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--model", "tyo"], "no model is named 'tyo'; did you mean 'toy'?"),
        (["train", "--model", "toy", "--preset", "tinny"], "model 'toy' has no preset 'tinny'; did "
                                                           "you mean 'tiny'?"),
        (["train", "--model", "toy", "--data", "toydatum"], "no dataset is named 'toydatum'; did "
                                                            "you mean 'toydata'?"),
        (["train", "--model", "toy", "--encoder", "toytxt"], "no encoder is named 'toytxt'; did "
                                                             "you mean 'toytext'?"),
        (["train", "--model", "toy", "--set", "wdith=3"], "no setting is named 'wdith'; did you "
                                                          "mean 'width'?"),
        (["train", "--model", "toy", "--set", "data.nam=x"], "no setting is named 'nam'; "),
        (["train", "--model", "toy", "--set", "lr"], "--set lr: expected KEY=VALUE"),
        (["train", "--model", "toy", "--config", "none.yaml"], "--config none.yaml: No such file"),
        (["train", "--resume", "nowhere"], "run nowhere: no such file or directory"),
        (["train", "--model", "toy", "--out", "file/run"], "cannot write to file/run: Not a "
                                                           "directory"),
        (["train", "--model", "toy", "--out", "file"], "file is there already"),
        (["train", "--model", "toy", "--out", "/proc/run"], "cannot write to /proc/run"),
        (["sample", "--model", "toy", "-p", "x"], "no complete run of model 'toy' under runs/: "
                                                  "train one with"),
        (["sample", "--run", "nowhere", "-p", "x"], "run nowhere: no such file or "
                                                    "directory; 't2i train' makes one"),
        (["sample", "--run", "empty", "-p", "x"], "empty is an empty folder: a run, "),
        (["sample", "--run", "empty", "--prompts", "none.txt"], "prompts none.txt: No such file or "
                                                                "directory"),
        (["sample", "--run", "empty", "--prompts", "blank.txt"], "prompts blank.txt: it holds no "
                                                                 "prompt"),
        (["sample", "--run", "empty", "--prompts", "file"], "prompts file: not UTF-8 (byte 1)"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line_naming_the_nearest_or_the_remedy(refused, tmp_path, arguments, line):
    (tmp_path / "file").write_bytes(b"a\xff")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "empty").mkdir()
    assert line in refused(*arguments)
    assert not (tmp_path / "runs").exists()


def test_what_is_there_is_never_overwritten(refused, trained, tmp_path):
    before = (trained.path / "config.json").read_bytes()
    line = refused("train", "--model", "toy", "--out", trained.path)
    assert f"go on with 't2i train --resume {trained.path}'" in line
    assert (trained.path / "config.json").read_bytes() == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    line = refused("sample", "--run", trained.path, "-p", "x", "--out", "taken")
    assert "taken is there already, and not empty: choose another --out" in line
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


def test_samplers_that_do_not_fit_or_do_not_know_a_setting(refused, trained):
    sample = ("sample", "--run", trained.path, "-p", "x")
    assert "no sampler is named 'dirct'; did you mean 'direct'?" in refused(
        *sample, "--sampler", "dirct"
    )
    line = refused(*sample, "--sampler", "ddim")
    assert "'ddim' draws from diffusion models, but 'toy' is one-shot: use --sampler direct" in line
    line = refused(*sample, "--set", "guidence=1")
    assert "sampler 'direct': no setting is named 'guidence'; did you mean 'guidance'?" in line
    assert "expected KEY=VALUE" in refused(*sample, "--set", "eta")


def test_what_cannot_be_interpolated_says_why(refused, trained, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    sample = ("sample", "--run", trained.path, "--interpolate")
    assert "image b.png: not an image; give a PNG" in refused(*sample, "a.png", "b.png")
    assert "image c.png: No such file" in refused(*sample, "a.png", "c.png")
    assert "sampler 'direct' cannot turn images into noise" in refused(*sample, "a.png", "a.png")
    assert "at most one -p TEXT" in refused(*sample, "a.png", "a.png", "-p", "x", "-p", "y")
    assert not (tmp_path / "samples").exists()


def test_foreign_and_damaged_runs_are_refused(refused, trained, tmp_path):
    weights = trained.model / "generator.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"PK\x03\x04 a pickle, say")
    assert "generator.safetensors is damaged" in refused("sample", "--run", trained.path, "-p", "x")
    weights.write_bytes(kept)
    (trained.path / "summary.json").unlink()
    shutil.rmtree(trained.checkpoints)
    assert "has no sound checkpoint" in refused("train", "--resume", trained.path)
    (trained.path / "config.json").write_text('{"format": 1, "run": {"model": "stranger"}}')
    assert "no model is named 'stranger'" in refused("train", "--resume", trained.path)


def test_several_processes_need_a_folder_that_all_of_them_know(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "name one folder for all with --out" in refused("train", "--model", "toy")


def test_interrupted_saved_resumed_and_sampled(toy_process):
    """The real thing, in processes of its own."""
    train = toy_process("train", "--model", "toy", "--out", "run", "--json", STOP_AT="3")
    assert (train.returncode, train.stdout) == (130, "")
    assert (
        train.stderr.splitlines()[-1]
        == "stopped, saved at step 4; 't2i train --resume run' goes on"
    )
    resumed = toy_process("train", "--resume", "run", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["summary"]["steps"] == 6
    sampled = toy_process("sample", "--run", "run", "-p", "\x1b[31mred\x07", "--out", "p", "--json")
    assert sampled.returncode == 0, sampled.stderr
    assert json.loads(sampled.stdout)["samples"][0]["prompt"] == "\x1b[31mred\x07"
    assert "\x1b" not in sampled.stderr
    assert Image.open(toy_process.work / "p" / "0000-000.png").size == (8, 8)


def test_clutter_is_not_in_the_way_and_stays(here, refused, tmp_path):
    for name in ("run", "samples", "failed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
    assert here("train", "--model", "toy", "--out", "run")[0] == 0
    assert here("sample", "--run", "run", "-p", "red", "--out", "samples")[0] == 0
    refused(
        "train", "--model", "toy", "--data", "toydata", "--set", "workers=-1", "--out", "failed"
    )
    for name in ("run", "samples", "failed"):
        assert (tmp_path / name / "Thumbs.db").read_bytes() == b"x"


def test_slurm_writes_a_script_that_trains_and_resumes(here, tmp_path):
    options = ("--slurm", "--nodes", "2", "--gpus-per-node", "2", "--time", "2:00:00")
    wanted = ("--model", "toy", "--set", "lr=1e-3", "--batch-size", "8", "--out", "runs/a")
    code, out, _ = here("train", *wanted, *options, "--sbatch", "--partition=gpu")
    assert code == 0
    assert out.splitlines() == ["script: runs/a.sbatch", "submit it with: sbatch runs/a.sbatch"]
    text = (tmp_path / "runs" / "a.sbatch").read_text()
    begun = shlex.join(["train", "--model", "toy", "--batch-size", "8", "--set", "lr=1e-3"])
    assert f"-m t2i.cli {begun} --out runs/a)" in text
    assert '-m t2i.cli train --resume "$run")' in text
    assert "#SBATCH --time=2:00:00\n" in text
    assert not (tmp_path / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--nodes", "2"), "--nodes belongs to --slurm"),
        (("--slurm",), "name the run's folder, which all nodes share, with --out"),
        (("--slurm", "--out", "a", "--nodes", "3"), "times the number of processes (3)"),
        (("--slurm", "--out", "a", "--time", "soon"), "is no time limit"),
    ],
)
def test_a_job_that_cannot_be_is_refused(here, arguments, error):
    code, _, err = here("train", "--model", "toy", "--batch-size", "8", *arguments)
    assert code == 2
    assert error in err
