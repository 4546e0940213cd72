"""The records that a run writes: its configuration, its log, its broken examples."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from t2i.core.interfaces.dataset import BrokenExample, Contents
from t2i.core.io.files import detach, read_lines, write_parts
from t2i.core.io.json_files import write_json
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run
from t2i.core.runs.versions import installed


def versions() -> dict[str, str]:
    """Return the versions of Python, of t2i and of the packages that it needs.

    Returns:
        Versions by name; packages that are not installed are left out.
    """
    return {"python": platform.python_version(), **installed()}


def write_config(
    run: Run,
    config: RunConfig,
    fingerprint: str | None,
    command: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write RUN/config.json; training does this before its first step.

    Args:
        run: The run.
        config: Its configuration.
        fingerprint: Hash of the data set's content; None if the data set was never read (imported
            weights).
        command: The command line that made the run.
        more: Further entries, which resuming needs: "device", the name of the device that the user
            chose, "from", the run whose weights training started from, "base", what adapters
            change, and "data_written", when the data set's files were written. None: none of them.
    """
    tables = registry()
    origins = {
        "model": tables.models.origin(config.model),
        "encoder": tables.encoders.origin(config.encoder.name),
    }
    if config.sampler.name in tables.samplers:
        origins["sampler"] = tables.samplers.origin(config.sampler.name)
    if config.data.name in tables.datasets:
        origins["data"] = tables.datasets.origin(config.data.name)
    document = {
        "format": 1,
        "run": config.dump(),
        "versions": versions(),
        "origins": {kind: str(origin) for kind, origin in origins.items()},
        "data_fingerprint": fingerprint,
        "command": command,
        **(more or {}),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(run.config_file, document)


def write_contents(run: Run, contents: Mapping[str, Contents]) -> None:
    """Write RUN/data.json: what was found in the data set's folder, and what was left out.

    Args:
        run: The run.
        contents: The contents of each split that is used, by its name.
    """
    document = {
        split: {"found": list(own.found), "passed_over": dict(own.passed_over)}
        for split, own in contents.items()
    }
    write_json(run.data_file, document)


class Log:
    """The log of a run, RUN/metrics.jsonl.

    Args:
        path: The file metrics.jsonl.
        added: Called with each entry that was appended: the run's trackers receive it too.
    """

    def __init__(
        self, path: Path, added: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> None:
        self._path, self._added = path, added

    def forget_after(self, step: int) -> None:
        """Drop the lines of the steps that a resumed run repeats, and a half-written last line.

        Args:
            step: The last step to keep.
        """
        if not self._path.exists():
            return
        lines = read_lines(self._path, "log")
        write_parts(self._path, (line + b"\n" for line in lines if _step_of(line) <= step))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            entry: A JSON object with at least "step", "stage", "images_per_second" and "losses"
                (numbers by name). Losses that are not finite are written as null.
        """
        # JSON has no NaN. An update that was skipped leaves a gap.
        losses = {
            name: value if math.isfinite(value) else None for name, value in entry["losses"].items()
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "losses": losses}, allow_nan=False) + "\n")
        self._added(entry)

    def add_scores(self, entry: Mapping[str, Any]) -> None:
        """Append a line of scores.

        Args:
            entry: A JSON object with at least "step", "stage" and "scores" (by name, each with
                "value").
        """
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._added(entry)


MOST_BROKEN = 100_000
"""Lines of the list of broken examples that are read again."""


class BrokenFile:
    """The file RUN/broken.jsonl: every broken example that the run has met, in all its sessions.

    Args:
        path: The file.
        writes: Whether this process writes it; only one process of a run does.
    """

    def __init__(self, path: Path, writes: bool) -> None:
        self._path, self._writes = path, writes

    def read(self) -> list[BrokenExample]:
        """Read the broken examples of earlier sessions.

        Returns:
            The examples; lines that cannot be read, such as a half-written last one, are left out.
        """
        if not self._path.exists():
            return []
        found = []
        for line in islice(read_lines(self._path, "list of broken examples"), MOST_BROKEN):
            try:
                entry = json.loads(line)
                found.append(BrokenExample(str(entry["file"]), str(entry["reason"])))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
        return found

    def add(self, error: BrokenExample) -> None:
        """Append an example, if this process writes the file.

        Args:
            error: The example, with its reason. The caller adds each only once.
        """
        if self._writes:
            detach(self._path)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"file": error.where, "reason": error.reason}) + "\n")


def _step_of(line: bytes) -> float:
    """Return the step of a line of the log; infinity if the line cannot be read."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")


def peak_memory(device: torch.device) -> int:
    """Measure the largest amount of memory that this process has used so far.

    Args:
        device: The device that was computed on.

    Returns:
        Bytes: those that torch allocated if it is a CUDA device, else the resident size (0 on
        Windows, which does not tell).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
