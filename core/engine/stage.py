"""One stage of a run: its trainer, its loop, its pictures and checkpoints."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i.core.data import Visit
from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import HostBatch, Loader, Views, batch_visits
from t2i.core.engine.reporting import Status
from t2i.core.engine.text_cache import TextCache
from t2i.core.engine.updates import NotFinite, Updates
from t2i.core.errors import Interrupted, T2IError
from t2i.core.files import save_tensors, sealed
from t2i.core.images import to_tensor
from t2i.core.noise import StepNoise, seeded
from t2i.core.trainer import Batch, Stage, Trainer

if TYPE_CHECKING:
    from t2i.core.engine.training import Training

EARLY_PICTURE = 20.0  # seconds of training before the first grid: a newcomer should soon see something


def stage_ends(stages: Sequence[Stage], whole: float) -> list[float]:
    """Where each stage ends, of a budget of `whole`, by the stages' shares."""
    total = sum(stage.share for stage in stages)
    return [whole * share / total for share in itertools.accumulate(stage.share for stage in stages)]


class StageRun:
    """One stage: its trainer, its loop, its checkpoints."""

    def __init__(self, training: Training, index: int) -> None:
        self.training, self.index = training, index
        self.stage, self.settings = training.stages[index], training.settings
        self.accelerator, self.model, self.reporter = training.accelerator, training.model, training.reporter
        seed = self.settings.seed
        seeded(seed, "stage", index)
        self.trainer: Trainer = self.stage.trainer(self.model.generator, self.model.text_encoder)
        # Random numbers inside networks (dropout) differ from process to process.
        seeded(seed, "loop", index, self.accelerator.process_index)
        for module in self.trainer.modules.values():
            module.to(self.accelerator.device)
        self.updates = Updates(self.accelerator, self.settings, self.trainer.optimizers, self.progress)
        self.ema = Ema(self._trained(), self.settings.ema_decay)
        encoder = self.model.text_encoder
        self.encoder_trains = any(p in self._in_optimizers() for p in encoder.parameters())
        self.cache = TextCache(encoder)
        # What was lost since the last line of the log, and when that was: (step, clock).
        self.sums: dict[str, torch.Tensor] = {}
        self.since = (training.position.step, training.position.clock)
        self.ends = stage_ends(training.stages, self._whole())
        self._prepare_modules()

    # --- set-up ------------------------------------------------------------------------------------------------------

    def _in_optimizers(self) -> set[nn.Parameter]:
        groups = [group for optimizer in self.trainer.optimizers.values() for group in optimizer.param_groups]
        return {p for group in groups for p in group["params"] if p.requires_grad}

    def _trained(self) -> dict[str, nn.Parameter]:
        """The parameters of generator and text encoder that this stage trains, by name."""
        chosen, parts = self._in_optimizers(), {"generator": self.model.generator, "text": self.model.text_encoder}
        return {f"{part}.{n}": p for part, module in parts.items() for n, p in module.named_parameters() if p in chosen}

    def _model_modules(self) -> dict[str, nn.Module]:
        return {"generator": self.model.generator, "text_encoder": self.model.text_encoder}

    def _saved_modules(self) -> dict[str, nn.Module]:
        """Generator, text encoder, and the trainer's modules that are neither nor inside either."""
        saved = self._model_modules()
        inside = {id(module) for part in saved.values() for module in part.modules()}
        return saved | {n: m for n, m in self.trainer.modules.items() if id(m) not in inside}

    def _prepare_modules(self) -> None:
        if self.settings.channels_last:
            for module in self.trainer.modules.values():
                module.to(memory_format=torch.channels_last)
        if self.settings.compile:
            for name, module in self.trainer.modules.items():
                if name in self.trainer.eager:
                    self.reporter.say(f"stage {self.stage.name}: '{name}' stays eager (a double backward needs it)")
                else:
                    module.compile()
        self._train_mode()

    def _train_mode(self) -> None:
        """Only what the stage names is in training mode: a frozen network keeps its running averages."""
        self.model.generator.eval()
        self.model.text_encoder.eval()
        for module in self.trainer.modules.values():
            module.train()

    # --- budget ------------------------------------------------------------------------------------------------------

    def _whole(self) -> float:
        return self.settings.minutes * 60 if self.settings.minutes else self.settings.steps

    def progress(self) -> float:
        """How much of the stage's budget is spent. By the clock, the share of what earlier stages left or overran
        is this stage's, so that the whole run keeps its budget."""
        position = self.training.position
        end = self.ends[self.index]
        if self.settings.minutes:
            spent, begun = position.stage_clock, position.clock - position.stage_clock
        else:
            spent, begun, end = position.stage_step, position.step - position.stage_step, round(end)
        return min(1.0, spent / max(end - begun, 1e-9))

    def _spent(self) -> bool:
        """Whether the stage is over; the first process's clock decides for all."""
        over = self.progress() >= 1
        if self.settings.minutes and self.accelerator.num_processes > 1:
            flag = torch.tensor(float(over), device=self.accelerator.device)
            over = bool(self.accelerator.gather(flag[None])[0])
        return over

    # --- the loop ----------------------------------------------------------------------------------------------------

    def go(self, saved: Saved | None) -> None:
        """The stage from its beginning, or from a checkpoint within it, to its end."""
        position = self.training.position
        if saved:
            self._restore(saved)
        else:
            position.stage, position.stage_step, position.stage_clock, position.begun = self.index, 0, 0.0, True
        self.reporter.say(f"stage {self.index + 1} of {len(self.training.stages)}: {self.stage.name}")
        views = Views(self.training.dataset, self.settings.seed, self.settings.image_size, self.settings.augment)
        plan = batch_visits(self.training.dataset, self.settings.seed, self.training.rows, position.step)
        self.loader = Loader(views, plan, self.settings.workers)
        try:
            self._loop()
        finally:
            self.loader.close()
        self._end(views)

    def _loop(self) -> None:
        position, settings = self.training.position, self.settings
        pictured = position.stage_step > 0
        over = self._spent()
        while not over:
            began = time.perf_counter()
            self._step()
            position.step += 1
            position.stage_step += 1
            seconds = time.perf_counter() - began
            position.clock += seconds
            position.stage_clock += seconds
            over = self._spent()
            if position.step % settings.log_every == 0 or over:
                self._report()
            early = not pictured and position.stage_clock >= EARLY_PICTURE
            if (position.step % settings.sample_every == 0 or early) and not over:
                self._picture()
                pictured = True
            stopped = self.training.interrupted()
            if (position.step % settings.checkpoint_every == 0 or stopped) and not over:
                self._checkpoint()
            if stopped:
                path = self.training.run.path
                raise Interrupted(f"stopped at step {position.step}; 't2i train --resume {path}' goes on", stopped)

    def _step(self) -> None:
        for part in range(self.settings.accumulate):
            self.updates.part = part
            batch = self._batch(next(self.loader), self.training.position.step, part)
            try:
                with self.accelerator.autocast():
                    losses = self.trainer.step(batch, self.updates)
            except NotFinite as error:
                where = f"step {self.training.position.step}, stage {self.stage.name}"
                raise T2IError(f"stopped before the update of {where}: {error}; {self._remedy()}") from None
            for name, loss in losses.items():
                value = loss.detach() / self.settings.accumulate
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.training.position.skipped += self.updates.skipped
        self.updates.skipped = 0
        self.ema.update()

    def _remedy(self) -> str:
        saved, _ = checkpoint.newest(self.training.run.checkpoints)
        if saved is None:
            return "no checkpoint was written yet: lower the learning rate, or --set on_nan=skip"
        path = self.training.run.path
        return f"the last sound checkpoint is {saved.folder}: 't2i train --resume {path}' goes on from it"

    def _batch(self, host: HostBatch, step: int, part: int = 0) -> Batch:
        device = self.accelerator.device
        images = to_tensor(host.images, device)
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        rows = self.training.rows
        noise = StepNoise(self.settings.seed, step, rows.start(part), len(images), rows.total, device)
        encode = self.model.text_encoder.encode if self.encoder_trains else self.cache
        return Batch(images, host.captions, host.keys, noise, encode, host.extras)

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        position = self.training.position
        steps, seconds = position.step - self.since[0], position.clock - self.since[1]
        means = torch.stack([value.float() for value in self.sums.values()]) / max(steps, 1)
        means = self.accelerator.reduce(means, "mean").cpu()
        losses = {name: float(mean) for name, mean in zip(self.sums, means, strict=True)}
        rate = steps * self.settings.batch_size / max(seconds, 1e-9)
        self.sums, self.since = {}, (position.step, position.clock)
        if not self.accelerator.is_main_process:
            return
        entry = {
            "stage": self.stage.name,
            "step": position.step,
            "losses": losses,
            "learning_rates": self.updates.learning_rates(),
            "images_per_second": rate,
            "seconds": position.clock,
            "skipped": position.skipped,
        }
        self.training.log.add(entry)
        done = min(1.0, (position.clock if self.settings.minutes else position.step) / self._whole())
        left = position.clock * (1 - done) / done if done else None
        self.reporter.status(Status(self.stage.name, position.step, done, rate, left, losses))

    def _picture(self) -> None:
        if self.accelerator.is_main_process:
            with self.ema.swapped():
                path = self.training.gallery.draw(
                    f"step-{self.training.position.step}", self.model, self.trainer, self._gallery_batch
                )
            self.reporter.say(f"pictures: {path}")
            self._train_mode()
        self.accelerator.wait_for_everyone()

    def _gallery_batch(self) -> Batch:
        """The gallery's examples as a batch, the same each time."""
        examples = self.training.gallery.examples
        views = Views(examples, 0, self.settings.image_size, self.settings.augment)
        batch = self._batch(views[[Visit(0, index) for index in range(len(examples))]], -1)
        noise = StepNoise(self.settings.seed, -1, 0, len(examples), len(examples), self.accelerator.device)
        return replace(batch, noise=noise, encode=self.cache)

    def _checkpoint(self, begun: bool = True) -> None:
        """Writes a checkpoint and the model; every process's random state goes with it."""
        run, position = self.training.run, self.training.position
        states = self._random_states()
        if self.accelerator.is_main_process:
            with sealed(run.checkpoints / f"step-{position.step}") as folder:
                optimizers = self.trainer.optimizers if begun else {}
                modules = self._saved_modules() if begun else self._model_modules()
                more = {
                    "ema_count": self.ema.count,
                    "updates": self.updates.counts,
                    "scaler": self._scaler_state(),
                    "sums": {name: float(value) for name, value in self.sums.items()},
                    "since": self.since,
                }
                checkpoint.write(folder, position, modules, optimizers, self.ema.state() if begun else {}, more)
                for rank, state in enumerate(states):
                    save_tensors(folder / f"random-{rank}.safetensors", state)
            with self.ema.swapped():
                self.model.save(run.model)
            checkpoint.prune(run.checkpoints, self.settings.keep)
        self.accelerator.wait_for_everyone()

    def _random_states(self) -> list[Mapping[str, torch.Tensor]]:
        own = checkpoint.random_state()
        if self.accelerator.num_processes == 1:
            return [own]
        everyone: list[Any] = [None] * self.accelerator.num_processes
        torch.distributed.all_gather_object(everyone, own)
        return everyone

    def _scaler_state(self) -> dict[str, Any]:
        return self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}

    def _restore(self, saved: Saved) -> None:
        saved.modules(self._saved_modules())
        saved.optimizers(self.trainer.optimizers)
        self.ema.load(saved.tensors("ema"), saved.state["ema_count"])
        self.updates.counts.update(saved.state["updates"])
        device = self.accelerator.device
        self.sums = {name: torch.tensor(value, device=device) for name, value in saved.state["sums"].items()}
        step, clock = saved.state["since"]
        self.since = (step, clock)
        if self.accelerator.scaler and saved.state["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        mine = saved.folder / f"random-{self.accelerator.process_index}.safetensors"
        if mine.exists():  # another number of processes has no state for some
            checkpoint.set_random_state(saved.tensors(mine.stem))

    def _end(self, views: Views) -> None:
        """The averaged weights take their place for good, the trainer finishes, and the next stage may begin."""
        position = self.training.position
        self.ema.adopt()
        batches = self._fresh_batches(views)
        self.model.generator.eval()
        self.model.text_encoder.eval()
        self.trainer.finish(lambda: next(batches))
        if self.accelerator.is_main_process:
            path = self.training.gallery.draw(f"step-{position.step}", self.model, self.trainer, self._gallery_batch)
            self.reporter.say(f"pictures: {path}")
        trained = sum(p.numel() for p in self._in_optimizers())
        assert position.stages is not None
        position.stages.append({
            "name": self.stage.name, "steps": position.stage_step, "seconds": position.stage_clock,
            "trained_parameters": trained,
        })  # fmt: skip
        position.stage, position.stage_step, position.stage_clock, position.begun = self.index + 1, 0, 0.0, False
        self._checkpoint(begun=False)

    def _fresh_batches(self, views: Views) -> Iterator[Batch]:
        """The training data from its beginning, the same whatever happened before."""
        plan = batch_visits(self.training.dataset, self.settings.seed, self.training.rows, 0)
        for number, visits in enumerate(plan):
            yield self._batch(views[visits], -2 - number)
