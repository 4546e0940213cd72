"""Print the tested versions of packages, one `NAME==VERSION` a line.

`python .ci/versions.py lowest` prints the lower bounds in pyproject.toml as pins for pip. `.ci/run`
uses it. `python .ci/versions.py tested > core/runs/tested.txt` records the installed versions for
`t2i info`. Run it after `pip install -U '.[test]'` has installed the newest versions and `pytest`
has passed with them.
"""

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]


def declared(*extras: str) -> list[Requirement]:
    """List the requirements of the project and of some of its extras.

    Args:
        *extras: Names of extras.

    Returns:
        The requirements, each once, sorted.
    """
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in extras for text in PROJECT["optional-dependencies"][extra]),
    ]
    return [Requirement(text) for text in sorted(set(texts), key=str.lower)]


def bound(need: Requirement) -> str:
    """Return the lower bound of a requirement.

    Args:
        need: The requirement.

    Returns:
        The version after ">=".

    Raises:
        SystemExit: It has no lower bound.
    """
    found = [one.version for one in need.specifier if one.operator == ">="]
    return (
        found[0]
        if found
        else sys.exit(f"pyproject.toml: '{need}' has no lower bound: write {need.name}>=VERSION")
    )


def lowest() -> dict[str, str]:
    """Collect the lowest versions that pyproject.toml allows.

    Returns:
        Versions by the name of the package.
    """
    return {need.name: bound(need) for need in declared("test")}


def tested() -> dict[str, str]:
    """Collect the installed versions of the packages that the project needs.

    Returns:
        Versions by the name of the package, without local suffixes such as "+cu128".
    """
    return {need.name: Version(version(need.name)).public for need in declared("tensorboard")}


if __name__ == "__main__":
    pins = {"lowest": lowest, "tested": tested}[sys.argv[1]]()
    print("\n".join(f"{name}=={pinned}" for name, pinned in pins.items()))
