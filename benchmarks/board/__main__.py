"""Train every model on `shapes` for the same time, score it, and write the board.

    python -m t2i.benchmarks.board                        # trains and scores what has no row yet
    python -m t2i.benchmarks.board --models dalle,parti   # these, even if they have rows
    python -m t2i.benchmarks.board --models ldm --seeds 3 # three trainings, a row for each
    python -m t2i.benchmarks.board --pictures DIR         # the twelve best on captioned pictures
    python -m t2i.benchmarks.board --enter OUT            # enters rows of 't2i bench'
    python -m t2i.benchmarks.board --pages                # only writes the pages again

Run it in a clone of the repository. A model is trained on one core, for twenty minutes on `shapes`
(which is ten minutes of a machine with two) and for ten on pictures. Each row is entered when it is
done, so Ctrl-C loses only the present one, and the same command goes on with it. Several of these
commands may run at once, each with its own --models, and each on a core of its own. The pictures in
DIR stay there: the board shows only their captions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from t2i.benchmarks.board.entering import COMMAND, enter, rows_of
from t2i.benchmarks.board.pages import check_place, write_pages, write_section
from t2i.benchmarks.board.sections import SHAPES, Section, of_pictures
from t2i.core.errors import T2IError, UserError
from t2i.core.io.names import names_in
from t2i.core.registry.tables import registry


def score(section: Section, model: str, out: Path, seeds: int = 1) -> None:
    """Train and score a model in a process with one thread. What is finished is kept.

    Args:
        section: The section of the board that gets the row.
        model: Its name.
        out: Folder of the benchmark.
        seeds: Number of trainings, from seed 0 on.

    Raises:
        UserError: The benchmark failed; it has said why.
    """
    budget = ["--minutes", f"{section.minutes:g}", "--seeds", str(seeds), "--jobs", "1"]
    command = [sys.executable, "-m", "t2i.cli", "bench", *section.bench,
               "--models", model, *budget, "--out", str(out)]  # fmt: skip
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if ended.returncode:
        raise UserError(f"'{model}' has no row: {' '.join(command)} ended with {ended.returncode}")


def add(root: Path, section: Section, found: Sequence[Path], out: Path) -> None:
    """Enter rows, and write the pages.

    Args:
        root: The repository's root.
        section: The section of the board that gets the rows.
        found: Folders of results of benchmarks.
        out: Folder of the runs. Its lock is held meanwhile, so that commands that run at once enter
            their rows one after the other.

    Raises:
        UserError: The results do not belong in this section.
    """
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        rows, kind, own = root / section.rows, section.bench[0], section is SHAPES
        entered = [name for each in found for name in enter(rows, each, kind, section.minutes, own)]
        pages(root, section)
    print(f"entered: {', '.join(entered)}")


def pages(root: Path, section: Section) -> None:
    """Write the pages of the rows that there are.

    Args:
        root: The repository's root.
        section: The section of the board.

    Raises:
        UserError: There is no row.
    """
    results = rows_of(root / section.rows)
    if results is None:
        pictures = f" --pictures {section.folder}" if section.folder else ""
        raise UserError(
            f"{root / section.rows}: it has no row yet; '{COMMAND}{pictures}' makes some"
        )
    if section is SHAPES:
        write_pages(root, results)
    else:
        write_section(root, section, results)


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
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="the section of these captioned pictures"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of each model")
    parser.add_argument("--out", type=Path, default=Path("runs/board"), help="folder of the runs")
    given = parser.parse_args(arguments)
    root, out = Path.cwd(), given.out
    try:
        section = of_pictures(given.pictures) if given.pictures else SHAPES
        check_place(root, section)
        if given.pages:
            pages(root, section)
            return
        if given.enter:
            add(root, section, given.enter, out)
            return
        models = section.wanted(root) if given.models is None else _named(given.models)
        if not models:
            print("no row is missing")
        for model in models:
            place = out / section.name / model
            score(section, model, place, given.seeds)
            add(root, section, [place], out)
    except T2IError as error:
        sys.exit(str(error))


def _named(text: str) -> list[str]:
    """Return the models that are named; an unknown name raises UserError."""
    names = names_in(text)
    for name in names:
        registry().models[name]
    return names


if __name__ == "__main__":
    main()
