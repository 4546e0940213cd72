"""What is recorded of a run beside its scores: settings, cost, log, and the machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from t2i.benchmarks.run.plan import PlannedRun
from t2i.core.models.model import Model
from t2i.core.runs.folder import Run
from t2i.core.runs.record import versions


def forget_peak_memory() -> None:
    """Starts the measurement of peak memory anew, so that a model's does not hold that of the one before it. The
    processor's can be reset on Linux alone."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # proc(5): resets the peak resident set size


_SUMMARY = (
    "steps", "images", "seconds", "wall_seconds", "images_per_second", "parameters", "peak_memory_bytes", "stages",
    "device", "precision", "threads",
)  # fmt: skip


def training_record(entry: PlannedRun, run: Run, model: Model) -> dict[str, Any]:
    """What a row's training was and cost. An imported or unfinished run has no summary: then only what the model
    itself tells is there."""
    summary = run.summary() if run.summary_file.is_file() else {}
    record = {key: summary[key] for key in _SUMMARY if key in summary}
    generator = sum(p.numel() for p in model.generator.parameters())
    record.setdefault("parameters", {"generator": generator})
    config = {key: value for key, value in entry.config.dump().items() if key != "encoder"}
    encoder = {
        key: value for key, value in entry.config.encoder.dump().items() if key != "vocabulary"
    }
    return {
        "run": str(run.path),
        "given": entry.given,
        **record,
        "config": {**config, "encoder": encoder},
    }


def curve(run: Run, points: int = 300) -> list[dict[str, Any]]:
    """The log of a run, thinned to about `points` lines."""
    if not run.metrics_file.is_file():
        return []
    lines = read_lines(run.metrics_file)
    return lines[:: max(1, len(lines) // points)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; a last line cut short by a crash is left out."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Where scores and times were taken."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        **versions(),
        "system": platform.platform(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
    }
