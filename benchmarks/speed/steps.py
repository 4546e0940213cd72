"""Measure the seconds per training step of one stage of a model, at any size.

Images and text features are random, no data set is read, and the weights do not matter.

    python -m t2i.benchmarks.speed.steps --model dfgan --preset cub --set image_size=128 \\
        --batch-size 8 --steps 10

To compare with another implementation, let the two take turns in a script of your own:

    from t2i.benchmarks.speed.steps import in_turns
    from t2i.core.engine.trial import training_step
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
from t2i.core.engine.trial import training_step
from t2i.core.runs.configure import resolve_config


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
