"""Remove the paths of a person's machine from what is published."""

from __future__ import annotations

import getpass
import platform
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from t2i.core.errors import UserError

_ABSOLUTE = re.compile(r"(/|~[\w.-]*(/|$)|[A-Za-z]:[\\/]|\\\\)")
_INSIDE = re.compile(
    r"(?<![\w.:/\\~-])(/[\w.~+@-]+/|~[\w.-]*/|[A-Za-z]:[\\/](?![\\/])|\\\\)[^\s'\",;:()\[\]{}]*"
)
"""A path within a text. It has two parts at least, because words such as "/h" are no paths."""
COMMON = ("root", "user", "ubuntu", "admin", "localhost")
"""Names of accounts and machines that tell nothing."""
HOMES = ("home", "Users")
"""Folders whose entries have the names of persons."""


def without_paths(value: Any, where: str = "") -> tuple[Any, list[str]]:
    """Replace absolute paths in a JSON value by their last parts.

    Args:
        value: The value: a document, or a part of one.
        where: Dotted name of the value.

    Returns:
        The value without the paths, and the dotted names of the texts that had some.
    """
    if isinstance(value, Mapping):
        found = {
            key: without_paths(one, f"{where}.{key}" if where else str(key))
            for key, one in value.items()
        }
        return {key: one for key, (one, _) in found.items()}, _names(found.values())
    if isinstance(value, list):
        items = [_in_list(one, where) for one in value]
        return [one for one, _ in items], list(dict.fromkeys(_names(items)))
    if not isinstance(value, str):
        return value, []
    last = where.rpartition(".")[2]
    plain = _command(value) if last == "command" else _text(value)
    return plain, [where] if plain != value else []


def _in_list(value: Any, where: str) -> tuple[Any, list[str]]:
    """Treat an entry of a list, which may be a vocabulary: a word such as "/h" stays."""
    if isinstance(value, str):
        plain = _INSIDE.sub(lambda match: _last(match[0]), value)
        return plain, [where] if plain != value else []
    return without_paths(value, where)


def _names(found: Any) -> list[str]:
    return [name for _, names in found for name in names]


def _text(text: str) -> str:
    if _ABSOLUTE.match(text) and "\n" not in text:
        return _last(text)  # the whole text is one path, perhaps with spaces
    return _INSIDE.sub(lambda match: _last(match[0]), text)


def _command(line: str) -> str:
    """Replace the paths in a command line, also those of NAME=PATH."""
    try:
        words = shlex.split(line)
    except ValueError:
        return _text(line)
    changed = []
    for word in words:
        before, equals, value = word.rpartition("=")
        changed.append(before + equals + _text(value))
    return line if changed == words else shlex.join(changed)


def _last(path: str) -> str:
    """The last part of a path; "home" for a person's folder, whose name is the person's."""
    windows = "\\" in path or re.match(r"[A-Za-z]:", path)
    parts = (PureWindowsPath if windows else PurePosixPath)(path).parts
    if len(parts) < 2 or (len(parts) == 3 and parts[1] in HOMES) or parts[-1].startswith("~"):
        return "home" if len(parts) > 1 or path.startswith("~") else "."
    return parts[-1]


def refuse_traces(name: str, data: bytes, run: Path) -> None:
    """Check that a text which is to be published holds no path of this machine.

    Args:
        name: Its name in the repository.
        data: Its content.
        run: The run's folder.

    Raises:
        UserError: The home folder or the path of the run is in it.
    """
    for path in {Path.home(), run.absolute()}:
        if len(path.parts) > 1 and re.search(
            re.escape(str(path).encode()) + rb"(?![\w.-])", data.replace(b"\\\\", b"\\")
        ):
            raise UserError(
                f"{run}: {name} holds the path {path} of this machine, which would be published: "
                "remove it from the file, or leave the file out"
            )


def names_in(data: bytes) -> list[tuple[str, str]]:
    """Find the names of this account and this machine in a text that is to be published.

    Args:
        data: The text.

    Returns:
        Each name that is in it as a word, and what it is a name of.
    """
    found = []
    names = {_account(): "the name of this account", platform.node(): "the name of this machine"}
    for name, kind in names.items():
        word = re.escape(name.encode())
        if (
            len(name) > 2
            and name not in COMMON
            and re.search(rb"(?<!\w)" + word + rb"(?!\w)", data)
        ):
            found.append((name, kind))
    return found


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return ""
