"""One stage of a run: its trainer, its loop, its pictures and checkpoints."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import HostBatch, Loader, Rows, Views, batch_visits
from t2i.core.engine.reporting import Status
from t2i.core.engine.stored import Recipe, Store, obtain
from t2i.core.engine.text_cache import TextCache
from t2i.core.engine.updates import NotFinite, Updates, learning_rate_factor
from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.dataset import BrokenExample, Visit
from t2i.core.interfaces.noise import StepNoise, random_stream, seeded
from t2i.core.interfaces.trainer import Batch, Stage, Trainer
from t2i.core.io.files import save_tensors, sealed
from t2i.core.io.images import to_tensor
from t2i.core.models.weights import owned_tensors

if TYPE_CHECKING:
    from t2i.core.engine.training import Training

EARLY_PICTURE = 20.0  # seconds of training before the first grid: a newcomer should soon see something
GALLERY, FIRST_FINISH = -1, -2  # what StepNoise is keyed by outside the steps, which count from 0


def stage_ends(stages: Sequence[Stage], whole: float) -> list[float]:
    """Where each stage ends, of a budget of `whole`, by the stages' shares."""
    total = sum(stage.share for stage in stages)
    return [whole * share / total for share in itertools.accumulate(stage.share for stage in stages)]


def _seed_all(*key: int | str) -> None:
    """Seeds torch's generators, and those that a trainer should not use but a library might."""
    seeded(*key)
    seeds = random_stream("global", *key)
    random.seed(int(seeds.integers(2**63)))
    np.random.seed(int(seeds.integers(2**32)))


