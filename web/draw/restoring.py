"""Reading the settings of an image back from its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.web.draw.sources import Source
from t2i.web.draw.wish import Settings
from t2i.web.site import Limits


@dataclass(frozen=True)
class Restored:
    """What an image was sampled with.

    Args:
        prompt: Its prompt.
        settings: Everything else. The model is "" if the page does not serve it.
        images: How many images of the prompt there must be for this one to be among them.
        told: What the visitor should know, in a line. "": nothing.
    """

    prompt: str
    settings: Settings
    images: int
    told: str = ""


def restored(file: Path, known: Mapping[str, Source], limits: Limits) -> Restored:
    """Read how an image was sampled. Torch is imported.

    Args:
        file: The visitor's file.
        known: The models that the page serves, by name.
        limits: How large the image may be.

    Returns:
        Its settings.

    Raises:
        UserError: It is no PNG file that t2i wrote, it is too large, or its record is damaged.
    """
    from t2i.core.models.metadata import read_record

    _check_size(file, limits)
    try:
        record, _ = read_record(file)
    except UserError as error:
        raise UserError(str(error).replace(str(file), "the file")) from None
    sampler = dict(record.settings.sampler)
    model = _model(record.settings.run, known)
    batch = record.batch
    number, negative = 0, ""
    if batch is not None:
        row, number = batch.images[batch.position]
        negative = batch.negative[row] if batch.negative else ""
    steps, guidance = sampler.pop("steps", None), sampler.pop("guidance", None)
    settings = Settings(
        model=model,
        sampler=str(sampler.pop("name", "")) or None,
        steps=steps if isinstance(steps, int) else None,
        guidance=float(guidance) if isinstance(guidance, int | float) else None,
        seed=record.seed,
        negative=negative,
        more=tuple(f"{name}={_value(value)}" for name, value in sampler.items()),
    )
    told = "" if model else f"its run {record.settings.run or '(not recorded)'} is not served here"
    return Restored(record.prompt, settings, min(number + 1, limits.images), told)


def _check_size(file: Path, limits: Limits) -> None:
    """Refuse a file that is too large before its pixels are read."""
    from PIL import Image

    if file.stat().st_size > limits.upload_bytes:
        raise UserError(f"the file is larger than {limits.upload_bytes >> 20} MiB")
    try:
        with Image.open(file, formats=("PNG",)) as image:
            width, height = image.size
    except Exception:  # Pillow raises anything at all on damaged files
        raise UserError("the file is no PNG image: drop one that t2i sampled") from None
    if width * height > limits.upload_pixels:
        raise UserError(f"the image has {width} x {height} pixels: that is too large")


def _model(run: str | None, known: Mapping[str, Source]) -> str:
    """Return the name of the model that lies at a path, or has its name on the hub; else ""."""
    if run is None:
        return ""
    for name, source in known.items():
        if run == str(source.place) or Path(run).resolve() == Path(source.place).resolve():
            return name
    return ""


def _value(value: Any) -> str:
    """Write a setting as YAML, which JSON is a part of."""
    return json.dumps(value)
