"""The rows of the board: results of `t2i bench`, joined in one folder."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from t2i.benchmarks.results import Column, Results, Row
from t2i.benchmarks.run.grids import REAL, load_images
from t2i.benchmarks.run.operations import count
from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes
from t2i.core.io.images import png
from t2i.core.models.loading import load

COMMAND = "python -m t2i.benchmarks.board"
"""The command that makes the board."""


def rows_of(board: Path) -> Results | None:
    """Read the rows that the board has.

    Args:
        board: Its folder.

    Returns:
        The results; None if it has none yet.

    Raises:
        UserError: They are damaged.
    """
    return Results.load(board) if (board / "results.json").exists() else None


def models_on(board: Path) -> list[str]:
    """List the models that have a row.

    Args:
        board: The board's folder.

    Returns:
        Their names, each once.
    """
    results = rows_of(board)
    rows = results.rows if results else []
    return list(dict.fromkeys(row.model for row in rows if row.kind == "model"))


def enter(
    board: Path, found: Path, benchmark: str, minutes: float, real_images: bool = True
) -> list[str]:
    """Enter the rows of a benchmark's results. The former rows of their models are replaced.

    Args:
        board: The board's folder; it is made if it does not exist.
        found: The folder of the results, with the images of their grid.
        benchmark: The benchmark that the board shows.
        minutes: Training time of its models on one core, minutes.
        real_images: Whether the strip of real images is kept.

    Returns:
        Names of the rows of models that were entered.

    Raises:
        UserError: The results are those of another benchmark, protocol or budget, or are damaged.
    """
    new, old = Results.load(found), rows_of(board)
    if new.benchmark != benchmark:
        raise UserError(f"{found}: results of '{new.benchmark}', where '{benchmark}' belongs")
    if old and old.protocol_hash != new.protocol_hash:
        raise UserError(
            f"{found}: its protocol {new.protocol_hash[:12]} is not the board's "
            f"({old.protocol_hash[:12]}): score its runs again with 't2i bench {benchmark} --run'"
        )
    for row in new.rows:
        _check_budget(row, found, minutes)
    entered = [_trimmed(row, new) for row in new.rows]
    for row in entered if real_images else [row for row in entered if row.kind == "model"]:
        _keep_images(found, board, row, len(new.grid))
    replaced = {(row.kind, row.model) for row in entered}
    kept = [row for row in old.rows if (row.kind, row.model) not in replaced] if old else []
    order = ("real", "model", "floor")
    rows = sorted([*kept, *entered], key=lambda row: (order.index(row.kind), row.name))
    for name in {row.name for row in (old.rows if old else ())} - {row.name for row in rows}:
        strip(board, name).unlink(missing_ok=True)
    replace(
        new, rows=rows, columns=_columns(new, old), out=board, spent={}, command=COMMAND,
        budget={"minutes": minutes},
    ).save()  # fmt: skip
    return [row.name for row in entered if row.kind == "model"]


def strip(board: Path, row: str) -> Path:
    """Name the file of a row's images.

    Args:
        board: The board's folder.
        row: The row's name.

    Returns:
        The file: an image of each caption of the grid, side by side.
    """
    return board / f"{row}.png"


def _columns(new: Results, old: Results | None) -> list[Column]:
    """Return the columns of both, each once."""
    return list(dict.fromkeys([*(old.columns if old else ()), *new.columns]))


def _check_budget(row: Row, found: Path, minutes: float) -> None:
    """Check that a model was trained for the board's time, on one core.

    Raises:
        UserError: It was not.
    """
    if row.kind != "model":
        return
    had, threads = row.training.get("config", {}).get("minutes"), row.training.get("threads")
    if (had, threads) != (minutes, 1):
        time = f"{had:g} minutes" if had else "a number of steps"
        raise UserError(
            f"{found}: '{row.name}' was trained for {time} with {threads} threads, where "
            f"{minutes:g} minutes with one belong: set OMP_NUM_THREADS=1, and give --minutes "
            f"{minutes:g}"
        )


def _trimmed(row: Row, results: Results) -> Row:
    """Return a row without its curve, and with the command and the machine that made it."""
    if row.kind != "model":
        return row
    training = {
        **row.training,
        "run": _last_part(row.training.get("run")),
        "made": {
            "command": _without_places(results.command),
            "created": results.created,
            **results.environment,
        },
    }
    if data := row.training.get("config", {}).get("data"):
        data = {**data, "dir": data.get("dir") and _last_part(data["dir"])}
        training["config"] = {**row.training["config"], "data": data}
    sampling = {**row.sampling, **_operations(row, results.grid[0]["caption"])}
    return replace(row, curve=[], training=training, sampling=sampling)


def _last_part(place: str | None) -> str:
    """Return the name of a folder without its place, which is the maker's own."""
    return Path(place or "").name


def _without_places(command: str) -> str:
    """Return a command with the names of its folders alone."""
    words = (word.rpartition("=") for word in shlex.split(command))
    return shlex.join(f"{name}{equals}{_last_part(value)}" for name, equals, value in words)


def _operations(row: Row, caption: str) -> dict[str, int]:
    """Count the arithmetic of one image; nothing if the run is no longer there."""
    place = Path(str(row.training.get("run", "")))
    if not place.is_dir():
        return {}
    model = load(place, device="cpu")
    return {"operations": count(lambda: model.sample([caption], seed=0)).total}


def _keep_images(found: Path, board: Path, row: Row, captions: int) -> None:
    """Write the first image of each caption, side by side, into the board's folder."""
    folder = REAL if row.kind == "real" else row.name
    images = [load_images(found, folder, number)[:1] for number in range(captions)]
    if row.kind != "floor" and all(images):
        pixels = np.concatenate([np.asarray(image) for (image,) in images], axis=1)
        write_bytes(strip(board, folder), png(pixels))
