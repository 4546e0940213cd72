"""Settings of the sampler `maskgit`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.tokens.config import TokenSamplerConfig


class MaskGITConfig(TokenSamplerConfig):
    """Settings of the sampler `maskgit`."""

    randomness: float = Field(4.5, ge=0)
    """Weight of the Gumbel noise in a token's confidence at the start. It falls linearly to 0 over
    the steps. 0: no noise."""
