"""The packages that t2i needs: which versions are installed, and which of these are outside of what
is tested.

What is tested reaches from the lower bounds that t2i's distribution declares to the newest
versions, in `tested.txt`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from t2i.core.registry.tables import HOST

TESTED = Path(__file__).parent / "tested.txt"
"""`NAME==VERSION` lines: the newest versions with which all tests have passed. `.ci/versions.py`
writes it."""


def needed() -> dict[str, Requirement]:
    """The packages that t2i needs itself, with or without TensorBoard, by name."""
    found = [Requirement(text) for text in requires(HOST) or []]
    applicable = [
        need
        for need in found
        if need.marker is None or need.marker.evaluate({"extra": "tensorboard"})
    ]
    return {canonicalize_name(need.name): need for need in applicable}


def installed() -> dict[str, str]:
    """Versions of t2i and of the packages that it needs, by name; what is not installed is left
    out."""
    found = {}
    for name in (HOST, *sorted(needed())):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def newest_tested() -> dict[str, Version]:
    """The newest tested version of each package that t2i needs, by name."""
    pins = (line.split("==") for line in TESTED.read_text("utf-8").split())
    return {canonicalize_name(name): Version(newest) for name, newest in pins}


def untested() -> dict[str, str]:
    """Installed packages that t2i needs, and whose version is outside of what is tested -> why it
    is."""
    needs, newest, found = needed(), newest_tested(), {}
    for name, here in installed().items():
        if name in needs and (reason := _outside(Version(here), needs[name], newest.get(name))):
            found[name] = reason
    return found


def _outside(here: Version, need: Requirement, newest: Version | None) -> str | None:
    if not need.specifier.contains(here, prereleases=True):
        return f"t2i needs {need.specifier}"
    if (
        newest is not None and Version(here.public) > newest
    ):  # without +cpu, which makes a version no newer
        return f"newer than {newest}"
    return None
