"""Which data set reads a folder, by what is in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.registry.specs import DatasetSpec, import_object
from t2i.core.registry.tables import registry


@dataclass(frozen=True)
class Recognised:
    """The data set that reads a folder.

    Args:
        name: Its registered name.
        why: What was found in the folder, in a few words.
    """

    name: str
    why: str


def recognised(folder: Path) -> Recognised:
    """Find the data set that reads a folder.

    Args:
        folder: The folder.

    Returns:
        The only data set that recognises it. One whose layout is general gives way to others.

    Raises:
        UserError: The folder does not exist, or no data set, or several, recognise it.
    """
    path = folder.expanduser()
    if not path.is_dir():
        raise UserError(f"{folder} is no folder")
    found = {spec: why for spec in registry().datasets if (why := _words(spec, path))}
    special = [spec for spec in found if not spec.general] or list(found)
    if len(special) == 1:
        return Recognised(special[0].name, found[special[0]])
    if special:
        told = "; ".join(f"'{spec.name}' ({found[spec]})" for spec in special)
        raise UserError(f"{folder}: several data sets read it: {told}; say which by its name")
    known = ", ".join(spec.name for spec in registry().datasets if spec.recognise)
    raise UserError(
        f"{folder}: no data set recognises what is in it ({known}); 't2i datasets' lists all, and "
        "docs/own-images.md the layouts"
    )


def _words(spec: DatasetSpec, folder: Path) -> str | None:
    """Return what a data set recognises in a folder."""
    if spec.recognise is None:
        return None
    try:
        words: str | None = import_object(spec.recognise)(folder)
    except OSError:  # a folder that may not be read
        return None
    return words


def refuse_folder(
    name: str, folder: str | Path, options: tuple[str, str] = ("--data", "--data-dir")
) -> None:
    """Raise an error if a data set reads no folder, though one is given.

    Args:
        name: Registered name of the data set; others are not checked here.
        folder: The folder.
        options: The options that name the data set and its folder, for the error.

    Raises:
        UserError: It reads none. The error names the data set that would read the folder.
    """
    if name not in registry().datasets or registry().datasets[name].takes_dir:
        return
    try:
        other = recognised(Path(folder)).name
        hint = f"; did you mean {options[0]} {other} {options[1]} {shlex.quote(str(folder))}?"
    except UserError as error:
        hint = f" ({error})"
    raise UserError(f"data set '{name}' reads no folder, but {folder} is given{hint}")


def folder_for_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """Take a folder that stands where a data set's name belongs as the folder.

    Args:
        section: The section `data` of some settings.

    Returns:
        The section, with `dir` instead of a `name` that is no data set but a folder.
    """
    name = section.get("name")
    is_folder = (
        isinstance(name, str)
        and name not in registry().datasets
        and "dir" not in section
        and Path(name).expanduser().is_dir()
    )
    if not is_folder:
        return dict(section)
    return {key: value for key, value in section.items() if key != "name"} | {"dir": str(name)}
