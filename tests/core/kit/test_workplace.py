"""What a killed `t2i install` leaves, and who waits for whom."""

import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import pytest

from t2i.core.kit import workplace as module
from t2i.core.kit.workplace import held_for_pip, noted, workplace

INFO = "t2i_mine-1.0.dist-info"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages; another package lies in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    places = {"purelib": folder, "platlib": folder, "scripts": tmp_path / "bin"}
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(places.get(name, tmp_path / "x")))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {k: str(v) for k, v in places.items()})
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(folder)
    put(
        folder, "other-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"
    )
    put(folder, "other-1.0.dist-info/RECORD", "shared.py,,\n")
    put(folder, "shared.py", "theirs")
    return folder


@pytest.fixture
def notes(monkeypatch):
    said = []
    monkeypatch.setattr(module, "note", said.append)
    return said


@pytest.fixture
def killed(wheel, tmp_path):
    """`killed(install)`: a command is killed while `install` is at work."""

    def run(install):
        path = wheel(
            tmp_path, "t2i-mine", files={"mine/__init__": "", "mine/a": "", "shared": "theirs"},
            points={"m": "mine"},
        )  # fmt: skip
        with suppressed(), noted({"t2i-mine": path}):
            install()
            raise KeyboardInterrupt

    return run


@contextmanager
def suppressed():
    with pytest.raises(KeyboardInterrupt):
        yield


def put(folder, name, text=""):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def names(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_what_is_there_by_half_is_removed(site, notes, killed, tmp_path):
    def install():
        put(site, "mine/__init__.py", "half")
        put(site, "mine/__pycache__/__init__.cpython-311.pyc.140")
        put(site, f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: t2i-mine\nVersion: 1.0\n")
        put(site, f"{INFO}/RECORDx.tmp")
        put(site, "~ine/__init__.py", "an older one, which pip was removing")
        put(tmp_path / "home" / "install", "x/y")

    others = names(site)
    killed(install)
    assert len(names(site)) == len(others) + 5
    with workplace():
        assert names(site) == others
        assert not (site / "mine").exists()
        assert not (site / "~ine").exists()
    assert notes == ["installing t2i-mine was stopped: what there is of it is removed"]
    with workplace():  # it is said once
        assert len(notes) == 1


def test_a_package_that_is_complete_stays(site, notes, killed):
    def install():
        put(site, "mine/__init__.py", "")
        put(site, f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: t2i-mine\nVersion: 1.0\n")
        put(site, f"{INFO}/INSTALLER", "pip")
        put(site, f"{INFO}/RECORD", f"mine/__init__.py,,\n{INFO}/INSTALLER,,\n{INFO}/RECORD,,\n")

    killed(install)
    before = names(site)
    put(site, "~2i_mine-1.0.dist-info/RECORD")
    with workplace():
        assert names(site) == before
    assert notes == []


def test_temporary_files_lie_in_the_place_and_go(site, tmp_path):
    import tempfile

    before = tempfile.gettempdir()
    with workplace():
        place = Path(tempfile.mkdtemp())
        assert place.is_relative_to(tmp_path / "home" / "install")
        done = subprocess.run(["sh", "-c", "echo $TMPDIR"], capture_output=True, text=True)
        assert Path(done.stdout.strip()) == place.parent
    assert not place.exists()
    assert tempfile.gettempdir() == before


def test_the_next_command_waits_for_pip(site, monkeypatch):
    with held_for_pip() as descriptors:
        pip = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=descriptors)
    said = []

    def note(text):
        said.append(text)
        pip.stdin.close()  # only now pip ends

    monkeypatch.setattr(module, "note", note)
    with workplace():
        assert pip.wait() == 0
    assert said == ["pip still works for a command that was stopped: waiting for it"]
