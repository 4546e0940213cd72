"""What `t2i train --from` means: a run, another project's folder or file, tensors, a hub name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.json_files import json_object
from t2i.core.io.sealed import MANIFEST, verify
from t2i.core.io.tensors import load_tensors
from t2i.core.io.terminal import note
from t2i.core.models.identify import shapes_of
from t2i.core.models.loading import (
    base_of,
    config_of,
    find,
    loaded,
    opened,
    opening_settings,
)
from t2i.core.models.locating import Located
from t2i.core.models.model import Model
from t2i.core.models.moved import Moved
from t2i.core.models.weights import owned_tensors
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, parse_set, parse_sets
from t2i.core.runs.folder import Run

PARTS = ("generator", "text_encoder")
"""Parts of a saved model."""
FILES = ("weights", "tokenizer", "revision")
"""Names of settings that say where pretrained files are."""


@dataclass
class Origin:
    """Weights from which a new run starts.

    Args:
        name: How the user would name it: a path, or a hub name.
        config: Configuration of the model that the weights are of. None: they are tensors only.
        settings: Settings that opened another project's files, by name.
        place: Where the model is. None: the weights are in `files`.
        files: Files of tensors, some of which may be parts of one.
        model: Another project's model, while it is in memory.
    """

    name: str
    config: RunConfig | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: Located | None = None
    files: tuple[Path, ...] = ()
    model: Model | None = None

    @property
    def run(self) -> Run | None:
        """The run of ours that the weights are of. None: there is none."""
        return self.place.run if self.place else None

    @property
    def foreign(self) -> bool:
        """Whether the weights are of another project's model, which a plugin opened."""
        return self.place is not None and self.place.kind == "foreign"

    @property
    def assets(self) -> Path | None:
        """Folder of a saved model of ours that describes the networks. None: there is none."""
        if self.place is not None and self.place.model_folder is not None:
            return self.place.model_folder
        return self.run.model if self.run else None

    @property
    def recorded(self) -> str:
        """What config.json records: the whole path, or the name on the hub."""
        path = Path(self.name).expanduser()
        return str(path.resolve()) if path.exists() else self.name

    def gives(self, config: RunConfig) -> bool:
        """Tell whether a run's networks are those of this model, and are not loaded from elsewhere.

        Args:
            config: The run's configuration.

        Returns:
            Whether model, text encoder and vocabulary are the same, with the same settings for
            files of pretrained weights.
        """
        own = self.config
        return (
            own is not None
            and own.model == config.model
            and same_words(own, config)
            and named_files(own) == named_files(config)
        )

    def groups(self) -> Iterator[dict[str, Tensor]]:
        """Read the weights.

        Yields:
            Tensors by their names today: full names of a model's, such as "generator.unet.x"; those
            of each file of tensors, as they are there. They may share the memory of a model.

        Raises:
            UserError: Something is missing or damaged.
        """
        if self.place is None:
            yield from _tensors(self.files)
        elif self.place.model_folder is not None and base_of(self._config_file) is None:
            yield self._saved(self.place.model_folder)
        else:
            model = self.loaded()
            yield {
                f"{name}.{own}": tensor
                for name, module in model.parts()
                for own, tensor in owned_tensors(module).items()
            }
            self.model = None

    def loaded(self) -> Model:
        """Return the model of a checkpoint, of adapters or of another project, read if it must be.

        Returns:
            The model, on the processor.

        Raises:
            UserError: Something is missing or damaged.
        """
        assert self.place is not None
        if self.model is None:
            self.model = loaded(self.place, self.settings)
        return self.model

    @property
    def _config_file(self) -> Path:
        """The configuration of the saved model."""
        assert self.place is not None
        assert self.place.model_folder is not None
        return self.place.model_folder / "config.json"

    def _saved(self, folder: Path) -> dict[str, Tensor]:
        assert self.config is not None
        what = f"model {folder}"
        verify(folder, what)
        moved = Moved.of(registry().models[self.config.model].moved)

        def saved(part: str) -> Mapping[str, Tensor]:
            return {} if part == "helpers" else load_tensors(folder / f"{part}.safetensors", what)

        return {
            f"{part}.{name}": tensor
            for part in PARTS
            for name, tensor in moved.part(part, saved).items()
        }


