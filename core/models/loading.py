"""Load models from runs and from other projects' files, and export them to such layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.core.devices import named_device
from t2i.core.errors import UserError
from t2i.core.io.files import arriving, load_tensors, read_json, settle, verify
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.moved import Moved
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run


def load_model(folder: Path) -> Model:
    """Load a model from a folder that `Model.save` wrote.

    Args:
        folder: The folder.

    Returns:
        The model, on the processor, in training mode.

    Raises:
        UserError: Something in the folder is missing, damaged, or from elsewhere.
    """
    what = f"model {folder}"
    settle(folder)
    if not folder.is_dir():
        raise UserError(
            f"{what}: no such folder; train one with 't2i train' or name another with --run"
        )
    verify(folder, what)
    document = read_json(folder / "config.json", what)
    run = document.get("run") if isinstance(document, dict) else None
    config = RunConfig.parse(run if isinstance(run, dict) else {}, str(folder / "config.json"))
    try:
        model = build(config, folder, helpers=False)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        MemoryError,
        OSError,
    ) as error:
        # Settings that are legal one by one may still describe no network, or one that no memory
        # holds.
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{what}: no network can be built as it says ({type(error).__name__}: {reason})"
        ) from error
    load_weights(model, folder)
    return model


def load_weights(model: Model, folder: Path) -> None:
    """Load the weights of a saved model into one that has the same networks.

    Args:
        model: The model; its weights are replaced.
        folder: A folder that `Model.save` wrote.

    Raises:
        UserError: A file is missing or damaged, or the weights do not fit the networks.
    """
    what = f"model {folder}"
    moved = Moved.of(registry().models[model.config.model].moved)
    for name, module in model.parts():
        state = moved.part(name, lambda part: _saved(folder, part, what))
        load_state(module, state, f"{what}: {name}.safetensors")


def _saved(folder: Path, part: str, what: str) -> Mapping[str, Any]:
    """Read the saved tensors of one part of a model. Helpers are not saved."""
    return {} if part == "helpers" else load_tensors(folder / f"{part}.safetensors", what)


def load(
    run: str | Path, device: str | None = None, settings: Mapping[str, Any] | None = None
) -> Model:
    """Load a model, ready for use: in evaluation mode, and without gradients.

    Args:
        run: A run's folder, its folder `model`, or a folder or file in another project's layout
            that a plugin opens (`ModelSpec.open_pretrained`), such as a Stable Diffusion folder.
        device: Where to put the networks, such as "cuda". None: the best device there is.
        settings: Settings for another project's files, by name. None for a run of ours.

    Returns:
        The model.

    Raises:
        UserError: There is no such folder, no plugin opens it, or something in it is missing or
            damaged.
    """
    path, settings = Path(run), settings or {}
    if not path.exists():
        raise UserError(f"run {path}: no such directory; 't2i train' makes one")
    model = None if _is_run(path) else _opened(path, settings)
    if model is None:
        if settings:
            raise UserError(
                f"--set {next(iter(settings))}=...: it is for other projects' files, and {path} is "
                f"none"
            )
        model = load_model(path if (path / "generator.safetensors").exists() else Run(path).model)
    return model.to(named_device(device)).frozen()


def _is_run(path: Path) -> bool:
    """Tell by file names alone whether a folder is a run of ours."""
    ours = (
        path / "generator.safetensors",
        Run(path).model,
        Run(path).checkpoints,
        Run(path).metrics_file,
    )
    return any(place.exists() for place in ours)


def _opened(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open another project's folder or file with the first plugin that knows it, if any."""
    able = [spec for spec in registry().models if spec.open_pretrained]
    for spec in able:
        model: Model | None = import_object(str(spec.open_pretrained))(path, settings)
        if model is not None:
            return model
    if path.is_file():
        names = ", ".join(spec.name for spec in able)
        raise UserError(
            f"{path} is no run, and no file that these models open: {names}; weights that a "
            f"paper's authors released "
            "are made a run with 't2i import'"
        )
    return None


def opening_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the settings of a call.

    Args:
        settings: By name.

    Returns:
        The settings that open other projects' files, and the settings of the sampler.
    """
    names = {name for spec in registry().models for name in spec.open_settings}
    opening = {name: value for name, value in settings.items() if name in names}
    return opening, {name: value for name, value in settings.items() if name not in names}


def export(model: Model, folder: Path) -> None:
    """Write a model as a new folder in another project's layout.

    Args:
        model: The model.
        folder: The new folder. It appears only when it is complete.

    Raises:
        UserError: The model has no such layout (the error names the models that have one), or the
            layout cannot express a setting of it.
    """
    spec = registry().models[model.config.model]
    if spec.export is None:
        able = ", ".join(other.name for other in registry().models if other.export)
        raise UserError(
            f"model '{spec.name}' has no other project's layout to be written in; those that have: "
            f"{able}"
        )
    with arriving(folder) as place:
        import_object(spec.export)(model, place)
