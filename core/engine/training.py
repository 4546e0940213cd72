"""Training a run: its stages in order, each one's steps, and everything that is kept of them."""

from __future__ import annotations

import atexit
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs, broadcast_object_list
from filelock import FileLock, Timeout

from t2i.core.devices import best_device
from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import Position, Saved
from t2i.core.engine.loader import Rows
from t2i.core.engine.pictures import Gallery
from t2i.core.engine.reporting import Reporter, Silent, default_reporter
from t2i.core.engine.signals import stop_requests
from t2i.core.engine.stage import StageRun
from t2i.core.errors import Interrupted, T2IError, UserError
from t2i.core.interfaces.dataset import Broken, Dataset
from t2i.core.interfaces.noise import seeded
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.files import read_json, refuse_links, write_json
from t2i.core.io.processes import leave
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import resolve
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset
from t2i.core.runs.folder import Run
from t2i.core.runs.record import BrokenFile, Log, peak_memory, write_config

LOCK = ".lock"

Wrap = Callable[[Stage], Stage]
"""What each stage of a run passes through, in order: a way to watch trainers at work."""


def train(
    config: RunConfig, out: Path, *, reporter: Reporter | None = None, command: str = "", wrap: Wrap | None = None
) -> Run:
    """Trains from the beginning into the folder `out`, which must be new or empty.

    UserError if `out` is taken or cannot be written, or the disk is too full; Interrupted after a signal, when all
    is saved; T2IError when a loss is not finite.
    """
    run = Run(Path(out))
    dataset = open_dataset(config.data)  # a folder that is not there leaves no run behind
    with _session(config, reporter) as (accelerator, words), _locked(run, accelerator, _check_free):
        dataset.prepare(words.say)
        config = replace(config, encoder=_fitted(config.encoder, dataset))
        training = Training(run, config, dataset, accelerator, words, wrap)
        _first_decides(accelerator, training.check_disk)
        if accelerator.is_main_process:
            write_config(run, config, dataset.fingerprint(), command)
        words.say(f"training {config.model} ({config.preset}) on {config.data.name} into {run.path}")
        training.go(None)
    return run


def resume(path: Path, *, on_nan: str | None = None, reporter: Reporter | None = None, wrap: Wrap | None = None) -> Run:
    """Goes on with an interrupted run from its newest sound checkpoint. A complete run is left as it is.

    on_nan: the setting as it shall be from now on: what stopped a run would else stop it again.
    UserError if the folder is no run, has no sound checkpoint, or its data set has changed.
    """
    run = Run(Path(path))
    if not run.config_file.is_file():
        raise UserError(f"{path} is no run: it has no config.json; 't2i train' makes one")
    config = run.config()
    with _session(config, reporter) as (accelerator, words), _locked(run, accelerator, _mend):
        if run.complete:
            words.say(f"{run.path} is complete: nothing to do")
            return run
        dataset = open_dataset(config.data)
        if read_json(run.config_file, "run").get("data_fingerprint") != dataset.fingerprint():
            raise UserError(f"{run.path}: the data set '{config.data.name}' is not the one that the run began with")
        dataset.prepare(words.say)
        saved, complaints = checkpoint.newest(run.checkpoints)
        for complaint in complaints:
            words.say(f"warning: passed over: {complaint}")
        # A run that has written nothing yet died before its first step.
        if saved is None and (complaints or run.metrics_file.exists() or run.model.exists()):
            raise UserError(f"{run.path} has no sound checkpoint: begin again with another --out")
        where = f"at step {saved.position.step}, from {saved.folder}" if saved else "from the beginning"
        words.say(f"resuming {config.model} {where}")
        if on_nan is not None:
            config = replace(config, settings=config.settings.with_(on_nan=on_nan))
            if accelerator.is_main_process:
                write_json(run.config_file, read_json(run.config_file, "run") | {"run": config.dump()})
        Training(run, config, dataset, accelerator, words, wrap).go(saved)
    return run


def _mend(folder: Path) -> None:
    """Makes a run's folder ready for going on."""
    refuse_links(folder)
    checkpoint.clear_litter(folder)


