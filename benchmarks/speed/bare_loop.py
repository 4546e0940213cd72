"""The bare loop that `bench speed` compares the engine with."""

from __future__ import annotations

import time
from itertools import islice

import torch

from t2i.benchmarks.run.operations import counted_step
from t2i.core.devices import best_device
from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.loader import BatchShard, Loader, Views, batch_visits
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.dataset import Dataset
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.runs.configure import RunConfig, open_dataset

MADE = 8  # batches that are made to measure the time of making data


class Twin:
    """A second model with its own trainer, trained by a bare loop with the single-process engine.

    Args:
        config: The model's configuration.
        number: Index of the stage, from 0.

    Attributes:
        model: The model.
        stage: Name of the stage.
        settings: The stage's settings.
        shard: The images of each step.
        prepared: The stage's networks and optimizers.
        averaged: The parameters that are averaged.
        averages: Their averages.
        arithmetic: The convolutions and matrix products of a micro-batch.
        making: Seconds to make the data of a step.
        loader: Makes the batches.
        done: Number of steps so far.
        waited: Seconds that the loop waited for data so far.
    """

    def __init__(self, config: RunConfig, number: int) -> None:
        device = best_device()
        self.model = build(config).to(device)
        stage = stages_of(config, self.model.text_encoder)[number]
        self.stage, self.settings = stage.name, stage_settings(config, stage)
        self.shard = BatchShard(self.settings.batch_size, self.settings.accumulate)
        self.prepared = PreparedStage(
            self.model, stage.trainer(self.model.networks), self.settings, device
        )
        self.arithmetic = counted_step(config, stage.name, self.shard.count)
        self._engine = LocalEngine(self.prepared.trainer, self.settings, progress=0.5)
        self._maker = BatchMaker(self.prepared, self.settings)
        self.averaged = list(self.prepared.trained().values())
        self.averages = [p.detach().clone() for p in self.averaged]
        self._feed(open_dataset(config.data))
        self.done = 0
        self.waited = 0.0

    def _feed(self, data: Dataset) -> None:
        """Measure the time of making batches, then start the loader that the engine uses too."""
        settings = self.settings
        views = Views(data, settings.seed, settings.image_size, settings.augment)
        started = time.perf_counter()
        for visits in islice(batch_visits(data, settings.seed, self.shard, 0), MADE):
            views[visits]
        self.making = (time.perf_counter() - started) / MADE * settings.accumulate
        self.loader = Loader(
            views, batch_visits(data, settings.seed, self.shard, 0), settings.workers
        )

    def steps(self, count: int) -> None:
        """Make training steps, and wait until the device has finished them.

        Args:
            count: Number of steps.
        """
        for _ in range(count):
            self._engine.begin_step(self.done)
            for part in range(self.settings.accumulate):
                self._engine.part = part
                asked = time.perf_counter()
                host = next(self.loader)
                self.waited += time.perf_counter() - asked
                self.prepared.trainer.step(
                    self._maker.make(host, self.done, self.shard, part), self._engine
                )
            if self.settings.ema_decay and self.averages:
                torch._foreach_lerp_(
                    self.averages,
                    [p.detach() for p in self.averaged],
                    1 - self.settings.ema_decay,
                )
            self.done += 1
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()
