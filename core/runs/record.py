"""What a run writes down about itself: its configuration, its log, its summary."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.files import write_bytes, write_json
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run
from t2i.core.runs.versions import installed


def versions() -> dict[str, str]:
    """Versions of Python, of t2i and of the packages that it needs."""
    return {"python": platform.python_version(), **installed()}


def write_config(run: Run, config: RunConfig, fingerprint: str | None, command: str) -> None:
    """RUN/config.json, before the first step. fingerprint: of the data set; None where it was never
    read."""
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
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(run.config_file, document)


class Log:
    """RUN/metrics.jsonl, and TensorBoard's files if asked for."""

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self._path = path
        self._board = _board(tensorboard) if tensorboard else None

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that a resumed run will take again, and a half-written last
        line."""
        if not self._path.exists():
            return
        kept = [line for line in self._path.read_bytes().splitlines() if _step_of(line) <= step]
        write_bytes(self._path, b"".join(line + b"\n" for line in kept))

    def add(self, entry: Mapping[str, Any]) -> None:
        # JSON has no NaN: a skipped update leaves a gap.
        losses = {
            name: value if math.isfinite(value) else None for name, value in entry["losses"].items()
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "losses": losses}, allow_nan=False) + "\n")
        if self._board:
            for name, value in entry["losses"].items():
                self._board.add_scalar(f"{entry['stage']}/{name}", value, entry["step"])
            self._board.add_scalar("images_per_second", entry["images_per_second"], entry["step"])
            self._board.flush()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tensorboard=true needs TensorBoard: pip install 't2i-zoo[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder))


class BrokenFile:
    """RUN/broken.jsonl: the broken examples that the run has met in all its sessions, each once."""

    def __init__(self, path: Path, writes: bool) -> None:
        self._path, self._writes = path, writes

    def read(self) -> list[BrokenExample]:
        """What earlier sessions met; a half-written last line is left out."""
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                found.append(BrokenExample(str(entry["file"]), str(entry["reason"])))
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def add(self, error: BrokenExample) -> None:
        if self._writes:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"file": error.where, "reason": error.reason}) + "\n")


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def peak_memory() -> int:
    """Bytes: of the accelerator if there is one, else the largest resident size of this process so
    far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
