"""Runs: the resolved configuration of one, and where its files are.

RUN/config.json      resolved configuration, versions, distribution, data fingerprint
RUN/metrics.jsonl    the log
RUN/broken.jsonl     broken examples of the data set that were passed over, if there are any
RUN/samples/         grids
RUN/checkpoints/     to resume from
RUN/model/           to sample from
RUN/best/            the same where the loss `keep_best` was lowest, if that is asked for
RUN/summary.json     written when training is complete: steps, seconds, cost
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.io.files import read_json
from t2i.core.registry.specs import resolve as resolve_path
from t2i.core.registry.tables import Table, registry
from t2i.core.settings import AbsentData, Config, DataConfig, ModelConfig

if TYPE_CHECKING:
    from t2i.core.interfaces.dataset import Dataset

C = TypeVar("C", bound=Config)
SECTIONS = ("data", "encoder", "sampler")


@dataclass(frozen=True)
class Choice(Generic[C]):
    """Something chosen by registry name, with its settings."""

    name: str
    config: C

    def dump(self) -> dict[str, Any]:
        return {"name": self.name, **self.config.model_dump(mode="json")}


@dataclass(frozen=True)
class RunConfig:
    """All that a run depends on: model and preset, the model's settings, and the data, encoder and sampler chosen."""

    model: str
    preset: str
    settings: ModelConfig
    data: Choice[DataConfig]
    encoder: Choice[Config]
    sampler: Choice[SamplerConfig]

    def dump(self) -> dict[str, Any]:
        """As JSON. The same document is legal for `--config`."""
        sections = {name: getattr(self, name).dump() for name in SECTIONS}
        return {"model": self.model, "preset": self.preset, **self.settings.model_dump(mode="json"), **sections}

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> RunConfig:
        """The inverse of `dump`, checked, but for a data set that is not installed: `where` names the document in
        errors."""
        if not isinstance(document, Mapping) or not isinstance(document.get("model"), str):
            raise UserError(f"{where}: no run configuration (it has no 'model')")
        return _assemble(document["model"], str(document.get("preset", "?")), [(where, document)], False)


