"""Train a run from the beginning, or resume one: all its stages in order, then the summary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from t2i.core.engine import checkpoint
from t2i.core.engine.adapting import hold_again, hold_base
from t2i.core.engine.asking import sample_asked
from t2i.core.engine.checkpoint import Saved
from t2i.core.engine.context import Plan, RunContext, signal_name
from t2i.core.engine.eight_bit import check_bits
from t2i.core.engine.loader import BatchShard
from t2i.core.engine.longer import check_longer, refit_warm_up, with_budget
from t2i.core.engine.mending import damaged_models, remake_best
from t2i.core.engine.observer import Observer
from t2i.core.engine.preparing import model_modules, model_parameters
from t2i.core.engine.previews import Gallery
from t2i.core.engine.reporting import Reporter
from t2i.core.engine.same_data import WRITTEN, as_recorded, same_data
from t2i.core.engine.scores import Examining
from t2i.core.engine.session import (
    Attempt,
    check_free,
    first_decides,
    locked,
    mend,
    session,
    traced,
)
from t2i.core.engine.shardable import check_shardable
from t2i.core.engine.signals import stop_requests
from t2i.core.engine.stage import Held, StageRun
from t2i.core.engine.tracking import Trackers, check_trackers
from t2i.core.engine.warm_start import describe, find_checkpoint, take_weights
from t2i.core.errors import Interrupted, UserError
from t2i.core.interfaces.broken import Broken
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.noise import seeded
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.json_files import read_json, write_json
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.models.loading import base_of
from t2i.core.models.model import Model
from t2i.core.models.moved import Moved
from t2i.core.models.origin import Origin, find_origin, same_words
from t2i.core.models.weights import is_of_base, load_state, owned_tensors
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, is_there, open_dataset
from t2i.core.runs.folder import Run
from t2i.core.runs.hashing import run_hash
from t2i.core.runs.recognising import in_folder
from t2i.core.runs.record import BrokenFile, Log, peak_memory, write_config, write_contents

Wrap = Callable[[Stage], Stage]
"""A function that replaces each stage of a run, called in order; used to observe trainers."""


def train(
    config: RunConfig,
    out: Path,
    *,
    reporter: Reporter | None = None,
    command: str = "",
    wrap: Wrap | None = None,
    observer: Observer | None = None,
    examining: Examining | None = None,
    device: str | None = None,
    start: Origin | str | Path | None = None,
) -> Run:
    """Train a model from the beginning.

    A start that fails before the first step leaves nothing behind.

    Args:
        config: The resolved configuration: model, settings, data set, text encoder and sampler.
        out: The run's folder, which must be new or empty.
        reporter: Where progress is reported. None: a progress bar if stderr is a terminal, else
            lines on it.
        command: The command line, recorded in config.json.
        wrap: Replaces each stage. None: the stages are used as they are.
        observer: Called between steps, without a change of what is trained. None: nobody.
        examining: Makes what scores samples of the model now and then. None: they are not scored.
        device: Device to train on, such as "cpu", "cuda" or "cuda:1". None: the best one.
        start: Weights that training starts from, as far as they fit: a run, a folder or file of
            another project, a hub name, a safetensors file or a folder of some. None: fresh
            weights.

    Returns:
        The finished run.

    Raises:
        UserError: This machine has no such device, `out` is taken or cannot be written, the disk is
            too full, or the data set or a setting does not allow training.
        Interrupted: A signal stopped training; everything was saved first.
        T2IError: A loss or a gradient is not finite, and `on_nan` is "stop".
    """
    run = Run(Path(out))
    check_trackers(config.settings.track)
    config = replace(config, data=in_folder(config.data, None))
    origin = _origin(start, config)
    if origin is not None and not is_there(config.data):
        raise UserError(f"--from {origin.name}: say which images to train on, with --data-dir DIR")
    dataset = open_dataset(config.data)  # first: if its folder is missing, no run is created
    examiner = examining(config) if examining else None  # before weights are fetched for the model
    with (
        Attempt(run) as attempt,
        session(config, reporter, device) as (accelerator, speaker),
        locked(run, accelerator, check_free),
        traced(run, accelerator),
    ):
        attempt.taken = accelerator.is_main_process
        dataset.prepare(speaker.say)
        known = origin.config if origin else None
        if known is None or not same_words(config, known):
            config = replace(config, encoder=_fitted(config.encoder, dataset))
        if origin is not None:
            first_decides(accelerator, partial(describe, origin, config, run))
        context = _context(run, config, dataset, accelerator, speaker, wrap)
        context.observer = observer
        context.examiner = examiner
        attempt.steps = lambda: context.state.step
        overlap = None if origin is None else take_weights(context, origin)
        base = hold_base(context, origin, overlap)
        first_decides(
            accelerator,
            partial(sample_asked, dataset, context.model, config.settings.seed, speaker.say),
        )
        first_decides(accelerator, lambda: _check_disk(context))
        if accelerator.is_main_process:
            more = {
                "device": device,
                "from": origin.recorded if origin else None,
                **({"from_settings": dict(origin.settings)} if origin and origin.settings else {}),
                WRITTEN: as_recorded(dataset),
                **({} if base is None else {"base": base.document()}),
            }
            write_config(run, config, dataset.fingerprint(), command, more)
        speaker.say(
            f"training {config.model} ({config.preset}) on {config.data.name} into {run.path}"
        )
        _run_stages(context, None)
    return run


def resume(
    path: Path,
    *,
    on_nan: str | None = None,
    reporter: Reporter | None = None,
    wrap: Wrap | None = None,
    observer: Observer | None = None,
    examining: Examining | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    device: str | None = None,
    data_dir: Path | None = None,
) -> Run:
    """Resume an interrupted run from its newest sound checkpoint, or train a run for longer.

    Without a new budget, a complete run is left as it is, unless its model is damaged: that is made
    again. A run that ended before its first
    checkpoint begins again.

    Args:
        path: The run's folder.
        on_nan: New value of the setting `on_nan`, "stop" or "skip". It is needed where a loss that
            is not finite stopped the run and would stop it again. None: unchanged.
        reporter: Where progress is reported. None: a progress bar if stderr is a terminal, else
            lines on it.
        wrap: Replaces each stage. None: the stages are used as they are.
        observer: Called between steps, without a change of what is trained. None: nobody.
        examining: Makes what scores samples of the model now and then. None: they are not scored.
        steps: New budget in steps, counted from the beginning of the run. Stages that have ended
            are not repeated, so what is added goes to the stages that have not, or to the last one.
            None: unchanged.
        minutes: The same in minutes of training. None: unchanged.
        device: Device to train on. None: the one that was chosen when the run began.
        data_dir: Folder to which the data set was moved. None: where it was.

    Returns:
        The finished run.

    Raises:
        UserError: The folder is no run or in use, has no sound checkpoint, the data set has
            changed, the new budget is spent already, or this machine lacks the device.
        Interrupted: A signal stopped training; everything was saved first.
        T2IError: A loss or a gradient is not finite, and `on_nan` is "stop".
    """
    run = Run(Path(path))
    if not run.config_file.is_file():
        raise UserError(f"{path} is no run: it has no config.json; 't2i train' makes one")
    longer = steps is not None or minutes is not None
    document = read_json(run.config_file, "run")
    config = with_budget(run.config(), steps, minutes)
    check_trackers(config.settings.track)
    if on_nan is not None:
        config = replace(config, settings=config.settings.with_(on_nan=on_nan))
    if data_dir is not None:
        config = replace(config, data=in_folder(config.data, data_dir))
    changed = longer or on_nan is not None or data_dir is not None
    device, start = device or _text(run, document, "device"), _text(run, document, "from")
    with (
        session(config, reporter, device) as (accelerator, speaker),
        locked(run, accelerator, mend),
        traced(run, accelerator),
    ):
        damaged = damaged_models(run)
        for folder in damaged:
            speaker.say(f"warning: {folder} is damaged: making it again from a checkpoint")
        if run.complete and not longer and not damaged:
            more = "; a larger --minutes or --steps trains it for longer"
            speaker.say(f"{run.path} is complete: nothing to do{more if run.steps_saved() else ''}")
            return run
        dataset = same_data(run, config, speaker.say, named=data_dir is not None)
        dataset.prepare(speaker.say)
        context = _context(run, config, dataset, accelerator, speaker, wrap, damaged)
        context.observer = observer
        context.examiner = examining(config) if examining else None
        saved = _newest(context, longer)
        if longer:
            check_longer(context, saved)
        base = base_of(run.config_file)
        if start and saved and base is None:
            find_checkpoint(context, Path(start))
        elif start:
            take_weights(context, find_origin(start, config.model, document.get("from_settings")))
        if base is not None:
            hold_again(context, base)
        where = (
            f"at step {saved.state.step}, from {saved.folder}" if saved else "from the beginning"
        )
        speaker.say(f"resuming {config.model} {where}")
        if longer and saved:
            refit_warm_up(context, saved)
            saved.state.scored.since = 0  # a stage that was stopped early goes on
        if accelerator.is_main_process and changed:
            write_json(
                run.config_file, document | {"run": config.dump(), WRITTEN: as_recorded(dataset)}
            )
            run.summary_file.unlink(missing_ok=True)  # it is not complete any more
        _run_stages(context, saved)
        if accelerator.is_main_process:
            remake_best(run, damaged)
    return run


def _text(run: Run, document: Mapping[str, Any], name: str) -> str | None:
    """Return an entry of config.json that must be a text; None if it is not there."""
    value = document.get(name)
    if value is None or isinstance(value, str):
        return value
    raise UserError(
        f"{run.config_file}: '{name}' must be a text, not {value!r:.60}; restore the file"
    )


def _newest(context: RunContext, longer: bool) -> Saved | None:
    """Find the checkpoint to resume from, and report the damaged ones.

    A run that has written nothing yet was stopped before its first step and begins again. A run
    without stages has no checkpoints. Earlier versions wrote no optimizers at the end of a run: a
    longer budget goes on from the checkpoint before it.
    """
    run, plans = context.run, context.plans
    saved, complaints = checkpoint.newest(
        run.checkpoints,
        Moved.of(registry().models[context.config.model].moved),
        len(plans) if longer else None,
    )
    for complaint in complaints:
        context.reporter.say(f"warning: skipped: {complaint}")
    written = complaints or run.metrics_file.exists() or run.model.exists()
    if saved is None and plans and written and not longer:
        raise UserError(f"{run.path} has no sound checkpoint: begin again with another --out")
    return saved


def _origin(start: Origin | str | Path | None, config: RunConfig) -> Origin | None:
    """Find the weights that a run starts from, if it does."""
    if start is None or isinstance(start, Origin):
        return start
    return find_origin(start, config.model)


def _fitted(choice: Choice[Any], dataset: Dataset) -> Choice[Any]:
    """Complete the encoder's settings from the data set (a vocabulary), if the encoder needs it."""
    fit = registry().encoders[choice.name].fit
    return (
        Choice(choice.name, import_object(fit)(choice.config, dataset.vocabulary()))
        if fit
        else choice
    )


