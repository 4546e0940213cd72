"""The versions of packages that are tested, for `.ci/run` and for `t2i info`, one `NAME==VERSION` a
line.

`python .ci/versions.py lowest` prints the lower bounds that pyproject.toml declares, as pins for
pip. `python .ci/versions.py tested > core/runs/tested.txt` notes what is installed, for `t2i info`:
do it where `pip install -U '.[test]'` has brought the newest versions, and `pytest` has passed with
them.
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
    """What the project needs, and what some of its extras need, each once."""
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in extras for text in PROJECT["optional-dependencies"][extra]),
    ]
    return [Requirement(text) for text in sorted(set(texts), key=str.lower)]


def bound(need: Requirement) -> str:
    """The version that `>=` names. SystemExit where there is none: what is not declared cannot be
    tested."""
    found = [one.version for one in need.specifier if one.operator == ">="]
    return (
        found[0]
        if found
        else sys.exit(f"pyproject.toml: '{need}' has no lower bound: write {need.name}>=VERSION")
    )


def lowest() -> dict[str, str]:
    return {need.name: bound(need) for need in declared("test")}


def tested() -> dict[str, str]:
    return {need.name: Version(version(need.name)).public for need in declared("tensorboard")}


if __name__ == "__main__":
    pins = {"lowest": lowest, "tested": tested}[sys.argv[1]]()
    print("\n".join(f"{name}=={pinned}" for name, pinned in pins.items()))
