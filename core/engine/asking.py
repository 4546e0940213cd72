"""Images that a data set asks the model for, before the model is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from t2i.core.interfaces.dataset import Asked, Dataset
from t2i.core.io.files import place_bytes
from t2i.core.io.images import png
from t2i.core.models.model import Model


def sample_asked(
    dataset: Dataset, model: Model, seed: int, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Sample the images that a data set asks for, with the weights that training starts from.

    Each image is written as soon as its batch is done; a run that begins again adds the rest.

    Args:
        dataset: The data set.
        model: The model with the weights that training starts from.
        seed: Seed of the noise.
        say: Takes a line of progress.

    Raises:
        UserError: The model samples no images, or the folder cannot be written.
    """
    asked = dataset.asked()
    if asked is None:
        return
    say(f"sampling {asked.count} images of '{asked.caption}' into {asked.folder}")
    asked.folder.mkdir(parents=True, exist_ok=True)
    names = _free_names(asked)
    done = 0
    for batch in model.stream(asked.caption, n=asked.count, seed=seed):
        for sample in batch:
            place_bytes(names[sample.sample], png(sample.image, {}))
        done += len(batch)
        say(f"sampled {done} of {asked.count}")


def _free_names(asked: Asked) -> list[Path]:
    """Name as many new files as are asked for."""
    number, names = 0, list[Path]()
    while len(names) < asked.count:
        path = asked.folder / f"{number:05d}.png"
        names += [] if path.exists() else [path]
        number += 1
    return names
