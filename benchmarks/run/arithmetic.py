"""The arithmetic of a model's training, and the rate that the machine reaches with the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from t2i.benchmarks.figures import Amount
from t2i.benchmarks.run.operations import attainable_seconds, counted_step
from t2i.benchmarks.run.training_record import environment
from t2i.benchmarks.score.extraction import fingerprint
from t2i.core.devices import best_device
from t2i.core.errors import UserError
from t2i.core.io.documents import checked
from t2i.core.io.json_files import read_object, write_json
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.runs.configure import RunConfig


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of one step of each stage of a model.

    Args:
        operations: Arithmetic operations of a step, by stage: those of convolutions and matrix
            products, forwards and backwards.
        attainable: Seconds that the same convolutions and products take alone, by stage.
    """

    operations: Mapping[str, Amount]
    attainable: Mapping[str, Amount]

    def spent(self, steps: Mapping[str, int]) -> float:
        """Add up the operations of a training.

        Args:
            steps: Number of steps, by stage.

        Returns:
            The number of operations.
        """
        return sum(self.operations.get(stage, 0) * count for stage, count in steps.items())

    def rate(self, steps: Mapping[str, int]) -> float | None:
        """Compute the rate that the machine reaches with the convolutions and products alone.

        Args:
            steps: Number of steps, by stage, which weigh the stages.

        Returns:
            Operations per second. None if there are none.
        """
        seconds = sum(self.attainable.get(stage, 0) * count for stage, count in steps.items())
        return self.spent(steps) / seconds if seconds else None

    def document(self, steps: Mapping[str, int]) -> dict[str, Any]:
        """Describe the arithmetic of a training, for results.

        Args:
            steps: Number of steps, by stage.

        Returns:
            Operations of a step and of the whole stage by stage, their sum, and the machine's rate
            (operations per second).
        """
        return {
            "per_step": dict(self.operations),
            "stages": {stage: self.spent({stage: count}) for stage, count in steps.items()},
            "total": self.spent(steps),
            "machine_rate": self.rate(steps),
        }


def arithmetic(config: RunConfig, file: Path, say: Callable[[str], None]) -> Arithmetic:
    """Count the operations of one step of each stage, and time the same operations alone.

    The steps are made with fresh weights, which are dropped. What is found is kept in a file, so
    that it is done once for a configuration and machine.

    Args:
        config: The model's configuration.
        file: The file, JSON; it is made or completed. A damaged one is made anew.
        say: Reports one line.

    Returns:
        The arithmetic.

    Raises:
        UserError: Something is missing that the model needs.
    """
    key = fingerprint([config.dump(), environment(best_device())])
    try:
        known = read_object(file, "operations", finite=True) if file.exists() else {}
        if key in known:
            return checked(TypeAdapter(Arithmetic), known[key], str(file), "it is damaged")
    except UserError as error:
        say(f"warning: {error}: counting the operations anew")
        known = {}
    with _threads(config.settings.threads), torch.random.fork_rng():
        found = _counted(config)
    write_json(file, {**known, key: asdict(found)})
    return found


def counted(
    label: str, config: RunConfig, file: Path, say: Callable[[str], None]
) -> Arithmetic | None:
    """Count the operations of a model's steps, or say why they cannot be counted.

    Args:
        label: Name of the model in the message.
        config: The model's configuration.
        file: As in `arithmetic`.
        say: Reports one line.

    Returns:
        The arithmetic; None if it cannot be counted.
    """
    try:
        return arithmetic(config, file, say)
    except Exception as error:  # a step of a plugin failed: no reason to lose a result
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        say(f"{label}: its operations cannot be counted: {reason}")
        return None


def _counted(config: RunConfig) -> Arithmetic:
    """Make a step of each stage, and time its operations alone."""
    operations, attainable = {}, {}
    for stage in stages_of(config, build(config).text_encoder):
        settings = stage_settings(config, stage)
        # A batch may be too large for the memory, so only one of its parts is counted.
        found = counted_step(config, stage.name, settings.batch_size // settings.accumulate)
        operations[stage.name] = float(found.total * settings.accumulate)
        attainable[stage.name] = attainable_seconds(found) * settings.accumulate
    return Arithmetic(operations, attainable)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Use the number of threads that a run sets, inside the block; None or 0: leave it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    yield
    torch.set_num_threads(before)
