"""Light specifications: what a plugin's hooks return.

A specification holds names, one line of summary and import paths ("package.module:attribute"). The paths are
resolved only when the thing is chosen, so importing a plugin costs next to nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


def resolve(path: str) -> Any:
    """The object that "package.module:attribute" names. Raises what the import raises; ValueError if malformed."""
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"'{path}' is no import path of the form package.module:attribute")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What all specifications share.

    name: the registry name, unique within its kind, lower case.
    summary: one line for the tables.
    config: import path of the pydantic class of the settings (a subclass of t2i.core.config.Config).
    """

    name: str
    summary: str
    config: str


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model.

    config: a subclass of ModelConfig, whose `presets()` has exactly the names of `presets`.
    generator: import path of `(config, text: TextShape, assets: Path | None) -> Generator`.
    stages: import path of `(config, text_encoder: TextEncoder) -> Sequence[Stage]`.
    family: the family of its generator ("one-shot", "diffusion", ...).

    weights: import path of `(config: RunConfig, files: Sequence[Path]) -> Model`, which makes a model of the files that
    the paper's authors released (`t2i import`). It may complete the configuration (a vocabulary read from a file).
    foreign: import path of `(path: Path, settings: Mapping[str, Any]) -> Model | None`, which opens a folder or file in
    another project's layout for sampling; None if it is not one that it knows. settings: those of `opening`.
    opening: names of settings of `--set` that are for `foreign`, not for the sampler.
    export: import path of `(model: Model, folder: Path) -> None`, which writes a model in another project's layout.
    """

    family: str
    paper: str
    presets: tuple[str, ...]
    generator: str
    stages: str
    weights: str | None = None
    foreign: str | None = None
    opening: tuple[str, ...] = ()
    export: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(Spec):
    """A sampler. build: import path of `(config) -> Sampler`; families: the families it draws from; inverts: whether
    it turns images back into noise (`Sampler.invert`)."""

    build: str
    families: tuple[str, ...]
    inverts: bool = False


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec(Spec):
    """A text encoder. build: import path of `(config, assets: Path | None) -> TextEncoder`.

    fit: import path of `(config, texts: Iterable[str]) -> config`, for encoders whose settings depend on the data set
    (a vocabulary); it is called once, before training.
    export: import path of `(encoder: TextEncoder, folder: Path) -> Mapping[str, tuple[str, str]]`, which writes it as
    parts of a pipeline in diffusers' layout, and returns what each is: name of the part -> (library, class). UserError
    if its settings are none that the pipeline knows.
    """

    build: str
    fit: str | None = None
    export: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set. config: a subclass of DataConfig. build: import path of `(config, split: str) -> Dataset`."""

    build: str
    splits: tuple[str, ...]
    needs_dir: bool = True


@dataclass(frozen=True, kw_only=True)
class FeatureSpec(Spec):
    """A frozen network whose features metrics compare. build: import path of `(config) -> FeatureExtractor`."""

    build: str


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric. build: import path of `(config) -> Metric` (t2i.core.scoring)."""

    build: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A benchmark. build: import path of `(config, protocol: str) -> Benchmark` (t2i.core.scoring).

    protocols: the names of its protocols, the default first.
    """

    build: str
    protocols: tuple[str, ...]