def _first_decides(accelerator: Accelerator, check: Callable[[], None]) -> None:
    """The first process checks something; what it refuses, all refuse."""
    verdict: list[T2IError | None] = [None]
    if accelerator.is_main_process:
        try:
            check()
        except T2IError as error:
            verdict = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(verdict)
    if verdict[0] is not None:
        raise verdict[0]


@contextmanager
def _locked(run: Run, accelerator: Accelerator, check: Callable[[Path], None]) -> Iterator[None]:
    """One training at a time in a run's folder, however either of them dies (the system drops the lock).

    check: done to the folder once it is ours. The first process of a group holds the lock for all.
    """
    lock = FileLock(run.path / LOCK)

    def take() -> None:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{run.path} is being trained by another process: wait for it, or choose another --out"
            ) from None
        except FileExistsError:
            raise UserError(f"{run.path} is there already, and is no folder: choose another --out") from None
        except OSError as error:
            raise UserError(f"cannot write to {run.path}: {error.strerror or error}; choose another --out") from None
        check(run.path)

    try:
        _first_decides(accelerator, take)
        yield
    finally:
        lock.release()


def _check_free(folder: Path) -> None:
    for litter in folder.glob(".config.json.*.tmp"):  # of a beginning that was killed
        litter.unlink()
    if any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} is there already: go on with 't2i train --resume {folder}' or choose another --out")


@contextmanager
def _session(config: RunConfig, reporter: Reporter | None) -> Iterator[tuple[Accelerator, Reporter]]:
    """Device, precision and processes of a run, and who reports for it."""
    if config.settings.threads:
        torch.set_num_threads(config.settings.threads)
    # Accelerate remembers the precision of the first run in a process; ours may differ from it.
    AcceleratorState._reset_state()
    # Without autocast's cache of cast weights: it would outlive an update within a step, and forgets gradients that a
    # first use under no_grad did not need.
    uncached = AutocastKwargs(cache_enabled=False)
    # Unless told that there is only the processor, accelerate does not join processes without GPUs into a group.
    alone = best_device().type == "cpu"
    accelerator = Accelerator(mixed_precision=config.settings.precision, cpu=alone, kwargs_handlers=[uncached])
    if config.settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("precision = fp16 needs a GPU: set precision=bf16, or no")
    if accelerator.num_processes > 1:
        atexit.register(leave)  # at the end of the program, not of the run: another run may follow
    words = (reporter or default_reporter()) if accelerator.is_main_process else Silent()
    try:
        yield accelerator, words
    except OSError as error:
        raise UserError(
            f"{error.filename or 'a file'}: {error.strerror or error}; free some space or mend its place"
        ) from None
    finally:
        words.close()


def _fitted(choice: Choice[Any], dataset: Dataset) -> Choice[Any]:
    """The encoder's choice with what it takes from the data set (a vocabulary)."""
    fit = registry().encoders[choice.name].fit
    return Choice(choice.name, resolve(fit)(choice.config, dataset.vocabulary())) if fit else choice