def resolve(
    model: str,
    *,
    preset: str = "tiny",
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    data_needed: bool = True,
) -> RunConfig:
    """The configuration of a run: preset, then the file, then `overrides`, then `sets` ("a.b=value"), each winning
    over the ones before it. Raises UserError, one line, for any unknown name or wrong value.

    data_needed: whether the data set must be installed; weights that were trained elsewhere are drawn from without it.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [(f"--preset {preset}", _preset(model, preset))]
    if config_file is not None:
        layers.append((str(config_file), _read_yaml(config_file, model)))
    layers.append(("command line", overrides or {}))
    layers += [(f"--set {text}", parse_set(text)) for text in sets]
    return _assemble(model, preset, layers, data_needed)


def _preset(model: str, preset: str) -> dict[str, Any]:
    presets = resolve_path(registry().models[model].config).presets()
    if preset not in presets:
        raise UserError(f"model '{model}' has no preset '{preset}'{nearest(preset, presets)}")
    chosen = presets[preset]
    sections = {name: {"name": getattr(chosen, name)[0], **getattr(chosen, name)[1]} for name in SECTIONS}
    return {**chosen.settings, **sections}


def _read_yaml(path: Path, model: str) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--config {path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(document, Mapping):
        raise UserError(f"--config {path}: a mapping of settings is expected, such as 'steps: 1000'")
    if document.get("model", model) != model:
        raise UserError(f"--config {path}: it is for model '{document['model']}', not '{model}'")
    return document


def parse_set(text: str) -> dict[str, Any]:
    """ "a.b=value" as {"a": {"b": value}}; the value is read as YAML (numbers, true/false, lists)."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {text}: expected KEY=VALUE, such as --set steps=1000")
    try:
        document: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        document = value
    if isinstance(document, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            document = float(document)
    for part in reversed(parts):
        document = {part: document}
    return dict(document)


def parse_sets(texts: Sequence[str]) -> dict[str, Any]:
    """Several "a.b=value" as one mapping; later ones win."""
    merged: dict[str, Any] = {}
    for text in texts:
        merged = _merge(merged, parse_set(text))
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping. A section that names another thing starts afresh."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            fresh = key in SECTIONS and value.get("name", old.get("name")) != old.get("name")
            merged[key] = dict(value) if fresh else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _assemble(
    model: str, preset: str, layers: Sequence[tuple[str, Mapping[str, Any]]], data_needed: bool
) -> RunConfig:  # fmt: skip
    spec = registry().models[model]
    merged: dict[str, Any] = {}
    for where, layer in layers:
        for section in SECTIONS:
            if section in layer and not isinstance(layer[section], Mapping):
                raise UserError(f"{where}: '{section}' is a section: set '{section}.name' or one of its settings")
        merged = _merge(merged, layer)
    where = layers[-1][0] if len(layers) == 1 else f"model '{model}'"
    own = {key: value for key, value in merged.items() if key not in (*SECTIONS, "model", "preset")}
    settings: ModelConfig = resolve_path(spec.config).of(own, where)
    data = dict(merged.get("data") or {"name": "shapes"})
    data.setdefault("image_size", loaded_size(settings))
    return RunConfig(
        model,
        preset,
        settings,
        _data(data, data_needed),
        _choice(registry().encoders, merged.get("encoder") or {"name": "words"}, "text encoder"),
        _choice(registry().samplers, merged.get("sampler") or {"name": "direct"}, "sampler"),
    )


def loaded_size(settings: ModelConfig) -> int:
    """Size at which the data set loads pictures: larger than the model's where a random crop follows."""
    return round(settings.image_size * settings.augment.scale)


def _data(section: Mapping[str, Any], needed: bool) -> Choice[DataConfig]:
    """The data set chosen; unless it is needed now, it may be one that is not installed."""
    name = str(section.get("name"))
    if needed or name in registry().datasets:
        return _choice(registry().datasets, section, "data set")
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(name, AbsentData.of(settings, f"data set '{name}'"))


def _choice(table: Table[Any], section: Mapping[str, Any], kind: str) -> Choice[Any]:
    name = section.get("name")
    spec = table[str(name)]
    settings = {key: value for key, value in section.items() if key != "name"}
    return Choice(spec.name, resolve_path(spec.config).of(settings, f"{kind} '{name}'"))


def chosen(table: Table[Any], name: str, settings: Mapping[str, Any], kind: str) -> Choice[Any]:
    """A choice outside a run (a sampler for one call, a metric), with its settings checked."""
    return _choice(table, {"name": name, **settings}, kind)


def open_dataset(choice: Choice[Any], split: str = "train") -> Dataset:
    """A split of a data set."""
    dataset: Dataset = resolve_path(registry().datasets[choice.name].build)(choice.config, split)
    dataset.max_broken = choice.config.max_broken
    return dataset


@dataclass(frozen=True)
class Run:
    """A run directory. Nothing is read or written before it is asked for."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def broken_file(self) -> Path:
        return self.path / "broken.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def complete(self) -> bool:
        return self.summary_file.is_file() and self.model.is_dir()

    def config(self) -> RunConfig:
        document = read_json(self.config_file, f"run {self.path}")
        run = document.get("run") if isinstance(document, dict) else None
        return RunConfig.parse(run if isinstance(run, dict) else {}, str(self.config_file))

    def summary(self) -> dict[str, Any]:
        summary = read_json(self.summary_file, f"run {self.path}")
        if not isinstance(summary, dict):
            raise UserError(f"run {self.path}: {self.summary_file} is no summary of a run")
        return summary


def new_run_path(config: RunConfig, root: Path = Path("runs")) -> Path:
    """A free folder runs/MODEL-DATA-TIME."""
    return free_path(root / f"{config.model}-{config.data.name}-{time.strftime('%Y%m%d-%H%M%S')}")


def free_path(base: Path) -> Path:
    """`base`, or with the first number at its end that makes a name that is not taken."""
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def newest_run(model: str, root: Path = Path("runs")) -> Run:
    """The newest complete run of a model under `root`. UserError, naming the ways to get one, if there is none."""
    registry().models[model]
    found = []
    for summary in root.glob("*/summary.json"):
        run = Run(summary.parent)
        try:
            if run.complete and read_json(run.config_file, "run")["run"]["model"] == model:
                found.append((summary.stat().st_mtime_ns, run))
        except (UserError, KeyError, TypeError):
            continue  # a damaged neighbour must not stand in the way
    if not found:
        raise UserError(
            f"no complete run of model '{model}' under {root}/: "
            f"train one with 't2i train --model {model}' or import weights with 't2i import --model {model} FILE'"
        )
    return max(found, key=lambda pair: pair[0])[1]