# --- before the first step ------------------------------------------------------------------------


def _context(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    accelerator: Accelerator,
    reporter: Reporter,
    wrap: Wrap | None,
    damaged: Sequence[Path] = (),
) -> RunContext:
    """Build the model, its stages and the log of a run that is new or resumed."""
    seeded(config.settings.seed, "weights")
    model = _built(run, config, damaged).to(accelerator.device)
    with torch.no_grad():
        model.text_encoder.encode(
            [""]
        )  # fails now, before any work, if the encoder's weights are missing
    stages = stages_of(config, model.text_encoder)
    plans = _plans(
        config, [wrap(stage) for stage in stages] if wrap else stages, dataset, accelerator
    )
    if config.settings.parallel == "fsdp":
        with torch.random.fork_rng():
            networks = _built(run, config, damaged).networks
            for stage in stages:
                check_shardable(stage.trainer(networks), stage.name)
    is_first = accelerator.is_main_process
    trackers = Trackers(config.settings.track if is_first else (), run, reporter.say)
    log = Log(run.metrics_file, trackers.log)
    kept = BrokenFile(run.broken_file, writes=is_first)
    broken = Broken(dataset, reporter.say, kept.add, kept.read())
    return RunContext(
        run, config, accelerator, reporter, dataset, model, plans, log, broken, trackers
    )