class Training:
    """One process's part in a run. The engine of one stage at a time."""

    def __init__(
        self, run: Run, config: RunConfig, dataset: Dataset, accelerator: Accelerator, reporter: Reporter,
        wrap: Wrap | None = None,
    ) -> None:  # fmt: skip
        self.run, self.config, self.settings = run, config, config.settings
        self.accelerator, self.reporter, self.dataset = accelerator, reporter, dataset
        seeded(self.settings.seed, "weights")
        # A run that is resumed has its encoder's files with it, and needs no hub.
        assets = run.model if (run.model / "text_encoder").is_dir() else None
        self.model: Model = build(config, assets).to(accelerator.device)
        with torch.no_grad():
            self.model.text_encoder.encode([""])  # one that cannot, for want of weights, is refused before all else
        stages: Sequence[Stage] = resolve(registry().models[config.model].stages)(
            self.settings, self.model.text_encoder
        )
        self.stages = [wrap(stage) for stage in stages] if wrap else list(stages)
        world = accelerator.num_processes
        accumulate = self.settings.accumulate
        self.rows = [
            Rows(stage.batch_size or self.settings.batch_size, accumulate, accelerator.process_index, world)
            for stage in self.stages
        ]
        for size in (rows.total for rows in self.rows if rows.total % (accumulate * world)):
            raise UserError(
                f"batch_size ({size}) must be a multiple of accumulate ({accumulate}) times the number of processes "
                f"({world})"
            )
        if self.settings.cache_views and dataset.endless:
            raise UserError(
                f"cache_views = {self.settings.cache_views}: the data set '{config.data.name}' is endless, no "
                "picture is seen twice: set cache_views=0, or name a finite data set"
            )
        self.position = Position()
        board = run.path / "tensorboard" if self.settings.tensorboard and accelerator.is_main_process else None
        self.log = Log(run.metrics_file, board)
        kept = BrokenFile(run.broken_file, writes=accelerator.is_main_process)
        self.broken = Broken(dataset, reporter.say, kept.add, kept.read())

    def go(self, saved: Saved | None) -> None:
        """All stages from the beginning, or from a checkpoint; then the summary."""
        self.started = time.monotonic()
        validation = "val" if "val" in registry().datasets[self.config.data.name].splits else "train"
        self.gallery = Gallery.of(self.run.samples, open_dataset(self.config.data, validation), self.settings.seed)
        if saved:
            self.position = saved.position
            self.started -= saved.position.wall
            saved.modules({"generator": self.model.generator, "text_encoder": self.model.text_encoder})
            if self.accelerator.is_main_process and not saved.position.begun:
                self.model.save(self.run.model)  # a stage had ended, and perhaps no time was left for this
        if self.accelerator.is_main_process:
            self.log.forget_after(self.position.step)
        with stop_requests() as self.stop:
            for index in range(self.position.stage, len(self.stages)):
                StageRun(self, index).go(saved if saved and saved.position.begun else None)
                saved = None
            self._finish()
            if stopped := self.interrupted():
                raise Interrupted(f"{_name_of(stopped)} came when {self.run.path} was all but complete: it is", stopped)

    def wall(self) -> float:
        """Seconds that the run has taken, in all its sessions."""
        return time.monotonic() - self.started

    def stop_here(self, number: int) -> None:
        """Leaves, everything having been saved, because of signal `number`."""
        where = f"step {self.position.step}; 't2i train --resume {self.run.path}' goes on"
        raise Interrupted(f"stopped by {_name_of(number)} at {where}", number)

    def _finish(self) -> None:
        if not self.accelerator.is_main_process:
            return
        position = self.position
        if not self.stages:
            self.model.save(self.run.model)
        parts = {"generator": self.model.generator, "text": self.model.text_encoder}
        sizes = {f"{part}.{n}": p.numel() for part, module in parts.items() for n, p in module.named_parameters()}
        summary = {
            "steps": position.step,
            "images": position.images,
            "seconds": position.clock,
            "wall_seconds": self.wall(),
            "images_per_second": position.images / max(position.clock, 1e-9),
            "skipped": position.skipped,
            "parameters": {
                "all": sum(sizes.values()) + position.helpers,
                "trained": sum(sizes[name] for name in position.trained) + position.helpers_trained,
                "generator": sum(p.numel() for p in self.model.generator.parameters()),
            },
            "peak_memory_bytes": peak_memory(),
            "stages": position.stages,
            "device": str(self.accelerator.device),
            "precision": self.settings.precision,
            "threads": torch.get_num_threads(),
            "processes": self.accelerator.num_processes,
        }
        write_json(self.run.summary_file, summary)
        self.reporter.say(f"trained {position.step} steps in {position.clock:.0f} s; model in {self.run.model}")

    def check_disk(self) -> None:
        """Refuses to begin what the disk cannot hold: weights, averages and Adam's two moments, `keep` + 2 times."""
        parts = (self.model.generator, self.model.text_encoder)
        weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
        kept = self.settings.keep + bool(self.settings.keep_best)
        needed, free = 4 * weights * (kept + 2), shutil.disk_usage(self.run.path).free
        if free < needed:
            raise UserError(
                f"{self.run.path}: checkpoints need about {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free; "
                "free some, choose another --out, or keep fewer with --keep 1"
            )

    def interrupted(self) -> int:
        """The number of the signal that any process received, 0 if none."""
        if self.accelerator.num_processes == 1:
            return self.stop.number
        number = torch.tensor(self.stop.number, device=self.accelerator.device)
        return int(self.accelerator.gather(number[None]).max())


def _name_of(number: int) -> str:
    return signal.Signals(number).name
