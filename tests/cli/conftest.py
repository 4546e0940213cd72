"""Two ways to run the command line: as a process of its own, and (fast) in this one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from t2i.cli.main import main

TOY = '''
"""The toy model of tests/conftest.py as an installed plugin; STOP_AT=N sends SIGINT to itself at that step."""
import os, signal
import toy_parts

globals().update({k: v for k, v in vars(toy_parts._toy_module()).items() if not k.startswith("__")})
plugin = toy_parts.ToyPlugin()

class Trainer(toy_parts.ToyTrainer):
    def step(self, batch, engine):
        if str(batch.noise.at) == os.environ.get("STOP_AT"):
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(batch, engine)

def stages(config, encoder):
    return [toy_parts.Stage("only", 1.0, lambda networks: Trainer(config, networks))]
'''  # noqa: E501


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages. `site(name, source, target)` adds one that registers `target`
    as a plugin."""
    folder = tmp_path / "site"
    folder.mkdir()

    def install(name, source, target=""):
        (folder / f"{name}.py").write_text(source)
        info = folder / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[t2i]\n{name} = {name}{target}\n")
        return folder

    install.folder = folder
    return install


@pytest.fixture
def t2i(tmp_path, site):
    """`t2i(*arguments, **environment)` runs the command in a process of its own, in an empty
    folder."""
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments, python=(), stdout=subprocess.PIPE, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("T2I_")}
        path = os.pathsep.join([str(site.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        settings = {"PYTHONPATH": path, "T2I_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *python, "-m", "t2i.cli", *map(str, arguments)], cwd=work,
            env=kept | settings | environment, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.PIPE,
            text=True, timeout=120,
        )  # fmt: skip

    run.work = work
    return run


@pytest.fixture
def toy_process(t2i, site):
    """`t2i`, with the toy model installed."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", site.folder / "toy_parts.py")
    site("t2i_toy", TOY, ":plugin")
    return t2i


@pytest.fixture
def here(toy, tmp_path, monkeypatch, capfd):
    """`here(*arguments) -> (exit code, stdout, stderr)` runs the command in this process, with the
    toy model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))

    def run(*arguments):
        capfd.readouterr()
        code = main(list(map(str, arguments)))
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(here):
    """`refused(*arguments)` -> the one line of the error; the command must have left with 2 and
    printed nothing."""

    def run(*arguments):
        code, out, err = here(*arguments)
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert (code, out) == (2, ""), (code, out, err)
        assert lines[-1].startswith("error: "), err
        assert "Traceback" not in err
        return lines[-1]

    return run
