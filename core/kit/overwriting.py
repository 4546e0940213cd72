"""What a wheel would take from others: files, modules, commands, names, and Python's start."""

from __future__ import annotations

import configparser
import csv
import os
import re
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import all_suffixes
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from t2i.core.errors import UserError
from t2i.core.kit.changes import distribution_of
from t2i.core.registry.tables import HOST

ROOT = __name__.partition(".")[0]
"""The import name of the host."""

SCRIPTS = ("console_scripts", "gui_scripts")
"""Entry points that become commands."""

OF_PYTHON = re.compile(r"(python|pip)(w|[\d.]*)$|activate", re.IGNORECASE)
"""Names of commands that belong to an environment itself."""

SUFFIXES = sorted(all_suffixes(), key=len, reverse=True)
"""Endings of modules, long ones first."""


AT_START = ("sitecustomize", "usercustomize")
"""Modules that every Python imports when it starts, like the lines of files `*.pth`."""

LARGEST_TEXT = 1 << 20
"""Bytes of a file entry_points.txt that is read."""

UNSOUND = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, configparser.Error,
)  # fmt: skip
"""What reading a damaged wheel, or one with a password, raises."""


@dataclass
class _Claims:
    """What wheels would write, each with the name of its package and the member of the wheel."""

    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    modules: dict[str, tuple[str, str]] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)


def overwritten(wheels: Mapping[str, Path]) -> list[str]:
    """Find out which files, modules and commands of other packages wheels would take over.

    Files that are the same, byte for byte, do no harm.

    Args:
        wheels: Wheels by the canonical name of their package.

    Returns:
        One sentence for each pair of packages.

    Raises:
        UserError: A wheel cannot be read.
    """
    claims = _Claims()
    if not wheels:
        return []
    for name, wheel in wheels.items():
        _claim(claims, name, wheel)
    found: dict[tuple[str, str], dict[str, None]] = {}
    owned: set[str] = set()
    for name, owner, what in (
        *_of_packages(claims, wheels, owned), *_of_python(claims),
        *_of_nobody(claims, wheels, owned),
    ):  # fmt: skip
        found.setdefault((name, owner), {})[what] = None
    told = [
        f"{name} would overwrite {next(iter(whats))} of {owner}"
        + (f" (and {len(whats) - 1} more of its files)" if len(whats) > 1 else "")
        for (name, owner), whats in found.items()
    ]
    return [*told, *_pretences(claims, owned)]


def entry_points_of(wheel: Path) -> str:
    """Read what a wheel declares.

    Args:
        wheel: The wheel.

    Returns:
        The text of its entry_points.txt; empty if it has none.

    Raises:
        UserError: The wheel cannot be read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".dist-info/entry_points.txt"):
                    continue
                if member.file_size > LARGEST_TEXT:
                    raise ValueError(f"{member.filename} has {member.file_size:,} bytes")
                return archive.read(member).decode("utf-8")
    except UNSOUND as error:
        raise UserError(f"{wheel.name}: not a sound wheel: {error}") from None
    return ""


def files_to_come(wheels: Mapping[str, Path]) -> dict[str, list[str]]:
    """List what installing wheels writes, without what pip adds to the folder *.dist-info.

    Args:
        wheels: Wheels by the canonical name of their package.

    Returns:
        The absolute paths by package, commands included.

    Raises:
        UserError: A wheel cannot be read.
    """
    claims = _Claims()
    for name, wheel in wheels.items():
        _claim(claims, name, wheel)
    scripts = sysconfig.get_path("scripts")
    places = {file: name for file, (name, _) in claims.files.items()}
    places |= {os.path.join(scripts, command): name for command, name in claims.commands.items()}
    return {name: [file for file, owner in places.items() if owner == name] for name in wheels}


def files_of(distribution: Distribution) -> Iterator[str]:
    """List the files of an installed package.

    Args:
        distribution: The package.

    Yields:
        The absolute paths that its RECORD lists; none if it has no RECORD.
    """
    root = str(distribution.locate_file(""))
    for row in _rows(distribution):
        yield os.path.normpath(os.path.join(root, row))


def _claim(claims: _Claims, name: str, wheel: Path) -> None:
    """Add what a wheel would write."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.namelist() if not member.endswith("/")]
        commands = _commands(entry_points_of(wheel))
    except UNSOUND as error:
        raise UserError(f"{wheel.name}: not a sound wheel: {error}") from None
    scripts = sysconfig.get_path("scripts")
    for member in members:
        place = _place(member)
        claims.files[place] = (name, member)
        if module := _module(os.path.relpath(place, sysconfig.get_path("purelib"))):
            claims.modules[module] = (name, member)
        if os.path.dirname(place) == scripts:
            commands.append(os.path.basename(place))
    claims.commands |= dict.fromkeys(commands, name)


