"""Start a run from weights: of another run, of another project's model, or in a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import HELPERS, Saved
from t2i.core.engine.context import RunContext
from t2i.core.engine.preparing import model_modules
from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.models.locating import run_around
from t2i.core.models.moved import Moved
from t2i.core.models.origin import PARTS, Origin, named_files, same_words
from t2i.core.models.overlap import Overlap
from t2i.core.models.weights import owned_tensors
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run


def describe(origin: Origin, config: RunConfig, run: Run) -> None:
    """Write into RUN/start what building the networks of the weights needs besides settings.

    A new run is built from it, and a resumed one until it has a model of its own. The weights'
    source may be gone by then.

    Args:
        origin: The weights.
        config: The new run's configuration.
        run: The new run. Nothing is written if its networks are not those of the weights.
    """
    if not origin.gives(config):
        return
    if origin.foreign:
        for name, module in origin.loaded().parts():
            (run.start / name).mkdir(parents=True)
            module.save_assets(run.start / name)
        return
    saved = origin.assets
    if saved is not None and all((saved / part).is_dir() for part in PARTS):
        for part in PARTS:
            shutil.copytree(saved / part, run.start / part)


def take_weights(context: RunContext, origin: Origin) -> Overlap:
    """Load the weights that fit into the model of a new run, and say what fits.

    What wraps networks for a stage (such as adapters) comes after this: the stage's trainer is made
    later, of the model that has its weights.

    Args:
        context: The new run. RUN/from.json lists all tensors.
        origin: The weights.

    Returns:
        What fits.

    Raises:
        UserError: Nothing fits, or something is missing or damaged.
    """
    own = {
        f"{part}.{name}": tensor
        for part, module in model_modules(context.model).items()
        for name, tensor in owned_tensors(module).items()
    }
    overlap, kept = Overlap(own), _kept(context.config, origin)
    for theirs in origin.groups():
        overlap.take(theirs, kept)
    if origin.run is not None:
        find_checkpoint(context, origin.run.path)
    if context.start and len(context.model.helpers):
        helpers = context.start.part(HELPERS)
        overlap.take({f"{HELPERS}.{name}": tensor for name, tensor in helpers.items()})
    fits, new, left_out = overlap.lines()
    if not overlap.taken:
        raise UserError(
            f"--from {origin.name}: no tensor fits model '{context.config.model}' (same name, same "
            f"shape); {new}; {left_out}"
        )
    for line in (f"from {origin.name}: {fits}", new, left_out):
        context.reporter.say(line)
    if context.is_first:
        write_json(context.run.from_file, {"from": origin.recorded, **overlap.document()})
    return overlap


def find_checkpoint(context: RunContext, path: Path) -> None:
    """Find the other run's newest checkpoint, which holds networks that only training needs.

    Args:
        context: The new run; its `start` is set. It stays None if the other run is of another
            model, or there is no checkpoint, as for imported weights.
        path: The other run's folder, or something in it.
    """
    run = run_around(path)
    if run is None or not run.config_file.is_file() or run.config().model != context.config.model:
        return
    moved = Moved.of(registry().models[context.config.model].moved)
    context.start, _ = checkpoint.newest(run.checkpoints, moved)


def take_networks(saved: Saved, networks: Mapping[str, nn.Module]) -> list[tuple[str, Overlap]]:
    """Load the tensors that fit into networks that only a stage's training needs.

    Args:
        saved: Checkpoint of the run whose weights this one starts from.
        networks: The networks, by their names in checkpoints.

    Returns:
        The name of each network that the checkpoint has, and what fits.
    """
    found = []
    for name, module in networks.items():
        if saved.has(name):
            overlap = Overlap(owned_tensors(module))
            overlap.take(saved.part(name))
            found.append((name, overlap))
    return found


def _kept(config: RunConfig, origin: Origin) -> list[str]:
    """Name the parts of the model that stay as they were built, by the beginning of tensors' names.

    They are those for which a setting names other weights, and a text encoder with another
    vocabulary, whose words would get the vectors of others.
    """
    own, theirs = named_files(config), origin.config
    if theirs is None:
        return []
    before = named_files(theirs)
    named = [
        name.removesuffix(".weights") for name, value in own.items()
        if name.endswith(".weights") and before.get(name) != value
    ]  # fmt: skip
    kept = ["text_encoder." if name == "encoder" else f"generator.{name}." for name in named]
    return kept if same_words(config, theirs) else [*kept, "text_encoder."]
