"""The command as a whole, in processes of its own: what it imports, how it fails, what it leaves on
stdout."""

import json
import os
import re

import pytest

HEAVY = re.compile(
    r"\b(torch|numpy|pydantic|diffusers|transformers|rich|yaml|PIL|t2i\.core\.runs|t2i\.cli\.train)$"
)


def imported(process):
    """Modules that a process run under -X importtime has imported."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], ["samplers", "--json"], ["train", "-h"]]
)
def test_nothing_heavy_is_imported_before_it_is_needed(t2i, arguments):
    process = t2i(*arguments, python=("-X", "importtime"))
    assert process.returncode == 0
    modules = imported(process)
    assert "click" in modules
    allowed = {"t2i.cli.train"} if "train" in arguments else set()
    assert [name for name in modules - allowed if HEAVY.match(name)] == []


def test_help_lists_every_command_and_is_what_no_command_gives(t2i):
    process = t2i()
    assert process.returncode == 0
    for name in ("train", "sample", "import", "bench", "models", "samplers", "encoders", "datasets", "metrics",  # noqa: E501
                 "features", "benchmarks", "plugins", "install", "uninstall", "info", "web",
                 "fetch"):  # fmt: skip
        assert re.search(rf"^  {name} ", process.stdout, re.M), name


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["modls"], "error: no command is named 'modls'; did you mean 'models'?"),
        (["models", "--jsn"], "error: no option is named '--jsn'; did you mean '--json'?"),
        (
            ["train", "--steps", "0"],
            "error: invalid value for '--steps': 0 is not in the range x>=1; see 't2i train -",
        ),
        (["train"], "error: say what to train, with --model M"),
        (
            ["train", "--model", "x", "--steps", "1", "--minutes", "1"],
            "error: --steps and --minutes are two ways",
        ),
        (
            ["train", "--resume", "x", "--seed", "0"],
            "error: --resume goes on with the run's own settings: leave out ",
        ),
        (
            ["sample", "-p", "x"],
            "error: say which model to use, with one of --model M and --run RUN",
        ),
        (
            ["sample", "--run", "x", "--model", "y", "-p", "x"],
            "error: say which model to use, with one of",
        ),
        (["sample", "--run", "x"], "error: say what to sample, with -p TEXT"),
        (["bench", "--models", "a"], "error: missing argument 'NAME'; see 't2i bench run --help'"),
        (["bench", "shapes", "--run", "ldm"], "error: --run ldm: expected MODEL=RUN"),
        (["bench", "diff", "a"], "error: missing argument 'B'; see 't2i bench diff --help'"),
    ],
)
def test_mistakes_of_usage_get_one_line_and_exit_2(t2i, arguments, line):
    process = t2i(*arguments, T2I_PLUGINS="words")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(line)
    assert process.stderr.count("\n") == 1


def test_an_unknown_model_is_told_before_torch_is_imported(t2i):
    process = t2i("train", "--model", "nothing", python=("-X", "importtime"))
    assert process.returncode == 2
    assert "error: no model is named 'nothing'" in process.stderr
    assert "torch" not in imported(process)


def test_a_reader_that_leaves_early_is_no_failure(t2i):
    read, write = os.pipe()
    os.close(read)
    process = t2i("plugins", stdout=write, T2I_PLUGINS="words")
    os.close(write)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_one_line(t2i):
    with open("/dev/full", "w") as full:
        process = t2i("plugins", stdout=full, T2I_PLUGINS="words")
    assert process.returncode == 2
    assert (
        process.stderr
        == "error: stdout: No space left on device; free some space, or choose another place\n"
    )


BROKEN = """
print("noise on stdout")
raise ImportError("cannot\\n\\x1b[31m import 'it'")
"""
LEAVES = "raise SystemExit(0)"
ODD = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec
print("noise on stdout")

@hookimpl
def t2i_samplers():
    build = "odd:build"
    return [SamplerSpec(name="odd", summary="[red]a \\x1b[2J\\nb\\u202ec", config=build, build=build, families=("*",))]
"""  # noqa: E501


@pytest.fixture
def odd_plugins(site):
    site("broken", BROKEN)
    site("leaves", LEAVES)
    site("odd", ODD)


@pytest.mark.usefixtures("odd_plugins")
def test_broken_plugins_get_a_line_each_and_hinder_nothing(t2i):
    process = t2i("samplers", T2I_PLUGINS="broken,leaves,odd")
    assert process.returncode == 0
    assert process.stderr.splitlines() == [
        "noise on stdout",
        "noise on stdout",
        "warning: plugin 'broken' of broken 1.5: ImportError: cannot",
        "warning: plugin 'leaves' of leaves 1.5: SystemExit: 0",
    ]
    header, row = process.stdout.splitlines()
    assert header.split() == ["name", "families", "distribution", "summary"]
    assert row == r"odd   *         odd           [red]a \x1b[2J b\u202ec"


@pytest.mark.usefixtures("odd_plugins")
def test_json_is_one_document_with_plugins_broken_or_not(t2i):
    process = t2i("plugins", "--json", T2I_PLUGINS="broken,leaves,odd,words")
    found = {plugin["name"]: plugin for plugin in json.loads(process.stdout)}
    assert found["broken"]["error"].startswith("ImportError: cannot")
    assert found["leaves"]["error"] == "SystemExit: 0"
    assert found["odd"] == {
        "name": "odd", "distribution": "odd", "version": "1.5", "registers": {"samplers": ["odd"]},
        "error": None,
    }  # fmt: skip
    assert found["words"]["distribution"] == "t2i-zoo"
    assert (
        json.loads(t2i("samplers", "--json", T2I_PLUGINS="odd").stdout)[0]["summary"]
        == "[red]a \x1b[2J\nb\u202ec"
    )


def test_unknown_names_in_t2i_plugins(t2i):
    process = t2i("models", T2I_PLUGINS="wordz")
    assert process.returncode == 2
    assert process.stderr.startswith("error: T2I_PLUGINS names 'wordz'")


def test_strict_names_the_broken_plugin_and_fails(t2i, site):
    site("broken", LEAVES)
    process = t2i("models", T2I_PLUGINS="broken", T2I_STRICT="1")
    assert process.returncode == 1
    assert process.stderr == "error: plugin 'broken' of broken 1.5: SystemExit: 0\n"
