"""Count the public functions and classes whose docstrings a documentation tool can render in full.

    python .ci/docstrings.py            # a count for each room; exit code 1 if anything is missing
    python .ci/docstrings.py PATH ...   # what is missing in these files and folders, a line each

Public is what has no leading underscore, in a module and class without one. A docstring is complete
if it is in Google's style and names each parameter under `Args:` (of a class, each field or each
parameter of `__init__`), and if it has `Returns:` or `Yields:` where a function returns something.
An override without a docstring has that of the method it overrides. Fields of settings and
dataclasses may have a docstring below them instead.
"""

from __future__ import annotations

import ast
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import griffe

TOP = ("core", "benchmarks", "web", "cli", "plugins", "t2i")
ROOT = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """A public function or class.

    Args:
        path: Its file.
        line: Its first line.
        name: Its name, within the module.
        missing: What its docstring lacks. "": it is complete.
    """

    path: Path
    line: int
    name: str
    missing: str


def findings(paths: list[Path]) -> Iterator[Finding]:
    """Check every public function and class.

    Args:
        paths: Files, and folders, of which all files are checked.

    Yields:
        One finding for each, complete or not.
    """
    for path in sorted(file for place in paths for file in _files(place)):
        if not path.stem.startswith("_") or path.stem == "__init__":
            yield from _inside(path, ast.parse(path.read_text("utf-8")), "")


def _files(path: Path) -> list[Path]:
    """List a file, or the Python files of a folder."""
    return (
        [path]
        if path.is_file()
        else [file for file in path.rglob("*.py") if ".venv" not in file.parts]
    )


def _inside(path: Path, scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Finding]:
    """Check the public functions and classes of a module or class."""
    for node in scope.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        name = prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield Finding(path, node.lineno, name, _class_lacks(node))
            yield from _inside(path, node, f"{name}.")
        elif not _is(node, "overload"):
            inherited = isinstance(scope, ast.ClassDef) and _overrides(scope, node.name)
            yield Finding(path, node.lineno, name, _function_lacks(node, inherited))


def _function_lacks(node: Function, inherited: bool) -> str:
    """Name what the docstring of a function lacks; `inherited` if a base class documents it."""
    text = ast.get_docstring(node)
    if not text:
        return "" if inherited else "docstring"
    if inherited or _is(node, "property") or _is(node, "cached_property") or _is(node, "setter"):
        return ""
    if _is(node, "command"):  # click shows each option's own help
        return ""
    sections = _sections(text)
    lacks = [name for name in _parameters(node) if name not in sections["parameters"]]
    lacks += [
        f"no such parameter: {name}"
        for name in sections["parameters"]
        if name not in _parameters(node)
    ]
    if _returns(node) and not sections["returns"]:
        lacks.append("Returns")
    return ", ".join(lacks)


def _class_lacks(node: ast.ClassDef) -> str:
    """Name what the docstring of a class lacks: fields and parameters of `__init__`."""
    text = ast.get_docstring(node)
    if not text:
        return "docstring"
    sections = _sections(text)
    named = {*sections["parameters"], *sections["attributes"]} | _fields_with_docstrings(node)
    named |= _inherited_fields(node)
    wanted = [field for field in _fields(node) if not field.startswith("_")]
    for method in node.body:
        if isinstance(method, Function) and method.name == "__init__":
            own = _sections(ast.get_docstring(method) or "")["parameters"]
            wanted += [name for name in _parameters(method) if name not in own]
    return ", ".join(name for name in wanted if name not in named)


@cache
def _sections(text: str) -> dict[str, tuple[str, ...]]:
    """Parse a docstring with griffe: names under Args and Attributes, presence of Returns."""
    found: dict[str, tuple[str, ...]] = {"parameters": (), "attributes": (), "returns": ()}
    for section in griffe.Docstring(text).parse("google"):
        kind = section.kind.value
        if kind in ("parameters", "other parameters"):
            found["parameters"] += tuple(item.name.lstrip("*") for item in section.value)
        elif kind == "attributes":
            found["attributes"] += tuple(item.name for item in section.value)
        elif kind in ("returns", "yields"):
            found["returns"] += ("yes",)
    return found


def _parameters(node: Function) -> list[str]:
    """List the parameters of a function, without self and cls."""
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    if names and names[0] in ("self", "cls"):
        names = names[1:]
    names += [a.arg for a in arguments.kwonlyargs]
    return names + [a.arg for a in (arguments.vararg, arguments.kwarg) if a]


def _returns(node: Function) -> bool:
    """Tell whether a function returns something that a docstring must describe."""
    note = node.returns
    return note is not None and ast.unparse(note) not in ("None", "NoReturn", "Never", "Self")


def _is(node: Function, decorator: str) -> bool:
    """Tell whether a function has a decorator of this name."""
    return any(
        decorator in ast.unparse(one).split("(")[0].split(".") for one in node.decorator_list
    )


def _fields(node: ast.ClassDef) -> list[str]:
    """List the annotated fields of a class that are not class variables."""
    return [
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and "ClassVar" not in ast.unparse(one.annotation)
    ]


def _fields_with_docstrings(node: ast.ClassDef) -> set[str]:
    """List the fields of a class that have a docstring below them."""
    pairs = zip(node.body, node.body[1:], strict=False)
    return {
        one.target.id
        for one, after in pairs
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def _inherited_fields(node: ast.ClassDef) -> set[str]:
    """List the fields that base classes within the project document."""
    found: set[str] = set()
    for base in node.bases:
        for parent in _classes().get(ast.unparse(base).split("[")[0].split(".")[-1], []):
            sections = _sections(ast.get_docstring(parent) or "")
            found |= {*sections["parameters"], *sections["attributes"]}
            found |= _fields_with_docstrings(parent)
            if parent.name != node.name:
                found |= _inherited_fields(parent)
    return found


@cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    """Collect every class of the project by its name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for file in (file for top in TOP for file in _files(ROOT / top)):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def _overrides(node: ast.ClassDef, method: str, seen: frozenset[str] = frozenset()) -> bool:
    """Tell whether a base class, direct or not, documents a method of this name."""
    for base in node.bases:
        name = ast.unparse(base).split("[")[0].split(".")[-1]
        if name in seen:
            continue
        for parent in _classes().get(name, []):
            documented = any(
                isinstance(one, Function) and one.name == method and ast.get_docstring(one)
                for one in parent.body
            )
            if documented or _overrides(parent, method, seen | {name}):
                return True
    return False


def main(arguments: list[str]) -> int:
    """Print what is missing, or counts.

    Args:
        arguments: Files and folders, for which a line is printed for each docstring that lacks
            something. Empty: the complete docstrings of each room are counted.

    Returns:
        The exit code: 1 if something is missing, else 0.
    """
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    found = list(
        findings([Path(one).resolve() for one in arguments] or [ROOT / top for top in TOP])
    )
    missing = [one for one in found if one.missing]
    if arguments:
        for one in missing:
            print(f"{one.path.relative_to(ROOT)}:{one.line}: {one.name}: {one.missing}")
    else:
        whole, lacking = (Counter(_room(one.path) for one in some) for some in (found, missing))
        for room in sorted(whole):
            print(f"{room}: {whole[room] - lacking[room]} of {whole[room]}")
    print(
        f"{len(found) - len(missing)} of {len(found)} public functions and classes "
        "are documented in full"
    )
    return 1 if missing else 0


def _room(path: Path) -> str:
    """Return the room of a file: the first two folders."""
    return "/".join(path.relative_to(ROOT).parts[:2]) if path.parent != ROOT else str(path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
