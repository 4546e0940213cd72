"""One stage of a run: its trainer and its loop."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path

import torch

from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.budget import Budget
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import Loader, Views, batch_visits
from t2i.core.engine.meter import Meter
from t2i.core.engine.optimizing import Optimizing
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import Gallery, StagePreviews
from t2i.core.engine.random_state import seed_all
from t2i.core.engine.saving import Saving
from t2i.core.engine.stored import Store
from t2i.core.engine.storing import Recipe, obtain
from t2i.core.engine.updates import NotFinite, Updates
from t2i.core.errors import T2IError
from t2i.core.interfaces.dataset import BrokenExample

EARLY_IMAGE = 20.0
"""Seconds of training before the first grid: a newcomer should soon see something."""


class StageRun:
    """One stage, from its beginning or from a checkpoint within it to its end."""

    def __init__(self, context: RunContext, plan: Plan, gallery: Gallery) -> None:
        self.context, self.plan, self.settings = context, plan, plan.settings
        seed, index = self.settings.seed, plan.index
        seed_all(seed, "stage", index)
        self.trainer = plan.stage.trainer(context.model.networks)
        # Random numbers inside networks (dropout) differ from process to process.
        seed_all(seed, "loop", index, context.accelerator.process_index)
        self.prepared = PreparedStage(
            context.model, self.trainer, self.settings, context.accelerator.device, self._say
        )
        self.optimizing = Optimizing(self.prepared.optimizations, self.settings)
        self.budget = Budget(context, index)
        self.updates = Updates(
            context.accelerator, self.settings, self.optimizing, self.budget.progress
        )
        self.ema = Ema(self.prepared.trained(), self.settings.ema_decay)
        self.meter = Meter(context, plan, self.budget)
        self.saving = Saving(context, plan, self.prepared, self.ema, self.meter)
        self.maker = BatchMaker(self.prepared, self.settings)
        self.images = StagePreviews(context, gallery, self.prepared, self.ema, self.maker)
        self.passed_over: list[BrokenExample] = []

    def _say(self, text: str) -> None:
        self.context.reporter.say(f"stage {self.plan.stage.name}: {text}")

    def run(self, saved: Saved | None) -> None:
        """The stage from its beginning, or from a checkpoint within it, to its end."""
        context, state = self.context, self.context.state
        if saved:
            self.saving.restore(saved)
        else:
            state.stage, state.stage_step, state.stage_clock, state.begun = (
                self.plan.index,
                0,
                0.0,
                True,
            )
            state.warm = 0.0
        context.reporter.say(
            f"stage {self.plan.index + 1} of {len(context.plans)}: {self.plan.stage.name}"
        )
        if state.step == 0 and not saved:
            # So that a run can go on wherever it dies, and whoever cannot write hears of it now.
            self.saving.write(sampled=False)
        settings = self.settings
        views = Views(context.dataset, settings.seed, settings.image_size, settings.augment)
        visits = batch_visits(context.dataset, settings.seed, self.plan.shard, state.images)
        source = self._stored(views) if settings.cache_views and self.trainer.encode else views
        self.loader = Loader(source, visits, settings.workers)
        try:
            self._loop()
        finally:
            self.loader.close()
        self._end(views)

    def _stored(self, views: Views) -> Store:
        """The data set as the networks that this stage leaves alone see it, computed now unless it is there already."""
        context, settings, began = self.context, self.settings, time.perf_counter()
        root = (
            Path(settings.cache_dir).expanduser()
            if settings.cache_dir
            else context.run.path / "features"
        )
        recipe = Recipe.of(self.prepared, settings)
        store = obtain(root, context.dataset, views, recipe, context.accelerator, self._storing)
        context.broken.add(store.broken)
        context.spend(time.perf_counter() - began)
        return store

    def _storing(self, text: str) -> None:
        """Says how far storing is, and stops for a signal: the parts that are complete by then stay."""
        self.context.reporter.say(text)
        if stopped := self.context.interrupted():
            self.context.stop_here(stopped)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        context, state, settings = self.context, self.context.state, self.settings
        imaged = state.stage_step > 0
        over = self.budget.spent()
        while not over:
            began = time.perf_counter()
            self._step()
            state.step += 1
            state.stage_step += 1
            state.images += self.plan.shard.total
            context.spend(time.perf_counter() - began)
            over = self.budget.spent()
            if state.step % settings.log_every == 0 or over:
                self._count_broken()
                self.saving.check_losses(self.meter.report(self.optimizing.learning_rates()))
            early = not imaged and state.stage_clock >= EARLY_IMAGE
            if (state.step % settings.sample_every == 0 or early) and not over:
                self.images.draw()
                imaged = True
            stopped = context.interrupted()
            if (state.step % settings.checkpoint_every == 0 or stopped) and not over:
                self.saving.write()
            if stopped and not over:  # at the end of a stage there is more to save first
                context.stop_here(stopped)

    def _step(self) -> None:
        """One optimizer step: learning rates, the parts of a batch, the averages."""
        state, settings = self.context.state, self.settings
        progress = self.budget.progress()
        if state.stage_step <= settings.warmup:
            state.warm = progress
        self.optimizing.set_learning_rates(state.stage_step, progress, state.warm)
        for part in range(settings.accumulate):
            self._part(part)
        self.updates.end_step()
        state.skipped += self.updates.skipped
        self.updates.skipped = 0
        self.ema.update()

    def _part(self, part: int) -> None:
        """The trainer's step on one part of a batch."""
        context, step = self.context, self.context.state.step
        host = next(self.loader)
        self.passed_over += host.broken
        batch = self.maker.make(host, step, self.plan.shard, part)
        self.updates.part = part
        try:
            with (
                context.accelerator.autocast() if self.settings.precision != "no" else nullcontext()
            ):
                losses = self.trainer.step(batch, self.updates)
        except NotFinite as error:
            where = f"step {step}, stage {self.plan.stage.name}"
            remedy = context.remedy(" --on-nan skip")
            raise T2IError(f"stopped before the update of {where}: {error}; {remedy}") from None
        self.meter.add(losses)
        if context.accelerator.num_processes == 1:  # several count together, now and then
            self._count_broken()

    def _count_broken(self) -> None:
        """Tells and counts what the loaders passed over."""
        found, self.passed_over = self.passed_over, []
        self.context.count_broken(found)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, views: Views) -> None:
        """The averaged weights take their place for good, the trainer finishes, and the next stage may begin."""
        context, state = self.context, self.context.state
        self.ema.adopt()
        self.prepared.eval_mode()
        batches = self.maker.from_beginning(context.dataset, views, self.plan.shard.total)
        with torch.no_grad():
            self.trainer.finish(lambda: next(batches))
        self.images.draw()
        self._count_parameters()
        state.stages.append(
            {"name": self.plan.stage.name, "steps": state.stage_step, "seconds": state.stage_clock}
        )
        state.stage, state.stage_step, state.stage_clock, state.begun = (
            self.plan.index + 1,
            0,
            0.0,
            False,
        )
        self.saving.write(begun=False)
        self.prepared.uncompile()
        stopped = context.interrupted()
        if stopped and state.stage < len(context.plans):
            context.stop_here(stopped)

    def _count_parameters(self) -> None:
        """Notes what the stage trained, and the networks that end with it."""
        state = self.context.state
        state.trained = sorted({*state.trained, *self.prepared.trained()})
        all_of_them, trained = self.prepared.own_parameters()
        state.helpers += all_of_them
        state.helpers_trained += trained
