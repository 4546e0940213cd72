"""Load models from runs and from other projects' files, and export them to such layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.devices import named_device
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import seeded
from t2i.core.io.folders import arriving
from t2i.core.io.json_files import read_json
from t2i.core.io.sealed import settle, verify
from t2i.core.io.tensors import load_tensors
from t2i.core.io.terminal import note
from t2i.core.models.building import build
from t2i.core.models.foreign import reading
from t2i.core.models.identify import identify
from t2i.core.models.locating import Located, located
from t2i.core.models.lora.base import Base
from t2i.core.models.lora.layouts import pairs_of
from t2i.core.models.lora.networks import LoraNetwork, named_layers
from t2i.core.models.metadata import model_hash
from t2i.core.models.model import Model
from t2i.core.models.moved import Moved
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run

WRONG_SETTINGS = (
    RuntimeError, ValueError, TypeError, ArithmeticError, AttributeError, LookupError, MemoryError,
    OSError,
)  # fmt: skip
"""What networks raise for settings that are legal one by one, but describe no network together."""
AVERAGED = {"generator": "generator", "text_encoder": "text"}
"""How the names of averaged weights in a checkpoint begin, by part of the model."""


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
        raise UserError(f"{what}: no such folder; 't2i runs' lists the runs that there are")
    try:
        verify(folder, what)
    except UserError as error:
        run = Run(folder.parent)
        if not (run.config_file.is_file() and run.steps_saved()):
            raise
        remedy = f"'t2i train --resume {run.path}' makes it again"
        raise UserError(f"{error}; {remedy}") from None
    config = config_of(Located(str(folder), folder, "model"))
    base = base_of(folder / "config.json")
    if base is not None:
        model = load_base(config, base, folder, what)
        merge_adapters(model, lambda part: _saved(folder, part, what), what)
        return model
    model = _built(config, folder, what)
    load_weights(model, folder)
    return model


def base_of(file: Path) -> Base | None:
    """Read which base the weights of a run or model change.

    Args:
        file: The config.json of the run, or of its folder `model`.

    Returns:
        The base. None: all weights are the run's own.

    Raises:
        UserError: The file cannot be read.
    """
    document = read_json(file, str(file))
    return Base.read(document.get("base") if isinstance(document, dict) else None, str(file))


def load_base(config: RunConfig, base: Base, assets: Path | None, what: str) -> Model:
    """Load the base that a run changes.

    Args:
        config: The configuration of the run.
        base: Where it is.
        assets: Folder of the run that describes its networks (`Model.save`). None: there is none.
        what: Name of the run, for errors.

    Returns:
        The model without the changes.

    Raises:
        UserError: The base is not there any more, or is another one.
    """
    if base.start is None:
        seeded(config.settings.seed, "weights")
        model = _built(config, None, what)
    else:
        try:
            theirs = loaded(find(base.start), base.settings)
        except UserError as error:
            raise UserError(f"{what}: it changes the weights of {base.start}: {error}") from None
        model = _built(config, assets, what)
        for (name, module), (_, other) in zip(model.parts(), theirs.parts(), strict=True):
            load_state(module, owned_tensors(other), f"{what}: {name} of its base {base.start}")
    base.check(model_hash(model), what)
    return model


def merge_adapters(
    model: Model, saved: Callable[[str], Mapping[str, Tensor]], what: str
) -> None:  # fmt: skip
    """Merge the adapters of a run into its base.

    Args:
        model: The base; its weights are changed.
        saved: Returns the saved tensors of a part of the model (`Model.parts`).
        what: Name of the run, for errors.

    Raises:
        UserError: The adapters do not fit the base.
    """
    lora = model.config.settings.lora
    for name, module in model.parts():
        tensors = saved(name)
        layers = named_layers({name: LoraNetwork(module)})
        merged: set[str] = set()
        for pair in pairs_of(tensors, {}):
            layer, own = layers.get(f"{name}.{pair.layer}"), replace(pair, alpha=lora.alpha)
            if layer is None or layer.weight.numel() != math.prod(own.shape):
                raise UserError(f"{what}: {name}: the adapter of {pair.layer} fits no layer")
            layer.weight.data += own.change().view(layer.weight.shape)
            merged |= set(pair.names)
        rest = {key.replace(".base_layer.", "."): x for key, x in tensors.items()
                if key not in merged}  # fmt: skip
        load_state(module, owned_tensors(module) | rest, f"{what}: {name}.safetensors")


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


def _built(config: RunConfig, assets: Path | None, what: str) -> Model:
    """Build a model whose weights are loaded afterwards."""
    try:
        return build(config, assets, helpers=False)
    except WRONG_SETTINGS as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{what}: no network can be built as it says ({type(error).__name__}: {reason})"
        ) from error


def _saved(folder: Path, part: str, what: str) -> Mapping[str, Any]:
    """Read the saved tensors of one part of a model. Helpers are not saved."""
    return {} if part == "helpers" else load_tensors(folder / f"{part}.safetensors", what)


def load_checkpoint(folder: Path, run: Run) -> Model:
    """Load the model that a run had at a checkpoint, with the averaged weights.

    Args:
        folder: The checkpoint's folder, step-N.
        run: Its run.

    Returns:
        The model as RUN/model was at that step, on the processor, in training mode.

    Raises:
        UserError: Something in the checkpoint is missing, damaged, or does not fit the run.
    """
    what = f"checkpoint {folder}"
    verify(folder, what)
    config = run.config()
    base = base_of(run.config_file)
    described = (place for place in (run.model, run.start) if (place / "text_encoder").is_dir())
    assets = next(described, None)
    if base is not None:
        model = load_base(config, base, assets, what)
        merge_adapters(model, lambda part: _averaged(folder, part, what), what)
        return model
    model = _built(config, assets, what)
    moved = Moved.of(registry().models[config.model].moved)

    def saved(part: str) -> Mapping[str, Any]:
        file = folder / f"modules.{part}.safetensors"
        return {} if part == "helpers" and not file.exists() else load_tensors(file, what)

    averages = load_tensors(folder / "ema.safetensors", what)
    averages = {moved.name(name): average for name, average in averages.items()}
    for name, module in model.parts():
        load_state(module, moved.part(name, saved), f"{what}: modules.{name}.safetensors")
        for own, parameter in module.named_parameters():
            average = averages.get(f"{AVERAGED[name]}.{own}")
            if average is not None and average.shape != parameter.shape:
                raise UserError(f"{what}: ema.safetensors: {own} is {tuple(average.shape)}, not "
                                f"{tuple(parameter.shape)}")  # fmt: skip
            if average is not None:
                parameter.data.copy_(average)
    return model


def _averaged(folder: Path, part: str, what: str) -> Mapping[str, Tensor]:
    """Read the tensors of a part from a checkpoint, with averages where there are some."""
    averages = load_tensors(folder / "ema.safetensors", what)
    beginning = f"{AVERAGED[part]}."
    own = {
        name.removeprefix(beginning): average
        for name, average in averages.items()
        if name.startswith(beginning)
    }
    return load_tensors(folder / f"modules.{part}.safetensors", what) | own


def load(
    run: str | Path | Located,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model, ready for use: in evaluation mode, and without gradients.

    Args:
        run: What `--run` takes: a run's folder, its folder `model` or `best`, a checkpoint of it,
            the folder of a benchmark with one run, the name of a run under runs/, "latest", a
            model's name (its newest complete run), OWNER/NAME on the Hugging Face hub, or a folder
            or file in another project's layout that a plugin opens
            (`ModelSpec.open_pretrained`), such as a Stable Diffusion folder.
        device: Where to put the networks, such as "cuda". None: the best device there is.
        settings: Settings for another project's files, by name. None for a run of ours.

    Returns:
        The model.

    Raises:
        UserError: There is no such run, no plugin opens it, or something in it is missing or
            damaged.
    """
    place, settings = run if isinstance(run, Located) else find(run), settings or {}
    if settings and place.kind != "foreign":
        raise UserError(
            f"--set {next(iter(settings))}=...: it is for other projects' files, and {place.name} "
            "is none"
        )
    if place.note:
        note(place.note)
    return loaded(place, settings).to(named_device(device)).frozen()


