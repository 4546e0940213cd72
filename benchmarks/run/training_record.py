"""What the results record of a run besides its scores: settings, cost, log, and the machine."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from t2i.benchmarks.figures import TrainingCost
from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun
from t2i.benchmarks.run.training_log import read_curve
from t2i.core.io.documents import checked
from t2i.core.io.files import check_regular
from t2i.core.io.json_files import read_object
from t2i.core.io.sealed import MANIFEST
from t2i.core.models.model import Model
from t2i.core.runs.folder import Run
from t2i.core.runs.record import versions


def forget_peak_memory() -> None:
    """Reset the peaks of memory use, so that a model's peak does not include the model's before it.

    The peak of the processor's memory can be reset on Linux only.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # proc(5): resets the peak resident set size


_SUMMARY = (
    "steps", "images", "seconds", "wall_seconds", "images_per_second", "parameters",
    "peak_memory_bytes", "stages", "device", "precision", "threads",
)  # fmt: skip


def training_record(entry: PlannedRun, run: Run, model: Model) -> dict[str, Any]:
    """Collect the settings and the cost of a row's training.

    Args:
        entry: The planned run, whose configuration is recorded.
        run: The run.
        model: The trained model.

    Returns:
        Folder of the run, whether it was given, its configuration without vocabulary, and the
        numbers of its summary (time, memory, parameters). A run without a summary has the
        generator's number of parameters only.
    """
    summary = summary_of(run)
    record = {key: summary[key] for key in _SUMMARY if key in summary}
    generator = sum(p.numel() for p in model.generator.parameters())
    record.setdefault("parameters", {"generator": generator})
    config = {key: value for key, value in entry.config.dump().items() if key != "encoder"}
    encoder = {
        key: value for key, value in entry.config.encoder.dump().items() if key != "vocabulary"
    }
    return {
        "run": entry.place.name if entry.place else str(run.path),
        "given": entry.given,
        **record,
        "config": {**config, "encoder": encoder},
    }


def summary_of(run: Run) -> dict[str, Any]:
    """Read the summary of a run, whoever wrote it.

    Args:
        run: The run.

    Returns:
        The content of its file; empty if there is none.

    Raises:
        UserError: The file cannot be read, or a figure in it is wrong.
    """
    file = run.summary_file
    if not file.exists():
        return {}
    summary = read_object(file, f"run {run.path}", finite=True)
    checked(TypeAdapter(TrainingCost), summary, str(file), "restore the file from where it is from")
    return summary


def check_records(plan: BenchmarkPlan) -> None:
    """Check what is read of finished runs once they are scored, before anything is sampled.

    Args:
        plan: The plan of the benchmark.

    Raises:
        UserError: The summary or the log of a run is damaged.
    """
    for entry in plan.runs:
        if entry.given or entry.run.complete:
            summary_of(entry.run)
            read_curve(entry.run.metrics_file)


def model_digest(entry: PlannedRun) -> str:
    """Hash the weights of a row's model, so that scores of other weights are not taken for its own.

    Args:
        entry: The planned run, which is finished.

    Returns:
        SHA-256 in hexadecimal: of the manifest of a run's model or of a checkpoint, and of every
        file of another project's model.
    """
    place = entry.place
    folder = place.model_folder or place.path if place else entry.run.model
    if (folder / MANIFEST).is_file():
        return _sha256(folder / MANIFEST)
    if folder.is_file():
        return _sha256(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    check_regular(path, "")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the software that scores and times come from.

    Args:
        device: The device of the models.

    Returns:
        Versions of libraries, system, device and number of threads.
    """
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
