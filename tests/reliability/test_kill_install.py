"""`t2i install`, killed anywhere and given again, installs the plugin as if nothing had been.

In a real environment. Each operation on files counts, those of pip among them: in the environment,
and where temporary files lie. Either all processes end, or t2i alone and pip goes on.
"""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

KILLS = 30
PLUGIN = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec
from mine.more import NAME

@hookimpl
def t2i_samplers():
    return [SamplerSpec(name=NAME, summary="s", config="a:b", build="a:c", families=("x",))]
"""
BEGIN = """import os; 'T2I_FAULTS' in os.environ and exec("import sys; sys.path.append({here!r}); import faults; faults.begin()")"""  # noqa: E501


@pytest.fixture
def site(environment):
    """The folder of the environment's packages; its processes can be killed (faults.py)."""
    (folder,) = environment.root.glob("lib/*/site-packages")
    hook = folder / "faults.pth"
    hook.write_text(BEGIN.format(here=str(Path(__file__).parent)))
    yield folder
    hook.unlink()


@pytest.fixture
def mine(wheel, tmp_path):
    """`mine(version)`: a wheel of a plugin with a package, data and a command."""

    def make(version):
        files = {
            "mine/__init__.py": PLUGIN, "mine/more.py": "NAME = 'mine'\n",
            "mine/data/table.txt": "1\n" * 999, f"mine/only{version[0]}.py": "",
            f"t2i_mine-{version}.data/scripts/mine-tool": "#!python\n",
        }  # fmt: skip
        return wheel(tmp_path / "w", "t2i-mine", version, files=files, points={"m": "mine"})

    return make


@pytest.fixture
def install(environment, site, tmp_path):
    """`install(wheel, kill_at=0, ends="group")` runs the command, whose events go to a file."""

    def run(path, kill_at=0, ends="group"):
        log = tmp_path / "events"
        log.write_text("")
        (tmp_path / "tmp").mkdir(exist_ok=True)
        folders = (site, environment.root / "bin", environment.root / "home", tmp_path / "tmp")
        faults = {
            "T2I_FAULTS": os.pathsep.join(map(str, folders)), "T2I_FAULTS_ENDS": ends,
            "T2I_FAULTS_LOG": str(log), "T2I_FAULTS_KILL_AT": str(kill_at),
            "TMPDIR": str(tmp_path / "tmp"),
        }  # fmt: skip
        done = subprocess.run(
            [environment.root / "bin" / "t2i", "install", path], cwd=tmp_path,
            env=environment.variables | faults, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=(tmp_path / "err").open("w"), start_new_session=True,
        )  # fmt: skip
        done.stderr = (tmp_path / "err").read_text()
        return done, log.read_text().splitlines()

    return run


@pytest.fixture
def state(environment, site, tmp_path):
    """`state()`: all files of the environment, and temporary ones; compiled modules and locks are
    left out."""

    def read():
        roots = (site, environment.root / "bin", environment.root / "home", tmp_path / "tmp")
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for root in roots
            for path in root.rglob("*")
            if "__pycache__" not in path.parts and path.suffix not in (".lock", ".pip")
        }

    return read


def ended(done):
    return done.returncode, done.stderr


@pytest.fixture
def survives(environment, install, mine, state, tmp_path):
    """`survives(old, ends, choose)`: as in test_kill_commands.py; `old` is a version that is there
    before, or None."""

    def put(old):
        environment("t2i", "uninstall", "t2i-mine", cwd=tmp_path)
        if old:
            assert install(mine(old))[0].returncode == 0

    def go(old, ends, choose):
        path = mine("2.0")
        put(old)
        done, lines = install(path)
        assert done.returncode == 0, done.stderr
        whole = state()
        for kill in choose(lines):
            put(old)
            told = f"{kill} ({lines[kill - 1]})"
            done, _ = install(path, kill, ends)
            assert done.returncode == -signal.SIGKILL, f"{told}: {done.stderr}"
            done, _ = install(path)
            assert done.returncode == 0, f"{told}: {done.stderr}"
            assert "Traceback" not in done.stderr, told
            now = state()
            assert sorted(now) == sorted(whole), told
            assert [name for name in whole if whole[name] != now[name]] == [], told

    yield go
    environment("t2i", "uninstall", "t2i-mine", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "ends", "kills"), [(None, "group", 12), ("1.0", "group", 12), ("1.0", "leader", 6)]
)
def test_killed_at_random_the_same_command_installs_it(survives, old, ends, kills):
    draw = random.Random(f"{old} {ends}")

    def choose(lines):
        """Half of them while pip writes into the environment."""
        print(len(lines), *lines, sep="\n")
        (writes,) = [i for i, line in enumerate(lines, 1) if line.endswith("mine/more.py")][-1:]
        late = draw.sample(range(writes - 20, len(lines) + 1), kills // 2)
        return late + draw.sample(range(1, writes - 20), kills - kills // 2)

    survives(old, ends, choose)
