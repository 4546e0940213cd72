"""Light specifications, which a plugin's hooks return.

A specification has a name, a summary of one line, and import paths ("package.module:attribute"). A
path is imported only when the thing is used, so that importing a plugin takes almost no time.

The notation `(config) -> Sampler` below describes a function, or a class, that is called with a
config.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit


def import_object(path: str) -> Any:
    """Import an object by its path.

    Errors of the import itself are passed on.

    Args:
        path: Import path, "package.module:attribute".

    Returns:
        The object.

    Raises:
        ValueError: The path does not have this form.
    """
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"'{path}' is no import path of the form package.module:attribute")
    return getattr(importlib.import_module(module), attribute)


AUTO = "auto"
"""Name of the preset that is chosen for data and machine (`ModelConfig.sized`), and value of
options that are left to the program."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """The base of all specifications.

    Args:
        name: Registry name, unique within its kind: lower-case letters, digits, "-", "_" and ".".
        summary: One line for tables.
    """

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Spec(Named):
    """The base of all specifications of things with settings.

    Args:
        config: Import path of the class of the settings, a subclass of `t2i.core.settings.Config`.
    """

    config: str


@dataclass(frozen=True, kw_only=True)
class FamilySpec(Named):
    """A family of generators, with the class that fixes how they are called.

    Args:
        generator: Import path of the class, a subclass of `t2i.core.interfaces.generator.Generator`
            whose `family` is the name. Models of the family extend it, and samplers of the family
            rely on it.
        draws: Whether models of the family sample images. Those that do not (guides) need no
            sampler.
    """

    generator: str
    draws: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model.

    `config` names a subclass of `ModelConfig`, whose `presets()` has exactly the names in
    `presets`.

    Args:
        family: Registry name of the family, such as "one-shot" or "diffusion". The generator
            extends the family's class.
        paper: Reference of the paper.
        presets: Names of the presets.
        generator: Import path of `(config, text: TextShape, assets: Path | None) -> Generator`.
            `assets` is the folder of `Generator.save_assets` if a saved model is built, else None.
        stages: Import path of `(config, text_encoder: TextEncoder) -> Sequence[Stage]`. The
            sequence is empty if there is nothing to train.
        helpers: Import path of `(config, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]`,
            which builds networks that several stages share and that sampling does not need. They
            are built after the generator, in training only. They are in checkpoints, but not saved
            with the model that is sampled. `fresh` tells whether to load weights from files that
            the settings name; it is False when a run resumes, because the weights then come from
            the checkpoint. None: no helpers.
        moved: "OLD=NEW" for tensors that earlier versions saved under other names. Both are
            prefixes that begin with "generator." or "helpers.", as in
            "generator.image_encoder.=helpers.image_encoder.". Older runs can then still be opened
            and resumed.
        weights: Import path of `(config: RunConfig, files: Sequence[Path]) -> Model`, which makes a
            model of the files that the paper's authors released (`t2i import`). It may complete the
            configuration, for example by a vocabulary that it reads from a file. None: there is
            nothing to import.
        open_pretrained: Import path of `(path: Path, settings: Mapping[str, Any]) -> Model | None`,
            which opens a folder or file in the layout of another project for sampling. It returns
            None if it does not support the layout. `settings` are those in `open_settings` that the
            user gave. None: no other layouts.
        opens: What `open_pretrained` opens, as a noun phrase in the plural for errors, such as
            "folders of diffusers' DDPMPipeline". "": nothing.
        open_settings: Names of the settings of `--set` that `open_pretrained` receives instead of
            the sampler.
        export: Import path of `(model: Model, folder: Path) -> None`, which writes a model in the
            layout of another project. None: it cannot be exported.
        networks: Import path of `(model: Model) -> LoraNetworks`, which names the networks that
            LoRA files change as diffusers' pipelines name them, such as "unet". None: they are
            "generator" and "text_encoder".
        likelihood: Import path of `(generator: Generator, settings: Mapping[str, Any]) ->
            Likelihood | None`, which computes log p of images. `settings` are those of the
            likelihood. It returns None for generators that have none. None: the generator is asked
            (`Generator.likelihood`).
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
    opens: str = ""
    open_settings: tuple[str, ...] = ()
    export: str | None = None
    networks: str | None = None
    likelihood: str | None = None

    @property
    def year(self) -> int | None:
        """Year of the first paper; None if the reference names none."""
        found = re.search(r"\b(?:19|20)\d\d\b", self.paper)
        return int(found[0]) if found else None

    @property
    def cited(self) -> str:
        """Authors and year of the first paper; the whole reference if it names no year."""
        return self.paper.partition(str(self.year))[0] + str(self.year) if self.year else self.paper

    @property
    def arxiv(self) -> str:
        """Number of the first paper on arXiv, such as "2112.10752". "": it names none."""
        found = re.search(r"arXiv:(\d{4}\.\d{4,5})", self.paper.partition(";")[0])
        return found[1] if found else ""


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(Spec):
    """A sampler.

    Args:
        build: Import path of `(config) -> Sampler`.
        families: Families of the generators that it can sample from; "*" stands for all.
        default: Whether it is the default sampler of these families.
    """

    build: str
    families: tuple[str, ...]
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec(Spec):
    """A text encoder.

    Args:
        build: Import path of `(config, assets: Path | None) -> TextEncoder`. `assets` is the folder
            of `TextEncoder.save_assets` if a saved model is built, else None.
        fit: Import path of `(config, texts: Iterable[str]) -> config`, for encoders whose settings
            depend on the data set (a vocabulary). It is called once, before training. None: they do
            not.
        export: Import path of `(encoder: TextEncoder, folder: Path, sentence: bool) -> Mapping[str,
            tuple[str, str]]`, which writes the encoder as parts of a pipeline in diffusers' layout
            (`text_encoder` and `tokenizer`, if it is one network) and returns (library, class) by
            the name of the part. `sentence` tells whether the pipeline reads sentence vectors. The
            model checks that its pipeline reads captions as the encoder's settings say. None: it
            cannot be exported.
        default: Whether it is the default text encoder.
    """

    build: str
    fit: str | None = None
    export: str | None = None
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class ShippedWeights:
    """Pretrained weights that a package holds in a sealed folder (`t2i.core.io.sealed.seal`).

    Args:
        name: Name of the weights in settings.
        folder: Where they are: "package:folder", such as "toys.pretrained:clip".
    """

    name: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set. `config` names a subclass of `DataConfig`.

    Args:
        build: Import path of `(config, split: str) -> Dataset`.
        splits: Names of the splits.
        needs_dir: Whether the setting `dir` must be given.
        takes_dir: Whether the setting `dir` is read. A data set that needs a folder takes one.
        recognise: Import path of `(folder: Path) -> str | None`, which looks whether a folder has
            the layout of this data set. It returns what it found, in a few words such as "COCO's
            annotations (annotations/captions_val2017.json)", or None. It must be quick: it lists
            names, and reads no images. None: folders of this data set are not recognised.
        general: Whether the layout is so general that any other data set which recognises a folder
            is preferred to this one.
        default: Whether it is the default data set, which must not need a folder.
        judge: Registry name of the features with a text side that rank candidates of images by
            their caption (`t2i sample --best-of N`), for models that were trained on it. "": the
            user names some.
        scores: Scores of samples that are made now and then while training on it, each METRIC,
            METRIC.SCORE or METRIC:FEATURES. The setting `scores` replaces them. Empty: a distance
            on the default features.
        shipped: Networks pretrained on this data set that its package ships. Settings that name
            pretrained weights take their names beside folders and names on the hub.
        images: Whether its examples have images. Models can be sampled and scored on captions
            alone, but not trained, and there are no rows of real images.

    Raises:
        ValueError: The data set needs a folder, but takes none.
    """

    build: str
    splits: tuple[str, ...]
    needs_dir: bool = True
    takes_dir: bool = True
    recognise: str | None = None
    general: bool = False
    default: bool = False
    judge: str = ""
    scores: tuple[str, ...] = ()
    shipped: tuple[ShippedWeights, ...] = ()
    images: bool = True

    def __post_init__(self) -> None:
        if self.needs_dir and not self.takes_dir:
            raise ValueError(f"data set '{self.name}' needs a folder, but takes none")


