"""What the checks of one model, sampler and so on share: it is built and trained only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.interfaces.trainer import Stage
from t2i.core.kit.conformance.outcome import Skipped
from t2i.core.kit.conformance.watch import BATCH, STEPS, Watcher
from t2i.core.models.building import stages_of
from t2i.core.models.loading import load
from t2i.core.models.model import Model
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset, resolve_config
from t2i.core.runs.folder import Run
from t2i.core.settings import Config

CUT = 47
"""Steps between checkpoints: 47, so that one falls inside each stage of 50 steps (47, 94, ...)."""

CHAIN = 4
"""Largest number of sampling steps."""

CAPTIONS = 3
"""Number of captions to sample for."""


class Part:
    """Anything registered except models and plugins, with its default settings.

    Args:
        kind: Its kind, such as "samplers".
        name: Its registry name.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        self.table = registry().table(kind)
        self.spec: Any = self.table[name]

    def choice(self, **settings: Any) -> Choice[Any]:
        """Choose it.

        Args:
            settings: Settings that differ from the defaults.

        Returns:
            Its name and settings.
        """
        return self.table.choose(self.name, settings)

    def takes(self, setting: str) -> bool:
        """Return whether it has a setting.

        Args:
            setting: Name of the setting.

        Returns:
            True if it has.
        """
        config: type[Config] = import_object(self.spec.config)
        return setting in config.model_fields


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        run: The run.
        watcher: What was observed while it was trained.
    """

    run: Run
    watcher: Watcher


class ModelSubject:
    """A model, trained with preset `tiny`, small batches and STEPS steps in each of its stages.

    Args:
        name: Name of the model.
        folder: Folder for its runs.
        sets: Settings that differ from the preset's, as "KEY=VALUE".
    """

    def __init__(self, name: str, folder: Path, sets: Sequence[str] = ()) -> None:
        self.name, self.folder, self.sets = name, folder, sets
        self.spec: ModelSpec = registry().models[name]
        self._failure: BaseException | None = None

    def must_draw(self) -> None:
        """Skip the check if the model samples no images.

        Raises:
            Skipped: Models of its family sample no images.
        """
        if not registry().draws(self.spec.family):
            raise Skipped(f"it draws no images: its family is '{self.spec.family}'")

    @cached_property
    def config(self) -> RunConfig:
        """The configuration that it is trained with.

        A data set that needs a folder is replaced by the default one.
        """
        config = resolve_config(self.name, sets=self.sets)
        if registry().datasets[config.data.name].needs_dir:
            data = {"name": registry().datasets.default().name}
            config = resolve_config(self.name, overrides={"data": data}, sets=self.sets)
        settings, sampler = config.settings, config.sampler
        few = {} if sampler.config.steps is None else {"steps": min(sampler.config.steps, CHAIN)}
        changes = {
            "steps": STEPS * max(1, len(self.stages(config))), "minutes": None,
            "log_every": 1, "keep": 99, "checkpoint_every": CUT, "sample_every": 10**9,
            "sample_seconds": None, "score_seconds": None,
            "batch_size": min(settings.batch_size, BATCH), "accumulate": 1,
            "workers": 0, "warmup": min(settings.warmup, STEPS // 10),
        }  # fmt: skip
        return replace(
            config,
            settings=settings.model_copy(update=changes),
            sampler=Choice(sampler.name, sampler.config.model_copy(update=few)),
        )

    def stages(self, config: RunConfig) -> Sequence[Stage]:
        """Return the stages of the model's training.

        Args:
            config: The configuration of the run.

        Returns:
            The stages, in order.
        """
        return stages_of(config, registry().encoders.build(config.encoder, None))

    @cached_property
    def trained(self) -> Trained:
        """The finished run.

        If training fails, the first check that needs it (`trains`) reports that, and later checks
        are skipped.
        """
        if self._failure is not None:
            raise Skipped("it does not train: see the check 'trains'")
        watcher = Watcher()
        try:
            run = train(self.config, self.folder / "whole", reporter=Silent(), wrap=watcher.wrap)
        except Exception as failure:
            self._failure = failure
            raise
        return Trained(run, watcher)

    @cached_property
    def model(self) -> Model:
        """The trained model, loaded from its run, on the CPU."""
        return load(self.trained.run.path, "cpu")

    @cached_property
    def captions(self) -> list[str]:
        """The shortest, the longest and a middle caption of the data set's first examples."""
        data = open_dataset(self.trained.run.config().data)
        found = sorted(
            {caption for index in range(min(8, len(data))) for caption in data.captions(index)},
            key=len,
        )
        return [found[round(i * (len(found) - 1) / (CAPTIONS - 1))] for i in range(CAPTIONS)]
