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

Called = Callable[[Tensor, Tensor, TextFeatures], tuple[Tensor, ...]]
"""What `DiffusionGenerator.forward` or `ranged` returns, as a tuple whose first is the prediction.
"""

Guided = Callable[[Tensor, Tensor, float], Tensor]
"""`guided(x_t, t, level)` returns the guided prediction (B, ...) at x_t (B, ...) and times t (B,),
whose noise level is `level`, 0 (clean) to 1 (noise)."""


GuidedRange = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""`guided(x_t, t, level)` returns the guided prediction, and v of the conditional branch (see
`DiffusionGenerator.ranged`)."""


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
    predict = _guided(lambda *given: (generator(*given),), generator, request, config)
    return lambda x_t, t, level: predict(x_t, t, level)[0]


def guided_range(
    generator: DiffusionGenerator, request: Request, config: GuidedConfig
) -> GuidedRange:
    """Wrap a generator with `learned_range` so that its predictions are guided, as `guided` does.

    Args:
        generator: The network.
        request: Gives the text, the features of no caption and the guide.
        config: Gives guidance, its interval and its rescaling.

    Returns:
        The guided network. Guidance acts on the prediction alone.

    Raises:
        UserError: Guidance needs the features of no caption, and the request has none.
    """
    predict = _guided(generator.ranged, generator, request, config)

    def both(x_t: Tensor, t: Tensor, level: float) -> tuple[Tensor, Tensor]:
        prediction, v = predict(x_t, t, level)
        return prediction, v

    return both


def _guided(
    call: Called, generator: DiffusionGenerator, request: Request, config: GuidedConfig
) -> Callable[[Tensor, Tensor, float], tuple[Tensor, ...]]:
    """Guide the first of what `call` returns; the rest is that of the conditional branch."""
    text, null, guide = request.text, request.null, request.guide
    if config.guidance != 1 and null is None:
        raise UserError(
            f"guidance {config.guidance} needs the features of no caption: pass null, or set "
            "guidance to 1"
        )
    both = TextFeatures.cat([null, text]) if config.guidance != 1 and null is not None else None
    least, most = config.guidance_interval

    def predict(x_t: Tensor, t: Tensor, level: float) -> tuple[Tensor, ...]:
        if both is None or not least <= level <= most:
            prediction, *rest = call(x_t, t, text)
        else:
            outputs = call(torch.cat([x_t, x_t]), torch.cat([t, t]), both)
            without, given = outputs[0].chunk(2)
            rest = [output.chunk(2)[1] for output in outputs[1:]]
            prediction = _rescaled(
                torch.lerp(without, given, config.guidance), given, config.guidance_rescale
            )
        if guide is not None:
            prediction = shifted_by_score(
                generator.schedule, generator.prediction, x_t, t, prediction, guide(x_t, t, text)
            )
        return prediction, *rest

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
