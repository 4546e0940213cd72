"""The list of runs: what each is, how far it is, and its result. It does not import torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.documents import is_finite
from t2i.core.io.json_files import read_json
from t2i.core.io.locks import LOCK, folder_lock, is_held
from t2i.core.io.terminal import duration
from t2i.core.runs.folder import RUNS, Run, is_run, runs_in

TAIL = 20_000
"""How many bytes at the end of a log are read for its last line."""


@dataclass(frozen=True)
class ListedRun:
    """A run in the list.

    Args:
        run: Its folder.
        model: Name of the model; "?" if unknown, as for the other texts.
        preset: Name of the preset.
        data: Name of the data set.
        data_dir: Folder of the data set. "": none.
        state: "complete", "imported", "training", "interrupted", "not begun" or "damaged".
        step: Optimizer steps done.
        budget: What was planned, such as "900 steps" or "5 min". "": nothing.
        seconds: Time of training.
        created: When the run was begun, such as "2026-11-29T07:11:00+0000".
        losses: The last logged losses, by name.
        score: Title and value of the headline score of the benchmark that it belongs to.
        problem: Why a damaged run is damaged.
    """

    run: Run
    model: str = "?"
    preset: str = "?"
    data: str = "?"
    data_dir: str = ""
    state: str = "damaged"
    step: int = 0
    budget: str = ""
    seconds: float = 0.0
    created: str = ""
    losses: Mapping[str, float | None] = field(default_factory=dict)
    score: tuple[str, float] | None = None
    problem: str = ""

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        if self.state == "damaged":
            return f"damaged: {self.problem}"
        if self.state in ("imported", "not begun"):
            return self.state
        if self.state == "complete":
            return f"complete, {self.step} steps"
        if self.budget.endswith("min"):
            return f"{self.state} at step {self.step}, {duration(self.seconds)} of {self.budget}"
        return f"{self.state} at step {self.step} of {self.budget}"

    def document(self) -> dict[str, Any]:
        """Describe the run as a JSON document.

        Returns:
            All that is known of it, by name.
        """
        score = {"title": self.score[0], "value": self.score[1]} if self.score else None
        named = {name: value for name, value in vars(self).items() if name not in ("run", "score")}
        return {"run": str(self.run.path), **named, "losses": dict(self.losses), "score": score}


def list_runs(folder: Path = RUNS) -> list[ListedRun]:
    """List the runs in a folder, also those in the benchmarks' folders in it.

    Args:
        folder: A folder of runs, a benchmark's folder, or a run.

    Returns:
        The runs, the one last worked on first. Damaged ones say so.

    Raises:
        UserError: The folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory; name a folder of runs")
    runs = [Run(folder)] if is_run(folder) else list(runs_in(folder))
    return [describe(run) for run in sorted(runs, key=lambda run: run.changed, reverse=True)]


def describe(run: Run) -> ListedRun:
    """Read what a run is.

    Args:
        run: The run.

    Returns:
        The run as it is listed.
    """
    try:
        config, document = run_document(run)
    except UserError as error:
        return ListedRun(run, problem=_brief(error, run))
    section = config.get("data")
    data = section if isinstance(section, dict) else {}
    facts: dict[str, Any] = {
        "model": str(config.get("model", "?")),
        "preset": str(config.get("preset", "?")),
        "data": str(data.get("name", "?")),
        "data_dir": str(data.get("dir") or ""),
        "budget": _budget(config),
        "created": str(document.get("created", "")),
    }
    try:
        return ListedRun(run, **facts, **_done(run), score=_score(run))
    except UserError as error:
        return ListedRun(run, **facts, problem=_brief(error, run))


def _brief(error: UserError, run: Run) -> str:
    """An error without the name of the run, which stands in the same line."""
    return str(error).removeprefix(f"run {run.path}: ").replace(f"{run.path}{os.sep}", "")


def run_document(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a run's config.json without checking the settings.

    Args:
        run: The run.

    Returns:
        The settings, and the whole document.

    Raises:
        UserError: The file cannot be read, or is no configuration of a run.
    """
    document = read_json(run.config_file, f"run {run.path}", finite=True)
    config = document.get("run") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise UserError(f"run {run.path}: {run.config_file} is no configuration of a run")
    return config, document


def _budget(config: Mapping[str, Any]) -> str:
    minutes, steps = config.get("minutes"), config.get("steps")
    return f"{minutes:g} min" if isinstance(minutes, int | float) else f"{steps} steps"


def _done(run: Run) -> dict[str, Any]:
    """Read how far a run is."""
    last = last_line(run)
    losses = _losses(last.get("losses"))
    if run.summary_file.is_file():
        summary = run.summary()
        if not run.model.is_dir():
            raise UserError(f"run {run.path}: {run.model} is missing")
        return {
            "state": "imported" if "imported" in summary else "complete",
            "step": int(_number(summary.get("steps"))),
            "seconds": _number(summary.get("seconds")),
            "losses": losses,
        }
    saved = run.steps_saved()
    step = max(int(_number(last.get("step"))), saved[-1] if saved else 0)
    begun = bool(saved) or bool(last)
    state = "training" if is_training(run) else "interrupted" if begun else "not begun"
    return {
        "state": state, "step": step, "seconds": _number(last.get("seconds")), "losses": losses
    }  # fmt: skip


def _number(value: object) -> float:
    """Return a number that somebody may have written; 0 for anything else."""
    return float(value) if isinstance(value, int | float) and is_finite(value) else 0.0


def _losses(found: object) -> dict[str, float | None]:
    """Return the losses of a line; None for those that are not finite."""
    if not isinstance(found, dict):
        return {}
    return {
        name: float(value) if is_finite(value) and value is not None else None
        for name, value in found.items()
        if value is None or isinstance(value, int | float)
    }


def last_line(run: Run) -> dict[str, Any]:
    """Read the last whole line of a run's log.

    Args:
        run: The run.

    Returns:
        The line's object. If it has no losses, because it holds scores, those of the newest line
        that has some are in it. Empty if there is none.
    """
    if not run.metrics_file.is_file():
        return {}
    try:
        with open(run.metrics_file, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    newest: dict[str, Any] = {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):  # half-written, or the cut first line
            continue
        if isinstance(found, dict):
            newest = {**found, **newest}
            if "losses" in newest:
                break
    return newest


def is_training(run: Run) -> bool:
    """Tell whether a process trains in a run's folder at the moment.

    Args:
        run: The run.

    Returns:
        Whether its lock is held.
    """
    return (run.path / LOCK).is_file() and is_held(folder_lock(run.path))


# --- the score ------------------------------------------------------------------------------------


def _score(run: Run) -> tuple[str, float] | None:
    """Find the headline score of a run that a benchmark trained."""
    results = run.path.parent.parent / "results.json"
    if run.path.parent.name != "runs" or not results.is_file():
        return None
    return _headlines(results, results.stat().st_mtime_ns).get(run.path.name)


@lru_cache(maxsize=64)
def _headlines(results: Path, changed: int) -> Mapping[str, tuple[str, float]]:
    """Read the headline scores of a benchmark: name of the row -> title and value."""
    try:
        document = read_json(results, "results", finite=True)
        column = document["headline"]
        place = (column["set"], column["measure"], column["score"])
        return {
            str(row["name"]): (str(column["title"]), float(_at(row["scores"], place)))
            for row in document["rows"]
            if isinstance(_at(row["scores"], place), int | float)
        }
    except (UserError, KeyError, TypeError, AttributeError):
        return {}


def _at(scores: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        scores = scores.get(key, {})
    return scores
