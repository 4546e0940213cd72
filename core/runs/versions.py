"""The packages that t2i needs: their installed versions, and whether these are tested.

The tested range of a package reaches from the lower bound that t2i's distribution declares to the
version in `tested.txt`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from t2i.core.registry.tables import HOST

TESTED = Path(__file__).parent / "tested.txt"
"""File of the newest versions with which all tests have passed, as lines NAME==VERSION.

`.ci/versions.py` writes it.
"""


def needed() -> dict[str, Requirement]:
    """Return the direct requirements of t2i, including the optional TensorBoard.

    Returns:
        The requirements by canonical package name.
    """
    found = [Requirement(text) for text in requires(HOST) or []]
    applicable = [
        need
        for need in found
        if need.marker is None or need.marker.evaluate({"extra": "tensorboard"})
    ]
    return {canonicalize_name(need.name): need for need in applicable}


def host_version() -> str:
    """Return the version of t2i.

    Returns:
        Such as "0.1.0"; "unknown" if it is not installed as a package.
    """
    return _version(HOST) or "unknown"


def installed() -> dict[str, str]:
    """Return the installed versions of t2i and of the packages that it needs.

    Returns:
        Versions by name; packages that are not installed are left out.
    """
    versions = {name: _version(name) for name in (HOST, *sorted(needed()))}
    return {name: found for name, found in versions.items() if found is not None}


@cache
def _version(name: str) -> str | None:
    """Return the installed version of a package; None if it is not installed.

    It is read once: a run's settings hold the versions, and reading all takes a third of the time
    of a short training.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def newest_tested() -> dict[str, Version]:
    """Read the newest tested version of each package that t2i needs.

    Returns:
        Versions by canonical package name.
    """
    pins = (line.split("==") for line in TESTED.read_text("utf-8").split())
    return {canonicalize_name(name): Version(newest) for name, newest in pins}


def untested() -> dict[str, str]:
    """Find the installed packages that t2i needs and whose version is outside the tested range.

    Returns:
        The reason by package name.
    """
    needs, newest, found = needed(), newest_tested(), {}
    for name, here in installed().items():
        if name in needs and (reason := _outside(Version(here), needs[name], newest.get(name))):
            found[name] = reason
    return found


def _outside(here: Version, need: Requirement, newest: Version | None) -> str | None:
    """Return why a version is outside the tested range; None if it is inside."""
    if not need.specifier.contains(here, prereleases=True):
        return f"t2i needs {need.specifier}"
    if (
        newest is not None and Version(here.public) > newest
    ):  # `public` leaves out a local part such as +cpu, which does not make a version newer
        return f"newer than {newest}"
    return None
