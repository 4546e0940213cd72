"""`t2i bench speedrun`: what it hands on, where it records, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from t2i.benchmarks.speedrun import runner
from t2i.benchmarks.speedrun.request import SpeedrunRequest


class Results:
    """What a speed run returns, as far as the command looks."""

    def document(self):
        return {"entries": []}

    def show(self, console):
        console.print("[table]", markup=False)


@pytest.fixture
def asked(monkeypatch):
    """The requests that were handed on."""
    calls = []
    monkeypatch.setattr(runner, "run_speedrun", lambda request: calls.append(request) or Results())
    return calls


def test_everything_is_handed_on(here, asked):
    code, out, _ = here(
        "bench", "speedrun", "--benchmark", "b", "--protocol", "p", "--models", "x, y",
        "--preset", "q", "--set", "lr=1", "--set", "nf=2", "--target", "50,85.5", "--minutes", "3",
        "--seed", "4", "--every", "7.5", "--samples", "9", "--data-dir", "d", "--out", "o",
        "--note", "n | m", "--record", "r.md", "--json",
    )  # fmt: skip
    assert (code, json.loads(out)) == (0, {"entries": []})
    (request,) = asked
    assert request.command.startswith("t2i")
    assert replace(request, command="") == SpeedrunRequest(
        "b", protocol="p", models=["x", "y"], preset="q", sets=("lr=1", "nf=2"),
        targets=(50, 85.5), minutes=3, seed=4, every=7.5, samples=9, data_dir=Path("d"),
        out=Path("o"), note="n | m", record=Path("r.md"),
    )  # fmt: skip


def test_one_model_and_the_benchmark_with_marks_are_enough(here, asked):
    assert here("bench", "speedrun", "--model", "ldm", "--steps", "5")[:2] == (0, "[table]\n")
    (request,) = asked
    assert (request.models, request.steps, request.record) == (["ldm"], 5, None)
    assert request.out == Path("runs/speedrun-shapes")


def test_the_record_goes_to_the_page_of_the_project_or_beside_the_results(
    here, asked, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    here("bench", "speedrun", "--record", "--note", "x")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "speedruns.md").touch()
    here("bench", "speedrun", "--note", "x", "--record")
    assert [request.record for request in asked] == [
        Path("runs/speedrun-shapes/records.md"),
        Path("docs/speedruns.md"),
    ]
    assert [request.note for request in asked] == ["x", "x"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--target", "many"], "--target many: expected a score, or several such as 50,85"),
        (["--target", "50,,85"], "--target 50,,85: expected a score"),
        (["--target", "nan"], "--target nan: expected a score"),
        (["--models", " , "], "--models: name at least one model"),
        (["--model", "dfgann"], "no model is named 'dfgann'; did you mean 'dfgan'?"),
        (["--benchmark", "shape"], "no benchmark is named 'shape'; did you mean 'shapes'?"),
        (["--benchmark", "coco"], "benchmark 'coco' needs the data set 'coco'"),
        (["--minutes", "1", "--steps", "1"], "--minutes and --steps are two ways"),
        (["--minutes", "0"], "--minutes"),
        (["--every", "0"], "--every"),
        (["--seed", "-1"], "--seed"),
        (["--model", "dfgan", "--set", "nf"], "--set nf"),
        (["--model", "dfgan", "--set", "image_size=64"], "--set image_size: the benchmark gives"),
    ],
)
def test_wrong_options_are_one_line(here, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    code, out, err = here("bench", "speedrun", *arguments)
    assert code == 2
    assert out == ""
    assert line in err.splitlines()[-1]
    assert "Traceback" not in err