def find_origin(
    text: str | Path, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> Origin:
    """Find what a text means, and read its configuration.

    Args:
        text: What `t2i sample --run` takes: a run, a part of one, a folder or file of another
            project, a hub name. With a model's name also a safetensors file, or a folder of some.
        model: Name of the model to train. None: that of the weights.
        settings: Settings that open another project's files, by name.

    Returns:
        The origin. The model of another project is in memory.

    Raises:
        UserError: There is no such thing, or no model can start from it.
    """
    settings = settings or {}
    try:
        place = find(text)
        if place.kind == "foreign":
            made = opened(place.path, settings)
            return Origin(place.name, made.config, settings, place, model=made)
        if place.note:
            note(place.note)
        return Origin(place.name, config_of(place), settings, place)
    except UserError as error:
        files = tensor_files(Path(str(text)).expanduser())
        if not files:
            raise UserError(f"--from {error}") from None
        if model is None:
            raise UserError(
                f"--from {error}; to take the tensors that fit a model, name it with --model"
            ) from None
        return Origin(str(text), None, settings, files=files)


def origin_of(text: str | Path, model: str | None, sets: Sequence[str]) -> tuple[Origin, list[str]]:
    """Find what a text means, with settings of which some may open another project's files.

    Args:
        text: As of `find_origin`.
        model: As of `find_origin`.
        sets: Settings of the form "a.b=value".

    Returns:
        The origin, and the settings that are not for opening it.

    Raises:
        UserError: There is no such thing, no model can start from it, or a setting has no value.
    """
    opening, _ = opening_settings(parse_sets(sets))
    origin = find_origin(text, model, opening)
    if not origin.foreign:
        return replace(origin, settings={}), list(sets)
    return origin, [each for each in sets if not opening.keys() & parse_set(each).keys()]


def tensor_files(path: Path) -> tuple[Path, ...]:
    """List the sound safetensors files that a path is or directly holds.

    Args:
        path: A file or folder.

    Returns:
        The files in order. None for folders of runs, models and pipelines, which are read as such.
    """
    if path.is_file():
        return (path,) if shapes_of(path) else ()
    whole = ("model_index.json", MANIFEST)
    if not path.is_dir() or any((path / name).exists() for name in whole):
        return ()
    if "run" in json_object(path / "config.json"):
        return ()
    return tuple(file for file in sorted(path.glob("*.safetensors")) if shapes_of(file))


def _tensors(files: tuple[Path, ...]) -> Iterator[dict[str, Tensor]]:
    """Read files of tensors, the shards of one file together."""
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.name.partition("-0")[0], []).append(file)
    for shards in stems.values():
        yield {
            name: tensor
            for shard in shards
            for name, tensor in load_tensors(shard, f"--from {shard}").items()
        }


def named_files(config: RunConfig) -> dict[str, Any]:
    """List the settings of model and text encoder that say where pretrained files are.

    Args:
        config: A configuration.

    Returns:
        Those that are not None, by name, such as "encoder.weights".
    """
    document = {**config.settings.model_dump(), "encoder": config.encoder.dump()}
    return {name: value for name, value in _leaves(document) if name.split(".")[-1] in FILES}


def same_words(config: RunConfig, theirs: RunConfig) -> bool:
    """Tell whether two text encoders know the same words.

    Args:
        config: A configuration.
        theirs: Another one.

    Returns:
        Whether they are of the same kind, with the same lists in their settings: the vocabulary.
    """
    if config.encoder.name != theirs.encoder.name:
        return False
    other = theirs.encoder.config.model_dump()
    return all(
        value == other.get(name) for name, value in config.encoder.config.model_dump().items()
        if isinstance(value, (list, tuple))
    )  # fmt: skip


def _leaves(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    pairs = (
        document.items() if isinstance(document, Mapping)
        else enumerate(document) if isinstance(document, (list, tuple)) else None
    )  # fmt: skip
    if pairs is None:
        if document is not None:
            yield name, document
        return
    for key, value in pairs:
        yield from _leaves(value, f"{name}.{key}" if name else str(key))
