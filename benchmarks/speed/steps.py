"""Measure the seconds per training step of one stage of a model, at any size.

Images and text features are random, no data set is read, and the weights do not matter.

    python -m t2i.benchmarks.speed.steps --model dfgan --preset cub --set image_size=128 \\
        --batch-size 8 --steps 10

To compare with another implementation, let the two take turns in a script of your own:

    from t2i.benchmarks.speed.steps import in_turns, training_step
    from t2i.core.runs.configure import resolve_config

    config = resolve_config("dfgan", preset="cub", data_needed=False)
    ours = training_step(config, stage="gan", batch_size=8)
    print(in_turns({"ours": ours, "theirs": theirs}, rounds=20))
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from t2i.core.devices import best_device
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Stage
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.runs.configure import RunConfig, resolve_config

WORDS = 15  # words in a caption, as in COCO


def training_step(
    config: RunConfig, *, stage: str | None = None, batch_size: int | None = None
) -> Callable[[], None]:
    """Prepare a whole training step of a stage, on a batch in memory.

    Text features are random and computed beforehand; only a stage that trains the text encoder runs
    it. The settings channels_last, compile and precision are those of the configuration.

    Args:
        config: The model's configuration.
        stage: Name of the stage. None: the last.
        batch_size: Images in the batch, all in one micro-batch. None: that of the stage.

    Returns:
        A function that makes one step, and waits until the device has finished it. It may be called
        any number of times.

    Raises:
        UserError: The model has no such stage, or none at all.
    """
    device = best_device()
    model = build(config).to(device)
    chosen = _stage(config, model.text_encoder, stage)
    settings, encoder = stage_settings(config, chosen), model.text_encoder
    prepared = PreparedStage(model, chosen.trainer(model.networks), settings, device)
    count = batch_size or settings.batch_size
    captions = (" ".join(["word"] * WORDS),) * count
    images = torch.rand(count, 3, settings.image_size, settings.image_size, device=device) * 2 - 1
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    features = _features(encoder, captions, device)
    encode = encoder.encode if prepared.encoder_trains else lambda _: features
    # The whole batch is one micro-batch, whatever `accumulate` is.
    engine = LocalEngine(
        prepared.trainer, settings.model_copy(update={"accumulate": 1}), progress=0.5
    )
    noise = StepNoise(0, 0, 0, count, count, device)

    def step() -> None:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=settings.precision == "bf16", cache_enabled=False
        ):
            prepared.trainer.step(Batch(images, captions, captions, noise, encode), engine)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return step


def _stage(config: RunConfig, encoder: TextEncoder, name: str | None) -> Stage:
    stages = stages_of(config, encoder)
    by_name = {stage.name: stage for stage in stages}
    if not stages:
        raise UserError(f"model '{config.model}' has no training stage: there is nothing to time")
    if name is not None and name not in by_name:
        raise UserError(f"model '{config.model}' has no stage '{name}'{nearest(name, by_name)}")
    return stages[-1] if name is None else by_name[name]


def _features(
    encoder: TextEncoder, captions: tuple[str, ...], device: torch.device
) -> TextFeatures:
    count, shape = len(captions), encoder.shape
    sentence = torch.randn(count, shape.sentence, device=device)
    words = torch.randn(count, WORDS, shape.words, device=device)
    mask = torch.ones(count, WORDS, dtype=torch.bool, device=device)
    return TextFeatures(sentence, words, mask, captions)


@dataclass(frozen=True)
class Turns:
    """The times of functions that took turns.

    Args:
        seconds: Median seconds per call, by name.
        ratios: Median over the rounds of the time divided by the first function's, by name.
    """

    seconds: Mapping[str, float]
    ratios: Mapping[str, float]


def in_turns(steps: Mapping[str, Callable[[], None]], rounds: int = 10, warm_up: int = 2) -> Turns:
    """Measure functions in turns, so that other work on the machine slows all of them alike.

    Each round begins with another function.

    Args:
        steps: The functions by name. The first is the one that others are compared with.
        rounds: Number of timed calls of each function.
        warm_up: Number of calls of each function before these.

    Returns:
        The times.
    """
    for step in steps.values():
        for _ in range(warm_up):
            step()
    names, taken = list(steps), {name: [0.0] * rounds for name in steps}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            steps[name]()
            taken[name][i] = time.perf_counter() - started
    base = taken[names[0]]
    return Turns(
        {name: median(times) for name, times in taken.items()},
        {
            name: median(t / b for t, b in zip(times, base, strict=True))
            for name, times in taken.items()
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a training step and print its time.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--set", action="append", default=[], metavar="K=V", help="any setting; may be repeated"
    )
    parser.add_argument("--stage", help="training stage (default: the last)")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int, default=10, help="steps timed, after two to warm up")
    given = parser.parse_args(arguments)
    config = resolve_config(given.model, preset=given.preset, sets=given.set, data_needed=False)
    step = training_step(config, stage=given.stage, batch_size=given.batch_size)
    seconds = in_turns({"step": step}, given.steps).seconds["step"]
    print(
        f"{seconds:.3f} s a step "
        f"(median of {given.steps}; {best_device()}, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
