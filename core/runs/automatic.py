"""The preset `auto`: networks and training settings by image size and machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.settings import DataConfig, ModelConfig, Preset

if TYPE_CHECKING:
    from t2i.core.interfaces.dataset import Dataset

SMALLEST, LARGEST = 32, 256
"""Image sizes between which the size is chosen; a larger one must be asked for. On a CPU it is the
smallest: in the same minutes, larger images get far fewer steps."""

LOOKED_AT = 64
"""Number of images whose sizes are read."""

MINUTES = {"cpu": 10.0}
"""Training time for images of 32 pixels by kind of device; other kinds: ACCELERATED."""

ACCELERATED = 30.0
"""Training time on an accelerator for images of 32 pixels, in minutes."""

WORKERS = 4
"""Most processes that load data for an accelerator."""


@dataclass(frozen=True)
class Machine:
    """The machine that a preset is chosen for.

    Args:
        device: Name of the device, such as "cuda:0".
        memory: Memory of the accelerator in bytes. None: the device is the CPU.
        precision: Precision that suits the device.
        workers: Number of processes that load data.
    """

    device: str
    memory: int | None
    precision: str
    workers: int

    @classmethod
    def of(cls, name: str | None) -> Machine:
        """Describe this machine.

        Args:
            name: Name of the device. None: the best one.

        Returns:
            The machine.

        Raises:
            UserError: This machine has no such device.
        """
        from t2i.core.devices import best_precision, memory_of, named_device

        device = named_device(name)
        if device.type == "cpu":
            return cls("cpu", None, "no", 0)
        workers = min(WORKERS, max(0, (os.cpu_count() or 1) - 1))
        return cls(str(device), memory_of(device), best_precision(device), workers)

    def __str__(self) -> str:
        if self.memory is None:
            return self.device
        return f"{self.device} with {self.memory / 1e9:.0f} GB"


def automatic_preset(
    model: str,
    given: Mapping[str, Any],
    data: Choice[DataConfig],
    opened: Callable[[], Dataset],
    machine: Machine,
    say: Callable[[str], None],
) -> Preset:
    """Choose networks and training settings for a data set and a machine, and report the choice.

    Args:
        model: Name of the model.
        given: Settings that the user chose. Without `image_size`, the size follows from the data
            set's images and the machine.
        data: The data set.
        opened: Opens it; only called where the size follows from it.
        machine: The machine.
        say: Takes the lines that tell what was chosen and why.

    Returns:
        The preset.

    Raises:
        UserError: The model has no preset `auto`, or the data set cannot be opened.
    """
    config: type[ModelConfig] = import_object(registry().models[model].config)
    if isinstance(chosen := given.get("image_size"), int):
        size, reason = chosen, "as you chose"
    else:
        largest = SMALLEST if machine.memory is None else LARGEST
        size, reason = _size_of(data, opened(), largest)
    preset = config.sized(size, machine.memory)
    if preset is None:
        named = ", ".join(registry().models[model].presets)
        raise UserError(f"model '{model}' has no preset 'auto'; its presets: {named}")
    minutes = (MINUTES["cpu"] if machine.memory is None else ACCELERATED) * max(size, 32) / 32
    own = {"minutes": minutes, "precision": machine.precision, "workers": machine.workers}
    settings = {**preset.settings, **own}
    say(f"preset auto: {size} px, {reason}")
    used = {**settings, **{name: given[name] for name in settings.keys() & given}}
    say(f"preset auto: for {machine}, {_described(used)}; any option overrides this")
    return Preset(settings, preset.data, preset.encoder, preset.sampler)


def _described(settings: Mapping[str, Any]) -> str:
    precision = {"no": "float32"}.get(settings["precision"], settings["precision"])
    minutes = settings["minutes"]
    budget = f"{settings['steps']} steps" if minutes is None else f"{minutes:g} minutes"
    return (
        f"batches of {settings['batch_size']}, {precision}, {settings['workers']} loader "
        f"processes, {budget}"
    )


def _size_of(data: Choice[DataConfig], dataset: Dataset, largest: int) -> tuple[int, str]:
    """Choose an image size for a data set, at most `largest`. Returns it with the reason."""
    sides = shorter_sides(dataset, LOOKED_AT)
    if not sides:
        return data.config.image_size, f"the size of data set '{data.name}'"
    middle = int(statistics.median(sides))
    size = max(SMALLEST, min(largest, 1 << (middle.bit_length() - 1)))
    few = " (of larger images a CPU learns little)" if largest < LARGEST else ""
    bound = f", and {size} is the most unless you choose{few}" if middle >= 2 * largest else ""
    return size, f"because the shorter sides of the images are {middle} px in the median{bound}"


def shorter_sides(dataset: Dataset, looked_at: int) -> list[int]:
    """Read the shorter sides of some images of a data set, evenly spread over it.

    Args:
        dataset: The data set.
        looked_at: About how many images are read.

    Returns:
        The sides in the files, in pixels. Broken images are left out, and images that are not in
        files.
    """
    count, sides = len(dataset), []
    for index in range(0, count, max(1, count // looked_at)):
        try:
            original = dataset.original(index)
        except BrokenExample:
            continue
        if original is not None:
            sides.append(min(original.width, original.height))
    return sides
