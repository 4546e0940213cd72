"""Images on the way from one image to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.cascade import CascadeGenerator
from t2i.core.interfaces.noise import PromptNoise, slerp
from t2i.core.interfaces.sampler import Sampler, SamplerConfig
from t2i.core.io.images import to_tensor
from t2i.core.models.model import Model
from t2i.core.models.wanted import Sample
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import fitting_samplers


def interpolate(
    model: Model,
    first: np.ndarray,
    last: np.ndarray,
    prompt: str = "",
    *,
    n: int = 8,
    sampler: Choice[SamplerConfig] | None = None,
    batch_size: int | None = None,
    keys: Sequence[tuple[int, int]] | None = None,
) -> Iterator[list[Sample]]:
    """Sample images on the way from one image to another.

    The sampler inverts both images to noise, interpolates between the two noises on the sphere,
    and samples from each. Source: Song et al. 2021 (DDIM), section 5.3. A model that draws
    embeddings of images first interpolates between those of the two images (Ramesh et al. 2022,
    section 3.2).

    Args:
        model: The model.
        first: The first image, uint8 (H, W, 3), of the model's size.
        last: The last image, likewise.
        prompt: Caption of all images.
        n: Number of images, the two ends among them.
        sampler: A sampler that can invert. None: the model's own.
        batch_size: Images sampled at once. None: chosen by image size.
        keys: The images to sample, as (0, number), instead of all `n`. They key the noise.

    Returns:
        An iterator over the batches.

    Raises:
        UserError: The sampler cannot invert, or an image has another size.
    """
    size = (model.generator.image_size, model.generator.image_size, 3)
    if {first.shape, last.shape} != {size}:
        raise UserError(
            f"images of {first.shape} and {last.shape}: this model interpolates between {size}"
        )
    built = model.check(prompt, sampler)
    if not built.inverts(model.generator):
        name = (sampler or model.config.sampler).name
        raise UserError(
            f"sampler '{name}' cannot turn images into noise, to draw between them: "
            f"{_inverters(model)}"
        )
    shares = torch.linspace(0, 1, n)
    wanted = tuple((0, s) for s in range(n)) if keys is None else tuple(keys)
    images = np.stack([first, last])
    return _between(
        model, built, images, prompt, wanted, shares[[s for _, s in wanted]], batch_size
    )


def _inverters(model: Model) -> str:
    """Name the samplers that can invert, as a remedy."""
    fitting = [
        registry().samplers.choose(spec.name, {})
        for spec in fitting_samplers(model.generator.family)
    ]
    able = [
        choice.name
        for choice in fitting
        if registry().samplers.build(choice).inverts(model.generator)
    ]
    return f"use --sampler {' or '.join(able)}" if able else "no sampler of this family can"


def _between(
    model: Model,
    sampler: Sampler,
    images: np.ndarray,
    prompt: str,
    keys: tuple[tuple[int, int], ...],
    shares: Tensor,
    batch_size: int | None,
) -> Iterator[list[Sample]]:
    """Sample from the noise between that of two images."""
    model.eval()
    with torch.no_grad():
        ends, noise = (
            to_tensor(images, model.device),
            PromptNoise(0, ((0, 0), (0, 1)), model.device),
        )
        request = model.request([prompt] * 2, noise, null=sampler.needs_null)
        begin, end = sampler.invert(model.generator, ends, request)
        # Where embeddings are between two images, one noise serves all images.
        embeds = isinstance(model.generator, CascadeGenerator)
        drawn = ((0, 0),) * len(keys) if embeds else keys
        between = PromptNoise(0, drawn, model.device, slerp(begin, end, shares.to(model.device)))
    yield from model.images_of(sampler, [prompt], keys, between, batch_size=batch_size)
