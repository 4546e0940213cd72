"""Settings of samplers that generate tokens.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from pydantic import Field

from t2i.core.interfaces.sampler import SamplerConfig


class TokenSamplerConfig(SamplerConfig):
    """Settings of every sampler of tokens.

    They are applied in this order, after guidance: temperature, top_k, top_p.
    """

    temperature: float = Field(1.0, ge=0)
    """Number by which the logits are divided. Below 1, likely tokens become likelier; 0 always
    takes the likeliest token."""

    top_k: int | None = Field(None, ge=1)
    """Number of likeliest tokens to sample from; tokens as likely as the k-th are included. None:
    all tokens."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Sample only from the fewest likeliest tokens whose probabilities add up to this, above 0, at
    most 1. 1: all tokens (Holtzman et al. 2020)."""
