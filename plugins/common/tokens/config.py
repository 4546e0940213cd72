"""Settings of samplers that draw tokens. Light: no torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.interfaces.sampler import SamplerConfig


class TokenSamplerConfig(SamplerConfig):
    """What every sampler of tokens can be told.

    temperature: logits are divided by it; below 1 likely tokens become likelier, 0 takes the likeliest one always.
    top_k: only the k likeliest tokens are drawn, and those as likely as the k-th (None: all).
    top_p: only the likeliest tokens that together reach this probability are drawn, one at least (1: all; Holtzman et
    al. 2020). They are applied in this order, after guidance.
    """

    temperature: float = Field(1.0, ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)
