"""Functions that samplers of tokens share: guidance on logits, and which tokens may be drawn."""

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
    """Classifier-free guidance on logits.

    The unconditional and the conditional branch run as one batch, the unconditional one first. With
    guidance 1 the unconditional branch has no effect and is not run.

    Source: Ho & Salimans 2022.

    Args:
        text: Features of the captions: 2 B rows, or B rows with guidance 1.
        scale: Guidance scale s.
    """

    text: TextFeatures
    scale: float

    @classmethod
    def of(cls, request: Request, scale: float) -> Branches:
        """Build the branches of a request.

        Args:
            request: What to sample.
            scale: Guidance scale s. 1: no guidance.

        Returns:
            The branches.

        Raises:
            UserError: There is guidance, but the request has no features of the empty caption
                (`null`).
        """
        if scale == 1:
            return cls(request.text, scale)
        if request.null is None:
            raise UserError(
                f"guidance {scale} needs the features of no caption: pass null, or set guidance to "
                f"1"
            )
        return cls(TextFeatures.cat([request.null, request.text]), scale)

    def rows(self, x: Tensor) -> Tensor:
        """Repeat an input for both branches.

        Args:
            x: The input, (B, ...).

        Returns:
            The input twice, (2 B, ...), or once with guidance 1.
        """
        return x if self.scale == 1 else torch.cat([x, x])

    def guided(self, logits: Tensor) -> Tensor:
        """Combine the logits of both branches: u + s (c - u), u unconditional and c conditional.

        Args:
            logits: Logits of both branches, (2 B, ..., K). (B, ..., K) with guidance 1.

        Returns:
            Logits (B, ..., K). They are -inf wherever either branch is -inf.
        """
        if self.scale == 1:
            return logits
        u, c = logits.chunk(2)
        forbidden = u.isneginf() | c.isneginf()
        return torch.lerp(u, c, self.scale).masked_fill(forbidden, -torch.inf)


def filtered(logits: Tensor, config: TokenSamplerConfig) -> Tensor:
    """Apply temperature, then top_k, then top_p.

    Args:
        logits: Logits of K tokens, (..., K).
        config: Settings of the sampler.

    Returns:
        Logits (..., K), -inf for tokens that may not be drawn.
    """
    logits = tempered(logits, config.temperature)
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    return logits if config.top_p == 1 else top_p(logits, config.top_p)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by the temperature.

    Args:
        logits: Logits of K tokens, (..., K).
        temperature: At least 0. At 0 only the largest logit is left, the first one of equals.

    Returns:
        Logits (..., K), -inf for tokens that are not left.
    """
    if temperature:
        return logits / temperature
    largest = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, largest, 0.0)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and those equal to the k-th.

    Args:
        logits: Logits of K tokens, (..., K).
        k: How many to keep, at least 1. More than K keeps all.

    Returns:
        Logits (..., K), -inf for tokens that are not kept.
    """
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens that together have probability p.

    A token is kept if the likelier ones together have a probability of less than p, so at least one
    is.

    Source: Holtzman et al. 2020.

    Args:
        logits: Logits of K tokens, (..., K).
        p: Probability, above 0, at most 1.

    Returns:
        Logits (..., K), -inf for tokens that are not kept.
    """
    ordered, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(-1) - ordered
    return logits.masked_fill(
        torch.empty_like(reached >= p).scatter(-1, order, reached >= p), -torch.inf
    )