def _built(run: Run, config: RunConfig, damaged: Sequence[Path] = ()) -> Model:
    """Build the model.

    A resumed run holds the files of its encoder, and needs no download. So does one that starts
    from other weights.
    """
    held = (run.model / "text_encoder").is_dir() and run.model not in damaged
    held = held and not config.settings.lora.rank  # it does not hold the weights of its base
    described = run.start if run.start.is_dir() else None
    return build(config, run.model if held else described, fresh=not held)


def _plans(
    config: RunConfig, stages: Sequence[Stage], dataset: Dataset, accelerator: Accelerator
) -> list[Plan]:
    """Give each stage its settings and this process's part of each batch, and check both."""
    world, rank = accelerator.num_processes, accelerator.process_index
    plans = []
    for index, stage in enumerate(stages):
        settings = stage_settings(config, stage)
        size, accumulate = settings.batch_size, settings.accumulate
        settings.check_shared(world, stage.name)
        check_bits(settings)
        if settings.cache_views and dataset.endless:
            raise UserError(
                f"cache_views = {settings.cache_views}: the data set '{config.data.name}' is "
                "endless, no image is seen twice: set cache_views=0, or name a finite data set"
            )
        plans.append(Plan(index, stage, settings, BatchShard(size, accumulate, rank, world)))
    return plans


