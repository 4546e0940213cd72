"""Write the checkpoints and models of a run, and restore a stage from a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.meter import Meter
from t2i.core.engine.preparing import PreparedStage, model_modules
from t2i.core.engine.random_state import random_state, set_random_state
from t2i.core.engine.warm_start import take_networks
from t2i.core.errors import UserError
from t2i.core.io.processes import everyones
from t2i.core.io.sealed import sealed
from t2i.core.io.tensors import save_tensors


class Saving:
    """Writes the checkpoints of a stage, and restores it from one.

    Args:
        context: The run.
        plan: The stage.
        prepared: The stage's networks and optimizers.
        ema: The averaged weights.
        meter: The stage's log, whose sums are saved too.
    """

    def __init__(
        self, context: RunContext, plan: Plan, prepared: PreparedStage, ema: Ema, meter: Meter
    ) -> None:
        self._context, self._plan = context, plan
        self._prepared, self._ema, self._meter = prepared, ema, meter
        self._judged: float | None = None  # the loss `keep_best` when it was last logged
        self._kept = False  # whether the checkpoint that is written is the best by a score
        self._warned = False

    def check_losses(self, losses: Mapping[str, float]) -> None:
        """Store the logged loss that decides which checkpoint is best (`keep_best`).

        A warning is reported if the last stage does not log it and no checkpoint was the best yet.

        Args:
            losses: The logged losses, by name.
        """
        context = self._context
        name = context.settings.keep_best
        if name is not None and name in losses:
            self._judged = losses[name]
        elif name is not None and not context.is_score(name):
            scores = context.examiner.names if context.examiner else ()
            self._warn(f"logs {', '.join([*losses, *scores])} only")

    def check_score(self, names: Collection[str]) -> None:
        """Report a warning if the last stage does not compute the score `keep_best`.

        Args:
            names: Names of the scores that it computed where it should have computed that one.
                Empty: it has none, which the end of the run reports.
        """
        name = self._context.settings.keep_best
        if name is not None and names and name not in names:
            self._warn(f"is scored by {', '.join(names)} only")

    def _warn(self, what: str) -> None:
        """Report once that `keep_best` is not there, if no checkpoint was the best by it yet."""
        context, stage = self._context, self._plan.stage
        last = self._plan.index == len(context.plans) - 1
        if last and not context.state.best and not self._warned:
            self._warned = True
            context.reporter.say(
                f"warning: keep_best={context.settings.keep_best}: stage {stage.name} {what}"
            )

    def keep(self, score: float) -> None:
        """Write a checkpoint that is the best by the score `keep_best`, and its model to RUN/best.

        All processes must call this together; the first one writes.

        Args:
            score: The score.
        """
        self._context.state.best = [self._context.state.step, score]
        self._kept = True
        self.write()
        self._kept = False

    def _is_best(self) -> bool:
        """Return whether the next checkpoint is the best so far, and if so store that in the state.

        A loss that is NaN or infinite is never the best.
        """
        state = self._context.state
        if self._kept:
            return True
        if self._judged is None or not (
            self._judged < (state.best[1] if state.best else float("inf"))
        ):
            return False
        state.best = [state.step, self._judged]
        return True

    def write(self, *, begun: bool = True, sampled: bool = True) -> None:
        """Write a checkpoint with every process's random state, and the model for sampling.

        All processes must call this together; the first one writes. The best model goes to RUN/best
        and older checkpoints are removed (`keep`).

        Args:
            begun: Whether the stage continues. False: its own networks, optimizers and averages are
                left out.
            sampled: Whether to write RUN/model, with the averaged weights.

        Raises:
            UserError: The file system refused, for example because the disk is full.
        """
        context, run, state = self._context, self._context.run, self._context.state
        states = everyones(random_state(), context.accelerator.num_processes)
        state.wall = context.wall()
        best = self._is_best()
        try:
            if best:  # before the checkpoint, whose state names it as the best
                self._save_model(run.best)
            self._write(states, begun)
            if sampled:
                self._save_model(run.model)
        except OSError as error:
            raise self._refused(error) from None
        if context.is_first:
            checkpoint.prune(run.checkpoints, context.settings.keep, state)
        context.accelerator.wait_for_everyone()

    def _save_model(self, folder: Path) -> None:
        """Write the model with its averaged weights, in the first process."""
        if self._context.is_first or self._prepared.sharding:
            with self._ema.swapped(), self._prepared.whole():
                if self._context.is_first:
                    self._context.model.save(folder)

    def write_models(self) -> None:
        """Write the model for sampling as the last stage left it, without a checkpoint.

        All processes must call this together; the first one writes. If the last checkpoint is the
        best, RUN/best gets this model too.

        Raises:
            UserError: The file system refused, for example because the disk is full.
        """
        context, run, state = self._context, self._context.run, self._context.state
        with self._prepared.whole():
            if context.is_first:
                try:
                    if state.best[:1] == [state.step]:
                        context.model.save(run.best)
                    context.model.save(run.model)
                except OSError as error:
                    raise self._refused(error) from None
        context.accelerator.wait_for_everyone()

    def _refused(self, error: OSError) -> UserError:
        step, reason = self._context.state.step, error.strerror or str(error)
        return UserError(f"cannot save step {step}: {reason}; {self._context.remedy()}")

    def _write(self, random_states: Sequence[Mapping[str, Tensor]], begun: bool) -> None:
        """Write a checkpoint in the first process, with the parts that all of them share out."""
        context, prepared = self._context, self._prepared
        if not (context.is_first or prepared.sharding):
            return
        optimizers = prepared.optimizer_states() if begun else {}
        averages = self._ema.state() if begun else {}
        modules = prepared.saved_modules() if begun else model_modules(context.model)
        with prepared.whole():
            if context.is_first:
                self._write_files(random_states, modules, optimizers, averages)

    def _write_files(
        self,
        random_states: Sequence[Mapping[str, Tensor]],
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Mapping[str, Any]],
        averages: Mapping[str, Tensor],
    ) -> None:
        context = self._context
        more = {
            "ema_count": self._ema.count,
            "scaler": self._scaler_state(),
            "since": self._meter.since,
        }
        with sealed(context.run.checkpoints / f"step-{context.state.step}") as folder:
            checkpoint.write(folder, context.state, modules, optimizers, averages, more)
            save_tensors(folder / "sums.safetensors", self._meter.sums)
            for rank, own in enumerate(random_states):
                save_tensors(folder / f"random-{rank}.safetensors", own)

    def _scaler_state(self) -> dict[str, Any]:
        scaler = self._context.accelerator.scaler
        return scaler.state_dict() if scaler else {}

    def restore(self, saved: Saved) -> None:
        """Restore networks, optimizers, averages, the log's sums and the random state.

        Args:
            saved: A checkpoint that was written within this stage.

        Raises:
            UserError: The checkpoint does not fit the run.
        """
        with checkpoint.fitting(saved):
            self._restore(saved)

    def take_over(self) -> None:
        """Load the stage's own networks, such as a discriminator, of the run that started this one.

        Only its newest checkpoint is looked at; a stage that it was not in begins with fresh ones.
        A line says what does not fit.

        Raises:
            UserError: The checkpoint is damaged.
        """
        start = self._context.start
        if start is None or not start.state.begun or start.state.stage != self._plan.index:
            return
        of_model = model_modules(self._context.model)
        own = {
            name: module for name, module in self._prepared.saved_modules().items()
            if name not in of_model
        }  # fmt: skip
        with self._prepared.whole(keep=True):
            for name, overlap in take_networks(start, own):
                if overlap.new:
                    self._context.reporter.say(f"'{name}': {'; '.join(overlap.lines())}")

    def _restore(self, saved: Saved) -> None:
        accelerator, meter = self._context.accelerator, self._meter
        sharding = self._prepared.sharding
        with self._prepared.whole(keep=True):
            saved.modules(self._prepared.saved_modules())
        shared_out = sharding.shared_out if sharding else None
        saved.optimizers(self._prepared.optimizers, shared_out)
        self._ema.load(saved.averages(), saved.document["ema_count"])
        meter.sums = {
            name: value.to(accelerator.device) for name, value in saved.tensors("sums").items()
        }
        step, clock = saved.document["since"]
        meter.since = (step, clock)
        if accelerator.scaler and saved.document["scaler"]:
            accelerator.scaler.load_state_dict(saved.document["scaler"])
        mine = saved.folder / f"random-{accelerator.process_index}.safetensors"
        if mine.exists():  # missing for some processes if there are more than there were
            set_random_state(saved.tensors(mine.stem))
