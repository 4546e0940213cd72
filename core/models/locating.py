"""What `--run` means: a run, a part of one, a benchmark's folder, a hub name, another project's.

It does not import torch, unless a model of the hub must be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from t2i.core.errors import UserError, nearest
from t2i.core.fetch.hub import HubName, hub_model
from t2i.core.io.files import check_regular
from t2i.core.io.json_files import json_object
from t2i.core.io.sealed import MANIFEST, settle
from t2i.core.models.strangers import ARCHIVES, TEXTS, WEIGHTS, stranger
from t2i.core.registry.tables import registry
from t2i.core.runs.folder import (
    RUNS,
    Run,
    is_run,
    model_name,
    newest_complete,
    newest_run,
    runs_in,
)

LATEST = "latest"
"""The word for the newest run."""
SHOWN = 6
"""How many runs an error lists."""


@dataclass(frozen=True)
class Located:
    """What a text means.

    Args:
        name: How the user would name it: a path, or a hub name.
        path: The folder or file.
        kind: "run"; "model" for the folder of a saved model; "checkpoint" for a folder step-N;
            "foreign" for what a plugin may open.
        run: The run that it is or belongs to. None: it belongs to none.
        note: What the user should know before the images are made. "": nothing.
    """

    name: str
    path: Path
    kind: Literal["run", "model", "checkpoint", "foreign"]
    run: Run | None = None
    note: str = ""

    @property
    def model_folder(self) -> Path | None:
        """The folder of the saved model. None for a checkpoint and for another project's files."""
        if self.kind == "run" and self.run:
            return self.run.model
        return self.path if self.kind == "model" else None


def located(
    text: str | Path, opens: Callable[[Path], bool] = lambda _: True, *, weights: bool = True
) -> Located:
    """Find what a text means. `--run`, `--guide` and `t2i.load` take the same.

    A path wins over a name under runs/, and that over a name of the hub.

    Args:
        text: A run, its folder model or best, a checkpoint of it, a benchmark's folder with one
            run; a name under runs/, "latest", a model's name; a name of the hub; or another
            project's folder or file.
        opens: Tells from the texts of a hub's model whether it can be opened, before its weights
            are fetched.
        weights: Whether to fetch the weights of a hub's model.

    Returns:
        What it is. An unfinished run without a model is its newest checkpoint.

    Raises:
        UserError: There is no such thing, or it is nothing that images can be made from. The
            message says what it is.
    """
    words, path = str(text), _path(text)
    if path.exists():
        return _existing(path)
    if not path.is_absolute() and (RUNS / path).exists():
        return _existing(RUNS / path)
    if words == LATEST:
        return _existing(_latest().path)
    if words in registry().models:
        return _existing(newest_run(words).path)
    hub = _hub_name(words)
    if hub is None:
        raise _unknown(path)
    folder = hub_model(hub, opens, weights=weights)
    place = _inside(folder) or Located(str(hub), folder, "foreign")
    return Located(str(hub), place.path, place.kind, place.run)


def _path(text: str | Path) -> Path:
    """Turn a text into a path. An empty one, as of an unset variable, would be this folder."""
    if not str(text).strip():
        raise UserError("the name of a run is empty; 't2i runs' lists the runs")
    return Path(str(text)).expanduser()


def weights_path(text: str) -> Path:
    """Find a folder or file of weights to import.

    Args:
        text: Its path, or a name of the hub.

    Returns:
        The path. One that does not exist is returned as it is, unless it is a name of the hub.

    Raises:
        UserError: The path is a pipe, a socket or a device, or the hub does not give the model.
    """
    path = Path(text).expanduser()
    check_regular(path, "")
    hub = None if path.exists() else _hub_name(text)
    return path if hub is None else hub_model(hub)


def _hub_name(text: str) -> HubName | None:
    """Read a name of the hub; None for a text that can only be a path."""
    is_file = Path(text).suffix.lower() in (*WEIGHTS, *TEXTS, *ARCHIVES)
    return None if is_file or text.startswith(f"{RUNS}/") else HubName.parse(text)


def located_run(text: str | Path) -> Run:
    """Find a run to go on with, finished or not (`t2i train --resume`).

    Args:
        text: A run, a folder in it, a benchmark's folder with one run, a name under runs/, or
            "latest": the run that was last worked on.

    Returns:
        The run. A folder that exists and is no run is returned as it is: resuming says what it is.

    Raises:
        UserError: There is no such run, or the folder holds several.
    """
    path = _path(text)
    if not path.exists() and not path.is_absolute() and (RUNS / path).exists():
        path = RUNS / path
    if not path.exists() and str(text) == LATEST:
        return max(_some_runs(), key=lambda run: run.changed)
    if not path.exists():
        raise _unknown(path)
    owner = run_around(path)
    if owner is not None:
        return owner
    held = list(runs_in(path))
    if len(held) > 1:
        raise _several(path, held)
    return held[0] if held else Run(path)


def run_around(path: Path) -> Run | None:
    """Find the run that a path is, or lies in.

    Args:
        path: A folder or file.

    Returns:
        The run. None if neither the path nor one of the three folders above it is one.
    """
    whole = path.absolute()
    for depth, folder in enumerate((whole, *whole.parents[:3])):
        if is_run(folder):
            return Run(path if depth == 0 else _up(path, depth))
    return None


def run_names() -> list[str]:
    """List the runs under runs/, as `--run` takes them.

    Returns:
        Their paths.
    """
    return [str(run.path) for run in runs_in(RUNS)]


def _up(path: Path, depth: int) -> Path:
    """The folder some levels above, relative as the path is if that is possible."""
    parents = path.parents if len(path.parents) >= depth else path.absolute().parents
    return parents[depth - 1]


