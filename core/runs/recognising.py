"""Which data set reads a folder, by what is in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.terminal import note
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import DatasetSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.settings import DataConfig
from t2i.core.settings.layers import merge


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
    """Find the data set that reads a folder, or a file that is a data set.

    Args:
        folder: The folder or file.

    Returns:
        The only data set that recognises it. One whose layout is general gives way to others.

    Raises:
        UserError: The folder does not exist, or no data set, or several, recognise it.
    """
    path = folder.expanduser()
    if not (path.is_dir() or path.is_file()):
        raise UserError(f"{folder} is no folder")
    found = {spec: why for spec in registry().datasets if (why := _words(spec, path))}
    special = [spec for spec in found if not spec.general] or list(found)
    if len(special) == 1:
        return Recognised(special[0].name, found[special[0]])
    if special:
        told = "; ".join(f"'{spec.name}' ({found[spec]})" for spec in special)
        raise UserError(f"{folder}: several data sets read it: {told}; say which by its name")
    if path.is_file():
        raise UserError(
            f"{folder} is a file that no data set reads by itself; name a folder that it lies in"
        )
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


def with_data_set(
    layers: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, Mapping[str, Any]]]:
    """Let a folder decide the data set, where it is given and the data set is not.

    A data set of the preset that reads a folder is kept. Otherwise a line says which one it is.

    Args:
        layers: Settings, each with its name for errors; the first is the preset's.

    Returns:
        The layers. A folder in place of a data set's name has become the folder.

    Raises:
        UserError: The data set that is named reads no folder, or none recognises the folder.
    """
    given = [
        (where, {**layer, "data": _folder_for_name(layer["data"])})
        if isinstance(layer.get("data"), Mapping)
        else (where, layer)
        for where, layer in layers
    ]
    data: dict[str, Any] = {}
    for _, layer in given[1:]:
        if isinstance(layer.get("data"), Mapping):
            data = merge(data, layer["data"])
    folder = data.get("dir")
    if folder is None:
        return given
    if "name" in data:
        refuse_folder(str(data["name"]), str(folder))
        return given
    preset = (given[0][1].get("data") or {}).get("name") or registry().datasets.default().name
    if registry().datasets[preset].takes_dir:
        return given
    found = recognised(Path(str(folder)))
    note(f"data set: {found.name}, for {found.why} in {folder}")
    (where, first), *others = given
    return [(where, {**first, "data": {"name": found.name}}), *others]


def in_folder(data: Choice[DataConfig], folder: str | Path | None) -> Choice[DataConfig]:
    """Let a data set read a folder, written in full: the working directory no longer matters.

    Args:
        data: The data set.
        folder: The folder. None: the data set's settings decide, and without one nothing changes.

    Returns:
        The data set with the full path in `dir`.

    Raises:
        UserError: The data set reads no folder.
    """
    if folder is not None:
        refuse_folder(data.name, folder)
    where = data.config.dir if folder is None else str(folder)
    if where is None:
        return data
    path = Path(where).expanduser()
    # Of what is not there, the data set itself says what is wrong.
    written = os.path.abspath(path) if path.exists() else where
    return Choice(data.name, data.config.model_copy(update={"dir": written}))


def _folder_for_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section `data`, with `dir` instead of a `name` that is no data set but a path."""
    name = section.get("name")
    is_path = (
        isinstance(name, str)
        and name not in registry().datasets
        and "dir" not in section
        and Path(name).expanduser().exists()
    )
    if not is_path:
        return dict(section)
    return {key: value for key, value in section.items() if key != "name"} | {"dir": str(name)}
