"""Start a run from the weights of another one."""

from __future__ import annotations

from pathlib import Path

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import HELPERS
from t2i.core.engine.context import RunContext
from t2i.core.errors import UserError
from t2i.core.models.loading import load_weights
from t2i.core.models.moved import Moved
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run


def start_config(path: Path, model: str | None = None) -> RunConfig:
    """Read the configuration of the run whose weights another one starts from.

    Args:
        path: The run's folder.
        model: Name of the model to train. None: the run's.

    Returns:
        The configuration.

    Raises:
        UserError: The folder is no run, has no model yet, or is a run of another model.
    """
    run = Run(path)
    if not run.config_file.is_file():
        raise UserError(f"--from {path}: no run: it has no config.json")
    config = run.config()
    if model not in (None, config.model):
        raise UserError(f"--from {path}: it is a run of model '{config.model}', not '{model}'")
    if not run.model.is_dir():
        raise UserError(f"--from {path}: it has no model yet: 't2i train --resume {path}' goes on")
    return config


def take_weights(context: RunContext, path: Path) -> None:
    """Load the weights of another run's model into the model of a new run.

    Args:
        context: The new run.
        path: The other run's folder.

    Raises:
        UserError: The folder is no run of the same model with the same text encoder, or the
            weights do not fit the networks.
    """
    theirs = start_config(path, context.config.model)
    if theirs.encoder != context.config.encoder:
        raise UserError(
            f"--from {path}: its weights belong to its own text encoder and vocabulary: "
            "leave out --encoder and encoder.*"
        )
    load_weights(context.model, Run(path).model)
    find_checkpoint(context, path)
    if context.start and len(context.model.helpers):
        context.start.modules({HELPERS: context.model.helpers})
    context.reporter.say(
        f"starting from the weights of {path}; its text encoder keeps the words that it knows"
    )


def find_checkpoint(context: RunContext, path: Path) -> None:
    """Find the other run's newest checkpoint, which holds networks that only training needs.

    Args:
        context: The new run; its `start` is set. It stays None if there is no checkpoint, as for
            imported weights.
        path: The other run's folder.
    """
    moved = Moved.of(registry().models[context.config.model].moved)
    context.start, _ = checkpoint.newest(Run(path).checkpoints, moved)
