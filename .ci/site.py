"""Build the documentation site, and fail on any warning.

A broken link is a warning, and so is a docstring that cannot be rendered.

    python .ci/site.py            # into build/site/html
    python .ci/site.py serve      # build, then serve it at http://127.0.0.1:8000

The pages are the Markdown files of the repository, at their own paths, so that their links work in
both places, and a page of API reference for each room of the packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PACKAGES = ("core", "benchmarks", "web", "cli", "plugins")
GUIDES = (
    ("Start", "README.md"),
    ("First run", "docs/first-run.md"),
    ("Your own images", "docs/own-images.md"),
    ("Tuning a trained model", "docs/tuning.md"),
    ("Models and machines", "docs/models.md"),
    ("Sampling", "docs/sampling.md"),
    ("The page: draw, watch, judge", "docs/web.md"),
    ("Trackers and the hub", "docs/sharing.md"),
    ("Samplers, measured", "docs/samplers.md"),
    ("Benchmarks and scores", "docs/metrics.md"),
    ("Votes of people", "docs/votes.md"),
    ("The board: all models", "docs/board.md"),
    ("Learning in minutes", "docs/learning.md"),
    ("What was tried", "docs/learning-tiny.md"),
    ("Against mode collapse", "docs/collapse.md"),
    ("Speed runs", "docs/speedruns.md"),
    ("Data sets", "docs/data.md"),
    ("Plugins", "docs/plugins.md"),
    ("Questions and answers", "docs/faq.md"),
    ("Glossary", "docs/glossary.md"),
)
INSIDE = (
    ("Architecture", "docs/architecture.md"),
    ("Reliability", "docs/reliability.md"),
    ("Several processes", "docs/processes.md"),
    ("Many GPUs, many machines", "docs/clusters.md"),
    ("Style", "docs/style.md"),
    ("Contributing", "CONTRIBUTING.md"),
    ("Changes", "CHANGELOG.md"),
)
FACE = """# The Python face

Everything here comes from one import: `import t2i`.

::: t2i
    options:
      show_submodules: false
      members: {members}
"""


def main(arguments: list[str]) -> int:
    """Builds the site.

    Args:
        arguments: Nothing, or "serve".

    Returns:
        The exit code of mkdocs: not 0 if there was any warning.
    """
    shutil.rmtree(SITE, ignore_errors=True)
    for page in _pages():
        place = SITE / "source" / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_with_links_that_work(page), "utf-8")
    _link_packages()
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    settings["nav"] = _nav()
    (SITE / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # a notice of the theme, not of our pages
    command = [sys.executable, "-m", "mkdocs"]
    if arguments == ["serve"]:
        return subprocess.call([*command, "serve"], cwd=SITE)
    return subprocess.call([*command, "build", "--strict"], cwd=SITE)


@cache
def _pages() -> list[Path]:
    """The Markdown files that are tracked, but for templates."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [Path(path) for path in listed if not path.startswith(".")]


def _with_links_that_work(page: Path) -> str:
    """Read a page; links to folders lead to their README, links to other files become text."""

    def mended(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path, hash_, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not path:
            return match[0]
        there = (ROOT / page.parent / path).resolve()
        if there.is_dir() and (there / "README.md").is_file():
            return f"{text}({path.rstrip('/')}/README.md{hash_}{anchor})"
        if there.suffix == ".md":
            return match[0]
        if match[0].startswith("!"):
            copy = SITE / "source" / there.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, copy)
            return match[0]
        return text[1:-1]

    return re.sub(
        r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)", mended, (ROOT / page).read_text("utf-8")
    )


def _link_packages() -> None:
    """The packages as a tree that griffe can read without installing anything."""
    tree = SITE / "packages" / "t2i"
    tree.mkdir(parents=True)
    for file in (ROOT / "t2i").glob("*.py"):
        (tree / file.name).symlink_to(file)
    for name in PACKAGES:
        (tree / name).symlink_to(ROOT / name)


def _nav() -> list[Any]:
    """The pages in the order of the menu; writes those of the API reference."""
    plugins = [page for page in _pages() if page.parts[0] in ("plugins", "benchmarks", "examples")]
    listed = [page for page in plugins if len(page.parts) > 1]
    return [
        *[{title: page} for title, page in GUIDES if (ROOT / page).is_file()],
        {"Plugins in detail": [{_title(page): str(page)} for page in listed]},
        {"Python": list(_reference())},
        {"Inside": [{title: page} for title, page in INSIDE if (ROOT / page).is_file()]},
    ]


def _title(page: Path) -> str:
    return "/".join(page.parent.parts[1:]) or page.parent.name


def _reference() -> Iterator[dict[str, str]]:
    folder = SITE / "source" / "api"
    folder.mkdir()
    names = re.findall(
        r'^    "(\w+)",$',
        (ROOT / "t2i/__init__.py").read_text("utf-8").split("__all__ = ")[1],
        re.M,
    )
    members = [name for name in names if not name.startswith("__")]
    (folder / "t2i.md").write_text(FACE.format(members=members), "utf-8")
    yield {"t2i": "api/t2i.md"}
    for room in _rooms():
        name = "t2i." + ".".join(room.with_suffix("").parts)
        (folder / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n", "utf-8")
        yield {name: f"api/{name}.md"}


def _rooms() -> Iterator[Path]:
    """The rooms of the packages: of the plugins' folders, each plugin is one."""
    for top in PACKAGES[:2]:
        yield from (
            path.relative_to(ROOT) for path in sorted((ROOT / top).iterdir()) if _is_room(path)
        )
    for kind in sorted((ROOT / "plugins").iterdir()):
        if kind.is_dir():
            yield from (path.relative_to(ROOT) for path in sorted(kind.iterdir()) if _is_room(path))


def _is_room(path: Path) -> bool:
    if path.name.startswith(("_", ".")) or path.name in ("new-plugin", "plugin.py"):
        return False
    return path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