def _check_disk(context: RunContext) -> None:
    """Raise UserError if the disk is too small for the checkpoints.

    One takes about four times the weights (weights, averages and Adam's two moments), and `keep` +
    2 of them must fit, one more with `keep_best`; fewer if so many are never written. Adapters are
    small, and are not counted.
    """
    own = (p for p in model_parameters(context.model).values() if not is_of_base(p))
    weights = sum(p.numel() * p.element_size() for p in own)
    settings = context.settings
    written = None if settings.minutes else settings.steps // settings.checkpoint_every + 1
    kept = min(settings.keep, written or settings.keep) + bool(settings.keep_best)
    needed, free = 4 * weights * (kept + 2), shutil.disk_usage(context.run.path).free
    if free < needed:
        raise UserError(
            f"{context.run.path}: checkpoints need about {needed / 1e9:.1f} GB, "
            f"only {free / 1e9:.1f} GB are free; "
            "free some, choose another --out, or keep fewer with --keep 1"
        )


# --- all stages -----------------------------------------------------------------------------------


def _run_stages(context: RunContext, saved: Saved | None) -> None:
    """Run all stages, from the beginning or from a checkpoint, and write the summary."""
    context.started = time.monotonic()
    run, data = context.run, context.config.data
    validation = "val" if "val" in registry().datasets[data.name].splits else "train"
    held = open_dataset(data, validation)
    gallery = Gallery.of(run.samples, held, context.settings.seed)
    _tell_contents(context, {"train": context.dataset, validation: held})
    if saved:
        context.state = saved.state
        context.started -= saved.state.wall
        if context.model.base is None or not saved.state.begun:  # adapters come with their stage
            saved.modules(model_modules(context.model))
        if context.is_first and not saved.state.begun:
            context.model.save(
                run.model
            )  # a stage had ended; the run may have been killed before it wrote its model
    if context.is_first:
        context.log.forget_after(context.state.step)
    with (
        stop_requests() as context.stop,
        context.running.watched(),
        context.trackers.following(lambda: _as_tracked(context), context.state.step),
    ):
        for plan in context.plans[context.state.stage :]:
            stage = StageRun(context, plan, Held(held, validation != "train", gallery))
            stage.run(saved if saved and saved.state.begun else None)
            saved = None
            if stage.prepared.sharding and plan is not context.plans[-1]:
                _make_whole(context, stage)
        _finish(context)
        if stopped := context.interrupted():
            raise Interrupted(
                f"{signal_name(stopped)} came too late to stop {run.path}: it is complete", stopped
            )


