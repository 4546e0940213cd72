"""Guidance of diffusion models: classifier-free, and by a classifier."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import shifted_by_score
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.diffusion.config import GuidedConfig

Guided = Callable[[Tensor, Tensor, float], Tensor]
"""`guided(x_t, t, level)` returns the guided prediction (B, ...) at x_t (B, ...) and times t (B,),
whose noise level is `level`, 0 (clean) to 1 (noise)."""


def guided(generator: DiffusionGenerator, request: Request, config: GuidedConfig) -> Guided:
    """Wrap a generator so that its predictions are guided.

    Classifier-free guidance (thesis 2.30; Ho & Salimans 2022) runs both branches in one batch. The
    unconditional branch is not run where it has no effect: at guidance 1, and outside the guidance
    interval. If the request has a guide, its gradient is added as well (thesis 2.29; Dhariwal &
    Nichol 2021, algorithm 2).

    Args:
        generator: The network.
        request: Gives the text, the features of no caption and the guide.
        config: Gives guidance, its interval and its rescaling.

    Returns:
        The guided network.

    Raises:
        UserError: Guidance needs the features of no caption, and the request has none.
    """
    text, null, guide = request.text, request.null, request.guide
    if config.guidance != 1 and null is None:
        raise UserError(
            f"guidance {config.guidance} needs the features of no caption: pass null, or set "
            "guidance to 1"
        )
    both = TextFeatures.cat([null, text]) if config.guidance != 1 and null is not None else None
    least, most = config.guidance_interval

    def predict(x_t: Tensor, t: Tensor, level: float) -> Tensor:
        if both is None or not least <= level <= most:
            prediction = generator(x_t, t, text)
        else:
            without, given = generator(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
            prediction = _rescaled(
                torch.lerp(without, given, config.guidance), given, config.guidance_rescale
            )
        if guide is None:
            return prediction
        gradient = guide(x_t, t, text)
        return shifted_by_score(
            generator.schedule, generator.prediction, x_t, t, prediction, gradient
        )

    return predict


def _rescaled(guided: Tensor, given: Tensor, share: float) -> Tensor:
    """Rescale a prediction, which guidance makes too large, so that images are over-exposed.

    Source: Lin et al. 2024, equations 15 and 16.
    """
    if not share:
        return guided
    dims = tuple(range(1, guided.dim()))
    back = guided * (given.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return torch.lerp(guided, back, share)
