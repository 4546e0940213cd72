"""Trackers of experiments, such as TensorBoard and trackio: what a run logs is sent to them too.

The setting `track` names them, and accelerate has a class for each. Only the first process of a run
sends anything. A tracker that fails is left out from then on; training does not depend on it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from accelerate.tracking import (
    LOGGER_TYPE_TO_CLASS,
    GeneralTracker,
    get_available_trackers,
)

from t2i.core.engine.random_state import random_state, set_random_state
from t2i.core.errors import UserError, in_one_line, nearest
from t2i.core.io.json_files import json_object, write_json
from t2i.core.runs.folder import Run

PROJECT = "t2i"
"""The project of a tracker in which all runs are."""

PACKAGES = {
    "tensorboard": "'t2i-zoo[tensorboard]'",
    "trackio": "'t2i-zoo[trackio]'",
    "comet_ml": "comet-ml",
}
"""What pip installs for a tracker, where that is not its name."""

TRACKIO_PLACES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables that name a place on the network for trackio's runs."""


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers are known and installed, before anything is trained.

    Args:
        names: Names of the trackers, as the setting `track` has them.

    Raises:
        UserError: One is unknown, or not installed. The message has the line that installs it.
    """
    known = {str(name): tracker for name, tracker in LOGGER_TYPE_TO_CLASS.items()}
    here = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise UserError(f"track: no tracker is named '{name}'{nearest(name, known)}")
        own = known[name].__module__ == GeneralTracker.__module__
        if own and name not in here:
            raise UserError(
                f"track: {name} is not installed: pip install {PACKAGES.get(name, name)}"
            )


class Trackers:
    """The trackers of a run. Before `following` and after it they receive nothing.

    Args:
        names: Names of the trackers. Empty: none.
        run: The run. RUN/trackers.json keeps what identifies it in each tracker.
        say: Reports one line: that a tracker failed.
    """

    def __init__(self, names: Sequence[str], run: Run, say: Callable[[str], None]) -> None:
        self._names, self._run, self._say = names, run, say
        self._followed: dict[str, GeneralTracker] = {}

    @contextmanager
    def following(self, settings: Callable[[], Mapping[str, Any]], step: int) -> Iterator[None]:
        """Start the trackers, and finish them at the end of the block.

        A run that was tracked before goes on in the same place, where the tracker can do that.

        Args:
            settings: Returns the run's configuration, nested; its hash is among it. Called only if
                there is a tracker, because the hash may take a while.
            step: Steps that are done. A tracker drops what it has of later ones if it can.

        Yields:
            Nothing.
        """
        for name in self._names:
            with self._guarded(name, "cannot be started"):
                self._start(name, settings, step)
        try:
            yield
        finally:
            for name, tracker in list(self._followed.items()):
                with self._guarded(name, "did not finish"):
                    tracker.finish()
            self._followed.clear()

    def log(self, entry: Mapping[str, Any]) -> None:
        """Send a line of the log.

        Args:
            entry: The line, as `Log.add` takes it.
        """
        values = tracked_values(entry)
        for name, tracker in list(self._followed.items()):
            with self._guarded(name, f"failed at step {entry['step']}"):
                tracker.log(values, step=entry["step"])

    def grid(self, path: Path, step: int) -> None:
        """Send a grid of samples to the trackers that take images.

        Args:
            path: The grid, a PNG.
            step: The step that it was sampled at.
        """
        for name, tracker in list(self._followed.items()):
            with self._guarded(name, f"failed at the images of step {step}"):
                _send_images(name, tracker, path, step)

    def _start(self, name: str, settings: Callable[[], Mapping[str, Any]], step: int) -> None:
        known = json_object(self._run.trackers_file)
        again = name in known
        identity = str(known.get(name) or uuid4().hex)
        classes: dict[str, Any] = {str(own): one for own, one in LOGGER_TYPE_TO_CLASS.items()}
        kind = classes[name]
        more = _options(name, self._run.path, identity, again, step)
        project = name if name == "tensorboard" else PROJECT  # its folder in the run
        folder = (str(self._run.path),) if kind.requires_logging_directory else ()
        with _local(name):
            tracker = kind(project, *folder, **more)
            if hasattr(tracker, "start"):  # earlier versions of accelerate start it in `__init__`
                tracker.start()
        if not again or name == "trackio":  # trackio keeps the newest configuration only
            tracker.store_init_configuration(flat(settings()))
        if name == "mlflow":
            identity = tracker.tracker.info.run_id
        write_json(self._run.trackers_file, known | {name: identity})
        self._followed[name] = tracker

    @contextmanager
    def _guarded(self, name: str, what: str) -> Iterator[None]:
        """Keep a tracker's failure, and the random numbers that it draws, away from training."""
        state = random_state()
        try:
            yield
        except Exception as error:  # whatever a tracker's library raises
            self._followed.pop(name, None)
            self._say(
                f"warning: tracker {name} {what} ({in_one_line(error)}) and receives nothing "
                "more; training does not need it, and metrics.jsonl has everything"
            )
        finally:
            set_random_state(state)


