"""Writing a new plugin package: the files in `new-plugin/`, with their placeholders replaced."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.clutter import entries
from t2i.core.registry.tables import HOST, registry

TEMPLATE = Path(__file__).parent / "new-plugin"
"""Folder of the template.

`{{name}}`, `{{package}}` and `{{class}}` are replaced, and `.txt` is dropped from the file names.
"""

RENAMED = {
    "package": "{{package}}",
    "test_package.py": "test_{{package}}.py",
    "gitignore": ".gitignore",
}
"""Names in the package of the template's files and folders that are named differently there."""


def write_package(name: str, folder: Path) -> list[Path]:
    """Write a new plugin package.

    Args:
        name: Name of the distribution and of its model.
        folder: Where to write it. It must not exist, or be empty.

    Returns:
        The files of the package.

    Raises:
        UserError: The name is not valid, or is taken by something installed; or the folder is not
            empty.
    """
    words = _checked(name)
    if folder.exists() and (not folder.is_dir() or entries(folder)):
        raise UserError(
            f"{folder} is there already, and not empty: choose another --out, or remove it"
        )
    written = []
    for source in sorted(TEMPLATE.rglob("*.txt")):
        parts = source.relative_to(TEMPLATE).as_posix().removesuffix(".txt").split("/")
        target = folder.joinpath(*(_filled(RENAMED.get(part, part), words) for part in parts))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(source.read_text("utf-8"), words), "utf-8")
        written.append(target)
    return written


def _checked(name: str) -> dict[str, str]:
    """Check a name, and return what each placeholder stands for."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UserError(
            f"'{name}' is no name for a plugin: lower-case letters and digits, parts joined by '-'"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or find_spec(package) is not None:
        raise UserError(
            f"'{package}' is a word or a package that Python knows already: choose another name"
        )
    if name in {spec.name for spec in registry().models} or name == HOST:
        raise UserError(f"the name '{name}' is taken: 't2i models' lists those that are")
    return {
        "name": name,
        "package": package,
        "class": "".join(word.capitalize() for word in package.split("_")),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    """Replace the placeholders."""
    for placeholder, word in words.items():
        text = text.replace("{{" + placeholder + "}}", word)
    return text