def _commands(text: str) -> list[str]:
    """Return the commands that a file entry_points.txt declares."""
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return [name for group in SCRIPTS if parser.has_section(group) for name in parser[group]]


def _place(member: str) -> str:
    """Return where pip would write a member of a wheel."""
    parts = member.split("/")
    if parts[0].endswith(".data") and len(parts) > 2:
        scheme = parts[1] if parts[1] in sysconfig.get_path_names() else "data"
        return os.path.normpath(os.path.join(sysconfig.get_path(scheme), *parts[2:]))
    return os.path.normpath(os.path.join(sysconfig.get_path("purelib"), *parts))


def _module(relative: str) -> str | None:
    """Return the full name of the module that a file in the folder of packages is, if it is one."""
    parts = relative.replace("\\", "/").split("/")
    suffix = next((one for one in SUFFIXES if parts[-1].endswith(one)), None)
    if suffix is None or parts[0] == ".." or os.path.isabs(relative):
        return None
    parts[-1] = parts[-1].removesuffix(suffix)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _of_packages(
    claims: _Claims, wheels: Mapping[str, Path], owned: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Return who takes what from which installed package: (name, owner, what).

    Places that belong to an installed package are added to `owned`.
    """
    seen: set[str] = set()
    purelib = sysconfig.get_path("purelib")
    tops = {"", *(_top(os.path.relpath(place, purelib)) for place in claims.files)}
    for distribution in distributions():
        owner = canonicalize_name(distribution.metadata["Name"] or "")
        if not owner or owner in seen:
            continue
        seen.add(owner)
        root = str(distribution.locate_file(""))
        for row in _rows(distribution):
            if _top(row) not in tops:  # for speed: there are a hundred thousand files
                continue
            place = os.path.normpath(os.path.join(root, row))
            owned.add(place)
            name, member = (
                claims.files.get(place) or claims.modules.get(_module(row) or "") or (owner, "")
            )
            if name != owner and not _same(wheels[name], member, place):
                yield name, owner, row
        for point in distribution.entry_points:
            taker = claims.commands.get(point.name, owner)
            if point.group in SCRIPTS and taker != owner:
                yield taker, owner, f"the command {point.name}"
    for module, (name, member) in claims.modules.items():
        if module.partition(".")[0] == ROOT and name != HOST:
            yield name, HOST, member


def _top(path: str) -> str:
    """Return the first part of a path without its ending; "" of a path that leads elsewhere."""
    return path.partition("/")[0].partition(".")[0]


def _rows(distribution: Distribution) -> list[str]:
    """Return the files of an installed package, relative to its folder."""
    text = distribution.read_text("RECORD")
    return [row[0] for row in csv.reader(text.splitlines()) if row] if text else []


def _same(wheel: Path, member: str, place: str) -> bool:
    """Return whether a member of a wheel is the file at a place, byte for byte."""
    if member.rpartition("/")[2] != os.path.basename(place):
        return False
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(place).read_bytes() == archive.read(member)
    except OSError:
        return False


def _of_nobody(
    claims: _Claims, wheels: Mapping[str, Path], owned: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Return who takes files that are there and belong to no package: (name, owner, what)."""
    packages = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
    library = sysconfig.get_path("stdlib") + os.sep
    scripts = sysconfig.get_path("scripts")
    unlisted = {name for name in wheels if (own := distribution_of(name)) and not _rows(own)}
    for place, (name, member) in claims.files.items():
        folder, file = os.path.split(place)
        told = folder == scripts and OF_PYTHON.match(file)
        free = place in owned or name in unlisted or not os.path.lexists(place)
        if not free and not told and not _same(wheels[name], member, place):
            of_python = place.startswith(library) and not place.startswith(packages)
            yield name, "Python" if of_python else "this environment", place


def _pretences(claims: _Claims, owned: set[str]) -> Iterator[str]:
    """Say who would run code at Python's start, or pass for another package."""
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for place, (name, member) in claims.files.items():
        root = next((root for root in roots if place.startswith(root + os.sep)), None)
        if root is None or place in owned:
            continue
        top = os.path.relpath(place, root).split(os.sep)[0]
        alone = os.path.dirname(place) == root
        if (alone and place.endswith(".pth")) or _top(top) in AT_START:
            yield f"{name} would run code whenever Python starts ({member})"
        stem, dot, kind = top.rpartition(".")
        told = canonicalize_name(stem.partition("-")[0])
        if f"{dot}{kind}" == ".egg-info" or (f"{dot}{kind}" == ".dist-info" and told != name):
            yield f"{name} would pass for another package too ({member})"


def _of_python(claims: _Claims) -> Iterator[tuple[str, str, str]]:
    """Return who takes commands of the environment itself: (name, owner, what)."""
    for command, name in claims.commands.items():
        if OF_PYTHON.match(command) and name != "pip":
            yield name, "this environment", f"the command {command}"
