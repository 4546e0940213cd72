"""Standard streams that are closed, or whose reader leaves; an environment that others left."""

import json
import os
import subprocess
import sys

import pytest

from t2i.cli.output import answer_json, stdout
from t2i.core.errors import UserError
from t2i.core.io import launched
from t2i.core.io.streams import Lasting


@pytest.fixture
def shell(tmp_path):
    """`shell(line)` runs a line of bash in which `t2i` is this program."""

    def run(line, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("T2I_")}
        own = {"T2I_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            ["bash", "-c", f't2i() {{ {sys.executable} -m t2i.cli "$@"; }}; {line}'],
            env=kept | own | environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


def test_closed_streams(shell):
    done = shell("t2i models --json >&-")
    assert done.returncode == 2
    assert done.stderr.startswith("error: stdout: Bad file descriptor; open it")
    assert done.stderr.count("\n") == 1
    assert shell("t2i models 2>&- <&- | grep -q dfgan").returncode == 0
    assert shell("t2i models nonsense >&- 2>&-").returncode == 2


def test_a_full_disk_for_the_answer_is_an_error(shell):
    done = shell("t2i models --json > /dev/full")
    assert done.returncode == 2
    assert "stdout: No space left on device" in done.stderr


def test_readers_that_leave(shell):
    gone = "import sys; sys.stdin.close()"
    done = shell(f"t2i models --json | {sys.executable} -c '{gone}'; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("0\n", "")
    done = shell(f"t2i train --help | {sys.executable} -c '{gone}'; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("0\n", "")
    line = "train --model dfgan --steps 1 --dry-run --json > s.json"
    done = shell(f"t2i {line} 2> >(exit 0); echo $?; t2i info --run nothing 2>/dev/full; echo $?")
    assert done.stdout == "0\n2\n"


def test_what_is_said_to_nobody_is_no_error(tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        stream = Lasting(pipe)
        print("x" * 100_000, file=stream, flush=True)
        print("more", file=stream, flush=True)
    with open("/dev/full", "w") as full:
        needed = Lasting(full, needed=True)
        with pytest.raises(UserError, match="No space left"):
            print("answer", file=needed, flush=True)


def test_what_a_launcher_left_in_the_environment_has_no_meaning(shell):
    left = {"RANK": "1", "LOCAL_RANK": "1"}
    assert "dfgan" in shell("t2i models --json", **left).stdout
    assert json.loads(shell("t2i train --model dfgan --dry-run --json", **left).stdout)
    done = shell("t2i train --model dfgan --dry-run", WORLD_SIZE="")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [({"WORLD_SIZE": "x"}, "is no number of processes"), ({"WORLD_SIZE": "2"}, "RANK is not")],
)
def test_half_of_what_a_launcher_sets_is_one_line(monkeypatch, variables, told):
    for name in launched.NEEDED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told):
        launched.check_complete()


def test_documents_have_no_number_that_json_lacks(capfd):
    answer_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": (float("inf"),)})
    stdout().flush()
    assert json.loads(capfd.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, 1.5], "b": {"c": None}, "d": [None],
    }  # fmt: skip
