"""Count the memory that training takes, without an accelerator and without the memory.

`python -m t2i.benchmarks.speed.memory` makes training steps on torch's fake tensors, which have
sizes and no values, and adds up the tensors that are alive at the same time. The result depends on
no machine, and takes seconds. It is a count, not a measurement: what libraries take beside tensors
(workspaces of cuDNN, the context of CUDA) and gaps between tensors are not in it.
"""

from __future__ import annotations

import argparse
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t2i.benchmarks.run.plan import named_models
from t2i.core.engine.fitting import MOST, SHARE
from t2i.core.engine.trial import Trial
from t2i.core.errors import T2IError, UserError
from t2i.core.models.building import stage_settings, stages_of
from t2i.core.registry.specs import AUTO, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, as_layer, resolve_config

COUNTED = (16, 32)
"""Batch sizes that are counted. The memory of others lies on the line through them."""

FLOAT = 4
"""Bytes of a number."""

SIZES = (8, 12, 16, 24, 80)
"""Memory of accelerators, in GB (10^9 bytes)."""

AUTO_PIXELS = (64, 128, 256)
"""Image sizes of preset "auto"."""

AUTO_MEMORY = (8, 24)
"""Memory in GB for which preset "auto" is counted."""


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are created within the block and still alive.

    Views share their memory and count once.

    Attributes:
        now: Bytes that are alive.
        peak: The most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count the tensors that it returns."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _Constants(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers where a program asks a tensor without values for one."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        if func is torch.ops.aten.equal.default:
            return True
        return func(*args, **(kwargs or {}))


@contextmanager
def _fake() -> Iterator[LiveStorages]:
    """Make all tensors of the block fake ones, and count them.

    Modules stay where and as they are created: fake parameters cannot be replaced.
    """
    unmoved = mock.patch.object(nn.Module, "_apply", lambda module, *_, **__: module)
    with warnings.catch_warnings(), unmoved, FakeTensorMode(allow_non_fake_inputs=True):
        warnings.simplefilter("ignore")
        with LiveStorages() as live, _Constants():  # type: ignore[no-untyped-call]
            yield live


@dataclass(frozen=True)
class StageMemory:
    """The memory of a training stage in float32.

    Args:
        stage: Name of the stage.
        trained: Number of parameters that it trains.
        frozen: Number of parameters that it keeps beside them.
        standing: Bytes between two steps: weights, optimizers' tensors and averaged weights.
        fixed: Bytes of a step without images, on the line through the counted batch sizes.
        image: Bytes that each image adds.
        part: Images that the preset computes at a time.
    """

    stage: str
    trained: int
    frozen: int
    standing: int
    fixed: float
    image: float
    part: int

    @property
    def least(self) -> int:
        """Bytes of a step on however few images: all gradients are there at its end."""
        return self.standing + FLOAT * self.trained

    def taken(self, images: int) -> float:
        """Compute the memory of a step.

        Args:
            images: Number of images at a time, at least 1.

        Returns:
            The largest number of bytes that are alive at once.
        """
        return max(self.least, self.fixed + images * self.image)

    def fits(self, memory: float) -> int:
        """Compute the largest number of images at a time that fits.

        Args:
            memory: Memory of the accelerator in bytes, of which the share SHARE is used.

        Returns:
            The number of images, at most MOST. 0: not even one fits.
        """
        room = SHARE * memory
        if room < self.taken(1):
            return 0
        return min(MOST, int((room - self.fixed) / self.image))


def count_memory(config: RunConfig, stage: str | None = None) -> StageMemory:
    """Count the memory of a stage of a model's training.

    Args:
        config: The model's configuration. Its settings precision and compile are not used.
        stage: Name of the stage. None: the one whose steps take the most.

    Returns:
        The memory.

    Raises:
        UserError: The model cannot be built without files, or has no such stage.
    """
    config = replace(config, settings=config.settings.with_(precision="no", compile=False))
    with _fake():
        encoder = registry().encoders.build(config.encoder, None)
        stages = stages_of(config, encoder)
        parts = {each.name: _part(stage_settings(config, each)) for each in stages}
    chosen = {name: part for name, part in parts.items() if stage in (None, name)}
    if not chosen:
        raise UserError(f"model '{config.model}' has no training stage {stage or 'at all'}")
    counted = [_count(config, name, part) for name, part in chosen.items()]
    return max(counted, key=lambda memory: memory.taken(memory.part))


