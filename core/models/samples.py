"""Sampling into a folder (`sample_folder.py`), and the record of what was asked for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.request import Progress
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.images import read_image
from t2i.core.io.processes import Group
from t2i.core.models.best import BestOf
from t2i.core.models.enlarging import Upsampling, enlarged_size
from t2i.core.models.interpolation import interpolate
from t2i.core.models.metadata import model_hash
from t2i.core.models.model import Model
from t2i.core.models.options import Options
from t2i.core.models.requesting import GuideMaker
from t2i.core.models.sample_folder import SampleFolder
from t2i.core.models.wanted import Key, Sample, Several, check_count, default_batch, noise_keys
from t2i.core.models.weights import tensor_bytes
from t2i.core.registry.choice import Choice


def write_samples(
    model: Model, prompts: Several, folder: Path, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
    run: Path | None = None,
    guide: Steering | None = None, progress: Callable[[int, int], None] | None = None,
    group: Group | None = None, options: Options | None = None,
    sources: Mapping[str, Path] | None = None, names: Sequence[str] = (),
    best: BestOf | None = None, steps: Progress | None = None,
    upsample: Sequence[Upsampling] = (), part: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Sample `n` images of each prompt into a folder.

    An image and its line in samples.jsonl are written as soon as its batch is sampled. An
    interrupted command leaves what is done; the same request into the same folder adds what is
    missing, in the same batches, so that each image has the bytes that it would have had.

    Args:
        model: The model.
        prompts: Captions, or text features.
        folder: A new folder, or one that the same request has begun.
        n: Images of each prompt.
        seed: Seed of the noise, from 0.
        sampler: The sampler (`Model.sampler`). None: the model's own.
        batch_size: Images sampled at once. None: chosen by image size.
        run: Where the model came from, for the record. None: not recorded.
        guide: Classifier guidance by another model. None: none.
        progress: Called with (images done, images in all).
        group: The processes that share the work. None: this process alone.
        options: Further options (`Model.options`). None: none.
        sources: Files of the options' image and mask, for the record, by "image" and "mask".
        names: Names of the rows of features without captions, for the record. Empty: their
            numbers.
        best: Several candidates of each image are sampled, and the best one is kept
            (`Model.best_of`). None: one image is sampled for each that is wanted.
        steps: Called with (steps done, steps in all) of the batch after each sampling step.
        upsample: Upsamplers that enlarge the images, in order.
        part: Part of a cascade up to which `model` goes (`Model.up_to`), for the record. None: it
            is whole.

    Returns:
        The lines of samples.jsonl, in the first process; an empty list in the others.

    Raises:
        UserError: The folder holds something else, or another command samples into it.
    """
    choice, group = sampler or model.sampler(), group or Group()
    options = options or Options()
    captions = prompts.captions if isinstance(prompts, TextFeatures) else prompts
    by_text = len(captions) == len(prompts)
    names = captions if by_text else names or [f"row {row}" for row in range(len(prompts))]
    given = [prompts.sentence, prompts.words] if isinstance(prompts, TextFeatures) else []
    noise = noise_keys(prompts, n * (best.candidates if best else 1))
    keys = [(p, s) for p in range(len(prompts)) for s in range(n)]
    extent = options.size or (model.generator.image_size, model.generator.image_size)
    extent = enlarged_size(extent, upsample)
    size = batch_size or _batch_size(extent, len(noise), group)

    make = guide.make() if guide else None

    def draw(wanted: Sequence[Key]) -> Iterator[list[Sample]]:
        return model.stream(
            prompts,
            seed=seed,
            sampler=choice,
            guide=make,
            batch_size=size,
            progress=progress,
            n=n,
            only=wanted,
            options=options,
            best=best,
            steps=steps,
            upsample=upsample,
        )

    if best and not by_text:
        raise UserError("candidates are ranked by their captions: give prompts, not features")
    model.check(prompts, choice, options)  # raises what is wrong before there is a folder
    settings = {
        "noise": "text" if by_text else "row",
        **_settings(model, choice, run, given),
        **(guide.document() if guide else {}),
        **_told(options, sources or {}),
        **({"best_of": best.document()} if best else {}),
        **({"part": part} if part else {}),
        **({"upsample": [_upsampling(one) for one in upsample]} if upsample else {}),
    }
    work = SampleFolder(
        keys, names, seed, settings, size, draw, extent, options.negative,
        noise if by_text and not given else None, best,
    )  # fmt: skip
    return work.fill(folder, n, group)


