"""Train every model on `shapes` for the same time, score it, and write the board.

    python -m t2i.benchmarks.board                       # trains and scores what has no row yet
    python -m t2i.benchmarks.board --models dalle,parti  # these, even if they have rows
    python -m t2i.benchmarks.board --enter OUT           # enters rows of 't2i bench shapes'
    python -m t2i.benchmarks.board --pages               # only writes the pages again

Run it in a clone of the repository. A model is trained for twenty minutes on one core, which is ten
minutes of a machine with two. Each row is entered when it is done, so Ctrl-C loses only the present
one, and the same command goes on with it. Several of these commands may run at once, each with its
own --models, and each on a core of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from t2i.benchmarks.board.entering import enter, models_on, rows_of
from t2i.benchmarks.board.members import wanted_models
from t2i.benchmarks.board.pages import BOARD, write_pages
from t2i.core.errors import T2IError, UserError
from t2i.core.registry.tables import registry

MINUTES = 20
"""Training time of a model on one core."""


def score(model: str, out: Path) -> None:
    """Train and score a model in a process with one thread. What is finished is kept.

    Args:
        model: Its name.
        out: Folder of the benchmark.

    Raises:
        UserError: The benchmark failed; it has said why.
    """
    command = [sys.executable, "-m", "t2i.cli", "bench", "shapes", "--models", model,
               "--minutes", str(MINUTES), "--out", str(out)]  # fmt: skip
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if ended.returncode:
        raise UserError(f"'{model}' has no row: {' '.join(command)} ended with {ended.returncode}")


def add(root: Path, found: Sequence[Path], out: Path) -> None:
    """Enter rows, and write the pages.

    Args:
        root: The repository's root.
        found: Folders of results of benchmarks.
        out: Folder of the runs. Its lock is held meanwhile, so that commands that run at once enter
            their rows one after the other.

    Raises:
        UserError: The results do not belong on this board.
    """
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        entered = [name for each in found for name in enter(root / BOARD, each)]
        pages(root)
    print(f"entered: {', '.join(entered)}")


def pages(root: Path) -> None:
    """Write the pages of the rows that there are.

    Args:
        root: The repository's root.

    Raises:
        UserError: There is no row.
    """
    results = rows_of(root / BOARD)
    if results is None:
        raise UserError(
            f"{root / BOARD}: it has no row yet; 'python -m t2i.benchmarks.board' makes some"
        )
    write_pages(root, results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the rows that are wanted, and write the board.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m t2i.benchmarks.board", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--models", help="names, with commas (default: those without a row)")
    parser.add_argument("--enter", type=Path, nargs="+", metavar="OUT", help="folders of results")
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    parser.add_argument("--out", type=Path, default=Path("runs/board"), help="folder of the runs")
    given = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        if not (root / "docs" / "board.md").is_file():
            raise UserError(
                f"{root}: no clone of the repository (it has no docs/board.md): go there"
            )
        (root / BOARD).mkdir(exist_ok=True)
        if given.pages:
            pages(root)
            return
        if given.enter:
            add(root, given.enter, given.out)
            return
        for model in _wanted(given.models, root):
            score(model, given.out / model)
            add(root, [given.out / model], given.out)
    except T2IError as error:
        sys.exit(str(error))


def _wanted(text: str | None, root: Path) -> list[str]:
    """Return the models to make rows of; an unknown name raises UserError."""
    if text is None:
        there = models_on(root / BOARD)
        return [name for name in wanted_models() if name not in there]
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        registry().models[name]
    return names


if __name__ == "__main__":
    main()
