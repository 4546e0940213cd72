"""Loading a model: from a run of ours, or from another project's folder or file; and writing one in such a layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.core.devices import best_device
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
    """The model in a folder that `Model.save` wrote. UserError if anything in it is missing, damaged or foreign."""
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
        # Settings that are legal one by one may still describe no network, or one that no memory holds.
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{what}: no network can be built as it says ({type(error).__name__}: {reason})"
        ) from error
    moved = Moved.of(registry().models[config.model].moved)
    for name, module in model.parts():
        state = moved.part(name, lambda part: _saved(folder, part, what))
        load_state(module, state, f"{what}: {name}.safetensors")
    return model


def _saved(folder: Path, part: str, what: str) -> Mapping[str, Any]:
    """The tensors that were saved of a part of a model; of helpers, none are."""
    return {} if part == "helpers" else load_tensors(folder / f"{part}.safetensors", what)


def load(
    run: str | Path, device: str | None = None, settings: Mapping[str, Any] | None = None
) -> Model:
    """A model, ready to sample on the best device there is: that of a run directory, of its folder `model`, or of a
    folder or file in another project's layout that a model's plugin opens (`ModelSpec.open_pretrained`), with `settings`."""
    path, settings = Path(run), settings or {}
    if not path.exists():
        raise UserError(f"run {path}: no such directory; 't2i train' makes one")
    model = None if _is_run(path) else _opened(path, settings)
    if model is None:
        if settings:
            raise UserError(
                f"--set {next(iter(settings))}=...: it is for other projects' files, and {path} is none"
            )
        model = load_model(path if (path / "generator.safetensors").exists() else Run(path).model)
    return model.to(device or best_device())


def _is_run(path: Path) -> bool:
    """Whether a folder is one of ours: told at a glance, so that no plugin is asked."""
    ours = (
        path / "generator.safetensors",
        Run(path).model,
        Run(path).checkpoints,
        Run(path).metrics_file,
    )
    return any(place.exists() for place in ours)


def _opened(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """What the first model that knows this layout makes of it; None where none does, and it may be a run."""
    able = [spec for spec in registry().models if spec.open_pretrained]
    for spec in able:
        model: Model | None = import_object(str(spec.open_pretrained))(path, settings)
        if model is not None:
            return model
    if path.is_file():
        names = ", ".join(spec.name for spec in able)
        raise UserError(
            f"{path} is no run, and no file that these models open: {names}; weights that a paper's authors released "
            "are made a run with 't2i import'"
        )
    return None


def opening_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a call in two parts: those with which other projects' files are opened, and the sampler's."""
    names = {name for spec in registry().models for name in spec.open_settings}
    opening = {name: value for name, value in settings.items() if name in names}
    return opening, {name: value for name, value in settings.items() if name not in names}


def export(model: Model, folder: Path) -> None:
    """Writes a model as a new folder in another project's layout. UserError, naming the models that can, if this one
    cannot; what the layout cannot express is refused by the model."""
    spec = registry().models[model.config.model]
    if spec.export is None:
        able = [other.name for other in registry().models if other.export]
        raise UserError(
            f"model '{spec.name}' has no other project's layout to be written in; those that have: {able}"
        )
    with arriving(folder) as place:
        import_object(spec.export)(model, place)