def tracked_values(entry: Mapping[str, Any]) -> dict[str, float]:
    """Choose what a tracker receives of a line of the log.

    Args:
        entry: The line: losses, learning rates, speed and scores, of which it may lack any.

    Returns:
        Numbers by name, such as "STAGE/LOSS" and "scores/NAME". Those that are not finite are left
        out.
    """
    values: dict[str, Any] = {
        f"{entry['stage']}/{name}": value for name, value in entry.get("losses", {}).items()
    }
    rates = entry.get("learning_rates", {})
    values |= {f"learning_rate/{name}": value for name, value in rates.items()}
    values |= {name: entry[name] for name in ("images_per_second", "seconds") if name in entry}
    for name, score in entry.get("scores", {}).items():
        values[f"scores/{name}"] = score.get("value") if isinstance(score, Mapping) else score
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings, as trackers take them.

    Args:
        settings: Settings by name.
        prefix: What each name begins with.

    Returns:
        Numbers and texts by dotted name. Lists are JSON.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found[prefix + name] = value
        else:
            found[prefix + name] = json.dumps(value)
    return found


def _options(name: str, folder: Path, identity: str, again: bool, step: int) -> dict[str, Any]:
    """Return what a tracker's library takes to name a run, and to go on with one."""
    if name == "tensorboard":
        return {"purge_step": step + 1} if again else {}
    if name == "wandb":
        return {"id": identity, "resume": "allow", "name": folder.name, "dir": str(folder)}
    if name == "swanlab":  # its identifiers have 21 characters
        return {"id": identity[:21], "resume": "allow", "experiment_name": folder.name}
    if name == "trackio":
        # trackio knows a run by its name only.
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        return {"name": f"{folder.name}-{identity[:8]}", "resume": "allow", **quiet}
    if name == "mlflow":
        return {"run_name": folder.name, "run_id": identity if again else None}
    if name == "comet_ml":
        return {"experiment_key": identity}
    return {}


@contextmanager
def _local(name: str) -> Iterator[None]:
    """Keep trackio off the network, unless its variables name a place there.

    It asks the hub whom a token belongs to, even for a run that stays on this machine.
    """
    if name != "trackio" or any(os.environ.get(variable) for variable in TRACKIO_PLACES):
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _send_images(name: str, tracker: GeneralTracker, path: Path, step: int) -> None:
    """Send a grid in the way that a tracker takes images; others receive none."""
    if name == "trackio":
        import trackio

        tracker.log({"samples": trackio.Image(str(path))}, step=step)
    elif name == "mlflow":
        tracker.log_artifact(str(path), "samples")
    elif hasattr(tracker, "log_images"):
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        more = {"dataformats": "NHWC"} if name == "tensorboard" else {}
        forms = {"tensorboard": pixels[None], "aim": Image.fromarray(pixels), "clearml": pixels}
        tracker.log_images({"samples": forms.get(name, [pixels])}, step=step, **more)