def _part(settings: Any) -> int:
    return int(settings.batch_size // settings.accumulate)


def _count(config: RunConfig, stage: str, part: int) -> StageMemory:
    peaks = {}
    for images in COUNTED:
        gc.collect()
        with _fake() as live:
            trial = Trial(config, stage, torch.device("cpu"))
            step = trial.steps(images)
            step()  # the first makes the optimizers' tensors
            live.peak = live.now
            step()
            peaks[images] = live.peak
            del step
            trained, everything = _parameters(trial)
            for parameter in everything:
                parameter.grad = None
            gc.collect()
            standing = live.now
    first, last = COUNTED
    image = (peaks[last] - peaks[first]) / (last - first)
    frozen = sum(p.numel() for p in everything) - trained
    fixed = peaks[first] - first * image
    return StageMemory(stage, trained, frozen, standing, fixed, image, part)


def _parameters(trial: Trial) -> tuple[int, set[nn.Parameter]]:
    """Return the number of trained parameters, and all parameters in memory."""
    prepared = trial.prepared
    trained = {p for o in prepared.optimizations.values() for p in o.parameters}
    networks = (*prepared.saved_modules().values(), *prepared.trainer.modules.values())
    everything = trained | {p for network in networks for p in network.parameters()}
    return sum(p.numel() for p in trained), everything


# --- the command ----------------------------------------------------------------------------------


def _automatic(model: str, size: int, memory: int) -> RunConfig | None:
    """Return preset "auto" for an image size and a memory in GB; None if the model has none."""
    preset = import_object(registry().models[model].config).sized(size, memory * 10**9)
    if preset is None:
        return None
    return RunConfig.parse({"model": model, "preset": AUTO, **as_layer(preset)}, f"{model} {AUTO}")


def _configurations(
    model: str, preset: str | None, sets: Sequence[str]
) -> Iterator[tuple[str, Callable[[], RunConfig | None]]]:
    """List the rows of a model: their titles, and functions that make the configurations."""
    presets = registry().models[model].presets if preset is None else [preset]
    for name in presets:
        if name != AUTO:
            yield (
                f"{model} {name}",
                lambda name=name: resolve_config(  # type: ignore[misc]
                    model, preset=name, sets=sets, data_needed=False
                ),
            )
    if preset in (None, AUTO):
        for size in AUTO_PIXELS:
            for memory in AUTO_MEMORY:
                title = f"{model} {AUTO} {size} px, {memory} GB"
                yield title, lambda size=size, memory=memory: _automatic(model, size, memory)  # type: ignore[misc]


def _row(title: str, memory: StageMemory) -> list[str]:
    at_a_time, part = [memory.fits(size * 1e9) for size in SIZES], memory.part
    return [
        title, memory.stage, f"{memory.trained / 1e6:.1f} + {memory.frozen / 1e6:.1f}",
        f"{memory.standing / 1e9:.2f}", f"{memory.image / 1e6:.1f}", f"{part}",
        f"{memory.taken(part) / 1e9:.2f}", *(f"{n}{' !' * (n < part)}" for n in at_a_time),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each model and preset.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m t2i.benchmarks.speed.memory")
    parser.add_argument("--model", default="all", help="a registered model; without it: all")
    parser.add_argument("--preset", help="a preset, or auto; without it: all")
    parser.add_argument("--stage", help="a training stage; without it: the largest")
    parser.add_argument("--set", action="append", default=[], help="a setting, as in t2i train")
    chosen = parser.parse_args(arguments)
    console = Console(width=132)
    table = Table("preset", "stage", "M parameters", "standing GB", "MB/image", "part", "its GB")
    for size in SIZES:
        table.add_column(f"{size} GB", justify="right")
    for model in named_models(chosen.model):
        for title, configuration in _configurations(model, chosen.preset, chosen.set):
            try:
                if config := configuration():
                    table.add_row(*_row(title, count_memory(config, chosen.stage)))
            except (T2IError, RuntimeError) as error:
                console.print(f"{title}: left out ({error})", markup=False)
    console.print(table)
    console.print(
        "GB columns: images at a time in 85 % of the memory; !: the preset's part is more"
    )


if __name__ == "__main__":
    main()
