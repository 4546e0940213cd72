"""Nobody's package by a slip: names that a stranger has taken, files in the way, builds, pip's own
settings. In a real environment, with an index on the loopback device."""

import io
import os
import subprocess
import tarfile

import pytest

PLUGIN = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import SamplerSpec

@hookimpl
def t2i_samplers():
    return [SamplerSpec(name="{name}", summary="s", config="a:b", build="a:c", families=("x",))]
"""
SETUP = (
    "open({ran!r}, 'w').close()\nfrom setuptools import setup\nsetup(name={name!r}, version='1')\n"
)
RAN = "open('RAN', 'w').close()\n"


class Index:
    """An index of packages. `variables` make pip look there, and nowhere else."""

    def __init__(self, server, wheel, folder):
        self.server, self.wheel, self.folder, self.links = server, wheel, folder, {}
        self.variables = {
            "PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{server.url}/simple", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip

    def publish(self, name, data, file):
        self.server.files[f"/files/{file}"] = data
        links = self.links.setdefault(name, [])
        links.append(f'<a href="/files/{file}">{file}</a>')
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        self.server.files[f"/simple/{name}/"] = page.encode()
        self.server.headers[f"/simple/{name}/"] = {"Content-Type": "text/html"}

    def publish_wheel(self, name, **more):
        path = self.wheel(self.folder, name, **more)
        self.publish(name, path.read_bytes(), path.name)

    def publish_source(self, name, ran):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for file, text in (
                ("setup.py", SETUP.format(ran=str(ran), name=name)),
                ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"),
            ):
                entry = tarfile.TarInfo(f"{name}-1/{file}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.publish(name, buffer.getvalue(), f"{name}-1.tar.gz")

    @property
    def asked(self):
        return {path for path, _ in self.server.asked}


@pytest.fixture
def index(server, wheel, tmp_path):
    return Index(server, wheel, tmp_path / "published")


@pytest.fixture
def names(environment, tmp_path):
    """`names()`: the packages that are installed in the environment itself."""
    (site,) = environment.root.glob("lib/*/site-packages")
    before = set(os.listdir(site))
    yield lambda: {name.partition("-")[0] for name in set(os.listdir(site)) - before}
    assert set(os.listdir(site)) - before <= {"__pycache__"}


def last(done):
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def refused(done):
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert last(done).startswith("error: ")
    return last(done)


@pytest.mark.slow
def test_files_of_the_folder_are_not_imported(environment, wheel, tmp_path, names):
    path = wheel(
        tmp_path / "w", "t2i-mine", files={"mine": PLUGIN.format(name="mine")}, points={"m": "mine"}
    )
    for name in ("pip", "json", "random", "packaging", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(RAN)
    for option in ("--dry-run", "--json"):
        environment.check("t2i", "install", option, path, cwd=tmp_path)
    environment.check("t2i", "uninstall", "t2i-mine", cwd=tmp_path)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.slow
def test_a_strangers_package_is_described_and_asked_about(environment, index, tmp_path, names):
    index.publish_wheel("helper", files={"helper": ""})
    source = PLUGIN.format(name="theirs")
    index.publish_wheel(
        "mynet", requires=["helper"], files={"mynet": source}, points={"n": "mynet"}
    )
    run = {"cwd": tmp_path, **index.variables}
    done = environment("t2i", "install", "mynet", **run)
    assert "others published mynet, helper, and it would be installed" in refused(done).replace(
        "helper, mynet", "mynet, helper"
    )
    assert "--yes allows it" in last(done)
    for name in ("mynet", "helper"):
        line = (
            f"change: {name} 1.0 (new): from http://127.0.0.1; it does not say what it is; it does"
        )
        assert line in done.stderr
    assert names() == set()
    said = environment.check("t2i", "install", "mynet", "--yes", **run)
    assert said == "mynet 1.0: plugin 'n' registers samplers: theirs\n"
    environment.check("pip", "uninstall", "--yes", "mynet", "helper", cwd=tmp_path)


def test_what_registers_nothing_brings_nothing(environment, index, tmp_path, names):
    index.publish_wheel("helper", files={"helper": ""})
    index.publish_wheel("mynet", requires=["helper"], files={"mynet": ""})
    done = environment("t2i", "install", "mynet", "--yes", cwd=tmp_path, **index.variables)
    assert "mynet is no plugin of t2i" in refused(done)
    assert names() == set()


@pytest.mark.slow
def test_a_folder_wins_and_a_typo_asks_no_index(environment, index, tmp_path, names):
    index.publish_wheel(
        "mynet", files={"theirs": PLUGIN.format(name="theirs")}, points={"n": "theirs"}
    )
    index.publish_wheel("typo", files={"typo": ""})
    run = {"cwd": tmp_path, **index.variables}
    assert "./typo: no such file or folder" in refused(
        environment("t2i", "install", "./typo", **run)
    )
    done = environment("t2i", "plugins", "new", "mynet", **run)
    assert "next: t2i install ./mynet; t2i plugins check mynet" in done.stderr
    done = environment("t2i", "install", "mynet", **run)
    assert done.stdout == "mynet 0.1.0: plugin 'mynet' registers models: mynet\n", done.stderr
    assert "note: 'mynet' is the folder ./mynet here" in done.stderr
    assert index.asked == set()
    environment.check("t2i", "uninstall", "mynet", cwd=tmp_path)


@pytest.mark.slow
def test_no_build_runs_unasked(environment, index, tmp_path, names):
    ran = tmp_path / "RAN"
    index.publish_source("source", ran)
    run = {"cwd": tmp_path, **index.variables}
    for arguments in (("source",), ("source", "--dry-run")):
        line = refused(environment("t2i", "install", *arguments, **run))
        assert "source has no wheel that fits, only source packages" in line
        assert "runs their code: --yes allows it" in line
    assert "No matching distribution" in refused(
        environment("t2i", "install", "source==7", "--dry-run", **run)
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "setup.py").write_text(SETUP.format(ran=str(ran), name="own"))
    for target in ("./folder", "folder", f"own @ {(tmp_path / 'folder').as_uri()}"):
        line = refused(environment("t2i", "install", "--dry-run", target, **run))
        assert "that runs its code: --yes allows it" in line
    assert not ran.exists()
    done = environment("t2i", "install", "--dry-run", "--yes", "source", **run)
    assert ran.exists()
    assert "source is no plugin of t2i" in refused(done)


def test_a_terminal_is_asked(environment, index, tmp_path, names):
    index.publish_wheel("mynet", files={"mynet": PLUGIN.format(name="n")}, points={"n": "mynet"})
    ours, theirs = os.openpty()
    os.write(ours, b"n\n")
    done = subprocess.run(
        [environment.root / "bin" / "t2i", "install", "mynet"], cwd=tmp_path, stdin=theirs,
        env=environment.variables | index.variables, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert (done.returncode, done.stdout) == (130, b"")
    assert b"others published mynet, and it would be installed" in said
    assert b"go on?" in said
    assert names() == set()


SETTINGS = (
    {"PIP_QUIET": "3", "PIP_REPORT": "report.json"},
    {"PIP_TARGET": "elsewhere", "PIP_USER": "1", "PIP_PREFIX": "elsewhere", "PIP_ROOT": "root"},
    {"PIP_DRY_RUN": "1", "PIP_REQUIRE_VIRTUALENV": "nonsense", "PIP_REQUIREMENT": "none.txt"},
    {"PIP_NO_BINARY": ":all:", "PIP_CONSTRAINT": "none.txt", "PIP_PYTHON": "/none"},
)
"""Settings of pip, tried all together and one after the other."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {name: value for one in SETTINGS for name, value in one.items()},
        {"PIP_VERBOSE": "1"},
        *SETTINGS,
    ],
    ids=lambda variables: "all" if len(variables) > 4 else str(variables),
)
def test_pips_own_settings_decide_nothing(environment, wheel, tmp_path, names, variables):
    path = wheel(
        tmp_path / "w", "t2i-mine", files={"mine": PLUGIN.format(name="mine")}, points={"m": "mine"}
    )
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    lines = [f"{key.removeprefix('PIP_').lower()} = {value}" for key, value in variables.items()]
    (home / ".config" / "pip" / "pip.conf").write_text("\n".join(["[global]", *lines]))
    for more in (variables, {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}):
        said = environment.check("t2i", "install", path, cwd=tmp_path, **more)
        assert said == "t2i-mine 1.0: plugin 'm' registers samplers: mine\n"
        assert "t2i_mine" in names()
        assert environment.check("t2i", "uninstall", "t2i-mine", cwd=tmp_path, **more)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "w"]