# --- what exists ----------------------------------------------------------------------------------


def _existing(path: Path) -> Located:
    """Say what a path is that exists."""
    found = _inside(path)
    if found is not None:
        return found
    held = list(runs_in(path)) if path.is_dir() else []
    if len(held) == 1:
        return _of_run(held[0])
    if held:
        raise _several(path, held)
    if reason := stranger(path):
        owner = run_around(path)
        if owner is not None:
            raise UserError(
                f"{path} lies in the run {owner.path} and holds no weights: name the run itself, "
                f"--run {owner.path}"
            )
        raise UserError(reason)
    return Located(str(path), path, "foreign")


def _inside(path: Path) -> Located | None:
    """Say what a path is if it is a run, or the weights of one; else None."""
    if path.is_file():
        whole = path.name == "generator.safetensors" and (path.parent / MANIFEST).is_file()
        return _inside(path.parent) if whole else None
    if path.name in ("model", "best"):
        settle(path)
    if (path / "generator.safetensors").is_file() or _lists_generator(path):
        return Located(str(path), path, "model", run_around(path.parent))
    if is_checkpoint(path):
        return _checkpoint(path)
    if path.name == "checkpoints" and is_run(path.parent):
        return _newest_checkpoint(Run(path.parent), "")
    return _of_run(Run(path)) if is_run(path) else None


def is_checkpoint(path: Path) -> bool:
    """Tell by file names whether a folder is a checkpoint.

    Args:
        path: The folder.

    Returns:
        True for a folder step-N with state.json or weights, or in a run's folder of checkpoints.
    """
    signs = ("state.json", "modules.generator.safetensors")
    return path.name.startswith("step-") and (
        any((path / name).is_file() for name in signs)
        or (path.parent.name == "checkpoints" and path.is_dir() and is_run(path.parents[1]))
    )


def _lists_generator(path: Path) -> bool:
    """Whether a manifest lists a generator: the folder is a model even if its weights are lost."""
    listed = json_object(path / MANIFEST).get("files")
    return isinstance(listed, dict) and "generator.safetensors" in listed


def _checkpoint(path: Path) -> Located:
    run = Run(_up(path, 2))
    if not run.config_file.is_file():
        raise UserError(
            f"{path} is a checkpoint without its run: put it back into RUN/checkpoints, beside "
            "RUN/config.json"
        )
    return Located(str(path), path, "checkpoint", run)


def _of_run(run: Run) -> Located:
    """Locate the weights of a run: its model, or else its newest checkpoint."""
    settle(run.model)
    if run.model.is_dir():
        note = "" if run.complete else f"{run.path} is not finished: its newest model is used"
        return Located(str(run.path), run.path, "run", run, note)
    return _newest_checkpoint(run, f"{run.path} is not finished: its checkpoint of step {{}} is "
                              "used")  # fmt: skip


def _newest_checkpoint(run: Run, note: str) -> Located:
    steps = [step for step in run.steps_saved() if is_checkpoint(run.checkpoints / f"step-{step}")]
    if not steps:
        raise UserError(
            f"{run.path} has neither a model nor a checkpoint: it stopped too early; 't2i train "
            f"--resume {run.path}' goes on with it"
        )
    newest = run.checkpoints / f"step-{steps[-1]}"
    return Located(str(newest), newest, "checkpoint", run, note.format(steps[-1]))


# --- what does not --------------------------------------------------------------------------------


def _some_runs() -> list[Run]:
    """The runs under runs/; a UserError if there are none."""
    runs = list(runs_in(RUNS))
    if not runs:
        raise UserError(f"there is no run under {RUNS}/: 't2i train --model M' makes one")
    return runs


def _latest() -> Run:
    """The newest complete run of all."""
    found = newest_complete()
    if found is None:
        newest = max(_some_runs(), key=lambda run: run.changed)
        raise UserError(
            f"there is no complete run under {RUNS}/; {newest.path} is not finished: 't2i train "
            f"--resume {newest.path}' goes on with it, --run {newest.path} samples from it as it is"
        )
    return found


def _several(path: Path, runs: Sequence[Run]) -> UserError:
    """The error for a folder of several runs, which lists some of them."""
    names = [str(run.path.relative_to(path)) for run in runs[:SHOWN]]
    more = f" and {len(runs) - SHOWN} more ('t2i runs {path}' lists them)" if runs[SHOWN:] else ""
    return UserError(
        f"{path} holds {len(runs)} runs, {', '.join(names)}{more}: name one of them, such as "
        f"--run {runs[0].path}"
    )


def _unknown(path: Path) -> UserError:
    """The error for a name that means nothing; it names a run of a similar name."""
    if re.match(r"\w+:/", str(path)):
        return UserError(f"{path} is an address: download the file or folder, and name its path")
    owner = run_around(path)
    if owner is not None:
        saved = ", ".join(f"checkpoints/step-{step}" for step in owner.steps_saved()[-SHOWN:])
        return UserError(f"run {path}: no such file or directory; {owner.path} has "
                         f"{saved or 'no checkpoint'}")  # fmt: skip
    runs = list(runs_in(RUNS))
    known = {name for run in runs for name in (run.path.name, str(run.path))}
    known |= {LATEST, *filter(None, map(model_name, runs))} if runs else set()
    hint = nearest(str(path), known)
    if not hint.startswith("; did you mean"):
        hint = "; 't2i runs' lists the runs" if runs else "; 't2i train' makes one"
    if path.is_symlink():
        return UserError(f"run {path}: a link to {path.readlink()}, which does not exist")
    return UserError(f"run {path}: no such file or directory{hint}")