def _told(options: Options, sources: Mapping[str, Path]) -> dict[str, Any]:
    """Describe options as JSON. Negative prompts stand in the lines of their images."""
    told: dict[str, Any] = {} if options.size is None else {"size": list(options.size)}
    for name, array in (("image", options.image), ("mask", options.mask)):
        if array is not None:
            source = {"file": str(sources[name])} if name in sources else {}
            told[name] = {**source, "sha256": array_hash(array)}
    if options.image is not None:
        told["image"]["strength"] = options.strength
    if options.augmentation is not None:
        told["image"]["augmentation"] = options.augmentation
    return told


def _upsampling(one: Upsampling) -> dict[str, Any]:
    """Describe an upsampler as JSON."""
    assert isinstance(one.model, Model)
    return {
        "run": None if one.run is None else str(one.run),
        **_identity(one.model, []),
        "sampler": one.choice.dump(),
        "augmentation": one.level,
    }


def array_hash(array: np.ndarray) -> str:
    """Hash an image or a mask.

    Args:
        array: The array.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Steering:
    """Classifier guidance by another model.

    Args:
        model: The guide.
        scale: Factor of its gradient.
        run: Where it came from, for the record.
    """

    model: Model
    scale: float
    run: Path

    def make(self) -> GuideMaker:
        """Make the guide that `Model.stream` takes.

        Returns:
            The maker of the gradient.

        Raises:
            UserError: The model is not a guide.
        """
        return self.model.guide(self.scale)

    def document(self) -> dict[str, Any]:
        """Describe the guide for samples.jsonl.

        Returns:
            Its run, scale, hash and fingerprint, as JSON.
        """
        return {
            "guide": {
                "run": str(self.run),
                "scale": self.scale,
                **_identity(self.model, []),
            }
        }


def write_interpolation(
    model: Model, first: Path, last: Path, prompt: str, folder: Path, *, n: int = 8,
    sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
    run: Path | None = None,
    group: Group | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Sample `n` images on the way from one image file to another, into a folder.

    Args:
        model: The model.
        first: File of the first image. It is cropped to a square and resized.
        last: File of the last image, likewise.
        prompt: Caption of all images.
        folder: A new folder, or one that the same request has begun.
        n: Number of images, the two ends among them.
        sampler: A sampler that can invert. None: the model's own.
        batch_size: Images sampled at once. None: chosen by image size.
        run: Where the model came from, for the record. None: not recorded.
        group: The processes that share the work. None: this process alone.

    Returns:
        The lines of samples.jsonl, in the first process; an empty list in the others.

    Raises:
        UserError: The sampler cannot invert, a file cannot be read, or the folder holds something
            else.
    """
    check_count(1, n)
    choice, group = sampler or model.sampler(), group or Group()
    begin, end = (read_image(path, model.generator.image_size) for path in (first, last))
    ends = [torch.tensor(begin), torch.tensor(end)]
    settings = {**_settings(model, choice, run, ends), "interpolate": [str(first), str(last)]}
    extent = (model.generator.image_size, model.generator.image_size)
    size = batch_size or _batch_size(extent, n, group)

    def draw(wanted: Sequence[Key]) -> Iterator[list[Sample]]:
        return interpolate(
            model, begin, end, prompt, n=n, sampler=choice, batch_size=size, keys=wanted
        )

    draw(())  # samples nothing, but raises what is wrong before there is a folder
    keys = [(0, s) for s in range(n)]
    work = SampleFolder(keys, [prompt], 0, settings, size, draw, extent)
    return work.fill(folder, n, group)


def _batch_size(extent: tuple[int, int], images: int, group: Group) -> int:
    """Choose a batch size that gives every process something to do."""
    return min(default_batch(math.isqrt(extent[0] * extent[1])), -(-images // group.size))


def _settings(
    model: Model, choice: Choice[SamplerConfig], run: Path | None, given: Sequence[Tensor]
) -> dict[str, Any]:  # fmt: skip
    source = {} if run is None else {"run": str(run)}
    told = {
        "model": model.config.model,
        "preset": model.config.preset,
        **_identity(model, given),
    }
    loras = [one.document() for one in model.loras.applied]
    return {
        **source, **told, "sampler": choice.dump(), **({"loras": loras} if loras else {}),
    }  # fmt: skip


def _identity(model: Model, given: Sequence[Tensor]) -> dict[str, str]:
    """Describe what tells models apart: a hash of the weights, and one of the settings with it.

    What is given beside prompts is hashed whole.
    """
    weights = model_hash(model)
    settings = json.dumps(model.config.dump(), sort_keys=True)
    digest = hashlib.sha256(f"{settings}\n{weights}".encode())
    for tensor in given:
        digest.update(tensor_bytes(tensor))
    return {"fingerprint": digest.hexdigest()[:12], "hash": weights}
