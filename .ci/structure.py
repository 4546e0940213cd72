"""Measure the structure of a checkout: rooms, import arrows, circles, longest files and functions.

    python .ci/structure.py [ROOT]        # any checkout of this project, of any age

A folder's rooms are its files and subfolders. There is an arrow from one room to another if a file
of the first imports a file of the second. A circle is a set of rooms, or of files, in which arrows
lead from each to every other. Imports for type checking alone count too.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

TOP = ("core", "plugins", "benchmarks", "web", "cli")
WIDE = 100  # columns

Graph = Mapping[Path, set[Path]]
"""What each file or room imports."""


def sources(root: Path) -> list[Path]:
    """List the project's Python files, without tests and empty files.

    Args:
        root: Root of the checkout.

    Returns:
        Paths relative to the root, sorted.
    """
    found = (path for room in TOP for path in (root / room).rglob("*.py"))
    return sorted(path.relative_to(root) for path in found if path.read_text("utf-8").strip())


def imports(root: Path) -> Graph:
    """Find the imports between files, anywhere in a file.

    Args:
        root: Root of the checkout.

    Returns:
        The files that each file imports.
    """
    files = set(sources(root))
    return {path: {to for to in _imported(root / path, files) if to != path} for path in files}


def _imported(path: Path, files: set[Path]) -> Iterable[Path]:
    """Yield the files of the project that a file imports, perhaps more than once."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (file for name in names if (file := _file(name, files)))


def _file(name: str, files: set[Path]) -> Path | None:
    """Find the file of a module or of a name in it, such as "t2i.core.errors.UserError"."""
    parts = name.split(".")
    if parts[0] != "t2i":
        return None
    for end in range(len(parts), 1, -1):
        place = Path(*parts[1:end])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path in files:
                return path
    return None


def rooms(graph: Graph, folder: Path) -> dict[Path, set[Path]]:
    """Find the rooms of a folder and the arrows between them.

    Args:
        graph: The files that each file imports.
        folder: Folder relative to the root.

    Returns:
        The other rooms of the folder that each room imports.
    """
    found: dict[Path, set[Path]] = defaultdict(set)
    for file, targets in graph.items():
        room = _room(file, folder)
        if room is None:
            continue
        found[room] |= {
            to for to in (_room(target, folder) for target in targets) if to not in (None, room)
        }
    return dict(found)


def _room(file: Path, folder: Path) -> Path | None:
    """Return the room of a folder that a file is in, None if it is in none."""
    if not file.is_relative_to(folder) or file == folder / "__init__.py":
        return None
    return folder / file.relative_to(folder).parts[0]


def circles(graph: Graph) -> list[list[Path]]:
    """Find the circles of a graph, by Tarjan's algorithm (1972).

    Args:
        graph: What each file or room imports.

    Returns:
        The circles of at least two nodes, each sorted.
    """
    number: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[Path]] = []

    def visit(node: Path) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for to in sorted(graph.get(node, ())):
            if to not in number:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in stack:
                low[node] = min(low[node], number[to])
        if low[node] == number[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def folders(root: Path) -> list[Path]:
    """List the folders with source files.

    Args:
        root: Root of the checkout.

    Returns:
        Paths relative to the root, the top ones first.
    """
    inside = {parent for path in sources(root) for parent in path.parents if parent != Path(".")}
    return sorted(inside, key=lambda folder: (len(folder.parts), folder))


def _lengths(root: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Count the lines of every file and every function: (lines, name) each, longest first."""
    files, functions = [], []
    for path in sources(root):
        text = (root / path).read_text("utf-8")
        files.append((len(text.splitlines()), str(path)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(
                    ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}")
                )
    return sorted(files, reverse=True), sorted(functions, reverse=True)


def main(root: Path) -> None:
    """Print the measurements.

    Args:
        root: Root of the checkout.
    """
    graph = imports(root)
    print(f"{len(graph)} files, {sum(map(len, graph.values()))} imports of one another")
    print(f"{'folder':42} rooms arrows circles files")
    for folder in folders(root):
        inside = rooms(graph, folder)
        if len(inside) > 1:
            count = sum(file.is_relative_to(folder) for file in graph)
            arrows = sum(map(len, inside.values()))
            print(f"{folder!s:42} {len(inside):5} {arrows:6} {len(circles(inside)):7} {count:5}")
    for circle in circles(graph):
        print("circle of files:", ", ".join(map(str, circle)))
    lines, functions = _lengths(root)
    print("longest files:", ", ".join(f"{name} {count}" for count, name in lines[:5]))
    print("longest functions:", ", ".join(f"{name} {count}" for count, name in functions[:5]))
    rows = [
        line
        for path in graph
        for line in (root / path).read_text("utf-8").splitlines()
        if line.strip()
    ]
    print(
        f"lines over {WIDE} columns: {100 * sum(len(row) > WIDE for row in rows) / len(rows):.1f} %"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
