"""Light specifications: what a plugin's hooks return.

A specification holds names, one line of summary and import paths ("package.module:attribute"). The paths are
resolved only when the thing is chosen, so importing a plugin costs next to nothing.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit


def import_object(path: str) -> Any:
    """The object that "package.module:attribute" names. Raises what the import raises; ValueError if malformed."""
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"'{path}' is no import path of the form package.module:attribute")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class Named:
    """What everything that is registered shares.

    name: the registry name, unique within its kind, lower case.
    summary: one line for the tables.
    """

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Spec(Named):
    """What all specifications of things with settings share.

    config: import path of the pydantic class of the settings (a subclass of t2i.core.settings.Config).
    """

    config: str


@dataclass(frozen=True, kw_only=True)
class FamilySpec(Named):
    """A family of generators: a class that fixes how they are called.

    generator: import path of the class (a subclass of t2i.core.interfaces.generator.Generator), whose `family` is this
    name. Models of the family extend it, and samplers of the family rely on it.
    draws: whether its models draw images. Those that do not (guides) need no sampler.
    """

    generator: str
    draws: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model.

    config: a subclass of ModelConfig, whose `presets()` has exactly the names of `presets`.
    generator: import path of `(config, text: TextShape, assets: Path | None) -> Generator`.
    stages: import path of `(config, text_encoder: TextEncoder) -> Sequence[Stage]`; none where nothing is trained.
    family: registry name of the family whose class its generator extends ("one-shot", "diffusion", ...).

    helpers: import path of `(config, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]`: networks that several
    stages share and that take no part in sampling. They are built after the generator, in training alone, are in
    checkpoints, and are not saved with what is sampled. fresh: whether weights of files that the settings name are to
    be loaded; where a run is resumed, those of its checkpoint follow.
    moved: "OLD=NEW" for tensors that earlier versions saved under other names, as prefixes that begin with "generator."
    or "helpers." ("generator.image_encoder.=helpers.image_encoder."): older runs are opened and resumed by them.
    weights: import path of `(config: RunConfig, files: Sequence[Path]) -> Model`, which makes a model of the files that
    the paper's authors released (`t2i import`). It may complete the configuration (a vocabulary read from a file).
    open_pretrained: import path of `(path: Path, settings: Mapping[str, Any]) -> Model | None`, which opens a folder or file in
    another project's layout for sampling; None if it is not one that it knows. settings: those of `opening`.
    open_settings: names of settings of `--set` that are for `open_pretrained`, not for the sampler.
    export: import path of `(model: Model, folder: Path) -> None`, which writes a model in another project's layout.
    """

    family: str
    paper: str
    presets: tuple[str, ...]
    generator: str
    stages: str
    helpers: str | None = None
    moved: tuple[str, ...] = ()
    weights: str | None = None
    open_pretrained: str | None = None
    open_settings: tuple[str, ...] = ()
    export: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(Spec):
    """A sampler. build: import path of `(config) -> Sampler`; families: the families it draws from ("*": all);
    default: whether models of these families are drawn with it where nothing names a sampler."""

    build: str
    families: tuple[str, ...]
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec(Spec):
    """A text encoder. build: import path of `(config, assets: Path | None) -> TextEncoder`.

    fit: import path of `(config, texts: Iterable[str]) -> config`, for encoders whose settings depend on the data set
    (a vocabulary); it is called once, before training.
    export: import path of `(encoder: TextEncoder, folder: Path) -> Mapping[str, tuple[str, str]]`, which writes it as
    parts of a pipeline in diffusers' layout, and returns what each is: name of the part -> (library, class). UserError
    if its settings are none that the pipeline knows.
    default: whether it is the encoder where nothing names one.
    """

    build: str
    fit: str | None = None
    export: str | None = None
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set. config: a subclass of DataConfig. build: import path of `(config, split: str) -> Dataset`.
    default: whether it is the data set where nothing names one; such a one needs no folder."""

    build: str
    splits: tuple[str, ...]
    needs_dir: bool = True
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class FeatureSpec(Spec):
    """A frozen network whose features metrics compare. build: import path of `(config) -> FeatureExtractor`.
    default: whether it stands in where a metric wants features and nothing names any; such one needs no download."""

    build: str
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric. build: import path of `(config) -> Metric` (t2i.core.interfaces.scoring)."""

    build: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A benchmark. build: import path of `(config, protocol: str) -> Benchmark` (t2i.core.interfaces.scoring).

    protocols: the names of its protocols, the default first.
    """

    build: str
    protocols: tuple[str, ...]


CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{8,64}")


@dataclass(frozen=True, kw_only=True)
class DownloadFile:
    """One file of a download.

    url: http, https or file. path: where it goes inside the download's folder (default: the last part of the URL).
    size: bytes, where it is known. checksum: "md5:..." or "sha256:...", of SHA-256 at least the first 8 digits (torch
    puts them into its files' names); None where nobody has published one.
    part: the name under which it can be chosen alone (`t2i fetch NAME --parts`). Raises ValueError if unsound.
    """

    url: str
    path: str = ""
    size: int | None = None
    checksum: str | None = None
    part: str = ""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https", "file"):
            raise ValueError(f"{self.url!r} is no http, https or file URL")
        place = PurePosixPath(self.place)
        if (
            not place.name
            or place.is_absolute()
            or ".." in place.parts
            or "\\" in self.place
            or ":" in self.place
        ):
            raise ValueError(f"{self.place!r} is no path inside a folder")
        if self.checksum is not None and not CHECKSUM.fullmatch(self.checksum):
            raise ValueError(
                f"{self.checksum!r} is no checksum: md5:32 digits, or sha256:8 to 64 of them"
            )

    @property
    def place(self) -> str:
        """Its path inside the download's folder."""
        return self.path or unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Files of a repository on the Hugging Face hub. revision: one that holds safetensors. patterns: which files."""

    repository: str
    revision: str = "main"
    patterns: tuple[str, ...] = ("*.safetensors", "*.json", "*.txt")


@dataclass(frozen=True, kw_only=True)
class DownloadSpec(Named):
    """What `t2i fetch NAME` gets: files by URL, repositories of the hub, or both.

    licence: in words; licence_url: where it stands. default: the parts that are got when none are named (none: all).
    """

    licence: str
    licence_url: str
    files: tuple[DownloadFile, ...] = ()
    hub: tuple[HubFiles, ...] = ()
    default: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts."""
        return tuple(dict.fromkeys(file.part for file in self.files if file.part))
