"""Further options of a request to sample: negative prompts, an image to start from, a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.cascade import Enlarging
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.sampler import Sampler, SamplerConfig, UnguidedConfig
from t2i.core.io.images import read_whole, to_tensor
from t2i.core.registry.choice import Choice

STRENGTH = 0.8
"""Strength of image-to-image where none is given, that of diffusers."""

WIDEST = 16
"""Longest side that is sampled, as a multiple of the side of the images that a model knows."""

Picture = Image.Image | np.ndarray | str | Path
"""An image as users give it: a PIL image, uint8 (H, W, 3) or (H, W), or a file."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Further options of a request to sample.

    Args:
        negative: Negative prompts: none, one for all prompts, or one for each. They take the place
            of the empty caption in classifier-free guidance.
        image: The image to start from, uint8 (H, W, 3), of the size of the samples; that to
            enlarge, of its own size, for an upsampler. None: noise.
        mask: Where the image may change, bool (H, W). None: everywhere.
        strength: Share of the chain that the image goes through, from 0 to 1.
        size: Height and width of the samples in pixels. None: the generator's own.
        augmentation: Level of the noise that is added to an image to enlarge, from 0 to 1. None:
            the upsampler's own.
    """

    negative: Sequence[str] = ()
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    strength: float = 1.0
    size: tuple[int, int] | None = None
    augmentation: float | None = None

    def of(self, rows: Sequence[int]) -> RowOptions:
        """Take the options of some prompts.

        Args:
            rows: Indexes of the prompts.

        Returns:
            The options of a batch with one image for each.
        """
        negative = (
            self.negative if len(self.negative) != 1 else [self.negative[0]] * (1 + max(rows))
        )
        return RowOptions(
            negative=[negative[row] for row in rows] if negative else [],
            image=self._batch(self.image, len(rows)),
            mask=self._batch(self.mask, len(rows)),
            strength=self.strength,
            size=self.size,
            augmentation=self.augmentation,
        )

    @staticmethod
    def _batch(image: np.ndarray | None, count: int) -> Tensor | None:
        if image is None:
            return None
        if image.ndim == 2:
            return torch.from_numpy(image)[None, None].expand(count, -1, -1, -1)
        return to_tensor(image[None]).expand(count, -1, -1, -1)


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """The options of one batch.

    Args:
        negative: A negative prompt for each image; empty: none.
        image: The image to start from for each, float (B, 3, H, W) in [-1, 1]. None: noise.
        mask: Where it may change, (B, 1, H, W). None: everywhere.
        strength: As in `Options`.
        size: As in `Options`.
        augmentation: As in `Options`.
    """

    negative: Sequence[str] = field(default_factory=list)
    image: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0
    size: tuple[int, int] | None = None
    augmentation: float | None = None


def options_for(
    generator: Generator,
    model: str,
    *,
    negative: str | Sequence[str] | None = None,
    image: Picture | None = None,
    mask: Picture | None = None,
    strength: float | None = None,
    size: tuple[int, int] | None = None,
    augmentation: float | None = None,
) -> Options:
    """Check what a user asks for, and fit the image and the mask to the size of the samples.

    An image with other proportions is cropped to its central part, then resized.

    Args:
        generator: The generator that is to be sampled from.
        model: Its name, for messages.
        negative: A negative prompt for all prompts, or one for each. None: none.
        image: Image to start from, or to enlarge if the generator is an upsampler. None: noise.
        mask: Where the image may change: white may, black may not. None: everywhere.
        strength: Share of the chain that the image goes through, from 0 to 1. None: `STRENGTH`, or
            1 with a mask.
        size: Height and width of the samples in pixels. None: the generator's own.
        augmentation: Level of the noise that is added to an image to enlarge, from 0 to 1. None:
            the upsampler's own.

    Returns:
        The options.

    Raises:
        UserError: The generator has no such size, an image cannot be read, the mask has other
            proportions than the image, or an option lacks the image that it belongs to.
    """
    _check_size(generator, model, size)
    _check_augmentation(generator, model, image is not None, augmentation)
    if image is None and (mask is not None or strength is not None):
        raise UserError(
            f"{'a mask' if mask is not None else 'strength'} belongs to an image to start from: "
            "give --image FILE (image= in Python) too"
        )
    if strength is not None and not 0 <= strength <= 1:
        raise UserError(f"strength {strength:g}: it lies between 0 (unchanged) and 1 (from noise)")
    negatives = [negative] if isinstance(negative, str) else list(negative or ())
    made = Options(negative=negatives, size=size, augmentation=augmentation)
    if image is None:
        return made
    target = size or (generator.image_size, generator.image_size)
    if isinstance(generator, Enlarging):
        if mask is not None or strength not in (None, 1):
            raise UserError(
                f"model '{model}' enlarges the image, and changes all of it: leave out --mask and "
                "--strength"
            )
        ratio, strength = generator.image_size // generator.low_size, 1.0
        target = (target[0] // ratio, target[1] // ratio)
    whole = _opened(image, "image")
    made = replace(made, image=np.array(_fitted(whole, target)))
    if mask is not None:
        part = _opened(mask, "mask").convert("L")
        if part.width * whole.height != part.height * whole.width:
            raise UserError(
                f"the mask is {part.width} x {part.height} pixels, the image {whole.width} x "
                f"{whole.height}: give a mask of the image's size"
            )
        made = replace(made, mask=np.array(_fitted(part, target)) >= 128)
    default = STRENGTH if mask is None else 1.0
    return replace(made, strength=default if strength is None else float(strength))


def _check_size(generator: Generator, model: str, size: tuple[int, int] | None) -> None:
    own, step = generator.image_size, generator.size_step
    if size is None:
        return
    if len(size) != 2 or not all(isinstance(length, int) for length in size):
        raise UserError(f"size {size}: give height and width in pixels, such as ({own}, {own})")
    if tuple(size) == (own, own):
        return
    if step is None:
        raise UserError(
            f"model '{model}' samples images of {own} x {own} pixels only: leave out --width and "
            "--height"
        )
    most = WIDEST * own // step * step
    for name, length in zip(("height", "width"), size, strict=True):
        if length < step or length % step or length > most:
            near = {max(step, length // step * step), max(step, -(-length // step) * step)}
            fitting = sorted({min(most, side) for side in near})
            raise UserError(
                f"{name} {length}: model '{model}' samples multiples of {step} pixels up to "
                f"{most}, such as {' or '.join(map(str, fitting))}"
            )


def _check_augmentation(generator: Generator, model: str, image: bool, level: float | None) -> None:
    if level is None:
        return
    if not isinstance(generator, Enlarging):
        raise UserError(f"augmentation: model '{model}' enlarges no images: leave it out")
    if not image:
        raise UserError(
            "augmentation belongs to an image to enlarge: give --image FILE (image= in Python) too"
        )
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
        raise UserError(f"augmentation = {level}: a number between 0 and 1")


def _opened(image: Picture, what: str) -> Image.Image:
    """Open an image as RGB, upright."""
    if isinstance(image, str | Path):
        return read_whole(Path(image), what)
    if isinstance(image, np.ndarray):
        if image.dtype == bool:
            image = image.astype(np.uint8) * 255
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UserError(
                f"{what} of {image.dtype} {image.shape}: give uint8 (H, W, 3), a PIL image or a "
                "file"
            )
        image = Image.fromarray(image)
    return image.convert("RGB")


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop an image to its central part of the right proportions, and resize that part."""
    height, width = size
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS, box)


def check_negative(
    prompts: int,
    negative: Sequence[str],
    built: Sampler,
    choice: Choice[SamplerConfig],
) -> None:
    """Check that negative prompts have an effect, and fit the prompts.

    Args:
        prompts: Number of prompts.
        negative: The negative prompts.
        built: The sampler.
        choice: Its name and settings.

    Raises:
        UserError: They have none, or do not fit.
    """
    if len(negative) not in (1, prompts):
        plural = "prompt" if prompts == 1 else "prompts"
        raise UserError(
            f"{len(negative)} negative prompts for {prompts} {plural}: give one for all, or "
            "one for each"
        )
    if isinstance(choice.config, UnguidedConfig):
        raise UserError(
            f"sampler '{choice.name}' has no classifier-free guidance, so a negative prompt "
            "has no effect: leave it out"
        )
    if not built.needs_null:
        raise UserError(
            "guidance is 1, so a negative prompt has no effect: give a guidance above 1, or "
            "leave the negative prompt out"
        )
