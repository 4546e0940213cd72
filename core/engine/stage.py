"""Run one stage: its trainer, its training loop and its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from t2i.core.engine.adapting import tell_unchanged, trainer_of
from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.budget import Budget
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.loader import HostBatch, Loader, Patient, Views, batch_visits
from t2i.core.engine.meter import Meter
from t2i.core.engine.observing import Observing
from t2i.core.engine.optimizing import Optimizing
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import Gallery, StagePreviews
from t2i.core.engine.random_state import seed_all
from t2i.core.engine.saving import Saving
from t2i.core.engine.scoring import StageScores
from t2i.core.engine.shardable import check_shardable
from t2i.core.engine.stored import Store
from t2i.core.engine.storing import Recipe, obtain
from t2i.core.engine.updates import NotFinite, Updates
from t2i.core.engine.validation import Validation
from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.dataset import BrokenExample, Dataset


@dataclass(frozen=True)
class Held:
    """The data that a run is not trained on.

    Args:
        dataset: The data.
        out: Whether the run is not trained on it. False: the data set has no other split.
        gallery: Its examples for the grids.
    """

    dataset: Dataset
    out: bool
    gallery: Gallery


class StageRun:
    """One stage of a run with its networks, optimizers and loop.

    Args:
        context: The run.
        plan: The stage with its settings.
        held: The data that is not trained on.

    Attributes:
        context: The run.
        plan: The stage with its settings.
        settings: The stage's settings.
        trainer: The stage's trainer.
        prepared: The networks, ready for training.
        optimizing: The optimizers.
        budget: The stage's budget.
        updates: The engine that the trainer gets.
        ema: The averaged weights.
        meter: The stage's log.
        saving: Writes and restores checkpoints.
        maker: Makes batches.
        images: Writes grids.
        observing: Calls the run's observer.
        grids: Says when a grid is due by the clock.
        scores: Scores the model, keeps the best checkpoint, and stops the stage early.
        passed_over: Broken examples that were skipped and not counted yet.
    """

    def __init__(self, context: RunContext, plan: Plan, held: Held) -> None:
        self.context, self.plan, self.settings = context, plan, plan.settings
        seed, index = self.settings.seed, plan.index
        seed_all(seed, "stage", index)
        self.trainer = trainer_of(context.model, plan.stage, self.settings, self._say)
        # Random numbers inside networks (dropout) must differ between processes.
        seed_all(seed, "loop", index, context.accelerator.process_index)
        self.prepared = PreparedStage(
            context.model, self.trainer, self.settings, context.accelerator.device, self._say
        )
        several = context.accelerator.num_processes > 1
        if self.settings.parallel == "fsdp" and several and self.prepared.optimizers:
            check_shardable(self.trainer, plan.stage.name)
            self.prepared.shard(context.accelerator)
        sharding = self.prepared.sharding
        norm = sharding.norm if sharding else None
        self.optimizing = Optimizing(self.prepared.optimizations, self.settings, norm)
        self.budget = Budget(context, index)
        self.updates = Updates(
            context.accelerator, self.settings, self.optimizing, self.budget.progress, sharding
        )
        self.ema = Ema.of(self.prepared.trained(), self.settings, sharding)
        self.meter = Meter(context, plan, self.budget)
        self.saving = Saving(context, plan, self.prepared, self.ema, self.meter)
        self.maker = BatchMaker(self.prepared, self.settings)
        self.grids = GridClock(self.settings.sample_seconds)
        self.images = StagePreviews(
            context, plan, held.gallery, self.prepared, self.ema, self.maker
        )
        self.scores = StageScores(
            context, plan, self.prepared, self.ema,
            Validation(context, plan, self.prepared, self.budget, held.dataset, held.out),
            self.images, self.grids, self.saving,
        )  # fmt: skip
        self.observing = Observing(context, plan, self.prepared, self.ema)
        self.passed_over: list[BrokenExample] = []

    def _say(self, text: str) -> None:
        self.context.reporter.say(f"stage {self.plan.stage.name}: {text}")

    def run(self, saved: Saved | None) -> None:
        """Run the stage to its end.

        Args:
            saved: A checkpoint within the stage to start from. None: start at its beginning.

        Raises:
            Interrupted: A signal stopped the run; everything was saved first.
            T2IError: A loss or a gradient is not finite, and `on_nan` is "stop".
            UserError: Too many examples are broken, or the checkpoint does not fit or cannot be
                written.
        """
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
            state.scored = state.scored.new_stage()
            self.saving.take_over()
        context.reporter.say(
            f"stage {self.plan.index + 1} of {len(context.plans)}: {self.plan.stage.name}"
        )
        self.meter.move(first=True)
        if state.step == 0 and not saved:
            # A run can then be resumed wherever it is killed, and a disk that refuses is found now.
            self.saving.write(sampled=False)
        settings = self.settings
        views = Views(context.dataset, settings.seed, settings.image_size, settings.augment)
        visits = batch_visits(context.dataset, settings.seed, self.plan.shard, state.images)
        source = self._stored(views) if settings.cache_views and self.trainer.encode else views
        self.loader = Loader(source, visits, settings.workers, context.reporter.say, self._waiting)
        try:
            self._loop()
        finally:
            self.loader.close()
        self._end(views)

    def _stored(self, views: Views) -> Store:
        """Return the frozen networks' stored outputs, computed now if they are not there yet.

        The time counts as training of this stage.
        """
        context, settings, began = self.context, self.settings, self.context.running()
        root = (
            Path(settings.cache_dir).expanduser()
            if settings.cache_dir
            else context.run.path / "features"
        )
        recipe = Recipe.of(self.prepared, settings)
        store = obtain(root, context.dataset, views, recipe, context.accelerator, self._storing)
        context.broken.add(store.broken)
        context.spend(context.running() - began)
        return store

    def _storing(self, text: str) -> None:
        """Report how far storing is, and stop on a signal; finished parts are kept."""
        self.context.reporter.say(text)
        if stopped := self.context.interrupted():
            self.context.stop_here(stopped)

    # --- the loop ---------------------------------------------------------------------------------

    def _loop(self) -> None:
        context, state, settings = self.context, self.context.state, self.settings
        self.grids.begin()
        self.scores.begin()
        self._score()  # if a signal cut it short at this step
        over = self.budget.spent() or self.scores.stops()
        while not over:
            self._observe()
            began = context.running()
            self._step(self._read())
            state.step += 1
            state.stage_step += 1
            state.images += self.plan.shard.total
            context.spend(context.running() - began)
            over = self.budget.spent()
            if state.step % settings.log_every == 0 or over:
                self._log()
            self.meter.move()
            due = self._agreed(self.grids.due())
            if (state.step % settings.sample_every == 0 or due) and not over:
                with self.grids.drawing():
                    self.images.draw()
            self._score()
            if not over and self.scores.stops():
                over = True
                self.scores.say_stopped()
                if self.meter.since[0] < state.step:
                    self._log()
            stopped = context.interrupted()
            if (state.step % settings.checkpoint_every == 0 or stopped) and not over:
                self.saving.write()
            if stopped and not over:  # if over, `_end` saves and stops
                context.stop_here(stopped)

    def _log(self) -> None:
        """Write a line of the log."""
        self._count_broken()
        self.saving.check_losses(self.meter.report(self.optimizing.learning_rates()))

    def _score(self) -> None:
        """Score the model, if that is due. By steps it is due for all processes at once."""
        due = self.scores.due()
        if due if self.settings.score_every else self._agreed(due):
            self.scores.run()

    def _observe(self) -> None:
        """Let the observer look at the model. A signal meanwhile stops the run before its step."""
        if not self.observing.look():
            self.saving.write()
            self.context.stop_here(self.context.interrupted())

    def _agreed(self, due: bool) -> bool:
        """Return whether a grid or scores are due by the first process's clock, for all of them.

        Several processes ask each other at log lines only.
        """
        accelerator = self.context.accelerator
        if accelerator.num_processes == 1:
            return due
        if self.context.state.step % self.settings.log_every:
            return False
        flag = torch.tensor(float(due), device=accelerator.device)
        return bool(accelerator.gather(flag[None])[0])

    def _read(self) -> list[HostBatch]:
        """Read the micro-batches of a step. If that fails or a signal arrives, save and stop."""
        context, hosts = self.context, list[HostBatch]()

        def read() -> None:
            for _ in range(self.settings.accumulate):
                hosts.append(next(self.loader))
                self.passed_over += hosts[-1].broken

        if context.accelerator.num_processes > 1:  # all of them stop together, or none
            read()
            return hosts
        try:
            context.stop.optional(read)
            self._count_broken()
        except Exception:
            self._rescue()
            raise
        if context.interrupted():
            self.saving.write()
            context.stop_here(context.interrupted())
        return hosts

    def _rescue(self) -> None:
        """Save what is not saved yet, because what happens to the data is not the model's fault."""
        context, step = self.context, self.context.state.step
        if step in context.run.steps_saved() or context.accelerator.num_processes > 1:
            return
        try:
            self.saving.write()
        except UserError as error:
            context.reporter.say(f"warning: {error}")
            return
        command = f"'t2i train --resume {context.run.path}'"
        context.reporter.say(f"saved step {step}: {command} goes on from it")

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Surround the time in which data is away: all is saved first, and nothing is charged."""
        with self.context.running.left_out():
            with self.context.stop.whole():
                self._rescue()
            yield

    def _step(self, hosts: Sequence[HostBatch]) -> None:
        """Do one step: set learning rates, train on each micro-batch, update the averages."""
        state, settings = self.context.state, self.settings
        progress = self.budget.progress()
        if state.stage_step <= settings.warmup:
            state.warm = progress
        self.optimizing.set_learning_rates(state.stage_step, progress, state.warm)
        for part, host in enumerate(hosts):
            self._part(part, host)
        self.updates.end_step()
        state.skipped += self.updates.skipped
        self.updates.skipped = 0
        self.ema.update()

    def _part(self, part: int, host: HostBatch) -> None:
        """Call the trainer's step with one micro-batch."""
        context, step = self.context, self.context.state.step
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

    def _count_broken(self) -> None:
        """Report and count the broken examples that the loaders skipped.

        Several processes count together, at each log line.
        """
        found, self.passed_over = self.passed_over, []
        self.context.count_broken(found)

    # --- the end ----------------------------------------------------------------------------------

    def _end(self, views: Views) -> None:
        """End the stage: adopt the averages, let the trainer finish, write grid and checkpoint.

        The checkpoint at the end of the last stage is written before that, with optimizers and the
        stage's own networks, so that the run can go on with a longer budget.
        """
        context, state = self.context, self.context.state
        last = self.plan.index == len(context.plans) - 1
        if last:
            self.saving.write(sampled=False)
        tell_unchanged(context.model, self._say)
        self.ema.adopt()
        self.prepared.eval_mode()
        waits = Patient(views, context.reporter.say)
        batches = self.maker.from_beginning(context.dataset, waits, self.plan.shard.total)
        with torch.no_grad(), self.prepared.whole(keep=True):
            self.trainer.finish(lambda: next(batches))
        self.images.draw()
        self._count_parameters()
        ended = {"stopped_early": True} if self.scores.stops() else {}
        state.stages.append({
            "name": self.plan.stage.name, "steps": state.stage_step,
            "seconds": state.stage_clock, **ended,
        })  # fmt: skip
        state.stage, state.stage_step, state.stage_clock, state.begun = (
            self.plan.index + 1,
            0,
            0.0,
            False,
        )
        if last:
            self.saving.write_models()
        else:
            self.saving.write(begun=False)
        self.prepared.uncompile()
        stopped = context.interrupted()
        if stopped and state.stage < len(context.plans):
            context.stop_here(stopped)

    def _count_parameters(self) -> None:
        """Record what the stage trained, and the size of the networks that end with it."""
        state = self.context.state
        state.trained = sorted({*state.trained, *self.prepared.trained()})
        all_of_them, trained = self.prepared.own_parameters()
        state.helpers += all_of_them
        state.helpers_trained += trained
