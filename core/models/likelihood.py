"""The log-likelihood of a model that declares one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.likelihood import Likelihood
from t2i.core.interfaces.noise import Noise
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry


def likelihood_of(model: Model, settings: Mapping[str, Any] | None = None) -> Likelihood | None:
    """Build the log-likelihood of a model: that of its specification, or of its generator.

    Args:
        model: The model.
        settings: Settings of the likelihood, such as the tolerance of a solver. None: its defaults.

    Returns:
        The likelihood. None: the model declares none (`ModelSpec.likelihood`), and its generator
        has none (`Generator.likelihood`).

    Raises:
        UserError: A setting is unknown or wrong, or this model has no likelihood of images.
    """
    path = registry().models[model.config.model].likelihood
    if path is None:
        return model.generator.likelihood(dict(settings or {}))
    built: Likelihood | None = import_object(path)(model.generator, dict(settings or {}))
    return built


@torch.no_grad()
def nats_of(
    model: Model, likelihood: Likelihood, images: Tensor, captions: Sequence[str], noise: Noise
) -> Tensor:
    """Compute -log p(image | caption) of images under a model.

    Args:
        model: The model. It is put into evaluation mode.
        likelihood: Its likelihood, from `likelihood_of`.
        images: Images, uint8 (B, 3, H, W).
        captions: Their B captions.
        noise: Source of every random number, one row for each image.

    Returns:
        -log p, float64 (B,), on the CPU.

    Raises:
        UserError: The images have another size than the model's.
    """
    size = model.generator.image_size
    if tuple(images.shape[1:]) != (3, size, size):
        height, width = images.shape[-2:]
        raise UserError(
            f"images of {width}x{height} pixels: model '{model.config.model}' has a likelihood of "
            f"images of {size}x{size}"
        )
    model.eval()
    text = model.generator.condition(model.text_encoder.encode(captions))
    return likelihood.nats(images.to(model.device), text, noise)