def find(text: str | Path) -> Located:
    """Find what a text means (`located`). Weights of the hub that no plugin opens are not fetched.

    Args:
        text: What `--run` takes.

    Returns:
        The run or other place.

    Raises:
        UserError: There is no such thing, or nothing can be loaded from it.
    """
    return located(text, _is_opened)


def config_of(place: Located) -> RunConfig:
    """Read the configuration of a model without its weights, where it has one.

    Args:
        place: Where the model is. Another project's files are loaded, on the processor.

    Returns:
        The configuration.

    Raises:
        UserError: It cannot be read, or the model cannot be opened.
    """
    if place.kind == "model":
        file = place.path / "config.json"
        document = read_json(file, f"model {place.path}")
        run = document.get("run") if isinstance(document, dict) else None
        return RunConfig.parse(run if isinstance(run, dict) else {}, str(file))
    if place.kind == "foreign" or place.run is None:
        return loaded(place, {}).config
    return place.run.config()


def loaded(place: Located, settings: Mapping[str, Any]) -> Model:
    """Load the model of a place, on the processor and in training mode.

    Args:
        place: The place.
        settings: Settings for another project's files, by name.

    Returns:
        The model.

    Raises:
        UserError: Something is missing or damaged.
    """
    if place.kind == "checkpoint" and place.run is not None:
        return load_checkpoint(place.path, place.run)
    if place.model_folder is not None:
        return load_model(place.model_folder)
    return opened(place.path, settings)


def _is_opened(folder: Path) -> bool:
    """Whether a plugin knows the layout of a folder that holds no weights yet.

    A plugin that knows it raises an error: the weights are missing.
    """
    try:
        return any(
            import_object(str(spec.open_pretrained))(folder, {}) is not None for spec in _openers()
        )
    except Exception:  # what a plugin raises for a folder without weights
        return True


def _openers() -> list[ModelSpec]:
    """The models that open other projects' files."""
    return [spec for spec in registry().models if spec.open_pretrained]


def opened(path: Path, settings: Mapping[str, Any]) -> Model:
    """Open another project's folder or file with the first plugin that knows it.

    Args:
        path: The folder or file.
        settings: Settings that a plugin opens it with, by name.

    Returns:
        The model, on the processor.

    Raises:
        UserError: No plugin knows it. The error says what it is, and what can be opened.
    """
    able = _openers()
    for spec in able:
        with reading(path, spec.name):
            model: Model | None = import_object(str(spec.open_pretrained))(path, settings)
        if model is not None:
            return model
    opens = [spec.opens or f"what '{spec.name}' opens" for spec in able]
    raise UserError(
        f"{path} is {identify(path).sentence}; t2i opens {', '.join(['its own runs', *opens])}"
    )


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