@dataclass(frozen=True, kw_only=True)
class FeatureSpec(Spec):
    """A frozen network whose features metrics read.

    Args:
        build: Import path of `(config) -> FeatureExtractor`.
        default: Whether it is the default for metrics that need features, which must not need a
            download.
        text: Whether it has a text side (`FeatureExtractor.encode_text`). Errors list those that
            have one.
    """

    build: str
    default: bool = False
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric.

    Args:
        build: Import path of `(config) -> Metric`.
        reading: How to read its scores, for the report: one or two sentences. "": not said.
    """

    build: str
    reading: str = ""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A benchmark.

    Args:
        build: Import path of `(config, protocol: str) -> Benchmark`.
        protocols: Names of its protocols, the default one first.
        any_data: Whether the user chooses the data set, which must have captions and the splits of
            its prompt sets, and the image size.
    """

    build: str
    protocols: tuple[str, ...]
    any_data: bool = False


CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{8,64}")
"""Form of `DownloadFile.checksum`."""


@dataclass(frozen=True, kw_only=True)
class DownloadFile:
    """One file of a download.

    Args:
        url: An http, https or file URL.
        path: Path inside the download's folder. "": the last part of the URL.
        size: Size in bytes. None: unknown.
        checksum: "md5:..." or "sha256:..." in hexadecimal. Of SHA-256 the first 8 digits are
            enough, because torch puts them into the names of its files. None: no checksum was
            published.
        part: Name of the part of the download that the file belongs to (`t2i fetch NAME --parts`).
            "": none.

    Raises:
        ValueError: The URL, the path or the checksum is malformed.
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
        """The path inside the download's folder: `path`, or the last part of the URL."""
        return self.path or unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Files of a repository on the Hugging Face hub.

    Args:
        repository: Name of the repository, "OWNER/NAME".
        revision: Branch, tag or commit, which must have weights as safetensors. If "main" has
            pickles only, the hub's conversion of it is fetched.
        patterns: Patterns of the names of the files. Without "*.safetensors" each must match one.
    """

    repository: str
    revision: str = "main"
    patterns: tuple[str, ...] = ("*.safetensors", "*.json", "*.txt")


@dataclass(frozen=True, kw_only=True)
class DownloadSpec(Named):
    """A download for `t2i fetch NAME`: files by URL, repositories of the hub, or both.

    Args:
        licence: Licence, in words.
        licence_url: URL of the licence.
        files: Files by URL.
        hub: Files of repositories on the hub.
        default: Names of the parts that are fetched if the user names none. Empty: all. Files of no
            part are fetched with them.
    """

    licence: str
    licence_url: str
    files: tuple[DownloadFile, ...] = ()
    hub: tuple[HubFiles, ...] = ()
    default: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts, in the order of its files."""
        return tuple(dict.fromkeys(file.part for file in self.files if file.part))
