"""Make the damaged models of a complete run again, from its sound checkpoints."""

from __future__ import annotations

from pathlib import Path

from t2i.core.engine import checkpoint
from t2i.core.io.sealed import intact
from t2i.core.models.loading import load_checkpoint
from t2i.core.runs.folder import Run


def damaged_models(run: Run) -> list[Path]:
    """Find the models of a complete run that are damaged. Every file of them is read.

    Args:
        run: The run.

    Returns:
        Their folders: RUN/model, RUN/best, both or neither. Neither if the run is not complete:
        resuming writes them anyway.
    """
    if not run.complete:
        return []
    models = [run.model, *([run.best] if run.best.is_dir() else [])]
    return [folder for folder in models if not intact(folder)]


def remake_best(run: Run, damaged: list[Path]) -> None:
    """Make RUN/best again, if it is damaged, from the checkpoint that it was written with.

    Args:
        run: The run. Its newest checkpoint is sound and names the best one.
        damaged: The folders that are damaged.

    Raises:
        UserError: The best checkpoint is missing or damaged.
    """
    if run.best not in damaged:
        return
    saved, _ = checkpoint.newest(run.checkpoints)
    if saved is None or not saved.state.best or saved.state.best[0] == saved.state.step:
        return  # the end of the run writes it
    best = run.checkpoints / f"step-{int(saved.state.best[0])}"
    load_checkpoint(best, run).save(run.best)
