"""What `t2i install` is given: a folder, a file, an address, or the name of a package."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from t2i.core.errors import UserError

WHEEL = ".whl"
ARCHIVES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma", ".tlz",
)  # fmt: skip
"""Endings of source packages."""

PROJECT = ("pyproject.toml", "setup.py")
"""Files, one of which a folder must have to be a package."""


@dataclass(frozen=True)
class Target:
    """What to install.

    Args:
        text: What pip is given.
        local: Whether it is a folder or file of this machine.
        builds: Whether finding out what it is runs its code.
        meant: How the name of a package was understood, where that is not plain; else empty.
    """

    text: str
    local: bool
    builds: bool
    meant: str = ""


def target_of(text: str) -> Target:
    """Understand what the user names. Nothing is read but the names of files.

    A folder of the current folder wins over a package of that name.

    Args:
        text: A path, an address, or a requirement, such as "mynet", "mynet>=2" or "mynet @ URL".

    Returns:
        The target.

    Raises:
        UserError: It is a path where nothing is that can be installed, or no name at all.
    """
    if re.match(r"file:", text, re.IGNORECASE):
        return _path(unquote(urlsplit(text).path))
    if re.match(r"[a-z][a-z0-9+.-]+:(?=\S)(?!\\)", text, re.IGNORECASE):
        return Target(text, local=False, builds=not urlsplit(text).path.endswith(WHEEL))
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        requirement = None
    if requirement is not None and requirement.url:
        behind = target_of(requirement.url)
        return Target(text, behind.local, behind.builds)
    if requirement is None or text.lower().endswith((WHEEL, *ARCHIVES)):
        if _is_path(text):
            return _path(text)
        raise UserError(
            f"'{text}' is neither a path nor the name of a package; write ./FOLDER, a wheel, or a "
            f"name"
        )
    return _folder_of_that_name(requirement, text) or Target(text, local=False, builds=False)


def _is_path(text: str) -> bool:
    return (
        "/" in text or "\\" in text or text.startswith((".", "~"))
        or (text != "" and Path(text).exists())
        or text.lower().endswith((WHEEL, *ARCHIVES))
    )  # fmt: skip


def _path(text: str) -> Target:
    """Check a path, with extras in brackets or without."""
    path, extras = Path(text).expanduser(), ""
    if not path.exists() and (found := re.fullmatch(r"(.+)(\[[\w.,\s-]*\])", text)):
        path, extras = Path(found[1]).expanduser(), found[2]
    if path.is_dir():
        if not any((path / name).is_file() for name in PROJECT):
            raise UserError(f"{path} is no Python package: it has no {' and no '.join(PROJECT)}")
        return Target(_absolute(path) + extras, local=True, builds=True)
    if not path.exists():
        raise UserError(f"{text}: no such file or folder")
    name = path.name.lower()
    if not path.is_file() or not name.endswith((WHEEL, *ARCHIVES)):
        raise UserError(
            f"{path} is neither a folder, a wheel (.whl) nor a source package (.tar.gz, .zip)"
        )
    return Target(_absolute(path) + extras, local=True, builds=not name.endswith(WHEEL))


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _folder_of_that_name(requirement: Requirement, text: str) -> Target | None:
    """Return the folder that a bare name stands for; None if there is none."""
    if requirement.specifier or requirement.marker:
        return None
    name, folder = text.partition("[")[0].strip(), None
    with contextlib.suppress(OSError):
        key = canonicalize_name(name)
        same = [one for one in Path().iterdir() if canonicalize_name(one.name) == key]
        exact = [one for one in same if one.name == name]
        projects = [one for one in same if any((one / file).is_file() for file in PROJECT)]
        folder = next((one for one in [*exact, *projects] if one.is_dir()), None)
    if folder is None:
        return None
    try:
        found = _path(f"./{folder.name}")
    except UserError as error:
        raise UserError(
            f"{error}; for the package of that name on the index write '{name}>=0'"
        ) from None
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    meant = f"'{text}' is the folder ./{folder.name} here, not a package of the index"
    return Target(found.text + extras, local=True, builds=True, meant=meant)
