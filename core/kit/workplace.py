"""The place where `t2i install` and `t2i uninstall` work: one command at a time in an environment.

Pip writes files one by one, so a process that is killed leaves a package by half. What is about to
be installed is noted first; the next command removes what is not complete then. Temporary files lie
in the place too, and go with it.

T2I_HOME/install/ENVIRONMENT/         wheels, and pip's temporary files; removed at the end
T2I_HOME/install/ENVIRONMENT.json     the note: names and files of the packages; likewise
T2I_HOME/install/ENVIRONMENT.lock     held by the command
T2I_HOME/install/ENVIRONMENT.pip      held by pip, which may outlive the command
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from importlib.metadata import distributions
from importlib.util import cache_from_source
from pathlib import Path

from filelock import FileLock
from packaging.utils import canonicalize_name

from t2i.core.fetch.paths import cache_dir
from t2i.core.io.json_files import json_object, write_json
from t2i.core.io.locks import take_or_wait
from t2i.core.io.terminal import note
from t2i.core.kit.changes import distribution_of
from t2i.core.kit.overwriting import files_of, files_to_come

TEMPORARY = ("TMPDIR", "TEMP", "TMP")
"""Variables that say where temporary files go."""


@contextmanager
def workplace() -> Iterator[None]:
    """Hold the environment for this command, after removing what a killed one left.

    Temporary files of this process and of pip lie in the place inside the block.

    Yields:
        Nothing.
    """
    place = _place()
    lock = FileLock(place.with_suffix(".lock"))
    busy = "another command installs or removes packages in this environment: waiting for it"
    take_or_wait(lock, lambda: note(busy))
    before, variables = tempfile.tempdir, {name: os.environ.get(name) for name in TEMPORARY}
    try:
        with held_for_pip():  # until that of a killed command has ended
            _clear(place)
        place.mkdir()
        os.environ.update(dict.fromkeys(TEMPORARY, str(place)))
        tempfile.tempdir = str(place)
        yield
    finally:
        tempfile.tempdir = before
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _clear(place)
        lock.release()


@contextmanager
def held_for_pip() -> Iterator[Sequence[int]]:
    """Hold a lock that a process shares which inherits it, as long as one of them lives.

    Yields:
        The descriptors to inherit; none where the system has no such locks (Windows).
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    with open(_place().with_suffix(".pip"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("pip still works for a command that was stopped: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield (file.fileno(),)


@contextmanager
def noted(wheels: Mapping[str, Path]) -> Iterator[None]:
    """Note what is being installed, as long as the block lasts.

    Args:
        wheels: Wheels by the canonical name of their package.

    Yields:
        Nothing. If the block raises, `workplace` removes what is there by half.
    """
    coming = files_to_come(wheels)
    write_json(_note(), {name: [*coming[name], *_here(name)] for name in wheels})
    yield
    _note().unlink(missing_ok=True)


def _place() -> Path:
    folder = cache_dir() / "install"
    folder.mkdir(exist_ok=True)
    return folder / hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]


def _note() -> Path:
    return _place().with_suffix(".json")


def _here(name: str) -> list[str]:
    """Return the files of a package that is installed; none if it is not."""
    found = distribution_of(name)
    return list(files_of(found)) if found else []


# --- what a killed command left -------------------------------------------------------------------


def _clear(place: Path) -> None:
    """Remove temporary files, packages that are there by half, and what pip had put aside."""
    shutil.rmtree(place, ignore_errors=True)
    left = {
        name: [str(file) for file in files] if isinstance(files, list) else []
        for name, files in json_object(_note()).items()
    }
    for name, files in left.items():
        importlib.invalidate_caches()
        if not _complete(name) and any(map(os.path.lexists, files)):
            note(f"installing {name} was stopped: what there is of it is removed")
            _remove(name, files)
        _remove_aside(files)
    _note().unlink(missing_ok=True)


def _complete(name: str) -> bool:
    """Whether a package is installed as a whole: pip writes the list of its files last."""
    found = distribution_of(name)
    files = list(files_of(found)) if found else []
    listed = any(os.path.basename(file) == "INSTALLER" for file in files)
    return listed and all(os.path.exists(file) for file in files if not file.endswith(".pyc"))


def _remove(name: str, files: Sequence[str]) -> None:
    """Remove the files of a package, those of others excepted, and the folders that are empty."""
    others = {
        file
        for one in distributions()
        if canonicalize_name(one.metadata["Name"] or "") != name
        for file in files_of(one)
    }
    for file in map(Path, files):
        if str(file) in others:
            continue
        if file.parent.name.endswith(".dist-info"):
            shutil.rmtree(file.parent, ignore_errors=True)
        compiled = Path(cache_from_source(str(file)))
        for one in (file, *compiled.parent.glob(f"{escape(file.stem)}.*")):
            with suppress(OSError):
                one.unlink()
            _remove_empty(one.parent)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those above it that are empty, up to the packages' own."""
    ends = set(map(Path, sysconfig.get_paths().values()))
    with suppress(OSError):
        while folder not in ends:
            folder.rmdir()
            folder = folder.parent


def _remove_aside(files: Sequence[str]) -> None:
    """Remove the folders that pip renamed to remove them: ~AME beside NAME."""
    for root in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        inside = [Path(file).relative_to(root) for file in files if file.startswith(root + os.sep)]
        for top in {path.parts[0] for path in inside if len(path.parts) > 1}:
            shutil.rmtree(Path(root, f"~{top[1:]}"), ignore_errors=True)
