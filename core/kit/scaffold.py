"""A plugin package to begin with: the files in `new-plugin/`, their placeholders filled in."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.registry.tables import HOST, registry

TEMPLATE = Path(__file__).parent / "new-plugin"
"""Plain text: `{{name}}`, `{{package}}` and `{{class}}` are replaced, `.txt` is dropped from the
names of files."""

RENAMED = {
    "package": "{{package}}",
    "test_package.py": "test_{{package}}.py",
    "gitignore": ".gitignore",
}
"""Name of a file or folder in the template -> its name in the package, where it is another."""


def write_package(name: str, folder: Path) -> list[Path]:
    """Writes a package of that name into a new or empty folder, and returns its files.

    UserError if the name is no name for a distribution and a model, is taken by something
    installed, or the folder is not empty.
    """
    words = _checked(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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
    """What the placeholders stand for."""
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
    for placeholder, word in words.items():
        text = text.replace("{{" + placeholder + "}}", word)
    return text
