"""Sampling an image again, as the text chunks of its PNG file say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import text_key
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.io.files import place_bytes
from t2i.core.io.images import png
from t2i.core.models.enlarging import Upsampling
from t2i.core.models.metadata import Record, Source, model_hash, read_record, run_name
from t2i.core.models.model import Model
from t2i.core.models.options import Options
from t2i.core.models.requesting import GuideMaker
from t2i.core.models.samples import array_hash
from t2i.core.registry.choice import Choice
from t2i.core.runs.versions import host_version

Loader = Callable[[Path], Model]
"""Loads the model of a run."""


@dataclass(frozen=True)
class Moved:
    """Where things are that an image was sampled from, if not where its record says.

    Args:
        run: The run.
        guide: The run of the guide.
        image: The image that it started from.
        mask: The mask of that image.
        upsample: The runs of the upsamplers, in order; empty: all are where they were.
        loras: The LoRA files, in order; empty: all are where they were.
    """

    run: Path | None = None
    guide: Path | None = None
    image: Path | None = None
    mask: Path | None = None
    upsample: tuple[Path, ...] = ()
    loras: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Again:
    """An image that was sampled again.

    Args:
        path: The new file.
        same: Whether it has the bytes of the first one.
        difference: In words, how it differs. Empty: not at all.
    """

    path: Path
    same: bool
    difference: str


def sample_again(picture: Path, folder: Path, load: Loader, moved: Moved | None = None) -> Again:
    """Sample an image again, and write it with the text chunks that it had.

    The whole batch is sampled, because the size of a batch changes an image by rounding.

    Args:
        picture: A PNG file that t2i wrote.
        folder: Where the new file goes, under the name of the first.
        load: Loads the model of a run.
        moved: Where things are now. None: all are where they were.

    Returns:
        The new file, compared with the first one.

    Raises:
        UserError: The file has no record, something it names is gone or is not what it was, or the
            new file exists.
    """
    moved = moved or Moved()
    record, texts = read_record(picture)
    if record.batch is None:
        raise UserError(
            f"{picture} was not sampled from prompts alone, so its file does not hold all that it "
            "was made of: run the first command again"
        )
    _check_moved(picture, record, moved)
    target = folder / picture.name
    if target.exists():
        raise UserError(f"{target} is there already: choose another --out, or remove it")
    model = _loaded(picture, record, load, moved.run)
    _merge_loras(picture, record, model, moved.loras)
    options = _options(picture, record, model, moved)
    guide = _guide(picture, record, load, moved.guide)
    settings = dict(record.settings.sampler)
    sampler = model.sampler(str(settings.pop("name", None)), settings=settings)
    upsample = _upsamplers(picture, record, load, moved.upsample)
    image = _redrawn(model, record, sampler, options, guide, upsample)
    data = png(image, texts)
    folder.mkdir(parents=True, exist_ok=True)
    place_bytes(target, data)
    same = data == picture.read_bytes()
    return Again(target, same, "" if same else _difference(picture, image, record))


def _check_moved(picture: Path, record: Record, moved: Moved) -> None:
    """Raise a UserError if a place is given of something that the image was not made of."""
    for name in ("guide", "image", "mask"):
        if getattr(moved, name) is not None and getattr(record.settings, name) is None:
            raise UserError(f"{picture} was sampled with no {name}: leave out --{name}")


def _redrawn(
    model: Model,
    record: Record,
    sampler: Choice[SamplerConfig],
    options: Options,
    guide: GuideMaker | None,
    upsample: Sequence[Upsampling],
) -> np.ndarray:
    """Sample the batch, and return the image."""
    batch = record.batch
    assert batch is not None
    images = model.redraw(
        [batch.prompts[p] for p, _ in batch.images],
        [text_key(batch.prompts[p], number) for p, number in batch.images],
        seed=record.seed,
        sampler=sampler,
        guide=guide,
        options=options,
        upsample=upsample,
    )
    return images[batch.position]


def _loaded(picture: Path, record: Record, load: Loader, run: Path | None) -> Model:
    """Load the run of an image, and check that it is the one."""
    told = record.settings.run
    path = run or (None if told is None else Path(told))
    if path is None or not (run or path.exists()):
        raise UserError(
            f"{picture}: its run {told or '(not recorded)'} is not here: name it with --run RUN"
        )
    model = load(path)
    if record.settings.part is not None:
        model = model.up_to(record.settings.part) or model
    found, wanted = model_hash(model), record.settings.hash
    if found != wanted:
        raise UserError(
            f"{path} is not the run that sampled {picture}: that was {record.settings.model} "
            f"'{run_name(told) or 'unknown'}' with hash {wanted}; this is {model.config.model} "
            f"'{run_name(str(path))}' with hash {found}"
        )
    return model


def _merge_loras(picture: Path, record: Record, model: Model, files: Sequence[Path]) -> None:
    """Merge the LoRAs of an image into its model, and check that they are the ones."""
    told = record.settings.loras
    if files and len(files) != len(told):
        raise UserError(f"{picture} was sampled with {len(told)} LoRAs: give --lora as many times")
    for index, one in enumerate(told):
        path = files[index] if files else Path(one.file)
        if not path.exists():
            raise UserError(f"{picture}: its LoRA {path} is not here: name it with --lora FILE")
        lora = model.lora(path, one.weight)
        if lora.file.hash != one.hash:
            raise UserError(
                f"{path} is not the LoRA of {picture}: its hash is {lora.file.hash}, not {one.hash}"
            )


def _guide(picture: Path, record: Record, load: Loader, run: Path | None) -> GuideMaker | None:
    told = record.settings.guide
    if told is None:
        return None
    path = run or Path(told.run)
    if not (run or path.exists()):
        raise UserError(f"{picture}: its guide {told.run} is not here: name it with --guide RUN")
    model = load(path)
    if (found := model_hash(model)) != told.hash:
        raise UserError(
            f"{path} is not the guide of {picture}: its hash is {found}, not {told.hash}"
        )
    return model.guide(told.scale)


def _upsamplers(
    picture: Path, record: Record, load: Loader, runs: Sequence[Path]
) -> list[Upsampling]:
    """Load the upsamplers of an image, and check that they are the ones."""
    told = record.settings.upsample
    if runs and len(runs) != len(told):
        raise UserError(
            f"{picture} was enlarged by {len(told)} upsamplers: give --upsample as many times"
        )
    found: list[Upsampling] = []
    for index, one in enumerate(told):
        path = runs[index] if runs else None if one.run is None else Path(one.run)
        if path is None or not (runs or path.exists()):
            raise UserError(
                f"{picture}: its upsampler {one.run or '(not recorded)'} is not here: name it with "
                "--upsample RUN"
            )
        model = load(path)
        if (digest := model_hash(model)) != one.hash:
            raise UserError(
                f"{path} is not the upsampler of {picture}: its hash is {digest}, not {one.hash}"
            )
        settings = dict(one.sampler)
        choice = model.sampler(str(settings.pop("name", None)), settings=settings)
        found.append(Upsampling(model, choice, one.augmentation, path))
    return found


def _options(picture: Path, record: Record, model: Model, moved: Moved) -> Options:
    """Make the options of the batch, and check that image and mask are what they were."""
    batch, settings = record.batch, record.settings
    assert batch is not None
    image, mask = settings.image, settings.mask
    options = model.options(
        negative=[batch.negative[p] for p, _ in batch.images] if batch.negative else None,
        image=None if image is None else _file(picture, "image", image, moved.image),
        mask=None if mask is None else _file(picture, "mask", mask, moved.mask),
        strength=None if image is None else image.strength,
        size=settings.size,
        augmentation=None if image is None else image.augmentation,
    )
    for name, told, found in (("image", image, options.image), ("mask", mask, options.mask)):
        if told is not None and (found is None or array_hash(found) != told.sha256):
            raise UserError(
                f"{picture}: {told.file or f'the {name}'} is not the {name} that it started from: "
                f"name that one with --{name} FILE"
            )
    return options


def _file(picture: Path, name: str, told: Source, given: Path | None) -> Path:
    path = given or (None if told.file is None else Path(told.file))
    if path is None or not path.exists():
        raise UserError(
            f"{picture}: the {name} that it started from, {path or '(not recorded)'}, is not here: "
            f"name it with --{name} FILE"
        )
    return path


def _difference(picture: Path, image: np.ndarray, record: Record) -> str:
    """Say how an image differs from the first one."""
    with Image.open(picture, formats=("PNG",)) as opened:
        first = np.asarray(opened.convert("RGB"))
    if first.shape != image.shape:
        return f"the first is {first.shape[1]} x {first.shape[0]} pixels: it was resized"
    levels = np.abs(first.astype(int) - image)
    if not levels.any():
        return "all pixels are the same: the first was written by another program or version"
    share = (levels.max(2) > 0).mean()
    return (
        f"{share:.1%} of the pixels differ, by up to {levels.max()} of 255: another machine, other "
        f"versions (the first is of t2i {record.version}, this is {host_version()}), or an edited "
        "file"
    )
