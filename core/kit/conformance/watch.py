"""Observing trainers: which parameters get gradients, which change, and whether losses change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import (
    Batch,
    Engine,
    Losses,
    Networks,
    Stage,
    Trainer,
    optimizations,
)
from t2i.core.kit.conformance.traces import numbers, validated
from t2i.core.settings.engine import EngineConfig

STEPS = 50
"""Training steps of each stage."""

WATCHED = 5
"""Steps of a stage within which every trained parameter must get a gradient."""

COMPARED = 24
"""Batches whose losses are compared."""

BATCH = 4
"""Largest batch size."""

SET = (
    "log_every", "checkpoint_every", "sample_every", "sample_seconds", "accumulate", "workers",
    "warmup",
)  # fmt: skip
"""Settings of the engine that a stage may not change, because the checks rely on them."""


@dataclass
class StageRecord:
    """What was observed of a stage. Parameters are named PART.NAME, and observed for WATCHED steps.

    Args:
        stage: Name of the stage.
        before: Losses of the stage's first COMPARED batches, when they were trained on.
        after: Losses of the same batches, with the same noise, at the end of the stage.
        trained: Parameters that are in an optimizer and require gradients.
        reached: Parameters that got a gradient with a value other than 0.
        touched: Parameters that got any gradient.
        changed: Parameters whose values changed.
        steps: Number of steps that were taken.
        validation: Validation losses of one batch, computed twice at the end of the stage.
        traces: What computing them changed.
    """

    stage: str
    before: list[dict[str, float]] = field(default_factory=list)
    after: list[dict[str, float]] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    steps: int = 0
    validation: list[dict[str, float]] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)


class Watcher:
    """Wraps the stages of one run so that they are observed, and gives each an equal share.

    Args:
        stop_after: Number of stages after which the run is stopped, by raising `Enough`. None to
            run all.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.stages: list[Stage] = []
        self.seen: list[StageRecord] = []
        self.generator: Generator | None = None
        self.text_encoder: TextEncoder | None = None

    def wrap(self, stage: Stage) -> Stage:
        """Wrap the next stage of the run.

        Args:
            stage: The stage.

        Returns:
            A stage whose trainer is observed (`Watched`), with the settings that the checks rely
            on.
        """
        number = len(self.stages)
        self.stages.append(stage)

        def begin(networks: Networks) -> Trainer:
            if self.stop_after is not None and number >= self.stop_after:
                raise Enough
            self.generator, self.text_encoder = networks.generator, networks.text_encoder
            trainer = stage.trainer(networks)
            self.seen.append(StageRecord(stage.name))
            named = {"generator": networks.generator, "text_encoder": networks.text_encoder}
            return Watched(trainer, {**named, **networks.helpers, **trainer.modules}, self.seen[-1])

        # What the checks set for the run (`ModelSubject.config`) holds in every stage.
        own = {name: value for name, value in stage.settings.items() if name not in SET}
        if "batch_size" in own:
            own["batch_size"] = min(own["batch_size"], BATCH)
        return replace(stage, share=1.0, trainer=begin, settings=own)


class Enough(Exception):
    """Raised to stop a run on purpose, once it has trained as many stages as the check needs."""


class Watched(Trainer):
    """A trainer that is observed in its first steps. Its losses are measured again at the end.

    Args:
        trainer: The trainer, which is not changed.
        named: All its networks by the name of their part.
        seen: Where the observations are stored.
    """

    def __init__(self, trainer: Trainer, named: dict[str, nn.Module], seen: StageRecord) -> None:
        self.trainer, self.seen = trainer, seen
        self.modules, self.optimizers, self.eager = (
            trainer.modules,
            trainer.optimizers,
            trainer.eager,
        )
        self.encode, self.shows = trainer.encode, trainer.shows
        self.previews = trainer.previews
        self._named = named
        self._handles: list[RemovableHandle] = []
        self._before: dict[str, Tensor] = {}
        self._batches: list[Batch] = []

    def step(self, batch: Batch, engine: Engine) -> Losses:
        if self.seen.steps == 0:
            self._look_closely()
        kept = replace(batch)  # a copy without what the trainer caches in the batch
        losses = self.trainer.step(batch, engine)
        self.seen.steps += 1
        if self.seen.steps == WATCHED:
            self._look_away()
        if len(self._batches) < COMPARED:
            self._batches.append(kept)
            self.seen.before.append(numbers(losses))
        if self.seen.steps == STEPS:
            self._ask_again()
            self.seen.validation, self.seen.traces = validated(self.trainer, self._named, kept)
        return losses

    def _ask_again(self) -> None:
        """Measure the losses of the first batches again, then restore weights and random states."""
        states = {
            name: {k: v.clone() for k, v in m.state_dict().items()}
            for name, m in self._named.items()
        }
        engine = LocalEngine(self.trainer, EngineConfig(), progress=1.0, updates=False)
        with torch.random.fork_rng():
            for batch in self._batches:
                self.seen.after.append(numbers(self.trainer.step(batch, engine)))
        for name, module in self._named.items():
            module.load_state_dict(states[name])
        self._batches = []

    def preview(self, batch: Batch) -> Tensor | None:
        return self.trainer.preview(batch)

    def finish(self, batches: Callable[[], Batch]) -> None:
        self.trainer.finish(batches)

    def _look_closely(self) -> None:
        """Begin to observe the parameters: keep their values, and register hooks for gradients."""
        chosen = {
            id(p) for optimization in optimizations(self).values() for p in optimization.parameters
        }
        for name, parameter in self._parameters().items():
            self._before[name] = parameter.detach().clone()
            if id(parameter) in chosen:
                self.seen.trained.add(name)
            if parameter.requires_grad:
                watch: Any = parameter.register_post_accumulate_grad_hook
                self._handles.append(watch(self._noting(name)))

    def _noting(self, name: str) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            self.seen.touched.add(name)
            if (
                name not in self.seen.reached
                and parameter.grad is not None
                and bool((parameter.grad != 0).any())
            ):
                self.seen.reached.add(name)

        return note

    def _look_away(self) -> None:
        """End the observation: remove the hooks, and compare the values."""
        for handle in self._handles:
            handle.remove()
        for name, parameter in self._parameters().items():
            if not torch.equal(parameter.detach(), self._before[name]):
                self.seen.changed.add(name)
        self._handles, self._before = [], {}

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Return all parameters by name, shared ones once."""
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for part, module in self._named.items():
            for name, parameter in module.named_parameters():
                found.setdefault(id(parameter), (f"{part}.{name}", parameter))
        return dict(found.values())
