"""examples/t2i-retrieval, built as a wheel and installed with pip into a virtual environment: it
trains, samples, is scored and is in every table, though nothing here knows of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "t2i-retrieval"
REGISTERED = {
    "models": "retrieval", "families": "retrieval", "samplers": "nearest",
    "encoders": "hashed-words",
    "datasets": "stripes", "features": "colour-histogram", "metrics": "distinct",
    "benchmarks": "stripes",
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(environment, tmp_path_factory):
    """The environment with the example in it, and a folder to work in."""
    work = tmp_path_factory.mktemp("retrieval")
    shutil.copytree(
        EXAMPLE,
        work / "source",
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    environment.check(
        "pip", "wheel", "-q", "--no-deps", "-w", work / "wheels", work / "source", cwd=work
    )
    (wheel,) = (work / "wheels").glob("t2i_retrieval-*.whl")
    environment.check("t2i", "install", wheel, cwd=work)
    yield environment, work
    environment.check("t2i", "uninstall", "t2i-retrieval", cwd=work)


@pytest.fixture(scope="module")
def run(installed):
    """A trained run."""
    environment, work = installed
    command = ["t2i", "train", "--model", "retrieval", "--steps", "40", "--out", "run", "--json"]
    document = json.loads(environment.check(*command, cwd=work))
    assert [stage["name"] for stage in document["summary"]["stages"]] == ["metric", "memory"]
    return work / document["run"]


@pytest.mark.slow
def test_it_is_in_every_table(installed):
    environment, work = installed
    for kind, name in REGISTERED.items():
        rows = {
            row["name"]: row
            for row in json.loads(environment.check("t2i", kind, "--json", cwd=work))
        }
        assert (rows[name]["distribution"], rows[name]["version"]) == ("t2i-retrieval", "0.1.0")
    plugins = json.loads(environment.check("t2i", "plugins", "--json", cwd=work))
    (ours,) = (plugin for plugin in plugins if plugin["distribution"] == "t2i-retrieval")
    assert ours["registers"] == {kind: [name] for kind, name in REGISTERED.items()}


@pytest.mark.slow
def test_it_samples(installed, run):
    environment, work = installed
    environment.check(
        "t2i", "sample", "--run", run, "-p", "a red circle", "-n", "3", "--out", "samples", cwd=work
    )
    assert len(list((work / "samples").glob("0000-*.png"))) == 3
    done = environment("t2i", "sample", "--run", run, "-p", "x", "--sampler", "ddim", cwd=work)
    assert done.returncode == 2
    assert "'retrieval' is retrieval: use --sampler nearest" in done.stderr


@pytest.mark.slow  # the tutorial's test has a model from outside scored in every run of the tests
def test_it_is_scored_beside_the_others(installed, run):
    environment, work = installed
    command = [
        "t2i",
        "bench",
        "shapes",
        "--run",
        f"retrieval={run}",
        "--samples",
        "20",
        "--out",
        "shapes",
        "--json",
    ]
    document = json.loads(environment.check(*command, cwd=work))
    (row,) = (row for row in document["rows"] if row["kind"] == "model")
    assert (
        row["scores"]["one object"]["caption-accuracy"]["background"] > 40
    )  # it remembers 512 images


@pytest.mark.slow
def test_its_own_benchmark(installed):
    environment, work = installed
    command = [
        "t2i",
        "bench",
        "stripes",
        "--models",
        "retrieval",
        "--steps",
        "20",
        "--samples",
        "16",
        "--json",
    ]
    document = json.loads(environment.check(*command, "--out", "stripes", cwd=work))
    (row,) = (row for row in document["rows"] if row["kind"] == "model")
    assert set(row["scores"]["stripes"]) == {"fid", "distinct"}


@pytest.mark.slow
def test_its_own_tests_pass(installed):
    environment, work = installed
    said = environment.check("pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=work / "source")
    assert " passed" in said
    assert "failed" not in said


def test_nothing_of_the_project_knows_of_it():
    words = ["retrieval", "hashed-words", "stripes", "colour-histogram"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    rooms = [
        path
        for path in listed.stdout.split()
        if path.startswith(("core/", "cli/", "benchmarks/", "plugins/"))
    ]
    texts = {path: (ROOT / path).read_text("utf-8") for path in rooms if path.endswith(".py")}
    assert [
        path for path, text in texts.items() if any(f'"{word}"' in text for word in words)
    ] == []