@pytest.mark.slow
def test_a_wheel_that_overwrites_is_refused_and_builds_say_why_they_fail(
    environment, wheel, tmp_path, names
):
    over = wheel(
        tmp_path, "over", points={"o": "over"},
        files={"over": PLUGIN.format(name="over"), "click/__init__.py": "raise RuntimeError"},
    )  # fmt: skip
    line = refused(environment("t2i", "install", over, cwd=tmp_path))
    assert "over would overwrite click/__init__.py of click" in line
    dry = environment.check("t2i", "install", "--dry-run", over, cwd=tmp_path)
    assert dry == "it would break what is installed\n"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "setup.py").write_text("raise RuntimeError('CUDA is missing')\n")
    line = refused(environment("t2i", "install", "./bad", cwd=tmp_path))
    assert "RuntimeError: CUDA is missing (" in line


@pytest.mark.slow
def test_a_plugin_that_would_take_anothers_name_is_refused(environment, wheel, tmp_path, names):
    paths = [
        wheel(tmp_path, name, files={name: PLUGIN.format(name="mine")}, points={name: name})
        for name in ("middle", "after", "zlast")
    ]
    environment.check("t2i", "install", paths[0], cwd=tmp_path)
    for path in paths[1:]:
        line = refused(environment("t2i", "install", path, cwd=tmp_path))
        assert "is also registered by plugin" in line
        assert "nothing was installed" in line
    assert environment.check("t2i", "uninstall", "middle", cwd=tmp_path) == "removed middle 1.0\n"