def _as_tracked(context: RunContext) -> dict[str, Any]:
    """Return what trackers receive of the configuration: the settings, and the run's hash."""
    settings, fingerprint = context.config.dump(), context.dataset.fingerprint()
    return {
        "run": str(context.run.path),
        "run_hash": run_hash(settings, fingerprint),
        "data_fingerprint": fingerprint,
        **settings,
    }


def _make_whole(context: RunContext, stage: StageRun) -> None:
    """Replace a model that a stage shared out by an ordinary one, for the next stage."""
    before, context.model = context.model, _built(context.run, context.config)
    now = model_modules(context.model)
    with stage.prepared.whole():
        for name, module in model_modules(before).items():
            load_state(now[name], owned_tensors(module), name)
    context.model.to(context.accelerator.device)


def _tell_contents(context: RunContext, splits: Mapping[str, Dataset]) -> None:
    """Say what was left out of the data set's folder, and record it with what was found."""
    contents = {name: dataset.contents() for name, dataset in splits.items()}
    for reason, count in contents["train"].passed_over.items():
        context.reporter.say(f"data: passed over: {reason}: {count}")
    if context.is_first:
        write_contents(context.run, contents)


def _best_score(context: RunContext) -> dict[str, Any]:
    """Return the best score that decided in the last stage, for the summary.

    A warning is said if a setting needs scores and there were none.
    """
    scored, settings = context.state.scored, context.settings
    if scored.name:
        return {"best_score": {"name": scored.name, "step": scored.best_step, **scored.best}}
    needs = {
        "keep_best": context.is_score(settings.keep_best or ""),
        "stop_after": settings.stop_after,
    }
    for name in [name for name, needed in needs.items() if needed]:
        context.reporter.say(
            f"warning: {name} had no effect: the last stage was not scored; see score_every"
        )
    return {}


def _finish(context: RunContext) -> None:
    """Write the summary, and the model if there were no stages to write it."""
    if not context.is_first:
        return
    state, run = context.state, context.run
    if not context.plans:
        context.model.save(run.model)
    sizes = {name: p.numel() for name, p in model_parameters(context.model).items()}
    summary = {
        "steps": state.step,
        "images": state.images,
        "seconds": state.clock,
        "wall_seconds": context.wall(),
        "images_per_second": state.images / max(state.clock, 1e-9),
        "skipped": state.skipped,
        "parameters": {
            "all": sum(sizes.values()) + state.helpers,
            "trained": sum(sizes[name] for name in state.trained) + state.helpers_trained,
            "generator": sum(p.numel() for p in context.model.generator.parameters()),
        },
        "peak_memory_bytes": peak_memory(context.accelerator.device),
        "stages": state.stages,
        "scoring_seconds": state.scored.seconds,
        **_best_score(context),
        "device": str(context.accelerator.device),
        "precision": context.settings.precision,
        "threads": torch.get_num_threads(),
        "processes": context.accelerator.num_processes,
    }
    write_json(run.summary_file, summary)
    if not context.plans:
        context.reporter.say(
            f"model '{context.config.model}' has nothing to train: all its parts are pretrained; "
            f"model in {run.model}"
        )
        return
    context.reporter.say(f"trained {state.step} steps in {state.clock:.0f} s; model in {run.model}")
