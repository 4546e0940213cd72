"""What samplers of tokens share: guidance on logits, and the choice of tokens to sample from."""

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

    Both branches are run as one batch, the unconditional one first. At guidance 1 the unconditional
    branch has no effect and is not run.

    Source: Ho & Salimans 2022.

    Args:
        text: Features of 2 B rows, the first B of no caption; of B rows without guidance.
        scale: Scale s of the guidance.
    """

    text: TextFeatures
    scale: float

    @classmethod
    def of(cls, request: Request, scale: float) -> Branches:
        """Make the branches of a request.

        Args:
            request: Gives the text and the features of no caption.
            scale: Scale s of the guidance; 1 is none.

        Returns:
            The branches.

        Raises:
            UserError: There is guidance, but the request has no features of no caption.
        """
        if scale == 1:
            return cls(request.text, scale)
        if request.null is None:
            raise UserError(
                f"guidance {scale} needs the features of no caption: pass null, or set guidance to "
                "1"
            )
        return cls(TextFeatures.cat([request.null, request.text]), scale)

    def rows(self, x: Tensor) -> Tensor:
        """Repeat a tensor for both branches.

        Args:
            x: Input of one branch, (B, ...).

        Returns:
            (2 B, ...), or x itself without guidance.
        """
        return x if self.scale == 1 else torch.cat([x, x])

    def guided(self, logits: Tensor) -> Tensor:
        """Combine the logits of both branches: u + s (c - u).

        Args:
            logits: Logits of both branches, float (2 B, ..., K), or (B, ..., K) without guidance.

        Returns:
            The guided logits, float (B, ..., K). What either branch forbids stays forbidden (-inf).
        """
        if self.scale == 1:
            return logits
        u, c = logits.chunk(2)
        forbidden = u.isneginf() | c.isneginf()
        return torch.lerp(u, c, self.scale).masked_fill(forbidden, -torch.inf)


def filtered(logits: Tensor, config: TokenSamplerConfig) -> Tensor:
    """Apply temperature, then top_k, then top_p to logits.

    Args:
        logits: Logits, float (..., K).
        config: The three settings.

    Returns:
        The logits to sample from, float (..., K); -inf for tokens that may not be sampled.
    """
    logits = tempered(logits, config.temperature)
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    return logits if config.top_p == 1 else top_p(logits, config.top_p)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits by a temperature.

    Args:
        logits: Logits, float (..., K).
        temperature: The temperature. At 0 only the largest logit is left, the first of equal ones.

    Returns:
        The logits, float (..., K).
    """
    if temperature:
        return logits / temperature
    largest = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, largest, 0.0)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and those equal to the k-th.

    Args:
        logits: Logits, float (..., K).
        k: How many to keep.

    Returns:
        The logits, with -inf for the others.
    """
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probabilities add up to p.

    Args:
        logits: Logits, float (..., K).
        p: The probability, above 0, at most 1.

    Returns:
        The logits, with -inf for the others.
    """
    ordered, order = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(-1) - ordered
    return logits.masked_fill(
        torch.empty_like(reached >= p).scatter(-1, order, reached >= p), -torch.inf
    )
