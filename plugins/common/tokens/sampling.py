"""What samplers of tokens share: guidance on logits, and which tokens may be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.tokens.config import TokenSamplerConfig


@dataclass(frozen=True)
class Branches:
    """Classifier-free guidance on logits (Ho & Salimans 2022): both branches are run as one batch, the unconditional
    one first. With guidance 1, where it cancels, it is not run.

    text: features of 2 B rows, or of B where there is no guidance. scale: s.
    """

    text: TextFeatures
    scale: float

    @classmethod
    def of(cls, request: Request, scale: float) -> Branches:
        """Those of a request. UserError if there is guidance, but no features of no caption."""
        if scale == 1:
            return cls(request.text, scale)
        if request.null is None:
            raise UserError(
                f"guidance {scale} needs the features of no caption: pass null, or set guidance to 1"
            )
        return cls(TextFeatures.cat([request.null, request.text]), scale)

    def rows(self, x: Tensor) -> Tensor:
        """What both branches are given: x (B, ...), once for each."""
        return x if self.scale == 1 else torch.cat([x, x])

    def guided(self, logits: Tensor) -> Tensor:
        """u + s (c - u), (B, ..., K), of the logits of both branches. What either forbids stays out (-inf)."""
        if self.scale == 1:
            return logits
        u, c = logits.chunk(2)
        forbidden = u.isneginf() | c.isneginf()
        return torch.lerp(u, c, self.scale).masked_fill(forbidden, -torch.inf)


def filtered(logits: Tensor, config: TokenSamplerConfig) -> Tensor:
    """The logits (..., K) of what is drawn: temperature, then top_k, then top_p; -inf for what may not be drawn."""
    logits = tempered(logits, config.temperature)
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    return logits if config.top_p == 1 else top_p(logits, config.top_p)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature; at 0 only the largest one, the first of equals, is left."""
    if temperature:
        return logits / temperature
    largest = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, largest, 0.0)


def top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits, and those equal to the k-th."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """The likeliest tokens before which less than p has been reached: the fewest that reach p together."""
    ordered, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(-1) - ordered
    return logits.masked_fill(
        torch.empty_like(reached >= p).scatter(-1, order, reached >= p), -torch.inf
    )
