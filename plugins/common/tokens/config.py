"""Settings of samplers that draw tokens. This does not import torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.interfaces.sampler import SamplerConfig


class TokenSamplerConfig(SamplerConfig):
    """Settings of every sampler of tokens.

    They are applied after guidance: first `temperature`, then `top_k`, then `top_p`.
    """

    temperature: float = Field(1.0, ge=0)
    """Number that the logits are divided by. Below 1 likely tokens become likelier; 0 always takes
    the likeliest one."""

    top_k: int | None = Field(None, ge=1)
    """Number of likeliest tokens that may be drawn, with those as likely as the k-th. None: all."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Probability that the likeliest tokens must reach together; only these are drawn, at least
    one. 1: all tokens (Holtzman et al. 2020)."""