class StageRun:
    """One stage: its trainer, its loop, its checkpoints."""

    def __init__(self, training: Training, index: int) -> None:
        self.training, self.index = training, index
        self.stage, self.rows = training.stages[index], training.rows[index]
        own = {} if self.stage.lr_halvings is None else {"lr_halvings": self.stage.lr_halvings}
        self.settings = training.settings.model_copy(update=own)
        self.accelerator, self.model, self.reporter = training.accelerator, training.model, training.reporter
        seed = self.settings.seed
        _seed_all(seed, "stage", index)
        self.trainer: Trainer = self.stage.trainer(self.model.generator, self.model.text_encoder)
        # Random numbers inside networks (dropout) differ from process to process.
        _seed_all(seed, "loop", index, self.accelerator.process_index)
        self.updates = Updates(self.accelerator, self.settings, self.trainer.optimizers, self.progress)
        encoder, chosen = self.model.text_encoder, self._in_optimizers()
        self.encoder_trains = any(p in chosen for p in encoder.parameters())
        self._prepare_modules()
        self.cache = TextCache(encoder)
        self.ema = Ema(self._trained(), self.settings.ema_decay)
        # What was lost since the last line of the log, and when that was: (step, clock).
        self.sums: dict[str, torch.Tensor] = {}
        self.since = (training.position.step, training.position.clock)
        self.passed_over: list[BrokenExample] = []
        self.judged: float | None = None  # the loss `keep_best`, when it was last logged
        self.ends = stage_ends(training.stages, self._whole())

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
        for name, module in self.trainer.modules.items():
            module.to(self.accelerator.device)
            if self.settings.channels_last:
                module.to(memory_format=torch.channels_last)
            if self.settings.compile and name not in self.trainer.eager:
                module.compile()
            elif self.settings.compile:
                self.reporter.say(f"stage {self.stage.name}: '{name}' stays eager (a double backward needs it)")
        self._train_mode()

    def _train_mode(self) -> None:
        """Only what the stage names is in training mode: a frozen network keeps its running averages. The encoder is
        if, and only if, the stage trains it."""
        self._eval_mode()
        for module in self.trainer.modules.values():
            module.train()
        self.model.text_encoder.train(self.encoder_trains)

    def _eval_mode(self) -> None:
        for module in (self.model.generator, self.model.text_encoder, *self.trainer.modules.values()):
            module.eval()

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
            with checkpoint.fitting(saved):
                self._restore(saved)
        else:
            position.stage, position.stage_step, position.stage_clock, position.begun = self.index, 0, 0.0, True
            position.warm = 0.0
        self.reporter.say(f"stage {self.index + 1} of {len(self.training.stages)}: {self.stage.name}")
        if position.step == 0 and not saved:
            # So that a run can go on wherever it dies, and whoever cannot write hears of it now.
            self._checkpoint(sampled=False)
        views = Views(self.training.dataset, self.settings.seed, self.settings.image_size, self.settings.augment)
        plan = batch_visits(self.training.dataset, self.settings.seed, self.rows, position.images)
        source = self._stored(views) if self.settings.cache_views and self.trainer.encode else views
        self.loader = Loader(source, plan, self.settings.workers)
        try:
            self._loop()
        finally:
            self.loader.close()
        self._end(views)

    def _stored(self, views: Views) -> Store:
        """The data set as the networks that this stage leaves alone see it, computed now unless it is there already."""
        training, settings, began = self.training, self.settings, time.perf_counter()
        root = Path(settings.cache_dir).expanduser() if settings.cache_dir else training.run.path / "features"
        store = obtain(root, training.dataset, views, self._recipe(), self.accelerator, self._storing)
        training.broken.add(store.broken)
        seconds = time.perf_counter() - began
        training.position.clock += seconds
        training.position.stage_clock += seconds
        return store

    def _recipe(self) -> Recipe:
        """What is stored, and how it is computed."""
        assert self.trainer.encode is not None
        parts = {"generator": self.model.generator, "text": self.model.text_encoder}
        tensors = {f"{part}.{n}": t for part, module in parts.items() for n, t in owned_tensors(module).items()}
        fixed = {name: tensor for name, tensor in tensors.items() if name not in self._trained()}
        text = None if self.encoder_trains else self.model.text_encoder.encode
        return Recipe(self.settings, self.trainer.encode, text, fixed)

    def _storing(self, text: str) -> None:
        """Says how far storing is, and stops for a signal: the parts that are complete by then stay."""
        self.reporter.say(text)
        if stopped := self.training.interrupted():
            self.training.stop_here(stopped)

    def _loop(self) -> None:
        position, settings = self.training.position, self.settings
        pictured = position.stage_step > 0
        over = self._spent()
        while not over:
            began = time.perf_counter()
            self._step()
            position.step += 1
            position.stage_step += 1
            position.images += self.rows.total
            seconds = time.perf_counter() - began
            position.clock += seconds
            position.stage_clock += seconds
            over = self._spent()
            if position.step % settings.log_every == 0 or over:
                self._count_broken()
                self._report()
            early = not pictured and position.stage_clock >= EARLY_PICTURE
            if (position.step % settings.sample_every == 0 or early) and not over:
                self._picture()
                pictured = True
            stopped = self.training.interrupted()
            if (position.step % settings.checkpoint_every == 0 or stopped) and not over:
                self._checkpoint()
            if stopped and not over:  # at the end of a stage there is more to save first
                self.training.stop_here(stopped)

    def _step(self) -> None:
        position, settings = self.training.position, self.settings
        progress = self.progress()
        if position.stage_step <= settings.warmup:
            position.warm = progress
        self.updates.set_learning_rates(learning_rate_factor(settings, position.stage_step, progress, position.warm))
        for part in range(settings.accumulate):
            self.updates.part = part
            batch = self._batch(next(self.loader), position.step, self.rows, part)
            try:
                with self.accelerator.autocast() if settings.precision != "no" else nullcontext():
                    losses = self.trainer.step(batch, self.updates)
            except NotFinite as error:
                where = f"step {position.step}, stage {self.stage.name}"
                remedy = self._remedy(" --on-nan skip")
                raise T2IError(f"stopped before the update of {where}: {error}; {remedy}") from None
            for name, loss in losses.items():
                value = loss.detach() / settings.accumulate
                self.sums[name] = self.sums[name] + value if name in self.sums else value
            if self.accelerator.num_processes == 1:
                self._count_broken()
        self.updates.end_step()
        position.skipped += self.updates.skipped
        self.updates.skipped = 0
        self.ema.update()

    def _count_broken(self) -> None:
        """Tells and counts what the loaders passed over: of several processes now and then, of all of them together,
        so that all stop where one would."""
        found, self.passed_over = self.passed_over, []
        if self.accelerator.num_processes > 1:
            everyone: list[Any] = [None] * self.accelerator.num_processes
            torch.distributed.all_gather_object(everyone, found)
            found = [error for own in everyone for error in own]
        self.training.broken.add(found)

    def _remedy(self, option: str = "") -> str:
        """option: with which the run is to go on."""
        saved, _ = checkpoint.newest(self.training.run.checkpoints)
        if saved is None:
            return f"no sound checkpoint is left: begin again{option and f' with a lower learning rate, or{option}'}"
        path = self.training.run.path
        return f"the last sound checkpoint is {saved.folder}: 't2i train --resume {path}{option}' goes on from it"

    def _batch(self, host: HostBatch, step: int, rows: Rows, part: int = 0) -> Batch:
        device, encoder = self.accelerator.device, self.model.text_encoder
        self.passed_over += host.broken
        images = to_tensor(host.images, device)
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        noise = StepNoise(self.settings.seed, step, rows.start(part), len(images), rows.total, device)
        extras = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in host.extras.items()}
        encode, null = (encoder.encode, encoder.null) if self.encoder_trains else (self.cache, self.cache.null)
        encoded = None if host.encoded is None else host.encoded.to(device)
        text = None if host.text is None else host.text.to(device)
        return Batch(images, host.captions, host.keys, noise, encode, extras, null, encoded, text)

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        position = self.training.position
        steps, seconds = position.step - self.since[0], position.clock - self.since[1]
        losses: dict[str, float] = {}
        if self.sums:
            means = torch.stack([value.float() for value in self.sums.values()]) / max(steps, 1)
            means = self.accelerator.reduce(means, "mean").cpu()
            losses = {name: float(mean) for name, mean in zip(self.sums, means, strict=True)}
        self._judge(losses)
        rate = steps * self.rows.total / max(seconds, 1e-9)
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

    def _judge(self, losses: Mapping[str, float]) -> None:
        """Notes the loss by which the best checkpoint is told."""
        name, position = self.settings.keep_best, self.training.position
        if name is not None and name in losses:
            self.judged = losses[name]
        elif name and not position.best and self.index == len(self.training.stages) - 1:
            self.reporter.say(f"warning: keep_best={name}: stage {self.stage.name} logs {', '.join(losses)} only")

    def _is_best(self) -> bool:
        """Whether the checkpoint to be written is the best so far; if so, the run's position says so from now on. A
        loss that is not finite is never the best."""
        position = self.training.position
        if self.judged is None or not (self.judged < (position.best[1] if position.best else float("inf"))):
            return False
        position.best = [position.step, self.judged]
        return True

    def _picture(self) -> None:
        """A grid, drawn by the first process with the averaged weights. A signal cuts the drawing short.

        Drawing is keyed, but a library beneath may draw random numbers of its own: training must not notice.
        """
        if self.accelerator.is_main_process:
            self._eval_mode()
            with self.ema.swapped(), torch.random.fork_rng():
                self.training.stop.optional(self._draw)
            self._train_mode()
        self.accelerator.wait_for_everyone()

    def _draw(self) -> None:
        name = f"step-{self.training.position.step}"
        path = self.training.gallery.draw(name, self.model, self.trainer, self._gallery_batch)
        if path is not None:
            self.reporter.say(f"pictures: {path}")

    def _gallery_batch(self) -> Batch:
        """The gallery's examples as a batch, the same each time, with the captions of the grid."""
        gallery = self.training.gallery
        views = Views(gallery.examples, 0, self.settings.image_size, self.settings.augment)
        host = views[[Visit(0, index) for index in range(len(gallery.examples))]]
        return self._batch(replace(host, captions=tuple(gallery.captions)), GALLERY, Rows(len(gallery.examples)))

    def _checkpoint(self, begun: bool = True, sampled: bool = True) -> None:
        """Writes a checkpoint, with every process's random state, and the model unless `sampled` is False."""
        run, position = self.training.run, self.training.position
        states = self._random_states()
        if self.accelerator.is_main_process:
            position.wall = self.training.wall()
            try:
                if self._is_best():  # first: what a checkpoint says is best has been kept
                    with self.ema.swapped():
                        self.model.save(run.best)
                self._write(states, begun)
                if sampled:
                    with self.ema.swapped():
                        self.model.save(run.model)
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(f"cannot save step {position.step}: {reason}; {self._remedy()}") from None
            checkpoint.prune(run.checkpoints, self.settings.keep, position)
        self.accelerator.wait_for_everyone()

    def _write(self, states: Sequence[Mapping[str, torch.Tensor]], begun: bool) -> None:
        with sealed(self.training.run.checkpoints / f"step-{self.training.position.step}") as folder:
            optimizers = self.trainer.optimizers if begun else {}
            modules = self._saved_modules() if begun else self._model_modules()
            more = {"ema_count": self.ema.count, "scaler": self._scaler_state(), "since": self.since}
            ema = self.ema.state() if begun else {}
            checkpoint.write(folder, self.training.position, modules, optimizers, ema, more)
            save_tensors(folder / "sums.safetensors", self.sums)
            for rank, state in enumerate(states):
                save_tensors(folder / f"random-{rank}.safetensors", state)

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
        self.sums = {name: value.to(self.accelerator.device) for name, value in saved.tensors("sums").items()}
        step, clock = saved.state["since"]
        self.since = (step, clock)
        if self.accelerator.scaler and saved.state["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        mine = saved.folder / f"random-{self.accelerator.process_index}.safetensors"
        if mine.exists():  # another number of processes has no state for some
            checkpoint.set_random_state(saved.tensors(mine.stem))

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, views: Views) -> None:
        """The averaged weights take their place for good, the trainer finishes, and the next stage may begin."""
        position = self.training.position
        self.ema.adopt()
        self._eval_mode()
        batches = self._fresh_batches(views)
        with torch.no_grad():
            self.trainer.finish(lambda: next(batches))
        self._picture()
        self._count_parameters()
        position.stages.append({"name": self.stage.name, "steps": position.stage_step, "seconds": position.stage_clock})
        position.stage, position.stage_step, position.stage_clock, position.begun = self.index + 1, 0, 0.0, False
        self._checkpoint(begun=False)
        for module in self.trainer.modules.values():
            module._compiled_call_impl = None  # undoes `compile`: the next stage may need the module eager
        stopped = self.training.interrupted()
        if stopped and position.stage < len(self.training.stages):
            self.training.stop_here(stopped)

    def _count_parameters(self) -> None:
        """Notes what the stage trained, and the networks that end with it."""
        position, chosen = self.training.position, self._in_optimizers()
        position.trained = sorted({*position.trained, *self._trained()})
        own = {p for module in self._model_modules().values() for p in module.parameters()}
        helpers = {p for module in self.trainer.modules.values() for p in module.parameters()} - own
        position.helpers += sum(p.numel() for p in helpers)
        position.helpers_trained += sum(p.numel() for p in chosen - own)

    def _fresh_batches(self, views: Views) -> Iterator[Batch]:
        """The training data from its beginning in whole batches, the same whatever happened before."""
        whole = Rows(self.rows.total)
        plan = batch_visits(self.training.dataset, self.settings.seed, whole, 0)
        for number, visits in enumerate(plan):
            yield self._batch(views[visits], FIRST_FINISH - number, whole)
