"""Processes that may be hurt, and what two runs must have in common."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


class Process:
    """A command at work. `wait` ends when it does; it may be sent signals meanwhile."""

    def __init__(self, nursery, pid, out, err):
        self._nursery, self.pid, self._out, self._err = nursery, pid, out, err
        self.code = None

    def wait(self):
        if self.code is None:
            self.code = self._nursery._ask({"wait": self.pid})["code"]
        return self

    @property
    def out(self):
        return self._out.read_text("utf-8", "surrogateescape")

    @property
    def err(self):
        """What it has said so far."""
        return self._err.read_text("utf-8", "surrogateescape")


class Nursery:
    """`nursery(*argv, ...)` runs a command to its end; `nursery.start` only begins it. See
    nursery.py."""

    def __init__(self, folder):
        self.folder, self._count, self._started = folder, 0, []
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("T2I_", "PYTEST_"))}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "T2I_HOME": str(folder / "home"),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))], env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the nursery has died"
        return json.loads(line)

    def start(self, *argv, cwd=None, **more):
        self._count += 1
        out, err = (self.folder / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        cwd = str(cwd or self.folder)
        request = {"argv": [str(arg) for arg in argv], "cwd": cwd, "out": str(out), "err": str(err)}
        request |= {
            name: str(value) if isinstance(value, Path) else value for name, value in more.items()
        }
        self._started.append(Process(self, self._ask({"start": request})["pid"], out, err))
        return self._started[-1]

    def __call__(self, *argv, **more):
        return self.start(*argv, **more).wait()

    def load(self, model):
        self._ask({"load": model})

    def imports(self, *modules):
        self._ask({"import": modules})

    def close(self):
        for process in self._started:
            if process.code is None:  # of a test that failed
                os.kill(process.pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def train(nursery, small):
    """`train(out, model, *sets, **more)` begins a run, or goes on with one from wherever it
    died."""

    def command(out, model, sets):
        if (out / "config.json").exists():
            return ["train", "--resume", out]
        return [
            "train",
            "--model",
            model,
            "--out",
            out,
            *(word for s in small(model, *sets) for word in ("--set", s)),
        ]

    def start(out, model, *sets, **more):
        nursery.load(model)
        return nursery.start(*command(out, model, sets), order=Path(f"{out}.order"), **more)

    return start


@pytest.fixture(scope="session")
def reference(train, tmp_path_factory):
    """`reference(model, *sets)`: each is trained once."""
    made = {}

    def get(model, *sets):
        if (model, sets) not in made:
            out = tmp_path_factory.mktemp("whole") / model
            done = train(out, model, *sets, watched=out, events=Path(f"{out}.events")).wait()
            assert done.code == 0, done.err
            made[model, sets] = out
        return made[model, sets]

    return get


CLOCKS = {
    "clock",
    "stage_clock",
    "wall",
    "seconds",
    "images_per_second",
    "wall_seconds",
    "peak_memory_bytes",
}


def timeless(document):
    """A JSON document without what the clock says."""
    if isinstance(document, dict):
        kept = {k: timeless(v) for k, v in document.items() if k not in CLOCKS}
        since = kept.get("since")  # (step, clock) in a checkpoint
        return kept | ({"since": since[0]} if isinstance(since, list) else {})
    return [timeless(item) for item in document] if isinstance(document, list) else document


def contents(run):
    """What a run holds, file by file: bytes, or documents without clocks. Manifests follow from the
    rest."""
    found = {}
    for path in run.rglob("*"):
        if path.is_dir() or path.name in ("manifest.json", ".lock"):
            continue
        name, data = path.relative_to(run).as_posix(), path.read_bytes()
        if name == "config.json":
            found[name] = {
                k: v
                for k, v in json.loads(data).items()
                if k in ("run", "versions", "data_fingerprint")
            }
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(data))
        elif path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in data.splitlines()]
        else:
            found[name] = data
    return found


def order(run):
    """What each step saw, by (step, part): a set, for a step that was taken twice may not have seen
    two things."""
    seen = {}
    for line in Path(f"{run}.order").read_text().splitlines():
        step, part, *rest = json.loads(line)
        seen.setdefault((step, part), set()).add(json.dumps(rest))
    return seen


@pytest.fixture(scope="session")
def assert_same():
    """`assert_same(whole, part)`: every file of every checkpoint, model, image, log line and sample
    is the same."""

    def check(whole, part):
        ours, theirs = contents(part), contents(whole)
        assert sorted(ours) == sorted(theirs)
        assert [name for name in theirs if ours[name] != theirs[name]] == []
        assert order(part) == order(whole)
        assert all(len(seen) == 1 for seen in order(part).values())

    return check
